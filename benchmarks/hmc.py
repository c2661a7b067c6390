"""Long runs of Hamiltonian Monte Carlo in NumPy, hundreds of chains as one matrix product.

Sampled are the contrasts that the data see, in coordinates in which a given Gaussian is standard
normal: that is only a metric, and the run stays exact whatever the Gaussian. So many chains show
by the scatter of their means how exact their average is; no autocorrelation is needed. The shift,
and directions without data, have exactly their prior, independent of the rest.

References
----------
R. M. Neal (2011), MCMC using Hamiltonian dynamics, in: Handbook of Markov Chain Monte Carlo,
chapter 5. X.-L. Meng and W. H. Wong (1996), Simulating ratios of normalizing constants via a
simple identity, Statistica Sinica 6, 831-860.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import log, pi
from typing import NamedTuple

import numpy as np
from gaussians import Freed, Seen
from scipy import linalg, special

from vilogit import softmax

ACCEPTED = 0.9  # share of proposals that the step size is tuned to
TRAJECTORY = 1.6  # quarter of a standard normal's period: the next draw forgets the last
JITTER = 0.2  # of the step size, so that no trajectory closes on itself
FINEST = 0.02  # step size: whoever needs less has a wrong slope, and should not run for ever
CAREFUL = 0.1  # first step size: starts may be where the posterior is steep
IN_CACHE = 100_000  # logits that are looked at together


class Summary(NamedTuple):
    """Average, variance, split r-hat and effective sample size of numbers of one shape."""

    mean: np.ndarray
    var: np.ndarray
    r_hat: np.ndarray
    ess: np.ndarray


class Run(NamedTuple):
    """Draws of the posterior.

    Attributes
    ----------
    problem : Seen
        What they are of.
    V : ndarray, shape (chains, draws, K, D - 1)
        Contrasts in the axes.
    gradients : int
        Evaluations of the likelihood and its gradient, of all chains together.
    """

    problem: Seen
    V: np.ndarray
    gradients: int

    @property
    def halves(self) -> np.ndarray:
        """First and second half of every chain, one after the other, (2 chains, ...)."""
        chains, draws = self.V.shape[:2]
        return self.V.reshape(2 * chains, draws // 2, *self.V.shape[2:])

    @property
    def with_data(self) -> np.ndarray:
        """Features that the data see, boolean (M,); weights of the others are at their prior."""
        return self.problem.unseen[:, 0] < 0.5 / self.problem.precision[:, 0]

    def centred_weights(self) -> np.ndarray:
        """Weights less their row's mean, (chains, draws, M, D), zero where there are no data."""
        return self.problem.axes @ self.V @ self.problem.basis.T

    def probs(self, Z: np.ndarray) -> Summary:
        """Class probabilities of inputs in the axes, (R, D)."""
        return summary(self.halves, lambda V: softmax(Z @ V @ self.problem.basis.T))

    def centred(self) -> Summary:
        """Weights less their row's mean, (M', D), of the M' features `with_data`.

        r-hat and effective size are the worse of those of the weights and of their squares.
        """
        axes, basis = self.problem.axes[self.with_data], self.problem.basis
        middle = self.V.mean(axis=(0, 1))
        first = summary(self.halves, lambda V: axes @ V @ basis.T)
        second = summary(self.halves, lambda V: (axes @ (V - middle) @ basis.T) ** 2)
        r_hat, ess = np.maximum(first.r_hat, second.r_hat), np.minimum(first.ess, second.ess)
        return first._replace(r_hat=r_hat, ess=ess)


def hmc(metric: Freed, chains: int, draws: int, seed: int, warmup: int = 100) -> Run:
    """Run all chains from starts wider than the posterior.

    Parameters
    ----------
    metric : Freed
        A Gaussian near the posterior, which decides how fast the run forgets, and nothing else.
    chains, draws : int
        Number of chains, and of draws that each keeps, even.
    seed : int
        Of everything random.
    warmup : int
        Draws of each chain to leave out; in their first half the step size is tuned.
    """
    rng, problem = np.random.default_rng(seed), metric.problem
    K, E = metric.location.shape
    root = np.linalg.cholesky(metric.cov)
    centre = metric.location.reshape(-1, 1)

    def target(U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        v = centre + root @ U
        value, slope = log_joint(problem, v.reshape(K, E, -1))
        return value, root.T @ slope.reshape(v.shape)

    U = 1.5 * rng.standard_normal((len(centre), chains))
    value, slope = target(U)
    size, gradients = CAREFUL, chains
    kept = np.empty((chains, draws, K, E))
    for i in range(warmup + draws):
        steps = int(np.ceil(TRAJECTORY / size))
        jittered = size * rng.uniform(1 - JITTER, 1 + JITTER, chains)
        momentum = rng.standard_normal(U.shape)
        ahead = leapfrog(target, U, momentum, slope, jittered, steps)
        new, momentum_there, value_there, slope_there = ahead
        rise = value_there - value - np.sum(momentum_there**2 - momentum**2, axis=0) / 2
        chance = np.exp(np.minimum(rise, 0))
        accepted = rng.random(chains) < chance
        U = np.where(accepted, new, U)
        slope = np.where(accepted, slope_there, slope)
        value = np.where(accepted, value_there, value)
        gradients += steps * chains
        if i < warmup // 2:
            size = np.clip(size * np.exp(2 * (chance.mean() - ACCEPTED)), FINEST, TRAJECTORY)
        if i >= warmup:
            kept[:, i - warmup] = (centre + root @ U).T.reshape(chains, K, E)
    return Run(problem, kept, gradients)


def leapfrog(target: Callable, U, momentum, slope, size, steps: int):
    """Follow Hamilton's equations; return where they end, momentum, value and slope there."""
    for _ in range(steps):
        momentum = momentum + size / 2 * slope
        U = U + size * momentum
        value, slope = target(U)
        momentum = momentum + size / 2 * slope
    return U, momentum, value, slope


def log_joint(problem: Seen, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log of likelihood times prior of contrasts, one draw a column, and its gradient.

    Parameters
    ----------
    problem : Seen
        With N rows, K axes and D classes.
    V : ndarray, shape (K, D - 1, n)
        Contrasts.

    Returns
    -------
    value : ndarray, shape (n,)
        In nats, the prior's constant included.
    slope : ndarray, shape (K, D - 1, n)
    """
    Z, Y, basis = problem.Z, problem.Y, problem.basis
    n = V.shape[2]
    # Class 0 is the reference: one exponential less.
    to_logits = basis[1:] - basis[0]
    differences = np.einsum("ea,kan->ekn", to_logits, V)
    pull = (Z.T @ Y[:, 1:]).T
    value = np.einsum("ek,ekn->n", pull, differences)
    by_class = np.zeros_like(differences)
    for rows in blocks(len(Z), n):
        logits = Z[rows] @ differences
        top = np.maximum(logits.max(axis=0), 0)
        np.exp(logits - top, out=logits)
        total = logits.sum(axis=0) + np.exp(-top)
        value -= (top + np.log(total)).sum(axis=0)
        logits /= total
        by_class += Z[rows].T @ logits
    value -= np.sum(V**2, axis=(0, 1)) / 2 + V.shape[0] * V.shape[1] / 2 * log(2 * pi)
    return value, np.einsum("ea,ekn->kan", to_logits, pull[:, :, None] - by_class) - V


def blocks(n_rows: int, n: int) -> Iterator[slice]:
    """Yield some rows at a time, so that their logits stay in the cache."""
    some = max(1, IN_CACHE // n)
    for k in range(0, n_rows, some):
        yield slice(k, k + some)


def summary(halves: np.ndarray, of: Callable[[np.ndarray], np.ndarray]) -> Summary:
    """Average a function of draws (n, K, D - 1) over half chains, and say how exact that is."""
    each = [(x.mean(axis=0), x.var(axis=0, ddof=1)) for x in map(of, halves)]
    means, within = np.mean([m for m, _ in each], axis=0), np.mean([v for _, v in each], axis=0)
    between = np.var([m for m, _ in each], axis=0, ddof=1)
    var = within * (1 - 1 / halves.shape[1]) + between
    return Summary(means, var, np.sqrt(var / within), len(halves) * var / between)


def log_evidence(run: Run, seed: int, batches: int = 10) -> tuple[float, float]:
    """Log evidence and its standard error by bridge sampling between a run and a Gaussian.

    Independent of every fit: the Gaussian has the moments of one half of the chains, and the
    bridge of Meng and Wong (1996) leads to draws of the other half.
    """
    rng = np.random.default_rng(seed)
    K, E = run.V.shape[2:]
    chains = run.V.reshape(*run.V.shape[:2], K * E)
    fitted, bridged = np.split(chains, 2)
    flat = fitted.reshape(-1, K * E)
    mean, root = flat.mean(axis=0), np.linalg.cholesky(np.cov(flat.T).reshape(K * E, K * E))

    def log_ratio(v: np.ndarray, noise: np.ndarray) -> np.ndarray:
        parts = [log_joint(run.problem, b.T.reshape(K, E, -1))[0] for b in np.array_split(v, 50)]
        log_normal = -np.sum(noise**2, axis=1) / 2 - K * E / 2 * log(2 * pi)
        return np.concatenate(parts) - log_normal + np.log(np.diag(root)).sum()

    found = []
    for batch in np.array_split(bridged, batches):
        v = batch.reshape(-1, K * E)
        noise = rng.standard_normal(v.shape)
        there = log_ratio(v, linalg.solve_triangular(root, (v - mean).T, lower=True).T)
        found.append(bridge(there, log_ratio(mean + noise @ root.T, noise)))
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(batches))


def bridge(of_target: np.ndarray, of_proposal: np.ndarray) -> float:
    """Log ratio of constants from as many log density ratios under the target and the proposal."""
    answer = float(np.median(of_proposal))
    for _ in range(200):
        # Both averages of the optimal bridge, each density ratio relative to the last answer.
        above = special.logsumexp(-np.logaddexp(0, answer - of_proposal))
        below = special.logsumexp(-np.logaddexp(0, of_target - answer))
        change = above - below
        answer += change
        if abs(change) < 1e-9:
            break
    return answer
