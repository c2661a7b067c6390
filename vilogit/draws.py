"""Draws of the posterior itself: proposals weighed by the exact joint density (chapter 8).

References
----------
A. Vehtari, D. Simpson, A. Gelman, Y. Yao and J. Gabry (2024), Pareto smoothed importance sampling,
Journal of Machine Learning Research 25 (72), 1-58. J. Zhang and M. A. Stephens (2009), A new and
efficient estimation method for the generalized Pareto distribution, Technometrics 51, 316-325.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import lgamma, log, pi
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from .averages import entropy
from .contrasts import check_contrasts, contrast_basis, with_prior
from .posterior import for_arviz
from .response import Response
from .softmax import log_softmax

_HEAVIER = 4  # degrees of freedom of the proposal, above its dimension
FEWEST = 100  # draws: fewer have no tail to speak of
_TAIL, _TAIL_ROOT = 0.2, 3.0  # largest share and root of the draws that are smoothed
_RELIABLE, _ENOUGH = 0.7, 400  # k-hat at most, effective draws at least
_IN_CACHE = 100_000  # logits of one class that are looked at together


@dataclass(frozen=True, eq=False, repr=False)
class WeightedDraws:
    """Draws of the weights that count unequally, so that together they are the posterior.

    `mean`, `scale` and `interval` are about the centred weights, each less its row's mean over
    the classes: what the data determine.

    Attributes
    ----------
    W : ndarray, shape (n, M, D)
        Draws of the weights.
    weight : ndarray, shape (n,)
        How much each counts; they sum to one.
    khat : float
        Shape of the weights' tail, as far as these draws have reached it: above 0.7 averages are
        not to be relied on.
    ess : float
        Effective size, ``1 / (weight**2).sum()``: of so many equal draws averages would be as
        exact, where what is averaged does not hang together with the weights.
    log_evidence, log_evidence_error : float
        Logarithm of the probability of the labels, in nats, by the weights before they are
        smoothed, and its Monte Carlo standard error.
    """

    W: np.ndarray
    weight: np.ndarray
    khat: float
    ess: float
    log_evidence: float
    log_evidence_error: float

    @classmethod
    def of(cls, W: np.ndarray, log_weights: np.ndarray) -> Self:
        """Weigh draws, (n, M, D), by joint density over proposal, (n,), in logarithms."""
        weight, khat = pareto_smoothed(log_weights)
        top = log_weights.max()
        raw = np.exp(log_weights - top)
        error = raw.std(ddof=1) / np.sqrt(len(raw)) / raw.mean()
        ess = float(1 / np.sum(weight**2))
        return cls(W, weight, khat, ess, float(top + log(raw.mean())), float(error))

    def __repr__(self) -> str:
        n, M, D = self.W.shape
        return f"WeightedDraws({n=}, {M=}, {D=}, khat={self.khat:.2f}, ess={self.ess:.0f})"

    @property
    def mean(self) -> np.ndarray:
        """Means of the centred weights, shape (M, D)."""
        mean = np.tensordot(self.weight, self.W, 1)
        return mean - mean.mean(axis=1, keepdims=True)

    @property
    def scale(self) -> np.ndarray:
        """Standard deviations of the centred weights, shape (M, D)."""
        centred = self.W - self.W.mean(axis=2, keepdims=True)
        return np.sqrt(np.tensordot(self.weight, (centred - self.mean) ** 2, 1))

    def interval(
        self, level: float = 0.9, contrasts: ArrayLike | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ends of central intervals, weighted quantiles; all else as `Response.interval`."""
        tail = (1 - checks.level(level)) / 2
        values = self.W @ check_contrasts(contrasts, self.W.shape[2])
        low, high = weighted_quantiles(values, self.weight, np.array([tail, 1 - tail]))
        return low, high

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Class probabilities averaged over the draws, shape (N, D).

        Parameters and errors are those of `Posterior.predict_proba`.
        """
        return self._averages(X)[0]

    def uncertainty(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Split the entropy of each prediction; see `Posterior.uncertainty`."""
        probs, aleatoric = self._averages(X)
        total = entropy(probs)
        aleatoric = np.minimum(aleatoric, total)
        return total, aleatoric, total - aleatoric

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` weight matrices of equal weight from these, with repeats, shape (n, M, D).

        Raises
        ------
        TypeError, ValueError
            If `n` is not a non-negative integer or `rng` is not a generator.
        """
        n = checks.size(n, "n", at_least=0)
        checks.rng(rng)
        return self.W[rng.choice(len(self.W), n, p=self.weight)]

    def to_arviz(self, n: int, rng: np.random.Generator) -> object:
        """Draw `n` weight matrices of equal weight for ArviZ; see `Posterior.to_arviz`."""
        return for_arviz({"W": self.sample(n, rng)}, {"W": ["feature", "class"]})

    def _averages(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities, (N, D), and their entropy, (N,), averaged over the draws."""
        X = checks.array(X, "X", ("N", self.W.shape[1])).astype(np.float64, copy=False)
        probs, entropy = np.zeros((len(X), self.W.shape[2])), np.zeros(len(X))
        by_class = self.W.transpose(2, 1, 0).copy()
        for rows, draws in _blocks(len(X), len(self.W)):
            logits = X[rows] @ by_class[:, :, draws]
            log_probs = log_softmax(logits, axis=0)
            each = np.exp(log_probs)
            probs[rows] += (each @ self.weight[draws]).T
            log_probs *= each
            entropy[rows] -= log_probs.sum(axis=0) @ self.weight[draws]
        return probs, entropy


def weighted_draws(
    response: Response, X: np.ndarray, labels: np.ndarray, weight: np.ndarray | None, n: int,
    rng: np.random.Generator,
) -> WeightedDraws:  # fmt: skip
    """Draw from a Student-t of the response's shape, and weigh by the exact joint density.

    Parameters
    ----------
    response : Response
        Of the rows that are given.
    X : ndarray, shape (N, M)
        Inputs.
    labels : ndarray of int, shape (N,)
        Labels in ``0..D-1``.
    weight : ndarray, shape (N, 1), or None
        How often each row counts.
    n : int
        Number of draws.
    rng : numpy.random.Generator
        The only source of randomness.

    Returns
    -------
    WeightedDraws
        See :eq:`eq-importance-weight`.
    """
    (K, D), basis = response.location.shape, contrast_basis(response.location.shape[1])
    d = K * (D - 1)
    root, freedom = np.linalg.cholesky(response.inner.reshape(d, d)), d + _HEAVIER
    noise = rng.standard_normal((n, d))
    noise *= np.sqrt(freedom / rng.chisquare(freedom, n))[:, None]
    contrasts = response.location @ basis + (noise @ root.T).reshape(n, K, D - 1)
    log_joint = _log_likelihood(X @ response.axes, labels, weight, contrasts @ basis.T)
    log_joint -= np.sum(contrasts**2, axis=(1, 2)) / 2 + d / 2 * log(2 * pi)
    log_proposal = lgamma((freedom + d) / 2) - lgamma(freedom / 2) - d / 2 * log(freedom * pi)
    log_proposal -= np.log(np.diag(root)).sum()
    log_proposal = log_proposal - (freedom + d) / 2 * np.log1p(np.sum(noise**2, axis=1) / freedom)
    W = with_prior(contrasts @ basis.T, response.axes, response.prior_precision, rng)
    draws = WeightedDraws.of(W, log_joint - log_proposal)
    _warn(draws.khat, draws.ess, n)
    return draws


def weighted_quantiles(values: np.ndarray, weight: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Quantiles of draws that count unequally.

    Parameters
    ----------
    values : ndarray, shape (n, ...)
        Draws.
    weight : ndarray, shape (n,)
        How much each counts; they sum to one.
    shares : ndarray, shape (q,)
        Probabilities below the quantiles.

    Returns
    -------
    ndarray, shape (q, ...)
        Half of a draw's weight lies below its value; in between they are interpolated.
    """
    flat = values.reshape(len(values), -1)
    order = np.argsort(flat, axis=0)
    share = weight[order]
    below = np.cumsum(share, axis=0) - share / 2
    columns = zip(below.T, np.take_along_axis(flat, order, axis=0).T, strict=True)
    ends = np.stack([np.interp(shares, *column) for column in columns], axis=-1)
    return ends.reshape(len(shares), *values.shape[1:])


def pareto_smoothed(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Replace the largest weights by quantiles of a generalised Pareto law, :eq:`eq-pareto`.

    Parameters
    ----------
    log_weights : ndarray, shape (n,)
        Logarithms of importance weights, up to a constant.

    Returns
    -------
    weight : ndarray, shape (n,)
        They sum to one.
    khat : float
        Shape of the law that fits their tail.
    """
    n = len(log_weights)
    size = int(np.ceil(min(_TAIL * n, _TAIL_ROOT * np.sqrt(n))))
    order = np.argsort(log_weights)
    weights = np.exp(log_weights - log_weights[order[-1]])
    cut, tail = weights[order[-size - 1]], order[-size:]
    scale, khat = pareto_fit(weights[tail] - cut)
    share = (np.arange(size) + 0.5) / size
    with np.errstate(over="ignore"):  # quantiles, none above the largest weight
        quantiles = cut + scale * np.expm1(-khat * np.log1p(-share)) / khat
    weights[tail] = np.minimum(quantiles, 1.0)
    return weights / weights.sum(), khat


def pareto_fit(x: np.ndarray) -> tuple[float, float]:
    """Scale and shape of the generalised Pareto law of sorted numbers above zero.

    The average over a grid of candidates, each weighed by its profile likelihood (Zhang and
    Stephens, 2009); the shape is drawn a little to one half (Vehtari et al., 2024).
    """
    n, grid = len(x), 30 + int(np.sqrt(len(x)))
    quartile = max(x[int(n / 4 + 0.5) - 1], 1e-300)  # numbers this small are zero beside the rest
    rate = 1 / x[-1] + (1 - np.sqrt(grid / (np.arange(grid) + 0.5))) / (3 * quartile)
    shape = np.log1p(-rate[:, None] * x).mean(axis=1)
    likelihood = n * (np.log(-rate / shape) - shape - 1)
    weight = np.exp(likelihood - likelihood.max())
    best = rate @ weight / weight.sum()
    shape_there = np.log1p(-best * x).mean()
    return float(-shape_there / best), float((n * shape_there + 5) / (n + 10))


def _log_likelihood(
    Z: np.ndarray, labels: np.ndarray, weight: np.ndarray | None, V: np.ndarray
) -> np.ndarray:
    """Log likelihood of all rows under each draw, (n,)."""
    n, _, D = V.shape
    Y = np.zeros((len(Z), D))
    Y[np.arange(len(Z)), labels] = 1 if weight is None else weight[:, 0]
    counts = Y.sum(axis=1)
    total = V.reshape(n, -1) @ (Z.T @ Y).ravel()
    # Class 0 is the reference: one exponential less, and rows last, where NumPy is fastest.
    differences = (V[:, :, 1:] - V[:, :, :1]).transpose(2, 0, 1).copy()
    total -= V[:, :, 0] @ (Z.T @ counts)
    for rows, draws in _blocks(len(Z), n):
        logits = differences[:, draws] @ Z[rows].T
        top = np.maximum(logits.max(axis=0), 0)
        logits -= top
        np.exp(logits, out=logits)
        log_sum = top + np.log(logits.sum(axis=0) + np.exp(-top))
        total[draws] -= log_sum @ counts[rows]
    return total


def _blocks(n_rows: int, n_draws: int) -> Iterator[tuple[slice, slice]]:
    """Yield some rows and some draws at a time, so that their logits stay in the cache."""
    rows = min(n_rows, 4000)
    draws = max(1, _IN_CACHE // max(rows, 1))
    for k in range(0, n_rows, max(rows, 1)):
        for j in range(0, n_draws, draws):
            yield slice(k, k + rows), slice(j, j + draws)


def _warn(khat: float, ess: float, n: int) -> None:
    """Say what weights of this kind can bear, at the line that asked for them."""
    said = []
    if khat > _RELIABLE:
        said.append(
            f"k-hat is {khat:.2f}, above {_RELIABLE}: the proposal misses part of the posterior, "
            "and averages are not to be relied on; use the response, or sample by MCMC"
        )
    if ess < _ENOUGH:
        said.append(
            f"{n} draws have an effective size of {ess:.0f}, below {_ENOUGH}: an average is off "
            f"by {ess**-0.5:.0%} of a standard deviation, an interval's end by more; draw more"
        )
    if said:
        warnings.warn("; ".join(said), UserWarning, stacklevel=4)
