"""Class probabilities as colour (chapter 4): maps, the before-and-after figure; coefficients."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from .data import Dataset
from .posterior import Posterior
from .softmax import softmax

try:
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.path import Path
except ImportError as error:
    raise ImportError('drawing needs Matplotlib: pip install "vilogit[plot]"') from error

#: Hues of Okabe and Ito, one a class; the green is darkened, so that the first three differ in
#: lightness for those who do not see the hues.
PALETTE = ("#0072B2", "#E69F00", "#005A3E", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#555555")
#: Marker shapes, one a class: colour is never the only sign.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

# Beyond eight classes: of the colours that stand out from white and from dark paper those farthest,
# for every sight, from the ones before them; and outlines that share little area with any other.
_HUES = (
    *PALETTE, "#770077", "#CC00FF", "#99BBAA", "#0011AA", "#885511", "#BBAA88", "#CC0066",
    "#AA8888", "#776688", "#779955", "#880011", "#66CC66",
)  # fmt: skip
_SHAPES: tuple[Any, ...] = (
    *MARKERS, "<", ">",
    Path([(-1, -1), (1, -1), (-1, 1), (1, 1), (-1, -1)]),  # an hourglass
    Path([(-1, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)]),  # a bow tie
    Path([(-1, -1), (0.2, -1), (1, 1), (-0.2, 1), (-1, -1)]),  # a slash
    Path([(1, -1), (-0.2, -1), (-1, 1), (0.2, 1), (1, -1)]),  # a backslash
    Path([(-1, -0.5), (1, -0.5), (1, 0.5), (-1, 0.5), (-1, -0.5)]),  # a bar
    Path([(-0.5, -1), (0.5, -1), (0.5, 1), (-0.5, 1), (-0.5, -1)]),  # a post
    Path([(-1, 1), (-0.2, 1), (-0.2, -0.2), (1, -0.2), (1, -1), (-1, -1), (-1, 1)]),  # an L
    Path([(-1, 1), (0, 0.2), (1, 1), (1, 0), (0, -1), (-1, 0), (-1, 1)]),  # a V
    Path([(-1, -1), (-0.2, 0), (-1, 1), (0, 1), (1, 0), (0, -1), (-1, -1)]),  # a chevron
    Path([(-1, 1), (1, 1), (1, -1), (0.2, -1), (0.2, 0.2), (-1, 0.2), (-1, 1)]),  # a 7
)  # fmt: skip

_PAPER = 0.1  # share of white light in a map, so that points stand out on it
_LINES = {"colors": "#222222", "linewidths": (1.1, 0.9), "linestyles": ("-", ":")}
_ROUNDING = 1e-3  # what probabilities may be off: less than a map can show
_TALLEST = 80.0  # inches; canvases end at 2**16 pixels


def blend(probs: ArrayLike) -> np.ndarray:
    """Mix the class colours in proportion to probabilities, :eq:`def-blend`.

    The mixture is of light (linear RGB), as if lamps of the class colours shone on one spot.

    Parameters
    ----------
    probs : array_like, shape (..., D)
        Rows of probabilities, D at most 20.

    Returns
    -------
    ndarray, shape (..., C)
        The three channels of sRGB, C = 3, in ``[0, 1]``.

    Raises
    ------
    TypeError, ValueError
        If the rows are not probabilities, or there are more classes than colours.
    """
    shares = _probabilities(probs, "probs", (..., "D"))
    return _encode(shares @ _lamps(shares))


def plot_class_map(
    predict_proba: Any, X: Any, y: ArrayLike | None = None, *, classes: ArrayLike | None = None,
    ax: Axes | None = None, limits: Sequence[float] | None = None, resolution: int = 150,
    class_names: Sequence[str] | None = None, title: str = "",
) -> Axes:  # fmt: skip
    """Draw class probabilities over the first two columns as colour, and the points on them.

    Solid lines bound the region where one class has more than half of the probability, dotted
    lines where it has more than nine tenths.

    Parameters
    ----------
    predict_proba : callable or estimator
        From inputs (K, M) to probabilities (K, D): a function, or what has a method of that name,
        a posterior, a classifier or a pipeline, say.
    X : array_like or DataFrame, shape (N, M)
        Points, M at least 2. Columns after the second are held at their mean. Of a DataFrame,
        the first two columns hold numbers, those after them that hold none (flags, text,
        categories) are held at their most frequent value, missing ones left out;
        `predict_proba` then gets a DataFrame with the same columns.
    y : array_like, shape (N,), optional
        Class of each point, a label of any kind: gives its colour and its marker. Without it, a
        map without points.
    classes : array_like, shape (D,), optional
        Label of each column of the probabilities. By default the estimator's ``classes_``, also
        where its method is passed; ``0..D-1`` where there is no such thing.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    limits : sequence of float, optional
        Left, right, lower and upper edge of the map; by default a margin around the points.
    resolution : int
        Cells along either side, at least 2.
    class_names : sequence of str, optional
        Adds a legend: a name for each class, in the order of `classes`.
    title : str
        Title of the panel.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on; the caller names them.

    Raises
    ------
    TypeError, ValueError
        If `X` is not finite (a DataFrame: in the first two columns) or has fewer than two
        columns, `predict_proba` is no such thing or does not give probabilities, a label of `y`
        is no class, an argument has the wrong length, or there are more than 20 classes.
    """
    predict = _method(predict_proba)
    if not _is_frame(X):
        X = checks.inputs(X)
    points = _points(X)
    resolution = checks.size(resolution, "resolution", at_least=2)
    edges = _around(points) if limits is None else checks.array(limits, "limits", (4,))
    left, right, bottom, top = extent = edges.tolist()

    across, up = np.linspace(left, right, resolution), np.linspace(bottom, top, resolution)
    grid = _grid(X, np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2))
    probs = _probabilities(predict(grid), "predict_proba(grid)", (len(grid), "D"))
    labels = _classes(classes, getattr(predict, "__self__", predict_proba), probs.shape[1])
    codes = np.full(len(points), -1) if y is None else _codes(y, len(points), labels)
    names = _names(class_names, labels, "class_names")
    signs = _signs(len(labels))
    probs = probs.reshape(resolution, resolution, -1)

    ax = _axes(ax, (4.5, 4))
    image = _encode((1 - _PAPER) * probs @ _lamps(probs) + _PAPER)
    ax.imshow(image, extent=extent, origin="lower", aspect="auto", interpolation="bilinear")
    for d in range(probs.shape[-1]):
        levels, peak = [0.5, 0.9], probs[..., d].max()
        if probs[..., d].min() < 0.5 < peak:
            ax.contour(across, up, probs[..., d], levels[: 1 + (peak > 0.9)], **_LINES)
    for d, (color, marker) in enumerate(signs):
        ax.scatter(
            *points[codes == d].T, s=34, c=color, marker=marker, edgecolors="white",
            linewidths=0.8, label=names[d] if class_names is not None else None,
        )  # fmt: skip
    if class_names is not None:
        columns = 1 + (len(names) - 1) // 10
        ax.legend(loc="upper right", fontsize="small", framealpha=0.9, ncols=columns)
    ax.set(xlim=(left, right), ylim=(bottom, top), title=title)
    return ax


def plot_before_after(
    dataset: Dataset, before: Posterior, after: Posterior, *, resolution: int = 150
) -> Figure:
    """Draw true beside learned, before and after training: the four maps of chapter 4.

    Parameters
    ----------
    dataset : Dataset
        Points, their labels and the true weights.
    before, after : Posterior
        What the model knew at the start and at the end.
    resolution : int
        Cells along either side of a map.

    Returns
    -------
    matplotlib.figure.Figure
        Left, the true map with the true classes; right, the learned map with the predicted
        classes. The upper row is before training, the lower one after.

    Raises
    ------
    TypeError, ValueError
        As `plot_class_map`; also if the weights are not finite or not those of the columns.
    """
    X, y, W = dataset
    X = checks.inputs(X)
    W = checks.array(W, "W", (X.shape[1], "D"))
    extent = np.ceil(np.abs(X[:, :2]).max()) or 1.0
    limits = (-extent, extent, -extent, extent)
    figure, panels = plt.subplots(
        2, 2, figsize=(6.8, 6.2), sharex=True, sharey=True, layout="constrained"
    )
    draw = partial(plot_class_map, limits=limits, resolution=resolution)
    for row, (when, posterior) in zip(panels, (("before", before), ("after", after)), strict=True):
        draw(lambda grid: softmax(grid @ W), X, y, ax=row[0], title="true")
        title = f"learned, {when} training"
        draw(posterior.predict_proba, X, posterior.predict(X), ax=row[1], title=title)
        row[0].set_ylabel("$x_2$")
    for panel in panels[1]:
        panel.set_xlabel("$x_1$")
    return figure


def plot_coefficients(
    posterior: Any, *, feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None, level: float = 0.9, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw what the data determine of the weights, with intervals: a forest plot.

    One row a feature, in it one marker a class: the centred weight, :eq:`eq-centred-variance`,
    which tells how the feature moves the class's logit away from the mean of all. With two
    classes, one marker a row: the log odds of the second class per unit of the feature.

    Parameters
    ----------
    posterior : Posterior or classifier
        What `vilogit.fit` or `vilogit.fit_sgd` returned, or a fitted
        `vilogit.VariationalLogisticRegression`, of which its ``coef_`` and ``coef_scale_`` are
        drawn.
    feature_names : sequence of str, optional
        A name for each feature; a classifier's intercept is named "intercept". By default the
        classifier's ``feature_names_in_``, where it has them, or x₁ to x_M.
    class_names : sequence of str, optional
        A name for each class; by default the classifier's ``classes_``, or ``0..D-1``.
    level : float
        Probability of the central intervals, between 0 and 1.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure, as tall as its rows need.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on, the legend to their right.

    Raises
    ------
    TypeError, ValueError
        If `posterior` is neither or not fitted, names do not match it, `level` is not between 0
        and 1, or there are more than 20 classes.
    """
    model: Any = posterior
    posterior = getattr(model, "posterior_", model)
    if not isinstance(posterior, Posterior):
        expected = "posterior must be a posterior or a fitted classifier"
        raise TypeError(f"{expected}, not {model!r:.80}; of a pipeline, pass the last step")
    level = checks.level(level)
    n_rows, n_classes = posterior.mean.shape
    # A classifier knows names, and its intercept is a row more than it has features.
    n_features: Any = getattr(model, "n_features_in_", n_rows)
    features = [f"$x_{{{m}}}$" for m in range(1, n_features + 1)]
    features = getattr(model, "feature_names_in_", features)
    classes = getattr(model, "classes_", range(n_classes))
    rows = _names(feature_names, features, "feature_names")
    rows += ["intercept"] * (n_rows - n_features)
    names = _names(class_names, classes, "class_names")
    signs, what = _signs(n_classes), "centred weight"
    if model is posterior:
        mean, scale = posterior.centred()
        if n_classes == 2:  # the centred weights are each other's negative
            mean, scale = 2 * mean[:, 1:], 2 * scale[:, 1:]
    else:  # a classifier's are in the reader's origin, and as wide as the posterior
        mean = np.column_stack([model.coef_, model.intercept_])[:, :n_rows].T
        scale = np.column_stack([model.coef_scale_, model.intercept_scale_])[:, :n_rows].T
    if n_classes == 2:
        names, signs, what = names[1:], signs[1:], f"log odds of {names[1]} against {names[0]}"

    n_series = len(names)
    ax = _axes(ax, (6.4, min(1 + n_rows * (0.15 + 0.1 * n_series), _TALLEST)))
    ax.axvline(0, color="#222222", linewidth=0.9)
    for row in range(1, n_rows, 2):
        ax.axhspan(row - 0.5, row + 0.5, color="0.95", linewidth=0, zorder=0)
    half = NormalDist().inv_cdf((1 + level) / 2) * scale
    for d, (color, marker) in enumerate(signs):
        places = np.arange(n_rows) + 0.8 * ((d + 0.5) / n_series - 0.5)
        ax.errorbar(
            mean[:, d], places, xerr=half[:, d], linestyle="none", color=color, marker=marker,
            markersize=5, elinewidth=1.3, label=names[d],
        )  # fmt: skip
    ax.set(xlabel=f"{what}: mean and {100 * level:g}% interval", ylim=(n_rows - 0.5, -0.5))
    ax.set_yticks(range(n_rows), rows)
    ax.legend(title="class", loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    return ax


def _method(model: Any) -> Callable:
    """Return the function from inputs to probabilities that `model` is or has."""
    predict = getattr(model, "predict_proba", model)
    if isinstance(model, type) or not callable(predict):
        expected = "expected a function, or an estimator with that method"
        raise TypeError(f"predict_proba is {model!r:.80}; {expected}")
    return predict


def _is_frame(X: object) -> bool:
    return hasattr(X, "columns") and hasattr(X, "iloc")


def _points(X: Any) -> np.ndarray:
    """First two columns, (N, 2), of a frame or of checked inputs."""
    if X.shape[1] < 2:
        raise ValueError(f"X has shape {X.shape}; expected at least two columns to map")
    if not _is_frame(X):
        return X[:, :2]
    for j in range(2):
        if not _is_numeric(X.iloc[:, j]):
            what = f"X[{X.columns[j]!r}] holds {X.iloc[:, j].dtype}"
            raise TypeError(f"{what}; expected numbers in the first two columns, to map")
    return checks.inputs(X.iloc[:, :2].to_numpy(np.float64, na_value=np.nan))


def _around(points: np.ndarray) -> np.ndarray:
    """Left, right, lower and upper edge of a map with a margin around points."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.06 * np.where(high > low, high - low, 1.0)
    return np.stack([low - margin, high + margin], axis=1).ravel()


def _grid(X: Any, at: np.ndarray) -> Any:
    """Make inputs like `X`, its first two columns replaced, (K, 2), and the others held."""
    if not _is_frame(X):
        grid = np.tile(X.mean(axis=0), (len(at), 1))
        grid[:, :2] = at
        return grid
    first = np.zeros(len(at), dtype=int)
    grid = X.iloc[first].reset_index(drop=True)
    for j in range(X.shape[1]):
        column = X.iloc[:, j]
        if j < 2:
            grid.isetitem(j, at[:, j])
        elif column.isna().all():
            continue  # nothing to hold it at: missing it stays
        elif _is_numeric(column):
            grid.isetitem(j, np.full(len(at), column.mean(), dtype=np.float64))
        else:
            grid.isetitem(j, column.mode().iloc[first].array)
    return grid


def _is_numeric(column: Any) -> bool:
    return column.dtype.kind in "iuf"  # not flags: half a flag is none


def _probabilities(value: ArrayLike, name: str, shape: tuple) -> np.ndarray:
    """Return rows of probabilities, as a function of the caller's may round them."""
    probs = checks.array(value, name, shape)
    wrong = (probs < -_ROUNDING).any(axis=-1) | (abs(probs.sum(axis=-1) - 1) > _ROUNDING)
    if wrong.any():
        where = tuple(np.argwhere(wrong)[0].tolist())
        what = f"{name} must have non-negative rows that sum to 1"
        raise ValueError(f"{what}, but holds {probs[where]} at index {where}")
    return probs


def _classes(classes: ArrayLike | None, owner: Any, n_classes: int) -> list:
    """Labels of the columns of the probabilities, in their order."""
    own = getattr(owner, "classes_", None)
    if classes is None:
        classes = range(n_classes) if own is None else own
    labels = np.asarray(classes)
    if labels.shape != (n_classes,):
        raise ValueError(f"classes has shape {labels.shape}; expected ({n_classes},)")
    given = labels.tolist()
    if len(set(given)) < n_classes:
        raise ValueError(f"classes holds a label twice: {given}")
    if own is not None and set(given) == set(own) and given != list(own):
        raise ValueError(f"classes is {given}; expected the estimator's order, {list(own)}")
    return given


def _codes(y: ArrayLike, n: int, classes: list) -> np.ndarray:
    """Place of each label among the classes, (N,)."""
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise ValueError(f"y has shape {labels.shape}; expected ({n},)")
    if len(labels) != n:
        raise ValueError(f"y has {len(labels)} labels, but X has {n} rows")
    places = {label: d for d, label in enumerate(classes)}
    codes = np.array([places.get(label, -1) for label in labels.tolist()])
    if (codes < 0).any():
        where = int((codes < 0).argmax())
        what = f"y[{where}] is {labels.tolist()[where]!r}, none of the classes {classes}"
        raise ValueError(f"{what}; pass the estimator, or the label of each column as classes")
    return codes


def _names(names: Any, default: Sequence, argument: str) -> list[str]:
    """Return the names that the caller gave, or those of the things themselves."""
    return [str(name) for name in checks.names(names, argument, default)]


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the caller's axes, or those of a new figure."""
    if ax is None:
        return plt.subplots(figsize=size)[1]
    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be a matplotlib Axes, not {type(ax).__name__}")
    return ax


def _lamps(probs: np.ndarray) -> np.ndarray:
    """Class colours as linear RGB, (D, 3)."""
    encoded = np.array([to_rgb(color) for color, _ in _signs(probs.shape[-1])])
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _encode(light: np.ndarray) -> np.ndarray:
    """Linear RGB as sRGB (IEC 61966-2-1)."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _signs(n_classes: int) -> list[tuple[str, Any]]:
    """Colour and marker of each class."""
    if n_classes > len(_HUES):
        raise ValueError(f"colours and markers tell {len(_HUES)} classes apart, not {n_classes}")
    return list(zip(_HUES, _SHAPES, strict=True))[:n_classes]
