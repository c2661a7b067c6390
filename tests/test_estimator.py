import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import scipy.sparse
import scipy.special
import scipy.stats
import sklearn.exceptions
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import vilogit
from vilogit import ConvergenceWarning, VariationalLogisticRegression, fit, simulate
from vilogit.estimator import _by_evidence
from vilogit.solver import optimum

IRIS = StandardScaler().fit_transform(datasets.load_iris().data)
SPECIES = datasets.load_iris().target_names[datasets.load_iris().target]
TUMOURS = StandardScaler().fit_transform(datasets.load_breast_cancer().data[:, :5])
BENIGN = datasets.load_breast_cancer().target


@pytest.mark.slow
@parametrize_with_checks(
    [
        VariationalLogisticRegression(),
        VariationalLogisticRegression(family="mean-field", class_weight="balanced"),
        VariationalLogisticRegression(warm_start=True),
    ]
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_the_fit_is_that_of_the_solver():
    model = VariationalLogisticRegression(2.0, 0.5, family="mean-field").fit(IRIS, SPECIES)
    X, y = np.column_stack([IRIS, np.ones(150)]), np.unique(SPECIES, return_inverse=True)[1]
    posterior = fit(X, y, prior_precision=[2, 2, 2, 2, 0.5])
    assert model.elbo_ == pytest.approx(posterior.elbo, abs=1e-4)
    assert model.gap_ == pytest.approx(posterior.gap, rel=1e-2) and 0 < model.n_iter_ <= 15
    mean, scale = posterior.centred()
    np.testing.assert_allclose(model.coef_, mean[:-1].T, rtol=1e-3)
    np.testing.assert_allclose(model.intercept_, mean[-1], rtol=1e-3)
    np.testing.assert_allclose(model.coef_scale_, scale[:-1].T, rtol=1e-3)
    np.testing.assert_allclose(model.intercept_scale_, scale[-1], rtol=1e-3)
    np.testing.assert_allclose(model.predict_proba(IRIS), posterior.predict_proba(X), atol=1e-4)
    assert model.prior_precision_ == 2.0 and list(model.classes_) == sorted(set(SPECIES))
    for ours, theirs in zip(model.uncertainty(IRIS), posterior.uncertainty(X), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("family", ["aligned", "mean-field", "full-rank"])
def test_two_classes_have_one_row_the_log_odds(family):
    model = VariationalLogisticRegression(family=family).fit(TUMOURS, BENIGN == 1)
    assert model.coef_.shape == model.coef_scale_.shape == (1, 5)
    assert model.intercept_.shape == (1,) and model.classes_.dtype == bool
    mean = model.posterior_.mean
    np.testing.assert_allclose(model.coef_[0], mean[:-1, 1] - mean[:-1, 0])
    coef, intercept = model.sample_coef(40_000, np.random.default_rng(0))
    assert coef.shape == (40_000, 1, 5) and intercept.shape == (40_000, 1)
    # Four standard errors: of a mean, and of a standard deviation.
    np.testing.assert_array_less(np.abs(coef.mean(axis=0) - model.coef_) / model.coef_scale_, 0.02)
    np.testing.assert_allclose(coef.std(axis=0), model.coef_scale_, rtol=0.015)
    np.testing.assert_allclose(intercept.mean(axis=0), model.intercept_, atol=0.02)


def test_draws_of_three_classes_have_the_stated_moments():
    model = VariationalLogisticRegression(linear_response=False).fit(IRIS, SPECIES)
    coef, intercept = model.sample_coef(40_000, np.random.default_rng(0))
    assert coef.shape == (40_000, 3, 4) and intercept.shape == (40_000, 3)
    np.testing.assert_array_less(np.abs(coef.mean(axis=0) - model.coef_) / model.coef_scale_, 0.02)
    np.testing.assert_allclose(coef.std(axis=0), model.coef_scale_, rtol=0.015)


def test_without_intercept_it_is_zero():
    model = VariationalLogisticRegression(fit_intercept=False).fit(IRIS, SPECIES)
    np.testing.assert_array_equal(model.intercept_, np.zeros(3))
    assert model.posterior_.mean.shape == (4, 3)
    assert (model.sample_coef(2, np.random.default_rng(0))[1] == 0).all()


@pytest.mark.parametrize("labels", [SPECIES, BENIGN[:150], BENIGN[:150] == 1, SPECIES != "setosa"])
def test_scores_agree_with_predictions(labels):
    model = VariationalLogisticRegression().fit(IRIS, labels)
    probs, scores = model.predict_proba(IRIS), model.decision_function(IRIS)
    # As exact as the probabilities are, which two classes have from their logarithms.
    digits = {"rtol": 1e-12} if probs.shape[1] == 2 else {"atol": 1e-6}
    np.testing.assert_allclose(np.exp(model.predict_log_proba(IRIS)), probs, **digits)
    if probs.shape[1] == 2:
        best = (scores > 0).astype(int)
        np.testing.assert_allclose(1 / (1 + np.exp(-scores)), probs[:, 1])
    else:
        best = scores.argmax(axis=1)
        np.testing.assert_allclose(np.exp(scores), probs, **digits)
    np.testing.assert_array_equal(model.classes_[best], model.predict(IRIS))
    assert model.score(IRIS, labels) == np.mean(model.predict(IRIS) == labels)


def test_far_away_scores_are_finite():
    model = VariationalLogisticRegression().fit(TUMOURS, BENIGN)
    for far in (1e3 * TUMOURS, 1e6 * TUMOURS):
        assert np.isfinite(model.predict_log_proba(far)).all()
        assert np.isfinite(model.decision_function(far)).all()
        assert (model.predict_proba(far) >= 0).all()


def test_two_classes_keep_order_and_symmetry_however_far_away():
    """True log odds 3 x: scores grow with x on either side, where probabilities are 0 and 1."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 1))
    y = rng.uniform(size=20_000) < scipy.special.expit(3 * x[:, 0])
    model = VariationalLogisticRegression().fit(x, y)
    far = np.array([-40.0, -14, -12, -8, 8, 12, 14, 20, 40])
    scores = model.decision_function(far[:, None])
    assert np.all(np.diff(scores) > 0)
    there = np.array([8.0, 12, 20, 40])
    np.testing.assert_allclose(scores[[4, 5, 7, 8]], model.coef_[0, 0] * there, rtol=0.02)
    mirrored = VariationalLogisticRegression().fit(-x, ~y)
    np.testing.assert_allclose(mirrored.decision_function(-far[:, None]), -scores, rtol=1e-6)
    log_probs = model.predict_log_proba(far[:, None])
    np.testing.assert_allclose(log_probs[:, 1] - log_probs[:, 0], scores, rtol=1e-12)


def test_a_row_does_not_depend_on_the_others():
    for labels in (SPECIES, SPECIES == "virginica"):
        model = VariationalLogisticRegression().fit(IRIS, labels)
        far = np.concatenate([IRIS[:20], 30 * IRIS[:20]])
        together = model.predict_proba(far)
        apart = np.concatenate([model.predict_proba(row[None]) for row in far])
        np.testing.assert_allclose(together, apart, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_it_works_in_scikit_learns_tools():
    pipe = make_pipeline(StandardScaler(), VariationalLogisticRegression())
    assert cross_val_score(pipe, IRIS, SPECIES, cv=3).mean() > 0.9
    grid = {"variationallogisticregression__prior_precision": [0.1, 10.0]}
    search = GridSearchCV(pipe, grid, scoring="neg_log_loss", cv=3).fit(IRIS, SPECIES)
    assert search.best_params_["variationallogisticregression__prior_precision"] == 0.1
    calibrated = CalibratedClassifierCV(VariationalLogisticRegression(), cv=3)
    assert calibrated.fit(IRIS, SPECIES).score(IRIS, SPECIES) > 0.9


def test_clones_pickles_and_repr():
    model = VariationalLogisticRegression(family="mean-field", tol=1e-4).fit(IRIS, SPECIES)
    assert repr(model) == "VariationalLogisticRegression(family='mean-field', tol=0.0001)"
    assert repr(clone(model)) == repr(model) and not hasattr(clone(model), "coef_")
    back = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(back.predict_proba(IRIS), model.predict_proba(IRIS))


def test_pandas_names_are_kept():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(IRIS, columns=list("abcd"))
    series = pandas.Series(SPECIES, dtype="category")
    model = VariationalLogisticRegression().fit(frame, series)
    assert list(model.feature_names_in_) == list("abcd") and model.n_features_in_ == 4
    np.testing.assert_array_equal(model.predict(frame), model.classes_[model.decision_function(
        frame).argmax(axis=1)])  # fmt: skip
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[list("dcba")])


# Weights of rows and classes.


@pytest.mark.slow
@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["mean-field", "aligned"]))
def test_a_weight_of_two_is_a_row_given_twice(seed, family):
    rng = np.random.default_rng(seed)
    X, y, _ = simulate(rng, n=30, n_classes=int(rng.integers(2, 5)))
    weight = rng.integers(0, 4, 30)
    weight[y.argmax()] += 1
    options = {"family": family, "n_classes": int(y.max()) + 1 or 2, "tol": 1e-8, "accuracy": 1e-8}
    if y.max() == 0:
        options["n_classes"] = 2
    weighted = fit(X, y, sample_weight=weight, **options)
    again = np.repeat(np.arange(30), weight)
    repeated = fit(X[again], y[again], sample_weight=np.ones(len(again)), **options)
    plain = fit(X[again], y[again], **options)
    assert weighted.elbo == pytest.approx(repeated.elbo, abs=1e-6)
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-6)
    if family == "mean-field":
        assert weighted.elbo == pytest.approx(plain.elbo, abs=1e-6)


@pytest.mark.parametrize("family", ["mean-field", "aligned", "full-rank"])
def test_weights_of_one_change_nothing(family):
    X = np.column_stack([IRIS, np.ones(150)])
    y = np.unique(SPECIES, return_inverse=True)[1]
    a, b = fit(X, y, family=family), fit(X, y, family=family, sample_weight=np.ones(150))
    assert a.elbo == pytest.approx(b.elbo, abs=1e-5)


def test_weighted_rows_beyond_the_sample_of_the_metric():
    X, y, _ = simulate(np.random.default_rng(5), n=11_000)
    weight = np.random.default_rng(6).integers(0, 3, len(X))
    again = np.repeat(np.arange(len(X)), weight)
    weighted = fit(X, y, sample_weight=weight, tol=1e-5)
    assert weighted.elbo == pytest.approx(fit(X[again], y[again], tol=1e-5).elbo, abs=1e-3)


def test_rows_of_weight_zero_are_not_looked_at():
    weight = np.r_[np.ones(100), np.zeros(50)]
    strange = np.r_[IRIS[:100], np.full((50, 4), 1e9)]
    model = VariationalLogisticRegression().fit(strange, SPECIES, weight)
    assert list(model.classes_) == sorted(set(SPECIES))  # a class that is absent is still known
    short = VariationalLogisticRegression().fit(IRIS[:100], SPECIES[:100])
    assert (model.predict(IRIS[:100]) == short.predict(IRIS[:100])).all()


def test_float32_inputs_with_weights():
    weight = np.random.default_rng(0).uniform(0.5, 2, 150)
    single = VariationalLogisticRegression().fit(IRIS.astype(np.float32), SPECIES, weight)
    double = VariationalLogisticRegression().fit(IRIS, SPECIES, weight)
    assert single.elbo_ == pytest.approx(double.elbo_, abs=5e-2)


def test_class_weights_multiply_those_of_the_rows():
    weight = np.random.default_rng(0).uniform(0.5, 2, 150)
    each = {"setosa": 2.0, "versicolor": 0.5}
    a = VariationalLogisticRegression(class_weight=each).fit(IRIS, SPECIES, weight)
    total = weight * [each.get(label, 1.0) for label in SPECIES]
    b = VariationalLogisticRegression().fit(IRIS, SPECIES, total)
    np.testing.assert_allclose(a.coef_, b.coef_)
    balanced = VariationalLogisticRegression(class_weight="balanced").fit(IRIS, SPECIES, weight)
    sums = {label: weight[label == SPECIES].sum() for label in set(SPECIES)}
    total = [w * weight.sum() / 3 / sums[label] for w, label in zip(weight, SPECIES, strict=True)]
    c = VariationalLogisticRegression().fit(IRIS, SPECIES, total)
    np.testing.assert_allclose(balanced.coef_, c.coef_, rtol=1e-6)


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        ([-1.0] + [1] * 149, ValueError, r"sample_weight\[0\] is -1.0; expected none below zero"),
        ([1, np.nan] + [1] * 148, ValueError, r"sample_weight must be finite.* index \(1,\)"),
        ([0] * 150, ValueError, "sample_weight is zero in every row"),
        ([1] * 149, ValueError, r"sample_weight has shape \(149,\); expected \(150,\)"),
        (["1"] * 150, TypeError, "sample_weight must hold real numbers"),
    ],
)
def test_bad_weights_are_named(weight, error, message):
    with pytest.raises(error, match=message):
        VariationalLogisticRegression().fit(IRIS, SPECIES, weight)
    with pytest.raises(error, match=message):
        fit(IRIS, np.arange(150) % 3, sample_weight=weight)


@pytest.mark.parametrize(
    ("options", "labels", "error", "message"),
    [
        ({}, ["a"] * 150, ValueError, "y holds one class, .*a.*; expected two or more"),
        ({}, IRIS[:, 0], ValueError, "Unknown label type"),
        ({"prior_precision": "best"}, SPECIES, ValueError, "numbers or \"evidence\", not 'best'"),
        ({"prior_precision": [1, 2]}, SPECIES, ValueError, r"prior_precision has shape \(2,\)"),
        ({"prior_precision": 0}, SPECIES, ValueError, "prior_precision must be positive"),
        ({"intercept_precision": 0}, SPECIES, ValueError, "intercept_precision must be positive"),
        ({"family": "full"}, SPECIES, ValueError, "family must be"),
        ({"tol": 0}, SPECIES, ValueError, "tol must be positive"),
        ({"max_evaluations": 0}, SPECIES, ValueError, "max_evaluations must be at least 1"),
        ({"class_weight": {"setosa": -1}}, SPECIES, ValueError, r"class_weight\[0\] is -1.0"),
        ({"class_weight": "even"}, SPECIES, ValueError, "class_weight"),
    ],
)
def test_bad_parameters_are_named(options, labels, error, message):
    with pytest.raises(error, match=message):
        VariationalLogisticRegression(**options).fit(IRIS, labels)


def test_before_the_fit_there_is_nothing_to_ask():
    model = VariationalLogisticRegression()
    for ask in (model.predict, model.uncertainty, lambda X: model.sample_coef(1, None)):
        with pytest.raises(NotFittedError):
            ask(IRIS)


def test_one_precision_for_each_feature():
    precision = np.array([1.0, 1e4, 1.0, 1e4])
    model = VariationalLogisticRegression(precision).fit(IRIS, SPECIES)
    np.testing.assert_array_equal(model.prior_precision_, precision)
    assert np.abs(model.coef_[:, 1::2]).max() < 0.05 * np.abs(model.coef_[:, ::2]).max()


def test_a_fit_that_runs_out_warns():
    with pytest.warns(ConvergenceWarning, match="after 3 evaluations"):
        VariationalLogisticRegression(max_evaluations=3).fit(IRIS, SPECIES)


# One fit after another.


@pytest.fixture
def starts(monkeypatch):
    """What each fit begins at, in turn."""
    seen = []

    def watched(*args, **options):
        seen.append(options["start"])
        return optimum(*args, **options)

    monkeypatch.setattr("vilogit.estimator.optimum", watched)
    return seen


@pytest.mark.parametrize("family", ["mean-field", "aligned"])
@pytest.mark.parametrize("labels", [SPECIES, SPECIES == "virginica"])
def test_a_warm_start_needs_fewer_evaluations(family, labels):
    cold = VariationalLogisticRegression(family=family).fit(IRIS, labels)
    model = VariationalLogisticRegression(family=family, warm_start=True)
    most = np.arange(150) % 15 > 0
    model.fit(IRIS[most], labels[most]).fit(IRIS, labels)
    assert model.gap_ <= 1e-3 and model.n_iter_ <= cold.n_iter_
    assert model.elbo_ == pytest.approx(cold.elbo_, abs=2e-2)
    np.testing.assert_allclose(model.predict_proba(IRIS), cold.predict_proba(IRIS), atol=1e-2)
    assert model.fit(IRIS, labels).n_iter_ <= cold.n_iter_ / 2


def test_only_a_warm_start_begins_at_what_was_there(starts):
    model = VariationalLogisticRegression().fit(IRIS, SPECIES)
    first = model.posterior_
    model.fit(IRIS, SPECIES)
    model.set_params(warm_start=True).fit(IRIS, SPECIES)
    clone(model).fit(IRIS, SPECIES)
    assert [start is not None for start in starts] == [False, False, True, False]
    np.testing.assert_allclose(starts[2].mean, first.mean, rtol=1e-9)
    np.testing.assert_array_equal(starts[2].scale, first.scale)


@pytest.mark.parametrize("family", ["mean-field", "aligned"])
@pytest.mark.parametrize("intercept", [True, False])
def test_a_warm_start_knows_the_old_logits_from_the_new_center(family, intercept, starts):
    model = VariationalLogisticRegression(
        family=family, fit_intercept=intercept, warm_start=True
    ).fit(IRIS[::2] + 5, SPECIES[::2])
    before, old = model.center_, model.posterior_
    weight = np.linspace(0, 3, 150)
    model.fit(IRIS + 5, SPECIES, weight)
    assert intercept == (np.abs(model.center_ - before).max() > 0.3)
    ones = np.ones((150, int(intercept)))
    was, _ = old.logit_moments(np.column_stack([IRIS + 5 - before, ones]))
    now, _ = starts[1].logit_moments(np.column_stack([IRIS + 5 - model.center_, ones]))
    np.testing.assert_allclose(now, was, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "X", "labels"),
    [
        ({}, IRIS[:, :3], SPECIES),
        ({}, IRIS, np.char.upper(SPECIES)),
        ({}, IRIS, np.arange(150) % 3),
        ({}, IRIS, SPECIES == "setosa"),
        ({"family": "mean-field"}, IRIS, SPECIES),
        ({"fit_intercept": False}, IRIS, SPECIES),
        ({"prior_precision": 3.5}, IRIS, SPECIES),
        ({"prior_precision": 1 / 3.5}, IRIS, SPECIES),
        ({"prior_precision": [1.0, 1.0, 10.0, 1.0]}, IRIS, SPECIES),
    ],
)
def test_what_is_no_longer_alike_starts_anew(options, X, labels, starts):
    model = VariationalLogisticRegression(warm_start=True).fit(IRIS, SPECIES)
    model.set_params(**options).fit(X, labels)
    again = VariationalLogisticRegression(warm_start=True, **options).fit(X, labels)
    assert starts == [None] * 3
    np.testing.assert_array_equal(model.coef_, again.coef_)
    model.set_params(prior_precision=np.multiply(2.5, model.prior_precision)).fit(X, labels)
    assert starts[3] is not None


def test_a_fit_that_failed_is_no_start():
    model = VariationalLogisticRegression(warm_start=True, prior_precision=[1.0, 1, 1, 1])
    model.fit(IRIS, SPECIES)
    model.set_params(prior_precision=[1.0, 1], tol=0)
    with pytest.raises(ValueError, match="tol must be positive"):
        model.fit(IRIS[:, :2], SPECIES)
    model.set_params(prior_precision=[1.0, 1, 1, 1], tol=1e-3)
    cold = VariationalLogisticRegression().fit(IRIS, SPECIES)
    assert model.fit(IRIS, SPECIES).elbo_ == pytest.approx(cold.elbo_, abs=1e-2)


def test_a_loaded_model_starts_where_the_saved_one_ended(tmp_path):
    VariationalLogisticRegression(warm_start=True).fit(IRIS, SPECIES).save(tmp_path / "model")
    model = VariationalLogisticRegression.load(tmp_path / "model")
    assert model.warm_start is True
    assert model.fit(IRIS, SPECIES).n_iter_ <= 5


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mean-field", "aligned"])
def test_a_warm_search_finds_the_same_precision(family, starts):
    model = VariationalLogisticRegression("evidence", family=family, warm_start=True)
    model.fit(TUMOURS, BENIGN)
    found = model.prior_precision_
    assert starts == [None] * len(starts)
    model.fit(TUMOURS, BENIGN)
    assert starts[-1] is not None
    assert model.prior_precision_ == pytest.approx(found, rel=2e-2)


# The precision by the evidence.


@pytest.mark.parametrize("family", ["mean-field", "aligned"])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_evidence_finds_the_best_precision(family, scale):
    """With two classes the aligned family's axes make no jumps, so that a parabola fits."""
    X = TUMOURS[:200] * scale
    model = VariationalLogisticRegression("evidence", family=family).fit(X, BENIGN[:200])
    steps = np.linspace(-0.2, 0.2, 5)
    elbos = [
        VariationalLogisticRegression(model.prior_precision_ * np.exp(s), family=family, tol=1e-7)
        .fit(X, BENIGN[:200])
        .elbo_
        for s in steps
    ]
    square, line, _ = np.polyfit(steps, elbos, 2)
    assert square < 0 and abs(line / (2 * square)) < 1e-2


def test_evidence_beats_a_grid():
    X, y, _ = simulate(np.random.default_rng(2), n=60)
    best = VariationalLogisticRegression("evidence").fit(X[:, :2], y)
    for precision in (0.1, 1.0, 10.0, 100.0):
        assert best.elbo_ > VariationalLogisticRegression(precision).fit(X[:, :2], y).elbo_


@pytest.mark.slow
def test_evidence_of_turning_axes_is_nearly_the_best():
    """With three classes the slope leaves the axes' turn out, which costs little."""
    found = VariationalLogisticRegression("evidence").fit(IRIS[::2], SPECIES[::2])
    for factor in (0.1, 0.3, 0.6, 1.6, 3, 10):
        near = VariationalLogisticRegression(found.prior_precision_ * factor)
        assert near.fit(IRIS[::2], SPECIES[::2]).elbo_ < found.elbo_ + 0.2


def test_evidence_ends_at_its_bounds():
    y = np.repeat([0, 1], 20)
    apart = np.r_[np.full(20, -1.0), np.full(20, 1.0)][:, None]
    model = VariationalLogisticRegression("evidence", fit_intercept=False).fit(apart, y)
    assert 1e-4 < model.prior_precision_ < 1  # classes apart do not suffice
    # Nothing to learn: the same inputs with both labels.
    same = np.tile(np.random.default_rng(0).standard_normal((20, 1)), (2, 1))
    with pytest.warns(ConvergenceWarning, match="tell little of y"):
        model = VariationalLogisticRegression("evidence").fit(same, y)
    assert model.prior_precision_ > 1e3 * same.var()
    constant = VariationalLogisticRegression("evidence").fit(np.ones((40, 1)), y)
    assert np.isfinite(constant.prior_precision_)


@pytest.mark.parametrize("squares", [[2.0, 2.0], [2.0, 0.0], [0.02, 0.02, 6.0]])
def test_the_search_finds_the_top_or_says_where_it_ended(squares):
    squares = np.array(squares)
    used = squares[squares > 0]
    low, high = np.sort([used.mean(), np.median(used)])
    found, rise = _by_evidence(lambda p, tol: (-1 / p, 1 / p), squares)
    assert found == pytest.approx(1e6 * high) and rise == pytest.approx(1e-6 / high)
    found, rise = _by_evidence(lambda p, tol: (-p, -p), squares)
    assert found == pytest.approx(1e-4 * low) and rise == pytest.approx(-1e-4 * low)
    for best in (5e3, 0.03, 2.0):
        found, rise = _by_evidence(
            lambda p, tol: (-(np.log(best / p) ** 2) / 2, np.log(best / p)),  # noqa: B023
            squares,
        )
        assert found == pytest.approx(best, rel=1e-2) and rise == 0


def test_the_search_takes_the_higher_of_two_tops():
    """Columns in two units: the slope alone leads from their mean to the lower top, at 1e4."""

    def evidence_at(precision, tol):
        x = np.log10(precision)
        tops = 10 * np.exp(-((x + 1) ** 2) / 2), 5 * np.exp(-((x - 4) ** 2) / 2)
        return sum(tops), -(tops[0] * (x + 1) + tops[1] * (x - 4)) / np.log(10)

    found, _ = _by_evidence(evidence_at, np.array([0.1, 0.1, 0.1, 1e5]))
    assert np.log10(found) == pytest.approx(-1, abs=0.02)


@pytest.mark.slow
def test_evidence_beats_other_precisions_on_columns_in_all_units():
    wine = datasets.load_wine()
    options = {"family": "mean-field", "tol": 0.1}
    best = VariationalLogisticRegression("evidence", **options).fit(wine.data, wine.target)
    for precision in (1.0, 31837.0, 1e5):
        other = VariationalLogisticRegression(precision, **options).fit(wine.data, wine.target)
        assert other.elbo_ < best.elbo_ + 0.2


@pytest.mark.parametrize("family", ["mean-field", "aligned"])
def test_the_evidence_needs_some_ten_fits(family, monkeypatch):
    fits = []

    def counted(*args, **options):
        fits.append(options["tol"])
        return optimum(*args, **options)

    monkeypatch.setattr("vilogit.estimator.optimum", counted)
    VariationalLogisticRegression("evidence", family=family).fit(TUMOURS, BENIGN)
    assert len(fits) <= 10
    del fits[:]
    units = 10.0 ** np.array([2, 0, 0, 0, 0])
    VariationalLogisticRegression("evidence", family=family).fit(TUMOURS * units, BENIGN)
    assert len(fits) <= 15 and fits[:4] == [0.1] * 4


def test_the_search_looks_at_few_places_however_wide_the_units():
    seen = []

    def evidence_at(precision, tol):
        seen.append(tol)
        return -(np.log(precision) ** 2) / 2, -np.log(precision)

    found, _ = _by_evidence(evidence_at, np.array([1e-250, 1e-250, 1e-320, 1e150]))
    assert seen.count(0.1) == 8
    assert found == pytest.approx(1, rel=1e-2)
    tiny = VariationalLogisticRegression("evidence", fit_intercept=False)
    with pytest.raises(ValueError, match=r"X varies by 1e-160, whose square is too small"):
        tiny.fit(np.array([[1e-160], [0.0]]), [0, 1])


@pytest.mark.slow
def test_a_search_that_ends_at_its_end_warns():
    y = np.repeat([0, 1], 20)
    same = np.tile(np.random.default_rng(0).standard_normal((20, 1)), (2, 1))
    with pytest.warns(ConvergenceWarning, match=r"ended at [0-9.e+]+, .* tell little of y") as seen:
        model = VariationalLogisticRegression("evidence").fit(same, y)
    assert len(seen) == 1 and f"{model.prior_precision_:.3g}" in str(seen[0].message)
    assert f"{model.elbo_:.6g}" in str(seen[0].message)
    with pytest.warns(ConvergenceWarning, match="classes are far apart"):
        VariationalLogisticRegression("evidence").fit([[-1.0], [1.0]], [0, 1], 1e6)


# Where a column has its zero.


def test_a_slope_over_years_is_that_of_the_years():
    """The prior of an intercept at year 0 would shrink it to a seventh."""
    rng = np.random.default_rng(0)
    years = np.repeat(np.arange(1990.0, 2024.0), 20)[:, None]
    y = rng.random(len(years)) < 1 / (1 + np.exp(-0.4 * (years[:, 0] - 2006)))
    for precision in (1.0, "evidence"):
        model = VariationalLogisticRegression(precision).fit(years, y)
        # Three standard deviations.
        assert abs(model.coef_[0, 0] - 0.4) < 3 * model.coef_scale_[0, 0] < 0.12
        assert abs(-model.intercept_[0] / model.coef_[0, 0] - 2006) < 1
        # In the origin of the years an intercept is as uncertain as the slope makes it.
        assert model.intercept_scale_ == pytest.approx(2006 * model.coef_scale_[0, 0], rel=0.02)
        coef, intercept = model.sample_coef(4000, rng)
        np.testing.assert_allclose(coef.std(axis=0), model.coef_scale_, rtol=0.05)
        np.testing.assert_allclose(intercept.std(axis=0), model.intercept_scale_, rtol=0.05)
        at_2006 = (2006 * coef[:, :, 0] + intercept).std()
        assert at_2006 < 1e-2 * model.intercept_scale_[0]


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2),
    st.sampled_from(["mean-field", "aligned"]),
    st.integers(2, 3),
)
def test_no_prediction_depends_on_where_columns_have_their_zero(seed, shift, family, n_classes):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((30, 2)), np.arange(30) % n_classes
    X[y == 1, 0] += 1
    weight = rng.integers(1, 4, 30)
    options = {"family": family, "tol": 1e-8}
    here = VariationalLogisticRegression(**options).fit(X, y, weight)
    there = VariationalLogisticRegression(**options).fit(X + shift, y, weight)
    np.testing.assert_allclose(there.center_ - here.center_, shift, atol=4e-10)
    # Means that are proven within a gap differ by its root at most, the prior being of precision
    # one; columns that are moved lose the digits that their numbers have no place for.
    far = np.abs(X - here.center_).sum(axis=1).max() + 10  # a bias is as free as its prior
    apart = far * (np.sqrt(2 * here.gap_) + np.sqrt(2 * there.gap_))
    lost = 8 * np.finfo(float).eps * np.max(np.abs(shift)) * (1 + np.abs(here.coef_).sum())
    assert apart + lost < 0.02
    moved, stayed = there.predict_proba(X + shift), here.predict_proba(X)
    np.testing.assert_allclose(moved, stayed, rtol=0, atol=apart + lost)
    np.testing.assert_allclose(there.coef_, here.coef_, rtol=0, atol=apart + lost)
    at_center = there.coef_ @ there.center_ + there.intercept_
    assert np.abs(at_center - here.coef_ @ here.center_ - here.intercept_).max() < apart + 1e-8


def test_without_an_intercept_the_origin_is_the_users():
    model = VariationalLogisticRegression(fit_intercept=False).fit(IRIS + 2, SPECIES)
    np.testing.assert_array_equal(model.center_, np.zeros(4))
    np.testing.assert_array_equal(model.intercept_, np.zeros(3))
    np.testing.assert_array_equal(model.predict_proba(np.zeros((1, 4))), np.full((1, 3), 1 / 3))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("precision", [1e8, "evidence"])
def test_a_column_of_times_tells_its_classes(dtype, precision):
    times = (1.7e9 + 3600 * np.arange(90.0))[:, None].astype(dtype)
    y = np.repeat(["a", "b", "c"], 30)
    model = VariationalLogisticRegression(precision).fit(times, y)
    assert model.center_.dtype == np.float64
    assert model.score(times, y) > 0.95
    np.testing.assert_allclose(model.center_, times.astype(np.float64).mean(axis=0), rtol=1e-15)


def test_the_center_is_the_weighted_mean_of_rows_that_count():
    weight = np.random.default_rng(0).integers(0, 3, 150)
    model = VariationalLogisticRegression().fit(IRIS + 5, SPECIES, weight)
    center = np.average(IRIS + 5, axis=0, weights=weight)
    np.testing.assert_allclose(model.center_, center, rtol=1e-14)
    X = np.column_stack([IRIS + 5 - center, np.ones(150)])
    np.testing.assert_allclose(model.posterior_.predict_proba(X), model.predict_proba(IRIS + 5))
    total = model.uncertainty(IRIS + 5)[0]
    np.testing.assert_allclose(total, model.posterior_.uncertainty(X)[0], atol=1e-12)
    logits = (IRIS + 5) @ model.coef_.T + model.intercept_
    mean, _ = model.posterior_.logit_moments(X)
    expected = mean - mean.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(logits, expected, atol=1e-10)


def test_the_order_of_rows_does_not_show():
    order = np.random.default_rng(0).permutation(150)
    X = IRIS + 1e6
    one = VariationalLogisticRegression(tol=1e-6).fit(X, SPECIES)
    other = VariationalLogisticRegression(tol=1e-6).fit(X[order], SPECIES[order])
    np.testing.assert_allclose(one.center_, other.center_, rtol=1e-15)
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-6)


@pytest.mark.slow
def test_a_constant_column_tells_nothing():
    for value in (0.1, 1e9):
        X = np.column_stack([TUMOURS[:100], np.full(100, value)])
        model = VariationalLogisticRegression("evidence").fit(X, BENIGN[:100])
        alone = VariationalLogisticRegression("evidence").fit(X[:, :-1], BENIGN[:100])
        assert model.center_[-1] == value
        np.testing.assert_allclose(model.coef_[:, -1], 0, atol=1e-12)
        np.testing.assert_allclose(model.prior_precision_, alone.prior_precision_, rtol=0.02)
        np.testing.assert_allclose(
            model.predict_proba(X), alone.predict_proba(X[:, :-1]), atol=1e-2
        )


# What the data determine.


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_scales_are_those_of_the_data_not_of_the_prior(n_classes):
    """Of noise, each row tells of centred weights what it would of (D - 1) numbers."""
    n = 6000
    X = np.random.default_rng(0).standard_normal((n, 2))
    model = VariationalLogisticRegression().fit(X, np.arange(n) % n_classes)
    expected = np.sqrt((n_classes - 1) / n) if n_classes > 2 else 2 / np.sqrt(n)
    np.testing.assert_allclose(model.coef_scale_, expected, rtol=0.05)
    np.testing.assert_allclose(model.intercept_scale_, expected, rtol=0.05)
    assert np.abs(model.coef_ / model.coef_scale_).max() < 4
    if n_classes > 2:
        coef, intercept = model.sample_coef(100, np.random.default_rng(1))
        for centred in (model.coef_, model.intercept_, coef.swapaxes(0, 1), intercept.T):
            np.testing.assert_allclose(centred.sum(axis=0), 0, atol=1e-12)


# Widths of the posterior, not of q.


@pytest.mark.parametrize("labels", [SPECIES, SPECIES == "setosa"])
def test_scales_of_coefficients_are_those_of_weighted_draws(labels):
    X = IRIS + np.array([0, 5, 0, -3])
    model = VariationalLogisticRegression().fit(X, labels)
    assert model.coef_scale_method_ == "linear response"
    exact = model.exact(X, labels, 20_000, np.random.default_rng(0))
    factor = 1 if len(model.classes_) > 2 else 2
    scale = factor * exact.scale.T[-len(model.coef_) :]
    np.testing.assert_allclose(model.coef_scale_, scale[:, :-1], rtol=0.05)
    np.testing.assert_allclose(model.intercept_scale_, scale[:, -1], rtol=0.05)
    ends = np.array(exact.interval(0.8))[:, :, -len(model.coef_) :].swapaxes(1, 2)
    ours = np.array(model.coef_interval(0.8))
    assert (np.abs(ours - factor * ends[..., :-1]) < 0.25 * model.coef_scale_).all()
    probs = exact.predict_proba(np.column_stack([X, np.ones(150)]))
    assert np.abs(probs - model.predict_proba(X)).mean() < 5e-3


@pytest.mark.parametrize(
    ("options", "most"), [({"linear_response": False}, 8), ({"family": "mean-field"}, 8), ({}, 7)]
)
def test_without_the_response_scales_are_those_of_q(options, most, monkeypatch):
    monkeypatch.setattr("vilogit.estimator._RESPONSE", most)
    model = VariationalLogisticRegression(**options, fit_intercept=False).fit(IRIS, SPECIES)
    assert model.coef_scale_method_ == "q" and model.response_ is None
    np.testing.assert_array_equal(model.coef_scale_, model.posterior_.centred()[1].T)


def test_the_response_that_was_computed_is_the_posteriors():
    weight = np.random.default_rng(0).uniform(0, 2, 150)
    model = VariationalLogisticRegression().fit(IRIS, SPECIES, weight)
    inputs = np.column_stack([IRIS - model.center_, np.ones(150)])
    response = model.posterior_.response(inputs, sample_weight=weight)
    np.testing.assert_allclose(model.coef_scale_, response.scale[:-1].T, rtol=1e-9)
    np.testing.assert_allclose(model.coef_, response.mean[:-1].T, atol=1e-9)
    x = np.append(-model.center_, 1.0)
    np.testing.assert_allclose(model.intercept_scale_, response.moments(x[None])[1][0], rtol=1e-9)
    low, high = model.coef_interval(0.9)
    np.testing.assert_allclose((low + high) / 2, model.coef_, atol=1e-9)
    half = scipy.stats.norm.ppf(0.95) * model.coef_scale_
    np.testing.assert_allclose(high - low, 2 * half, rtol=1e-9)
    table = np.asarray(model.summary(level=0.9), float)
    np.testing.assert_allclose(table[:-3, 1], model.coef_scale_.T.ravel(), rtol=1e-9)
    np.testing.assert_allclose(table[:-3, 2], low.T.ravel(), atol=1e-9)


def test_exact_draws_refuse_what_is_not_the_fits():
    rng = np.random.default_rng(0)
    model = VariationalLogisticRegression().fit(IRIS, SPECIES)
    with pytest.raises(ValueError, match=r"y\[0\] is 'oak'; expected one of classes_"):
        model.exact(IRIS, np.where(SPECIES == "setosa", "oak", SPECIES), 200, rng)
    with pytest.raises(ValueError, match="y has 149 labels, but X has 150 rows"):
        model.exact(IRIS, SPECIES[1:], 200, rng)
    with pytest.raises(ValueError, match="n must be at least 100, not 99"):
        model.exact(IRIS, SPECIES, 99, rng)
    plain = VariationalLogisticRegression(family="mean-field").fit(IRIS, SPECIES)
    with pytest.raises(ValueError, match="exact needs family=\"aligned\", not 'mean-field'"):
        plain.exact(IRIS, SPECIES, 200, rng)
    with pytest.raises(ValueError, match="level must be below 1, not 2"):
        model.coef_interval(2)


def test_rows_of_large_weight_get_finer_averages():
    """Three blobs, one class a thousand times as heavy: ten million times the others."""
    X, y = datasets.make_blobs(centers=3, random_state=0, cluster_std=20)
    heavy = {0: 1000, 1: 1e-4, 2: 1e-4}
    for family, most in (("aligned", 40), ("mean-field", 25)):
        model = VariationalLogisticRegression(class_weight=heavy, family=family).fit(X, y)
        assert model.gap_ <= 1e-3 and model.n_iter_ <= most


# Warnings.


def test_the_classifiers_warning_points_at_the_caller():
    model = VariationalLogisticRegression(max_evaluations=3)
    for fitted in (model, make_pipeline(StandardScaler(), model)):
        with pytest.warns(Warning) as seen:
            fitted.fit(IRIS, SPECIES)
        assert seen[0].filename == __file__


def test_one_warning_that_both_filters_catch():
    model = VariationalLogisticRegression("evidence", max_evaluations=3)
    for fitted in (model, make_pipeline(StandardScaler(), model)):
        with pytest.warns(Warning) as seen:
            fitted.fit(IRIS, SPECIES)
        assert len(seen) == 1
        for kind in (ConvergenceWarning, sklearn.exceptions.ConvergenceWarning):
            assert issubclass(seen[0].category, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        model.fit(IRIS, SPECIES)


def test_fits_in_threads_leave_the_filters_as_they_were():
    def one():
        for _ in range(3):
            VariationalLogisticRegression(tol=0.1).fit(IRIS[::3], SPECIES[::3])

    before = list(warnings.filters)
    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after, warnings.filters[:] = list(warnings.filters), before
    assert after == before


# Inputs, labels and weights as users have them.


def as_sparse(X):
    return scipy.sparse.csr_matrix(X), scipy.sparse.coo_array(X), scipy.sparse.csc_matrix(X)


def test_sparse_inputs_are_as_good_as_dense_ones():
    rng = np.random.default_rng(0)
    X = rng.poisson(0.3, (80, 6)).astype(float)
    y = X[:, 0] + rng.poisson(0.3, 80) > 0.5
    dense = VariationalLogisticRegression("evidence").fit(X, y)
    for sparse in as_sparse(X):
        model = VariationalLogisticRegression("evidence").fit(sparse, y)
        np.testing.assert_array_equal(model.center_, dense.center_)
        np.testing.assert_array_equal(model.coef_, dense.coef_)
        np.testing.assert_array_equal(model.predict_proba(sparse), dense.predict_proba(X))
        np.testing.assert_array_equal(dense.uncertainty(sparse), dense.uncertainty(X))


def test_sparse_inputs_that_no_memory_holds_are_refused(monkeypatch):
    X = scipy.sparse.coo_array(([1.0, 2.0], ([0, 2**30], [0, 2**30])))
    with pytest.raises(MemoryError, match=r"X is sparse, of shape \(1073741825, 1073741825\)"):
        vilogit.estimator._dense(X)
    monkeypatch.setattr("vilogit.estimator._memory", lambda: 2.0 * 150 * 4 * 8 - 1)
    with pytest.raises(MemoryError, match="TruncatedSVD"):
        VariationalLogisticRegression().fit(scipy.sparse.csr_matrix(IRIS), SPECIES)
    monkeypatch.setattr("vilogit.estimator._memory", lambda: 2.0 * 150 * 4 * 8)
    VariationalLogisticRegression().fit(scipy.sparse.csr_matrix(IRIS), SPECIES)


def test_the_memory_is_unknown_where_the_system_does_not_tell(monkeypatch):
    assert vilogit.estimator._memory() > 2**20
    monkeypatch.delattr("os.sysconf", raising=False)
    assert vilogit.estimator._memory() == np.inf


@pytest.mark.parametrize("ask", ["predict", "predict_proba", "uncertainty"])
def test_inputs_too_far_away_are_named(ask):
    model = VariationalLogisticRegression(1e-12).fit(IRIS * 1e-6, SPECIES)
    with pytest.raises(ValueError, match=r"X holds 1e\+200, whose square is too large for float64"):
        getattr(model, ask)([[0, 1e200, 0, 0]])
    with pytest.raises(ValueError, match=r"X / sqrt\(prior_precision\) reaches 1e\+153"):
        getattr(model, ask)([[0, 0, -1e147, 0]])
    far = getattr(model, ask)(np.array([[1e30, 0, 0, 0]], np.float32))
    assert np.asarray(far).dtype.kind == "U" or np.isfinite(far).all()


def test_a_number_as_sample_weight_is_that_of_every_row():
    for number in (2, 0.5, np.float32(3)):
        one = VariationalLogisticRegression().fit(IRIS, SPECIES, number)
        each = VariationalLogisticRegression().fit(IRIS, SPECIES, np.full(150, float(number)))
        np.testing.assert_array_equal(one.coef_, each.coef_)
    for bad, error in ((0, ValueError), (-1.0, ValueError), (np.nan, ValueError), ("1", TypeError)):
        with pytest.raises(error, match="sample_weight"):
            VariationalLogisticRegression().fit(IRIS, SPECIES, bad)


def test_frames_of_numbers_of_any_type_work_and_other_columns_are_named():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(IRIS.round(1), columns=list("abcd"))
    mixed = frame.astype({"a": "Float64", "b": "float32", "d": object})
    mixed["c"] = pandas.Series(np.arange(150) % 7, dtype="Int64")
    mixed["e"] = pandas.Series(np.arange(150) % 2 == 0, dtype="boolean")
    plain = np.column_stack([IRIS[:, :2].round(1), np.arange(150) % 7, IRIS[:, 3].round(1)])
    plain = np.column_stack([plain, np.arange(150) % 2 == 0])
    model = VariationalLogisticRegression().fit(mixed, SPECIES)
    alike = VariationalLogisticRegression().fit(plain, SPECIES)
    np.testing.assert_allclose(model.coef_, alike.coef_, atol=1e-4)  # b is rounded to float32
    mixed.loc[3, "c"] = pandas.NA
    with pytest.raises(ValueError, match="X contains NaN"):
        VariationalLogisticRegression().fit(mixed, SPECIES)
    for wrong in (
        pandas.Series(["u", "v"] * 75),
        pandas.Series(["u", "v"] * 75, dtype="category"),
        pandas.Series(pandas.date_range("2020", periods=150)),
        pandas.Series([1j] * 150),
    ):
        frame["c"] = wrong
        with pytest.raises(TypeError, match=r"X holds columns that are no numbers: 'c' \(\w+"):
            VariationalLogisticRegression().fit(frame, SPECIES)
        with pytest.raises(TypeError, match="expected real numbers alone"):
            model.predict(frame)


def test_labels_of_any_one_type():
    pandas = pytest.importorskip("pandas")
    many, two = np.arange(150) % 3, np.arange(150) % 2 == 0
    for labels, classes in (
        (many, [0, 1, 2]),
        (many.astype(object), [0, 1, 2]),
        (pandas.Series(many, dtype="Int64", index=range(7, 157)), [0, 1, 2]),
        (pandas.Categorical(many), [0, 1, 2]),
        (pandas.Series(many.astype(str), dtype="category"), ["0", "1", "2"]),
        (pandas.Series(many.astype(str), dtype="string"), ["0", "1", "2"]),
        (many.astype(str).tolist(), ["0", "1", "2"]),
        (two, [False, True]),
        (two.astype(object), [False, True]),
        (two.tolist(), [False, True]),
        (pandas.Series(two, dtype="boolean"), [False, True]),
    ):
        model = VariationalLogisticRegression().fit(IRIS, labels)
        assert model.classes_.tolist() == classes
        assert [type(label) for label in model.classes_.tolist()] == [type(classes[0])] * len(
            classes
        )
        assert set(model.predict(IRIS).tolist()) <= set(classes)


@pytest.mark.parametrize("as_array", [list, lambda y: np.array(y, object)])
def test_labels_of_several_types_are_refused(as_array):
    for labels, types in ((["a", 1], "int and str"), (["a", None], "NoneType and str")):
        with pytest.raises(TypeError, match=f"y holds labels of type {types}; expected"):
            VariationalLogisticRegression().fit(IRIS, as_array(labels * 75))


def test_series_count_by_place_not_by_index():
    pandas = pytest.importorskip("pandas")
    weight, index = np.arange(1.0, 151.0), np.arange(150)[::-1]
    frame = pandas.DataFrame(IRIS)
    frame.columns = list("abcd")
    model = VariationalLogisticRegression().fit(
        frame, pandas.Series(SPECIES, index=index), pandas.Series(weight, index=index)
    )
    alike = VariationalLogisticRegression().fit(IRIS, SPECIES, weight)
    np.testing.assert_array_equal(model.coef_, alike.coef_)


def test_a_class_that_a_fold_lacks_has_no_weight_of_its_own():
    weight = (SPECIES != "setosa") * 1.0
    model = VariationalLogisticRegression(class_weight="balanced").fit(IRIS, SPECIES, weight)
    assert len(model.classes_) == 3 and model.predict_proba(IRIS)[100:, 0].max() < 0.1
    weight = (SPECIES == "setosa") * 1.0
    for balance in ("balanced", {"setosa": 2.0}):
        model = VariationalLogisticRegression(class_weight=balance).fit(IRIS, SPECIES, weight)
        assert (model.predict(IRIS[:50]) == "setosa").all()


def test_masked_values_are_refused():
    masked = np.ma.masked_greater(IRIS, 1)
    with pytest.raises(ValueError, match="X holds masked values"):
        VariationalLogisticRegression().fit(masked, SPECIES)
    with pytest.raises(ValueError, match="sample_weight holds masked values"):
        VariationalLogisticRegression().fit(IRIS, SPECIES, np.ma.masked_greater(np.arange(150), 9))
    with pytest.raises(ValueError, match="X holds masked values"):
        VariationalLogisticRegression().fit(IRIS, SPECIES).predict(masked)
    VariationalLogisticRegression().fit(np.ma.array(IRIS), SPECIES)


# Tables and files.


@pytest.mark.parametrize("intercept", [True, False])
def test_the_summary_tabulates_the_attributes_under_their_names(intercept):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(IRIS + 3, columns=list("abcd"))
    names = [*"abcd", "intercept"] if intercept else list("abcd")
    model = VariationalLogisticRegression(fit_intercept=intercept).fit(frame, SPECIES)
    table = model.summary(level=0.5)
    pairs = [(name, label) for name in names for label in sorted(set(SPECIES))]
    assert table.index.tolist() == pairs
    for column, coef, at_zero in (
        ("mean", model.coef_, model.intercept_),
        ("sd", model.coef_scale_, model.intercept_scale_),
    ):
        expected = np.vstack([coef.T, [at_zero] * intercept]) if intercept else coef.T
        np.testing.assert_allclose(table[column], expected.ravel(), rtol=1e-10)
    quartile = 0.6744897501960817  # of the standard normal
    np.testing.assert_allclose(table.iloc[:, 3] - table["mean"], quartile * table["sd"])
    two = VariationalLogisticRegression(fit_intercept=intercept).fit(IRIS, SPECIES == "setosa")
    table = two.summary()
    assert [name for name, _ in table.index] == [f"x{m}" for m in range(4)] + names[4:]
    np.testing.assert_allclose(table["mean"][:4], two.coef_[0], rtol=1e-10)
    np.testing.assert_allclose(table["sd"][:4], two.coef_scale_[0], rtol=1e-10)


@pytest.mark.parametrize("labels", [SPECIES, SPECIES == "setosa"])
def test_draws_for_arviz_are_named(labels):
    pytest.importorskip("arviz_base")
    pandas = pytest.importorskip("pandas")
    model = VariationalLogisticRegression().fit(pandas.DataFrame(IRIS, columns=[*"abcd"]), labels)
    draws = model.to_arviz(7, np.random.default_rng(0))["posterior"]
    coef, intercept = model.sample_coef(7, np.random.default_rng(0))
    np.testing.assert_array_equal(draws["coef"], coef[None])
    np.testing.assert_array_equal(draws["intercept"], intercept[None])
    assert draws["coef"].dims == ("chain", "draw", "class", "feature")
    assert draws["intercept"].dims == ("chain", "draw", "class")
    assert draws["feature"].values.tolist() == [*"abcd"]
    known = model.classes_.tolist()
    assert draws["class"].values.tolist() == (known if len(known) > 2 else known[1:])


def test_arviz_is_named_where_it_is_not_there(monkeypatch):
    model = VariationalLogisticRegression().fit(IRIS, SPECIES)
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with pytest.raises(ImportError, match=r'pip install "vilogit\[arviz\]"'):
        model.to_arviz(2, np.random.default_rng(0))


def kinds_of_labels():
    many = np.arange(150) % 3
    return many, many - 0.0, many == 1, SPECIES, SPECIES.astype(object), many.astype("M8[D]")


@pytest.mark.parametrize("labels", kinds_of_labels(), ids=lambda labels: str(labels.dtype))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prior_precision": [1.0, 2.0, 3.0, 4.0], "family": "mean-field", "fit_intercept": False},
        {"prior_precision": 3, "class_weight": "balanced", "tol": 0.1, "progress": False},
        {"warm_start": True},
    ],
)
def test_what_was_saved_comes_back(labels, options, tmp_path):
    model = VariationalLogisticRegression(**options).fit(IRIS + 1, labels)
    model.save(tmp_path / "model.npz")
    back = VariationalLogisticRegression.load(tmp_path / "model.npz")
    assert repr(back.get_params()) == repr(
        model.get_params()
        | {
            name: np.array(value)
            for name, value in model.get_params().items()
            if isinstance(value, list)
        }
    )
    for name, value in vars(model).items():
        if name.endswith("_") and name not in ("posterior_", "response_"):
            np.testing.assert_array_equal(getattr(back, name), value)
    if model.response_ is None:
        assert back.response_ is None
    else:
        np.testing.assert_array_equal(back.response_.inner, model.response_.inner)
    np.testing.assert_array_equal(back.predict_proba(IRIS), model.predict_proba(IRIS))
    np.testing.assert_array_equal(back.predict(IRIS), model.predict(IRIS))
    assert (
        back.classes_.dtype
        == model.classes_.astype(str if labels.dtype == object else labels.dtype).dtype
    )
    ours, theirs = (one.sample_coef(2, np.random.default_rng(0)) for one in (back, model))
    np.testing.assert_array_equal(ours[0], theirs[0])


@pytest.mark.slow
def test_names_and_weights_of_classes_are_saved(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(IRIS, columns=list("abcd"))
    each = {"setosa": 2.0, "versicolor": 0.5}
    model = VariationalLogisticRegression("evidence", family="mean-field", class_weight=each)
    model.set_params(tol=0.1).fit(frame, SPECIES).save(str(tmp_path / "model"))
    back = VariationalLogisticRegression.load(str(tmp_path / "model"))
    assert repr(back) == repr(model) and back.prior_precision_ == model.prior_precision_
    assert back.feature_names_in_.dtype == object and list(back.feature_names_in_) == [*"abcd"]
    np.testing.assert_array_equal(back.predict_proba(frame), model.predict_proba(frame))
    with pytest.raises(ValueError, match="feature names should match"):
        back.predict(frame[list("dcba")])
    numbered = VariationalLogisticRegression(class_weight={0: 1.0, 1: 2.0, 2: 1.0})
    numbered.fit(IRIS, np.arange(150) % 3).save(tmp_path / "model")
    assert VariationalLogisticRegression.load(tmp_path / "model").class_weight == {
        0: 1.0, 1: 2.0, 2: 1.0,
    }  # fmt: skip


def test_what_is_no_classifier_is_refused(tmp_path):
    with pytest.raises(NotFittedError):
        VariationalLogisticRegression().save(tmp_path / "model")
    model = VariationalLogisticRegression().fit(IRIS, SPECIES)
    model.posterior_.save(tmp_path / "posterior")
    with pytest.raises(ValueError, match="which is no classifier's"):
        VariationalLogisticRegression.load(tmp_path / "posterior")
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="which is no family's"):
        vilogit.load(tmp_path / "model")
    for spoilt, message in (
        ({"classes_": np.array(["a", "b"])}, r"classes_ has shape \(2,\)"),
        ({"center_": np.zeros(3)}, r"center_ has shape \(3,\); expected \(4,\)"),
        ({"center_": np.array([0, 0, np.nan, 0])}, "center_ must be finite"),
        ({"prior_precision_": np.array(-1.0)}, "prior_precision must be positive"),
        ({"feature_names_in_": np.array(["a"])}, "feature_names_in_ has 1 names; expected 4"),
        ({"posterior_": np.zeros(9, np.uint8)}, "not a posterior"),
        ({"posteriors": np.zeros(9)}, "unexpected keyword"),
    ):
        with np.load(tmp_path / "model") as file:
            np.savez(tmp_path / "spoilt.npz", **{**file, **spoilt})
        with pytest.raises(ValueError, match=message):
            VariationalLogisticRegression.load(tmp_path / "spoilt.npz")
    model.classes_ = np.array([None, 1, "a"], object)
    with pytest.raises(TypeError, match="classes_ holds values of type NoneType and int and str"):
        model.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


# What the classifier needs, and what it shows.


def test_progress_is_shown(capsys):
    pytest.importorskip("tqdm")
    model = VariationalLogisticRegression(progress=True).fit(IRIS, SPECIES)
    shown = capsys.readouterr().err
    assert f"{model.n_iter_} evaluations" in shown and "nats" in shown
    VariationalLogisticRegression().fit(IRIS, SPECIES)
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_without_scikit_learn_the_extra_is_named():
    script = (
        "import sys; sys.modules['sklearn'] = sys.modules['scipy'] = None\n"
        "import vilogit\n"
        "vilogit.fit([[1.0], [2.0]], [0, 1])\n"
        "try:\n    vilogit.VariationalLogisticRegression\n"
        "except ImportError as error:\n    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert 'pip install "vilogit[sklearn]"' in result.stdout


def test_the_error_names_the_extra_here_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "vilogit.estimator")
    with pytest.raises(ImportError, match=r'pip install "vilogit\[sklearn\]"'):
        vilogit.VariationalLogisticRegression  # noqa: B018
