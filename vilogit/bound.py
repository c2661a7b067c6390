"""What a fit climbs: the value of a bound, its slope, how close it is, and a metric (chapter 5).

The variables are the means and the logarithms of the scales. `Bound` is the ELBO of independent
weights; `AlignedBound` (chapter 6) is the same sum in axes of its own.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol, Self

import numpy as np

from . import axes
from .averages import averages
from .axes import AlignedPosterior
from .gaussian import MeanField, inverse_softplus, log_softplus
from .joint import JointNewton
from .posterior import MeanFieldPosterior, Posterior, Record
from .rows import Rows
from .softmax import log_softmax

# `benchmarks/constants.py` shows what other numbers would cost.
_LEAP = 2.5  # most that a log scale may change in one step
_CG_STEPS, _CG_ERROR = 15, 0.1  # most conjugate gradients, and the error left that ends them
_NEWTON_STEPS, _NEWTON_RISE = 8, 0.5  # to a start: most steps, and nats that one must bring
_PRODUCTS = 2e10  # that the curvatures of all rows may take, N K K D: a second or two


class Point(NamedTuple):
    """One evaluation of a bound.

    Attributes
    ----------
    theta : ndarray, shape (2, M, D)
        Means and log scales.
    elbo : float
        Value of the bound, in nats.
    slope : ndarray, shape (2, M, D)
        What the bound gains in `theta`.
    gap : float
        Proven bound on the distance to the optimum, in nats.
    precision : ndarray, shape (M, D)
        Of the fixed point that the scales would move to.
    probs, spread : ndarray, shape (n, D)
        Averages over the rows of the sample, the second times their weights; where the metric
        needs none, empty.
    """

    theta: np.ndarray
    elbo: float
    slope: np.ndarray
    gap: float
    precision: np.ndarray
    probs: np.ndarray = np.empty((0, 0))
    spread: np.ndarray = np.empty((0, 0))


@dataclass(frozen=True)
class Bound:
    """The ELBO of independent weights; a family of another shape overrides what differs.

    Attributes
    ----------
    rows : Rows
        What is fitted.
    prior : ndarray, shape (M, 1)
        Precision of the prior.
    """

    rows: Rows
    prior: np.ndarray

    #: Whether its axes only serve to find better ones: see `turned`.
    provisional: ClassVar[bool] = False
    #: What it makes of a point.
    posterior_type: ClassVar[type[Posterior]] = MeanFieldPosterior

    @classmethod
    def of(cls, rows: Rows, prior: np.ndarray) -> Self:
        """Return the bound that a fit to these rows begins with."""
        return cls(rows, prior)

    @property
    def kappa(self) -> float:
        """Weight of the part of the divergence that the scales have."""
        return 1.0

    @property
    def finest(self) -> float:
        """Accuracy beyond which averages get no better."""
        return 1e-9

    def evaluate(self, theta: np.ndarray, accuracy: float) -> Point:
        """Compute the bound, its slope in the means and log scales, and the gap, :eq:`eq-gap`."""
        (mean, log_scale), prior, kappa = theta, self.prior, self.kappa
        var = np.exp(2 * log_scale)
        likelihood, pull, curvature, *some = self.rows.fold(_sums, _add, mean, var, accuracy)
        kl = np.sum(prior * mean**2 + kappa * (prior * var - 1 - np.log(prior) - 2 * log_scale)) / 2
        precision = prior + np.maximum(curvature, 0) / kappa
        slope = np.stack([pull - prior * mean, kappa - var * (kappa * prior + curvature)])
        gap = self._square(slope, var) / 2
        probs, spread = map(np.concatenate, some)
        return Point(theta, float(likelihood - kl), slope, float(gap), precision, probs, spread)

    def difference(self, a: Point, b: Point) -> tuple[float, float]:
        """How far two evaluations at one point differ: slopes in the norm of the gap, values."""
        square = self._square(a.slope - b.slope, np.exp(2 * a.theta[1]))
        return float(np.sqrt(square)), abs(a.elbo - b.elbo)

    def _square(self, slope: np.ndarray, var: np.ndarray) -> float:
        """Square of a slope in means and scales, in units of the prior, as in :eq:`eq-gap`."""
        return np.sum((slope[0] ** 2 + slope[1] ** 2 / (self.kappa * var)) / self.prior)

    def start(self) -> np.ndarray:
        """Nearly the most probable weights, by Newton steps, and the scales of the curvature there.

        The steps see the sample alone, with as much less of the prior.
        """
        some = self.rows.sample()
        fraction = len(some.X) / len(self.rows.X)
        few = replace(self, rows=some, prior=self.prior * fraction)
        X, Y = some.X, some.one_hot()
        mean = step = np.zeros((X.shape[1], Y.shape[1]))
        best, newton = -np.inf, None
        for _ in range(_NEWTON_STEPS):
            new = mean + step
            log_probs = log_softmax(X @ new.astype(X.dtype, copy=False))
            value = np.vdot(Y, log_probs) - np.sum(few.prior * new**2) / 2
            if not value > best + _NEWTON_RISE:
                break
            mean, best, probs = new, value, np.exp(log_probs)
            spread = some.weighted(probs * (1 - probs))
            newton = newton or Newton(few, spread)
            step = newton.solve(probs, spread, X.T @ (Y - some.weighted(probs)) - few.prior * mean)
        precision = self.prior + (X * X).T @ spread / fraction / self.kappa
        return np.stack([mean, -np.log(precision) / 2])

    def resumed(self, posterior: Posterior) -> tuple["Bound", np.ndarray]:
        """Return the bound, and where to begin in it near an earlier posterior of its family."""
        mean, rho = posterior.arrays()
        return self, np.stack([mean, self.in_reach(log_softplus(rho))])

    def in_reach(self, log_scale: np.ndarray) -> np.ndarray:
        """Move log scales to where the optimum's are, whatever labels and means.

        Averages of ``probs * (1 - probs)`` are a quarter at most, which bounds the fixed point.
        """
        precision = self.prior + self.rows.fold(_squares, np.add) / 4 / self.kappa
        return np.clip(log_scale, -np.log(precision) / 2, -np.log(self.prior) / 2)

    def metric(self, point: Point) -> "Metric":
        """Return what turns slopes into steps, near a point."""
        if JointNewton.serves(self.rows, self.prior):
            return JointNewton(self.rows, self.prior, self.kappa)
        return Newton(self, point.spread)

    def longest(self, way: np.ndarray) -> float:
        """Return the largest share of a step at which no log scale leaps."""
        return min(1.0, _LEAP / max(np.abs(way[1]).max(), _LEAP))

    def turned(self, point: Point, accuracy: float) -> tuple["Bound", np.ndarray]:
        """Return the bound in better axes, and where to begin there; for a provisional one."""
        raise NotImplementedError

    def posterior(self, point: Point, trace: tuple[Record, ...] = ()) -> Posterior:
        """Turn a point into its Gaussian."""
        q = MeanField.with_scale(point.theta[0], np.exp(point.theta[1]))
        return MeanFieldPosterior(q, point.elbo, trace, point.gap)


@dataclass(frozen=True)
class AlignedBound(Bound):
    """The bound of chapter 6, :eq:`eq-aligned-bound`: `rows` are in axes with a unit prior.

    Attributes
    ----------
    axes : ndarray, shape (M, K)
        The axes, see `AlignedPosterior`.
    plain : Bound
        The rows and the prior in the reader's axes.
    """

    axes: np.ndarray
    plain: Bound

    posterior_type: ClassVar[type[Posterior]] = AlignedPosterior

    @classmethod
    def within(cls, turn: np.ndarray, plain: Bound) -> Self:
        """Turn the rows of a bound in the reader's axes."""
        return cls(plain.rows.turned(turn), np.ones((turn.shape[1], 1)), turn, plain)

    @property
    def kappa(self) -> float:
        """See `axes.shift_factor`."""
        return axes.shift_factor(self.rows.n_classes)

    def posterior(self, point: Point, trace: tuple[Record, ...] = ()) -> Posterior:
        """Turn a point into its Gaussian; the exact divergence replaces the bound's."""
        mean, log_scale = point.theta
        var = np.exp(2 * log_scale)
        bound = np.sum(mean**2 + self.kappa * (var - 1 - 2 * log_scale)) / 2
        elbo = point.elbo + float(bound) - axes.aligned_kl(mean, var)
        rho = inverse_softplus(np.exp(log_scale))
        return AlignedPosterior(mean, rho, self.axes, self.plain.prior, elbo, trace, point.gap)


class PrincipalBound(AlignedBound):
    """The same in the principal axes, or a posterior's, where a loose climb finds better ones."""

    provisional = True

    @classmethod
    def of(cls, rows: Rows, prior: np.ndarray) -> Self:
        """Begin in the principal axes."""
        return cls.within(axes.principal_axes(rows.gram_root(), prior), Bound(rows, prior))

    def turned(self, point: Point, accuracy: float) -> tuple[Bound, np.ndarray]:
        """Turn to the axes of the curvature at a point, where the fixed point is known.

        The curvature is that of all rows, or, of very many, of the sample.
        """
        mean, var = point.theta[0], np.exp(2 * point.theta[1])
        K, D = mean.shape
        N, some = len(self.rows.X), self.rows.sample().X
        if len(some) == N or N * K * K * D > _PRODUCTS:
            # The averages of all rows are known, or those of the sample must do.
            H = axes.curvatures(some, np.maximum(point.spread, 0)) * (N / len(some))
        else:
            H = self.rows.fold(_curvatures, np.add, mean, var, accuracy)
        rotation, theta = _aligned(H / self.kappa, mean)
        return AlignedBound.within(self.axes @ rotation, self.plain), theta

    def resumed(self, posterior: Posterior) -> tuple[Bound, np.ndarray]:
        """Begin in the axes in which an earlier posterior is nearest to independent.

        Its precisions, with this prior in place of its own, are as diagonal there as can be:
        under a multiple of its prior these are its own axes, in new units.
        """
        _, rho, turn, prior = posterior.arrays()
        told = np.maximum(np.exp(-2 * log_softplus(rho)) - 1, 0)  # by its data, in its axes
        H = axes.curvatures((prior * turn).T @ self.axes, told)
        if not np.isfinite(H * H).all():
            return self, self.start()
        rotation, theta = _aligned(H, self.axes.T @ (self.plain.prior * posterior.mean))
        bound = PrincipalBound.within(self.axes @ rotation, self.plain)
        return bound, np.stack([theta[0], bound.in_reach(theta[1])])


class Metric(Protocol):
    """What turns slopes into steps; `exact` where it needs no correction by the steps so far."""

    exact: bool

    def direction(self, point: Point, slope: np.ndarray) -> np.ndarray:
        """Return the step that a slope calls for, near a point."""


class Newton:
    """The variational Newton metric, from a sample of the rows.

    The averaged Hessian in the means is preconditioned in a basis where it is nearly diagonal,
    that of the curvature where the metric was made.
    """

    exact = False  # whether it needs no correction by the steps so far

    def __init__(self, bound: Bound, spread: np.ndarray) -> None:
        self.X, self.prior, self.kappa = bound.rows.sample().X, bound.prior, bound.kappa
        self.times = len(bound.rows.X) / len(self.X)
        spread = np.maximum(spread, 0)
        weight = spread.sum(axis=1)
        x = self.X * np.sqrt(weight[:, None] / self.prior[:, 0])
        values, U = np.linalg.eigh(x.T @ x)
        of_class = spread.sum(axis=0) / max(weight.sum(), 1e-30)
        self.basis = U / np.sqrt(self.prior)
        self.diagonal = 1 + np.maximum(values, 0)[:, None] * self.times * of_class

    def direction(self, point: Point, slope: np.ndarray) -> np.ndarray:
        """Newton's step in the means; the log scales would move to their fixed point."""
        # In a log scale the slope is 1 - x, the distance -ln(x) / 2.
        x = np.exp(2 * point.theta[1]) * point.precision
        close = np.abs(x - 1) < 1e-4  # there the quotient is its limit, to four digits or more
        pace = np.where(close, 0.5, -np.log(x) / 2 / np.where(close, 1, 1 - x))
        mean = self.solve(point.probs, point.spread, slope[0])
        return np.stack([mean, pace * slope[1] / self.kappa])

    def solve(self, probs: np.ndarray, spread: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Solve with the averaged Hessian by a few conjugate-gradient steps."""
        # E[J] is approximated by J at the average, scaled to the right trace.
        trace = np.maximum((probs * (1 - probs)).sum(axis=1, keepdims=True), 1e-30)
        scaled = probs * np.maximum(spread.sum(axis=1, keepdims=True), 0) / trace * self.times
        x, r = np.zeros_like(target), target
        p = z = self._precondition(r)
        rz = np.vdot(r, z)
        stop = _CG_ERROR**2 * rz
        for _ in range(_CG_STEPS):
            if not rz > stop:
                break
            t = self.X @ p.astype(self.X.dtype, copy=False)
            t -= np.einsum("nd,nd->n", probs, t)[:, None]
            Hp = self.prior * p + self.X.T @ (scaled * t)
            bend = np.vdot(p, Hp)
            if not bend > 0:  # all digits lost: the steps so far must do
                break
            x, r = x + rz / bend * p, r - rz / bend * Hp
            z = self._precondition(r)
            rz, old = np.vdot(r, z), rz
            p = z + rz / old * p
        return x

    def _precondition(self, r: np.ndarray) -> np.ndarray:
        z = self.basis @ ((self.basis.T @ r) / self.diagonal)
        # A vector added to all classes changes no probability: the optimum has no such part.
        return z - z.mean(axis=1, keepdims=True)


def tells_nothing(rows: Rows, prior: np.ndarray, W: np.ndarray) -> bool:
    """Whether weights, (M, D), are no more probable than none at all, or too large to tell."""
    some = rows.sample()
    log_probs = log_softmax(some.X @ W.astype(some.X.dtype))
    gain = np.vdot(some.one_hot(), log_probs + np.log(rows.n_classes))
    return not gain > len(some.X) / len(rows.X) * np.sum(prior * W**2) / 2


_Sums = tuple[float, np.ndarray, np.ndarray, list[np.ndarray], list[np.ndarray]]


def _sums(slab: Rows, mean: np.ndarray, var: np.ndarray, accuracy: float) -> _Sums:
    """Return what rows add to the likelihood, its pull on the means and its curvature.

    Also the averages of probabilities and weighted spread, for those in the sample.
    """
    x, Y, some = slab.X, slab.one_hot(), slab.sampled()
    square, logit_mean = x * x, x @ mean.astype(x.dtype, copy=False)
    logit_var = square @ var.astype(x.dtype, copy=False)
    # Not in single precision with weights: or one of 2 were not quite a row given twice.
    log_sum_exp, probs, spread = averages(logit_mean, logit_var, accuracy, slab.weight is None)
    probs = probs.astype(x.dtype, copy=False)
    spread = slab.weighted(spread).astype(x.dtype, copy=False)
    likelihood = np.vdot(Y, logit_mean) - slab.weighted(log_sum_exp[:, None]).sum()
    pull = (x.T @ (Y - slab.weighted(probs))).astype(np.float64, copy=False)
    curvature = (square.T @ spread).astype(np.float64, copy=False)
    return likelihood, pull, curvature, [probs[some].copy()], [spread[some].copy()]


def _add(a: _Sums, b: _Sums) -> _Sums:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4]


def _squares(slab: Rows) -> np.ndarray:
    """Return the sum over the rows of their squares, (M, 1)."""
    return slab.weighted(slab.X * slab.X).sum(axis=0, dtype=np.float64)[:, None]


def _aligned(H: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rotation to the axes of curvatures, (D, K, K), beside a unit prior.

    Also where to begin there: the means, (K, D), turned, and the log scales of the fixed point.
    """
    H = np.eye(len(mean)) + H
    rotation = axes.common_axes(H)
    precision = np.einsum("dkk->kd", rotation.T @ H @ rotation)
    return rotation, np.stack([rotation.T @ mean, -np.log(precision) / 2])


def _curvatures(slab: Rows, mean: np.ndarray, var: np.ndarray, accuracy: float) -> np.ndarray:
    x = slab.X
    moments = x @ mean.astype(x.dtype), (x * x) @ var.astype(x.dtype)
    spread = averages(*moments, accuracy, slab.weight is None).spread
    return axes.curvatures(x, slab.weighted(np.maximum(spread, 0)))  # rounding: below zero
