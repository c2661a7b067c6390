"""Averages of softmax over independent Gaussian logits, with no sampling (chapter 5).

Three rules, each exact to the accuracy asked for, chosen row by row:

- small variances: an expansion in the variances, :eq:`eq-small-variance`;
- two classes: one integral over the difference of the logits, :eq:`eq-difference-rule`;
- more classes: one integral of a product of averages over one logit each,
  :eq:`eq-gumbel-integral`, at a cost linear in the number of classes.

Of wide logits the last two average over noise instead (`wide`).
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from .race import Averages, Grid, make_grid, race
from .softmax import sigmoid
from .tails import log_average
from .wide import difference_of_wide, log_normal_cdf, logistic_rule, race_of_wide

_SMALL = -2.0  # bin of the rows that the expansion serves, below all others
# Bins from here on average over noise: rows with a variance above 16. Coarse averages of three
# classes or more are quicker by `race` up to twice that.
_WIDE = 4.0, 5.0
_OCTAVES = 8.0  # of variance in such a bin
_FAR = 1e300  # below the highest logit: no chance
_RARE = 1e-5  # below this a probability gets a rule of its own, for the sake of its logarithm
_SQUARE = 100  # most classes for that: its cost grows with their square
_LOGISTIC = 5.0  # from this width on, a difference is averaged over logistic noise
_PIECES = 60  # scores that a row of such a bin has, more or less
_FEW_ARRAYS, _MANY_ARRAYS = 100_000, 10_000  # numbers in each temporary array: all in the cache


def expected_softmax(
    logit_mean: ArrayLike, logit_var: ArrayLike, *, accuracy: float = 1e-6
) -> Averages:
    """Average log-sum-exp, softmax and the diagonal of its Jacobian over Gaussian logits.

    The logits of a row are independent, with the given means and variances.

    Parameters
    ----------
    logit_mean, logit_var : array_like, shape (N, D)
        Means and variances (not negative) of the logits, D at least 2.
    accuracy : float
        Largest error to expect of any average of a row, positive; taken to lie between 1e-9 and
        0.1. The worst rows reach twice that, most stay far below. At 1e-3 and above the arithmetic
        is in single precision.

    Returns
    -------
    Averages
        ``(log_sum_exp, probs, spread)``, always float64.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If shapes differ, a value is not finite, a variance is negative, `accuracy` is not
        positive, or D < 2.

    Notes
    -----
    The accuracy holds for logits of any width, as far as double precision goes: an average of
    size L has no more digits than the rounding of L leaves. A row's values depend on that row
    alone; its cost is linear in D, and the widest row costs little more than one of width 4.
    """
    mean = checks.array(logit_mean, "logit_mean", ("N", "D")).astype(np.float64, copy=False)
    var = checks.array(logit_var, "logit_var", mean.shape).astype(np.float64, copy=False)
    accuracy = float(checks.positive(accuracy, "accuracy", ()))
    if mean.shape[1] < 2:
        raise ValueError(f"logit_mean has shape {mean.shape}; expected two classes or more")
    if (var < 0).any():
        raise ValueError(f"logit_var must not be negative, but holds {var.min()}")
    top = mean.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # a class so far below the highest has no chance
        lse, probs, spread = averages(np.maximum(mean - top, -_FAR), var, accuracy)
    return Averages(top[:, 0] + lse, probs, np.clip(spread, 0, 0.25))


def expected_log_probs(mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    """Logarithms of the averaged probabilities, (N, D), right however small these are.

    To 1e-9 for two classes, to 1e-4 or better for more; beyond `_SQUARE` none is known below 1e-9.
    """
    if mean.shape[1] > 2:
        return _log_race(mean, var)
    with np.errstate(over="ignore"):  # beyond, one class has no chance, or both have the same
        center = np.clip(mean[:, 1] - mean[:, 0], -_FAR, _FAR)
        square = var.sum(axis=1)
        return np.stack([_log_sigmoid(-center, square), _log_sigmoid(center, square)], axis=1)


def _log_race(mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    probs = expected_softmax(mean, var, accuracy=1e-9).probs
    log_probs = np.log(np.maximum(probs, np.finfo(np.float64).tiny))
    if mean.shape[1] <= _SQUARE:
        rare = np.nonzero(probs < _RARE)
        # Of the largest numbers, which have no digits left, this much is known all the same.
        log_probs[rare] = np.minimum(log_average(mean, var, *rare), np.log(_RARE))
    return log_probs


def _log_sigmoid(center: np.ndarray, var: np.ndarray) -> np.ndarray:
    """Logarithm of the average sigmoid of Gaussian numbers, (N,) each.

    Where most of the average lies in the tail, sigmoid(x) = exp(x) sigmoid(-x) takes it to the
    other side, as far from the middle as var allows, :eq:`eq-mirrored-sigmoid`.
    """
    mirrored = center < -var / 2
    shift = np.where(mirrored, center + var / 2, 0)
    center = np.where(mirrored, -center - var, center)
    scale, average = np.sqrt(var), np.empty_like(center)
    wide = scale > _LOGISTIC
    nodes, weights = logistic_rule(24)
    noise = log_normal_cdf((center[wide] + nodes[:, None]) / scale[wide])
    top = noise.max(axis=0)
    average[wide] = np.log(weights @ np.exp(noise - top)) + top
    grid = make_grid(_LOGISTIC, 1e-10, 2)
    x = center[~wide] + grid.nodes[:, None] * scale[~wide]
    average[~wide] = np.log(grid.weights @ sigmoid(x))
    return np.minimum(shift + average, 0)


def expected_entropy(mean: np.ndarray, var: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entropy of the averaged probabilities and averaged entropy, each (N,), in nats.

    Stein's lemma turns the second into averages that are already there,
    :eq:`eq-entropy-split`.
    """
    log_sum_exp, probs, spread = expected_softmax(mean, var)
    total = entropy(probs)
    average = log_sum_exp - np.sum(mean * probs + var * spread, axis=1)
    return total, np.clip(average, 0, total)


def entropy(probs: np.ndarray) -> np.ndarray:
    """Entropy of each row of probabilities, (N,), in nats."""
    return -np.sum(probs * np.log(np.maximum(probs, 1e-300)), axis=1)


def averages(mean: np.ndarray, var: np.ndarray, accuracy: float, single: bool = True) -> Averages:
    """`expected_softmax` of checked arrays.

    Where `single`, coarse averages are in single precision: faster, but the last digits of a row
    then hang on its place among the others.
    """
    accuracy = min(max(accuracy, 1e-9), 0.1)
    top_var = var.T.copy().max(axis=0, initial=0.0)  # a few classes are slow as the inner loop
    bins = _bins(top_var, accuracy, mean.shape[1])
    out = Averages(np.empty(len(mean)), np.empty(mean.shape), np.empty(mean.shape))
    for each in bins[:1] if (bins == bins[:1]).all() else np.unique(bins):
        where = np.flatnonzero(bins == each)
        rule, size = _rule(each, (len(where), mean.shape[1]), accuracy, single)
        for rows in _blocks(where, size, len(bins)):
            out[0][rows], out[1][rows], out[2][rows] = rule(mean[rows], var[rows])
    return out


def _bins(top_var: np.ndarray, accuracy: float, n_classes: int) -> np.ndarray:
    """Sort rows by their largest variance: those of a bin, at most 2**bin, share their nodes.

    Which rule a row gets must not hang on its neighbours.
    """
    stride = 2 if n_classes == 2 else 1
    octaves = np.log2(np.maximum(top_var, 2.0))
    bins = stride * np.ceil(octaves / stride)
    first = _WIDE[accuracy >= 1e-3 and n_classes > 2]
    wide = octaves > first
    bins[wide] = first + _OCTAVES * np.ceil((octaves[wide] - first) / _OCTAVES)
    bins[top_var <= 0.5] = -1  # narrow rows would pay for the nodes of a variance of 2
    # The expansion is off by the cube of the variance over six, and no good beyond a half.
    bins[top_var <= min((6 * accuracy) ** (1 / 3), 0.5)] = _SMALL
    return bins


def _blocks(where: np.ndarray, size: int, n: int) -> Iterator[slice | np.ndarray]:
    """Yield some rows of `n` a few at a time, so that what a rule needs stays in the cache."""
    for k in range(0, len(where), size):
        yield slice(k, k + size) if len(where) == n else where[k : k + size]


def _rule(top: float, shape: tuple, accuracy: float, single: bool) -> tuple[Callable, int]:
    """Return the rule for rows of a bin, and how many rows it takes at a time."""
    n, n_classes = shape
    if top == _SMALL:
        return _expansion, max(1, _MANY_ARRAYS // n_classes)
    width = 2 ** (top / 2)
    if top > _OCTAVES:  # all others are narrower
        most = max(1, _FEW_ARRAYS // (_PIECES * n_classes))
        if n_classes > 2:
            return partial(race_of_wide, width=width, accuracy=accuracy), most
        least = 2 ** ((top - _OCTAVES) / 2)
        return partial(difference_of_wide, least=least, accuracy=accuracy), most
    if n_classes == 2:  # the difference of two such logits; digits are cheap here
        grid = make_grid(2**0.5 * width, accuracy / 10, 2)
        return partial(_difference, grid=grid), max(1, _FEW_ARRAYS // len(grid.nodes))
    grid = make_grid(width, accuracy, n_classes, single)
    per_row = n_classes * len(grid.scores)
    per_row *= len(grid.nodes)
    size = min(n, max(1, _FEW_ARRAYS // per_row))
    scratch = np.empty((2, size * per_row), grid.nodes.dtype)
    return partial(race, grid=grid, scratch=scratch), size


def _expansion(mean: np.ndarray, var: np.ndarray) -> Averages:
    """Small variances: f + Lf + LLf / 2 + ..., where L is half the variances' Laplacian.

    The rule L(fg) = f Lg + g Lf + sum of var f' g' takes it from the probabilities to their
    squares, and chapter 1's Jacobian is every derivative that it needs.
    """
    # Classes first: sums over a few classes are slow as the inner loop.
    mean, v = mean.T.copy(), var.T.copy()
    top = mean.max(axis=0)
    mean -= top
    p = np.exp(mean, out=mean)
    total = p.sum(axis=0)
    p /= total

    dot = partial(np.einsum, "dn,dn->n")
    pp, vp = p * p, v * p
    T, S = dot(v, p), dot(vp, p)
    b = v - 2 * vp
    g = b - (T - 2 * S)
    h = g + b + S
    Lp, Lpp = p * g / 2, pp * h
    LT, LS = dot(v, Lp), dot(v, Lpp)
    bS = vp * (b + S)
    cross = vp * (v - 4 * vp - (T - 4 * S))
    cross -= dot(cross, p)
    twice = vp * (vp - S)
    twice -= dot(twice, p)
    vpg = vp * g
    LLp = p * (g * g / 2 - vpg - (LT - 2 * LS) - 2 * bS - cross) / 2
    LLpp = pp * (h * h - 2 * vpg - LT + 3 * LS - 8 * bS - 2 * cross + 4 * twice)

    spread, Ls, LLs = p - pp, Lp - Lpp, LLp - LLpp
    lse = top + np.log(total) + (dot(v, spread) / 2 + dot(v, Ls) / 4 + dot(v, LLs) / 12)
    return Averages(lse, (p + Lp + LLp / 2).T, (spread + Ls + LLs / 2).T)


def _difference(mean: np.ndarray, var: np.ndarray, grid: Grid) -> Averages:
    """Two classes: average softplus and sigmoid over the difference of the logits."""
    nodes, weights = grid.nodes, grid.weights
    center, scale = mean[:, 1] - mean[:, 0], np.sqrt(var.sum(axis=1))
    x = center + nodes[:, None] * scale
    size = np.abs(x)
    # Stein's lemma: the same values, weighed by Hermite polynomials, average the derivatives.
    hermite = np.stack([weights, weights * nodes, weights * (nodes**2 - 1)])
    value, slope, bend = hermite @ ((x + size) / 2 + np.log(1 + np.exp(-size)))
    one, spread = np.clip(slope / scale, 0, 1), bend / scale**2
    probs = np.stack([1 - one, one], axis=1)
    return Averages(mean[:, 0] + value, probs, np.stack([spread, spread], axis=1))
