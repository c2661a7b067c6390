import pickle
import subprocess
import sys

import numpy as np
import pytest
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

IRIS = StandardScaler().fit_transform(datasets.load_iris().data)
SPECIES = datasets.load_iris().target_names[datasets.load_iris().target]
TUMOURS = StandardScaler().fit_transform(datasets.load_breast_cancer().data[:, :5])
BENIGN = datasets.load_breast_cancer().target


@pytest.mark.slow
@parametrize_with_checks(
    [
        VariationalLogisticRegression(),
        VariationalLogisticRegression(family="mean-field", class_weight="balanced"),
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
    np.testing.assert_allclose(model.coef_, posterior.mean[:-1].T, rtol=1e-3)
    np.testing.assert_allclose(model.intercept_, posterior.mean[-1], rtol=1e-3)
    np.testing.assert_allclose(model.coef_scale_, posterior.scale[:-1].T, rtol=1e-3)
    np.testing.assert_allclose(model.predict_proba(IRIS), posterior.predict_proba(X), atol=1e-4)
    assert model.prior_precision_ == 2.0 and list(model.classes_) == sorted(set(SPECIES))
    for ours, theirs in zip(model.uncertainty(IRIS), posterior.uncertainty(X), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("family", ["aligned", "mean-field"])
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
    model = VariationalLogisticRegression().fit(IRIS, SPECIES)
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
    np.testing.assert_array_equal(model.predict_log_proba(IRIS), np.log(probs))
    if probs.shape[1] == 2:
        best = (scores > 0).astype(int)
        np.testing.assert_allclose(1 / (1 + np.exp(-scores)), probs[:, 1])
    else:
        best = scores.argmax(axis=1)
        np.testing.assert_allclose(np.exp(scores), probs)
    np.testing.assert_array_equal(model.classes_[best], model.predict(IRIS))
    assert model.score(IRIS, labels) == np.mean(model.predict(IRIS) == labels)


def test_far_away_scores_are_finite():
    model = VariationalLogisticRegression().fit(TUMOURS, BENIGN)
    for far in (1e3 * TUMOURS, 1e6 * TUMOURS):
        assert np.isfinite(model.predict_log_proba(far)).all()
        assert np.isfinite(model.decision_function(far)).all()
        assert (model.predict_proba(far) >= 0).all()


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


@pytest.mark.parametrize("family", ["mean-field", "aligned"])
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
    model = VariationalLogisticRegression("evidence").fit(same, y)
    assert model.prior_precision_ > 1e3 * same.var()
    constant = VariationalLogisticRegression("evidence").fit(np.ones((40, 1)), y)
    assert np.isfinite(constant.prior_precision_)
    assert _by_evidence(lambda p: 1 / p, 2.0) == pytest.approx(2e6)
    assert _by_evidence(lambda p: -p, 2.0) == pytest.approx(2e-4)
    for best in (5e3, 0.03, 2.0):
        found = _by_evidence(lambda p: np.log(best / p), 2.0)  # noqa: B023
        assert found == pytest.approx(best, rel=1e-2)


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
