"""Axes in which independent weights are nearly right, and the shift that nobody sees (chapter 6).

The likelihood does not see a vector added to all columns of the weights, and the prior does not
see a rotation of the inputs. Both freedoms are used here: along the shift the posterior is the
prior, and independence is asked for in axes of the data's choosing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from .data import check_array, check_rng, check_size
from .variational import MeanField, Posterior

_NO_DATA = 1e-10  # a direction this much shorter than the longest carries no data
_TURNS = 30  # most steps over rotations


def shift_factor(n_classes: int) -> float:
    """Share of the classes' variance that the data can see, ``(D - 1) / D``."""
    return (n_classes - 1) / n_classes


def principal_axes(X: np.ndarray, prior_precision: np.ndarray) -> np.ndarray:
    """Principal axes of the inputs, in units of the prior's standard deviation.

    Parameters
    ----------
    X : ndarray, shape (N, M)
        Inputs, bias included.
    prior_precision : ndarray, shape (M, 1)
        Precision of the prior, one for each feature.

    Returns
    -------
    ndarray, shape (M, K)
        One column for each direction with data in it, at least one. ``X @ axes`` are the inputs
        in these axes, ``axes @ V`` are weights, and the prior of every entry of ``V`` is standard
        normal.
    """
    unit = 1 / np.sqrt(prior_precision)
    # The triangle of a QR decomposition has the axes of X, and no more rows than columns.
    triangle = np.linalg.qr(X * unit[:, 0].astype(X.dtype, copy=False), mode="r")
    _, lengths, rows = np.linalg.svd(triangle.astype(np.float64), full_matrices=False)
    kept = lengths > _NO_DATA * lengths[0]
    kept[0] = True
    return unit * rows[kept].T


def curvature_axes(Z: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Axes in which the curvatures of all classes are as diagonal as can be.

    What independence costs in given axes grows with the sum of the logarithms of the curvatures'
    diagonals, :eq:`eq-curvature-axes`. Newton steps over rotations lower it, from the axes of the
    summed curvature; those that they end in are known as common principal components (Flury and
    Gautschi, 1986).

    Parameters
    ----------
    Z : ndarray, shape (N, K)
        Inputs in axes with a standard normal prior.
    spread : ndarray, shape (N, D)
        Averages of ``probs * (1 - probs)``, not negative.

    Returns
    -------
    ndarray, shape (K, K)
        Orthonormal, one axis a column.
    """
    Z = Z.astype(np.float64, copy=False)
    K, D = Z.shape[1], spread.shape[1]
    weights = spread.T / shift_factor(D)
    H = np.stack([np.eye(K) + (Z.T * w) @ Z for w in weights])
    U = np.linalg.eigh(H.sum(axis=0))[1]
    H = U.T @ H @ U
    loss, step = _log_diagonals(H), 1.0
    for _ in range(_TURNS):
        h = np.einsum("dkk->dk", H)
        slope = np.einsum("dkl,dk->kl", H, 1 / h)
        slope -= slope.T
        share = np.einsum("dkl,dk->kl", H**2, 1 / h**2)
        bend = h.T @ (1 / h) - D - share
        bend = np.abs(bend + bend.T)
        turn = np.clip(slope / np.maximum(bend, 1e-3 * D), -0.5, 0.5)
        while True:
            # Cayley's map turns an antisymmetric matrix into a rotation.
            R = np.linalg.solve(np.eye(K) - step / 2 * turn, np.eye(K) + step / 2 * turn)
            turned = R.T @ H @ R
            gain = loss - _log_diagonals(turned)
            if gain >= 0 or step < 1e-3:
                break
            step /= 2
        if gain > 0:
            U, H, loss = U @ R, turned, loss - gain
        if gain < 1e-4:
            break
        step = min(1.0, 2 * step)
    return U


def _log_diagonals(H: np.ndarray) -> float:
    return float(np.log(np.einsum("dkk->dk", H)).sum())


def aligned_kl(mean: np.ndarray, var: np.ndarray) -> float:
    """Divergence from the aligned family to the standard normal prior, :eq:`eq-aligned-kl`.

    Parameters
    ----------
    mean, var : ndarray, shape (K, D)
        Means, and variances before the projection, in the axes.

    Returns
    -------
    float
        In nats.
    """
    D = mean.shape[1]
    # ln of the mean precision of a row, scaled by its largest against overflow.
    smallest = var.min(axis=1)
    log_mean_precision = np.log(np.mean(smallest[:, None] / var, axis=1)) - np.log(smallest)
    terms = np.sum(mean**2 + shift_factor(D) * var - np.log(var), axis=1)
    return float(np.sum(terms - (D - 1) - log_mean_precision) / 2)


@dataclass(frozen=True)
class AlignedPosterior(Posterior):
    """A Gaussian, independent in its axes and with its shift freed, as seen in the reader's axes.

    `q` holds means and scales in the axes, ``(K, D)``; every other attribute and method is about
    the weights themselves. ``gap`` bounds the distance to the optimum in these axes of the bound
    that was climbed, :eq:`eq-aligned-bound`; `elbo` is that of the Gaussian itself, never below.

    Attributes
    ----------
    axes : ndarray, shape (M, K)
        Weights are ``axes @ V``, plus a draw of the prior where the data have no direction.
    prior_precision : ndarray, shape (M, 1)
        Precision of the prior.
    """

    axes: np.ndarray = field(default=None)
    prior_precision: np.ndarray = field(default=None)

    @property
    def mean(self) -> np.ndarray:
        """Means of the weights, shape (M, D)."""
        return self.axes @ self.q.mean

    @property
    def scale(self) -> np.ndarray:
        """Standard deviations of the weights, :eq:`eq-aligned-variance`, shape (M, D)."""
        var = self.q.scale**2
        D = var.shape[1]
        var = var * (1 - 2 / D) + var.mean(axis=1, keepdims=True) / D + 1 / D
        return np.sqrt(self.axes**2 @ var + self._prior_part()[:, None])

    def logit_moments(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of independent logits with the same probabilities.

        The logits themselves share a shift, which no probability depends on and which is left
        out here. Parameters, shapes and errors as in `Posterior.logit_moments`.
        """
        X = check_array(X, "X", ("N", len(self.axes)))
        Z = X @ self.axes
        var = Z**2 @ self.q.scale**2
        M, K = self.axes.shape
        if K < M:
            unit = 1 / np.sqrt(self.prior_precision[:, 0])
            rest = X * unit - Z @ (self.axes / unit[:, None]).T
            var += np.sum(rest**2, axis=1, keepdims=True)
        return Z @ self.q.mean, var

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` weight matrices, shape (n, M, D); errors as in `Posterior.sample`."""
        n = check_size(n, "n", at_least=0)
        check_rng(rng)
        K, D = self.q.mean.shape
        noise = self.q.scale * rng.standard_normal((n, K, D))
        noise -= noise.mean(axis=2, keepdims=True)
        noise += rng.standard_normal((n, K, 1)) / np.sqrt(D)
        draws = self.axes @ (self.q.mean + noise)
        M = len(self.axes)
        if K < M:
            unit = 1 / np.sqrt(self.prior_precision)
            U = self.axes / unit
            prior = rng.standard_normal((n, M, D))
            draws += unit * (prior - U @ (U.T @ prior))
        return draws

    def marginals(self) -> MeanField:
        """Means and scales of the single weights, as independent ones."""
        scale = self.scale
        return MeanField(self.mean, scale + np.log(-np.expm1(-scale)))

    def _prior_part(self) -> np.ndarray:
        """Variance of each feature's weights in the directions without data, shape (M,)."""
        M, K = self.axes.shape
        if K == M:
            return np.zeros(M)
        rest = 1 - np.sum(self.axes**2 * self.prior_precision, axis=1)
        return np.maximum(rest, 0) / self.prior_precision[:, 0]
