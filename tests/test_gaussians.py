"""Chapter 6's comparison rests on these Gaussians; they are checked against SciPy and draws."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, optimize, special, stats

from vilogit import elbo, fit, one_hot, simulate

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import gaussians


def log_joint(W, X, y, precision):
    """Log of likelihood times prior for draws (n, M, D), with SciPy alone."""
    logits = X @ W
    chosen = np.take_along_axis(logits, np.broadcast_to(y[:, None], (len(W), len(y), 1)), axis=2)
    log_likelihood = (chosen[..., 0] - special.logsumexp(logits, axis=2)).sum(axis=1)
    prior = stats.norm(0, 1 / np.sqrt(precision)[:, None])
    return log_likelihood + prior.logpdf(W).sum(axis=(1, 2))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_aligned_elbo_is_the_average_over_draws_with_its_covariance_written_out(n_classes, rng):
    X, y, _ = simulate(rng, 40, n_classes)
    precision = np.array([0.5, 1.0, 3.0])
    q = fit(X, y, n_classes=n_classes, prior_precision=precision, family="aligned")
    D = n_classes
    P = np.eye(D) - 1 / D
    W = q.sample(20_000, rng)
    np.testing.assert_allclose(W.std(axis=0), q.scale, rtol=0.03)  # six standard errors
    V = np.linalg.solve(q.axes, W)
    log_q = -D * np.linalg.slogdet(q.axes)[1]
    for k in range(len(q.axes)):
        cov = P @ np.diag(q.width[k] ** 2) @ P + np.ones((D, D)) / D
        log_q = log_q + stats.multivariate_normal(q.location[k], cov).logpdf(V[:, k])
    terms = log_joint(W, X, y, precision) - log_q
    # Five standard errors, about 0.1 nats.
    assert terms.mean() == pytest.approx(q.elbo, abs=5 * terms.std() / np.sqrt(len(W)))


def test_every_gaussians_average_log_weight_is_its_elbo(toy, rng):
    X, y, _ = toy
    where = gaussians.seen(X, y, 3)
    for make in (
        gaussians.plain,
        gaussians.shift_only,
        gaussians.rotation_only,
        gaussians.aligned,
        lambda *_: gaussians.laplace(where),
        lambda *_: gaussians.full_rank(where),
    ):
        q = make(X, y, 3)
        log_weights = q.log_weights(10_000, rng)
        error = log_weights.std() / np.sqrt(len(log_weights))
        assert log_weights.mean() == pytest.approx(q.elbo, abs=5 * error)


def test_laplace_is_the_top_of_the_posterior_and_its_curvature(toy):
    X, y, _ = toy
    where = gaussians.seen(X, y, 3)
    q = gaussians.laplace(where)

    def energy(v):
        W = where.axes @ v.reshape(q.location.shape) @ where.basis.T
        logits = X @ W
        loss = special.logsumexp(logits, axis=1).sum() - logits[np.arange(len(y)), y].sum()
        return loss + np.sum(W**2) / 2

    best = optimize.minimize(energy, np.zeros(q.location.size), options={"gtol": 1e-6})
    assert energy(q.location.ravel()) <= best.fun + 1e-9
    np.testing.assert_allclose(q.location.ravel(), best.x, atol=1e-4)
    steps = 1e-3 * np.eye(q.location.size)
    v = q.location.ravel()
    hessian = [
        [energy(v + a + b) - energy(v + a - b) - energy(v - a + b) + energy(v - a - b)
         for b in steps]
        for a in steps
    ]  # fmt: skip
    # Central differences of step h are off by about h^2 of the curvature.
    np.testing.assert_allclose(np.linalg.inv(q.cov), np.array(hessian) / 4e-6, rtol=1e-3, atol=1e-3)


def test_full_rank_is_the_best_gaussian_where_one_weight_is_seen():
    # One input, two classes: the contrast is one number, and SciPy can do all of it.
    rng = np.random.default_rng(5)
    X = rng.normal(1, 1, (12, 1))
    y = (rng.random(12) < 0.7).astype(int)
    q = gaussians.full_rank(gaussians.seen(X, y, 2), tol=1e-8)

    nodes = np.linspace(-8, 8, 201)

    def negative(theta):
        mean, log_scale = theta
        c = mean + np.exp(log_scale) * nodes
        difference = -np.sqrt(2) * np.outer(c, X)  # logit of class 1 less that of class 0
        log_joint = -np.logaddexp(0, np.where(y == 1, -1, 1) * difference).sum(axis=1) - c**2 / 2
        value = integrate.trapezoid(stats.norm.pdf(nodes) * log_joint, nodes)
        return -value - log_scale - 0.5  # less the entropy; ln(2 pi) / 2 cancels the prior's

    best = optimize.minimize(negative, [0.0, 0.0], method="Nelder-Mead", tol=1e-8)
    assert q.elbo == pytest.approx(-best.fun, abs=1e-6)
    sign = np.sign(q.problem.axes[0, 0] * q.problem.basis[0, 0])
    assert sign * q.location[0, 0] == pytest.approx(best.x[0], abs=1e-3)
    assert np.sqrt(q.cov[0, 0]) == pytest.approx(np.exp(best.x[1]), rel=1e-3)


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_covariance_form_predicts_and_scores_as_the_family_does(n_classes, rng):
    X, y, _ = simulate(rng, 30, n_classes)
    X = np.column_stack([X, X[:, 0]])  # a direction without data
    family = fit(X, y, n_classes=n_classes, family="aligned")
    q = gaussians.freed(X, y, family)
    # Sobol points of four classes and more are good to about 1e-4 a row, quadrature to 1e-5.
    digits = 1e-5 if n_classes < 4 else 1e-3
    np.testing.assert_allclose(q.mean, family.mean, atol=1e-6)
    np.testing.assert_allclose(q.scale(), family.scale, rtol=1e-9)
    np.testing.assert_allclose(q.probs(X @ q.problem.axes), family.predict_proba(X), atol=digits)
    again = gaussians._elbo(q.problem, q.location, q.cov)
    assert again == pytest.approx(family.elbo, abs=30 * digits)


def test_better_families_score_better(toy):
    X, y, _ = toy
    score = {
        name: getattr(gaussians, name)(X, y, 3).elbo
        for name in ("plain", "shift_only", "rotation_only", "aligned")
    }
    best = gaussians.full_rank(gaussians.seen(X, y, 3))
    assert best.gap < 2e-3
    assert score["plain"] == pytest.approx(elbo(fit(X, y).q, X, one_hot(y, 3)), abs=1e-4)
    assert score["plain"] < score["shift_only"] < score["aligned"] < best.elbo
    assert score["plain"] < score["rotation_only"] < score["aligned"]
