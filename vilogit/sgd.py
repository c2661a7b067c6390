"""The textbook's loop: noisy gradients of the ELBO by reparameterisation (chapter 3)."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from .data import one_hot
from .gaussian import MeanField, check_gaussian, elbo, log_softplus
from .posterior import ConvergenceWarning, MeanFieldPosterior, Record, State
from .softmax import log_softmax, sigmoid


class Gradient(NamedTuple):
    """Partial derivatives in the parameters of a `MeanField`.

    Attributes
    ----------
    mean, rho : ndarray, shape (M, D)
        In the means, and in the unconstrained scales.
    """

    mean: np.ndarray
    rho: np.ndarray


def elbo_and_gradient(
    q: MeanField, eps: ArrayLike, X: ArrayLike, Y: ArrayLike, prior_precision: ArrayLike = 1.0
) -> tuple[float, Gradient]:
    """Estimate the ELBO and its gradient from given noise, by reparameterisation.

    The value is the average over draws of :eq:`def-f` with its sign changed, and the gradient
    is the exact derivative of that value, :eq:`eq-total-mean` and :eq:`eq-total-rho`.

    Parameters
    ----------
    q : MeanField
        Gaussian over the weights, arrays of shape (M, D).
    eps : array_like, shape (M, D) or (S, M, D)
        Standard normal noise, one draw or S of them.
    X : array_like, shape (N, M)
        Inputs, bias included.
    Y : array_like, shape (N, D)
        One-hot labels.
    prior_precision : array_like, scalar or shape (M,)
        Precision of the prior; positive.

    Returns
    -------
    elbo : float
        In nats, higher is better.
    gradient : Gradient
        Partial derivatives of `elbo` in ``q.mean`` and ``q.rho``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not hold finite real numbers of these shapes.
    """
    q = check_gaussian(q)
    eps = checks.array(eps, "eps", (..., *q.mean.shape))
    if eps.ndim not in (2, 3) or 0 in eps.shape:
        raise ValueError(f"eps has shape {eps.shape}; expected (M, D) or (S, M, D), none of it 0")
    X = checks.array(X, "X", ("N", len(q.mean)))
    Y = checks.one_hot(Y, len(X), q.mean.shape[1])
    precision = checks.prior_precision(prior_precision, len(q.mean))
    return _elbo_and_gradient(q, eps, X, Y, precision)


def fit_sgd(
    X: ArrayLike, y: ArrayLike, *, rng: np.random.Generator, steps: int = 5000,
    learning_rate: float = 0.003, prior_precision: ArrayLike = 1.0, n_classes: int | None = None,
    callback: Callable[[State], object] | None = None,
) -> MeanFieldPosterior:  # fmt: skip
    """Fit by the textbook's update, :eq:`eq-update`: one draw a step, a decaying rate.

    Parameters
    ----------
    X : array_like, shape (N, M)
        Inputs, bias included, at least one row.
    y : array_like of int, shape (N,)
        Labels in ``0..D-1``; a class may be absent.
    rng : numpy.random.Generator
        Draws the starting mean, then the noise of every step.
    steps : int
        Number of updates, at least 1.
    learning_rate : float
        Rate of the first half of the steps; it falls in a line to zero over the second half.
    prior_precision : array_like, scalar or shape (M,)
        Precision of the prior; positive.
    n_classes : int, optional
        Number of classes D, at least 2; by default ``max(y) + 1``, at most 1000 above N.
    callback : callable, optional
        Called with a `State` before every update and once at the end.

    Returns
    -------
    Posterior
        The last q; the last one within reach of its numbers, where the update diverges and
        stops. Its trace holds the noisy estimates, with no proven gap (NaN).

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    Warns
    -----
    UserWarning
        If a class below the largest label is absent and `n_classes` does not announce it.
    ConvergenceWarning
        If the update diverges or the ELBO ends below its start: the rate is too high for these
        inputs or this prior.
    """
    X = checks.inputs(X)
    labels, D = checks.labels(y, len(X), n_classes)
    Y = one_hot(labels, D)
    checks.rng(rng)
    steps = checks.size(steps, "steps", at_least=1)
    learning_rate = float(checks.positive(learning_rate, "learning_rate", ()))
    precision = checks.prior_precision(prior_precision, X.shape[1])

    shape = (X.shape[1], Y.shape[1])
    q = start = MeanField(rng.standard_normal(shape), np.zeros(shape))
    trace = []
    # Weights whose squares, times those of X or by their prior, are near the largest of numbers.
    far = checks.largest(X.dtype) / max(1.0, np.abs(X).max(), np.sqrt(precision.max()))
    for step in range(steps + 1):
        value, gradient = _elbo_and_gradient(q, rng.standard_normal(shape), X, Y, precision)
        trace.append(Record(value, np.nan))
        if callback is not None:
            callback(State(step, q, value))
        rate = learning_rate * min(1.0, 2 * (1 - step / steps))
        with np.errstate(over="ignore", invalid="ignore"):
            ahead = MeanField(q.mean + rate * gradient.mean, q.rho + rate * gradient.rho)
        if step == steps or not np.abs(ahead).max() <= far:
            break
        q = ahead

    before, after = elbo(start, X, Y, prior_precision), elbo(q, X, Y, prior_precision)
    if step < steps or not after > before:
        diverged = f" as it diverged in update {step + 1} of {steps}," if step < steps else ""
        warnings.warn(
            f"fit_sgd ended{diverged} at an ELBO of {after:.6g}, "
            f"{'' if after > before else 'not '}above its start at {before:.6g}; "
            f"try a learning_rate below {learning_rate:g} or inputs of unit scale",
            ConvergenceWarning, stacklevel=2,
        )  # fmt: skip
    return MeanFieldPosterior(q, after, tuple(trace))


def _elbo_and_gradient(
    q: MeanField, eps: np.ndarray, X: np.ndarray, Y: np.ndarray, precision: np.ndarray
) -> tuple[float, Gradient]:
    """`elbo_and_gradient` of checked arrays."""
    eps = eps.reshape(-1, *q.mean.shape)
    log_scale = log_softplus(q.rho)
    W = q.mean + q.scale * eps

    log_probs = log_softmax(X @ W.astype(X.dtype, copy=False))
    log_likelihood = np.sum(Y * log_probs, axis=(1, 2), dtype=np.float64)
    log_prior = np.sum(np.log(precision) - precision * W**2, axis=(1, 2)) / 2
    log_q = np.sum(-(eps**2) / 2 - log_scale, axis=(1, 2))  # both without ln(2 pi) / 2
    value = np.mean(log_likelihood + log_prior - log_q)

    G = np.matmul(X.T, np.exp(log_probs) - Y, dtype=np.float64) + precision * W
    # sigmoid(rho) / scale has a limit where both underflow: hence the difference of logarithms.
    slope = sigmoid(q.rho)
    relative_slope = np.exp(-np.logaddexp(0, -q.rho) - log_scale)
    return float(value), Gradient(-G.mean(axis=0), -(G * eps).mean(axis=0) * slope + relative_slope)
