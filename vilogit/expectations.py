"""Averages of softmax over independent Gaussian logits, with no sampling (chapter 5).

Three rules, each exact to the accuracy asked for, chosen row by row:

- small variances: an expansion in the variances, :eq:`eq-small-variance`;
- two classes: one integral over the difference of the logits, :eq:`eq-difference-rule`;
- more classes: one integral of a product of averages over one logit each,
  :eq:`eq-gumbel-integral`, at a cost linear in the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .data import check_array, check_positive

WIDEST = 64.0  # a row with a wider logit is measured in larger units
_WIDE = 8.0  # from here on a score sees few nodes of a logit
_LARGEST = 40.0  # exp of minus this is nothing
_SIGHT = np.log(_LARGEST) + 30  # between that and where exp(-t) is one to the last digit but three
_SMALL = -2.0  # level of the rows that the expansion serves
_SLAB, _BLOCK = 100_000, 10_000  # numbers in a temporary array, of few and of many such


class Averages(NamedTuple):
    """Averages over the logits of each row.

    Attributes
    ----------
    log_sum_exp : ndarray, shape (N,)
        Average of log-sum-exp, in nats.
    probs : ndarray, shape (N, D)
        Averages of the probabilities; every row sums to one.
    spread : ndarray, shape (N, D)
        Averages of ``probs * (1 - probs)``.
    """

    log_sum_exp: np.ndarray
    probs: np.ndarray
    spread: np.ndarray


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
    The accuracy holds for logits with a standard deviation up to 64. A wider row is shrunk to
    that width first, which moves the averages by less than 1e-3 of the width, and the
    probabilities by less than 1e-3. A row's values depend on that row alone; its cost grows with
    its largest standard deviation, and is linear in D.
    """
    mean = check_array(logit_mean, "logit_mean", ("N", "D")).astype(np.float64, copy=False)
    var = check_array(logit_var, "logit_var", mean.shape).astype(np.float64, copy=False)
    accuracy = float(check_positive(accuracy, "accuracy", ()))
    if mean.shape[1] < 2:
        raise ValueError(f"logit_mean has shape {mean.shape}; expected two classes or more")
    if (var < 0).any():
        raise ValueError(f"logit_var must not be negative, but holds {var.min()}")
    found = averages(mean, var, accuracy)
    return Averages(*(part.astype(np.float64, copy=False) for part in found))


def averages(mean: np.ndarray, var: np.ndarray, accuracy: float, single: bool = True) -> Averages:
    """`expected_softmax` of checked arrays; float32 ones may give float32 averages.

    Where `single`, coarse averages are in single precision: faster, but the last digits of a row
    then hang on its place among the others.
    """
    top_var = var.T.copy().max(axis=0, initial=0.0)  # a few classes are slow as the inner loop
    accuracy = min(max(accuracy, 1e-9), 0.1)
    small = min((6 * accuracy) ** (1 / 3), 0.5)
    # Rows of like width share their nodes: which rule a row gets must not hang on its neighbours.
    stride = 2 if mean.shape[1] == 2 else 1
    level = stride * np.ceil(np.log2(np.maximum(top_var, 2.0)) / stride)
    level[top_var <= 0.5] = -1
    level[top_var <= small] = _SMALL
    if (level == level[:1]).all():
        return _rule(mean, var, level.max(initial=_SMALL), accuracy, single)
    out = Averages(np.empty(len(mean)), np.empty_like(mean), np.empty_like(mean))
    for one in np.unique(level):
        rows = level == one
        parts = _rule(mean[rows], var[rows], one, accuracy, single)
        for whole, part in zip(out, parts, strict=True):
            whole[rows] = part
    return out


def _rule(
    mean: np.ndarray, var: np.ndarray, level: float, accuracy: float, single: bool
) -> Averages:
    """Rows whose widest logit has a standard deviation at most 2**(level / 2)."""
    D = mean.shape[1]
    if level == _SMALL:
        return _in_blocks(_expansion, mean, var, _BLOCK // D)
    width = 2 ** (level / 2)
    if width > WIDEST:
        unit = np.sqrt(var.max(axis=1, keepdims=True)) / WIDEST
        top = 2 * np.log2(WIDEST)
        lse, probs, spread = _rule(mean / unit, var / unit**2, top, accuracy, single)
        return Averages(unit[:, 0] * lse, probs, spread / unit)
    if D == 2:
        return _difference(mean, var, width, accuracy)
    nodes, weights, steps, digits = _grid(width, accuracy, D, single)
    if width >= _WIDE:
        # The widest logit has half as many nodes in sight of one u, narrower ones a few more.
        in_sight = int(2 * _SIGHT / (width * (nodes[1] - nodes[0])))
        size = _SLAB // (D * len(steps) * in_sight)
        return _in_blocks(
            lambda m, v: _race(m, v, _nearby, nodes[-1], steps, digits), mean, var, size
        )
    per_row = D * len(nodes) * len(steps)
    size = min(len(mean), max(1, _SLAB // per_row))
    scratch = np.empty((2, size * per_row), nodes.dtype)  # memory is slow when it is new
    return _in_blocks(
        lambda m, v: _race(m, v, _everywhere, nodes[-1], steps, nodes, weights, scratch),
        mean,
        var,
        size,
    )


def _in_blocks(rule: Callable, mean: np.ndarray, var: np.ndarray, size: int) -> Averages:
    """Apply a rule to blocks of rows, so that what it needs in between stays in the cache."""
    size = max(1, size)
    parts = [rule(mean[k : k + size], var[k : k + size]) for k in range(0, max(1, len(mean)), size)]
    return Averages(*map(np.concatenate, zip(*parts, strict=True))) if parts[1:] else parts[0]


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

    def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.einsum("dn,dn->n", a, b)

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


def _difference(mean: np.ndarray, var: np.ndarray, width: float, accuracy: float) -> Averages:
    """Two classes: average softplus and sigmoid over the difference of the logits."""
    nodes, weights, *_ = _grid(2**0.5 * width, accuracy / 10, 2)  # digits are cheap here
    center, scale = mean[:, 1] - mean[:, 0], np.sqrt(var.sum(axis=1))
    x = center + nodes[:, None] * scale
    size = np.abs(x)
    # Stein's lemma: the same values, weighed by Hermite polynomials, average the derivatives.
    hermite = np.stack([weights, weights * nodes, weights * (nodes**2 - 1)])
    value, slope, bend = hermite @ ((x + size) / 2 + np.log(1 + np.exp(-size)))
    one, spread = slope / scale, bend / scale**2
    probs = np.stack([1 - one, one], axis=1)
    return Averages(mean[:, 0] + value, probs, np.stack([spread, spread], axis=1))


def _race(
    mean: np.ndarray, var: np.ndarray, laws: Callable, reach: float, steps: np.ndarray, *how: object
) -> Averages:
    """More classes: integrate over the score u that no logit with Gumbel noise exceeds.

    `laws` averages what is needed over one logit, see `_everywhere`; `how` is for it.
    """
    # Axes: u, class, row. The rows come last, where NumPy is fastest.
    du = steps[1] - steps[0]
    mean, scale = mean.T.copy(), np.sqrt(var.T).astype(steps.dtype, order="C")
    low = (mean - scale * reach).max(axis=0)
    start = (mean - low).astype(steps.dtype)
    cdf, slope, bend, growth = laws(start, scale, steps, *how)

    all_below = np.exp(np.maximum(np.log(cdf).sum(axis=1), -80))
    share = all_below[:, None] / cdf
    probs = np.einsum("udn,udn->dn", share, slope) * -du
    spread = probs - np.einsum("udn,udn->dn", share, bend) * du
    # Beyond the last u the integrands are exp(-u) times the average of exp(logit), and so is the
    # tail of one Gumbel variable centred at the log of their sum.
    tail = start + np.log(growth)
    top = tail.max(axis=0)
    tail = np.exp(tail - top)
    total = tail.sum(axis=0)
    missing = (1 - probs.sum(axis=0)) * (tail / total)
    center = top + np.log(total)
    reference = np.exp(-np.exp(np.minimum(center - steps[:, None], 5.0)))
    gap = (reference - all_below).sum(axis=0)
    whole = np.maximum(probs + missing, 0)
    return Averages(low + center + du * gap, whole.T, (spread + missing).T)


def _everywhere(
    start: np.ndarray,
    scale: np.ndarray,
    steps: np.ndarray,
    nodes: np.ndarray,
    weights: np.ndarray,
    scratch: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Average over a logit what the race needs, at all nodes.

    With t = exp(logit - u) these are exp(-t), the cdf of its score; -t exp(-t), minus the slope
    of that in u; t t exp(-t), minus the bend less the slope; and exp(logit - start).
    """
    # Axes: Gaussian node, u, class, row.
    noise = np.exp(nodes[:, None, None] * scale)
    shape = (len(nodes), len(steps), *scale.shape)
    minus_t, density = (part[: prod(shape)].reshape(shape) for part in scratch)
    with np.errstate(over="ignore"):
        np.multiply(-np.exp(start - steps[:, None, None]), noise[:, None], out=minus_t)
    np.clip(minus_t, -_LARGEST, 0, out=minus_t)  # numbers below the normal range are slow

    def average(values: np.ndarray) -> np.ndarray:
        return (weights @ values.reshape(len(nodes), -1)).reshape(values.shape[1:])

    np.exp(minus_t, out=density)
    cdf = average(density)
    density *= minus_t
    slope = average(density)
    density *= minus_t
    return cdf, slope, average(density), average(noise)


def _nearby(
    start: np.ndarray, scale: np.ndarray, steps: np.ndarray, digits: float
) -> tuple[np.ndarray, ...]:
    """Average as `_everywhere`, over logits so wide that few nodes are in sight of one u.

    Far above u, exp(-t) is zero; far below, it is one, and the weights are summed beforehand.
    Each logit has nodes as far apart as its own width allows.
    """
    step, reach = _spacing(np.maximum(scale, 1), digits)  # below 1 the formula hopes for too much
    half = np.ceil(reach / step).astype(int)
    node = np.arange(2 * half.max() + 1)[:, None, None]
    z = np.minimum(node - half, half) * step
    weights = np.exp(-(z**2) / 2) * (node <= 2 * half)
    weights /= weights.sum(axis=0)
    below = np.cumsum(weights, axis=0) - weights

    pace = np.maximum(scale * step, 1e-30)  # from logit to logit
    count = np.minimum(np.ceil(_SIGHT / pace), 2 * half + 1).astype(int).max()
    u = steps[:, None, None]
    first = np.ceil((u - _SIGHT + np.log(_LARGEST) - start) / pace) + half
    first = np.clip(first, 0, np.maximum(2 * half + 1 - count, 0)).astype(int)
    at = np.arange(scale.size).reshape(scale.shape) + scale.size * first
    ahead = np.arange(count)[:, None, None, None]

    # Axes: node in sight, u, class, row.
    density = weights.take(at + scale.size * ahead)
    nearest = np.exp(start + (first - half) * step * scale - u)
    minus_t = -nearest * np.exp(pace * ahead[:, 0])[:, None]
    density *= np.exp(minus_t)
    cdf = below.take(at) + density.sum(axis=0)
    density *= minus_t
    slope = density.sum(axis=0)
    density *= minus_t
    # The last u is beyond all nodes: no tail is left to share out.
    return cdf, slope, density.sum(axis=0), np.ones_like(scale)


def _spacing(width: ArrayLike, digits: float) -> tuple[ArrayLike, float]:
    """Distance of the trapezium rule's nodes, in standard deviations, and how far they reach.

    The rule's error is the spectrum beyond 2 pi / step, and that falls exponentially.
    """
    step = 2 * np.pi / (1.05 * np.sqrt(digits) + 0.275 * width * digits)
    return step, np.sqrt(2 * digits) + 0.3


@lru_cache(maxsize=256)
def _grid(
    width: float, accuracy: float, n_classes: int, single: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Gaussian nodes and weights, steps of u above the lowest logit of the race, and digits.

    Gauss-Hermite nodes serve narrow logits; they fail for wide ones, where the trapezium rule
    does not.
    """
    digits = np.log(max(width, 1.0) / accuracy)
    step, reach = _spacing(width, digits)
    if width * digits < 12:
        count = int(np.ceil(digits * (0.25 + 0.45 * width)))
        nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    else:
        half = int(np.ceil(reach / step))
        nodes = step * np.arange(-half, half + 1)
        weights = np.exp(-(nodes**2) / 2)
    weights /= weights.sum()

    # The spread, two derivatives on, asks for more of u than log-sum-exp does.
    du = np.pi**2 / (digits + 5.3)
    top = width * min(nodes[-1], reach)
    above = top + min(width**2, top) + np.log(n_classes) + 0.5 * digits
    steps = np.arange(-np.log(digits), above + du, du)
    dtype = np.float32 if single and accuracy >= 1e-3 and width < _WIDE else np.float64
    return nodes.astype(dtype), weights.astype(dtype), steps.astype(dtype), digits
