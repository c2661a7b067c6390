"""How a bound bends in means and log scales together (chapters 5 and 8)."""

import numpy as np

from .pairs import pair_averages

_BLOCK = 2000  # numbers of rows times classes whose pairs are averaged at a time


def curvature(
    X: np.ndarray, weight: np.ndarray | None, mean: np.ndarray, var: np.ndarray,
    prior: np.ndarray, kappa: float, accuracy: float,
) -> np.ndarray:  # fmt: skip
    """Second derivatives of minus a bound, in means and log scales.

    Parameters
    ----------
    X : ndarray, shape (N, K)
        Inputs, in the axes in which the weights are independent.
    weight : ndarray, shape (N, 1), or None
        How often each row counts; None is once.
    mean, var : ndarray, shape (K, D)
        Of the weights.
    prior : ndarray, shape (K, 1)
        Precision of the prior.
    kappa : float
        Weight of the divergence's part that the scales have, see `Bound.kappa`.
    accuracy : float
        Of the averages, see `pairs.pair_averages`.

    Returns
    -------
    ndarray, shape (2, K, D, 2, K, D)
        Positive definite as a matrix of 2 K D rows; the first two axes, and the fourth, are as in
        `Point.theta`.
    """
    (K, D), N = mean.shape, len(X)
    mm, mv, vv = sums = np.zeros((3, K, D, K, D))
    rows = max(1, _BLOCK // D)
    for k in range(0, N, rows):
        x = X[k : k + rows].astype(np.float64, copy=False)
        square = x * x
        parts = pair_averages(x @ mean, square @ var, accuracy)
        sides = (x, x), (x, square), (square, square)
        for total, part, (left, right) in zip(sums, parts, sides, strict=True):
            counted = part if weight is None else part * weight[k : k + rows, :, None]
            for d in range(D):
                for e in range(D):
                    total[:, d, :, e] += left.T @ (counted[:, d, e, None] * right)
    # The derivative of a variance in its log scale is twice the variance.
    chain = 2 * var
    H = np.empty((2, K, D, 2, K, D))
    H[0, :, :, 0], H[1, :, :, 1] = mm, chain[:, :, None, None] * vv * chain
    H[0, :, :, 1] = mv * chain
    H[1, :, :, 0] = H[0, :, :, 1].transpose(2, 3, 0, 1)
    own = np.einsum("kdkd->kd", mm)  # how much the rows bend each mean alone
    diagonal = np.einsum("akdakd->akd", H)
    diagonal += np.stack([prior + 0 * own, chain * (own + kappa * prior)])
    return H
