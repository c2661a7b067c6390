"""Softmax and its Jacobian (chapter 1): J = diag(alpha) - alpha alpha^T."""

import math
import operator

import numpy as np
from numpy.typing import ArrayLike

from . import checks

Axis = int | tuple[int, ...] | None


def softmax(logits: ArrayLike, axis: Axis = -1) -> np.ndarray:
    """Map logits to probabilities, :eq:`def-softmax`.

    Parameters
    ----------
    logits : array_like, any shape
        Real numbers; infinities are read as limits.
    axis : int, tuple of int or None
        The axis that runs over the classes, or several that do so together; None is all.

    Returns
    -------
    ndarray, the shape of `logits`
        Non-negative, summing to one along `axis`. A row that has no limit (a NaN, two or more
        positive infinities, nothing but negative ones) is NaN.

    Raises
    ------
    TypeError
        If the logits are not real numbers, or an axis is no integer.
    ValueError
        If an axis does not exist, is named twice, or has no entries.
    """
    weights = np.exp(_below_maximum(logits, axis))
    return weights / weights.sum(axis=axis, keepdims=True)


def log_softmax(logits: ArrayLike, axis: Axis = -1) -> np.ndarray:
    """Logarithm of `softmax`, in nats, exact also where the probability underflows.

    Parameters, NaN rows and errors are those of `softmax`; the values are at most zero. It is
    the logit less the log-sum-exp of its row, :eq:`def-lse`.
    """
    shifted = _below_maximum(logits, axis)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def softmax_jacobian(logits: ArrayLike) -> np.ndarray:
    """Jacobian of softmax, :eq:`eq-jacobian-matrix`: ``diag(probs) - outer(probs, probs)``.

    Parameters
    ----------
    logits : array_like, shape (..., D)
        Logits, classes last.

    Returns
    -------
    ndarray, shape (..., D, D)
        Entry ``[..., u, d]`` is the derivative of probability u in logit d.

    Raises
    ------
    TypeError, ValueError
        As `softmax`.
    """
    probs = softmax(logits)
    identity = np.eye(probs.shape[-1], dtype=probs.dtype)
    return probs[..., :, None] * (identity - probs[..., None, :])


def softmax_jvp(logits: ArrayLike, tangent: ArrayLike) -> np.ndarray:
    """Multiply a vector by the Jacobian in O(D), without forming it, :eq:`eq-jvp`.

    Parameters
    ----------
    logits, tangent : array_like, shape (..., D)
        Logits, and the vector to multiply; the leading dimensions broadcast.

    Returns
    -------
    ndarray, shape (..., D)
        ``softmax_jacobian(logits) @ tangent``.

    Raises
    ------
    TypeError
        If either does not hold real numbers.
    ValueError
        If the numbers of classes differ, or the leading dimensions do not broadcast.
    """
    probs = softmax(logits)
    tangent = checks.array(tangent, "tangent", (..., probs.shape[-1]))
    try:
        np.broadcast_shapes(probs.shape, tangent.shape)
    except ValueError:
        expected = f"expected one that broadcasts with logits, {probs.shape}"
        raise ValueError(f"tangent has shape {tangent.shape}; {expected}") from None
    return probs * (tangent - (probs * tangent).sum(axis=-1, keepdims=True))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Softmax of two classes, as a function of the difference of their logits."""
    return np.exp(-np.logaddexp(0, -x))


def _below_maximum(logits: ArrayLike, axis: Axis) -> np.ndarray:
    """Logits less the maximum of their row: the same softmax, and nothing overflows."""
    logits = checks.array(logits, "logits", (...,), finite=False)
    if math.prod(logits.shape[k] for k in _axes(axis, logits)) == 0:
        raise ValueError(f"logits has shape {logits.shape}; expected at least one class")
    top = logits.max(axis=axis, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = logits - top
    infinite = top == np.inf
    if infinite.any():
        at_top = logits == np.inf
        alone = at_top.sum(axis=axis, keepdims=True) == 1
        limit = np.where(at_top, np.where(alone, 0.0, np.nan), -np.inf)
        shifted = np.where(infinite, limit, shifted).astype(logits.dtype)
    return shifted


def _axes(axis: Axis, logits: np.ndarray) -> list[int]:
    """Axes that run over the classes, counted from the first."""
    if axis is None:
        return list(range(logits.ndim))
    found = []
    for k in axis if isinstance(axis, tuple) else (axis,):
        try:
            operator.index(k)
        except TypeError:
            raise TypeError(f"axis must be an integer, a tuple or None, not {axis!r}") from None
        if not -logits.ndim <= k < logits.ndim:
            raise ValueError(f"axis {k} does not exist: logits has shape {logits.shape}")
        if k % logits.ndim in found:
            raise ValueError(f"axis {axis} names an axis twice: logits has shape {logits.shape}")
        found.append(k % logits.ndim)
    return found
