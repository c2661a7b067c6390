"""The optimum of the ELBO in a dozen evaluations, with a proof of how close (chapter 5).

The variables are the means and the logarithms of the scales. Limited-memory BFGS corrects a
metric that is nearly right to begin with: for the means a few conjugate-gradient steps on the
averaged Hessian of chapter 2, for the scales the way to their fixed point. The way starts near
the most probable weights, where the same Newton steps lead at the cost of plain softmax.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .axes import AlignedPosterior, aligned_kl, curvature_axes, principal_axes, shift_factor
from .data import (
    check_in_units_of_prior,
    check_inputs,
    check_labels,
    check_positive,
    check_prior_precision,
    check_size,
    check_weights,
)
from .expectations import averages
from .softmax import log_softmax
from .variational import ConvergenceWarning, MeanField, Posterior, Record, State, with_scale

_PAIRS = 6  # steps that the metric remembers
_LOOSE, _CLOSE = 3e-2, 1e-3  # accuracy of a row's averages far from the optimum, and within a nat
_REALIGN = 1.0  # gap in the principal axes at which to turn to the curvature's, in nats
_BEST = 1e-8  # the best that a row's averages can do
_PLAIN = 1e-5  # a gap that averages in single precision can still show
_LEAP = 2.5  # most that a log scale may change in one step
_CG_STEPS, _CG_ERROR = 15, 0.1
_NEWTON_STEPS, _NEWTON_RISE = 8, 0.5  # to a start: most steps, and nats that one must bring
_ROWS = 5000  # rows that the metric is built from
_SLAB = 150_000  # numbers in a slab of rows: X and its square stay in the cache


class _Point(NamedTuple):
    """One evaluation. `theta` stacks the means and the log scales, `slope` what ELBO gains."""

    theta: np.ndarray
    elbo: float = np.nan
    slope: np.ndarray | None = None
    gap: float = np.nan
    precision: np.ndarray | None = None
    probs: np.ndarray | None = None
    spread: np.ndarray | None = None


_Evaluate = Callable[[np.ndarray, float], _Point]


class _Problem(NamedTuple):
    """Inputs, one-hot labels in the type of the inputs, and prior precisions, (M, 1).

    `kappa` weighs the part of the divergence that the scales have: 1, but for aligned axes.
    With weights of rows, (N, 1), the labels are multiplied by them already.
    """

    X: np.ndarray
    Y: np.ndarray
    prior: np.ndarray
    kappa: float = 1.0
    weight: np.ndarray | None = None

    def weighted(self, values: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
        """Multiply values, (n, D) or (n, 1), by the weights of their rows."""
        return values if self.weight is None else values * self.weight[rows]

    def slabs(self) -> list[slice]:
        rows = max(1, _SLAB // self.X.shape[1])
        return [slice(k, k + rows) for k in range(0, len(self.X), rows)]


def fit(
    X: ArrayLike,
    y: ArrayLike,
    *,
    prior_precision: ArrayLike = 1.0,
    family: str = "mean-field",
    n_classes: int | None = None,
    sample_weight: ArrayLike | None = None,
    tol: float = 1e-3,
    accuracy: float = 1e-5,
    max_evaluations: int = 200,
    callback: Callable[[State], object] | None = None,
) -> Posterior:
    """Fit by exact expectations: deterministic, nothing to tune, with a proven gap.

    Parameters
    ----------
    X : array_like, shape (N, M)
        Inputs, bias included, at least one row.
    y : array_like of int, shape (N,)
        Labels in ``0..D-1``; a class may be absent.
    prior_precision : array_like, scalar or shape (M,)
        Precision of the prior; positive.
    family : str
        ``"mean-field"``: all weights independent under q. ``"aligned"``: independent in axes of
        the data's choosing, with the shift common to all classes left at its prior (chapter 6).
    n_classes : int, optional
        Number of classes D, at least 2; by default ``max(y) + 1``, over all rows.
    sample_weight : array_like, shape (N,), optional
        How often each row counts, as a factor of its expected log likelihood; not negative.
        A weight of 2 is a row given twice, a weight of 0 a row left out.
    tol : float
        Stop when the gap to the optimum is proven to be at most this, in nats; positive.
    accuracy : float
        Accuracy of each row's averages in the last evaluation, see `expected_softmax`; positive.
    max_evaluations : int
        Most evaluations of the ELBO, at least 1.
    callback : callable, optional
        Called with a `State` after every evaluation; the aligned family shows the means and
        scales of the single weights.

    Returns
    -------
    Posterior
        With ``gap``, and one record in ``trace`` for each evaluation. The aligned family climbs
        a bound of its ELBO, :eq:`eq-aligned-bound`, which `trace` and `gap` speak of.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    Warns
    -----
    ConvergenceWarning
        If the gap is still above `tol` when evaluations or digits run out.
    """
    X = check_inputs(X)
    Y = check_labels(y, len(X), n_classes).astype(X.dtype, copy=False)
    prior = check_prior_precision(prior_precision, X.shape[1]) * np.ones((X.shape[1], 1))
    check_in_units_of_prior(X, prior)
    weight = None
    if sample_weight is not None:
        weight = check_weights(sample_weight, len(X))
        some = weight > 0
        X, weight = X[some], weight[some, None].astype(X.dtype)
        Y = Y[some] * weight
    if family not in ("mean-field", "aligned"):
        raise ValueError(f'family must be "mean-field" or "aligned", not {family!r}')
    tol = float(check_positive(tol, "tol", ()))
    accuracy = float(check_positive(accuracy, "accuracy", ()))
    max_evaluations = check_size(max_evaluations, "max_evaluations", at_least=1)

    trace: list[Record] = []

    def left() -> int:
        return max_evaluations - len(trace)

    def counting(problem: _Problem, seen: Callable[[np.ndarray], MeanField]) -> _Evaluate:
        def evaluate(theta: np.ndarray, accuracy: float) -> _Point:
            point = _evaluate(problem, theta, accuracy)
            trace.append(Record(point.elbo, point.gap))
            if callback is not None:
                callback(State(len(trace), seen(theta), point.elbo, point.gap))
            return point

        return evaluate

    # Two classes are cheap, so their averages need not be as loose.
    loose = max(_LOOSE if Y.shape[1] > 2 else _CLOSE, accuracy)
    levels = (loose, max(_CLOSE, accuracy), accuracy, min(_BEST, accuracy))
    problem = _Problem(X, Y, prior, weight=weight)
    # Inputs near the largest of numbers end in infinite gaps, and in the warning below.
    with np.errstate(over="ignore", invalid="ignore"):
        if family == "mean-field":
            evaluate = counting(problem, _mean_field)
            point = _climb(problem, evaluate, left, tol, levels, _start(problem))
            posterior = Posterior(_mean_field(point.theta), point.elbo, tuple(trace), point.gap)
        else:
            point, axes = _climb_aligned(problem, counting, left, tol, levels)
            posterior = _aligned(point, axes, prior, tuple(trace))
    if not posterior.gap <= tol:
        warnings.warn(
            f"fit stopped after {len(trace)} evaluations with a gap of {posterior.gap:.3g} nats, "
            f"above tol={tol:g}; raise max_evaluations or tol, or scale the inputs",
            ConvergenceWarning,
            stacklevel=2,
        )
    return posterior


def _climb_aligned(given, counting, left, tol, levels):
    """Climb loosely in the principal axes, then in those of the curvature found there."""
    X, D, prior = given.X, given.Y.shape[1], given.prior

    def turned(axes: np.ndarray) -> tuple[_Problem, _Evaluate]:
        flat = np.ones((axes.shape[1], 1))
        Z = X @ axes.astype(X.dtype, copy=False)
        problem = given._replace(X=Z, prior=flat, kappa=shift_factor(D))
        return problem, counting(
            problem, lambda theta: _aligned(_Point(theta), axes, prior, ()).marginals()
        )

    axes = principal_axes(X if given.weight is None else X * np.sqrt(given.weight), prior)
    problem, evaluate = turned(axes)
    first = _climb(problem, evaluate, left, _REALIGN, levels[:1], _start(problem))
    if not left():
        return first, axes
    some = _sample(problem)
    Z, spread = problem.X[some], first.spread[some]
    spread = np.maximum(spread, 0) * (len(X) / len(Z))  # rounding may take it below
    rotation = curvature_axes(Z, spread)
    better = axes @ rotation
    mean = rotation.T @ first.theta[0]
    precision = 1 + np.square(Z @ rotation).T @ spread / problem.kappa
    problem, evaluate = turned(better)
    theta = np.stack([mean, -np.log(precision) / 2])
    point = _climb(problem, evaluate, left, tol, levels, theta)
    if point.elbo >= first.elbo or not left():
        return point, better
    problem, evaluate = turned(axes)
    return _climb(problem, evaluate, left, tol, levels, first.theta), axes


def _climb(
    problem: _Problem,
    evaluate: _Evaluate,
    left: Callable[[], int],
    tol: float,
    levels: tuple[float, ...],
    theta: np.ndarray,
) -> _Point:
    """Ascend with finer averages as the gap closes; what is proven, is on the last but one."""
    level, steps, pairs = 0, 0, []
    proof = max(len(levels) - 2, 0)
    point = evaluate(theta, levels[level])
    axes = _curvature_axes(problem, point.spread)
    while left():
        if level < proof and point.gap <= max(tol, _PLAIN):
            level = proof
            point = evaluate(point.theta, levels[level])
            continue
        if point.gap <= tol:
            break
        direction = _direction(problem, point, axes, pairs)
        finer = level < proof - 1 and point.gap < 1
        level += finer
        new = _search(evaluate, left, point, direction, levels[level], finer)
        if new is None:
            # Rounding hides the way up: look closer, or give up where one cannot.
            if level == len(levels) - 1 or not left():
                break
            level, pairs = level + 1, []
            point = evaluate(point.theta, levels[level])
            continue
        pairs = [*pairs, (new.theta - point.theta, point.slope - new.slope)][-_PAIRS:]
        pairs = [(s, y) for s, y in pairs if np.vdot(s, y) > 0]
        point, steps = new, steps + 1
        if steps == 3:
            axes = _curvature_axes(problem, point.spread)
    return point


def _search(evaluate, left, point, direction, accuracy, finer):
    """Halve the step until the ELBO rises; None if it never does."""
    rise = np.vdot(point.slope, direction)
    t = min(1.0, _LEAP / max(np.abs(direction[1]).max(), _LEAP))
    while left() and rise > 0 and t > 1e-6:
        new = evaluate(point.theta + t * direction, accuracy)
        ahead = np.vdot(new.slope, direction)
        # The ELBO is concave: where it still rises at the far end, it has risen all the way.
        # Values of unlike accuracy do not compare, slopes do.
        if ahead >= 0 or (finer and ahead > -rise / 2):
            return new
        if new.elbo >= point.elbo + 1e-4 * t * rise and not finer:
            return new
        t /= 2
    return None


def _direction(problem, point, axes, pairs):
    """Limited-memory BFGS (Nocedal, 1980) around the variational Newton metric."""
    q, kept = point.slope, []
    for s, y in reversed(pairs):
        a = np.vdot(s, q) / np.vdot(s, y)
        kept.append(a)
        q = q - a * y
    # The log scales would move to their fixed point: slope 1 - x, distance -ln(x) / 2.
    x = np.exp(2 * point.theta[1]) * point.precision
    close = np.abs(x - 1) < 1e-4
    pace = np.where(close, 0.5, -np.log(x) / 2 / np.where(close, 1, 1 - x))
    r = np.stack(
        [
            _newton(problem, point.probs, point.spread, axes, q[0]),
            pace * q[1] / problem.kappa,
        ]
    )
    for (s, y), a in zip(pairs, reversed(kept), strict=True):
        r = r + s * (a - np.vdot(y, r) / np.vdot(s, y))
    return r


def _newton(problem, probs, spread, axes, target):
    """Solve with the averaged Hessian in the means by a few conjugate-gradient steps."""
    prior = problem.prior
    V, diagonal = axes
    some = _sample(problem)
    X, P, spread = problem.X[some], probs[some], spread[some]
    # E[J] is approximated by J at the average, scaled to the right trace.
    size = np.maximum(spread.sum(axis=1), 0) / np.maximum((P * (1 - P)).sum(axis=1), 1e-30)
    PS = P * size[:, None] * (len(problem.X) / len(X))

    def precondition(r: np.ndarray) -> np.ndarray:
        z = V @ ((V.T @ r) / diagonal)
        # A vector added to all classes changes no probability: the optimum has no such part.
        return z - z.mean(axis=1, keepdims=True)

    x, r = np.zeros_like(target), target
    p = z = precondition(r)
    rz = np.vdot(r, z)
    stop = _CG_ERROR**2 * rz
    for _ in range(_CG_STEPS):
        if not rz > stop:
            break
        t = X @ p.astype(X.dtype, copy=False)
        t -= np.einsum("nd,nd->n", P, t)[:, None]
        Hp = prior * p + X.T @ (PS * t)
        bend = np.vdot(p, Hp)
        if not bend > 0:  # all digits lost: the steps so far must do
            break
        a = rz / bend
        x = x + a * p
        r = r - a * Hp
        z = precondition(r)
        rz, old = np.vdot(r, z), rz
        p = z + rz / old * p
    return x


def _curvature_axes(problem: _Problem, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Axes in which every class's Hessian is nearly diagonal, and its diagonal in them."""
    some, prior = _sample(problem), problem.prior
    X, spread = problem.X[some], np.maximum(spread[some], 0)
    weight = spread.sum(axis=1)
    x = X * np.sqrt(weight[:, None] / prior[:, 0])
    values, U = np.linalg.eigh(x.T @ x)
    values = np.maximum(values, 0) * (len(problem.X) / len(X))
    share = spread.sum(axis=0) / max(weight.sum(), 1e-30)
    return U / np.sqrt(prior), 1 + values[:, None] * share


def _sample(problem: _Problem) -> slice:
    """Return evenly spaced rows, enough for a metric: the pairs correct what it misses."""
    n, m = problem.X.shape
    return slice(None, None, max(1, n // max(_ROWS, 20 * m)))


def _evaluate(problem: _Problem, theta: np.ndarray, accuracy: float) -> _Point:
    """Compute the ELBO, its slope in the means and log scales, and the gap, :eq:`eq-gap`."""
    X, Y, prior, kappa, weight = problem
    single = weight is None  # or a weight of 2 were not quite a row given twice
    mean, log_scale = theta
    var = np.exp(2 * log_scale)
    columns = mean.astype(X.dtype, copy=False), var.astype(X.dtype, copy=False)
    probs, spread = np.empty_like(Y), np.empty_like(Y)
    likelihood, pull, curvature = 0.0, np.zeros_like(mean), np.zeros_like(mean)
    for rows in problem.slabs():
        x = X[rows]
        square = x * x
        logit_mean = x @ columns[0]
        lse, probs[rows], each = averages(logit_mean, square @ columns[1], accuracy, single)
        lse = problem.weighted(lse[:, None], rows)
        spread[rows] = problem.weighted(each, rows)
        likelihood += np.vdot(Y[rows], logit_mean) - lse.sum(dtype=np.float64)
        pull += x.T @ (Y[rows] - problem.weighted(probs[rows], rows))
        curvature += square.T @ spread[rows]
    kl = np.sum(prior * mean**2 + kappa * (prior * var - 1 - np.log(prior) - 2 * log_scale)) / 2
    precision = prior + np.maximum(curvature, 0) / kappa
    slope = np.stack([pull - prior * mean, kappa - var * (kappa * prior + curvature)])
    gap = np.sum((slope[0] ** 2 + slope[1] ** 2 / (kappa * var)) / prior) / 2
    return _Point(theta, float(likelihood - kl), slope, float(gap), precision, probs, spread)


def _start(problem: _Problem) -> np.ndarray:
    """Nearly the most probable weights, by Newton steps, and the scales of the curvature there."""
    some = _sample(problem)
    X, Y, prior = problem.X[some], problem.Y[some], problem.prior
    share = len(X) / len(problem.X)
    few = problem._replace(X=X, Y=Y, prior=prior * share)
    if few.weight is not None:
        few = few._replace(weight=few.weight[some])
    mean, best, step, axes = np.zeros((X.shape[1], Y.shape[1])), -np.inf, 0.0, None
    for _ in range(_NEWTON_STEPS):
        new = mean + step
        log_probs = log_softmax(X @ new.astype(X.dtype, copy=False))
        value = np.vdot(Y, log_probs) - np.sum(few.prior * new**2) / 2
        if not value > best + _NEWTON_RISE:
            break
        mean, best, probs = new, value, np.exp(log_probs)
        spread = few.weighted(probs * (1 - probs))
        axes = axes or _curvature_axes(few, spread)
        pull = X.T @ (Y - few.weighted(probs))
        step = _newton(few, probs, spread, axes, pull - few.prior * mean)
    return np.stack([mean, -np.log(prior + (X * X).T @ spread / share / problem.kappa) / 2])


def _aligned(point: _Point, axes: np.ndarray, prior: np.ndarray, trace: tuple) -> AlignedPosterior:
    """Turn a point into its Gaussian; the exact divergence replaces the bound's."""
    mean, log_scale = point.theta
    var = np.exp(2 * log_scale)
    kappa = shift_factor(mean.shape[1])
    bound = np.sum(mean**2 + kappa * (var - 1 - 2 * log_scale)) / 2
    elbo = point.elbo + float(bound) - aligned_kl(mean, var)
    return AlignedPosterior(_mean_field(point.theta), elbo, trace, point.gap, axes, prior)


def _mean_field(theta: np.ndarray) -> MeanField:
    return with_scale(theta[0], np.exp(theta[1]))
