"""Averages of softmax over independent Gaussian logits, with no sampling (a fixed quadrature)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .data import check_array

_REACH = 6.0  # standard deviations on either side of a mean that the Gaussian nodes cover
_WIDEST = 64.0  # the largest standard deviation of a logit that is not rescaled


def expected_softmax(
    logit_mean: ArrayLike, logit_var: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average log-sum-exp, softmax and the diagonal of its Jacobian over Gaussian logits.

    The logits of a row are independent, with the given means and variances. Adding standard
    Gumbel noise to a logit makes softmax the probability of being the largest, so the average
    over D logits is one integral of a product of D averages over one logit each; both are
    done by the trapezium rule.

    Parameters
    ----------
    logit_mean, logit_var : array_like, shape (N, D)
        Means and variances (not negative) of the logits, D at least 2.

    Returns
    -------
    log_sum_exp : ndarray, shape (N,)
        Average of log-sum-exp, in nats.
    probs : ndarray, shape (N, D)
        Averages of the probabilities; every row sums to one.
    spread : ndarray, shape (N, D)
        Averages of ``probs * (1 - probs)``.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If shapes differ, a value is not finite, a variance is negative, or D < 2.

    Notes
    -----
    The error is below 1e-6 for logits with a standard deviation up to 64. Above, a row is
    shrunk to that width first, which moves the averages by less than 1e-3 of the width, and
    the probabilities by less than 1e-3. A row's values depend on that row alone; its cost
    grows with its largest standard deviation.
    """
    mean = check_array(logit_mean, "logit_mean", ("N", "D")).astype(np.float64)
    var = check_array(logit_var, "logit_var", mean.shape).astype(np.float64)
    if mean.shape[1] < 2:
        raise ValueError(f"logit_mean has shape {mean.shape}; expected two classes or more")
    if (var < 0).any():
        raise ValueError(f"logit_var must not be negative, but holds {var.min()}")
    scale = np.sqrt(var)
    # Wider logits are measured in larger units: softmax is then close to a choice of the largest.
    unit = np.maximum(scale.max(axis=1, initial=0.0) / _WIDEST, 1.0)
    mean, scale = mean / unit[:, None], scale / unit[:, None]
    log_sum_exp, probs, spread = np.empty(len(mean)), np.empty_like(mean), np.empty_like(mean)
    # Rows whose widest logit is alike share one set of nodes; the step follows the width.
    width = np.ceil(np.log2(np.maximum(scale.max(axis=1, initial=0.0), 1.0)))
    for level in np.unique(width):
        # Slabs keep the arrays of nodes small.
        rows_of_level = np.flatnonzero(width == level)
        for rows in np.array_split(rows_of_level, len(rows_of_level) // 64 + 1):
            log_sum_exp[rows], probs[rows], spread[rows] = _race(
                mean[rows], scale[rows], 2.0**level
            )
    return unit * log_sum_exp, probs / probs.sum(axis=1, keepdims=True), spread / unit[:, None]


def _race(
    mean: np.ndarray, scale: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integrate over the score u that no logit with Gumbel noise exceeds."""
    step = min(0.75, 1.2 / width)
    nodes = np.arange(-_REACH, _REACH + step, step)
    weights = np.exp(-(nodes**2) / 2)
    weights /= weights.sum()

    du = 0.5
    reach = _REACH * width
    u = np.arange(-5.0 - reach, 18.0 + np.log(mean.shape[1]) + reach, du)
    u = mean.max(axis=1)[:, None, None] + u
    # cdf: the chance that one logit stays below u; slope and bend: its derivatives in the mean,
    # with signs that make them the averages of t exp(-t) and t (1 - t) exp(-t).
    cdf, slope, bend = (np.zeros(np.broadcast_shapes(mean[..., None].shape, u.shape)),) * 3
    for node, weight in zip(nodes, weights, strict=True):
        t = np.exp(np.minimum((mean + scale * node)[..., None] - u, 7.0))
        below = weight * np.exp(-t)
        cdf = cdf + below
        slope = slope + t * below
        bend = bend + t * (1 - t) * below
    all_below = cdf.prod(axis=1, keepdims=True)
    share = all_below / np.maximum(cdf, 1e-300)
    probs = du * (share * slope).sum(axis=2)
    spread = du * (share * bend).sum(axis=2)
    # The largest is u's upper end, less the room below it; its Gumbel noise averages to gamma.
    end = u[:, 0, -1]
    room = du * (all_below[:, 0].sum(axis=1) - all_below[:, 0, -1] / 2)
    return end - room - np.euler_gamma, probs, spread
