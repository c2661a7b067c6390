"""`fit`: the optimum of the ELBO in a dozen evaluations, with a proof of how close (chapter 5).

Limited-memory BFGS corrects a metric that is nearly right to begin with: for the means a few
conjugate-gradient steps on the averaged Hessian of chapter 2, for the scales the way to their
fixed point. The way starts near the most probable weights, where the same Newton steps lead at
the cost of plain softmax.
"""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from .bound import Bound, tells_nothing
from .families import FAMILIES
from .posterior import ConvergenceWarning, Posterior, State
from .rows import Rows
from .search import Search

# `benchmarks/constants.py` shows what other numbers would cost.
_FAR, _NEAR = 3e-2, 1e-3  # accuracy of a row's averages far from the optimum, and within a nat
_COARSEST = 1e-4  # accuracy of a proof, at most: beyond, single precision
_HEAVY = 100.0  # weight of a row from which on its errors would mislead
_REALIGN = 1.0  # gap in the principal axes at which to turn to the curvature's, in nats


def fit(
    X: ArrayLike, y: ArrayLike, *, prior_precision: ArrayLike = 1.0, family: str = "mean-field",
    n_classes: int | None = None, sample_weight: ArrayLike | None = None, tol: float = 1e-3,
    accuracy: float = 1e-5, max_evaluations: int = 200, start: Posterior | None = None,
    callback: Callable[[State], object] | None = None,
) -> Posterior:  # fmt: skip
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
        The axes are those of all rows; where N K K D, K being their number, is above 2e10, of
        some thousand rows evenly spaced. ``"full-rank"``: any covariance of what the data can
        see, the shift left at its prior, for small problems, of at most 1000 contrasts K (D - 1):
        memory grows with their square, a step with their cube. With more than two classes it
        averages over points, some hundred to some ten thousand a row, and refuses logits that q
        makes wider than a standard deviation of 32.
    n_classes : int, optional
        Number of classes D, at least 2; by default ``max(y) + 1``, over all rows, which may be
        N + 1000 at most.
    sample_weight : array_like, shape (N,), optional
        How often each row counts, as a factor of its expected log likelihood; not negative.
        A weight of 2 is a row given twice, a weight of 0 a row left out.
    tol : float
        Stop when the gap to the optimum is proven to be at most this, in nats; positive.
    accuracy : float
        Accuracy of each row's averages in the last evaluation, see `expected_softmax`; positive,
        taken to be 1e-4 at most, and divided by the largest weight where that is above 100. Where
        their errors, which are part of the gap, are too large for `tol`, averages get finer.
    max_evaluations : int
        Most evaluations of the ELBO, at least 1.
    start : Posterior, optional
        Of the same family and shape, to begin at. That of nearly the same rows and prior saves a
        third of the evaluations, though not the fine ones that prove the gap; under a prior ten
        times as strong, one costs more than it saves. The optimum in given axes is the same from
        any start. The aligned family turns to its axes from those of `start`, which may be worth
        a hundredth of a nat more or less, and tenths where several are nearly as good. Means no
        more probable than zero are passed over.
    callback : callable, optional
        Called with a `State` after every evaluation; the aligned family and full rank show the
        means and scales of the single weights. Where it raises StopIteration, the fit stops and
        returns its best point, after one evaluation more at most.

    Returns
    -------
    Posterior
        With ``gap``, and one record in ``trace`` for each evaluation. The aligned family climbs
        a bound of its ELBO, :eq:`eq-aligned-bound`, which `trace` and `gap` speak of; full rank
        climbs it first, to within a nat, and then its own ELBO. The gap
        holds the errors of the averages, :eq:`eq-gap-with-errors`; it is infinite where
        evaluations did not suffice to measure them. Of full rank with four classes or more these
        may be errors of quasi-random points: measured, not proven, and often above the default
        `tol`. Where the gap is above `tol`, the best point is returned that was seen.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range, or the problem too large for full
        rank.

    Warns
    -----
    ConvergenceWarning
        If the gap is still above `tol` when evaluations or digits run out.
    UserWarning
        If classes below the largest label are absent, and `n_classes` did not announce them.
    """
    X = checks.inputs(X)
    labels, D = checks.labels(y, len(X), n_classes)
    posterior = optimum(
        X, labels, D, prior_precision=prior_precision, family=family, sample_weight=sample_weight,
        tol=tol, accuracy=accuracy, max_evaluations=max_evaluations, start=start,
        callback=callback,
    )  # fmt: skip
    if not posterior.gap <= tol:
        warnings.warn(shortfall(posterior, tol), ConvergenceWarning, stacklevel=2)
    return posterior


def optimum(
    X: np.ndarray, labels: np.ndarray, n_classes: int, *, prior_precision: ArrayLike, family: str,
    sample_weight: ArrayLike | None, tol: float, accuracy: float = 1e-5, max_evaluations: int,
    start: Posterior | None, callback: Callable[[State], object] | None,
) -> Posterior:  # fmt: skip
    """Do as `fit`, of checked inputs and labels, and leave the warning to the caller."""
    prior = checks.prior_precision(prior_precision, X.shape[1]) * np.ones((X.shape[1], 1))
    weight = None if sample_weight is None else checks.weights(sample_weight, X)
    checks.in_units_of_prior(X, prior, weight)
    if family not in FAMILIES:
        names = " or ".join(f'"{name}"' for name in FAMILIES)
        raise ValueError(f"family must be {names}, not {family!r}")
    tol = float(checks.positive(tol, "tol", ()))
    accuracy = float(checks.positive(accuracy, "accuracy", ()))
    if start is not None:
        _check_start(start, family, (X.shape[1], n_classes))
    search = Search(checks.size(max_evaluations, "max_evaluations", at_least=1), callback)

    # Inputs near the largest of numbers end in infinite gaps.
    with np.errstate(over="ignore", invalid="ignore"):
        rows = Rows.of(X, labels, n_classes, weight)
        if start is not None and tells_nothing(rows, prior, start.mean):
            start = None
        # Two classes are cheap, so their averages need not be as loose.
        loose = _FAR if n_classes > 2 and start is None else _NEAR
        accuracies = loose, _NEAR, min(accuracy, _COARSEST)
        bound = FAMILIES[family].of(rows, prior)
        bound, theta = (bound, bound.start()) if start is None else bound.resumed(start)
        if bound.provisional:
            loose = _for_heaviest(weight, bound, *accuracies)[0]
            point = search.climb(bound, theta, _REALIGN, (loose, loose, loose))
            if search.remaining:
                bound, theta = bound.turned(point, loose)
        if search.remaining:
            finer = _for_heaviest(weight, bound, *accuracies)
            point = search.climb(bound, theta, tol, finer)
        return bound.posterior(point, tuple(search.trace))


def _for_heaviest(
    weight: np.ndarray | None, bound: Bound, loose: float, near: float, fine: float
) -> tuple[float, float, float]:
    """Divide accuracies by the largest weight where that is large: so often an error counts."""
    heaviest = 1.0 if weight is None else float(weight.max())
    heaviest = heaviest if heaviest > _HEAVY else 1.0
    fine = max(fine / heaviest, bound.finest)
    near = max(near / heaviest, 10 * fine)  # two accuracies, or no error could be measured
    return max(loose / heaviest, near), near, fine


def shortfall(posterior: Posterior, tol: float) -> str:
    """Say what a fit did not reach."""
    return (
        f"fit stopped after {len(posterior.trace)} evaluations with a gap of {posterior.gap:.3g} "
        f"nats, above tol={tol:g}; raise max_evaluations or tol, or scale the inputs"
    )


def _check_start(start: Posterior, family: str, shape: tuple[int, int]) -> None:
    """Refuse to begin at what is no posterior of this family and shape, or holds no numbers."""
    if not isinstance(start, Posterior):
        raise TypeError(f"start must be a Posterior, not {type(start).__name__}")
    if start.family != family:
        raise ValueError(f'start is of the family "{start.family}"; expected "{family}"')
    for name, part in zip(start.parts, start.arrays(), strict=True):
        checks.array(part, f"start's {name}", np.shape(part))
    checks.array(start.mean, "start.mean", shape)
