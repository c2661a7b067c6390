"""Class probabilities as colour (chapter 4): maps, and the before-and-after figure."""

from collections.abc import Callable, Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from . import checks
from .data import Dataset
from .posterior import Posterior
from .softmax import softmax

#: Hues of Okabe and Ito, one a class; the green is darkened, so that the first three differ in
#: lightness for those who do not see the hues.
PALETTE = ("#0072B2", "#E69F00", "#005A3E", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#555555")
#: Marker shapes, one a class: colour is never the only sign.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_PAPER = 0.1  # share of white light in a map, so that points stand out on it
_LINES = {"colors": "#222222", "linewidths": (1.1, 0.9), "linestyles": ("-", ":")}


def blend(probs: ArrayLike) -> np.ndarray:
    """Mix the class colours in proportion to probabilities, :eq:`def-blend`.

    The mixture is of light (linear RGB), as if lamps of the class colours shone on one spot.

    Parameters
    ----------
    probs : array_like, shape (..., D)
        Rows of probabilities, D at most 8.

    Returns
    -------
    ndarray, shape (..., C)
        The three channels of sRGB, C = 3, in ``[0, 1]``.

    Raises
    ------
    ValueError
        If there are more classes than colours.
    """
    shares = checks.array(probs, "probs", (..., "D"))
    return _encode(shares @ _lamps(shares))


def plot_class_map(
    predict_proba: Callable[[np.ndarray], np.ndarray], X: ArrayLike, y: ArrayLike, *,
    ax: Axes | None = None, limits: Sequence[float] | None = None, resolution: int = 150,
    class_names: Sequence[str] | None = None, title: str = "",
) -> Axes:  # fmt: skip
    """Draw class probabilities over the first two columns as colour, and the points on them.

    Solid lines bound the region where one class has more than half of the probability, dotted
    lines where it has more than nine tenths.

    Parameters
    ----------
    predict_proba : callable
        From inputs (K, M) to probabilities (K, D).
    X : array_like, shape (N, M)
        Points, M at least 2. Columns after the second are held at their mean.
    y : array_like of int, shape (N,)
        Class of each point: gives its colour and its marker.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    limits : sequence of float, optional
        Left, right, lower and upper edge of the map; by default a margin around the points.
    resolution : int
        Cells along either side.
    class_names : sequence of str, optional
        Adds a legend.
    title : str
        Title of the panel.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on; the caller names them.

    Raises
    ------
    ValueError
        If `X` has fewer than two columns, or the classes outnumber the colours.
    """
    X, y = checks.inputs(X), np.asarray(y)
    if X.shape[1] < 2:
        raise ValueError(f"X has shape {X.shape}; expected at least two columns to map")
    ax = ax or plt.subplots(figsize=(4.5, 4))[1]
    if limits is None:
        low, high = X[:, :2].min(axis=0), X[:, :2].max(axis=0)
        margin = 0.06 * np.where(high > low, high - low, 1.0)
        limits = np.stack([low - margin, high + margin], axis=1).ravel().tolist()
    left, right, bottom, top = limits

    across, up = np.linspace(left, right, resolution), np.linspace(bottom, top, resolution)
    grid = np.tile(X.mean(axis=0), (resolution**2, 1))
    grid[:, 0], grid[:, 1] = (side.ravel() for side in np.meshgrid(across, up))
    probs = np.asarray(predict_proba(grid)).reshape(resolution, resolution, -1)

    image = _encode((1 - _PAPER) * probs @ _lamps(probs) + _PAPER)
    ax.imshow(image, extent=limits, origin="lower", aspect="auto", interpolation="bilinear")
    for d in range(probs.shape[-1]):
        levels, peak = [0.5, 0.9], probs[..., d].max()
        if probs[..., d].min() < 0.5 < peak:
            ax.contour(across, up, probs[..., d], levels[: 1 + (peak > 0.9)], **_LINES)
    signs = zip(_per_class(PALETTE, probs), _per_class(MARKERS, probs), strict=True)
    for d, (color, marker) in enumerate(signs):
        here = y == d
        ax.scatter(
            X[here, 0], X[here, 1], s=34, c=color, marker=marker, edgecolors="white",
            linewidths=0.8, label=str(class_names[d]) if class_names is not None else None,
        )  # fmt: skip
    if class_names is not None:
        ax.legend(loc="upper right", fontsize="small", framealpha=0.9)
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
    """
    X, y, W = dataset
    extent = np.ceil(np.abs(X[:, :2]).max())
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


def _lamps(probs: np.ndarray) -> np.ndarray:
    """Class colours as linear RGB, (D, 3)."""
    encoded = np.array([to_rgb(color) for color in _per_class(PALETTE, probs)])
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _encode(light: np.ndarray) -> np.ndarray:
    """Linear RGB as sRGB (IEC 61966-2-1)."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _per_class(signs: tuple[str, ...], probs: np.ndarray) -> tuple[str, ...]:
    n_classes = probs.shape[-1]
    if n_classes > len(signs):
        raise ValueError(f"a map can tell {len(signs)} classes apart, not {n_classes}")
    return signs[:n_classes]
