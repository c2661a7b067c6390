"""Mean-field variational inference by noisy gradients of the ELBO (chapter 3)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .data import (
    check_array,
    check_inputs,
    check_labels,
    check_one_hot,
    check_positive,
    check_prior_precision,
    check_rng,
    check_size,
)
from .expectations import WIDEST, expected_softmax
from .softmax import log_softmax, sigmoid


class ConvergenceWarning(UserWarning):
    """A fit stopped before it reached what it was asked for."""


class MeanField(NamedTuple):
    """A Gaussian with independent weights; also the pair of derivatives in its parameters.

    Attributes
    ----------
    mean : ndarray, shape (M, D)
        Means of the weights.
    rho : ndarray, shape (M, D)
        Unconstrained scales; the standard deviation is ``softplus(rho)``.
    """

    mean: np.ndarray
    rho: np.ndarray

    @property
    def scale(self) -> np.ndarray:
        """Standard deviations, :eq:`def-softplus`, shape (M, D)."""
        return np.logaddexp(0, self.rho)


class Record(NamedTuple):
    """One evaluation of the ELBO in a fit: its value and the proven gap to the optimum, nats."""

    elbo: float
    gap: float


class State(NamedTuple):
    """What the callback of a fit sees.

    Attributes
    ----------
    step : int
        `fit_sgd`: updates made so far; 0 is the random start. `fit`: evaluations made so far.
    q : MeanField
        The approximation there.
    elbo : float
        Its ELBO in nats; for `fit_sgd` a noisy estimate from one draw.
    gap : float
        Proven bound on the distance to the optimum in nats; NaN for `fit_sgd`.
    """

    step: int
    q: MeanField
    elbo: float
    gap: float = np.nan


@dataclass(frozen=True)
class Posterior:
    """An approximate posterior over the weights, and what it predicts.

    Attributes
    ----------
    q : MeanField
        The Gaussian that was fitted.
    elbo : float
        Evidence lower bound of `q` in nats, by quadrature; higher is better.
    trace : sequence of Record
        One record for each evaluation of the ELBO in the fit.
    gap : float
        Proven bound on the distance of `elbo` to the optimum, :eq:`eq-gap`, in nats; NaN where
        nothing was proven.
    """

    q: MeanField
    elbo: float
    trace: Sequence[Record] = ()
    gap: float = np.nan

    @property
    def mean(self) -> np.ndarray:
        """Means of the weights, shape (M, D)."""
        return self.q.mean

    @property
    def scale(self) -> np.ndarray:
        """Standard deviations of the weights, shape (M, D)."""
        return self.q.scale

    def logit_moments(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the logits, :eq:`eq-logit-moments`.

        Parameters
        ----------
        X : array_like, shape (N, M)
            Inputs, bias included.

        Returns
        -------
        mean, variance : ndarray, shape (N, D)
            Of independent Gaussian logits.

        Raises
        ------
        TypeError, ValueError
            If `X` is not a finite real array with M columns.
        """
        X = check_array(X, "X", ("N", len(self.mean)))
        return _logit_moments(self.q, X)

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Class probabilities averaged over the posterior, shape (N, D).

        The average is over the Gaussian logits, not over draws of the weights, and as exact as
        `expected_softmax`: within 1e-6. Parameters and errors are those of `logit_moments`.
        """
        return expected_softmax(*self.logit_moments(X))[1]

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Most probable class of each row, shape (N,). Parameters as `logit_moments`."""
        return self.predict_proba(X).argmax(axis=1)

    def uncertainty(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Split the entropy of each prediction into noise and ignorance, :eq:`eq-entropy-split`.

        Parameters and errors are those of `logit_moments`.

        Returns
        -------
        total : ndarray, shape (N,)
            Entropy of the predicted probabilities, in nats.
        aleatoric : ndarray, shape (N,)
            Average entropy of the probabilities under q: what no data could remove.
        epistemic : ndarray, shape (N,)
            Their difference, the mutual information of label and weights; not negative.
        """
        mean, var = self.logit_moments(X)
        # Wider logits meet softmax as a step: in larger units, only the width of the step changes.
        unit = np.maximum(np.sqrt(var.max(axis=1, keepdims=True)) / WIDEST, 1)
        mean, var = mean / unit, var / unit**2
        log_sum_exp, probs, spread = expected_softmax(mean, var)
        total = -np.sum(probs * np.log(np.maximum(probs, 1e-300)), axis=1)
        # Stein's lemma turns the average entropy into averages that are already there.
        aleatoric = log_sum_exp - np.sum(mean * probs + var * spread, axis=1)
        aleatoric = np.clip(aleatoric / unit[:, 0], 0, total)
        return total, aleatoric, total - aleatoric

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` weight matrices from q, shape (n, M, D).

        Raises
        ------
        TypeError, ValueError
            If `n` is not a non-negative integer or `rng` is not a generator.
        """
        n = check_size(n, "n", at_least=0)
        check_rng(rng)
        return self.mean + self.scale * rng.standard_normal((n, *self.mean.shape))

    def to_arviz(self, n: int, rng: np.random.Generator) -> object:
        """Draw `n` weight matrices for ArviZ; errors as in `sample`.

        Returns
        -------
        object
            An ``xarray.DataTree`` with ``posterior["W"]``, of dimensions chain (one), draw,
            feature and class.

        Raises
        ------
        ImportError
            If ArviZ is not there: ``pip install "vilogit[arviz]"``.
        """
        draws = self.sample(n, rng)
        try:
            from arviz_base import from_dict
        except ImportError as error:
            raise ImportError('to_arviz needs ArviZ: pip install "vilogit[arviz]"') from error
        return from_dict({"posterior": {"W": draws[None]}}, dims={"W": ["feature", "class"]})

    def save(self, path: str | os.PathLike) -> None:
        """Write the posterior to one ``.npz`` file without pickle, for `vilogit.load`.

        Parameters
        ----------
        path : str
            Where to, or any path-like object. A file that is there already is replaced in one
            step: whatever interrupts the writing, the old file or the new one is there.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        from .storage import save  # it knows every family

        save(self, path)


def kl_to_prior(q: MeanField, prior_precision: ArrayLike) -> float:
    """Kullback-Leibler divergence from q to the prior, :eq:`eq-kl-closed-form`.

    Parameters
    ----------
    q : MeanField
        Gaussian over the weights, arrays of shape (M, D).
    prior_precision : array_like, scalar or shape (M,)
        Precision of the zero-mean prior, one for all features or one each; positive.

    Returns
    -------
    float
        In nats; not negative.

    Raises
    ------
    TypeError, ValueError
        If an argument does not hold finite real numbers of these shapes.
    """
    q = _check_q(q)
    precision = check_prior_precision(prior_precision, len(q.mean))
    log_variance_ratio = np.log(precision) + 2 * _log_softplus(q.rho)
    terms = precision * (q.mean**2 + q.scale**2) - 1 - log_variance_ratio
    return float(terms.sum() / 2)


def elbo(
    q: MeanField,
    X: ArrayLike,
    Y: ArrayLike,
    prior_precision: ArrayLike = 1.0,
    *,
    accuracy: float = 1e-8,
) -> float:
    """Evidence lower bound by quadrature, :eq:`def-elbo`; no sampling.

    Parameters
    ----------
    q : MeanField
        Gaussian over the weights, arrays of shape (M, D).
    X : array_like, shape (N, M)
        Inputs, bias included.
    Y : array_like, shape (N, D)
        One-hot labels.
    prior_precision : array_like, scalar or shape (M,)
        Precision of the prior; positive.
    accuracy : float
        Largest error of a row's averages, see `expected_softmax`.

    Returns
    -------
    float
        In nats, higher is better; as exact as `expected_softmax`, summed over observations.

    Raises
    ------
    TypeError, ValueError
        If an argument does not hold finite real numbers of these shapes.
    """
    q = _check_q(q)
    X = check_array(X, "X", ("N", len(q.mean)))
    Y = check_one_hot(Y, len(X), q.mean.shape[1])
    mean, var = _logit_moments(q, X)
    log_sum_exp = expected_softmax(mean, var, accuracy=accuracy).log_sum_exp
    return float(np.sum(Y * mean) - log_sum_exp.sum()) - kl_to_prior(q, prior_precision)


def elbo_and_gradient(
    q: MeanField, eps: ArrayLike, X: ArrayLike, Y: ArrayLike, prior_precision: ArrayLike = 1.0
) -> tuple[float, MeanField]:
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
    gradient : MeanField
        Partial derivatives of `elbo` in ``q.mean`` and ``q.rho``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not hold finite real numbers of these shapes.
    """
    q = _check_q(q)
    eps = check_array(eps, "eps", (..., *q.mean.shape))
    if eps.ndim not in (2, 3) or 0 in eps.shape:
        raise ValueError(f"eps has shape {eps.shape}; expected (M, D) or (S, M, D), none of it 0")
    X = check_array(X, "X", ("N", len(q.mean)))
    Y = check_one_hot(Y, len(X), q.mean.shape[1])
    precision = check_prior_precision(prior_precision, len(q.mean))
    return _elbo_and_gradient(q, eps, X, Y, precision)


def fit_sgd(
    X: ArrayLike,
    y: ArrayLike,
    *,
    rng: np.random.Generator,
    steps: int = 5000,
    learning_rate: float = 0.003,
    prior_precision: ArrayLike = 1.0,
    n_classes: int | None = None,
    callback: Callable[[State], object] | None = None,
) -> Posterior:
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
        Number of classes D, at least 2; by default ``max(y) + 1``.
    callback : callable, optional
        Called with a `State` before every update and once at the end.

    Returns
    -------
    Posterior
        The last q. Its trace holds the noisy estimates, with no proven gap (NaN).

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    Warns
    -----
    ConvergenceWarning
        If the ELBO ends below its start: the rate is too high for these inputs.
    """
    X = check_inputs(X)
    Y = check_labels(y, len(X), n_classes)
    check_rng(rng)
    steps = check_size(steps, "steps", at_least=1)
    learning_rate = float(check_positive(learning_rate, "learning_rate", ()))
    precision = check_prior_precision(prior_precision, X.shape[1])

    shape = (X.shape[1], Y.shape[1])
    q = start = MeanField(rng.standard_normal(shape), np.zeros(shape))
    trace = []
    for step in range(steps + 1):
        value, gradient = _elbo_and_gradient(q, rng.standard_normal(shape), X, Y, precision)
        trace.append(Record(value, np.nan))
        if callback is not None:
            callback(State(step, q, value))
        rate = learning_rate * min(1.0, 2 * (1 - step / steps))
        if step < steps:
            q = MeanField(q.mean + rate * gradient.mean, q.rho + rate * gradient.rho)

    before, after = elbo(start, X, Y, prior_precision), elbo(q, X, Y, prior_precision)
    if not after > before:
        warnings.warn(
            f"fit_sgd ended at an ELBO of {after:.6g}, not above its start at {before:.6g}; "
            f"try a learning_rate below {learning_rate:g} or inputs of unit scale",
            ConvergenceWarning,
            stacklevel=2,
        )
    return Posterior(q, after, tuple(trace))


def _elbo_and_gradient(
    q: MeanField, eps: np.ndarray, X: np.ndarray, Y: np.ndarray, precision: np.ndarray
) -> tuple[float, MeanField]:
    eps = eps.reshape(-1, *q.mean.shape)
    scale = q.scale
    log_scale = _log_softplus(q.rho)
    W = q.mean + scale * eps

    log_probs = log_softmax(X @ W.astype(X.dtype, copy=False))
    log_likelihood = np.sum(Y * log_probs, axis=(1, 2), dtype=np.float64)
    log_prior = np.sum(np.log(precision) - precision * W**2, axis=(1, 2)) / 2
    log_q = np.sum(-(eps**2) / 2 - log_scale, axis=(1, 2))  # both without ln(2 pi) / 2
    value = np.mean(log_likelihood + log_prior - log_q)

    residual = np.exp(log_probs) - Y
    G = np.matmul(X.T, residual, dtype=np.float64) + precision * W
    # sigmoid(rho) / scale has a limit where both underflow: hence the difference of logarithms.
    slope = sigmoid(q.rho)
    relative_slope = np.exp(-np.logaddexp(0, -q.rho) - log_scale)
    return float(value), MeanField(
        -G.mean(axis=0), -(G * eps).mean(axis=0) * slope + relative_slope
    )


def _logit_moments(q: MeanField, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return X @ q.mean, X**2 @ q.scale**2


def with_scale(mean: np.ndarray, scale: np.ndarray) -> MeanField:
    """Gaussian of these means and standard deviations: the inverse of softplus gives `rho`."""
    return MeanField(mean, scale + np.log(-np.expm1(-scale)))


def _log_softplus(rho: np.ndarray) -> np.ndarray:
    """Logarithm of softplus, which is rho itself where exp(rho) would underflow."""
    return np.where(rho < -40, rho, np.log(np.logaddexp(0, np.maximum(rho, -40))))


def _check_q(q: MeanField) -> MeanField:
    if not isinstance(q, MeanField):
        raise TypeError(f"q must be a MeanField, not {type(q).__name__}")
    mean = check_array(q.mean, "q.mean", ("M", "D"))
    return MeanField(mean, check_array(q.rho, "q.rho", mean.shape))
