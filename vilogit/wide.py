"""Rows with wide logits: few nodes are in sight of one score, and units for rows wider still."""

import numpy as np

from .race import LARGEST, Factor, Grid

WIDEST = 64.0  # a row with a wider logit is measured in larger units: nodes grow with the width
SIGHT = np.log(LARGEST) + 30  # between that and where exp(-t) is one to the last digit but three


def in_larger_units(mean: np.ndarray, var: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shrink the rows that are wider than the widest; return the units, (N, 1), and the moments.

    Wider logits meet softmax as a step: in larger units, only the width of the step changes.
    """
    unit = np.maximum(np.sqrt(var.max(axis=1, keepdims=True)) / WIDEST, 1)
    return unit, mean / unit, var / unit**2


def nearby(above: np.ndarray, scale: np.ndarray, grid: Grid) -> Factor:
    """Average over logits so wide that few nodes are in sight of one u; see `race.everywhere`.

    Far above u, exp(-t) is zero; far below, it is one, and the weights are summed beforehand.
    Each logit has nodes as far apart as its own width allows.
    """
    base, per_width = grid.frequency
    step = 2 * np.pi / (base + per_width * np.maximum(scale, 1))  # below 1 it hopes for too much
    half = np.ceil(grid.reach / step).astype(int)
    node = np.arange(2 * half.max() + 1)[:, None, None]
    z = np.minimum(node - half, half) * step
    weights = np.exp(-(z**2) / 2) * (node <= 2 * half)
    weights /= weights.sum(axis=0)
    below = np.cumsum(weights, axis=0) - weights

    pace = np.maximum(scale * step, 1e-30)  # from logit to logit
    count = np.minimum(np.ceil(SIGHT / pace), 2 * half + 1).astype(int).max()
    u = grid.scores[:, None, None]
    first = np.ceil((u - SIGHT + np.log(LARGEST) - above) / pace) + half
    first = np.clip(first, 0, np.maximum(2 * half + 1 - count, 0)).astype(int)
    at = np.arange(scale.size).reshape(scale.shape) + scale.size * first
    ahead = np.arange(count)[:, None, None, None]

    # Axes: node in sight, u, class, row.
    density = weights.take(at + scale.size * ahead)
    nearest = np.exp(above + (first - half) * step * scale - u)
    minus_t = -nearest * np.exp(pace * ahead[:, 0])[:, None]
    density *= np.exp(minus_t)
    cdf = below.take(at) + density.sum(axis=0)
    density *= minus_t
    slope = density.sum(axis=0)
    density *= minus_t
    # The last u is beyond all nodes: no tail is left to share out.
    return Factor(cdf, slope, density.sum(axis=0), np.ones_like(scale))
