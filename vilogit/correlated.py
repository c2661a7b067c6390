"""Averages of softmax over correlated Gaussian logits (chapter 6).

The logits of a row enter by their contrasts, D - 1 numbers that a vector added to all classes does
not change. Three rules:

- two classes: independent logits whose difference has the same variance are as good;
- a few more: a product of the rules of `race`, along the axes of the contrasts' covariance, each as
  fine as that axis is wide;
- where that would be too many points, quasi-random ones.

References
----------
H. Niederreiter (1992), Random number generation and quasi-Monte Carlo methods, SIAM.
"""

from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from .averages import averages
from .contrasts import contrast_basis
from .race import make_grid

# Points of a product that are worth a quasi-random one, and that are better than any of these: with
# three classes, and with more.
_WORTH, _FEW = 5, (200_000, 10_000)
_NARROWEST, _WIDEST = 0.125, 64.0  # standard deviations between which products grow
_SPARE = 10.0  # factor of accuracy: products of rules add up their errors
# Number of points at an accuracy of one, the power of accuracy by which it grows, and least number
# for each contrast. Errors fall nearly as the number grows.
_POINTS = 5.6, 0.75, 4
_ROUGHEST = 0.1
# Finest accuracy: with two classes, with three, where products nearly always serve, and with more.
_FINEST = 1e-9, 1e-7, 1e-5
_IN_CACHE = 200_000  # numbers in each temporary array


class Correlated(NamedTuple):
    """Averages over the logits of each row.

    Attributes
    ----------
    log_sum_exp : ndarray, shape (N,)
        Average of log-sum-exp, in nats, of logits that sum to zero.
    probs : ndarray, shape (N, D)
        Averages of the probabilities.
    jacobian : ndarray, shape (N, D - 1, D - 1)
        Averages of softmax's Jacobian, seen by the contrasts.
    """

    log_sum_exp: np.ndarray
    probs: np.ndarray
    jacobian: np.ndarray


def correlated_averages(mean: np.ndarray, cov: np.ndarray, accuracy: float) -> Correlated:
    """Average over Gaussian contrasts of logits.

    Parameters
    ----------
    mean : ndarray, shape (N, D - 1)
        Means of the contrasts: the logits are ``mean @ contrast_basis(D).T``.
    cov : ndarray, shape (N, D - 1, D - 1)
        Their covariances, positive semidefinite.
    accuracy : float
        Largest error to expect of any average of a row, where a product serves; at least
        `finest_accuracy`. What it is where points do, two accuracies compared will tell.

    Returns
    -------
    Correlated
        ``(log_sum_exp, probs, jacobian)``.
    """
    n, E = mean.shape
    accuracy = min(max(accuracy, finest_accuracy(E + 1)), _ROUGHEST)
    basis = contrast_basis(E + 1)
    if E == 1:
        lse, probs, spread = averages(mean @ basis.T, cov[:, 0] * np.ones(2), accuracy, False)
        return Correlated(lse, probs, 2 * spread[:, :1, None])
    square, axes = np.linalg.eigh(cov)
    width = np.sqrt(np.maximum(square, 0))
    # In steps of half an octave: rows that share all of them share their nodes.
    bins = np.ceil(2 * np.log2(np.maximum(width, _NARROWEST)))
    bins[width == 0] = -np.inf
    out = Correlated(np.empty(n), np.empty((n, E + 1)), np.empty((n, E, E)))
    for each in np.unique(bins, axis=0):
        nodes, weights = _rule(tuple(2 ** (each / 2)), accuracy)
        where = np.flatnonzero((bins == each).all(axis=1))
        size = max(1, _IN_CACHE // (len(nodes) * (E + 1)))
        for k in range(0, len(where), size):
            rows = where[k : k + size]
            # The symmetric root does not jump where axes change places.
            root = (axes[rows] * width[rows, None]) @ axes[rows].swapaxes(1, 2)
            turned = root if weights is None else axes[rows] * width[rows, None]
            for whole, part in zip(out, _sum(mean[rows], turned, nodes, weights), strict=True):
                whole[rows] = part
    return out


def _sum(
    mean: np.ndarray, root: np.ndarray, nodes: np.ndarray, weights: np.ndarray | None
) -> Correlated:
    """Average over the contrasts ``mean + root @ node``; without weights, all count the same."""
    basis = contrast_basis(mean.shape[1] + 1)
    weights = np.full(len(nodes), 1 / len(nodes)) if weights is None else weights
    # Axes: row, class, node.
    logits = (basis @ root) @ nodes.T + (mean @ basis.T)[:, :, None]
    top = logits.max(axis=1, keepdims=True)
    p = np.exp(logits - top)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    log_sum_exp = (top + np.log(total))[:, 0] @ weights
    probs = p @ weights
    squares = (p * weights) @ p.swapaxes(1, 2)
    jacobian = basis.T @ (probs[:, :, None] * basis - squares @ basis)
    return Correlated(log_sum_exp, probs, jacobian)


def finest_accuracy(n_classes: int) -> float:
    """Accuracy beyond which `correlated_averages` has no finer points."""
    return _FINEST[(n_classes > 2) + (n_classes > 3)]


def _rule(widths: tuple[float, ...], accuracy: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Nodes (G, D - 1) of standard normal contrasts, and their weights, None for equal ones.

    A contrast moves the difference of two logits by its square root of two at most.
    """
    n = max(int(_POINTS[0] * accuracy ** -_POINTS[1]), _POINTS[2] * len(widths))
    if max(widths) <= _WIDEST:
        rules = [_single(width, accuracy / _SPARE) for width in widths]
        enough = max(2 * n * _WORTH, _FEW[len(widths) > 2])
        if np.prod([float(len(nodes)) for nodes, _ in rules]) <= enough:
            nodes, weights = (np.meshgrid(*each) for each in zip(*rules, strict=True))
            return np.stack([x.ravel() for x in nodes], axis=1), np.prod(weights, axis=0).ravel()
    return _points(len(widths), n), None


def _single(width: float, accuracy: float) -> tuple[np.ndarray, np.ndarray]:
    if width == 0:
        return np.zeros(1), np.ones(1)
    grid = make_grid(2**0.5 * width, accuracy, 2, False)
    return grid.nodes, grid.weights


@lru_cache(maxsize=16)
def _points(n_dims: int, n: int) -> np.ndarray:
    """Quasi-random standard normal points, (2 n, n_dims), with the right means and covariances.

    Multiples of square roots of primes, modulo one, are spread evenly (Niederreiter, 1992).
    """
    primes: list[int] = []
    k = 2
    while len(primes) < n_dims:
        if all(k % p for p in primes):
            primes.append(k)
        k += 1
    places = (np.outer(np.arange(1, n + 1), np.sqrt(primes)) + 0.5) % 1
    normal = np.vectorize(NormalDist().inv_cdf)(np.clip(places, 1e-15, 1 - 1e-15))
    points = np.concatenate([normal, -normal])
    root = np.linalg.cholesky(points.T @ points / len(points))
    return np.linalg.solve(root, points.T).T
