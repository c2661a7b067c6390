"""What is climbed, against dense twins: a fit of few evaluations rests on every part of it."""

import dataclasses

import numpy as np
import oracles
import pytest
from scipy import optimize, special

from vilogit import expected_softmax, fit, rows, simulate
from vilogit.axes import aligned_kl
from vilogit.bound import AlignedBound, Bound, Point, PrincipalBound, tells_nothing
from vilogit.rows import Rows
from vilogit.search import Search

PRIOR = np.array([[0.5], [1.0], [3.0]])


def problem(n=30, n_classes=3, weighted=False, aligned=False, extent=5.0, repeat=1):
    X, y, _ = simulate(np.random.default_rng(2), n, n_classes, extent=extent)
    X[:, 2] *= extent / 5
    X, y = np.repeat(X, repeat, axis=0), np.repeat(y, repeat)
    weight = np.random.default_rng(3).uniform(0.2, 3, n * repeat) if weighted else None
    given = Bound(Rows.of(X, y, n_classes, weight), PRIOR)
    if not aligned:
        return given
    turn = np.linalg.qr(np.random.default_rng(7).standard_normal((3, 3)))[0]
    return AlignedBound.within(turn / np.sqrt(PRIOR), given)


def row_weights(bound):
    return np.ones((len(bound.rows.X), 1)) if bound.rows.weight is None else bound.rows.weight


def centered(mean):
    """Drop what all classes share: no probability sees it, and the search never leaves zero."""
    return mean - mean.mean(axis=1, keepdims=True)


def somewhere(bound, seed=4):
    rng = np.random.default_rng(seed)
    shape = bound.rows.X.shape[1], bound.rows.n_classes
    return np.stack([centered(rng.standard_normal(shape)), rng.normal(-1, 0.5, shape)])


def point_at(bound, theta=None):
    return bound.evaluate(somewhere(bound) if theta is None else theta, 1e-9)


def objective(bound, theta):
    """What is climbed, from the public averages and the divergence written out."""
    mean, log_scale = theta
    var = np.exp(2 * log_scale)
    X, weight = bound.rows.X, row_weights(bound)
    averages = expected_softmax(X @ mean, X**2 @ var, accuracy=1e-9)
    likelihood = np.sum(bound.rows.one_hot() * (X @ mean)) - weight[:, 0] @ averages.log_sum_exp
    kl = bound.prior * mean**2
    kl = kl + bound.kappa * (bound.prior * var - 1 - np.log(bound.prior * var))
    return likelihood - kl.sum() / 2, averages, weight


CASES = {
    "plain": {},
    "weighted": {"weighted": True},
    "aligned": {"aligned": True},
    "two classes": {"n_classes": 2},
    "small inputs": {"extent": 0.1},
    "weighted and aligned": {"weighted": True, "aligned": True},
}
cases = pytest.mark.parametrize("options", CASES.values(), ids=CASES)


@cases
def test_an_evaluation_is_the_bound_its_slope_and_its_gap(options):
    bound = problem(**options)
    assert bound.kappa == (2 / 3 if "aligned" in options else 1)
    theta = somewhere(bound)
    point = bound.evaluate(theta, 1e-9)
    value, averages, weight = objective(bound, theta)
    assert point.elbo == pytest.approx(value, rel=1e-9)
    assert isinstance(point.elbo, float) and isinstance(point.gap, float)
    direction = np.random.default_rng(5).standard_normal(theta.shape)
    slope = oracles.directional_derivative(
        lambda t: objective(bound, t)[0], theta, direction, step=1e-2
    )
    # Values exact to 1e-9 a row, divided by the step; the difference's own error is smaller.
    assert np.vdot(point.slope, direction) == pytest.approx(slope, abs=1e-4)
    np.testing.assert_allclose(point.probs, averages.probs, atol=1e-8)
    np.testing.assert_allclose(point.spread, weight * averages.spread, atol=1e-8)
    curvature = (bound.rows.X**2).T @ (weight * averages.spread)
    np.testing.assert_allclose(point.precision, bound.prior + curvature / bound.kappa)
    # The bound is concave with modulus `prior` in the means and kappa `prior` in the scales.
    scale = np.exp(theta[1])
    gap = point.slope[0] ** 2 + (point.slope[1] / scale) ** 2 / bound.kappa
    assert point.gap == pytest.approx((gap / bound.prior).sum() / 2, rel=1e-9)


@cases
@pytest.mark.parametrize("slab", [1, 21, 89, 90])
def test_slabs_of_rows_add_up(options, slab, monkeypatch):
    bound = problem(**options)
    whole = point_at(bound)
    monkeypatch.setattr(rows, "_IN_CACHE", slab)
    for a, b in zip(whole[1:], point_at(bound)[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_single_precision_serves_the_inputs_only():
    bound = problem()
    single = dataclasses.replace(bound, rows=bound.rows._replace(X=bound.rows.X.astype(np.float32)))
    a, b = (each.evaluate(somewhere(bound), 1e-5) for each in (bound, single))
    assert b.probs.dtype == b.spread.dtype == np.float32
    assert b.slope.dtype == b.precision.dtype == np.float64
    # Thirty rows, each with a relative error of 1e-7 in its logits.
    assert b.elbo == pytest.approx(a.elbo, abs=1e-4)
    np.testing.assert_allclose(b.slope, a.slope, atol=1e-3)


def hessian(bound, point):
    """Dense averaged Hessian in the means, (M D, M D), with J at the average, rescaled."""
    D = bound.rows.n_classes
    H = np.kron(np.diag(bound.prior[:, 0]), np.eye(D))
    for x, p, s in zip(bound.rows.X, point.probs, point.spread, strict=True):
        J = np.diag(p) - np.outer(p, p)
        H += np.kron(np.outer(x, x), J * s.sum() / np.trace(J))
    return H


def solved(metric, point, H, target, rounds=16):
    """The metric's few steps again and again on what they left: as exact as one asks."""
    x = np.zeros_like(target)
    for _ in range(rounds):
        left = target - (H @ x.ravel()).reshape(x.shape)
        x = x + metric.solve(point.probs, point.spread, left)
    return x


@cases
def test_the_metric_solves_with_the_averaged_hessian(options):
    bound = problem(**options)
    point = point_at(bound)
    H = hessian(bound, point)
    step = solved(bound.metric(point), point, H, point.slope[0])
    dense = np.linalg.solve(H, point.slope[0].ravel())
    np.testing.assert_allclose(step.ravel(), dense, rtol=1e-7, atol=1e-9)


@cases
def test_a_few_steps_of_the_metric_bring_a_tenth(options):
    """In the norm in which conjugate gradients are stopped, with room for its own rounding."""
    bound = problem(**options)
    point = point_at(bound)
    target = point.slope[0]
    metric = bound.metric(point)
    step = metric.solve(point.probs, point.spread, target)
    residual = target - (hessian(bound, point) @ step.ravel()).reshape(target.shape)

    def size(r):
        return np.sqrt(np.sum((metric.basis.T @ r) ** 2 / metric.diagonal))

    assert 0 < size(residual) < 0.11 * size(target)
    np.testing.assert_allclose(step.sum(axis=1), 0, atol=1e-12)  # no class is favoured by a shift
    # Stopped as soon as that is reached: the last tenth is not worth its price.
    assert size(residual) > 1e-4 * size(target)


@cases
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_axes_of_the_metric_diagonalise_the_curvature_in_units_of_the_prior(options, size):
    bound = problem(**options)
    point = point_at(bound)
    spread = size * point.spread  # where little is uncertain the prior rules
    metric = bound.metric(point._replace(spread=spread))
    V, diagonal = metric.basis, metric.diagonal
    np.testing.assert_allclose(V.T @ (bound.prior * V), np.eye(3), atol=1e-12)
    gram = V.T @ (bound.rows.X.T * spread.sum(axis=1)) @ bound.rows.X @ V
    of_class = spread.sum(axis=0) / spread.sum()
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-9 * gram.max())
    np.testing.assert_allclose(diagonal, 1 + np.outer(np.diag(gram), of_class), rtol=1e-9)


def test_the_metric_sees_a_sample_of_many_rows_as_all_of_them(monkeypatch):
    """Every third row three times over: from the sample, all are known."""
    monkeypatch.setattr(rows, "_ENOUGH", 60)  # but twenty rows a column at least
    sampled = problem(40, repeat=3)
    assert len(sampled.rows.sample().X) == 60
    monkeypatch.setattr(rows, "_ENOUGH", 40)
    sampled = problem(40, repeat=3)
    assert len(sampled.rows.sample().X) == 60  # the twenty rows a column
    monkeypatch.setattr(rows, "_ENOUGH", 1000)
    whole = problem(40, repeat=3)
    assert len(whole.rows.sample().X) == 120
    thinned = dataclasses.replace(whole, rows=whole.rows._replace(every=3))
    assert len(thinned.rows.sample().X) == 40
    theta = somewhere(whole)
    points = point_at(whole, theta), point_at(thinned, theta)
    for a, b in zip(points[0][1:5], points[1][1:5], strict=True):
        np.testing.assert_array_equal(a, b)
    steps = [
        bound.metric(point).direction(point, point.slope)
        for bound, point in zip((whole, thinned), points, strict=True)
    ]
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-6, atol=1e-9)
    # The start sees the sample alone, with a third of the prior.
    few = dataclasses.replace(problem(40), prior=PRIOR / 3).start()
    np.testing.assert_allclose(thinned.start()[0], few[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(thinned.start()[1], few[1] - np.log(3) / 2, rtol=1e-9)


@pytest.mark.parametrize("slab", [3, 7, 30, 1000])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_slabs_keep_the_averages_of_the_sample_and_no_others(slab, every, monkeypatch):
    bound = problem(weighted=True)
    thinned = dataclasses.replace(bound, rows=bound.rows._replace(every=every))
    whole = point_at(bound)
    monkeypatch.setattr(rows, "_IN_CACHE", slab)
    point = point_at(thinned)
    np.testing.assert_allclose(point.probs, whole.probs[::every], rtol=1e-12)
    np.testing.assert_allclose(point.spread, whole.spread[::every], rtol=1e-12)
    np.testing.assert_array_equal(thinned.rows.sample().X, bound.rows.X[::every])
    np.testing.assert_array_equal(thinned.rows.sample().weight, bound.rows.weight[::every])


@cases
def test_the_scales_would_go_to_their_fixed_point(options):
    bound = problem(**options)
    point = point_at(bound)
    metric = bound.metric(point)
    direction = metric.direction(point, point.slope)
    np.testing.assert_allclose(
        point.theta[1] + direction[1], -np.log(point.precision) / 2, rtol=1e-9
    )
    step = metric.solve(point.probs, point.spread, point.slope[0])
    np.testing.assert_array_equal(direction[0], step)
    # At the fixed point both are zero over zero; near it, the limit.
    there = np.stack([point.theta[0], -np.log(point.precision) / 2])
    for off in (0, 2e-5, 1e-3):
        theta = np.stack([there[0], there[1] + off])
        slope = np.full_like(there, bound.kappa * (1 - np.exp(2 * off)))
        step = metric.direction(point._replace(theta=theta), slope)[1]
        np.testing.assert_allclose(step, -off, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize(("scale", "share"), [(0.5, 1), (2.5, 1), (-5.0, 0.5), (10.0, 0.25)])
def test_no_log_scale_leaps(scale, share):
    way = np.zeros((2, 3, 3))
    way[0], way[1, 1, 2] = 100.0, scale  # means may go as far as they like
    assert problem().longest(way) == pytest.approx(share)


def loss(bound, W):
    """Minus the log of the posterior's density at these weights, and its gradient, flat."""
    X, Y, weight = bound.rows.X, bound.rows.one_hot(), row_weights(bound)
    logits = X @ W
    value = weight[:, 0] @ special.logsumexp(logits, axis=1) - np.sum(Y * logits)
    slope = X.T @ (weight * special.softmax(logits, axis=1) - Y) + bound.prior * W
    return value + np.sum(bound.prior * W**2) / 2, slope.ravel()


@cases
@pytest.mark.parametrize("size", [0.3, 1.0, 3.0])
def test_the_start_is_near_the_most_probable_weights(options, size):
    bound = problem(**options)
    bound = dataclasses.replace(bound, rows=bound.rows._replace(X=size * bound.rows.X))
    start = bound.start()
    best = optimize.minimize(
        lambda w: loss(bound, w.reshape(3, -1)), np.zeros(start[0].size), jac=True
    ).fun
    # The last step brought half a nat at most, and those to come bring far less each.
    assert best - 1e-6 <= loss(bound, start[0])[0] < best + 1
    X = bound.rows.X
    probs = special.softmax(X @ start[0], axis=1)
    spread = row_weights(bound) * probs * (1 - probs)
    precision = bound.prior + (X**2).T @ spread / bound.kappa
    np.testing.assert_allclose(start[1], -np.log(precision) / 2, rtol=1e-9)


@cases
def test_the_start_ends_where_newtons_step_brings_less_than_half_a_nat(options):
    """A step more is not worth its price: the search sees the averages as well."""
    bound = problem(**options)
    start = bound.start()[0]
    X = bound.rows.X
    probs = special.softmax(X @ start, axis=1)
    spread = row_weights(bound) * probs * (1 - probs)
    here = Point(bound.start(), 0.0, np.zeros((2, 3, 3)), 0.0, np.ones((3, 3)), probs, spread)
    H = hessian(bound, here)
    step = np.linalg.solve(H, -loss(bound, start)[1]).reshape(start.shape)
    brought = loss(bound, start)[0] - loss(bound, start + step)[0]
    assert brought < 0.6  # a tenth more than the step that the metric leaves out
    assert loss(bound, 0 * start)[0] - loss(bound, start)[0] > 0.5 or not start.any()


@cases
def test_the_scales_of_the_optimum_are_in_reach_and_none_far_off(options):
    bound = problem(**options)
    square = np.sum(row_weights(bound) * bound.rows.X**2, axis=0)[:, None]
    ends = bound.prior + np.stack([square / 4 / bound.kappa, 0 * square])
    low, high = -np.log(ends) / 2 * np.ones((1, 1, bound.rows.n_classes))
    np.testing.assert_allclose(bound.in_reach(low - 1e9), low, rtol=1e-12)
    np.testing.assert_allclose(bound.in_reach(high + 1e9), high, rtol=1e-12)
    best = Search(200).climb(bound, bound.start(), 1e-6, (1e-8, 1e-8, 1e-8)).theta[1]
    np.testing.assert_array_equal(bound.in_reach(best), best)


def test_the_smallest_scales_in_reach_are_those_of_labels_as_open_as_can_be():
    bound = Bound(Rows.of(np.array([[2.0]]), np.array([0]), 2, None), np.array([[1e6]]))
    best = Search(50).climb(bound, bound.start(), 1e-12, (1e-9, 1e-9, 1e-9)).theta[1]
    np.testing.assert_allclose(bound.in_reach(best - 1), best, rtol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("every", [1, 3])
def test_weights_tell_nothing_where_none_are_more_probable(weighted, every):
    """On the way from zero through the most probable weights, up to where it is level again."""
    bound = problem(weighted=weighted)
    W = optimize.minimize(lambda w: loss(bound, w.reshape(3, -1)), np.zeros(9), jac=True).x
    W = W.reshape(3, 3)
    zero = loss(bound, 0 * W)[0]
    level = optimize.brentq(lambda t: loss(bound, t * W)[0] - zero, 1, 100)
    rows = bound.rows._replace(X=np.repeat(bound.rows.X, every, axis=0))
    rows = rows._replace(y=np.repeat(rows.y, every), every=every)
    if weighted:
        rows = rows._replace(weight=np.repeat(rows.weight, every, axis=0))
    for share, nothing in ((0.9, False), (1 / level, False), (0.999, False), (1.001, True)):
        assert tells_nothing(rows, every * PRIOR, share * level * W) == nothing
    assert tells_nothing(rows, PRIOR, 0 * W) and tells_nothing(rows, PRIOR, -W)
    with np.errstate(over="ignore", invalid="ignore"):
        assert tells_nothing(rows, PRIOR, 1e300 * W)


def test_a_start_begins_in_the_axes_of_its_posterior():
    """Its own axes where the prior is a multiple of the old, each curvature in the new units."""
    plain = problem(n=60)
    X, y = plain.rows.X, plain.rows.y
    old = fit(X, y, family="aligned", prior_precision=PRIOR[:, 0], tol=1e-6, accuracy=1e-8)
    for factor in (1.0, 4.0):
        first = PrincipalBound.of(plain.rows, factor * PRIOR)
        bound, theta = first.resumed(old)
        assert bound.provisional
        # Columns are known up to sign and order.
        turn = np.sqrt(factor) * bound.axes.T @ (PRIOR * old.axes)
        np.testing.assert_allclose(np.sort(np.abs(turn), axis=1), [[0, 0, 1]] * 3, atol=0.03)
        np.testing.assert_allclose(bound.axes @ theta[0], old.mean, rtol=1e-9, atol=1e-12)
        order = np.abs(turn).argmax(axis=1)
        precision = 1 + (old.width**-2 - 1) / factor
        np.testing.assert_allclose(np.exp(-2 * theta[1]), precision[order], rtol=0.01)
        np.testing.assert_allclose(bound.rows.X, X @ bound.axes)


def test_a_start_keeps_what_its_data_told_under_a_prior_of_another_shape():
    plain = problem(n=60)
    X, y = plain.rows.X, plain.rows.y
    old = fit(X, y, family="aligned", prior_precision=PRIOR[:, 0])
    new = np.array([[2.0], [0.1], [3.0]])
    bound, theta = PrincipalBound.of(plain.rows, new).resumed(old)
    inverse = np.linalg.inv(old.axes)
    for d in range(3):
        told = inverse.T @ np.diag(old.width[:, d] ** -2) @ inverse - np.diag(PRIOR[:, 0])
        precision = bound.axes.T @ (told + np.diag(new[:, 0])) @ bound.axes
        np.testing.assert_allclose(np.exp(-2 * theta[1][:, d]), np.diag(precision), rtol=1e-6)
    np.testing.assert_allclose(bound.axes.T @ (new * bound.axes), np.eye(3), atol=1e-9)


def test_a_start_whose_curvature_overflows_is_left_out():
    plain = problem(n=20)
    old = fit(plain.rows.X, plain.rows.y, family="aligned", n_classes=3)
    first = PrincipalBound.of(plain.rows, PRIOR)
    wild = dataclasses.replace(old, rho=np.full((3, 3), -400.0))
    with np.errstate(over="ignore", invalid="ignore"):
        bound, theta = first.resumed(wild)
    assert bound is first
    np.testing.assert_array_equal(theta, first.start())


def test_a_point_in_the_axes_becomes_its_gaussian():
    """The bound's divergence is taken off, the exact one put on."""
    bound = problem(aligned=True)
    point = point_at(bound)
    posterior = bound.posterior(point, ((1.0, 2.0),))
    mean, var = point.theta[0], np.exp(2 * point.theta[1])
    Z = bound.rows.X
    averages = expected_softmax(Z @ mean, Z**2 @ var, accuracy=1e-9)
    likelihood = np.sum(bound.rows.one_hot() * (Z @ mean)) - averages.log_sum_exp.sum()
    assert posterior.elbo == pytest.approx(likelihood - aligned_kl(mean, var), rel=1e-9)
    assert isinstance(posterior.elbo, float)
    np.testing.assert_allclose(posterior.location, mean)
    np.testing.assert_allclose(posterior.width, np.sqrt(var), rtol=1e-12)
    assert posterior.gap == point.gap and posterior.trace == ((1.0, 2.0),)
    assert posterior.axes is bound.axes and posterior.prior_precision is bound.plain.prior


def test_rows_of_weight_zero_are_left_out_and_no_copy_is_made_without_weights():
    X, y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 1, 0])
    some = Rows.of(X, y, 2, np.array([0.0, 2, 0, 1]))
    np.testing.assert_array_equal(some.X, X[[1, 3]])
    np.testing.assert_array_equal(some.one_hot(), [[0, 2], [1, 0]])
    np.testing.assert_allclose(some.gram_root().T @ some.gram_root(), 2 * np.outer(X[1], X[1])
                               + np.outer(X[3], X[3]))  # fmt: skip
    assert Rows.of(X, y, 2, None).X is X


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_have_one_type(dtype):
    X, y, _ = simulate(np.random.default_rng(1))
    some = Rows.of(X.astype(dtype), y, 3, 1.0 + y)
    assert some.X.dtype == some.weight.dtype == some.one_hot().dtype == dtype
    assert some.turned(np.eye(3)).X.dtype == some.gram_root().dtype == dtype
