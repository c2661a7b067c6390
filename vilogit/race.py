"""Three classes or more: one integral of a product of averages over one logit each (chapter 5).

With Gumbel noise added, a logit becomes a score, and the largest score has the probabilities of
softmax. The integral, :eq:`eq-gumbel-integral`, runs over the score that none exceeds.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

LARGEST = 40.0  # exp of minus this, 4e-18, is nothing beside one
# The rest was calibrated: `benchmarks/constants.py` shows what each number costs and buys. In
# theory the weight alone asks the trapezium rule for a frequency of sqrt(2 digits), and exp(-t),
# whose spectrum falls as exp(-pi / 2 times the frequency), for 2 / pi digits a width.
_FREQUENCY = 1.05, 0.275
# Below this many widths times digits Gauss-Hermite nodes are fewer, so many a digit and a width.
_HERMITE = 12, 0.25, 0.45


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


class Factor(NamedTuple):
    """What one logit brings to the product, averaged over it; axes: score, class, row.

    With t = exp(logit - u) at the score u.

    Attributes
    ----------
    cdf : ndarray, shape (U, D, n)
        Average of ``exp(-t)``: how likely the logit's own score is below u.
    slope : ndarray, shape (U, D, n)
        Average of ``-t exp(-t)``, minus the slope of the cdf in u.
    bend : ndarray, shape (U, D, n)
        Average of ``t t exp(-t)``, minus the bend of the cdf less its slope.
    mean_exp : ndarray, shape (D, n)
        Average of ``exp(logit - its mean)``: all that a score beyond the last u sees.
    """

    cdf: np.ndarray
    slope: np.ndarray
    bend: np.ndarray
    mean_exp: np.ndarray


class Grid(NamedTuple):
    """Where the integrands are looked at, for logits up to one width.

    Attributes
    ----------
    nodes, weights : ndarray
        Of a rule for averages over a standard normal number.
    scores : ndarray, shape (U,)
        Evenly spaced scores, above the lowest that counts.
    """

    nodes: np.ndarray
    weights: np.ndarray
    scores: np.ndarray


@lru_cache(maxsize=256)
def make_grid(width: float, accuracy: float, n_classes: int, single: bool = True) -> Grid:
    """Choose nodes and scores for logits whose standard deviations are at most `width`.

    Gauss-Hermite nodes serve narrow logits; they fail for wide ones, where the trapezium rule
    does not: its error is the spectrum beyond 2 pi / step, and that falls exponentially.
    """
    digits = np.log(max(width, 1.0) / accuracy)
    # Beyond sqrt(2 digits) the weight is below the error; what it weighs may grow a little.
    reach = np.sqrt(2 * digits) + 0.3
    frequency = _FREQUENCY[0] * np.sqrt(digits), _FREQUENCY[1] * digits
    if width * digits < _HERMITE[0]:
        count = int(np.ceil(digits * (_HERMITE[1] + _HERMITE[2] * width)))
        nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    else:
        step = 2 * np.pi / (frequency[0] + frequency[1] * width)
        half = int(np.ceil(reach / step))
        nodes = step * np.arange(-half, half + 1)
        weights = np.exp(-(nodes**2) / 2)
    weights /= weights.sum()

    # The spectrum of a Gumbel cdf leaves exp(-pi^2 / du). The spread, two derivatives on, has it
    # times the square of the frequency: that is worth 5.3 digits.
    du = np.pi**2 / (digits + 5.3)
    top = width * min(nodes[-1], reach)
    # The tail beyond is taken to its first order in exp(-u): the second has twice the digits.
    above = top + min(width**2, top) + np.log(n_classes) + 0.5 * digits
    scores = np.arange(-np.log(digits), above + du, du)
    dtype = np.float32 if single and accuracy >= 1e-3 else np.float64
    return Grid(nodes.astype(dtype), weights.astype(dtype), scores.astype(dtype))


def race(mean: np.ndarray, var: np.ndarray, grid: Grid, scratch: np.ndarray) -> Averages:
    """Integrate over the score u that no logit with Gumbel noise exceeds; see `everywhere`."""
    # The rows come last, where NumPy is fastest.
    scores, du = grid.scores[:, None], grid.scores[1] - grid.scores[0]
    mean, scale = mean.T.copy(), np.sqrt(var.T).astype(scores.dtype, order="C")
    floor = (mean - scale * grid.nodes[-1]).max(axis=0)
    above = (mean - floor).astype(scores.dtype)
    factor = everywhere(above, scale, grid, scratch)

    # exp(-80) is nothing beside one, and still a normal number in single precision.
    all_below = np.exp(np.maximum(np.log(factor.cdf).sum(axis=1), -80))
    others = all_below[:, None] / factor.cdf
    probs = np.einsum("udn,udn->dn", others, factor.slope) * -du
    spread = probs - np.einsum("udn,udn->dn", others, factor.bend) * du
    # Beyond the last u the integrands are exp(-u) times the average of exp(logit), and so is the
    # tail of one Gumbel variable centred at the log of their sum.
    tail = above + np.log(factor.mean_exp)
    top = tail.max(axis=0)
    tail = np.exp(tail - top)
    total = tail.sum(axis=0)
    missing = (1 - probs.sum(axis=0)) * (tail / total)
    center = top + np.log(total)
    reference = np.exp(-np.exp(np.minimum(center - scores, 5.0)))  # exp(-exp(5)) is 0
    gap = (reference - all_below).sum(axis=0)
    whole = np.maximum(probs + missing, 0)
    return Averages(floor + center + du * gap, whole.T, (spread + missing).T)


def everywhere(above: np.ndarray, scale: np.ndarray, grid: Grid, scratch: np.ndarray) -> Factor:
    """Average over logits at all nodes; `scratch` is memory for two arrays, slow when it is new."""
    # Axes: Gaussian node, score, class, row.
    nodes, weights = grid.nodes[:, None, None], grid.weights
    n, shape = len(weights), (len(grid.scores), *scale.shape)
    noise = np.exp(nodes * scale)
    minus_t, density = scratch[:, : n * grid.scores.size * scale.size].reshape(2, n, -1)
    with np.errstate(over="ignore"):
        nearest = -np.exp(above - grid.scores[:, None, None])
        np.multiply(nearest, noise[:, None], out=minus_t.reshape(n, *shape))
    np.clip(minus_t, -LARGEST, 0, out=minus_t)  # numbers below the normal range are slow
    np.exp(minus_t, out=density)
    cdf = weights @ density
    density *= minus_t
    slope = weights @ density
    density *= minus_t
    bend = weights @ density
    mean_exp = (weights @ noise.reshape(n, -1)).reshape(scale.shape)
    return Factor(cdf.reshape(shape), slope.reshape(shape), bend.reshape(shape), mean_exp)
