import matplotlib

matplotlib.use("Agg")

import base64
import io
import re
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import norm
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import vilogit
from vilogit import (
    MeanField,
    Posterior,
    VariationalLogisticRegression,
    fit,
    flipbook,
    picture,
    plot_before_after,
    plot_class_map,
    plot_coefficients,
    softmax,
)
from vilogit.maps import MARKERS, PALETTE, blend


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def posterior(seed):
    rng = np.random.default_rng(seed)
    return Posterior(MeanField(rng.standard_normal((3, 3)), np.full((3, 3), -1.0)), elbo=0.0)


def points_of(ax):
    return [c for c in ax.collections if isinstance(c, matplotlib.collections.PathCollection)]


def test_certain_classes_have_their_own_colour():
    colours = [matplotlib.colors.to_rgb(c) for c in PALETTE]
    np.testing.assert_allclose(blend(np.eye(len(PALETTE))), colours, atol=1e-12)


def test_mixtures_add_light_not_codes():
    # Half of full light is sRGB 0.7354, not 0.5 (IEC 61966-2-1).
    assert PALETTE[0] == "#0072B2"
    mixed = blend(np.array([0.5, 0.5]))
    for channel, (a, b) in enumerate([(0x00, 0xE6), (0x72, 0x9F), (0xB2, 0x00)]):
        lamps = [((v / 255 + 0.055) / 1.055) ** 2.4 if v > 10 else v / 255 / 12.92 for v in (a, b)]
        assert mixed[channel] == pytest.approx(1.055 * np.mean(lamps) ** (1 / 2.4) - 0.055)
    assert ((mixed >= 0) & (mixed <= 1)).all()


def test_colours_run_out_with_an_error():
    assert blend(np.full(20, 1 / 20)).shape == (3,)
    with pytest.raises(ValueError, match="colours and markers tell 20 classes apart, not 21"):
        blend(np.full(21, 1 / 21))


@pytest.mark.parametrize(
    ("probs", "message"),
    [
        ([[0.5, 0.5], [1, 1]], r"sum to 1, but holds \[1. 1.\] at index \(1,\)"),
        ([1.5, -0.5], r"non-negative .*\[ 1.5 -0.5\] at index \(\)"),
        ([0.5, np.nan], "probs must be finite, but holds nan"),
    ],
)
def test_only_probabilities_are_blended(probs, message):
    with pytest.raises(ValueError, match=message):
        blend(probs)


def test_the_map_shows_the_colour_of_the_likely_class_where_it_is():
    X, y = np.array([[-1.0, 0, 1], [1.0, 0, 1]]), np.array([0, 1])
    W = np.array([[-50.0, 50], [0, 0], [0, 0]])
    ax = plot_class_map(lambda grid: softmax(grid @ W), X, y, resolution=30, title="two")
    (image,) = ax.get_images()
    pixels = image.get_array()
    for column, code in ((0, PALETTE[0]), (-1, PALETTE[1])):
        encoded = np.array(matplotlib.colors.to_rgb(code))
        lamp = np.where(encoded > 0.04, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)
        pale = 1.055 * (0.9 * lamp + 0.1) ** (1 / 2.4) - 0.055
        np.testing.assert_allclose(pixels[:, column], np.tile(pale, (30, 1)), atol=1e-6)
    assert ax.get_title() == "two"


def test_other_columns_are_held_at_their_mean():
    seen = []
    X = np.column_stack([np.arange(4.0), np.arange(4.0), [1.0, 2, 3, 6], np.ones(4)])

    def predict_proba(grid):
        seen.append(grid)
        return np.full((len(grid), 2), 0.5)

    plot_class_map(predict_proba, X, np.zeros(4, int), resolution=5, limits=(0, 1, 2, 3))
    assert seen[0].shape == (25, 4)
    np.testing.assert_allclose(seen[0][:, 2:], np.tile([3.0, 1.0], (25, 1)))
    np.testing.assert_allclose(seen[0][:, :2].min(axis=0), [0, 2])
    np.testing.assert_allclose(seen[0][:, :2].max(axis=0), [1, 3])


def test_points_carry_the_marker_and_colour_of_their_class(toy):
    ax = plot_class_map(posterior(0).predict_proba, toy.X, toy.y, resolution=5,
                        class_names=["a", "b", "c"])  # fmt: skip
    assert len(points_of(ax)) == 3
    for d, c in enumerate(points_of(ax)):
        np.testing.assert_allclose(c.get_facecolor()[0][:3], matplotlib.colors.to_rgb(PALETTE[d]))
        np.testing.assert_allclose(c.get_offsets(), toy.X[toy.y == d, :2])
        marker = matplotlib.markers.MarkerStyle(MARKERS[d])
        expected = marker.get_path().transformed(marker.get_transform())
        np.testing.assert_allclose(c.get_paths()[0].vertices, expected.vertices)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b", "c"]


def assert_every_point_is_drawn(ax, X, y, classes):
    """Each with the colour and the marker of its class, and in its place."""
    drawn = points_of(ax)
    assert len(drawn) == len(classes)
    assert sum(len(c.get_offsets()) for c in drawn) == len(X)
    for d, (c, label) in enumerate(zip(drawn, classes, strict=True)):
        here = [i for i, given in enumerate(y) if given == label]
        np.testing.assert_allclose(c.get_offsets(), np.asarray(X)[here, :2])
        np.testing.assert_allclose(c.get_facecolor()[0][:3], matplotlib.colors.to_rgb(PALETTE[d]))
        marker = matplotlib.markers.MarkerStyle(MARKERS[d])
        expected = marker.get_path().transformed(marker.get_transform())
        np.testing.assert_allclose(c.get_paths()[0].vertices, expected.vertices)


def evenly(n_classes):
    return lambda grid: np.full((len(grid), n_classes), 1 / n_classes)


LABELS = {
    "names": ["setosa", "versicolor", "virginica"],
    "from one": [1, 2, 3],
    "signs": [-1, 1],
    "flags": [False, True],
    "not in order": [7, -3, 2],
    "fractions": [0.5, 1.5],
}


@pytest.mark.parametrize("classes", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("container", [list, np.array, pd.Series, pd.Categorical])
def test_labels_of_any_kind_are_drawn_as_what_they_are(classes, container):
    y = [classes[i] for i in (1, 0, -1, 0, 0, 1)]
    X = np.random.default_rng(0).standard_normal((6, 2))
    ax = plot_class_map(evenly(len(classes)), X, container(y), classes=classes, resolution=2)
    assert_every_point_is_drawn(ax, X, y, classes)


@pytest.mark.parametrize("way", ["estimator", "method", "pipeline"])
@pytest.mark.parametrize("classes", [["a", "b", "c"], [-1, 0, 1], [1, 2, 3]])
def test_an_estimator_knows_its_classes(toy, way, classes):
    y = np.array(classes)[toy.y]
    model = LogisticRegression()
    if way == "pipeline":
        model = make_pipeline(StandardScaler(), model)
    model.fit(toy.X, y)
    some = toy.y > 0  # the first class has no point: the others keep their colours
    given = model.predict_proba if way == "method" else model
    ax = plot_class_map(given, toy.X[some], y[some], resolution=9, class_names=model.classes_)
    shown = points_of(ax)
    assert len(shown[0].get_offsets()) == 0
    for d in (1, 2):
        np.testing.assert_allclose(shown[d].get_offsets(), toy.X[toy.y == d, :2])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [str(c) for c in classes]
    by_hand = plot_class_map(lambda grid: model.predict_proba(grid), toy.X, toy.y, resolution=9)
    np.testing.assert_array_equal(
        *(
            a.get_images()[0].get_array()
            for a in (plot_class_map(model, toy.X, resolution=9), by_hand)
        )
    )


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_no_point_is_lost_or_a_message_says_which(data):
    kind = data.draw(st.sampled_from([st.integers(-9, 9), st.text(max_size=3), st.booleans()]))
    classes = data.draw(st.lists(kind, min_size=1, max_size=4, unique=True))
    y = data.draw(st.lists(st.sampled_from(classes) | kind, min_size=1, max_size=6))
    X = np.random.default_rng(0).standard_normal((len(y), 2))
    strangers = [i for i, label in enumerate(y) if label not in classes]
    try:
        if not strangers:
            ax = plot_class_map(evenly(len(classes)), X, y, classes=classes, resolution=2)
            assert_every_point_is_drawn_somewhere(ax, X, y, classes)
            return
        message = re.escape(f"y[{strangers[0]}] is {y[strangers[0]]!r}, none of the classes")
        with pytest.raises(ValueError, match=message):
            plot_class_map(evenly(len(classes)), X, y, classes=classes, resolution=2)
    finally:
        plt.close("all")


def assert_every_point_is_drawn_somewhere(ax, X, y, classes):
    places = [classes.index(label) for label in y]
    for d, c in enumerate(points_of(ax)):
        np.testing.assert_allclose(c.get_offsets(), X[np.equal(places, d)])


def test_a_map_needs_no_points(toy):
    ax = plot_class_map(posterior(0), toy.X, resolution=5)
    assert [len(c.get_offsets()) for c in points_of(ax)] == [0, 0, 0]
    assert ax.get_xlim()[0] < toy.X[:, 0].min() and ax.get_xlim()[1] > toy.X[:, 0].max()


def test_ten_classes_are_drawn_and_twenty_named():
    for n_classes in (10, 20):
        y = np.arange(n_classes)
        X = np.random.default_rng(0).standard_normal((n_classes, 2))
        ax = plot_class_map(evenly(n_classes), X, y, resolution=2, class_names=y)
        drawn = points_of(ax)
        np.testing.assert_allclose(np.concatenate([c.get_offsets() for c in drawn]), X)
        assert len({c.get_facecolor()[0].tobytes() for c in drawn}) == n_classes
        assert len({c.get_paths()[0].vertices.tobytes() for c in drawn}) == n_classes
        assert [t.get_text() for t in ax.get_legend().get_texts()] == list(map(str, y))
        assert ax.get_legend()._ncols == n_classes // 10, "a legend taller than its map"
    with pytest.raises(ValueError, match="tell 20 classes apart, not 21"):
        plot_class_map(evenly(21), X, resolution=2)


PLANE = np.random.default_rng(0).standard_normal((4, 2))


class Ordered:
    classes_ = np.array(["a", "b"])

    def predict_proba(self, X):
        return evenly(2)(X)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (evenly(2), PLANE, ["a", "b", "a", "b"]),
            ValueError,
            r"y\[0\] is 'a', none of the classes",
        ),
        (
            (evenly(2), PLANE, [1, -1, 1, 1]),
            ValueError,
            r"y\[1\] is -1, none of the classes \[0, 1\]",
        ),
        ((evenly(3), PLANE, [1, 2, 3, 1]), ValueError, r"y\[2\] is 3, none of the classes"),
        ((evenly(2), PLANE, [0, 1, np.nan, 1]), ValueError, r"y\[2\] is nan, none of the classes"),
        ((evenly(2), PLANE, [0, 1, 1]), ValueError, "y has 3 labels, but X has 4 rows"),
        ((evenly(2), PLANE, [0, 1] * 3), ValueError, "y has 6 labels, but X has 4 rows"),
        ((evenly(2), PLANE, np.eye(4)), ValueError, r"y has shape \(4, 4\); expected \(4,\)"),
        ((Ordered(), PLANE, [0, 1, 0, 1]), ValueError, r"y\[0\] is 0, none of .*\['a', 'b'\]"),
        ((evenly(2), PLANE * np.nan), ValueError, "X must be finite"),
        (
            (lambda X: X.argmax(axis=1), PLANE),
            ValueError,
            r"predict_proba\(grid\) has shape \(9,\)",
        ),
        ((lambda X: X * np.nan, PLANE), ValueError, r"predict_proba\(grid\) must be finite"),
        ((lambda X: np.ones((9, 2)), PLANE), ValueError, r"predict_proba\(grid\) must .* sum to 1"),
        ((lambda X: np.tile([2, -1], (9, 1)), PLANE), ValueError, "non-negative rows"),
        ((lambda X: X[:5], PLANE), ValueError, r"shape \(5, 2\); expected \(9, D\)"),
        ((lambda X: np.full(9, "a"), PLANE), TypeError, r"predict_proba\(grid\) must hold real"),
        ((LogisticRegression, PLANE), TypeError, "predict_proba is <class .*; expected a function"),
        (("softmax", PLANE), TypeError, "predict_proba is 'softmax'; expected a function"),
    ],
)
def test_what_a_map_cannot_show_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        plot_class_map(*arguments, resolution=3)
    assert plt.get_fignums() == [], "an empty figure is left"


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"classes": [1, 2, 3]}, ValueError, r"classes has shape \(3,\); expected \(2,\)"),
        ({"classes": ["b", "b"]}, ValueError, r"classes holds a label twice: \['b', 'b'\]"),
        ({"classes": ["b", "a"]}, ValueError, "classes is .*; expected the estimator's order"),
        ({"class_names": ["one"]}, ValueError, "class_names has 1 names; expected 2"),
        (
            {"class_names": ["one", "two", "three"]},
            ValueError,
            "class_names has 3 names; expected 2",
        ),
        ({"class_names": "ab"}, TypeError, "class_names must be a sequence of names, not 'ab'"),
        ({"class_names": {"a": 1, "b": 2}}, TypeError, "class_names must be a sequence of names"),
        ({"limits": (0, 1, 2)}, ValueError, r"limits has shape \(3,\); expected \(4,\)"),
        ({"limits": (0, np.nan, 1, 2)}, ValueError, "limits must be finite"),
        ({"resolution": 1}, ValueError, "resolution must be at least 2"),
        ({"ax": np.array([None])}, TypeError, "ax must be a matplotlib Axes, not ndarray"),
    ],
)
def test_what_a_map_cannot_use_is_named(named, error, message):
    with pytest.raises(error, match=message):
        plot_class_map(Ordered(), PLANE, ["a", "b", "b", "a"], **named)
    assert plt.get_fignums() == [], "an empty figure is left"


def test_other_labels_than_the_estimators_may_name_its_classes():
    ax = plot_class_map(Ordered(), PLANE, [5, 5, 9, 5], classes=[9, 5], resolution=2)
    assert [len(c.get_offsets()) for c in points_of(ax)] == [1, 3]


FRAME = pd.DataFrame(
    {
        "size": [1.0, 2, 3, 4, 5, 6],
        "count": [3, 1, 4, 1, 5, 9],
        "colour": ["red", "blue", "blue", None, "blue", "red"],
        "age": [1.0, 2, np.nan, 4, 5, 8],
        "kind": pd.Categorical(["u", "v", "v", "u", "v", "v"], categories=["u", "v", "w"]),
        "flag": [True, False, True, True, False, True],
        "years": pd.array([1, None, 3, 3, None, 5], dtype="Int64"),
        "empty": [np.nan] * 6,
        "nothing": pd.Series([None] * 6, dtype=object),
        "unknown": pd.array([None] * 6, dtype="Int64"),
    }
)


def test_of_a_frame_numbers_are_held_at_their_mean_and_the_rest_at_its_most_frequent():
    seen = []

    def predict_proba(grid):
        seen.append(grid)
        return evenly(2)(grid)

    ax = plot_class_map(predict_proba, FRAME.set_index(FRAME["size"] * 7), [0, 1] * 3, resolution=5)
    (grid,) = seen
    assert list(grid.columns) == list(FRAME.columns) and len(grid) == 25
    assert grid.index.is_unique
    for name, value in [("age", 4.0), ("years", 3.0), ("colour", "blue"), ("kind", "v")]:
        assert set(grid[name]) == {value}
    assert grid["flag"].all() and grid["flag"].dtype == bool
    assert grid[["empty", "nothing", "unknown"]].isna().all(axis=None)
    assert grid["kind"].dtype == FRAME["kind"].dtype
    assert grid["size"].min() == ax.get_xlim()[0] < 1 and grid["count"].max() == ax.get_ylim()[1]
    assert_every_point_is_drawn(ax, FRAME[["size", "count"]], [0, 1] * 3, [0, 1])


def test_a_pipeline_that_selects_columns_by_name_is_drawn():
    X, y = FRAME[["size", "count", "colour", "flag"]].fillna("blue"), np.array(list("abbaab"))
    chosen = make_column_transformer((OneHotEncoder(), ["colour"]), (StandardScaler(), ["count"]))
    model = make_pipeline(chosen, LogisticRegression()).fit(X, y)
    ax = plot_class_map(model, X, y, resolution=4)
    assert_every_point_is_drawn(ax, X[["size", "count"]], y, ["a", "b"])
    up = np.linspace(*ax.get_ylim(), 4)
    held = pd.DataFrame({"size": 1.0, "count": up, "colour": "blue", "flag": True})
    light = 0.9 * (blend(model.predict_proba(held)) / 1.055 + 0.055 / 1.055) ** 2.4 + 0.1
    shown = np.asarray(ax.get_images()[0].get_array())
    for column in range(4):  # the first column of X is not among the chosen
        np.testing.assert_allclose(shown[:, column], 1.055 * light ** (1 / 2.4) - 0.055, atol=0.01)


@pytest.mark.filterwarnings("error")  # scikit-learn warns where names are lost
def test_a_classifier_of_named_columns_is_drawn():
    X = FRAME[["size", "count"]]
    model = VariationalLogisticRegression().fit(X, list("abcabc"))
    ax = plot_class_map(model, X, list("abcabc"), resolution=3)
    assert_every_point_is_drawn(ax, X, list("abcabc"), list("abc"))


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (["size", "colour"], TypeError, r"X\['colour'\] holds \w+; expected numbers"),
        (["flag", "size"], TypeError, r"X\['flag'\] holds bool; expected numbers"),
        (["size", "age"], ValueError, r"X must be finite, but holds nan at index \(2, 1\)"),
        (["years", "size"], ValueError, r"X must be finite, but holds nan at index \(1, 0\)"),
        (["size"], ValueError, r"X has shape \(6, 1\); expected at least two columns"),
    ],
)
def test_a_frame_that_has_no_plane_is_named(columns, error, message):
    with pytest.raises(error, match=message):
        plot_class_map(evenly(2), FRAME[columns], [0, 1] * 3, resolution=3)


def test_before_and_after_share_limits_and_show_predicted_classes(toy):
    before, after = posterior(1), posterior(2)
    figure = plot_before_after(toy, before, after)
    panels = np.reshape(figure.axes, (2, 2))
    assert len({p.get_xlim() + p.get_ylim() for p in panels.ravel()}) == 1
    for row, q in zip(panels, (before, after), strict=True):
        for panel, labels in zip(row, (toy.y, q.predict(toy.X)), strict=True):
            sizes = [len(c.get_offsets()) for c in points_of(panel)]
            assert sizes == np.bincount(labels, minlength=3).tolist()
    assert [p.get_title() for p in panels.ravel()] == [
        "true", "learned, before training", "true", "learned, after training",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": 1}, r"y\[\d+\] is 3, none of the classes \[0, 1, 2\]"),
        ({"W": np.nan}, "W must be finite"),
        ({"X": np.inf}, "X must be finite"),
    ],
)
def test_before_and_after_name_what_they_cannot_show(toy, change, message):
    ((name, more),) = change.items()
    broken = toy._replace(**{name: getattr(toy, name) + more})
    with pytest.raises(ValueError, match=message):
        plot_before_after(broken, posterior(1), posterior(2), resolution=3)


def test_before_and_after_of_points_that_coincide_have_an_extent(toy):
    same = toy._replace(X=np.zeros_like(toy.X))
    figure = plot_before_after(same, posterior(1), posterior(2), resolution=3)
    assert {p.get_xlim() + p.get_ylim() for p in figure.axes} == {(-1, 1, -1, 1)}


def test_before_and_after_check_that_the_weights_fit_the_columns(toy):
    with pytest.raises(ValueError, match=r"W has shape \(2, 3\); expected \(3, D\)"):
        plot_before_after(toy._replace(W=toy.W[:2]), posterior(1), posterior(2))


def test_maps_need_two_columns():
    with pytest.raises(ValueError, match=r"X has shape \(3, 1\); expected at least two columns"):
        plot_class_map(lambda g: g, np.ones((3, 1)), [0, 1, 0])


def draw(step):
    figure, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, step])
    return figure


def test_a_flipbook_holds_every_frame_with_its_text():
    book = flipbook(draw, [1, 5, 9], describe=lambda s: f'a line to "{s}" & on')
    stack, controls = book.children
    play, slider = controls.children
    assert stack.selected_index == 0 and slider.value == 0 and play.value == 0
    assert slider.max == play.max == 2
    frames = []
    for step, frame in zip([1, 5, 9], stack.children, strict=True):
        assert f'alt="a line to &quot;{step}&quot; &amp; on"' in frame.value
        data = base64.b64decode(re.search(r"base64,([^\"]*)", frame.value)[1])
        image = Image.open(io.BytesIO(data))
        assert image.format == "WEBP" and image.size == (300, 200)
        frames.append(np.asarray(image.convert("RGB"), dtype=float))
    assert np.abs(frames[0] - frames[1]).max() > 50
    assert plt.get_fignums() == []


def test_every_frame_has_the_places_of_the_first():
    figures = []

    def drawn(top, panels=1):
        figure, axes = plt.subplots(1, panels, squeeze=False, layout="constrained")
        axes[0, 0].plot([0, top])
        figures.append(figure)
        return figure

    def places(figure):
        return [axes.get_position(original=True).bounds for axes in figure.axes]

    flipbook(drawn, [1, 10**6], describe=str)  # the longer numbers would push the axes aside
    first, second = map(places, figures)
    assert first == second
    alone = drawn(1)
    alone.draw_without_rendering()
    np.testing.assert_allclose(first, places(alone))
    flipbook(lambda panels: drawn(1, panels), [1, 2], describe=str)
    assert len(places(figures[-1])) == 2, "a frame with other axes has a layout of its own"
    assert places(figures[-1])[0] != pytest.approx(first[0])


def test_a_picture_closes_its_figure_and_keeps_its_colours_within_a_shade():
    figure = draw(7)
    expected = io.BytesIO()
    figure.savefig(expected, dpi=100, facecolor="white")
    tag = picture(figure, "a <line>")
    assert 'alt="a &lt;line&gt;"' in tag and 'width="300" height="200"' in tag
    data = base64.b64decode(re.search(r"base64,([^\"]*)", tag)[1])
    images = [Image.open(f).convert("RGB") for f in (io.BytesIO(data), expected)]
    kept, drawn = (np.asarray(i, dtype=float) for i in images)
    assert np.abs(kept - drawn).mean() < 3  # of 255: the palette's white is one short of it
    assert plt.get_fignums() == []


def test_frames_of_class_maps_say_so(toy):
    maps = flipbook(
        lambda step: plot_class_map(posterior(step).predict_proba, toy.X, toy.y).figure,
        [0], describe=str,
    )  # fmt: skip
    lines = flipbook(draw, [1], describe=str)
    for book, kind in ((maps, 'class="class-map"'), (lines, 'class=""')):
        assert kind in book.children[0].children[0].value


def test_axes_and_parts_of_a_figure_stand_for_it():
    def part(step):
        return plt.figure(figsize=(3, 2)).subfigures(1, 2)[0]

    ways = {
        "axes": lambda step: draw(step).axes[0],
        "axes in a part": lambda step: part(step).subplots(),
        "a part": part,
    }
    for name, way in ways.items():
        book = flipbook(way, [1, 5], describe=str)
        for frame in book.children[0].children:
            assert 'width="300" height="200"' in frame.value, name
        assert 'alt="x" class="" width="300"' in picture(way(5), "x")
        assert plt.get_fignums() == [], name
    shown = [flipbook(way, [5], describe=str) for way in (draw, lambda s: draw(s).axes[0])]
    first, second = (book.children[0].children[0].value for book in shown)
    assert first == second


@pytest.mark.parametrize("drawn", [None, "figure", [1], np.array([None])], ids=repr)
def test_frames_that_are_no_figures_are_named(drawn):
    kind = type(drawn).__name__
    with pytest.raises(TypeError, match=f"draw must return a figure or axes, not {kind}"):
        flipbook(lambda step: drawn, [1], describe=str)
    with pytest.raises(TypeError, match=f"figure must be a figure or axes, not {kind}"):
        picture(drawn, "a text")


def test_pictures_need_words():
    with pytest.raises(TypeError, match="describe must return a string, not int"):
        flipbook(draw, [1], describe=lambda step: step)
    with pytest.raises(TypeError, match="alt must be a string, not NoneType"):
        picture(draw(1), None)


def test_a_flipbook_needs_a_frame():
    with pytest.raises(ValueError, match="steps is empty"):
        flipbook(draw, [], describe=str)


def test_drawing_leaves_matplotlib_as_it_was(toy):
    before = dict(matplotlib.rcParams), matplotlib.get_backend()
    plot_class_map(posterior(0).predict_proba, toy.X, toy.y, resolution=5)
    assert (dict(matplotlib.rcParams), matplotlib.get_backend()) == before


MISSING = [
    ("maps", "matplotlib", "plot_class_map"), ("maps", "matplotlib", "plot_coefficients"),
    ("frames", "ipywidgets", "flipbook"), ("frames", "matplotlib", "picture"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "package", "name"), MISSING)
def test_where_a_package_is_missing_the_error_names_the_extra(monkeypatch, file, package, name):
    for part in [part for part in sys.modules if part.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, part, None)
    monkeypatch.delitem(sys.modules, f"vilogit.{file}")
    with pytest.raises(ImportError, match=r'need.* Matplotlib.*: pip install "vilogit\[plot\]"'):
        getattr(vilogit, name)


@pytest.mark.slow
def test_without_the_extra_all_else_works():
    script = (
        "import sys; sys.modules['matplotlib'] = sys.modules['ipywidgets'] = None\n"
        "import vilogit\n"
        "vilogit.fit([[1.0], [2.0]], [0, 1])\n"
        "for name in ('plot_class_map', 'flipbook'):\n"
        "    try:\n        getattr(vilogit, name)\n"
        "    except ImportError as error:\n        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.count('pip install "vilogit[plot]"') == 2


def drawn_intervals(ax):
    """Mean and ends of each interval, the markers' places, and their colours: one item a class."""
    for container in ax.containers:
        markers, _, (bars,) = container.lines
        ends = np.array(bars.get_segments())
        np.testing.assert_allclose(ends[:, :, 1], np.tile(markers.get_ydata()[:, None], 2))
        yield markers, markers.get_xdata(), ends[:, :, 0]


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coefficients_are_centred_weights_with_central_intervals(level):
    q = posterior(3).q._replace(rho=np.random.default_rng(1).standard_normal((3, 3)))
    ax = plot_coefficients(Posterior(q, elbo=0.0), level=level)
    centre = np.eye(3) - 1 / 3
    spread = np.sqrt(q.scale**2 @ centre**2) * norm.ppf((1 + level) / 2)
    mean = q.mean @ centre
    rows = np.zeros((3, 3))
    for d, (markers, x, ends) in enumerate(drawn_intervals(ax)):
        np.testing.assert_allclose(x, mean[:, d])
        np.testing.assert_allclose(ends, mean[:, [d, d]] + spread[:, [d, d]] * [-1, 1])
        assert markers.get_color() == PALETTE[d] and markers.get_marker() == MARKERS[d]
        rows[d] = markers.get_ydata()
    assert (np.round(rows) == np.arange(3)).all() and (np.diff(rows, axis=0) > 0.2).all()
    assert ax.get_ylim() == (2.5, -0.5), "the first feature on top"
    assert [t.get_text() for t in ax.get_yticklabels()] == ["$x_{1}$", "$x_{2}$", "$x_{3}$"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["0", "1", "2"]
    assert ax.get_xlabel() == f"centred weight: mean and {100 * level:g}% interval"
    assert any(np.ptp(line.get_xdata()) == 0 == line.get_xdata()[0] for line in ax.lines)


@pytest.mark.parametrize("family", ["aligned", "mean-field"])
@pytest.mark.parametrize("intercept", [True, False])
def test_with_two_classes_the_log_odds_are_drawn(family, intercept):
    X = pd.DataFrame(np.random.default_rng(0).standard_normal((60, 2)), columns=["age", "dose"])
    y = np.where(X["age"] + np.random.default_rng(1).standard_normal(60) > 0, "ill", "well")
    model = VariationalLogisticRegression(family=family, fit_intercept=intercept).fit(X, y)
    ax = plot_coefficients(model)
    ((markers, x, ends),) = drawn_intervals(ax)
    np.testing.assert_allclose(x[:2], model.coef_[0])
    half = norm.ppf(0.95) * model.coef_scale_[0]
    np.testing.assert_allclose(ends[:2], model.coef_.T + half[:, None] * [-1, 1])
    rows = ["age", "dose", "intercept"][: 2 + intercept]
    assert [t.get_text() for t in ax.get_yticklabels()] == rows and len(x) == len(rows)
    assert ax.get_xlabel() == "log odds of well against ill: mean and 90% interval"
    assert markers.get_color() == PALETTE[1] and markers.get_marker() == MARKERS[1]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["well"]


def test_coefficients_take_names_and_axes(toy):
    model = VariationalLogisticRegression().fit(toy.X[:, :2], np.array(["u", "v", "w"])[toy.y])
    ax = plot_coefficients(model, feature_names=["east", "north"], class_names=["a", "b", "c"])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["east", "north", "intercept"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b", "c"]
    mine = plt.subplots()[1]
    assert plot_coefficients(fit(toy.X, toy.y), ax=mine) is mine
    names = [t.get_text() for t in plot_coefficients(model).get_legend().get_texts()]
    assert names == ["u", "v", "w"]


def test_many_rows_and_classes_fit_on_a_canvas():
    q = MeanField(np.zeros((800, 12)), np.zeros((800, 12)))
    figure = plot_coefficients(Posterior(q, elbo=0.0)).figure
    assert figure.get_size_inches()[1] * 200 < 2**16
    small = plot_coefficients(Posterior(MeanField(q.mean[:4], q.rho[:4]), elbo=0.0)).figure
    assert small.get_size_inches()[1] == pytest.approx(1 + 4 * 1.35)


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"feature_names": ["a"]}, ValueError, "feature_names has 1 names; expected 3"),
        ({"feature_names": "abc"}, TypeError, "feature_names must be a sequence of names"),
        ({"class_names": ["a", "b"]}, ValueError, "class_names has 2 names; expected 3"),
        ({"level": 0}, ValueError, "level must be positive"),
        ({"level": 90}, ValueError, "level must be below 1, not 90"),
        ({"level": 1}, ValueError, "level must be below 1, not 1"),
        ({"ax": "axes"}, TypeError, "ax must be a matplotlib Axes, not str"),
        ({"posterior": np.eye(3)}, TypeError, "posterior must be a posterior or a fitted"),
        ({"posterior": VariationalLogisticRegression()}, TypeError, "fitted classifier, not Var"),
        (
            {"posterior": Posterior(MeanField(np.zeros((1, 21)), np.zeros((1, 21))), elbo=0.0)},
            ValueError, "tell 20 classes apart, not 21",
        ),
    ],
)  # fmt: skip
def test_what_coefficients_cannot_show_is_named(named, error, message):
    with pytest.raises(error, match=message):
        plot_coefficients(**{"posterior": posterior(0), **named})
    assert plt.get_fignums() == [], "an empty figure is left"
