import dataclasses
import subprocess
import sys
import tomllib
import tracemalloc
import warnings
from importlib import metadata
from pathlib import Path
from unittest import mock

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import directional_derivative

import vilogit
from vilogit import (
    ConvergenceWarning,
    MeanField,
    Posterior,
    elbo,
    elbo_and_gradient,
    expected_softmax,
    fit_sgd,
    kl_to_prior,
    one_hot,
    softmax,
    tables,
)
from vilogit.posterior import Record, State

ROOT = Path(__file__).parents[1]
SEEDS = st.integers(0, 2**32 - 1)


def problem(seed, n=6, m=2, d=3):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, m))
    Y = one_hot(rng.integers(d, size=n), d)
    q = MeanField(rng.standard_normal((m, d)), rng.standard_normal((m, d)))
    return rng, q, X, Y


def negative_f(q, eps, X, Y, precision):
    """ln p(Y | W) + ln p(W) - ln q(W) at W = mean + scale eps, each density by SciPy."""
    from scipy.stats import norm

    W = q.mean + np.log1p(np.exp(q.rho)) * eps
    sd = np.broadcast_to(1 / np.sqrt(precision), W.shape)
    return (
        np.sum(Y * np.log(softmax(X @ W)))
        + norm.logpdf(W, 0, sd).sum()
        - norm.logpdf(W, q.mean, np.log1p(np.exp(q.rho))).sum()
    )


def test_scale_is_the_softplus_of_rho():
    rho = np.array([[-800.0, -1, 0, 1, 800]])
    expected = [[0, np.log1p(np.exp(-1)), np.log(2), np.log1p(np.e), 800]]
    np.testing.assert_allclose(MeanField(rho, rho).scale, expected, rtol=1e-14)


@settings(max_examples=20)
@given(SEEDS)
def test_kl_agrees_with_quadrature(seed):
    _rng, q, _, _ = problem(seed)
    precision = np.array([0.5, 3.0])
    z, w = oracles.gaussian_rule(2001, 9)
    W = q.mean[..., None] + q.scale[..., None] * z
    log_q = -np.log(q.scale)[..., None] - z**2 / 2
    log_p = np.log(precision)[:, None, None] / 2 - precision[:, None, None] * W**2 / 2
    assert kl_to_prior(q, precision) == pytest.approx(np.sum((log_q - log_p) @ w), rel=1e-10)


def test_kl_is_zero_at_the_prior_and_finite_where_scales_underflow():
    prior = MeanField(np.zeros((2, 2)), np.full((2, 2), np.log(np.expm1(0.5))))
    assert kl_to_prior(prior, 4.0) == pytest.approx(0, abs=1e-14)
    # ln(scale) is rho itself once exp(rho) underflows.
    tiny = MeanField(np.zeros((1, 1)), np.full((1, 1), -1000.0))
    assert kl_to_prior(tiny, 1.0) == pytest.approx(1000 - 0.5)


@pytest.mark.slow
@settings(max_examples=10)
@given(SEEDS)
def test_elbo_agrees_with_tensor_quadrature(seed):
    rng, q, X, Y = problem(seed)
    q = MeanField(q.mean, q.rho - 1)  # narrow enough for the tensor rule's 41 nodes
    precision = rng.uniform(0.1, 4, 2)
    expected = oracles.elbo(q.mean, q.scale, X, Y, precision, n_nodes=41)
    assert elbo(q, X, Y, precision) == pytest.approx(expected, abs=1e-5)


@settings(max_examples=20)
@given(SEEDS)
def test_the_estimate_is_the_three_log_densities(seed):
    rng, q, X, Y = problem(seed)
    eps = rng.standard_normal((4, 2, 3))
    for precision in (np.array(0.7), np.array([0.4, 2.0])):
        column = np.broadcast_to(precision, 2)[:, None]
        each = [negative_f(q, e, X, Y, column) for e in eps]
        assert elbo_and_gradient(q, eps[0], X, Y, precision)[0] == pytest.approx(each[0])
        assert elbo_and_gradient(q, eps, X, Y, precision)[0] == pytest.approx(np.mean(each))


@given(SEEDS, st.sampled_from([(2, 3), (1, 2, 3), (5, 2, 3)]))
def test_the_gradient_is_the_derivative_of_the_estimate(seed, shape):
    rng, q, X, Y = problem(seed)
    eps, direction = rng.standard_normal(shape), rng.standard_normal((2, 2, 3))
    precision = rng.uniform(0.1, 4, 2)

    def value(parameters):
        return elbo_and_gradient(MeanField(*parameters), eps, X, Y, precision)[0]

    gradient = np.array(elbo_and_gradient(q, eps, X, Y, precision)[1])
    slope = directional_derivative(value, np.array(q), direction, step=1e-3)
    # Relative to the size of what is added up, which may cancel.
    size = np.abs(gradient * direction).sum()
    assert np.sum(gradient * direction) == pytest.approx(slope, abs=1e-6 * size)


@pytest.mark.slow
def test_the_estimate_is_unbiased():
    rng, q, X, Y = problem(5)
    draws = [elbo_and_gradient(q, rng.standard_normal((2, 3)), X, Y, 1.5) for _ in range(4000)]
    m, v = X @ q.mean, X**2 @ q.scale**2
    _, probs, spread = expected_softmax(m, v)
    exact_mean = X.T @ (Y - probs) - 1.5 * q.mean
    exact_scale = 1 / q.scale - 1.5 * q.scale - q.scale * ((X**2).T @ spread)
    exact = {
        "elbo": ([d[0] for d in draws], elbo(q, X, Y, 1.5)),
        "mean": ([d[1].mean for d in draws], exact_mean),
        "rho": ([d[1].rho for d in draws], exact_scale * (1 - np.exp(-q.scale))),
    }
    for name, (sample, expected) in exact.items():
        error = np.mean(sample, axis=0) - expected
        standard_error = np.std(sample, axis=0) / np.sqrt(len(sample))
        assert np.all(np.abs(error) < 4 * standard_error), name


def test_a_gradient_is_no_gaussian():
    """It has no scale to be taken for one, and the functions of a Gaussian refuse it."""
    rng, q, X, Y = problem(5)
    gradient = elbo_and_gradient(q, rng.standard_normal((2, 3)), X, Y)[1]
    assert not hasattr(gradient, "scale") and gradient._fields == ("mean", "rho")
    with pytest.raises(TypeError, match="q must be a MeanField, not Gradient"):
        kl_to_prior(gradient, 1.0)


def test_many_draws_average_their_single_estimates():
    rng, q, X, Y = problem(6)
    eps = rng.standard_normal((3, 2, 3))
    together = elbo_and_gradient(q, eps, X, Y)[1]
    single = [elbo_and_gradient(q, e, X, Y)[1] for e in eps]
    np.testing.assert_allclose(together.mean, np.mean([s.mean for s in single], axis=0))
    np.testing.assert_allclose(together.rho, np.mean([s.rho for s in single], axis=0))


def test_extreme_scales_keep_the_estimate_finite():
    _, q, X, Y = problem(7)
    for rho in (-2000.0, -50.0, 600.0):
        wide = MeanField(q.mean, np.full((2, 3), rho))
        value, gradient = elbo_and_gradient(wide, np.ones((2, 3)), X, Y)
        assert np.isfinite(value) and np.isfinite(gradient).all()
    tiny = MeanField(q.mean, np.full((2, 3), -2000.0))
    # d ln(scale) / d rho tends to one.
    np.testing.assert_allclose(elbo_and_gradient(tiny, np.zeros((2, 3)), X, Y)[1].rho, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_fit_reaches_the_optimum_of_the_toy_problem(toy, toy_optimum, seed):
    starts = []
    posterior = fit_sgd(
        toy.X, toy.y, rng=np.random.default_rng(seed), callback=lambda s: starts.append(s)
    )
    best, _mean, scale = toy_optimum
    assert best - 0.5 < posterior.elbo < best + 1e-4
    assert starts[0].step == 0 and starts[-1].step == 5000 and len(starts) == 5001
    assert starts[0].q.mean.std() > 0.4
    assert starts[-1].q is posterior.q
    np.testing.assert_allclose(posterior.scale, scale, rtol=0.3)


@pytest.fixture(scope="module")
def toy_optimum(toy):
    return oracles.optimum(toy.X, one_hot(toy.y, 3), n_nodes=17)


def test_fit_follows_the_update_with_normal_noise(toy):
    """Replays five steps from the same generator with finite differences of the estimate."""
    X, y = toy.X[:8], toy.y[:8]
    posterior = fit_sgd(X, y, rng=np.random.default_rng(3), steps=5, learning_rate=0.01,
                        n_classes=3, prior_precision=[1.0, 2.0, 0.5])  # fmt: skip
    rng = np.random.default_rng(3)
    theta = np.stack([rng.standard_normal((3, 3)), np.zeros((3, 3))])
    precision = np.array([[1.0], [2.0], [0.5]])
    rates = [0.01, 0.01, 0.01, 0.008, 0.004]
    for rate in rates:
        eps = rng.standard_normal((3, 3))
        slope = np.zeros_like(theta)
        for index in np.ndindex(theta.shape):
            unit = np.zeros_like(theta)
            unit[index] = 1
            slope[index] = directional_derivative(
                lambda t, eps=eps: negative_f(MeanField(*t), eps, X, one_hot(y, 3), precision),
                theta, unit, step=1e-3,
            )  # fmt: skip
        theta = theta + rate * slope
    np.testing.assert_allclose(posterior.mean, theta[0], rtol=1e-7)
    np.testing.assert_allclose(posterior.q.rho, theta[1], rtol=1e-7, atol=1e-9)
    assert len(posterior.trace) == 6
    assert posterior.trace[2].elbo != posterior.trace[3].elbo
    assert np.isnan(posterior.trace[0].gap)


def test_fit_climbs(toy):
    posterior = fit_sgd(toy.X, toy.y, rng=np.random.default_rng(0), steps=600)
    estimates = [record.elbo for record in posterior.trace]
    assert np.mean(estimates[-100:]) > np.mean(estimates[:20]) + 50


def test_fit_is_reproducible_and_leaves_its_input_alone(toy):
    X, y = toy.X.copy(), toy.y.copy()
    X.flags.writeable = y.flags.writeable = False
    first, second = (fit_sgd(X, y, rng=np.random.default_rng(4), steps=20) for _ in range(2))
    np.testing.assert_array_equal(first.mean, second.mean)
    assert first.elbo == second.elbo


def test_float32_inputs_and_absent_classes_fit(toy):
    posterior = fit_sgd(
        toy.X.astype(np.float32), toy.y, rng=np.random.default_rng(4), steps=300, n_classes=4
    )
    assert posterior.predict_proba(toy.X).shape == (60, 4)
    assert np.isfinite(posterior.elbo)


@pytest.mark.slow
def test_a_rate_that_is_too_high_warns(toy):
    with pytest.warns(ConvergenceWarning, match="not above its start at .*learning_rate below 5"):
        fit_sgd(1e3 * toy.X, toy.y, rng=np.random.default_rng(0), steps=20, learning_rate=5.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"X": np.ones((60, 3)) * np.nan}, ValueError, "X must be finite"),
        ({"X": np.ones((0, 3))}, ValueError, "at least one row"),
        ({"X": [["a"]]}, TypeError, "X must hold real numbers"),
        ({"y": [0, 1]}, ValueError, "y has 2 labels, but X has 60 rows"),
        ({"y": np.full(60, 0.5)}, ValueError, "y must hold integers"),
        ({"y": np.zeros(60, int)}, ValueError, "y holds only class 0"),
        ({"n_classes": 2}, ValueError, r"expected a label in 0..1"),
        ({"n_classes": 1}, ValueError, "n_classes must be at least 2"),
        ({"rng": 0}, TypeError, "rng must be a numpy.random.Generator"),
        ({"rng": None}, TypeError, "rng must be a numpy.random.Generator"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"steps": 1.5}, TypeError, "steps must be an integer"),
        ({"learning_rate": 0}, ValueError, "learning_rate must be positive"),
        ({"learning_rate": np.inf}, ValueError, "learning_rate must be finite"),
        ({"prior_precision": -1}, ValueError, "prior_precision must be positive"),
        ({"prior_precision": [1, 2]}, ValueError, r"prior_precision has shape \(2,\)"),
    ],
)
def test_fit_names_bad_arguments(toy, arguments, error, message):
    good = {"X": toy.X, "y": toy.y, "rng": np.random.default_rng(0), "steps": 3}
    with pytest.raises(error, match=message):
        fit_sgd(**{**good, **arguments})


def test_bad_states_are_named():
    _, q, X, Y = problem(0)
    eps = np.zeros((2, 3))
    with pytest.raises(TypeError, match="q must be a MeanField, not tuple"):
        elbo((q.mean, q.rho), X, Y)
    with pytest.raises(ValueError, match=r"q.rho has shape \(1, 3\); expected \(2, 3\)"):
        kl_to_prior(MeanField(q.mean, q.rho[:1]), 1.0)
    with pytest.raises(ValueError, match=r"X has shape \(6, 1\); expected \(N, 2\)"):
        elbo(q, X[:, :1], Y)
    with pytest.raises(ValueError, match=r"Y has shape \(6, 2\); expected \(6, 3\)"):
        elbo(q, X, Y[:, :2])
    with pytest.raises(ValueError, match=r"eps has shape \(3, 2\); expected \(\.\.\., 2, 3\)"):
        elbo_and_gradient(q, eps.T, X, Y)
    for bad in (np.zeros((0, 2, 3)), np.zeros((1, 1, 2, 3))):
        with pytest.raises(ValueError, match=r"expected \(M, D\) or \(S, M, D\)"):
            elbo_and_gradient(q, bad, X, Y)
    with pytest.raises(ValueError, match="eps must be finite"):
        elbo_and_gradient(q, np.full((2, 3), np.nan), X, Y)


@pytest.fixture
def posterior():
    _, q, _, _ = problem(8)
    return Posterior(q, elbo=-1.0)


def test_logit_moments_are_those_of_sampled_weights(posterior, rng):
    X = rng.standard_normal((4, 2))
    mean, var = posterior.logit_moments(X)
    logits = X @ posterior.sample(100_000, rng)
    np.testing.assert_allclose(logits.mean(axis=0), mean, atol=4 * np.sqrt(var.max() / 1e5))
    np.testing.assert_allclose(logits.var(axis=0), var, rtol=0.03)


def test_predictions_average_softmax_over_the_weights(posterior, rng):
    X = rng.standard_normal((4, 2))
    probs = softmax(X @ posterior.sample(100_000, rng))
    np.testing.assert_allclose(posterior.predict_proba(X), probs.mean(axis=0), atol=5e-3)
    np.testing.assert_array_equal(posterior.predict(X), probs.mean(axis=0).argmax(axis=1))


def test_uncertainty_splits_the_entropy(posterior, rng):
    X = 2 * rng.standard_normal((5, 2))
    total, aleatoric, epistemic = posterior.uncertainty(X)
    probs = softmax(X @ posterior.sample(100_000, rng))
    mean = probs.mean(axis=0)
    np.testing.assert_allclose(total, -(mean * np.log(mean)).sum(axis=1), atol=5e-3)
    average = -(probs * np.log(probs)).sum(axis=2).mean(axis=0)
    np.testing.assert_allclose(aleatoric, average, atol=5e-3)
    np.testing.assert_allclose(total, aleatoric + epistemic)
    assert (epistemic > 0).all()


def test_certain_weights_have_no_epistemic_uncertainty():
    q = MeanField(np.array([[3.0, 0, -3]]), np.full((1, 3), -60.0))
    total, _aleatoric, epistemic = Posterior(q, 0.0).uncertainty([[1.0], [1e3]])
    np.testing.assert_allclose(epistemic, 0, atol=1e-6)
    np.testing.assert_allclose(total[1], 0, atol=1e-6)


def test_far_away_the_noise_dies_and_the_ignorance_stays(posterior, rng):
    x = np.array([[1.0, 0.5]])
    far = [posterior.uncertainty(t * x) for t in (1e2, 1e3, 1e4, 1e6)]
    probs = softmax(1e2 * x @ posterior.sample(100_000, rng))
    entropy = -np.sum(probs * np.log(np.maximum(probs, 1e-300)), axis=2)
    np.testing.assert_allclose(far[0][1], entropy.mean(), atol=3e-3)
    # The share of weights whose two best classes are within a nat falls like one over distance.
    for near, farther, ratio in zip(far[1:], far[2:], (10, 100), strict=False):
        np.testing.assert_allclose(near[1], ratio * farther[1], rtol=0.05)
    np.testing.assert_allclose(far[-1][2], far[-1][0], atol=1e-4)


def test_samples_come_from_q(posterior, rng):
    W = posterior.sample(100_000, rng)
    np.testing.assert_allclose(W.mean(axis=0), posterior.mean, atol=0.03)
    np.testing.assert_allclose(W.std(axis=0), posterior.scale, rtol=0.02)
    assert posterior.sample(0, rng).shape == (0, 2, 3)


def test_posterior_is_immutable_and_names_bad_input(posterior, rng):
    with pytest.raises(dataclasses.FrozenInstanceError):
        posterior.elbo = 0.0
    with pytest.raises(ValueError, match=r"^X has shape \(4, 3\); expected \(N, 2\)$"):
        posterior.predict_proba(np.ones((4, 3)))
    with pytest.raises(ValueError, match="X must be finite"):
        posterior.uncertainty([[np.nan, 0]])
    with pytest.raises(ValueError, match="n must be at least 0"):
        posterior.sample(-1, rng)
    with pytest.raises(TypeError, match="rng must be"):
        posterior.sample(1, 0)


def test_equal_posteriors_hold_the_same_numbers():
    _, q, _, _ = problem(8)
    trace = (Record(-3.0, np.nan), Record(-1.0, np.nan))

    def make(q=q, elbo=-1.0, trace=trace, gap=np.nan):
        return Posterior(MeanField(q.mean.copy(), q.rho.copy()), elbo, trace, gap)

    assert make() == make() and hash(make()) == hash(make())
    assert len({make(), make(), make(elbo=np.nan), make(elbo=np.nan)}) == 2
    assert make(trace=list(trace)) == make()
    others = [
        make(q=MeanField(q.mean + 1e-15, q.rho)),
        make(q=MeanField(q.mean, q.rho + 1)),
        make(q=MeanField(q.mean[:1], q.rho[:1])),
        make(elbo=-2.0),
        make(elbo=np.nan),
        make(gap=0.1),
        make(trace=trace[:1]),
        make(trace=(trace[0], Record(-1.0, 0.0))),
        vilogit.fit([[1.0], [2.0]], [0, 1], family="aligned"),
        None,
        -1.0,
        q,
    ]
    assert all(make() != other for other in others)


def test_a_posterior_shows_itself_in_a_line():
    q = MeanField(np.ones((300, 3)), np.zeros((300, 3)))
    posterior = Posterior(q, -76.503, gap=0.00019)
    assert repr(posterior) == "MeanFieldPosterior(M=300, D=3, elbo=-76.503, gap=0.00019)"
    assert repr(Posterior(q, np.nan)) == "MeanFieldPosterior(M=300, D=3, elbo=nan, gap=nan)"
    assert repr(State(0, q, -1.0)) == (
        "State(step=0, q=MeanField(mean: (300, 3), rho: (300, 3)), elbo=-1.0, gap=nan)"
    )


def test_a_notebook_shows_the_ends_of_the_summary(monkeypatch):
    q = MeanField(np.arange(900.0).reshape(300, 3), np.zeros((300, 3)))
    shown = Posterior(q, -1.0)._repr_html_()
    assert shown.startswith("<p>MeanFieldPosterior(M=300, D=3, elbo=-1, gap=nan)</p><table ")
    assert "x0" in shown and "x299" in shown and "x150" not in shown and len(shown) < 5000
    monkeypatch.setitem(sys.modules, "pandas", None)
    shown = Posterior(q, -1.0)._repr_html_()
    assert shown.startswith("<p>MeanFieldPosterior(M=300, D=3, elbo=-1, gap=nan)</p><pre>feature ")
    assert shown.count("\n") == 11 and shown.endswith("\n...</pre>")
    assert Posterior(MeanField(q.mean[:2], q.rho[:2]), 0.0)._repr_html_().count("\n") == 6


@pytest.mark.parametrize("pandas", [True, False])
def test_html_is_escaped(monkeypatch, pandas):
    if not pandas:
        monkeypatch.setitem(sys.modules, "pandas", None)
    table = tables.table([("<b>", "&")], np.ones((1, 1)), ("f", "c"), ["<i>"])
    shown = tables.html(table)
    assert all(sign in shown for sign in ("&lt;b&gt;", "&amp;", "&lt;i&gt;"))
    assert "<b>" not in shown and "<i>" not in shown


def test_a_summary_names_features_classes_and_quantiles():
    mean, scale = np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]]), np.full((2, 3), 3.0)
    posterior = Posterior(MeanField.with_scale(mean, scale), 0.0)
    summary = posterior.summary()
    assert list(summary.index) == [(x, d) for x in ("x0", "x1") for d in range(3)]
    assert summary.index.names == ["feature", "class"]
    assert list(summary.columns) == ["mean", "sd", "5%", "95%"]
    np.testing.assert_allclose(summary["mean"], [-2, -1, 3, 0, 0, 0])
    np.testing.assert_allclose(summary["sd"], 3 * np.sqrt(2 / 3))  # less the mean of three
    np.testing.assert_allclose(summary["95%"] - summary["mean"], 1.6448536269514722 * summary["sd"])
    np.testing.assert_allclose(summary["mean"] - summary["5%"], 1.6448536269514722 * summary["sd"])
    named = posterior.summary(
        feature_names=np.array(["a", "b"]), class_names=iter(["u", "v", "w"]), level=0.99
    )
    assert list(named.index) == [(x, d) for x in "ab" for d in "uvw"]
    assert list(named.columns) == ["mean", "sd", "0.5%", "99.5%"]


def test_of_two_classes_a_summary_tells_the_log_odds():
    posterior = Posterior(MeanField.with_scale(np.array([[1.0, 4.0]]), np.array([[3.0, 4.0]])), 0.0)
    summary = posterior.summary(level=0.5)
    assert list(summary.index) == [("x0", "1 - 0")]
    np.testing.assert_allclose(summary.loc[("x0", "1 - 0"), ["mean", "sd"]], [3, 5])
    assert list(summary.columns[2:]) == ["25%", "75%"]
    assert posterior.summary(class_names=["no", "yes"]).index[0][1] == "yes - no"


def test_without_pandas_a_summary_is_aligned_text(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    posterior = Posterior(
        MeanField.with_scale(np.array([[1.0, 4.0], [0.0, 1e6]]), np.array([[3.0, 4.0]] * 2)), 0.0
    )
    summary = posterior.summary(feature_names=["age", "bias"], class_names=["no", "yes"])
    assert isinstance(summary, str) and repr(summary) == summary
    assert summary.splitlines() == [
        "feature  class      mean  sd      5%    95%",
        "age      yes - no      3   5  -5.224  11.22",
        "bias     yes - no  1e+06   5   1e+06  1e+06",
    ]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"feature_names": ["a"]}, ValueError, "feature_names has 1 names; expected 2"),
        ({"feature_names": []}, ValueError, "feature_names has 0 names; expected 2"),
        ({"feature_names": "ab"}, TypeError, "feature_names must be a sequence of names, not 'ab'"),
        ({"class_names": ["a", "b"]}, ValueError, "class_names has 2 names; expected 3"),
        ({"class_names": 3}, TypeError, "class_names must be a sequence of names, not 3"),
        ({"level": 0}, ValueError, "level must be positive, but holds 0.0"),
        ({"level": 1}, ValueError, "level must be below 1, not 1"),
        ({"level": 90}, ValueError, "level must be below 1, not 90"),
        ({"level": np.nan}, ValueError, "level must be finite, but holds nan"),
        ({"level": "wide"}, TypeError, "level must hold real numbers.*"),
    ],
)
def test_a_summary_names_bad_arguments(posterior, arguments, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        posterior.summary(**arguments)


def test_centred_weights_of_many_features_take_little_memory():
    q = MeanField(np.ones((20_000, 2)), np.zeros((20_000, 2)))
    tracemalloc.start()
    mean, scale = Posterior(q, 0.0).centred()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * q.mean.nbytes
    assert (mean == 0).all()
    np.testing.assert_allclose(scale, np.log(2) / np.sqrt(2))


def test_draws_are_scaled_noise_of_the_generator(posterior):
    noise = np.random.default_rng(3).standard_normal((4, 2, 3))
    draws = posterior.sample(4, np.random.default_rng(3))
    np.testing.assert_allclose(draws, posterior.mean + posterior.scale * noise)


def test_the_uncertainty_of_a_row_does_not_hang_on_the_others(posterior, rng):
    X = rng.standard_normal((6, 2)) * np.array([[1.0], [1e3], [1.0], [3.0], [1e6], [0.0]])
    together = posterior.uncertainty(X)
    for n in range(6):
        for a, b in zip(together, posterior.uncertainty(X[n : n + 1]), strict=True):
            # Rounding of what cancels: numbers as large as the logits, a million.
            np.testing.assert_allclose(a[n], b[0], rtol=1e-9, atol=1e-9)


def test_parts_of_the_entropy_are_never_negative():
    rng = np.random.default_rng(9)
    for rho in (-700.0, -30.0, -3.0, 3.0):
        q = MeanField(30 * rng.standard_normal((2, 3)), np.full((2, 3), rho))
        for part in Posterior(q, 0.0).uncertainty(10 * rng.standard_normal((20, 2))):
            assert (part >= 0).all()


def test_what_is_left_out_has_the_documented_value():
    rng, q, X, Y = problem(3)
    assert elbo(q, X, Y) == elbo(q, X, Y, 1.0, accuracy=1e-8)
    eps = rng.standard_normal((2, 3))
    assert elbo_and_gradient(q, eps, X, Y)[0] == elbo_and_gradient(q, eps, X, Y, 1.0)[0]


@pytest.mark.slow
def test_the_default_update_is_five_thousand_small_steps(toy):
    X, y = toy.X[:5], np.array([0, 1, 2, 0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        posterior = fit_sgd(X, y, rng=np.random.default_rng(0))
    assert len(posterior.trace) == 5001
    assert posterior.elbo == elbo(posterior.q, X, one_hot(y, 3), 1.0)
    first = fit_sgd(X, y, rng=np.random.default_rng(0), steps=2, learning_rate=0.003)
    # The first two steps of five thousand and of two have the full rate.
    np.testing.assert_array_equal(posterior.trace[:2], first.trace[:2])


def test_the_callback_of_the_update_sees_what_the_trace_keeps(toy):
    states = []
    posterior = fit_sgd(toy.X, toy.y, rng=np.random.default_rng(0), steps=3, callback=states.append)
    assert [s.step for s in states] == [0, 1, 2, 3]
    assert [s.elbo for s in states] == [r.elbo for r in posterior.trace]
    assert all(np.isnan(s.gap) for s in states) and np.isnan(posterior.gap)
    assert states[-1].q is posterior.q and states[0].q is not posterior.q
    assert isinstance(posterior.trace, tuple)


def too_fast(toy, **options):
    with pytest.warns(ConvergenceWarning) as caught:
        posterior = fit_sgd(30 * toy.X[:3], [0, 1, 2], rng=np.random.default_rng(0), steps=9,
                            learning_rate=5.0, **options)  # fmt: skip
    return posterior, caught[0]


def test_the_warning_of_the_update_points_at_its_caller(toy):
    assert too_fast(toy)[1].filename == __file__


def test_the_warning_of_the_update_says_what_to_try(toy):
    states = []
    posterior, warning = too_fast(toy, callback=states.append, prior_precision=2.0)
    X, Y = 30 * toy.X[:3], np.eye(3)
    assert posterior.elbo == elbo(posterior.q, X, Y, 2.0)
    assert str(warning.message) == (
        f"fit_sgd ended at an ELBO of {posterior.elbo:.6g}, not above its start at "
        f"{elbo(states[0].q, X, Y, 2.0):.6g}; try a learning_rate below 5 or inputs of unit scale"
    )


def test_the_warning_of_an_update_that_diverges_points_at_the_caller():
    X, y, _ = vilogit.simulate(np.random.default_rng(0))
    with pytest.warns(ConvergenceWarning) as caught:
        fit_sgd(X, y, rng=np.random.default_rng(0), prior_precision=1000)
    assert caught[0].filename == __file__


def test_an_update_that_diverges_stops_with_the_warning():
    X, y, _ = vilogit.simulate(np.random.default_rng(0))
    states = []
    with pytest.warns(ConvergenceWarning) as caught:
        posterior = fit_sgd(
            X, y, rng=np.random.default_rng(0), prior_precision=1000, callback=states.append
        )
    done = len(posterior.trace)
    assert str(caught[0].message).startswith(
        f"fit_sgd ended as it diverged in update {done} of 5000, at an ELBO of "
    )
    assert "not above its start at -4318.86; try a learning_rate below 0.003" in str(
        caught[0].message
    )
    assert len(caught) == 1
    assert 100 < done < 5000 and len(states) == done and states[-1].q is posterior.q
    assert posterior.elbo == elbo(posterior.q, X, one_hot(y, 3), 1000)
    assert np.isfinite(posterior.q).all() and np.isfinite(posterior.elbo)


POWERS = st.integers(-150, 150)


@settings(max_examples=40)
@given(
    POWERS, st.integers(-200, 200), POWERS, st.sampled_from([np.float32, np.float64]), st.booleans()
)
def test_whatever_the_scales_the_update_ends_with_numbers(scale, precision, rate, dtype, tame):
    """Tame ones are those that people have, the others those that a double can hold."""
    if tame:
        scale, precision, rate = scale % 17 - 8, precision % 17 - 8, rate % 7 - 3
    if dtype == np.float32:
        scale = max(-15, min(scale, 15))
    X, y, _ = vilogit.simulate(np.random.default_rng(0), n=10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        posterior = fit_sgd(
            (10.0**scale * X).astype(dtype), y, rng=np.random.default_rng(0), steps=40,
            prior_precision=10.0**precision, learning_rate=10.0**rate, n_classes=3,
        )  # fmt: skip
    assert {w.category for w in caught} <= {ConvergenceWarning}
    assert np.isfinite(posterior.q).all() and np.isfinite(posterior.elbo)
    assert np.isfinite([record.elbo for record in posterior.trace]).all()
    assert caught or len(posterior.trace) == 41


def test_float32_inputs_estimate_what_float64_inputs_do():
    rng, q, X, Y = problem(4)
    eps = rng.standard_normal((2, 3))
    value, gradient = elbo_and_gradient(q, eps, X, Y)
    single, slopes = elbo_and_gradient(q, eps, X.astype(np.float32), Y)
    # Six rows, each with logits good to 1e-6.
    assert single == pytest.approx(value, abs=1e-4) and isinstance(single, float)
    for a, b in zip(slopes, gradient, strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_sums_of_an_estimate_are_float64():
    """In float32 a sum stops growing at 2**24; the labels are as wrong as can be."""
    X = np.full((40, 1), 1e6, np.float32)
    X[0] = 3e-2
    Y = np.tile(np.float32([0, 1]), (40, 1))
    q, eps = MeanField(np.array([[1.0, 0.0]]), np.full((1, 2), -60.0)), np.zeros((1, 2))
    exact, slopes = elbo_and_gradient(q, eps, X.astype(float), Y.astype(float))
    value, gradient = elbo_and_gradient(q, eps, X, Y)
    # The first row adds 0.7 to 39 million; its own digits are those of float32.
    assert value == pytest.approx(exact, abs=1e-5)
    np.testing.assert_allclose(gradient.mean, slopes.mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q, e, X, Y: elbo(q, X[0], Y), r"X has shape \(2,\); expected \(N, 2\)"),
        (lambda q, e, X, Y: elbo(q, X, Y[:2]), r"Y has shape \(2, 3\); expected \(6, 3\)"),
        (lambda q, e, X, Y: elbo(q, X, Y, 0.0), "prior_precision must be positive, .*"),
        (lambda q, e, X, Y: elbo(q, X, Y, accuracy=0), "accuracy must be positive, .*"),
        (lambda q, e, X, Y: elbo_and_gradient(q, e, X[0], Y), r"X has shape .* \(N, 2\)"),
        (lambda q, e, X, Y: elbo_and_gradient(q, e, X[:, :1], Y), r"X has shape .* \(N, 2\)"),
        (lambda q, e, X, Y: elbo_and_gradient(q, e, X, Y[:2]), r"Y has shape .* \(6, 3\)"),
        (lambda q, e, X, Y: elbo_and_gradient(q, e, X, Y[:, :2]), r"Y has shape .* \(6, 3\)"),
        (lambda q, e, X, Y: elbo_and_gradient(q, e, X, Y, [1]), r"prior_precision has .*\(2,\)"),
        (lambda q, e, X, Y: elbo_and_gradient(q, e[0], X, Y), r"eps has shape .*\.\.\., 2, 3\)"),
        (lambda q, e, X, Y: kl_to_prior(MeanField(e[0], e[0]), 1), r"q\.mean has .* \(M, D\)"),
        (lambda q, e, X, Y: kl_to_prior(MeanField(e, e[0]), 1), r"q\.rho has .* \(2, 3\)"),
        (lambda q, e, X, Y: kl_to_prior(MeanField(e, e * np.inf), 1), r"q\.rho must be finite.*"),
        (lambda q, e, X, Y: kl_to_prior(MeanField(e * np.nan, e), 1), r"q\.mean must be finite.*"),
        (lambda q, e, X, Y: kl_to_prior(q, [1, 2, 3]), r"prior_precision has .* \(2,\)"),
    ],
)
def test_messages_start_with_the_argument_and_end_with_what_was_expected(call, message):
    rng, q, X, Y = problem(0)
    with pytest.raises(ValueError, match=f"^{message}$"):
        call(q, rng.standard_normal((2, 3)), X, Y)


@pytest.mark.slow
def test_public_names_are_there():
    assert len(vilogit.__all__) > 20
    for name in vilogit.__all__:
        assert getattr(vilogit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fits'"):
        vilogit.fits  # noqa: B018


def test_dir_lists_what_loads_later_and_a_version():
    later = {"flipbook", "picture", "plot_before_after", "plot_class_map"}
    assert later | {"VariationalLogisticRegression", "fit", "__version__"} <= set(dir(vilogit))
    assert dir(vilogit) == sorted(dir(vilogit))


def test_the_version_is_that_of_the_project(monkeypatch):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert vilogit.__version__ == project["version"]
    absent = mock.Mock(side_effect=metadata.PackageNotFoundError)
    monkeypatch.setattr(metadata, "version", absent)
    assert vilogit.__version__ == "0+unknown"
    absent.assert_called_once_with("vilogit")


STAR = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))
from vilogit import *
print(*sorted(name for name in dir() if not name.startswith("_") and name != "sys"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blocked", "without"),
    [
        ([], set()),
        (
            ["matplotlib"],
            {"flipbook", "picture", "plot_before_after", "plot_class_map", "plot_coefficients"},
        ),
        (["ipywidgets"], {"flipbook", "picture"}),
        (["sklearn"], {"VariationalLogisticRegression"}),
        (["sklearn.utils.validation"], {"VariationalLogisticRegression"}),
    ],
)
def test_a_star_brings_what_can_be_had(blocked, without):
    run = [sys.executable, "-c", STAR, *blocked]
    result = subprocess.run(run, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.split()) == set(vilogit.__all__) - without
