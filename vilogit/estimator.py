"""A scikit-learn classifier that knows what it does not know (chapter 7)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from .posterior import Posterior, State
from .solver import fit

try:
    from scipy.optimize import brentq
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    needs = 'scikit-learn 1.7 or later: pip install "vilogit[sklearn]"'
    raise ImportError(f"VariationalLogisticRegression needs {needs}") from error

_DTYPES = [np.float64, np.float32]
_Callback = Callable[[State], None] | None
_FEW = 2000  # rows whose order must not show in the last digits
_DECADES = (-4, 6)  # reach of the search from the inputs' own scale: beyond, nothing changes
_NEAR_ENOUGH = 4e-3  # where the search stops, in decades: a hundredth of the precision
_SEARCH_TOL = 1e-3  # gap of its fits in nats, at most: the slope has digits enough then


class VariationalLogisticRegression(ClassifierMixin, BaseEstimator):
    """Bayesian softmax (multi-class logistic) regression by `vilogit.fit`.

    Parameters
    ----------
    prior_precision : float, array_like or str
        Precision of the coefficients' zero-mean Gaussian prior, one number or one for each of the
        M features. ``"evidence"`` chooses the one
        number that maximises `elbo_`, with no cross-validation, in some ten fits: it follows
        the slope, :eq:`eq-evidence-slope`, from the mean variance of the inputs, and stops at
        1e-4 times that (classes far apart) or at 1e6 times (inputs that tell nothing) where
        `elbo_` still rises there. The intercepts keep their own. With three classes or more the
        aligned axes turn with the precision, which the slope leaves out: `elbo_` then ends a
        tenth or two of a nat below the largest.
    intercept_precision : float
        Precision of the intercepts' prior. The default, 0.01, is weak: a standard deviation of 10
        for the logarithm of a class's odds.
    family : str
        Shape of the posterior, ``"aligned"`` or ``"mean-field"``, see `vilogit.fit`.
    fit_intercept : bool
        Whether the model has an intercept for each class.
    class_weight : dict or str, optional
        Weights of the classes, multiplied by those of the rows, as in
        ``sklearn.utils.class_weight.compute_class_weight``.
    tol : float
        Gap to the optimum at which to stop, in nats.
    max_evaluations : int
        Most evaluations of the evidence lower bound in a fit.
    progress : bool
        Whether to show a progress bar (tqdm).

    Attributes
    ----------
    classes_ : ndarray, shape (D,)
        Labels in sorted order, those of rows with weight 0 included.
    coef_, intercept_ : ndarray, shape (D, M) or (D,)
        Posterior means. With two classes there is one row, the log odds of ``classes_[1]``.
    coef_scale_ : ndarray, shape (D, M)
        Posterior standard deviations of `coef_`.
    elbo_, gap_ : float
        Evidence lower bound and the proven distance to its optimum, in nats.
    n_iter_ : int
        Evaluations of the bound, in the last fit.
    prior_precision_ : float or ndarray, shape (M,)
        Precision of the coefficients that was used.
    posterior_ : Posterior
        The posterior over all weights, intercepts last.
    n_features_in_ : int
        Number of features M.
    feature_names_in_ : ndarray, shape (M,)
        Names of the columns, where `fit` was given any.
    """

    def __init__(
        self, prior_precision: float | ArrayLike | str = 1.0, intercept_precision: float = 0.01,
        family: str = "aligned", fit_intercept: bool = True,
        class_weight: dict | str | None = None, tol: float = 1e-3, max_evaluations: int = 200,
        progress: bool = False,
    ) -> None:  # fmt: skip
        self.prior_precision = prior_precision
        self.intercept_precision = intercept_precision
        self.family = family
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_evaluations = max_evaluations
        self.progress = progress

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the posterior.

        Parameters
        ----------
        X : array_like, shape (N, M)
            Inputs, without a column for the intercept.
        y : array_like, shape (N,)
            Labels of any type, two classes at least.
        sample_weight : array_like, shape (N,), optional
            How often each row counts; not negative. Rows of weight 0 are dropped.

        Returns
        -------
        VariationalLogisticRegression
            Itself.

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter of the constructor is of the wrong kind, shape or range.

        Warns
        -----
        ConvergenceWarning
            If the gap is still above `tol` when evaluations run out.
        """
        columns, labels = validate_data(self, X, y, dtype=_DTYPES)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class, {self.classes_[0]!r}; expected two or more")
        weight = self._weights(columns, codes, sample_weight)
        rows = weight > 0
        columns, codes, weight = columns[rows], codes[rows], weight[rows]
        with _progress_bar(self.progress) as bar:
            # Kept: the search comes back to its ends, and the fit to where it stopped.
            fit_at = lru_cache(partial(self._fit_at, self._inputs(columns), codes, weight, bar))
            self.prior_precision_ = self._choose_precision(columns, weight, fit_at)
            self.posterior_ = fit_at(tuple(np.atleast_1d(self.prior_precision_)), self.tol)

        mean, scale = self.posterior_.mean, self.posterior_.scale
        if len(self.classes_) == 2:
            # Independent logits with the right difference: those of the unit vectors as inputs.
            mean, var = self.posterior_.logit_moments(np.eye(len(mean)))
            mean, scale = mean @ [[-1], [1]], np.sqrt(var.sum(axis=1, keepdims=True))
        self.coef_, self.intercept_ = self._split(mean.T)
        self.coef_scale_ = self._split(scale.T)[0]
        self.elbo_, self.gap_ = self.posterior_.elbo, self.posterior_.gap
        self.n_iter_ = len(self.posterior_.trace)
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Class probabilities averaged over the posterior, in the order of `classes_`.

        Parameters
        ----------
        X : array_like, shape (N, M)
            Inputs, finite.

        Returns
        -------
        ndarray, shape (N, D)
            As exact as `vilogit.expected_softmax`: within 1e-6. A row's answer depends on that
            row alone.

        Raises
        ------
        TypeError, ValueError
            If `fit` was not called (``sklearn.exceptions.NotFittedError``), or `X` is not a finite
            real array with the columns of the fit.
        """
        X = self._checked(X)
        return self.posterior_.predict_proba(X)

    def predict_log_proba(self, X: ArrayLike) -> np.ndarray:
        """Logarithm of `predict_proba`, finite also where a probability underflows."""
        return np.log(np.maximum(self.predict_proba(X), np.finfo(np.float64).tiny))

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Logarithms of `predict_proba`; with two classes the log odds of ``classes_[1]``.

        Shape (N, D), or (N,) with two classes. Parameters and errors are
        those of `predict_proba`.
        """
        scores = self.predict_log_proba(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Most probable label of each row. Parameters and errors as `predict_proba`."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def uncertainty(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Total, aleatoric and epistemic entropy of each prediction, in nats.

        See `vilogit.Posterior.uncertainty`. Parameters and errors are those of `predict_proba`.
        """
        X = self._checked(X)
        return self.posterior_.uncertainty(X)

    def sample_coef(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw coefficients and intercepts from the posterior.

        Parameters
        ----------
        n : int
            Number of draws.
        rng : numpy.random.Generator
            The only source of randomness.

        Returns
        -------
        coef, intercept : ndarray
            Each draw has the shape of `coef_` or `intercept_`; draws come first.

        Raises
        ------
        TypeError, ValueError
            If `fit` was not called, `n` is not a non-negative integer or `rng` is not a
            generator.
        """
        check_is_fitted(self)
        draws = self.posterior_.sample(n, rng).swapaxes(1, 2)
        if len(self.classes_) == 2:
            draws = draws[:, 1:] - draws[:, :1]
        return self._split(draws)

    def _weights(self, X: np.ndarray, codes: np.ndarray, weight: ArrayLike | None) -> np.ndarray:
        """Weights of the rows, times those of their classes, (N,)."""
        weight = checks.weights(np.ones(len(X)) if weight is None else weight, X)
        if self.class_weight is None:
            return weight
        some, each = weight > 0, np.ones(len(self.classes_))
        present, y = np.unique(codes[some]), self.classes_[codes[some]]
        each[present] = compute_class_weight(self.class_weight, classes=self.classes_[present], y=y)
        if isinstance(self.class_weight, str):  # balanced by weight: scikit-learn's from 1.7 on
            shares = np.bincount(codes, weight)[present]
            each[present] = shares.sum() / (len(present) * shares)
        return checks.weights(weight * each[codes], X, "class_weight")

    def _fit_at(
        self, inputs: np.ndarray, codes: np.ndarray, weight: np.ndarray, bar: _Callback,
        precision: tuple[float, ...], tol: float,
    ) -> Posterior:  # fmt: skip
        """Fit under one precision of the coefficients, or one for each feature."""
        prior = np.ones(self.n_features_in_) * precision
        if self.fit_intercept:
            of_intercept = checks.positive(self.intercept_precision, "intercept_precision", ())
            prior = np.append(prior, of_intercept)
        return fit(
            inputs, codes, prior_precision=prior, family=self.family, n_classes=len(self.classes_),
            # Few rows are weighed in any case: the digits then do not hang on the rows' order.
            sample_weight=weight if len(codes) <= _FEW or (weight != 1).any() else None,
            tol=tol, max_evaluations=self.max_evaluations, callback=bar,
        )  # fmt: skip

    def _choose_precision(self, X: np.ndarray, weight: np.ndarray, fit_at: Callable) -> ArrayLike:
        """Return the precision of the coefficients that was given, or that of the best evidence."""
        precision = self.prior_precision
        if not isinstance(precision, str):
            precision = checks.prior_precision(precision, self.n_features_in_)
            return precision.reshape(-1) if precision.ndim else float(precision)
        if precision != "evidence":
            raise ValueError(f'prior_precision must be numbers or "evidence", not {precision!r}')
        center = np.average(X, axis=0, weights=weight)
        unit = np.average((X - center) ** 2, axis=0, weights=weight).mean()

        def slope_at(precision: float) -> float:
            posterior = fit_at((precision,), min(self.tol, _SEARCH_TOL))
            square = posterior.mean**2 + posterior.scale**2
            return float(np.sum(1 - precision * square[: self.n_features_in_]) / 2)

        return _by_evidence(slope_at, unit or 1.0)

    def _checked(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        return self._inputs(validate_data(self, X, reset=False, dtype=_DTYPES))

    def _inputs(self, X: np.ndarray) -> np.ndarray:
        return np.column_stack([X, np.ones(len(X), X.dtype)]) if self.fit_intercept else X

    def _split(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Part coefficients from intercepts, the last of `weights` or zero."""
        if self.fit_intercept:
            return weights[..., :-1], weights[..., -1]
        return weights, np.zeros(weights.shape[:-1])


def _by_evidence(slope_at: Callable[[float], float], unit: float) -> float:
    """Find where the ELBO's slope in the log precision vanishes: by decades, then between two."""

    def slope(decades: float) -> float:
        return slope_at(float(unit * 10.0**decades))

    here, step = 0.0, 1 if slope(0.0) > 0 else -1
    while step * slope(here + step) > 0:
        here += step
        if here in _DECADES:
            return float(unit * 10.0**here)
    return float(unit * 10 ** brentq(slope, here, here + step, xtol=_NEAR_ENOUGH))


@contextmanager
def _progress_bar(wanted: bool) -> Iterator[_Callback]:
    """Yield a callback for `fit` that shows each evaluation and its gap, or None."""
    if not wanted:
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc="fit", unit=" evaluations") as bar:

        def show(state: State) -> None:
            bar.set_postfix_str(f"gap {state.gap:.2g} nats", refresh=False)
            bar.update()

        yield show
