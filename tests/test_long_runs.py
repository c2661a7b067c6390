"""Chapter 8's study rests on these runs, intervals and Gaussians; SciPy checks them."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, special, stats

from vilogit import fit, simulate

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import gaussians
import hmc
import measures


@pytest.fixture
def one_number():
    """One input, two classes, few rows: a skewed posterior of one contrast."""
    rng = np.random.default_rng(5)
    X = rng.normal(1, 1, (12, 1))
    return X, np.ones(12, int)


def moments_by_quadrature(where):
    """Log evidence, and mean and variance of the one contrast."""
    signed = where.Z[:, 0] * np.sqrt(2) * np.where(where.Y[:, 0] == 1, 1, -1)
    signed *= np.sign(where.basis[0, 0])
    c = np.linspace(-12, 12, 40_001)
    density = stats.norm.pdf(c) * np.exp(-np.logaddexp(0, -np.outer(c, signed)).sum(axis=1))
    evidence, first, second = (integrate.trapezoid(density * c**k, c) for k in range(3))
    mean = first / evidence
    return np.log(evidence), mean, second / evidence - mean**2


@pytest.mark.slow
def test_a_long_run_has_the_moments_and_the_evidence_of_quadrature(one_number):
    where = gaussians.seen(*one_number, 2)
    # A metric that is off in place and width: the run is exact all the same.
    metric = gaussians.Freed(where, np.full((1, 1), 0.3), np.full((1, 1), 0.3), 0, 1, 2)
    run = hmc.hmc(metric, chains=200, draws=100, seed=0)
    log_evidence, mean, var = moments_by_quadrature(where)
    found = hmc.summary(run.halves, lambda V: V)
    assert found.r_hat[0, 0] < 1.03
    assert found.ess[0, 0] > 2000
    # Five standard errors; those of a variance and of the bridge are about as large.
    assert found.mean[0, 0] == pytest.approx(mean, abs=5 * np.sqrt(var / found.ess[0, 0]))
    assert found.var[0, 0] == pytest.approx(var, rel=5 * np.sqrt(3 / found.ess[0, 0]))
    bridged, error = hmc.log_evidence(run, 1)
    assert error < 0.01
    assert bridged == pytest.approx(log_evidence, abs=0.02)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_log_joint_and_slope_are_those_of_scipy(n_classes, rng, monkeypatch):
    monkeypatch.setattr(hmc, "IN_CACHE", 50)  # several blocks of rows
    X, y, _ = simulate(rng, 30, n_classes)
    where = gaussians.seen(X, y, n_classes)
    V = rng.standard_normal((3, n_classes - 1, 5))

    def value(V):
        logits = np.einsum("nk,kaj,da->jnd", where.Z, V, where.basis)
        chosen = np.sum(where.Y * (logits - special.logsumexp(logits, axis=2, keepdims=True)))
        return chosen + stats.norm.logpdf(V).sum()

    values, slope = hmc.log_joint(where, V)
    assert values.sum() == pytest.approx(value(V), rel=1e-12)
    along = rng.standard_normal(V.shape)
    difference = (value(V + 1e-5 * along) - value(V - 1e-5 * along)) / 2e-5
    assert np.vdot(slope, along) == pytest.approx(difference, rel=1e-6)


def test_log_joint_does_not_overflow(rng):
    X, y, _ = simulate(rng, 30, 3)
    value, slope = hmc.log_joint(gaussians.seen(X, y, 3), 1e3 * rng.standard_normal((3, 2, 4)))
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()


def test_effective_size_counts_draws_that_repeat_themselves_once(rng):
    each = rng.standard_normal((400, 20, 1, 1))
    assert hmc.summary(each, lambda V: V).ess == pytest.approx(8000, rel=0.3)
    repeated = hmc.summary(np.repeat(each, 5, axis=1), lambda V: V)
    assert repeated.ess == pytest.approx(8000, rel=0.3)
    apart = each + np.linspace(0, 4, 400)[:, None, None, None]
    assert hmc.summary(apart, lambda V: V).r_hat > 1.3


def test_bridge_of_two_normals_is_the_ratio_of_their_constants(rng):
    x, z = rng.normal(1, 1, 4000), rng.normal(0, 1.2, 4000)

    def log_ratio(x):
        return 3 + stats.norm.logpdf(x, 1) - stats.norm.logpdf(x, 0, 1.2)

    # The standard error is about 0.01.
    assert hmc.bridge(log_ratio(x), log_ratio(z)) == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize("weighted", [False, True])
def test_central_intervals_of_many_draws_are_those_of_the_law(weighted, rng):
    if weighted:
        x = rng.uniform(-6, 6, (100_000, 2, 1))
        x[:, 1] = x[:, 0] + 1
        weight = stats.norm.pdf(x[:, 0, 0])
        weight /= weight.sum()
    else:
        x, weight = rng.normal([[0], [1]], 1, (100_000, 2, 1)), None
    levels = (0.5, 0.9)
    low, high = measures.central(x, levels, weight)
    law = stats.norm([[0], [1]])
    for level, one, other in zip(levels, low, high, strict=True):
        np.testing.assert_allclose(one, law.ppf((1 - level) / 2), atol=0.03)
        np.testing.assert_allclose(other, law.ppf((1 + level) / 2), atol=0.03)
    mass = measures.mass_between(rng.normal([[0], [1]], 1, (100_000, 2, 1)), low, high)
    np.testing.assert_allclose(mass, levels, atol=0.02)
    wrong = measures.mass_between(rng.normal([[0], [6]], 1, (10_000, 2, 1)), low, high)
    np.testing.assert_allclose(wrong, np.array(levels) / 2, atol=0.03)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_response_written_out_has_the_responses_moments(n_classes, rng):
    X, y, _ = simulate(rng, 40, n_classes)
    X = np.column_stack([X, X[:, 0]])  # a direction without data
    q = fit(X, y, n_classes=n_classes, prior_precision=[0.5, 1, 2, 3], family="aligned")
    response, C = q.response(X), np.diff(np.eye(n_classes))
    written_out = gaussians.responding(gaussians.freed(X, y, q), response)
    for mine, own in zip(
        written_out.contrast_moments(C), response.moments(np.eye(4), C), strict=True
    ):
        np.testing.assert_allclose(mine, own, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("make", [gaussians.plain, gaussians.aligned])
def test_contrast_moments_are_those_of_draws(make, toy, rng):
    X, y, _ = toy
    q, C = make(X, y, 3), np.array([[-1.0, 0.5], [1.0, 0.5], [0.0, -1.0]])
    drawn = q.centred_draws(40_000, rng) @ C
    mean, scale = q.contrast_moments(C)
    # Five standard errors or so.
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.03 * scale.max())
    np.testing.assert_allclose(drawn.std(axis=0), scale, rtol=0.02)


@pytest.mark.slow
def test_a_newton_step_leaves_the_full_rank_optimum_where_it_is(toy):
    X, y, _ = toy
    best = gaussians.full_rank(gaussians.seen(X, y, 3), tol=1e-8)
    np.testing.assert_allclose(gaussians.newton_step(best).cov, best.cov, rtol=1e-3, atol=1e-4)
    aligned = gaussians.aligned(X, y, 3)
    assert np.abs(gaussians.newton_step(aligned).cov - aligned.cov).max() > 0.01


def test_weighted_quantiles_lie_half_way_through_each_draws_share():
    # Shares end at 1/8, 3/8, 1/2 and 1; their middles are 1/16, 1/4, 7/16 and 3/4.
    x, weight = np.array([[4.0], [1.0], [3.0], [2.0]]), np.array([4, 1, 1, 2]) / 8
    low, high = measures.central(x, (0.5,), weight)
    assert (low[0, 0], high[0, 0]) == (2, 4)
