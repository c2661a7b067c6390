"""The Gaussians that chapters 6 and 8 compare, each as the book derives it and none of it tuned.

Weights are ``W = axes @ V``, and every entry of ``V`` has a standard normal prior. The likelihood
sees ``V @ basis`` only, `basis` being orthonormal contrasts of the classes: what is left, the
shift, is at its prior in every Gaussian here but the two with independent classes. A direction
without data (of no column of `axes`) has the prior in all of them, and drops out of everything.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import linalg, stats

from vilogit import expected_softmax, fit, log_softmax, one_hot
from vilogit.axes import AlignedPosterior, curvature_axes, principal_axes, shift_factor
from vilogit.bound import AlignedBound, Bound, Point
from vilogit.contrasts import contrast_basis
from vilogit.response import Response
from vilogit.rows import Rows
from vilogit.search import Search

LEVELS = (1e-2, 1e-3, 1e-5)  # accuracy of a row's averages, as in `vilogit.fit`
SLAB = 2_000_000  # numbers in a temporary array


class Seen(NamedTuple):
    """A problem in axes of its own.

    Attributes
    ----------
    axes : ndarray, shape (M, K)
        In units of the prior's standard deviation.
    Z : ndarray, shape (N, K)
        Inputs in the axes.
    Y : ndarray, shape (N, D)
        One-hot labels.
    precision : ndarray, shape (M, 1)
        Of the prior.
    """

    axes: np.ndarray
    Z: np.ndarray
    Y: np.ndarray
    precision: np.ndarray

    @property
    def basis(self) -> np.ndarray:
        """Orthonormal contrasts of the classes, shape (D, D - 1)."""
        return linalg.helmert(self.Y.shape[1]).T

    @property
    def unseen(self) -> np.ndarray:
        """Variance of the weights in directions without data, shape (M, 1)."""
        rest = 1 - np.sum(self.axes**2 * self.precision, axis=1, keepdims=True)
        return np.maximum(rest, 0) / self.precision

    def log_likelihood(self, V: np.ndarray) -> np.ndarray:
        """Log likelihood of weights in the axes, (n, K, D) -> (n,)."""
        block = max(1, SLAB // self.Y.size)
        parts = [
            np.sum(self.Y * log_softmax(self.Z @ V[k : k + block]), axis=(1, 2))
            for k in range(0, len(V), block)
        ]
        return np.concatenate(parts)


def seen(X: np.ndarray, y: np.ndarray, n_classes: int, precision=1.0, axes=None) -> Seen:
    """Turn a problem into axes, by default the principal ones."""
    precision = precision * np.ones((X.shape[1], 1))
    axes = principal_axes(X, precision) if axes is None else axes
    return Seen(axes, X @ axes, one_hot(y, n_classes), precision)


class Independent(NamedTuple):
    """All entries of V independent: plain mean field, or mean field in other axes."""

    problem: Seen
    location: np.ndarray  # (K, D)
    width: np.ndarray  # (K, D)
    elbo: float
    evaluations: int

    @property
    def parameters(self) -> int:
        """Numbers that are fitted, the axes not counted."""
        return 2 * self.location.size

    @property
    def mean(self) -> np.ndarray:
        """Means of the weights, (M, D)."""
        return self.problem.axes @ self.location

    def scale(self, centred: bool = False) -> np.ndarray:
        """Return standard deviations of weights, (M, D), or of weights less their row's mean."""
        var = self.width**2
        D = var.shape[1]
        unseen = self.problem.unseen
        if centred:
            var = var * (1 - 2 / D) + var.mean(axis=1, keepdims=True) / D
            unseen = unseen * shift_factor(D)
        return np.sqrt(self.problem.axes**2 @ var + unseen)

    def probs(self, Z: np.ndarray) -> np.ndarray:
        """Predictions for inputs in the axes, (N, K) -> (N, D)."""
        return expected_softmax(Z @ self.location, Z**2 @ self.width**2).probs

    def log_weights(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Log of joint density over q, at `n` draws of all weights; its average is the ELBO."""
        noise = rng.standard_normal((n, *self.location.shape))
        V = self.location + self.width * noise
        log_ratio = np.sum(noise**2 - V**2, axis=(1, 2)) / 2 + np.log(self.width).sum()
        return self.problem.log_likelihood(V) + log_ratio

    def contrast_moments(self, C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations, (M, J), of weights times contrasts of classes, (D, J)."""
        var = self.problem.axes**2 @ self.width**2 + self.problem.unseen
        return self.mean @ C, np.sqrt(var @ C**2)

    def centred_draws(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw weights less their row's mean, (n, M, D), zero in directions without data."""
        V = self.location + self.width * rng.standard_normal((n, *self.location.shape))
        return self.problem.axes @ (V - V.mean(axis=2, keepdims=True))


class Freed(NamedTuple):
    """Any Gaussian over the contrasts, with the shift at its prior.

    Its log weights are those of the full weights: both densities have the same factor for the
    shift, so that counting it changes nothing.
    """

    problem: Seen
    location: np.ndarray  # (K, D - 1)
    cov: np.ndarray  # (K (D - 1), K (D - 1)), contrasts of one axis side by side
    elbo: float
    evaluations: int
    parameters: int
    gap: float = np.nan

    @property
    def mean(self) -> np.ndarray:
        """Means of the weights, (M, D)."""
        return self.problem.axes @ self.location @ self.problem.basis.T

    def scale(self, centred: bool = False) -> np.ndarray:
        """Return standard deviations of weights, (M, D), or of weights less their row's mean."""
        axes, basis = self.problem.axes, self.problem.basis
        M, D = len(axes), len(basis)
        lower = np.linalg.cholesky(self.cov)
        var = np.sum((np.kron(axes, basis) @ lower) ** 2, axis=1).reshape(M, D)
        var = var + self.problem.unseen * shift_factor(D)
        return np.sqrt(var if centred else var + 1 / (self.problem.precision * D))

    def probs(self, Z: np.ndarray) -> np.ndarray:
        """Predictions for inputs in the axes, (N, K) -> (N, D)."""
        return averages(self.problem._replace(Z=Z), self.location, self.cov, fine=True)[1]

    def log_weights(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Log of joint density over q, at `n` draws of all weights; its average is the ELBO."""
        V, noise, lower = self._draw(n, rng)
        log_ratio = (np.sum(noise**2, axis=1) - np.sum(V**2, axis=(1, 2))) / 2
        log_ratio += np.log(np.diag(lower)).sum()
        return self.problem.log_likelihood(V @ self.problem.basis.T) + log_ratio

    def contrast_moments(self, C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations, (M, J), of weights times contrasts of classes, (D, J)."""
        axes, of_basis = self.problem.axes, C.T @ self.problem.basis
        spread = np.kron(axes, of_basis) @ np.linalg.cholesky(self.cov)
        var = np.sum(spread**2, axis=1).reshape(len(axes), -1)
        return self.mean @ C, np.sqrt(var + self.problem.unseen * np.sum(C**2, axis=0))

    def centred_draws(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw weights less their row's mean, (n, M, D), zero in directions without data."""
        return self.problem.axes @ self._draw(n, rng)[0] @ self.problem.basis.T

    def _draw(self, n: int, rng: np.random.Generator):
        noise = rng.standard_normal((n, len(self.cov)))
        lower = np.linalg.cholesky(self.cov)
        V = self.location + (noise @ lower.T).reshape(n, *self.location.shape)
        return V, noise, lower


def plain(X: np.ndarray, y: np.ndarray, n_classes: int, tol: float = 1e-3) -> Independent:
    """Mean field, `vilogit.fit` with its defaults; the prior has precision 1."""
    q = fit(X, y, n_classes=n_classes, tol=tol)
    problem = seen(X, y, n_classes, axes=np.eye(X.shape[1]))
    return Independent(problem, q.mean, q.scale, q.elbo, len(q.trace))


def aligned(X: np.ndarray, y: np.ndarray, n_classes: int, tol: float = 1e-3) -> Freed:
    """Chapter 6's family, `vilogit.fit`; the prior has precision 1."""
    return freed(X, y, fit(X, y, n_classes=n_classes, family="aligned", tol=tol))


def shift_only(X: np.ndarray, y: np.ndarray, n_classes: int, tol: float = 1e-3) -> Freed:
    """Free the shift and keep the axes that the data came in."""
    bound = AlignedBound.within(np.eye(X.shape[1]), _bound(X, y, n_classes))
    point, count = _ascend(bound, tol)
    return freed(X, y, bound.posterior(point, (None,) * count))


def rotation_only(X: np.ndarray, y: np.ndarray, n_classes: int, tol: float = 1e-3) -> Independent:
    """Turn to the curvature's axes, as the aligned family does; classes stay independent."""
    flat = np.ones((X.shape[1], 1))
    axes = principal_axes(X, flat)
    first, count = _ascend(_bound(X @ axes, y, n_classes), tol)
    better = axes @ curvature_axes(X @ axes, np.maximum(first.spread, 0))
    point, more = _ascend(_bound(X @ better, y, n_classes), tol)
    if point.elbo < first.elbo:
        point, better = first, axes
    mean, log_scale = point.theta
    where = seen(X, y, n_classes, axes=better)
    return Independent(where, mean, np.exp(log_scale), point.elbo, count + more)


def freed(X: np.ndarray, y: np.ndarray, q: AlignedPosterior) -> Freed:
    """Write the aligned family's Gaussian out with its covariance."""
    K, D = q.location.shape
    problem = seen(X, y, D, q.prior_precision, axes=q.axes)
    basis = problem.basis
    blocks = [basis.T @ (var[:, None] * basis) for var in q.width**2]
    location = q.location @ basis
    return Freed(
        problem, location, linalg.block_diag(*blocks), q.elbo, len(q.trace), 2 * K * D, q.gap
    )


def most_probable(problem: Seen, tol: float = 1e-10) -> np.ndarray:
    """Contrasts of the most probable weights by Newton's method, (K, D - 1)."""
    V = np.zeros((problem.Z.shape[1], problem.basis.shape[1]))

    def value(V: np.ndarray) -> float:
        return problem.log_likelihood((V @ problem.basis.T)[None])[0] - np.sum(V**2) / 2

    for _ in range(100):
        _, slope, precision = _moments(problem, V, None)
        step = linalg.solve(precision, slope.ravel(), assume_a="pos").reshape(V.shape)
        rise = np.vdot(slope, step)
        if rise < tol:
            return V + step
        t, here = 1.0, value(V)
        while value(V + t * step) < here + 0.1 * t * rise:
            t /= 2
        V = V + t * step
    raise RuntimeError("Newton's method did not arrive")


def laplace(problem: Seen, scored: bool = True) -> Freed:
    """Gaussian with the curvature at the most probable weights, its ELBO by quadrature if asked."""
    V = most_probable(problem)
    cov = linalg.inv(_moments(problem, V, None)[2])
    elbo = _elbo(problem, V, cov) if scored else np.nan
    return Freed(problem, V, cov, elbo, 1, V.size + _triangle(V.size))


def full_rank(problem: Seen, tol: float = 2e-3, max_steps: int = 200, scored: bool = True) -> Freed:
    """Best Gaussian of all, by natural gradients from Laplace's approximation.

    The ELBO is strongly concave, with modulus 1, in the mean and the Cholesky factor: the squared
    slope bounds the gap, as in chapter 5. Steps are halved where the ELBO would fall.
    """
    q = laplace(problem, scored=False)
    mean, cov = q.location, q.cov
    value, slope, precision = _moments(problem, mean, cov)
    t, count = 1.0, 1
    while count < max_steps:
        now = linalg.inv(cov)
        pull = np.tril((now - precision) @ np.linalg.cholesky(cov))
        gap = float(np.sum(slope**2) + np.sum(pull**2)) / 2
        if gap <= tol or t < 1e-4:
            break
        while t >= 1e-4:
            ahead = (1 - t) * now + t * precision
            new_cov = linalg.inv(ahead)
            new = mean + t * (new_cov @ slope.ravel()).reshape(mean.shape)
            there, count = _moments(problem, new, new_cov), count + 1
            if there[0] >= value:
                break
            t /= 2
        else:
            break
        mean, cov, (value, slope, precision) = new, new_cov, there
        t = min(1.0, 1.5 * t)
    elbo = _elbo(problem, mean, cov) if scored else np.nan
    return Freed(problem, mean, cov, elbo, count, mean.size + _triangle(mean.size), gap)


def newton_step(q: Freed) -> Freed:
    """Keep q's mean, and take the inverse of its averaged curvature for the covariance.

    That is the full-rank fixed point's first step from q; its gap and ELBO are not computed.
    """
    cov = linalg.inv(_moments(q.problem, q.location, q.cov)[2])
    return q._replace(cov=cov, elbo=np.nan, gap=np.nan, evaluations=q.evaluations + 1)


def responding(q: Freed, response: Response) -> Freed:
    """Write linear response out as a Gaussian over the contrasts, about the optimum q."""
    basis = q.problem.basis
    K, D = response.location.shape
    turn = np.kron(np.eye(K), basis.T @ contrast_basis(D))
    cov = turn @ response.inner.reshape(len(turn), -1) @ turn.T
    location = response.location @ basis
    return q._replace(location=location, cov=cov, elbo=np.nan, gap=np.nan)


def averages(problem: Seen, mean: np.ndarray, cov: np.ndarray | None, fine: bool = False):
    """Average log-sum-exp (N,), probabilities (N, D), Jacobian in the contrasts (N, D-1, D-1).

    Under a Gaussian over the contrasts: exact for two classes, a tensor rule for three, and
    Sobol points for more. Without a covariance, the values at the mean.
    """
    Z, basis = problem.Z, problem.basis
    N, (D, E) = len(Z), basis.shape
    centre = Z @ mean
    if cov is None:
        spread, (nodes, weights) = np.zeros((N, E, E)), (np.zeros((1, E)), np.ones(1))
    else:
        K = Z.shape[1]
        blocks = cov.reshape(K, E, K, E)
        spread = np.empty((N, E, E))
        for a in range(E):
            for b in range(a + 1):
                part = np.einsum("nk,nk->n", Z @ blocks[:, a, :, b], Z)
                spread[:, a, b] = spread[:, b, a] = part
        if D == 2:
            return _averages_of_two(centre, spread, basis)
        spread = np.linalg.cholesky(spread + 1e-12 * np.eye(E))
        nodes, weights = _nodes(E, fine)
    lse, probs, jacobian = np.empty(N), np.empty((N, D)), np.empty((N, E, E))
    block = max(1, SLAB // (len(nodes) * D))
    for k in range(0, N, block):
        rows = slice(k, k + block)
        logits = (centre[rows, None] + nodes @ spread[rows].transpose(0, 2, 1)) @ basis.T
        top = logits.max(axis=2, keepdims=True)
        p = np.exp(logits - top)
        total = p.sum(axis=2, keepdims=True)
        p /= total
        lse[rows] = (top + np.log(total))[..., 0] @ weights
        probs[rows] = np.einsum("q,nqd->nd", weights, p)
        a = p @ basis
        diagonal = basis.T @ (probs[rows, :, None] * basis)
        jacobian[rows] = diagonal - (weights[:, None] * a).transpose(0, 2, 1) @ a
    return lse, probs, jacobian


def _averages_of_two(centre: np.ndarray, spread: np.ndarray, basis: np.ndarray):
    # One contrast c: the logits differ by sqrt(2) c, and so do independent ones of variance var(c).
    lse, probs, half = expected_softmax(centre @ basis.T, spread[:, 0] * np.ones(2), accuracy=1e-9)
    return lse, probs, 2 * half[:, :1, None]  # the contrast's curvature is p (1 - p) * 2


@cache
def _nodes(E: int, fine: bool) -> tuple[np.ndarray, np.ndarray]:
    if E == 2:
        z = np.linspace(-6.5, 6.5, 53 if fine else 41)
        weight = np.exp(-(z**2) / 2)
        nodes = np.stack([g.ravel() for g in np.meshgrid(z, z)], axis=1)
        weight = np.outer(weight, weight).ravel()
        return nodes, weight / weight.sum()
    sobol = stats.qmc.MultivariateNormalQMC(np.zeros(E), seed=np.random.default_rng(3))
    half = sobol.random(2 ** (13 if fine else 10))
    return np.concatenate([half, -half]), np.full(2 * len(half), 0.5 / len(half))


def _moments(problem: Seen, mean: np.ndarray, cov: np.ndarray | None):
    """ELBO (without its entropy's part if `cov` is None), slope in the mean, averaged Hessian."""
    Z, Y, basis = problem.Z, problem.Y, problem.basis
    lse, probs, jacobian = averages(problem, mean, cov)
    value = np.sum(Y * (Z @ mean @ basis.T)) - lse.sum() - np.sum(mean**2) / 2
    slope = Z.T @ ((Y - probs) @ basis) - mean
    K, E = mean.shape
    hessian = np.empty((K, E, K, E))
    for a in range(E):
        for b in range(a + 1):
            part = Z.T @ (jacobian[:, a, b, None] * Z)
            hessian[:, a, :, b] = hessian[:, b, :, a] = part
    if cov is not None:
        value -= (np.trace(cov) - len(cov) - np.linalg.slogdet(cov)[1]) / 2
    return value, slope, hessian.reshape(K * E, K * E) + np.eye(K * E)


def _elbo(problem: Seen, mean: np.ndarray, cov: np.ndarray) -> float:
    likelihood = np.sum(problem.Y * (problem.Z @ mean @ problem.basis.T))
    likelihood -= averages(problem, mean, cov, fine=True)[0].sum()
    kl = np.sum(mean**2) + np.trace(cov) - len(cov) - np.linalg.slogdet(cov)[1]
    return float(likelihood - kl / 2)


def _triangle(n: int) -> int:
    return n * (n + 1) // 2


def _bound(X: np.ndarray, y: np.ndarray, n_classes: int) -> Bound:
    """Plain mean field in the axes of X, under a prior of precision 1, all rows in its metric."""
    return Bound(Rows(X, y, n_classes), np.ones((X.shape[1], 1)))


def _ascend(bound: Bound, tol: float) -> tuple[Point, int]:
    """Climb as `vilogit.fit` does; also the number of evaluations."""
    search = Search(200)
    return search.climb(bound, bound.start(), tol, LEVELS), len(search.trace)
