import matplotlib

matplotlib.use("Agg")

import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from vilogit import (
    MeanField,
    Posterior,
    flipbook,
    picture,
    plot_before_after,
    plot_class_map,
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
    with pytest.raises(ValueError, match="a map can tell 8 classes apart, not 9"):
        blend(np.full(9, 1 / 9))


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


def test_a_flipbook_needs_a_frame():
    with pytest.raises(ValueError, match="steps is empty"):
        flipbook(draw, [], describe=str)


def test_drawing_leaves_matplotlib_as_it_was(toy):
    before = dict(matplotlib.rcParams), matplotlib.get_backend()
    plot_class_map(posterior(0).predict_proba, toy.X, toy.y, resolution=5)
    assert (dict(matplotlib.rcParams), matplotlib.get_backend()) == before
