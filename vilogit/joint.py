"""Newton's step in means and log scales together: for logits that may grow wide (chapter 5).

Where the prior would let logits be wide, means and scales grow together, and a metric that keeps
them apart crawls. The curvature of the race couples them; it is dense, so the problem is small.
"""

from typing import Protocol

import numpy as np

from .rows import Rows
from .wide import pair_averages

_WEIGHTS = 200  # most weights: the curvature has four times their square
_WIDTH = 32.0  # standard deviation that the prior must let a logit have
_ACCURACY = 1e-2  # of the averages in the curvature
_ROUNDING = 1e-13  # smallest curvature that is told from none, beside one
_BLOCK = 2000  # numbers of rows times classes whose pairs are averaged at a time


class _Point(Protocol):
    @property
    def theta(self) -> np.ndarray: ...


class JointNewton:
    """The curvature of a bound in means and log scales, anew at every point.

    Parameters
    ----------
    rows : Rows
        What is fitted; the curvature is that of their sample.
    prior : ndarray, shape (M, 1)
        Precision of the prior.
    kappa : float
        See `Bound.kappa`.
    """

    exact = True

    def __init__(self, rows: Rows, prior: np.ndarray, kappa: float) -> None:
        self.some, self.prior, self.kappa = rows.sample(), prior, kappa
        self.times = len(rows.X) / len(self.some.X)

    @staticmethod
    def serves(rows: Rows, prior: np.ndarray) -> bool:
        """Whether the prior lets logits grow wide, and the weights are few enough."""
        if rows.X.shape[1] * rows.n_classes > _WEIGHTS:
            return False
        X = rows.sample().X
        return bool(np.max((X * X) @ (1 / prior), initial=0) > _WIDTH**2)

    def direction(self, point: _Point, slope: np.ndarray) -> np.ndarray:
        """Newton's step; where rounding leaves the curvature a sign, its size counts."""
        H = self.curvature(point)
        if not np.isfinite(H).all():
            return np.zeros_like(slope)
        unit = 1 / np.sqrt(np.diag(H))
        H *= unit * unit[:, None]
        try:
            root = np.linalg.cholesky(H)
            step = np.linalg.solve(root.T, np.linalg.solve(root, unit * slope.ravel()))
        except np.linalg.LinAlgError:
            values, U = np.linalg.eigh(H)
            step = U @ ((U.T @ (unit * slope.ravel())) / np.maximum(np.abs(values), _ROUNDING))
        return (unit * step).reshape(slope.shape)

    def curvature(self, point: _Point) -> np.ndarray:
        """Second derivatives of minus the bound, square, over means and then log scales."""
        X = self.some.X.astype(np.float64, copy=False)
        (mean, log_scale), square = point.theta, X * X
        var = np.exp(2 * log_scale)
        moments = X @ mean, square @ var
        size = max(1, _BLOCK // mean.shape[1])
        blocks = [
            pair_averages(moments[0][k : k + size], moments[1][k : k + size], _ACCURACY)
            for k in range(0, len(X), size)
        ]
        K, D = mean.shape
        mm, mv, vv = (
            self.times * self.some.weighted(np.reshape(part, (-1, D * D))).reshape(-1, D, D)
            for part in map(np.concatenate, zip(*blocks, strict=True))
        )
        H = np.empty((2, K, D, 2, K, D))
        # The derivative of a variance in its log scale is twice the variance.
        chain = 2 * var
        for d in range(D):
            for e in range(D):
                H[0, :, d, 0, :, e] = X.T @ (mm[:, d, e, None] * X)
                cross = X.T @ (mv[:, d, e, None] * square) * chain[:, e]
                H[0, :, d, 1, :, e], H[1, :, e, 0, :, d] = cross, cross.T
                both = square.T @ (vv[:, d, e, None] * square)
                H[1, :, d, 1, :, e] = chain[:, d, None] * both * chain[:, e]
        H = H.reshape(2 * K * D, 2 * K * D)
        spread = np.einsum("ndd->nd", mm)
        own = np.stack(
            [self.prior + 0 * var, 2 * var * (square.T @ spread + self.kappa * self.prior)]
        )
        H[np.diag_indices_from(H)] += own.ravel()
        return H
