"""Full rank: any Gaussian over what the data can see, for problems of few weights (chapter 6).

The contrasts of the weights, in the principal axes of the inputs, have a standard normal prior. Of
them q is a Gaussian with any covariance, written as L L^T with a lower triangle L: in means and L
the ELBO is concave (Challis and Barber, 2013). The shift common to all classes keeps its prior.

References
----------
E. Challis and D. Barber (2013), Gaussian Kullback-Leibler approximate inference, Journal of Machine
Learning Research 14, 2239-2286.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from .averages import entropy
from .bound import Bound, Metric, Point, PrincipalBound
from .contrasts import contrast_basis, unseen_square, unseen_variance, with_prior
from .correlated import Correlated, correlated_averages, finest_accuracy
from .posterior import Posterior, Record
from .rows import Rows

_MOST = 1000  # contrasts: their covariance has the square of it, a step takes the cube
_ACCURACY = 1e-6  # of predictions, where averages can have it
_ROUNDING = 1e-12  # variance beside a prior of one that a covariance has in any case
_WIDEST = 32.0  # standard deviation of a logit of three classes or more


@dataclass(frozen=True, eq=False, repr=False)
class FullRankPosterior(Posterior):
    """A Gaussian of any covariance over the contrasts, with the shift at its prior.

    `location` and `factor` are about the contrasts V of the weights in the axes: weights are
    ``axes @ V @ contrast_basis(D).T``, plus draws of the prior for the shift and where the data
    have no direction. Every other attribute and method is about the weights themselves.

    Attributes
    ----------
    location : ndarray, shape (K, D - 1)
        Means of the contrasts.
    factor : ndarray, shape (K (D - 1), K (D - 1))
        Lower triangle whose square, ``factor @ factor.T``, is their covariance; the contrasts of
        an axis stand side by side.
    axes : ndarray, shape (M, K)
        One axis a column, in units of the prior's standard deviation.
    prior_precision : ndarray, shape (M, 1)
        Precision of the prior.
    """

    location: np.ndarray
    factor: np.ndarray
    axes: np.ndarray
    prior_precision: np.ndarray
    elbo: float
    trace: Sequence[Record]
    gap: float

    family = "full-rank"
    parts = ("mean", "factor", "axes", "prior_precision")

    @property
    def _basis(self) -> np.ndarray:
        return contrast_basis(self.location.shape[1] + 1)

    @property
    def mean(self) -> np.ndarray:
        """Means of the weights, shape (M, D)."""
        return self.axes @ self.location @ self._basis.T

    @property
    def scale(self) -> np.ndarray:
        """Standard deviations of the weights, shape (M, D)."""
        shift = 1 / self.prior_precision / len(self._basis)
        return np.sqrt(self.centred()[1] ** 2 + shift)

    def centred(self) -> tuple[np.ndarray, np.ndarray]:
        """Means and scales of the weights less their row's mean; see `Posterior.centred`."""
        unseen = unseen_variance(self.axes, self.prior_precision)[:, 0]
        return self.mean, np.sqrt(self._variances(self._covariances(self.axes, unseen)))

    def centred_logits(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the logits, each less its row's mean; see `Posterior`."""
        mean, cov = self._contrasts(X)
        return mean @ self._basis.T, self._variances(cov)

    def logit_moments(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of independent logits: of two classes only, see `Posterior`."""
        mean, cov = self._contrasts(X)
        return self._independent(mean, cov)

    def weight_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of independent weights: of two classes only, see `Posterior`."""
        unseen = unseen_variance(self.axes, self.prior_precision)[:, 0]
        return self._independent(self.axes @ self.location, self._covariances(self.axes, unseen))

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Class probabilities averaged over the posterior, shape (N, D).

        Within 1e-6 with up to three classes, within 1e-5 with four or more whose logits are
        narrow, and within 1e-3 or so where these or any are wide. Parameters and errors are those
        of `Posterior.predict_proba`.
        """
        return super().predict_proba(X) if self._two() else self._averages(X)[2].probs

    def predict_log_proba(self, X: ArrayLike) -> np.ndarray:
        """Logarithms of `predict_proba`, shape (N, D); see `Posterior.predict_log_proba`."""
        if self._two():
            return super().predict_log_proba(X)
        return np.log(np.maximum(self.predict_proba(X), np.finfo(np.float64).tiny))

    def uncertainty(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Split the entropy of each prediction into noise and ignorance; see `Posterior`."""
        if self._two():
            return super().uncertainty(X)
        mean, cov, (log_sum_exp, probs, jacobian) = self._averages(X)
        total = entropy(probs)
        # Stein's lemma: on average a contrast times a probability is the product of averages
        # and the covariance times the Jacobian.
        average = log_sum_exp - np.sum(mean * (probs @ self._basis), axis=1)
        average = np.clip(average - np.einsum("nab,nab->n", cov, jacobian), 0, total)
        return total, average, total - average

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` weight matrices, shape (n, M, D); errors as in `Posterior.sample`."""
        n = checks.size(n, "n", at_least=0)
        checks.rng(rng)
        noise = rng.standard_normal((n, self.location.size)) @ self.factor.T
        V = (self.location + noise.reshape(n, *self.location.shape)) @ self._basis.T
        return with_prior(V, self.axes, self.prior_precision, rng)

    def around(self, mean: np.ndarray) -> Self:
        """Return the same Gaussian around other means; where there are no data they stay zero."""
        location = self.axes.T @ (self.prior_precision * mean) @ self._basis
        return replace(self, location=location, elbo=np.nan, trace=(), gap=np.nan)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Return the Gaussian of the contrasts, the axes, and the prior's precision."""
        return self.location, self.factor, self.axes, self.prior_precision

    @classmethod
    def from_arrays(cls, arrays: Sequence[np.ndarray], **rest: Any) -> Self:
        """Check the arrays of a file, and turn them into a posterior."""
        location = checks.array(arrays[0], "mean", ("K", "D - 1"))
        factor = checks.array(arrays[1], "factor", (location.size, location.size))
        if np.triu(factor, 1).any() or (np.diag(factor) <= 0).any():
            raise ValueError("factor must be a lower triangle with a positive diagonal")
        axes = checks.array(arrays[2], "axes", ("M", len(location)))
        prior = checks.positive(arrays[3], "prior_precision", (len(axes), 1))
        return cls(location, factor, axes, prior, **rest)

    def _two(self) -> bool:
        return self.location.shape[1] == 1

    def _independent(self, mean: np.ndarray, cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Moments of independent logits with the same difference, (N, 2)."""
        if not self._two():
            what = "no independent logits have the probabilities of full rank"
            raise ValueError(f"{what} with {len(self._basis)} classes; see centred_logits")
        return mean @ self._basis.T, cov[:, 0] * np.ones(2)

    def _averages(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray, Correlated]:
        mean, cov = self._contrasts(X)
        return mean, cov, correlated_averages(mean, cov, _ACCURACY)

    def _contrasts(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the contrasts of each row's logits."""
        X = checks.array(X, "X", ("N", len(self.axes)))
        Z = X @ self.axes
        unseen = unseen_square(X, Z, self.axes, self.prior_precision)
        return Z @ self.location, self._covariances(Z, unseen)

    def _covariances(self, Z: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        """Covariances of ``Z @ V``, (N, D - 1, D - 1), and of what the axes leave out, (N,)."""
        cov = self.factor @ self.factor.T
        own = np.eye(self.location.shape[1])
        return contrast_covariances(Z, cov) + unseen[:, None, None] * own

    def _variances(self, cov: np.ndarray) -> np.ndarray:
        """Variances of centred logits, (N, D), whose contrasts have these covariances."""
        basis = self._basis
        return np.maximum(np.einsum("da,nab,db->nd", basis, cov, basis), 0)


@dataclass(frozen=True)
class FullRankBound(Bound):
    """The ELBO of any Gaussian over the contrasts; `rows` are in axes with a unit prior.

    The variables, of shape (d, 1 + d), are the means of the d = K (D - 1) contrasts, and the lower
    triangle L beside them.

    Attributes
    ----------
    axes : ndarray, shape (M, K)
        The axes, see `FullRankPosterior`.
    prior_precision : ndarray, shape (M, 1)
        Precision of the prior in the reader's axes.
    """

    axes: np.ndarray
    prior_precision: np.ndarray

    posterior_type = FullRankPosterior

    @property
    def finest(self) -> float:
        """Accuracy that averages can have, see `Bound.finest`."""
        return finest_accuracy(self.rows.n_classes)

    def evaluate(self, theta: np.ndarray, accuracy: float) -> Point:
        """Compute the ELBO, its slope in means and triangle, and the gap.

        The divergence is strongly concave in both, with modulus one, as in :eq:`eq-gap`.
        """
        mean, root = theta[:, 0], theta[:, 1:]
        scale = np.diag(root)
        if not (scale > 0).all():  # the ELBO falls to minus infinity on the way
            return Point(theta, -np.inf, np.full_like(theta, np.nan), np.inf, np.eye(len(mean)))
        location = mean.reshape(-1, self.rows.n_classes - 1)
        sums = self.rows.fold(_sums, _add, location, root @ root.T, accuracy)
        precision = np.eye(len(mean)) + sums.curvature
        kl = (np.sum(mean**2) + np.sum(root**2) - len(mean)) / 2 - np.log(scale).sum()
        pull = np.diag(1 / scale) - np.tril(precision @ root)
        slope = np.column_stack([sums.pull.ravel() - mean, pull])
        gap = float(np.sum(slope**2)) / 2
        return Point(theta, float(sums.likelihood - kl), slope, gap, precision)

    def difference(self, a: Point, b: Point) -> tuple[float, float]:
        """How far two evaluations at one point differ: slopes in the norm of the gap, values."""
        return float(np.linalg.norm(a.slope - b.slope)), abs(a.elbo - b.elbo)

    def metric(self, point: Point) -> Metric:
        """Return what turns slopes into steps."""
        return Natural()

    def longest(self, way: np.ndarray) -> float:
        """Return one: no step is too long, unless it leaves the triangles with positive scales."""
        return 1.0

    def posterior(self, point: Point, trace: tuple[Record, ...] = ()) -> FullRankPosterior:
        """Turn a point into its Gaussian."""
        location = point.theta[:, 0].reshape(-1, self.rows.n_classes - 1)
        return FullRankPosterior(
            location,
            point.theta[:, 1:],
            self.axes,
            self.prior_precision,
            point.elbo,
            trace,
            point.gap,
        )


class LooseBound(PrincipalBound):
    """The aligned family in the principal axes, where a loose climb finds a beginning."""

    posterior_type = FullRankPosterior

    @classmethod
    def of(cls, rows: Rows, prior: np.ndarray) -> Self:
        """Begin in the principal axes.

        Raises
        ------
        ValueError
            If there are too many contrasts.
        """
        bound = super().of(rows, prior)
        K, D = bound.axes.shape[1], rows.n_classes
        if K * (D - 1) > _MOST:
            what = f"full rank takes at most {_MOST} contrasts, but {K} axes of the inputs and"
            raise ValueError(f'{what} {D} classes have {K * (D - 1)}; take family="aligned"')
        return bound

    def resumed(self, posterior: Posterior) -> tuple[Bound, np.ndarray]:
        """Begin at an earlier posterior of full rank, seen in the principal axes of these rows.

        Raises
        ------
        ValueError
            As `turned`.
        """
        location, factor, axes, old = posterior.arrays()
        new, (K, E) = self.plain.prior, location.shape
        turn = self.axes.T @ (new * axes)
        root = np.einsum("jk,kad->jad", turn, factor.reshape(K, E, -1)).reshape(-1, K * E)
        # Where the old rows had no direction there is the old prior.
        unseen = self.axes.T @ (new**2 / old * self.axes) - turn @ turn.T
        cov = root @ root.T + np.kron(unseen, np.eye(E)) + _ROUNDING * np.eye(len(root))
        self._check_width(np.einsum("naa->na", contrast_covariances(self.rows.X, cov)))
        theta = np.column_stack([(turn @ location).ravel(), np.linalg.cholesky(cov)])
        return self._freed(), theta

    def turned(self, point: Point, accuracy: float) -> tuple[Bound, np.ndarray]:
        """Return the bound of full rank, and the same Gaussian there.

        Raises
        ------
        ValueError
            If logits of three classes or more are too wide for their averages.
        """
        X = self.rows.X.astype(np.float64, copy=False)
        self._check_width(X**2 @ np.exp(2 * point.theta[1]))
        return self._freed(), self._triangle(point)

    def _check_width(self, var: np.ndarray) -> None:
        """Refuse logits of three classes or more that are too wide for their averages."""
        width = np.sqrt(var.max())
        if self.rows.n_classes > 2 and width > _WIDEST:
            what = f"full rank takes logits of standard deviations up to {_WIDEST:g}, but X has one"
            expected = 'raise prior_precision, scale X down, or take family="aligned"'
            raise ValueError(f"{what} of {width:.3g} under the posterior; {expected}")

    def posterior(self, point: Point, trace: tuple[Record, ...] = ()) -> Posterior:
        """Turn a point into its Gaussian; how far it is from the best was not asked yet."""
        elbo = super().posterior(point).elbo
        point = point._replace(theta=self._triangle(point), elbo=elbo, gap=np.inf)
        return self._freed().posterior(point, trace)

    def _freed(self) -> FullRankBound:
        return FullRankBound(self.rows, self.prior, self.axes, self.plain.prior)

    def _triangle(self, point: Point) -> np.ndarray:
        """Variables of full rank: axes are independent, contrasts of an axis are not."""
        mean, log_scale = point.theta
        basis = contrast_basis(self.rows.n_classes)
        K, E = len(mean), basis.shape[1]
        roots = np.linalg.cholesky((basis.T * np.exp(2 * log_scale)[:, None]) @ basis)
        root = np.zeros((K, E, K, E))
        root[np.arange(K), :, np.arange(K)] = roots
        return np.column_stack([(mean @ basis).ravel(), root.reshape(K * E, K * E)])


class Natural:
    """Newton's step in the means, and the way to the fixed point of the triangle.

    With R the lower root of the inverse precision, and L = R A, the slope in A is
    ``diag(1 / A) - A``: so A moves to the unit matrix, where nothing couples its entries.
    """

    exact = False

    def direction(self, point: Point, slope: np.ndarray) -> np.ndarray:
        """Turn a slope into a step, near a point."""
        root = inverse_root(point.precision)
        a = np.diag(point.theta[:, 1:]) / np.diag(root)
        turned = root.T @ slope
        turned[:, 1:] = np.tril(turned[:, 1:])
        turned[np.arange(len(a)), 1 + np.arange(len(a))] *= a / (1 + a)
        return root @ turned


def inverse_root(precision: np.ndarray) -> np.ndarray:
    """Lower triangle R whose square, R R^T, is the inverse of a matrix with no eigenvalue below 1.

    Where rounding hides the small eigenvalues, they are taken to be 1, the prior's.
    """
    try:
        upper = np.linalg.cholesky(precision[::-1, ::-1])[::-1, ::-1]
        return np.tril(np.linalg.inv(upper).T)
    except np.linalg.LinAlgError:
        values, U = np.linalg.eigh(precision)
        root = U / np.sqrt(np.maximum(values, 1))
        lower = np.asarray(np.linalg.qr(root.T, mode="r")).T
        return lower * np.sign(np.diag(lower))


def contrast_covariances(Z: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Covariances of ``Z @ V``, (N, E, E), where that of V, raveled from (K, E), is given."""
    K = Z.shape[1]
    E = len(cov) // K
    blocks = cov.reshape(K, E, K, E)
    out = np.empty((len(Z), E, E))
    for a in range(E):
        for b in range(a + 1):
            out[:, a, b] = out[:, b, a] = np.einsum("nk,nk->n", Z @ blocks[:, a, :, b], Z)
    return out


class _Sums(NamedTuple):
    """What rows add to the likelihood, its pull on the means, (K, E), and its curvature, (d, d)."""

    likelihood: float
    pull: np.ndarray
    curvature: np.ndarray


def _add(a: _Sums, b: _Sums) -> _Sums:
    return _Sums(a.likelihood + b.likelihood, a.pull + b.pull, a.curvature + b.curvature)


def _sums(slab: Rows, location: np.ndarray, cov: np.ndarray, accuracy: float) -> _Sums:
    Z, Y = slab.X.astype(np.float64, copy=False), slab.one_hot().astype(np.float64, copy=False)
    (K, E), basis = location.shape, contrast_basis(slab.n_classes)
    mean = Z @ location
    found = correlated_averages(mean, contrast_covariances(Z, cov), accuracy)
    log_sum_exp = slab.weighted(found.log_sum_exp[:, None]).sum()
    pull = Z.T @ ((Y - slab.weighted(found.probs)) @ basis)
    weighted = slab.weighted(found.jacobian.reshape(len(Z), -1)).reshape(-1, E, E)
    curvature = np.empty((K, E, K, E))
    for a in range(E):
        for b in range(a + 1):
            block = Z.T @ (weighted[:, a, b, None] * Z)
            curvature[:, a, :, b] = curvature[:, b, :, a] = block
    likelihood = float(np.vdot(Y @ basis, mean) - log_sum_exp)
    return _Sums(likelihood, pull, curvature.reshape(K * E, K * E))
