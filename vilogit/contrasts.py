"""What the data see of weights, their contrasts, and what they leave to the prior (chapter 6)."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from . import checks


@lru_cache(maxsize=64)
def contrast_basis(n_classes: int) -> np.ndarray:
    """Orthonormal contrasts of the classes, (D, D - 1): each column sums to zero (Helmert)."""
    basis = np.triu(np.ones((n_classes, n_classes - 1)))
    steps = np.arange(1, n_classes)
    basis[steps, steps - 1] = -steps
    return basis / np.sqrt(steps * (steps + 1))


def check_contrasts(contrasts: ArrayLike | None, n_classes: int) -> np.ndarray:
    """Return coefficients of the classes, (D,) or (D, J), that sum to zero."""
    if contrasts is None:
        return np.eye(n_classes) - 1 / n_classes
    C = checks.array(contrasts, "contrasts", (n_classes, "J")[: max(np.ndim(contrasts), 1)])
    C = C.astype(np.float64, copy=False)
    if (np.abs(C.sum(axis=0)) > 1e-9 * np.abs(C).sum(axis=0)).any():
        raise ValueError(f"contrasts must sum to zero over the classes, not to {C.sum(axis=0)}")
    return C


def unseen_variance(axes: np.ndarray, prior_precision: np.ndarray) -> np.ndarray:
    """Variance of the weights, (M, 1), in the directions that the axes leave out."""
    if axes.shape[1] == len(axes):
        return np.zeros((len(axes), 1))
    rest = 1 - np.sum(axes**2 * prior_precision, axis=1, keepdims=True)
    return np.maximum(rest, 0) / prior_precision


def unseen_square(
    X: np.ndarray, Z: np.ndarray, axes: np.ndarray, prior_precision: np.ndarray
) -> np.ndarray:
    """Variance of the logits, (N,), that comes from these directions; Z is ``X @ axes``."""
    if axes.shape[1] == len(axes):
        return np.zeros(len(X))
    unit = 1 / np.sqrt(prior_precision[:, 0])
    rest = X * unit - Z @ (axes / unit[:, None]).T
    return np.sum(rest**2, axis=1)


def with_prior(
    V: np.ndarray, axes: np.ndarray, prior_precision: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Turn draws in the axes, centred in their rows, into weights, (n, M, D).

    What no data tell, the shift and directions without data, is drawn from its prior.
    """
    n, K, D = V.shape
    draws = axes @ (V + rng.standard_normal((n, K, 1)) / np.sqrt(D))
    M = len(axes)
    if K < M:
        unit = 1 / np.sqrt(prior_precision)
        U, prior = axes / unit, rng.standard_normal((n, M, D))
        draws += unit * (prior - U @ (U.T @ prior))
    return draws
