"""Independent weights: the Gaussian, its divergence from the prior and its ELBO (chapter 3)."""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from .averages import expected_softmax


class MeanField(NamedTuple):
    """A Gaussian with independent weights.

    Attributes
    ----------
    mean : ndarray, shape (M, D)
        Means of the weights.
    rho : ndarray, shape (M, D)
        Unconstrained scales; the standard deviation is ``softplus(rho)``.
    """

    mean: np.ndarray
    rho: np.ndarray

    def __repr__(self) -> str:
        """Show shapes alone: a fit has thousands of numbers."""
        return f"MeanField(mean: {np.shape(self.mean)}, rho: {np.shape(self.rho)})"

    @property
    def scale(self) -> np.ndarray:
        """Standard deviations, :eq:`def-softplus`, shape (M, D)."""
        return softplus(self.rho)

    @classmethod
    def with_scale(cls, mean: np.ndarray, scale: np.ndarray) -> Self:
        """Gaussian of these means and standard deviations."""
        return cls(mean, inverse_softplus(scale))


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
    q = check_gaussian(q)
    precision = checks.prior_precision(prior_precision, len(q.mean))
    terms = precision * (q.mean**2 + q.scale**2) - 1 - np.log(precision) - 2 * log_softplus(q.rho)
    return float(terms.sum() / 2)


def elbo(
    q: MeanField, X: ArrayLike, Y: ArrayLike, prior_precision: ArrayLike = 1.0, *,
    accuracy: float = 1e-8,
) -> float:  # fmt: skip
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
    q = check_gaussian(q)
    X = checks.array(X, "X", ("N", len(q.mean)))
    Y = checks.one_hot(Y, len(X), q.mean.shape[1])
    mean, var = logit_moments(q, X)
    log_sum_exp = expected_softmax(mean, var, accuracy=accuracy).log_sum_exp
    return float(np.sum(Y * mean) - log_sum_exp.sum()) - kl_to_prior(q, prior_precision)


def logit_moments(q: MeanField, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means and variances of the logits, :eq:`eq-logit-moments`, (N, D) each."""
    return X @ q.mean, X**2 @ q.scale**2


def softplus(rho: np.ndarray) -> np.ndarray:
    """Return the standard deviation of an unconstrained scale, :eq:`def-softplus`."""
    return np.logaddexp(0, rho)


def inverse_softplus(scale: np.ndarray) -> np.ndarray:
    """Return the unconstrained scale of a standard deviation."""
    return scale + np.log(-np.expm1(-scale))


def log_softplus(rho: np.ndarray) -> np.ndarray:
    """Logarithm of softplus, which is rho itself, to the last digit, long before exp underflows."""
    return np.where(rho < -40, rho, np.log(np.logaddexp(0, np.maximum(rho, -40))))


def check_gaussian(q: MeanField) -> MeanField:
    """Return a Gaussian whose arrays are finite and of one shape, (M, D)."""
    if not isinstance(q, MeanField):
        raise TypeError(f"q must be a MeanField, not {type(q).__name__}")
    mean = checks.array(q.mean, "q.mean", ("M", "D"))
    return MeanField(mean, checks.array(q.rho, "q.rho", mean.shape))
