"""Wide logits: what is averaged over is the noise, not the logit (chapter 5).

A score is a logit with Gumbel noise. Where the logit is wide, its Gaussian is smooth on the scale
of the noise, and a Gauss rule averages over the noise: the wider, the fewer nodes. The scores run
over stretches as long as the narrowest logit in reach allows. So neither cost nor error grows
with the width.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev, legendre

from .race import Averages

NOISE = 3.0  # from this standard deviation on it is the noise that is averaged over
_NARROW = 0.2  # narrower logits take the nodes of this standard deviation
_STRETCH = 2.5  # length of a stretch of scores, in widths of the narrowest score in reach
_DIGITS = 37.0  # exp of minus this is the last digit of double precision
_TOP = 700.0  # exp of minus this is still a normal number
_ROUNDED = 1e-14  # of its mean, to which a logit is known, give or take
_FLAT = -99  # stands for the octave of scores at which a cdf is one
_TINY = np.finfo(np.float64).tiny
_MILLS = 4.0, 20  # half of the nodes for the tail lie below the first; so many in all

_Pair = tuple[np.ndarray, np.ndarray]


class _Stretches(NamedTuple):
    """Pieces of the scores' axis, those of a row one after the other; one entry a piece."""

    row: np.ndarray
    start: np.ndarray
    length: np.ndarray


def race_of_wide(mean: np.ndarray, var: np.ndarray, width: float, accuracy: float) -> Averages:
    """Do as `race.race` for rows of three classes or more, the widest logit below `width`."""
    # In single precision a stretch might be lost to the rounding of a score.
    mean, var = mean.astype(np.float64, copy=False), var.astype(np.float64, copy=False)
    digits = min(np.log(width / accuracy) + 1, _DIGITS)
    top, first, below, (hazard,) = hazards(mean, known(mean, var), digits, 1)
    # A class brings the share hazard / total to the slope of the product of all cdfs.
    share = below[:, :, None] * hazard
    others = hazard.sum(axis=2, keepdims=True) - hazard
    area = np.add.reduceat(below.sum(axis=1), first)
    probs = np.add.reduceat(share.sum(axis=1), first)
    spread = np.add.reduceat((share * others).sum(axis=1), first)
    # The mean of the highest score, less that of the noise.
    return Averages(top - area - np.euler_gamma, probs / probs.sum(axis=1, keepdims=True), spread)


def difference_of_wide(
    mean: np.ndarray, var: np.ndarray, least: float, accuracy: float
) -> Averages:
    """Two classes whose logits differ with a standard deviation of `least` or more."""
    center, scale = mean[:, 1] - mean[:, 0], np.hypot(*np.sqrt(var).T)
    nodes, weights = logistic_rule(_n_nodes(least / 2**0.5, np.log(least / accuracy) + 1))
    x = center + nodes[:, None]
    above, density = normal(x / scale)
    value = weights @ (x * above + scale * density)
    probs = np.stack([weights @ normal(-x / scale)[0], weights @ above], axis=1)
    spread = weights @ density / scale
    return Averages(mean[:, 0] + value, probs, np.stack([spread, spread], axis=1))


def normal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cdf of a standard normal number, to the last digits in either tail, and its density."""
    size = np.abs(x)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    tail = density * mills(size)
    return np.where(x > 0, 1 - tail, tail), density


def log_normal_cdf(x: np.ndarray) -> np.ndarray:
    """Logarithm of the cdf of a standard normal number, however small that is."""
    size = np.abs(x)
    tail = np.log(mills(size)) - x**2 / 2 - np.log(2 * np.pi) / 2
    return np.where(x > 0, np.log1p(-np.exp(tail)), tail)


def mills(x: np.ndarray) -> np.ndarray:
    """Tail of a standard normal number over its density, for x not below zero.

    ``(1 + x)`` times that is so smooth in (x - c) / (x + c) that one polynomial serves all x.
    """
    t = (x - _MILLS[0]) / (x + _MILLS[0])
    powers = _mills_polynomial()
    total = np.full_like(t, powers[-1])
    for power in powers[-2::-1]:
        total *= t
        total += power
    total /= 1 + x
    return total


@lru_cache(maxsize=64)
def gumbel_rule(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Gauss rule for Gumbel noise, exact up to the power 2n - 1."""
    # Stieltjes: the recurrence of its orthogonal polynomials, by sums over a fine grid.
    x = np.arange(-5, 80, 1 / 32)
    density = np.exp(-x - np.exp(-x)) / 32
    before, now = np.zeros_like(x), np.ones_like(x)
    center, pace = np.zeros(n), np.zeros(n)
    for k in range(n):
        center[k] = np.sum(density * x * now**2)
        new = (x - center[k]) * now - pace[k] * before
        size = np.sqrt(np.sum(density * new**2))
        before, now = now, new / size
        if k + 1 < n:
            pace[k + 1] = size
    return _gauss(center, pace[1:])


@lru_cache(maxsize=64)
def logistic_rule(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Gauss rule for logistic noise, the difference of two Gumbel ones."""
    k = np.arange(1, n)  # the recurrence of the continuous Hahn polynomials
    return _gauss(np.zeros(n), np.pi * k**2 / np.sqrt(4 * k**2 - 1))


def _gauss(center: np.ndarray, pace: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gauss rule of a three-term recurrence (Golub and Welsch, 1969)."""
    nodes, vectors = np.linalg.eigh(np.diag(center) + np.diag(pace, 1) + np.diag(pace, -1))
    return nodes, vectors[0] ** 2


def known(mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    """Return standard deviations such that no score within reach is lost to rounding."""
    return np.maximum(np.sqrt(var), _ROUNDED * np.abs(mean))


def _n_nodes(scale: float, digits: float) -> int:
    """Nodes of the Gauss rule for noise under a Gaussian that is `scale` wide, or wider.

    With n of them little more than exp(-n ln(1 + 2 e scale^2 / n)) is left.
    """
    n = np.arange(1, 64)
    return int(np.sum(n * np.log1p(2 * np.e * scale**2 / n) < digits)) + 1


def _stretches(mean: np.ndarray, scale: np.ndarray, digits: float) -> tuple[_Stretches, np.ndarray]:
    """Cut the scores that count into pieces; also the score that nothing exceeds, (n,)."""
    reach = np.sqrt(2 * digits)
    low = mean - reach * scale - np.log(digits)
    high = mean + _above(scale, digits)
    length = _STRETCH * np.hypot(scale, 1)
    here, top = low.max(axis=1), high.max(axis=1)
    ends = [here]
    while (here < top).any():
        # A class below its reach may be entered by a stretch of its own, one beyond is flat.
        end = np.maximum(here[:, None], low) + length
        end[here[:, None] >= high] = np.inf
        here = np.minimum(end.min(axis=1), top)
        ends.append(here)
    edges = np.stack(ends, axis=1)
    lengths = np.diff(edges, axis=1)
    row, piece = np.nonzero(lengths)
    return _Stretches(row, edges[row, piece], lengths[row, piece]), top


def hazards(
    mean: np.ndarray, scale: np.ndarray, digits: float, order: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what every integral over the highest score is made of.

    That is the score that nothing exceeds, (n,); the first piece of each row, (n,); the product
    of all cdfs times the weights of the scores, (pieces, scores); and the derivatives of each cdf,
    1 or 3, as shares of it, (order, pieces, scores, D).
    """
    pieces, top = _stretches(mean, scale, digits)
    below, above = _product_rule(pieces, digits, mean)
    cdf, *slopes = _of_scores(above, scale[pieces.row, None], digits, order)
    below *= cdf.prod(axis=2)
    first = np.searchsorted(pieces.row, np.arange(len(mean)))
    return top, first, below, np.stack(slopes) / np.maximum(cdf, _TINY)


def _above(scale: np.ndarray, digits: float) -> np.ndarray:
    """How far above its logit's mean a score has no chance to be."""
    reach = np.sqrt(2 * digits)
    return np.where(scale > reach, reach * scale, np.minimum(scale, reach) ** 2 / 2 + digits)


def _product_rule(pieces: _Stretches, digits: float, mean: np.ndarray) -> _Pair:
    """Weights of the scores in every piece, and how far they are above every logit's mean.

    Axes: piece, score, class. The rule is for a product of so many cdfs.
    """
    count = int(np.ceil(2 + 0.4 * digits + 0.5 * np.log(mean.shape[1])))
    nodes, weights = legendre.leggauss(count)
    half = pieces.length[:, None] / 2
    # In this order a score far out is as exact as one in the middle.
    above = (pieces.start[:, None] - mean[pieces.row])[:, None]
    return half * weights, above + (half * (nodes + 1))[:, :, None]


def _of_scores(above: np.ndarray, scale: np.ndarray, digits: float, order: int) -> np.ndarray:
    """Cdf of scores so far above their logits' means, and its first derivatives, 1 or 3."""
    scale = np.broadcast_to(scale, above.shape)
    out = np.empty((order + 1, *above.shape))
    octave = np.floor(np.log2(np.maximum(scale, _NARROW) / NOISE)).astype(int)
    flat = above > _above(scale, digits)
    out[0], out[1:] = 1, 0
    octave[flat] = _FLAT
    for each in set(np.unique(octave)) - {_FLAT}:
        some = octave == each
        if each < 0:
            widest = NOISE * 2.0 ** (each + 1)
            out[:, some] = _over_logits(above[some], scale[some], widest, digits, order)
        else:
            n = _n_nodes(NOISE * 2.0**each, digits)
            out[:, some] = _over_noise(above[some], scale[some], n, order)
    return out


def _over_noise(above: np.ndarray, scale: np.ndarray, n: int, order: int) -> np.ndarray:
    out = np.zeros((order + 1, *above.shape))
    for node, weight in zip(*gumbel_rule(n), strict=True):
        x = (above - node) / scale
        cdf, density = normal(x)
        out[0] += weight * cdf
        density *= weight / scale
        out[1] += density
        if order > 1:
            density /= scale
            out[2] -= x * density
            out[3] += (x**2 - 1) * density / scale
    return out


def _over_logits(
    above: np.ndarray, scale: np.ndarray, widest: float, digits: float, order: int
) -> np.ndarray:
    # The trapezium rule for a Gaussian and for a cdf whose spectrum falls as that of Gumbel noise.
    step = 2 * np.pi / (np.sqrt(2 * digits) + 2 / np.pi * digits * widest)
    nodes = np.arange(step / 2, np.sqrt(2 * digits) + step, step)
    nodes = np.concatenate([-nodes, nodes])
    weights = np.exp(-(nodes**2) / 2)
    weights /= weights.sum()
    out = np.zeros((order + 1, *above.shape))
    nearest = np.exp(-np.maximum(above, -_TOP))
    for node, weight in zip(nodes, weights, strict=True):
        t = np.minimum(nearest * np.exp(node * scale), _TOP)
        below = weight * np.exp(-t)
        out[0] += below
        for power in out[1:]:  # of t, whose own slope is -t
            below *= t
            power += below
    if order > 1:
        out[2], out[3] = out[2] - out[1], out[3] - 3 * out[2] + out[1]
    return out


@lru_cache(maxsize=1)
def _mills_polynomial() -> np.ndarray:
    """Coefficients of the powers of (x - c) / (x + c) in ``(1 + x) * mills(x)``."""
    c, n = _MILLS
    nodes, weights = legendre.leggauss(100)
    v = 20 * (nodes + 1)

    t = chebyshev.chebpts1(n + 1)
    x = (c * (1 + t) / (1 - t))[:, None]
    # The average of exp(-u x - u^2 / 2) over u > 0, in units of 1 / (1 + x).
    values = 20 * np.exp(-(v * x + v**2 / 2 / (1 + x)) / (1 + x)) @ weights
    return chebyshev.cheb2poly(chebyshev.chebfit(t, values, n))
