"""A scikit-learn classifier that knows what it does not know (chapter 7)."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from io import BytesIO
from statistics import NormalDist
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from . import checks, storage
from .axes import AlignedPosterior
from .draws import WeightedDraws
from .families import load
from .posterior import ConvergenceWarning as _Ours
from .posterior import Posterior, State, for_arviz, summarise
from .solver import optimum, shortfall

try:
    from scipy.optimize import brentq
    from scipy.sparse import issparse
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning as _Theirs
    from sklearn.utils import Tags
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    needs = 'scikit-learn 1.7 or later: pip install "vilogit[sklearn]"'
    raise ImportError(f"VariationalLogisticRegression needs {needs}") from error

_DTYPES = [np.float64, np.float32]
_Callback = Callable[[State], None] | None
_FEW = 2000  # rows whose order must not show in the last digits
_DECADES = (-4, 6)  # reach of the search from the inputs' own scale: beyond, nothing changes
_NEAR_ENOUGH = 4e-3  # where the search stops, in decades: a hundredth of the precision
_SEARCH_TOL = 1e-3  # gap of its fits in nats, at most: the slope has digits enough then
_NEARBY = 0.5  # decades of the precision beyond which an earlier fit is no shorter way
_SCAN_TOL = 0.1  # the same where it only looks for the highest of several tops
_SCAN = 8  # most places at which it looks
_SMALLEST = 1e-290  # a square of inputs below which precisions would lose digits
_FITTED = ("classes_", "center_", "prior_precision_", "feature_names_in_")  # saved as they are
_RESPONSE = 1000  # most numbers whose covariance the classifier computes unasked
_INSIDE = ("vilogit", "sklearn", "joblib")  # whose lines no warning is about


class ConvergenceWarning(_Ours, _Theirs):
    """The classifier's: a `vilogit.ConvergenceWarning` that is also scikit-learn's."""


class VariationalLogisticRegression(ClassifierMixin, BaseEstimator):
    """Bayesian softmax (multi-class logistic) regression by `vilogit.fit`.

    The logit of class d at the inputs x is ``coef_[d] @ x + intercept_[d]``, on average. Where
    there is an intercept, its prior is that of the logits at the inputs' weighted mean, `center_`:
    a prior at the origin would speak of the year 0 or of a temperature of 0 kelvin. So nothing
    depends on where a column has its zero. Without an intercept the origin matters, as the logits
    are zero there, and nothing is centred.

    Parameters
    ----------
    prior_precision : float, array_like or str
        Precision of the coefficients' zero-mean Gaussian prior, one number or one for each of the
        M features. ``"evidence"`` chooses the one
        number that maximises `elbo_`, with no cross-validation, in some ten fits: it follows
        the slope, :eq:`eq-evidence-slope`, from the mean variance of the columns, or, where
        their median variance is another by a power of ten or more, from the best of at most
        eight precisions between. (Without an intercept, mean squares stand for variances.) It
        stops with a warning at 1e-4 times the smaller (classes far apart) or at 1e6 times the
        larger (inputs that tell nothing) where `elbo_` still rises there. The intercepts keep
        their own. With three classes or more the aligned axes turn with the precision, which the
        slope leaves out: `elbo_` then ends a tenth or two of a nat below the largest.
    intercept_precision : float
        Precision of the prior of the intercepts, at `center_`. The default, 0.01, is weak: a
        standard deviation of 10 for the logarithm of a class's odds.
    family : str
        Shape of the posterior, ``"aligned"``, ``"mean-field"`` or, for small problems,
        ``"full-rank"``, see `vilogit.fit`.
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
    warm_start : bool
        Whether `fit` begins at `posterior_`, where there is one, see `start` of `vilogit.fit`:
        fewer evaluations, where rows and precision are nearly the same. It begins anew where
        classes, number of features, family or `fit_intercept` are others, and at precisions
        three times lower or higher.
    linear_response : bool
        Whether scales and intervals of coefficients are those of the optimum's linear response,
        :eq:`eq-linear-response`, where the family is aligned and K (D - 1), K being the number of
        directions with data, is 1000 at most. It takes the time of a fit or two. Otherwise they
        are those of q, which are too narrow (chapter 8).

    Attributes
    ----------
    classes_ : ndarray, shape (D,)
        Labels in sorted order, those of rows with weight 0 included.
    coef_, intercept_ : ndarray, shape (D, M) or (D,)
        Posterior means of what the data determine, see `vilogit.Posterior.centred`: each weight
        less its mean over the classes, ``W[m, d] - W[m].mean()``. With two classes there is one
        row, the log odds of ``classes_[1]``, ``W[m, 1] - W[m, 0]``. The intercepts are those of
        the origin that `X` has.
    coef_scale_, intercept_scale_ : ndarray, shape (D, M) or (D,)
        Posterior standard deviations of the same, by `coef_scale_method_`.
    coef_scale_method_ : str
        ``"linear response"`` or ``"q"``.
    response_ : Response or None
        The linear response, about the same weights as `posterior_`.
    center_ : ndarray, shape (M,)
        What is subtracted from the inputs: their weighted mean, or zeros without an intercept.
    elbo_, gap_ : float
        Evidence lower bound and the proven distance to its optimum, in nats.
    n_iter_ : int
        Evaluations of the bound, in the last fit.
    prior_precision_ : float or ndarray, shape (M,)
        Precision of the coefficients that was used.
    posterior_ : Posterior
        The posterior over the weights themselves, of the inputs less `center_`, the intercepts
        last: its own methods take ``[X - center_, 1]``.
    n_features_in_ : int
        Number of features M.
    feature_names_in_ : ndarray, shape (M,)
        Names of the columns, where `fit` was given any.

    Notes
    -----
    Sparse inputs are accepted and become dense, as the centred ones are: N M numbers of 8 bytes (4
    from float32), which `fit` holds twice. Where that is more than the machine's memory, they are
    refused; ``sklearn.decomposition.TruncatedSVD`` leaves fewer columns.
    """

    def __init__(
        self, prior_precision: float | ArrayLike | str = 1.0, intercept_precision: float = 0.01,
        family: str = "aligned", fit_intercept: bool = True,
        class_weight: dict | str | None = None, tol: float = 1e-3, max_evaluations: int = 200,
        progress: bool = False, warm_start: bool = False, linear_response: bool = True,
    ) -> None:  # fmt: skip
        self.prior_precision = prior_precision
        self.intercept_precision = intercept_precision
        self.family = family
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_evaluations = max_evaluations
        self.progress = progress
        self.warm_start = warm_start
        self.linear_response = linear_response

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the posterior.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, M)
            Inputs, without a column for the intercept.
        y : array_like, shape (N,)
            Labels of any one type, two classes at least.
        sample_weight : float or array_like, shape (N,), optional
            How often each row counts, one number for all or one each; not negative. Rows of
            weight 0 are dropped.

        Returns
        -------
        VariationalLogisticRegression
            Itself.

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter of the constructor is of the wrong kind, shape or range.
        MemoryError
            If sparse inputs would be too large as dense ones.

        Warns
        -----
        ConvergenceWarning
            `vilogit.estimator.ConvergenceWarning`, once, of the last fit: if its gap is still
            above `tol` when evaluations run out. Also if the search for ``"evidence"`` ended at
            one of its ends.
        """
        _none_masked(X=X, y=y, sample_weight=sample_weight)
        with _columns_named(X):
            columns, _ = validate_data(self, X, y, accept_sparse="csr", dtype=_DTYPES)
        columns, labels = _dense(columns), _labels(y)
        earlier = dict(vars(self)) if self.warm_start else {}
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class, {self.classes_[0]!r}; expected two or more")
        weight = self._weights(columns, codes, sample_weight)
        rows = weight > 0
        columns, codes, weight = checks.inputs(columns[rows]), codes[rows], weight[rows]
        self.center_ = np.zeros(columns.shape[1])
        if self.fit_intercept:
            self.center_ = _mean(columns, weight)
        inputs = self._inputs(columns)
        with _progress_bar(self.progress) as bar:
            # Kept: the search comes back to its ends, and the fit to where it stopped.
            start = self._start(earlier)
            fit_at = lru_cache(partial(self._fit_at, inputs, codes, weight, bar, start))
            self.prior_precision_, rise = self._choose_precision(inputs, weight, fit_at)
            self.posterior_ = fit_at(tuple(np.atleast_1d(self.prior_precision_)), self.tol)
        self.response_ = None
        if self.linear_response and isinstance(self.posterior_, AlignedPosterior):
            K, D = self.posterior_.location.shape
            if K * (D - 1) <= _RESPONSE:
                self.response_ = self.posterior_.response(inputs, sample_weight=weight)
        self._describe()
        if rise:
            _warn(
                f'prior_precision="evidence" ended at {self.prior_precision_:.3g}, where its '
                f"search ends: elbo_, {self.elbo_:.6g}, still rises, by {abs(rise):.2g} nats for "
                + ("2.7 times more (the inputs tell little of y)" if rise > 0 else
                   "2.7 times less (the classes are far apart)")
            )  # fmt: skip
        if not self.gap_ <= self.tol:
            _warn(shortfall(self.posterior_, self.tol))
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Class probabilities averaged over the posterior, in the order of `classes_`.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, M)
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
            real array with the columns of the fit, or so far away that its square overflows.
        MemoryError
            If sparse inputs would be too large as dense ones.
        """
        X = self._checked(X)
        return self.posterior_.predict_proba(X)

    def predict_log_proba(self, X: ArrayLike) -> np.ndarray:
        """Logarithm of `predict_proba`, finite also where a probability underflows.

        Exact however small it is, see `vilogit.Posterior.predict_log_proba`.
        """
        X = self._checked(X)
        return self.posterior_.predict_log_proba(X)

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
        """Draw coefficients and intercepts from q, whose scales need not be `coef_scale_`.

        The method `exact` draws from the posterior itself.

        Parameters
        ----------
        n : int
            Number of draws.
        rng : numpy.random.Generator
            The only source of randomness.

        Returns
        -------
        coef, intercept : ndarray
            Each draw has the shape of `coef_` or `intercept_`, and is centred like these, or the
            log odds; draws come first.

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
        else:
            draws -= draws.mean(axis=1, keepdims=True)
        coef, intercept = self._split(draws)
        return coef, intercept - coef @ self.center_

    def summary(self, *, level: float = 0.9) -> Any:
        """Tabulate `coef_` and `intercept_` with their uncertainty, under the names of the fit.

        Parameters
        ----------
        level : float
            Probability of the central interval; between 0 and 1.

        Returns
        -------
        pandas.DataFrame
            See `vilogit.Posterior.summary`: one row for each feature and class, the intercepts'
            last. Without pandas, the same table as a string.

        Raises
        ------
        TypeError, ValueError
            If `fit` was not called or `level` is out of range.
        """
        check_is_fitted(self)
        mean, scale = self._in_users_origin()
        features = [*self._feature_names(), "intercept"][: len(mean)]
        classes = self.classes_.tolist()
        return summarise(mean, scale, feature_names=features, class_names=classes, level=level)

    def coef_interval(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Return ends of central intervals of `coef_`, by `coef_scale_method_`.

        Parameters
        ----------
        level : float
            Probability of each interval; between 0 and 1.

        Returns
        -------
        low, high : ndarray
            Of the shape of `coef_`. Those of the intercepts are in `summary`.

        Raises
        ------
        TypeError, ValueError
            If `fit` was not called or `level` is out of range.
        """
        check_is_fitted(self)
        reach = NormalDist().inv_cdf((1 + checks.level(level)) / 2) * self.coef_scale_
        return self.coef_ - reach, self.coef_ + reach

    def exact(
        self, X: ArrayLike, y: ArrayLike, n: int, rng: np.random.Generator,
        sample_weight: ArrayLike | None = None,
    ) -> WeightedDraws:  # fmt: skip
        """Draw from the posterior itself, see `vilogit.axes.AlignedPosterior.exact`.

        Parameters
        ----------
        X, y, sample_weight
            What `fit` was given: a classifier keeps no rows.
        n : int
            Number of draws, at least 100.
        rng : numpy.random.Generator
            The only source of randomness.

        Returns
        -------
        WeightedDraws
            Of the weights in the origin that `X` has, the intercepts last: its own methods take
            ``[X, 1]``.

        Raises
        ------
        TypeError, ValueError
            If `fit` was not called, the family is not aligned, an argument is of the wrong kind,
            or `y` holds a label that is none of `classes_`.

        Warns
        -----
        UserWarning
            If ``khat`` is above 0.7 or ``ess`` below 400.
        """
        inputs, labels = self._checked(X), _labels(y)
        if not isinstance(self.posterior_, AlignedPosterior):
            raise ValueError(f'exact needs family="aligned", not {self.family!r}')
        if len(labels) != len(inputs):
            raise ValueError(f"y has {len(labels)} labels, but X has {len(inputs)} rows")
        strange = ~np.isin(labels, self.classes_)
        if strange.any():
            where = int(strange.argmax())
            raise ValueError(f"y[{where}] is {labels[where].item()!r}; expected one of classes_")
        codes = np.searchsorted(self.classes_, labels)
        weight = self._weights(inputs, codes, sample_weight)
        draws = self.posterior_.exact(inputs, codes, n, rng, sample_weight=weight)
        W = self._users_rows() @ draws.W
        return replace(draws, W=W)

    def to_arviz(self, n: int, rng: np.random.Generator) -> object:
        """Draw `n` times for ArviZ, as `sample_coef`; errors are the same.

        Returns
        -------
        object
            An ``xarray.DataTree`` with ``posterior["coef"]``, of dimensions chain (one), draw,
            class and feature, and ``posterior["intercept"]``, of chain, draw and class. With two
            classes the only one is ``classes_[1]``.

        Raises
        ------
        ImportError
            If ArviZ is not there: ``pip install "vilogit[arviz]"``.
        """
        coef, intercept = self.sample_coef(n, rng)
        names = {
            "class": self.classes_[-coef.shape[1] :].tolist(),
            "feature": self._feature_names(),
        }
        dims = {"coef": ["class", "feature"], "intercept": ["class"]}
        return for_arviz({"coef": coef, "intercept": intercept}, dims, names)

    def save(self, path: storage.File) -> None:
        """Write the fitted classifier to one ``.npz`` file without pickle, for `load`.

        Parameters
        ----------
        path : str, path-like object or binary file
            Where to, as in `vilogit.Posterior.save`.

        Raises
        ------
        OSError
            If the file cannot be written.
        TypeError, ValueError
            If `fit` was not called, or if classes, names of features or a parameter are Python
            objects other than numbers and strings.
        """
        check_is_fitted(self)
        posterior = BytesIO()
        self.posterior_.save(posterior)
        arrays = {name: value for name, value in self.get_params().items() if value is not None}
        if isinstance(self.class_weight, dict):
            arrays["weighted_classes"] = list(self.class_weight)
            arrays["class_weight"] = list(self.class_weight.values())
        arrays |= {name: getattr(self, name) for name in _FITTED if hasattr(self, name)}
        arrays = {name: _plain(value, name) for name, value in arrays.items()}
        arrays["posterior_"] = np.frombuffer(posterior.getvalue(), np.uint8)
        if self.response_ is not None:
            arrays["response_"] = self.response_.inner
        storage.write(path, **arrays)

    @classmethod
    def load(cls, path: storage.File) -> Self:
        """Read a classifier that `save` wrote.

        Parameters
        ----------
        path : str, path-like object or binary file
            The file.

        Returns
        -------
        VariationalLogisticRegression
            Fitted, with the same numbers to the last bit. Strings that were Python objects among
            classes are those of a NumPy array.

        Raises
        ------
        OSError
            If the file cannot be opened.
        ValueError
            If it is cut off or damaged, is no classifier, or comes from a later format. Nothing in
            a file is ever executed.
        """
        return storage.read(path, cls._of_arrays)

    @classmethod
    def _of_arrays(cls, arrays: dict[str, np.ndarray]) -> Self:
        """Check what a file holds as if a user had typed it in."""
        if not {"posterior_", "fit_intercept", "classes_", "center_"} <= arrays.keys():
            raise ValueError(f"it holds {sorted(arrays)}, which is no classifier's")
        fitted = {name: arrays.pop(name) for name in _FITTED if name in arrays}
        inner = arrays.pop("response_", None)
        posterior = load(BytesIO(arrays.pop("posterior_").tobytes()))
        params: dict[str, Any] = {
            name: value if value.ndim else value.item() for name, value in arrays.items()
        }
        if "weighted_classes" in params:
            keys, values = params.pop("weighted_classes").tolist(), params["class_weight"].tolist()
            params["class_weight"] = dict(zip(keys, values, strict=True))
        model = cls(**params)
        M = len(posterior.mean) - bool(model.fit_intercept)
        model.posterior_, model.n_features_in_ = posterior, M
        model.center_ = checks.array(fitted["center_"], "center_", (M,))
        precision = checks.prior_precision(fitted["prior_precision_"], M)
        model.prior_precision_ = precision.reshape(-1) if precision.ndim else float(precision)
        model.classes_ = fitted["classes_"]
        if model.classes_.shape != posterior.mean.shape[1:]:
            raise ValueError(
                f"classes_ has shape {model.classes_.shape}, the posterior has another"
            )
        if "feature_names_in_" in fitted:
            names = fitted["feature_names_in_"].astype(object)
            checks.names(names, "feature_names_in_", range(M))
            model.feature_names_in_ = names
        model.response_ = None
        if inner is not None:
            if not isinstance(posterior, AlignedPosterior):
                raise ValueError("it holds a response, but no aligned posterior")
            model.response_ = posterior.with_covariance(inner)
        model._describe()
        return model

    def __sklearn_tags__(self) -> Tags:
        """Tell scikit-learn that sparse inputs are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _weights(self, X: np.ndarray, codes: np.ndarray, weight: ArrayLike | None) -> np.ndarray:
        """Weights of the rows, times those of their classes, (N,)."""
        weight = 1.0 if weight is None else weight
        weight = checks.weights(np.full(len(X), weight) if np.isscalar(weight) else weight, X)
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
        start: Callable[[ArrayLike], Posterior | None], precision: tuple[float, ...], tol: float,
    ) -> Posterior:  # fmt: skip
        """Fit under one precision of the coefficients, or one for each feature."""
        return optimum(
            inputs, codes, len(self.classes_), prior_precision=self._prior(precision),
            # Few rows are weighed in any case: the digits then do not hang on the rows' order.
            sample_weight=weight if len(codes) <= _FEW or (weight != 1).any() else None,
            family=self.family, tol=tol, max_evaluations=self.max_evaluations,
            start=start(precision), callback=bar,
        )  # fmt: skip

    def _start(self, earlier: dict[str, Any]) -> Callable[[ArrayLike], Posterior | None]:
        """Return what an earlier fit left to begin at, as a function of the precision."""
        posterior = self._from_new_center(**earlier) if "posterior_" in earlier else None

        def start(precision: ArrayLike) -> Posterior | None:
            if posterior is None:
                return None
            decades = np.log10(np.divide(precision, earlier["prior_precision_"]))
            return posterior if np.abs(decades).max() < _NEARBY else None

        return start

    def _from_new_center(
        self, posterior_: Posterior, center_: np.ndarray, classes_: np.ndarray, **_: Any
    ) -> Posterior | None:
        """Return an earlier posterior, of this kind, for inputs less the new center, or None."""
        shape = len(self.center_) + bool(self.fit_intercept), len(self.classes_)
        if (
            (posterior_.family, posterior_.mean.shape) != (self.family, shape)
            or center_.shape != self.center_.shape
            or not np.array_equal(classes_, self.classes_)
        ):
            return None
        mean = posterior_.mean.copy()
        if self.fit_intercept:  # that of a new center is the logit there
            mean[-1] += (self.center_ - center_) @ mean[:-1]
        return posterior_.around(mean)

    def _prior(self, precision: ArrayLike) -> np.ndarray:
        """Precisions of all weights, that of the intercept last."""
        prior = np.full(self.n_features_in_, precision, np.float64)
        if not self.fit_intercept:
            return prior
        of_intercept = checks.positive(self.intercept_precision, "intercept_precision", ())
        return np.append(prior, of_intercept)

    def _choose_precision(
        self, inputs: np.ndarray, weight: np.ndarray, fit_at: Callable
    ) -> tuple[Any, float]:
        """Return the precision of the coefficients, and how `elbo_` rises where a search ended."""
        precision = self.prior_precision
        if not isinstance(precision, str):
            precision = checks.prior_precision(precision, self.n_features_in_)
            return precision.reshape(-1) if precision.ndim else float(precision), 0.0
        if precision != "evidence":
            raise ValueError(f'prior_precision must be numbers or "evidence", not {precision!r}')
        M = self.n_features_in_

        def evidence_at(precision: float, tol: float) -> tuple[float, float]:
            posterior = fit_at((precision,), max(self.tol, tol) if tol > _SEARCH_TOL else tol)
            square = posterior.mean**2 + posterior.scale**2
            return posterior.elbo, float(np.sum(1 - precision * square[:M]) / 2)

        share = weight / weight.sum()
        squares = np.array([share @ np.square(x, dtype=np.float64) for x in inputs.T[:M]])
        if squares.max() < _SMALLEST and inputs[:, :M].any():
            top = np.abs(inputs[:, :M]).max()
            raise ValueError(f"X varies by {top:g}, whose square is too small; scale X up")
        return _by_evidence(evidence_at, squares)

    def _describe(self) -> None:
        """Tell in the reader's origin what the posterior says."""
        mean, scale = self._in_users_origin()
        if len(self.classes_) == 2:  # centred weights are opposite then
            mean, scale = 2 * mean[:, 1:], 2 * scale[:, 1:]
        self.coef_, self.intercept_ = self._split(mean.T)
        self.coef_scale_, self.intercept_scale_ = self._split(scale.T)
        self.coef_scale_method_ = "q" if self.response_ is None else "linear response"
        self.elbo_, self.gap_ = self.posterior_.elbo, self.posterior_.gap
        self.n_iter_ = len(self.posterior_.trace)

    def _in_users_origin(self) -> tuple[np.ndarray, np.ndarray]:
        """Return means and scales of the centred weights for inputs that are not centred."""
        if self.response_ is not None:
            return self.response_.moments(self._users_rows())
        mean, scale = self.posterior_.centred()
        if self.fit_intercept:  # that of the reader's origin is the logit there
            logit, var = self.posterior_.centred_logits(self._users_rows()[-1:])
            mean, scale = np.vstack([mean[:-1], logit]), np.vstack([scale[:-1], np.sqrt(var)])
        return mean, scale

    def _users_rows(self) -> np.ndarray:
        """Rows that turn weights for centred inputs into those for inputs as they come."""
        rows = np.eye(len(self.posterior_.mean))
        if self.fit_intercept:
            rows[-1, :-1] = -self.center_
        return rows

    def _checked(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        _none_masked(X=X)
        with _columns_named(X):
            X = validate_data(self, X, reset=False, accept_sparse="csr", dtype=_DTYPES)
        # What a fit refuses overflows here, too; in double precision less does.
        inputs = self._inputs(checks.inputs(_dense(X).astype(np.float64, copy=False)))
        checks.in_units_of_prior(inputs, self._prior(self.prior_precision_)[:, None], None)
        return inputs

    def _inputs(self, X: np.ndarray) -> np.ndarray:
        """Return the inputs less their center, and for the intercept a column of ones."""
        M = X.shape[1]
        inputs = np.ones((len(X), M + bool(self.fit_intercept)), X.dtype)
        np.subtract(X, self.center_, out=inputs[:, :M], casting="same_kind")
        return inputs

    def _feature_names(self) -> list:
        return list(getattr(self, "feature_names_in_", [f"x{m}" for m in range(len(self.center_))]))

    def _split(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Part coefficients from intercepts, the last of `weights` or zero."""
        if self.fit_intercept:
            return weights[..., :-1], weights[..., -1]
        return weights, np.zeros(weights.shape[:-1])


def _mean(X: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted mean of each column, to the last digit that its values share."""
    first = X[0].astype(np.float64)  # seen from a value, a column far from zero keeps its digits
    return first + weight / weight.sum() @ (X - first)


def _labels(y: ArrayLike) -> np.ndarray:
    """Return labels of one type, (N,)."""
    labels = column_or_1d(np.asarray(y))
    given = np.asarray(y, dtype=object).ravel()  # NumPy makes numbers among strings strings
    if labels.dtype.kind not in "OU" or all(isinstance(label, str) for label in given):
        return labels
    plain = np.array(given.tolist())
    if plain.dtype.kind not in "biuf":
        types = " and ".join(sorted({type(label).__name__ for label in given}))
        raise TypeError(f"y holds labels of type {types}; expected numbers or strings alone")
    return plain


def _dense(X: Any) -> np.ndarray:
    """Return a checked array as a dense one, if the machine can hold it twice."""
    if not issparse(X):
        return X
    bytes_ = 2.0 * X.shape[0] * X.shape[1] * X.dtype.itemsize
    if bytes_ > (memory := _memory()):
        raise MemoryError(
            f"X is sparse, of shape {X.shape}, and its dense copies would take "
            f"{bytes_ / 2**30:.3g} GiB of this machine's {memory / 2**30:.3g}; expected fewer rows "
            "or columns: sklearn.decomposition.TruncatedSVD leaves fewer columns"
        )
    return X.toarray()


def _memory() -> float:
    """Bytes of the machine's memory, where it tells."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return np.inf


def _plain(value: Any, name: str) -> np.ndarray:
    """Return numbers or strings as an array that a file holds without pickle."""
    array = np.asarray(value)
    if not array.dtype.hasobject:
        return array
    plain = array.astype(str)
    if not np.array_equal(plain.astype(object), array.astype(object)):
        kinds = " and ".join(sorted({type(one).__name__ for one in array.ravel().tolist()}))
        raise TypeError(f"{name} holds values of type {kinds}; expected numbers or strings to save")
    return plain


def _none_masked(**arrays: Any) -> None:
    """Refuse masked values, which NumPy would hand on as if they were not masked."""
    for name, value in arrays.items():
        if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
            raise ValueError(f"{name} holds masked values; expected none, fill or drop them")


@contextmanager
def _columns_named(X: Any) -> Iterator[None]:
    """Let errors about a frame say which of its columns hold no numbers."""
    try:
        yield
    except (TypeError, ValueError) as error:
        columns = X.items() if hasattr(X, "items") else ()
        wrong = [f"{name!r} ({column.dtype})" for name, column in columns if not _real(column)]
        if not wrong:
            raise
        what = f"X holds columns that are no numbers: {', '.join(wrong)}"
        raise TypeError(f"{what}; expected real numbers alone") from error


def _real(column: Any) -> bool:
    """Whether a column of a frame holds real numbers, be it as Python objects."""
    if column.dtype.kind == "O":
        column = np.array(column.tolist())
    return column.dtype.kind in "fiub"


def _warn(message: str) -> None:
    """Warn of the line that asked for the fit, be it through a pipeline."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ConvergenceWarning, stacklevel=level)


def _by_evidence(
    evidence_at: Callable[[float, float], tuple[float, float]], squares: np.ndarray
) -> tuple[float, float]:
    """Find the largest ELBO by its slope in the log precision.

    Parameters
    ----------
    evidence_at : callable
        Of a precision and a tolerance: the ELBO, and its slope in the logarithm of the precision.
    squares : ndarray, shape (M,)
        Mean squares of the inputs, which say in what range to look.

    Returns
    -------
    precision, rise : float
        The slope where the search ended at the last precision that it tries; 0.0 elsewhere.
    """
    squares = squares[squares >= _SMALLEST]
    units = np.array([squares.mean(), np.median(squares)]) if squares.size else np.ones(2)
    decades = round(float(np.ptp(np.log10(units))))
    starts = np.geomspace(units[0], units[1], min(1 + decades, _SCAN))
    unit = units[0]
    if len(starts) > 1:  # columns in units of their own can have tops of their own
        unit = max(starts, key=lambda precision: evidence_at(float(precision), _SCAN_TOL)[0])
    low, high = np.log10(units.min() / unit), np.log10(units.max() / unit)

    def slope(decades: float) -> float:
        return evidence_at(float(unit * 10.0**decades), _SEARCH_TOL)[1]

    here, step = 0.0, 1 if slope(0.0) > 0 else -1
    while step * (ahead := slope(here + step)) > 0:
        here += step
        if not low + _DECADES[0] < here < high + _DECADES[1]:
            return float(unit * 10.0**here), ahead
    return float(unit * 10 ** brentq(slope, here, here + step, xtol=_NEAR_ENOUGH)), 0.0


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
