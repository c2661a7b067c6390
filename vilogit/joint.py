"""Newton's step in means and log scales together: for logits that may grow wide (chapter 5).

Where the prior would let logits be wide, means and scales grow together, and a metric that keeps
them apart crawls. The curvature of the race couples them; it is dense, so the problem is small.
"""

from typing import Protocol

import numpy as np

from .curvature import curvature
from .rows import Rows

_WEIGHTS = 200  # most weights: the curvature has four times their square
_WIDTH = 32.0  # standard deviation that the prior must let a logit have
_ACCURACY = 1e-2  # of the averages in the curvature
_ROUNDING = 1e-13  # smallest curvature that is told from none, beside one


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
        (mean, log_scale), some = point.theta, self.some
        weight = np.full((len(some.X), 1), self.times)
        H = curvature(
            some.X, some.weighted(weight), mean, np.exp(2 * log_scale), self.prior, self.kappa,
            _ACCURACY,
        )  # fmt: skip
        return H.reshape(2 * mean.size, 2 * mean.size)
