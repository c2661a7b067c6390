"""How far the optimum moves when the log joint is tilted: the posterior's width (chapter 8).

References
----------
R. Giordano, T. Broderick and M. I. Jordan (2018), Covariances, robustness, and variational Bayes,
Journal of Machine Learning Research 19 (51), 1-49.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from .contrasts import check_contrasts, contrast_basis, unseen_square
from .curvature import curvature

_MOST = 2000  # numbers that the covariance may be about
_ACCURACY = 1e-4  # of the averages in the curvature: of widths, too


@dataclass(frozen=True, eq=False, repr=False)
class Response:
    """The Gaussian whose mean is the optimum's and whose covariance is its linear response.

    It is about what the data determine: differences between classes. Its widths are as a rule
    closer to the posterior's than those of q; its predictions need not be, so it makes none.

    Attributes
    ----------
    location : ndarray, shape (K, D)
        Means in the axes of the posterior that responded.
    inner : ndarray, shape (K, D - 1, K, D - 1)
        Covariance in the axes, of contrasts in the basis of
        `vilogit.contrasts.contrast_basis`.
    axes : ndarray, shape (M, K)
        One axis a column, in units of the prior's standard deviation.
    prior_precision : ndarray, shape (M, 1)
        Precision of the prior, which is left in directions without data.
    """

    location: np.ndarray
    inner: np.ndarray
    axes: np.ndarray
    prior_precision: np.ndarray

    def __repr__(self) -> str:
        M, K = self.axes.shape
        return f"Response({M=}, D={self.location.shape[1]}, {K=})"

    @property
    def mean(self) -> np.ndarray:
        """Means of the centred weights, each less its row's mean over the classes, (M, D)."""
        mean = self.axes @ self.location
        return mean - mean.mean(axis=1, keepdims=True)

    @property
    def scale(self) -> np.ndarray:
        """Standard deviations of the centred weights, shape (M, D)."""
        return self.moments(np.eye(len(self.axes)))[1]

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of the centred weights, shape (M, D, M, D)."""
        basis = contrast_basis(self.location.shape[1])
        left = np.tensordot(self.axes, np.tensordot(self.inner, basis, (3, 1)), (1, 0))
        of_data = np.tensordot(np.tensordot(left, basis, (1, 1)), self.axes, (1, 1))
        unit = 1 / np.sqrt(self.prior_precision)
        directions = self.axes / unit
        rest = np.diag(unit[:, 0] ** 2) - (unit * directions) @ (unit * directions).T
        # Axes so far: feature, class, class, feature.
        return of_data.transpose(0, 2, 3, 1) + np.einsum("mn,de->mdne", rest, basis @ basis.T)

    def moments(
        self, X: ArrayLike, contrasts: ArrayLike | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations of contrasts of the logits ``X @ W``.

        Parameters
        ----------
        X : array_like, shape (R, M)
            Inputs, bias included; a row of the identity matrix asks for one feature's weights.
        contrasts : array_like, shape (D,) or (D, J), optional
            Coefficients of the classes, which sum to zero: ``[-1, 1, 0]`` is class 1 less class
            0. By default those that centre, one for each class.

        Returns
        -------
        mean, scale : ndarray, shape (R,) or (R, J)
            Of ``X @ W @ contrasts``; J is D by default.

        Raises
        ------
        TypeError, ValueError
            If an argument does not hold finite real numbers of these shapes, or contrasts do not
            sum to zero.
        """
        X = checks.array(X, "X", ("R", len(self.axes)))
        C = check_contrasts(contrasts, self.location.shape[1])
        J = C.reshape(len(C), -1)
        Z = X @ self.axes
        var = unseen_square(X, Z, self.axes, self.prior_precision)[:, None] * np.sum(J**2, axis=0)
        for j, of_basis in enumerate((contrast_basis(len(C)).T @ J).T):
            inner = np.tensordot(of_basis, np.tensordot(self.inner, of_basis, (3, 0)), (0, 1))
            var[:, j] += np.sum((Z @ inner) * Z, axis=1)
        mean, shape = Z @ self.location @ J, (len(X), *C.shape[1:])
        return mean.reshape(shape), np.sqrt(var).reshape(shape)

    def interval(
        self, level: float = 0.9, contrasts: ArrayLike | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ends of central intervals of centred weights, or of chosen contrasts of classes.

        Parameters
        ----------
        level : float
            Probability of the intervals; between 0 and 1.
        contrasts : array_like, shape (D,) or (D, J), optional
            As in `moments`.

        Returns
        -------
        low, high : ndarray, shape (M, D), (M,) or (M, J)
            One interval for each feature and class, or each feature and contrast.

        Raises
        ------
        TypeError, ValueError
            If `level` is out of range, or as in `moments`.
        """
        reach = NormalDist().inv_cdf((1 + checks.level(level)) / 2)
        mean, scale = self.moments(np.eye(len(self.axes)), contrasts)
        return mean - reach * scale, mean + reach * scale


def linear_response(
    Z: np.ndarray, weight: np.ndarray | None, location: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Covariance of the contrasts in the axes, :eq:`eq-linear-response`.

    Parameters
    ----------
    Z : ndarray, shape (N, K)
        Inputs of the fit, in axes with a standard normal prior.
    weight : ndarray, shape (N, 1), or None
        How often each row counts.
    location, width : ndarray, shape (K, D)
        Means and scales at the optimum of :eq:`eq-aligned-bound`.

    Returns
    -------
    ndarray, shape (K, D - 1, K, D - 1)

    Raises
    ------
    ValueError
        If K (D - 1) is above 2000.
    """
    K, D = location.shape
    d = K * (D - 1)
    if d > _MOST:
        raise ValueError(
            f"the covariance of {K} directions and {D} classes has {d} rows; expected "
            f"{_MOST} at most"
        )
    basis = contrast_basis(D)
    one = np.ones((K, 1))
    H = curvature(Z, weight, location, width**2, one, (D - 1) / D, _ACCURACY)
    means = np.einsum("da,kdle,eb->kalb", basis, H[0, :, :, 0], basis, optimize=True)
    cross = np.einsum("da,kdle->kale", basis, H[0, :, :, 1]).reshape(d, K * D)
    scales = H[1, :, :, 1].reshape(K * D, K * D)
    answer = np.linalg.inv(means.reshape(d, d) - cross @ np.linalg.solve(scales, cross.T))
    return ((answer + answer.T) / 2).reshape(K, D - 1, K, D - 1)
