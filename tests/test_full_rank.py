"""Full rank: averages over correlated logits, the best Gaussian, and what it owes its users."""

import warnings

import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose
from scipy import optimize, special, stats

from vilogit import (
    ConvergenceWarning,
    VariationalLogisticRegression,
    expected_softmax,
    fit,
    load,
    simulate,
    softmax,
)
from vilogit.axes import curvature_axes, principal_axes
from vilogit.bound import AlignedBound, Bound
from vilogit.contrasts import contrast_basis
from vilogit.correlated import correlated_averages, finest_accuracy
from vilogit.full_rank import FullRankBound, inverse_root
from vilogit.rows import Rows
from vilogit.search import Search


def contrasts(rng, n, E, width=1.0):
    """Means, and covariances whose widths fall from `width` to a tenth of it."""
    turns = stats.ortho_group(E, seed=rng).rvs(n).reshape(n, E, E) if E > 1 else np.ones((n, 1, 1))
    widths = width * np.geomspace(1, 0.1, E)
    return 2 * rng.standard_normal((n, E)), (turns * widths**2) @ turns.swapaxes(1, 2)


def tensor(mean, cov, n_nodes, reach=8.0):
    """Averages of one row by a full tensor rule along the Cholesky factor."""
    basis = contrast_basis(len(mean) + 1)
    nodes, weights = oracles.gaussian_rule(n_nodes, reach)
    grid = np.stack([g.ravel() for g in np.meshgrid(*[nodes] * len(mean))], axis=1)
    w = np.prod(np.meshgrid(*[weights] * len(mean)), axis=0).ravel()
    logits = (mean + grid @ np.linalg.cholesky(cov).T) @ basis.T
    probs = special.softmax(logits, axis=1)
    seen = probs @ basis
    jacobian = basis.T @ ((w @ probs)[:, None] * basis) - (seen.T * w) @ seen
    return w @ special.logsumexp(logits, axis=1), w @ probs, jacobian


@pytest.mark.parametrize("D", [2, 3, 5, 9])
def test_contrasts_are_orthonormal_and_sum_to_zero(D):
    basis = contrast_basis(D)
    assert_allclose(basis.T @ basis, np.eye(D - 1), atol=1e-14)
    assert_allclose(basis.sum(axis=0), 0, atol=1e-14)


@pytest.mark.parametrize(
    ("E", "width", "n_nodes"),
    [(1, 3, 401), (2, 3, 201), pytest.param(3, 1.5, 61, marks=pytest.mark.slow)],
)
def test_few_classes_are_as_exact_as_asked_for(E, width, n_nodes, rng):
    mean, cov = contrasts(rng, 5, E, width)
    expected = [tensor(m, c, n_nodes) for m, c in zip(mean, cov, strict=True)]
    for accuracy in (1e-3, 1e-5 if E == 3 else 1e-6):
        found = correlated_averages(mean, cov, accuracy)
        for averages, exact in zip(found, zip(*expected, strict=True), strict=True):
            assert_allclose(averages, np.array(exact), atol=accuracy)


def test_averages_of_independent_logits_are_those_of_the_race(rng):
    """Independent logits have correlated contrasts; of five classes and more, points average."""
    for D, atol in ((3, 1e-6), (4, 1e-5), (7, 1e-3)):
        logits, var, basis = (
            rng.standard_normal((4, D)),
            rng.uniform(0.2, 4, (4, D)),
            contrast_basis(D),
        )
        found = correlated_averages(logits @ basis, basis.T @ (var[:, :, None] * basis), 1e-6)
        exact = expected_softmax(logits, var)
        assert_allclose(found.log_sum_exp + logits.mean(axis=1), exact.log_sum_exp, atol=atol)
        assert_allclose(found.probs, exact.probs, atol=atol)
        jacobian = basis @ found.jacobian @ basis.T
        assert_allclose(np.einsum("ndd->nd", jacobian), exact.spread, atol=atol)


@pytest.mark.parametrize("D", [2, 3, 4, 6])
def test_without_a_covariance_averages_are_the_values_themselves(D, rng):
    mean = rng.standard_normal((3, D - 1))
    found = correlated_averages(mean, np.zeros((3, D - 1, D - 1)), 1e-9)
    logits = mean @ contrast_basis(D).T
    assert_allclose(found.log_sum_exp, special.logsumexp(logits, axis=1), rtol=1e-9)
    assert_allclose(found.probs, softmax(logits), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("E", [2, 3, 6])
def test_errors_of_points_fall_with_the_accuracy(E, rng):
    """Logits too wide for products get points; what two accuracies differ by bounds the error."""
    mean, cov = contrasts(rng, 3, E, 100.0)
    finest = correlated_averages(mean, cov, finest_accuracy(E + 1) if E > 3 else 1e-6).log_sum_exp
    errors = [
        np.abs(correlated_averages(mean, cov, accuracy).log_sum_exp - finest).max()
        for accuracy in (1e-1, 1e-3)
    ]
    assert errors[1] < errors[0] / 5
    assert errors[1] < 0.3  # of a width of 100


@pytest.mark.parametrize("n_classes", [3, 6])
def test_rows_do_not_hang_on_their_neighbours(n_classes, rng):
    mean, cov = contrasts(rng, 4, n_classes - 1, 2.0)
    cov *= np.array([0.01, 1, 1, 9])[:, None, None]
    together = correlated_averages(mean, cov, 1e-3)
    for n in range(4):
        alone = correlated_averages(mean[n : n + 1], cov[n : n + 1], 1e-3)
        for a, b in zip(together, alone, strict=True):
            assert_allclose(a[n], b[0], rtol=1e-9, atol=1e-12)


def problem(n=40, n_classes=3, seed=1):
    X, y, _ = simulate(np.random.default_rng(seed), n, n_classes)
    return X, y


def bound_of(X, y, n_classes):
    axes = principal_axes(X, np.ones((X.shape[1], 1)))
    rows = Rows.of(X @ axes, y, n_classes, None)
    return FullRankBound(rows, np.ones((axes.shape[1], 1)), axes, np.ones((X.shape[1], 1)))


def written_out(X, y, n_classes, theta):
    """ELBO with its covariance in the full space of weights, by a tensor rule row by row."""
    bound, basis = bound_of(X, y, n_classes), contrast_basis(n_classes)
    K = X.shape[1]
    mean, root = theta[:, 0], theta[:, 1:]
    wide = np.kron(bound.axes, basis)  # contrasts in the axes to weights
    shift = np.kron(np.eye(K), np.full((n_classes, n_classes), 1 / n_classes))
    q_mean, q_cov = wide @ mean, wide @ (root @ root.T) @ wide.T + shift
    kl = (np.trace(q_cov) + q_mean @ q_mean - len(q_mean) - np.linalg.slogdet(q_cov)[1]) / 2
    total = -kl
    for x, label in zip(X, y, strict=True):
        see = np.kron(x, np.eye(n_classes))
        m, cov = see @ q_mean, see @ q_cov @ see.T
        total += m[label] - m.mean() - tensor(m @ basis, basis.T @ cov @ basis, 161)[0]
    return total


def random_theta(rng, d):
    root = np.tril(0.1 * rng.standard_normal((d, d)), -1) + np.diag(rng.uniform(0.2, 0.9, d))
    return np.column_stack([rng.standard_normal(d), root])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_value_is_the_elbo_of_the_gaussian_written_out(n_classes, rng):
    X, y = problem(8, n_classes)
    theta = random_theta(rng, X.shape[1] * (n_classes - 1))
    point = bound_of(X, y, n_classes).evaluate(theta, 1e-8)
    assert point.elbo == pytest.approx(written_out(X, y, n_classes, theta), abs=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_the_slope_is_that_of_the_value(n_classes, rng):
    X, y = problem(6, n_classes)
    bound = bound_of(X, y, n_classes)
    theta = random_theta(rng, X.shape[1] * (n_classes - 1))
    way = rng.standard_normal(theta.shape)
    way[:, 1:] = np.tril(way[:, 1:])
    numeric = oracles.directional_derivative(
        lambda theta: bound.evaluate(theta, 1e-7).elbo, theta, way, 1e-3
    )
    slope = bound.evaluate(theta, 1e-7).slope
    assert np.vdot(slope, way) == pytest.approx(numeric, rel=1e-5)
    assert not np.triu(slope[:, 1:], 1).any()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_gap_bounds_the_distance_to_the_optimum(n_classes, rng):
    X, y = problem(30, n_classes)
    bound = bound_of(X, y, n_classes)
    best = fit(X, y, family="full-rank", n_classes=n_classes, tol=1e-6).elbo
    for _ in range(10):
        point = bound.evaluate(random_theta(rng, X.shape[1] * (n_classes - 1)), 1e-6)
        assert 0 <= best + 1e-6 - point.elbo <= point.gap
    # Where nothing but the prior counts, it is an equality in the means.
    nothing = bound_of(X * 1e-9, y, n_classes)
    d = X.shape[1] * (n_classes - 1)
    theta = np.column_stack([np.ones(d), np.eye(d)])
    assert nothing.evaluate(theta, 1e-6).gap == pytest.approx(d / 2, rel=1e-6)


def test_the_inverse_root_is_a_lower_triangle(rng):
    A = rng.standard_normal((6, 6))
    precision = A @ A.T + np.eye(6)
    root = inverse_root(precision)
    assert not np.triu(root, 1).any() and (np.diag(root) > 0).all()
    assert_allclose(root @ root.T @ precision, np.eye(6), atol=1e-12)


def test_where_rounding_spoiled_a_precision_the_inverse_root_keeps_to_the_prior():
    assert_allclose(inverse_root(np.diag([4.0, -3, 1])), np.diag([0.5, 1, 1]), atol=1e-12)
    turn = stats.ortho_group(3, seed=np.random.default_rng(1)).rvs()
    root = inverse_root(turn @ np.diag([4.0, -3, 1]) @ turn.T)
    assert not np.triu(root, 1).any() and (np.diag(root) > 0).all()
    assert_allclose(root @ root.T, turn @ np.diag([0.25, 1, 1]) @ turn.T, atol=1e-12)


def test_two_classes_agree_with_aligned_axes_turned_to_their_fixed_point():
    """Theorem of chapter 6: mean field in its own axes is full rank."""
    X, y = problem(60, 2)
    plain = Bound(Rows.of(X, y, 2, None), np.ones((3, 1)))
    axes = principal_axes(X, np.ones((3, 1)))
    for _ in range(5):
        bound = AlignedBound.within(axes, plain)
        point = Search(50).climb(bound, bound.start(), 1e-8, (1e-3, 1e-3, 1e-8))
        settled, axes = axes, axes @ curvature_axes(X @ axes, point.spread)
    aligned = AlignedBound.within(settled, plain).posterior(point)
    full = fit(X, y, family="full-rank", tol=1e-8, accuracy=1e-9)
    assert full.elbo == pytest.approx(aligned.elbo, abs=1e-6)
    assert_allclose(full.mean, aligned.mean, atol=1e-4)
    assert_allclose(full.scale, aligned.scale, rtol=1e-4)
    new = 3 * np.random.default_rng(2).standard_normal((5, 3))
    assert_allclose(full.predict_proba(new), aligned.predict_proba(new), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("n_classes", "n_columns"), [(3, 2), (4, 1)])
def test_more_classes_agree_with_an_optimum_found_another_way(n_classes, n_columns):
    """SciPy climbs an average over many draws of all weights, in an unconstrained triangle."""
    X, y = problem(12, n_classes)
    X = X[:, :n_columns]
    d = n_columns * (n_classes - 1)
    basis, lower = contrast_basis(n_classes), np.tril_indices(d)
    half = stats.qmc.MultivariateNormalQMC(np.zeros(d), seed=np.random.default_rng(4)).random(4096)
    noise = np.concatenate([half, -half])

    def loss(w):
        mean, root = w[:d], np.zeros((d, d))
        root[lower] = w[d:]
        V = (mean + noise @ root.T).reshape(-1, n_columns, n_classes - 1)
        log_probs = special.log_softmax(X @ V @ basis.T, axis=2)
        data = log_probs[:, np.arange(len(y)), y].sum(axis=1).mean()
        pull = np.eye(n_classes)[y] - np.exp(log_probs)
        pull = (X.T @ pull @ basis).reshape(len(noise), d)
        slope = pull.T @ noise / len(noise) - root + np.diag(1 / np.diag(root))
        kl = (mean @ mean + np.sum(root**2) - d) / 2 - np.log(np.abs(np.diag(root))).sum()
        return kl - data, np.concatenate([mean - pull.mean(axis=0), -slope[lower]])

    start = np.concatenate([np.zeros(d), 0.7 * np.eye(d)[lower]])
    best = optimize.minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-5})
    q = fit(X, y, family="full-rank", n_classes=n_classes, tol=1e-6)
    assert q.elbo == pytest.approx(-best.fun, abs=3e-3)  # 8192 draws
    root = np.zeros((d, d))
    root[lower] = best.x[d:]
    cov = np.kron(q.axes, np.eye(n_classes - 1)) @ q.factor
    assert_allclose(cov @ cov.T, root @ root.T, atol=5e-3)
    assert_allclose(q.axes @ q.location, best.x[:d].reshape(n_columns, -1), atol=5e-3)


@pytest.mark.parametrize(
    ("n_classes", "gain"), [(3, 0.563), pytest.param(5, None, marks=pytest.mark.slow)]
)
def test_full_rank_is_never_below_aligned(n_classes, gain, toy):
    X, y = (toy.X, toy.y) if n_classes == 3 else problem(50, n_classes)
    aligned, full = (
        fit(X, y, family=family, n_classes=n_classes, tol=0.02)
        for family in ("aligned", "full-rank")
    )
    assert full.elbo > aligned.elbo - full.gap - aligned.gap
    if gain:  # known from chapter 6's own code
        assert full.elbo - aligned.elbo == pytest.approx(gain, abs=0.02)


def test_turned_inputs_turn_the_answer(rng):
    X, y = problem()
    turn = stats.ortho_group(3, seed=rng).rvs()
    here, there = (fit(inputs, y, family="full-rank", tol=1e-6) for inputs in (X, X @ turn))
    assert there.elbo == pytest.approx(here.elbo, abs=2e-6)
    assert_allclose(turn @ there.mean, here.mean, atol=2e-3)
    assert_allclose(there.predict_proba(X @ turn), here.predict_proba(X), atol=1e-3)


@pytest.mark.slow
def test_five_classes_say_how_far_off_points_may_be():
    X, y = problem(30, 5)
    q = fit(X, y, family="full-rank", n_classes=5, tol=0.05)
    finer = fit(X, y, family="full-rank", n_classes=5, tol=0.01)
    assert q.gap <= 0.05 and abs(q.elbo - finer.elbo) <= q.gap + finer.gap


def test_too_many_contrasts_are_refused(rng):
    X, y = rng.standard_normal((60, 40)), np.arange(60) % 30
    message = r"at most 1000 contrasts, but 40 axes .* and 30 classes have 1160; take"
    with pytest.raises(ValueError, match=message):
        fit(X, y, family="full-rank")


def test_logits_too_wide_are_refused_where_there_are_three_classes():
    X, y = problem()
    with pytest.raises(ValueError, match="standard deviations up to 32, but X has one of"):
        fit(1e4 * X, y, family="full-rank")
    wide = fit(100 * X, y > 0, family="full-rank")
    assert wide.gap <= 1e-3


def test_inputs_of_any_size_keep_to_their_evaluations(rng):
    X, y = rng.standard_normal((8, 3)), rng.integers(2, size=8)
    for size in (1e-100, 1e8, 1e50, 1e130):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            q = fit(size * X, y, n_classes=2, family="full-rank", max_evaluations=60)
        assert len(q.trace) <= 60 and np.isfinite(q.elbo) and np.isfinite(q.scale).all()


def test_a_fit_that_is_cut_short_proves_nothing_but_returns_its_gaussian():
    X, y = problem()
    with pytest.warns(UserWarning, match="gap of inf"):
        q = fit(X, y, family="full-rank", max_evaluations=1)
    assert q.family == "full-rank" and q.gap == np.inf and len(q.trace) == 1
    value = written_out(X, y, 3, np.column_stack([q.location.ravel(), q.factor]))
    assert q.elbo == pytest.approx(value, abs=1e-3 * len(X))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("factor", np.eye(5), r"factor has shape \(5, 5\); expected \(6, 6\)"),
        ("factor", np.ones((6, 6)), "factor must be a lower triangle with a positive diagonal"),
        ("factor", -np.eye(6), "factor must be a lower triangle with a positive diagonal"),
        ("axes", np.eye(2), r"axes has shape \(2, 2\); expected \(M, 3\)"),
        ("prior_precision", -np.ones((3, 1)), "prior_precision must be positive"),
    ],
)
def test_a_damaged_file_is_refused(name, value, message, tmp_path):
    X, y = problem()
    fit(X, y, family="full-rank").save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file) | {name: value}
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "b.npz")


def test_the_classifier_takes_full_rank(tmp_path):
    X, y = problem(60)
    model = VariationalLogisticRegression(family="full-rank").fit(X[:, :2] + [10, -3], y)
    rng = np.random.default_rng(5)
    coef, intercept = model.sample_coef(40_000, rng)
    # Five standard errors of 40,000 draws.
    assert_allclose(coef.std(axis=0), model.coef_scale_, rtol=0.02)
    assert_allclose(intercept.std(axis=0), model.intercept_scale_, rtol=0.02)
    near = 0.025 * model.intercept_scale_.max()
    assert_allclose(intercept.mean(axis=0), model.intercept_, atol=near)
    assert model.summary().shape == (9, 4)
    model.save(tmp_path / "m.npz")
    back = VariationalLogisticRegression.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(back.predict_proba(X[:, :2]), model.predict_proba(X[:, :2]))
