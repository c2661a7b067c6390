"""Cross entropy and its derivatives in the weights (chapter 2): (alpha - y) x."""

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from .softmax import log_softmax, softmax, softmax_jvp


def cross_entropy(W: ArrayLike, X: ArrayLike, Y: ArrayLike) -> float:
    """Negative log likelihood of the labels, :eq:`eq-cross-entropy-lse`.

    Parameters
    ----------
    W : array_like, shape (M, D)
        Weights. Infinities are read as limits.
    X : array_like, shape (N, M)
        Inputs, finite; N may be zero.
    Y : array_like, shape (N, D)
        One-hot labels, or any rows of probabilities.

    Returns
    -------
    float
        In nats, summed over observations; non-negative.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If shapes do not match, `X` or `Y` is not finite, or a row of `Y` is no distribution.
    """
    W, X, Y = _check(W, X, Y)
    log_probs = log_softmax(_product(X, W))
    # A class that was not observed adds nothing, even where its log probability is -inf.
    terms = np.multiply(Y, log_probs, where=Y > 0, out=np.zeros(Y.shape))
    return float(-terms.sum()) + 0.0


def cross_entropy_gradient(W: ArrayLike, X: ArrayLike, Y: ArrayLike) -> np.ndarray:
    """Gradient of the cross entropy in the weights, :eq:`eq-gradient-matrix`.

    Parameters and errors are those of `cross_entropy`.

    Returns
    -------
    ndarray, shape (M, D)
        ``X.T @ (softmax(X @ W) - Y)``; float64, as every sum over observations.
    """
    W, X, Y = _check(W, X, Y)
    return np.matmul(X.T, softmax(_product(X, W)) - Y, dtype=np.float64)


def cross_entropy_hvp(W: ArrayLike, X: ArrayLike, V: ArrayLike) -> np.ndarray:
    """Multiply a matrix of weights by the Hessian of the cross entropy, :eq:`eq-hvp`.

    Parameters
    ----------
    W, V : array_like, shape (M, D)
        Weights, and the direction to multiply.
    X : array_like, shape (N, M)
        Inputs, finite; N may be zero. The labels play no part.

    Returns
    -------
    ndarray, shape (M, D)
        Hessian times `V`; float64.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.
    """
    X = checks.array(X, "X", ("N", "M"))
    W = checks.array(W, "W", (X.shape[1], "D"), finite=False)
    V = checks.array(V, "V", W.shape)
    return np.matmul(X.T, softmax_jvp(_product(X, W), _product(X, V)), dtype=np.float64)


def _check(W: ArrayLike, X: ArrayLike, Y: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X = checks.array(X, "X", ("N", "M"))
    W = checks.array(W, "W", (X.shape[1], "D"), finite=False)
    return W, X, checks.one_hot(Y, len(X), W.shape[1])


def _product(X: np.ndarray, W: np.ndarray) -> np.ndarray:
    """``X @ W`` in the precision of `X`; a product that overflows is an infinite logit."""
    with np.errstate(over="ignore", invalid="ignore"):
        return X @ W.astype(X.dtype, copy=False)
