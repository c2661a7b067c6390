"""The pieces of the search, each against a dense twin: what a fit of few evaluations rests on."""

import itertools
import warnings

import numpy as np
import oracles
import pytest
from scipy import optimize, special
from test_solver import SETS

from vilogit import expected_softmax, fit, one_hot, simulate, solver
from vilogit.axes import aligned_kl, shift_factor
from vilogit.solver import _evaluate, _Point, _Problem

PRIOR = np.array([[0.5], [1.0], [3.0]])


def problem(n=30, n_classes=3, weighted=False, kappa=1.0, extent=5.0):
    X, y, _ = simulate(np.random.default_rng(2), n, n_classes, extent=extent)
    X[:, 2] *= extent / 5
    Y, weight = one_hot(y, n_classes), None
    if weighted:
        weight = np.random.default_rng(3).uniform(0.2, 3, (n, 1))
        Y = Y * weight
    return _Problem(X, Y, PRIOR, kappa, weight)


def centered(mean):
    """Drop what all classes share: no probability sees it, and the search never leaves zero."""
    return mean - mean.mean(axis=1, keepdims=True)


def somewhere(given, seed=4):
    rng = np.random.default_rng(seed)
    shape = given.X.shape[1], given.Y.shape[1]
    return np.stack([centered(rng.standard_normal(shape)), rng.normal(-1, 0.5, shape)])


def objective(given, theta):
    """What `_evaluate` climbs, from the public averages and the divergence written out."""
    mean, log_scale = theta
    var = np.exp(2 * log_scale)
    weight = np.ones((len(given.X), 1)) if given.weight is None else given.weight
    m, v = given.X @ mean, given.X**2 @ var
    averages = expected_softmax(m, v, accuracy=1e-9)
    likelihood = np.sum(given.Y * m) - weight[:, 0] @ averages.log_sum_exp
    kl = given.prior * mean**2
    kl = kl + given.kappa * (given.prior * var - 1 - np.log(given.prior * var))
    return likelihood - kl.sum() / 2, averages, weight


CASES = {
    "plain": {},
    "weighted": {"weighted": True},
    "aligned": {"kappa": shift_factor(3)},
    "two classes": {"n_classes": 2},
    "small inputs": {"extent": 0.1},
    "weighted and aligned": {"weighted": True, "kappa": shift_factor(3)},
}
cases = pytest.mark.parametrize("options", CASES.values(), ids=CASES)


@cases
def test_an_evaluation_is_the_elbo_its_slope_and_its_gap(options):
    given = problem(**options)
    theta = somewhere(given)
    point = _evaluate(given, theta, 1e-9)
    value, averages, weight = objective(given, theta)
    assert point.elbo == pytest.approx(value, rel=1e-9)
    assert isinstance(point.elbo, float) and isinstance(point.gap, float)
    direction = np.random.default_rng(5).standard_normal(theta.shape)
    slope = oracles.directional_derivative(
        lambda t: objective(given, t)[0], theta, direction, step=1e-2
    )
    # Values exact to 1e-9 a row, divided by the step; the difference's own error is smaller.
    assert np.vdot(point.slope, direction) == pytest.approx(slope, abs=1e-4)
    np.testing.assert_allclose(point.probs, averages.probs, atol=1e-8)
    np.testing.assert_allclose(point.spread, weight * averages.spread, atol=1e-8)
    np.testing.assert_allclose(
        point.precision, PRIOR + (given.X**2).T @ (weight * averages.spread) / given.kappa
    )
    # The ELBO is concave with modulus `prior` in the means and kappa `prior` in the scales.
    scale = np.exp(theta[1])
    gap = point.slope[0] ** 2 / PRIOR + (point.slope[1] / scale) ** 2 / (given.kappa * PRIOR)
    assert point.gap == pytest.approx(gap.sum() / 2, rel=1e-9)


@cases
@pytest.mark.parametrize("slab", [1, 21, 89, 90])
def test_slabs_of_rows_add_up(options, slab, monkeypatch):
    given = problem(**options)
    whole = _evaluate(given, somewhere(given), 1e-9)
    monkeypatch.setattr(solver, "_SLAB", slab)
    assert sum(len(given.X[rows]) for rows in given.slabs()) == len(given.X)
    assert max(len(given.X[rows]) for rows in given.slabs()) == max(1, slab // 3)
    parts = _evaluate(given, somewhere(given), 1e-9)
    for a, b in zip(whole[1:], parts[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_averages_are_asked_for_in_the_type_of_the_inputs(dtype, monkeypatch):
    """With weights never in single precision: a weight of 2 is a row given twice."""
    seen, averages = [], solver.averages

    def noted(mean, var, accuracy, single):
        seen.append((mean.dtype, var.dtype, accuracy, single))
        return averages(mean, var, accuracy, single)

    monkeypatch.setattr(solver, "averages", noted)
    for weighted in (False, True):
        given = problem(weighted=weighted)
        _evaluate(given._replace(X=given.X.astype(dtype)), somewhere(given), 1e-2)
    assert seen == [(dtype, dtype, 1e-2, True), (dtype, dtype, 1e-2, False)]


def test_single_precision_serves_the_inputs_only():
    given = problem()
    single = given._replace(X=given.X.astype(np.float32), Y=given.Y.astype(np.float32))
    theta = somewhere(given)
    a, b = _evaluate(given, theta, 1e-5), _evaluate(single, theta, 1e-5)
    assert b.probs.dtype == b.spread.dtype == np.float32
    assert b.slope.dtype == b.precision.dtype == np.float64
    # Thirty rows, each with a relative error of 1e-7 in its logits.
    assert b.elbo == pytest.approx(a.elbo, abs=1e-4)
    np.testing.assert_allclose(b.slope, a.slope, atol=1e-3)


def point_at(given, theta=None):
    return _evaluate(given, somewhere(given) if theta is None else theta, 1e-9)


def hessian(given, point):
    """Dense averaged Hessian in the means, (M D, M D), with J at the average, rescaled."""
    D = point.slope[0].shape[1]
    H = np.kron(np.diag(given.prior[:, 0]), np.eye(D))
    for x, p, s in zip(given.X, point.probs, point.spread, strict=True):
        J = np.diag(p) - np.outer(p, p)
        H += np.kron(np.outer(x, x), J * s.sum() / np.trace(J))
    return H


@pytest.fixture
def exact_newton(monkeypatch):
    monkeypatch.setattr(solver, "_CG_ERROR", 1e-9)  # far below it only rounding is left
    monkeypatch.setattr(solver, "_CG_STEPS", 100)


def newton(given, point, target):
    axes = solver._curvature_axes(given, point.spread)
    return solver._newton(given, point.probs, point.spread, axes, target)


@cases
def test_newton_solves_with_the_averaged_hessian(options, exact_newton):
    given = problem(**options)
    point = point_at(given)
    step = newton(given, point, point.slope[0])
    dense = np.linalg.solve(hessian(given, point), point.slope[0].ravel())
    np.testing.assert_allclose(step.ravel(), dense, rtol=1e-7, atol=1e-9)


@cases
def test_a_few_steps_of_newton_bring_a_tenth(options):
    """In the norm in which conjugate gradients are stopped, with room for its own rounding."""
    given = problem(**options)
    point = point_at(given)
    target = point.slope[0]
    V, diagonal = solver._curvature_axes(given, point.spread)
    step = newton(given, point, target)
    residual = target - (hessian(given, point) @ step.ravel()).reshape(target.shape)

    def size(r):
        return np.sqrt(np.sum((V.T @ r) ** 2 / diagonal))

    assert 0 < size(residual) < 0.11 * size(target)
    np.testing.assert_allclose(step.sum(axis=1), 0, atol=1e-12)  # no class is favoured by a shift
    # Stopped as soon as that is reached: the last tenth is not worth its price.
    assert size(residual) > 1e-4 * size(target)


def test_conjugate_gradients_without_a_digit_left_keep_what_they_have():
    rng = np.random.default_rng(1)
    X = 1e17 * rng.standard_normal((1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solver.ConvergenceWarning)
        posterior = fit(X, rng.integers(2, size=1), n_classes=2, max_evaluations=60)
    assert np.isfinite(posterior.mean).all() and np.isfinite(posterior.elbo)


@cases
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_axes_of_the_curvature_diagonalise_it_in_units_of_the_prior(options, size):
    given = problem(**options)
    spread = size * point_at(given).spread  # where little is uncertain the prior rules
    V, diagonal = solver._curvature_axes(given, spread)
    np.testing.assert_allclose(V.T @ (PRIOR * V), np.eye(3), atol=1e-12)
    gram = V.T @ (given.X.T * spread.sum(axis=1)) @ given.X @ V
    share = spread.sum(axis=0) / spread.sum()
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-9 * gram.max())
    np.testing.assert_allclose(diagonal, 1 + np.outer(np.diag(gram), share), rtol=1e-9)


def test_the_metric_sees_a_sample_of_many_rows_as_all_of_them(monkeypatch, exact_newton):
    """Every third row three times over: from the sample, all are known."""
    few = problem(40)
    thrice = _Problem(np.repeat(few.X, 3, axis=0), np.repeat(few.Y, 3, axis=0), PRIOR)
    monkeypatch.setattr(solver, "_ROWS", 100)
    assert len(thrice.X[solver._sample(thrice)]) == 120
    monkeypatch.setattr(solver, "_ROWS", 40)
    assert len(thrice.X[solver._sample(thrice)]) == 60  # twenty rows a column are kept at least
    wide = thrice._replace(X=thrice.X[:, :2], prior=PRIOR[:2])
    assert len(wide.X[solver._sample(wide)]) == 40
    theta = somewhere(wide)
    point = point_at(wide, theta)
    sampled = newton(wide, point, point.slope[0]), *solver._curvature_axes(wide, point.spread)
    start = solver._start(wide)
    monkeypatch.setattr(solver, "_ROWS", 1000)
    whole = newton(wide, point, point.slope[0]), *solver._curvature_axes(wide, point.spread)
    for a, b in zip(sampled, whole, strict=True):
        np.testing.assert_allclose(np.abs(a), np.abs(b), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(start, solver._start(wide), rtol=1e-6, atol=1e-9)


@cases
def test_without_memory_the_scales_go_to_their_fixed_point(options):
    given = problem(**options)
    point = point_at(given)
    axes = solver._curvature_axes(given, point.spread)
    direction = solver._direction(given, point, axes, [])
    np.testing.assert_allclose(
        point.theta[1] + direction[1], -np.log(point.precision) / 2, rtol=1e-9
    )
    np.testing.assert_array_equal(direction[0], newton(given, point, point.slope[0]))
    # At the fixed point both are zero over zero; near it, the limit.
    there = np.stack([point.theta[0], -np.log(point.precision) / 2])
    for off in (0, 2e-5, 1e-3):
        theta = np.stack([there[0], there[1] + off])
        slope = np.full_like(there, given.kappa * (1 - np.exp(2 * off)))
        moved = point._replace(theta=theta, slope=slope)
        step = solver._direction(given, moved, axes, [])[1]
        np.testing.assert_allclose(step, -off, rtol=1e-3, atol=1e-12)


def test_memory_is_that_of_bfgs(exact_newton):
    """Against the update of the dense inverse (Nocedal and Wright, 2006, equation 6.17)."""
    given = problem()
    point = point_at(given)
    axes = solver._curvature_axes(given, point.spread)
    size = point.slope.size
    rng = np.random.default_rng(6)

    def direction(slope, pairs):
        slope = np.stack([centered(slope[0]), slope[1]])
        return solver._direction(given, point._replace(slope=slope), axes, pairs)

    # Unit vectors give the metric of the search without memory.
    units = np.eye(size).reshape(size, *point.slope.shape)
    B = np.stack([direction(unit, []).ravel() for unit in units], axis=1)
    pairs = []
    for _ in range(3):
        s = rng.standard_normal(point.slope.shape)
        y = s * rng.uniform(1, 2, s.shape)
        s[0], y[0] = centered(s[0]), centered(y[0])
        pairs.append((s, y))
        s, y = s.ravel(), y.ravel()
        left = np.eye(size) - np.outer(s, y) / (s @ y)
        B = left @ B @ left.T + np.outer(s, s) / (s @ y)
    slope = rng.standard_normal(point.slope.shape)
    np.testing.assert_allclose(
        direction(slope, pairs).ravel(), B @ slope.ravel(), rtol=1e-5, atol=1e-7
    )
    # The secant condition: what the last step changed in the slope calls for that step.
    np.testing.assert_allclose(direction(pairs[-1][1], pairs), pairs[-1][0], atol=1e-7)


class Hill:
    """A concave stand-in for the ELBO along one direction, which counts what is asked of it."""

    def __init__(self, top, error=0.0):
        self.top, self.error, self.asked = top, error, []

    def __call__(self, theta, accuracy):
        t = theta[0, 0, 0]
        self.asked.append((t, accuracy))
        slope = np.zeros((2, 1, 1))
        slope[0] = self.top - t
        return _Point(theta, -((self.top - t) ** 2) / 2 + self.error * (t > 0), slope)


def search(hill, length=1.0, scale=0.0, finer=False, left=lambda: 1):
    start = hill(np.zeros((2, 1, 1)), 1.0)
    direction = np.array([[[length]], [[scale]]])
    hill.asked.clear()
    found = solver._search(hill, left, start, direction, 0.5, finer)
    assert all(accuracy == 0.5 for _, accuracy in hill.asked)
    return found, [t for t, _ in hill.asked]


def test_a_step_that_still_climbs_at_its_end_is_taken():
    # Even where the value, of another accuracy, seems to have dropped.
    for hill in (Hill(5.0), Hill(1.0), Hill(5.0, -100), Hill(1.5, -100), Hill(1.0, -100)):
        found, asked = search(hill)
        assert found is not None and asked == [1]


def test_a_step_beyond_the_top_is_taken_where_the_value_rose_enough():
    assert search(Hill(0.6))[1] == [1]  # from -0.18 to -0.08
    assert search(Hill(0.4))[1] == [1, 0.5]  # from -0.08 to -0.18: half way is better
    assert search(Hill(0.2))[1] == [1, 0.5, 0.25]
    # A ten-thousandth of what the slope promised is asked for.
    rise = 0.6
    dropped = -(0.18 - 0.08) + 1e-4 * rise
    assert search(Hill(0.6, error=dropped + 1e-6))[1] == [1]
    assert search(Hill(0.6, error=dropped - 1e-6))[1] == [1, 0.5]
    # Half way, half as much: 0.025 more than -0.045, less what the error takes.
    half = -0.025 + 1e-4 * 0.5 * 0.3
    assert search(Hill(0.3, error=half + 1e-6))[1] == [1, 0.5]
    assert search(Hill(0.3, error=half - 1e-6))[1] == [1, 0.5, 0.25]


def test_values_of_unlike_accuracy_are_not_compared():
    assert search(Hill(0.7, error=-100), finer=True)[1] == [1]  # the slope turned by less than half
    assert search(Hill(0.6), finer=True)[1] == [1, 0.5]  # by more


def test_a_search_gives_up_where_nothing_rises_or_nothing_is_left():
    assert search(Hill(-1.0)) == (None, [])
    assert search(Hill(1.0, error=0), length=-1.0) == (None, [])
    assert search(Hill(1.0), left=lambda: 0) == (None, [])
    found, asked = search(Hill(1e-9, error=-1.0))
    assert found is None and len(asked) == 20  # down to a millionth of the step
    hill = Hill(0.2)
    found, asked = search(hill, left=lambda: 2 - len(hill.asked))
    assert found is None and asked == [1, 0.5]


@pytest.mark.parametrize(("scale", "first"), [(0.5, 1), (2.5, 1), (-5.0, 0.5), (10.0, 0.25)])
def test_no_log_scale_leaps(scale, first):
    assert search(Hill(9.0), scale=scale)[1] == [pytest.approx(first)]


def row_weights(given):
    return np.ones((len(given.X), 1)) if given.weight is None else given.weight


def loss(given, W):
    """Minus the log of the posterior's density at these weights, and its gradient, flat."""
    weight, logits = row_weights(given), given.X @ W
    value = weight[:, 0] @ special.logsumexp(logits, axis=1) - np.sum(given.Y * logits)
    slope = given.X.T @ (weight * special.softmax(logits, axis=1) - given.Y) + PRIOR * W
    return value + np.sum(PRIOR * W**2) / 2, slope.ravel()


@cases
def test_the_start_is_near_the_most_probable_weights(options):
    given = problem(**options)
    start = solver._start(given)
    best = optimize.minimize(
        lambda w: loss(given, w.reshape(3, -1)), np.zeros(start[0].size), jac=True
    ).fun
    # The last step brought half a nat at most, and those to come bring far less each.
    assert best - 1e-6 <= loss(given, start[0])[0] < best + 1
    probs = special.softmax(given.X @ start[0], axis=1)
    spread = row_weights(given) * probs * (1 - probs)
    precision = PRIOR + (given.X**2).T @ spread / given.kappa
    np.testing.assert_allclose(start[1], -np.log(precision) / 2, rtol=1e-9)


@cases
@pytest.mark.parametrize("size", [0.3, 1.0, 3.0])
def test_the_start_is_left_where_a_step_brings_less_than_half_a_nat(options, size, monkeypatch):
    given = problem(**options)
    given = given._replace(X=size * given.X)
    steps, solve = [], solver._newton
    monkeypatch.setattr(
        solver, "_newton", lambda *arguments: steps.append(solve(*arguments)) or steps[-1]
    )
    start = solver._start(given)[0]
    means = [np.zeros_like(start), *np.cumsum(steps, axis=0)]
    brought = -np.diff([loss(given, mean)[0] for mean in means])
    assert 1 <= len(brought) < 8
    assert (brought[:-1] > 0.5).all() and brought[-1] <= 0.5
    np.testing.assert_allclose(start, means[-2], atol=1e-12)


def test_the_first_step_of_the_start_is_newtons(monkeypatch, exact_newton):
    given = problem()
    monkeypatch.setattr(solver, "_NEWTON_STEPS", 2)
    n, D = given.Y.shape
    flat = _Point(None, probs=np.full((n, D), 1 / D), spread=np.full((n, D), (1 - 1 / D) / D))
    slope = given.X.T @ (given.Y - 1 / D)
    step = np.linalg.solve(
        hessian(given, flat._replace(slope=np.stack([slope, slope]))), slope.ravel()
    )
    np.testing.assert_allclose(solver._start(given)[0].ravel(), step, rtol=1e-6, atol=1e-9)


def test_a_point_in_the_axes_becomes_its_gaussian():
    """The bound's divergence is taken off, the exact one put on."""
    given = problem(kappa=shift_factor(3))._replace(prior=np.ones((3, 1)))
    point = _evaluate(given, somewhere(given), 1e-9)
    axes, prior = np.linalg.qr(np.random.default_rng(7).standard_normal((3, 3)))[0], np.ones((3, 1))
    posterior = solver._aligned(point, axes, prior, ((1.0, 2.0),))
    mean, var = point.theta[0], np.exp(2 * point.theta[1])
    m, v = given.X @ mean, given.X**2 @ var
    averages = expected_softmax(m, v, accuracy=1e-9)
    likelihood = np.sum(given.Y * m) - averages.log_sum_exp.sum()
    assert posterior.elbo == pytest.approx(likelihood - aligned_kl(mean, var), rel=1e-9)
    assert isinstance(posterior.elbo, float)
    np.testing.assert_allclose(posterior.q.mean, mean)
    np.testing.assert_allclose(posterior.q.scale, np.sqrt(var), rtol=1e-12)
    assert posterior.gap == point.gap and posterior.trace == ((1.0, 2.0),)
    assert posterior.axes is axes and posterior.prior_precision is prior


@pytest.fixture
def evaluations(monkeypatch):
    """Every evaluation of a fit: the problem, its accuracy, and the gap that it found."""
    seen, evaluate = [], solver._evaluate

    def noted(given, theta, accuracy):
        point = evaluate(given, theta, accuracy)
        seen.append((given, accuracy, point.gap))
        return point

    monkeypatch.setattr(solver, "_evaluate", noted)
    return seen


@pytest.mark.parametrize("name", ["toy", "wine", "separable", "breast cancer"])
def test_averages_get_finer_as_the_gap_closes(name, evaluations):
    X, y = SETS[name]()
    posterior = fit(X, y)
    accuracies = [accuracy for _, accuracy, _ in evaluations]
    gaps = [gap for *_, gap in evaluations]
    assert gaps == [record.gap for record in posterior.trace]
    loose = 1e-3 if name == "breast cancer" else 3e-2  # two classes are cheap
    assert accuracies[0] == loose and accuracies[-1] == 1e-5
    assert set(accuracies) <= {loose, 1e-3, 1e-5}
    assert accuracies == sorted(accuracies, reverse=True)
    for (before, after), gap in zip(itertools.pairwise(accuracies), gaps, strict=False):
        assert after <= 1e-3 if gap < 1 else after == before
        # The finest are for the proof alone.
        assert (after == 1e-5) == (gap <= 1e-3 or before == 1e-5)


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [(0.1, {0.1}), (1e-2, {3e-2, 1e-2}), (1e-4, {3e-2, 1e-3, 1e-4}), (1e-9, {3e-2, 1e-3, 1e-9})],
)
def test_averages_are_as_fine_as_asked_for_in_the_end(accuracy, expected, evaluations):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(*SETS["wine"](), accuracy=accuracy)
    assert {accuracy for _, accuracy, _ in evaluations} == expected
    assert evaluations[-1][1] == accuracy


def test_where_rounding_hides_the_way_up_the_search_looks_closer(evaluations):
    X, y = SETS["wine"]()
    posterior = fit(X, y, tol=1e-7)
    assert posterior.gap <= 1e-7
    accuracies = [accuracy for _, accuracy, _ in evaluations]
    assert accuracies[-1] in (1e-5, 1e-8) and len(accuracies) <= 20


@pytest.mark.parametrize("most", [1, 2, 3, 4, 9])
def test_a_search_that_finds_nothing_is_tried_with_finer_averages_then_given_up(
    most, evaluations, monkeypatch
):
    monkeypatch.setattr(solver, "_search", lambda *_: None)
    with pytest.warns(solver.ConvergenceWarning, match=f"after {min(most, 4)} evaluations"):
        fit(*SETS["toy"](), max_evaluations=most)
    assert [accuracy for _, accuracy, _ in evaluations] == [3e-2, 1e-3, 1e-5, 1e-8][:most]


def test_a_search_is_told_when_its_averages_are_finer_than_those_before(monkeypatch):
    seen, search = [(3e-2, False)], solver._search

    def noted(evaluate, left, point, direction, accuracy, finer):
        seen.append((accuracy, finer))
        return search(evaluate, left, point, direction, accuracy, finer)

    monkeypatch.setattr(solver, "_search", noted)
    fit(*SETS["wine"]())
    finer = [after[0] < before[0] for before, after in itertools.pairwise(seen)]
    assert [told for _, told in seen[1:]] == finer and sum(finer) == 1


def test_the_first_axes_are_left_within_a_nat(evaluations):
    X, y = SETS["wine"]()
    posterior = fit(X, y, family="aligned")
    axes = [given.X for given, _, _ in evaluations]
    first = [k for k, Z in enumerate(axes) if Z is axes[0]]
    assert first == list(range(len(first)))  # never again
    assert all(Z is axes[-1] for Z in axes[len(first) :])
    np.testing.assert_allclose(axes[-1], X @ posterior.axes)
    gaps = [gap for *_, gap in evaluations]
    assert gaps[first[-1]] <= 1 < gaps[first[-2]]
    assert {accuracy for _, accuracy, _ in evaluations[: len(first)]} == {3e-2}
    # The second start is near the end of the first climb, and no farther than a nat or two.
    assert gaps[len(first)] < 2
    for given, _, _ in evaluations:
        assert given.kappa == shift_factor(3)
        np.testing.assert_array_equal(given.prior, np.ones((posterior.axes.shape[1], 1)))


@pytest.fixture
def directions(monkeypatch):
    seen, direction = [], solver._direction

    def noted(given, point, axes, pairs):
        seen.append((axes, list(pairs)))
        return direction(given, point, axes, pairs)

    monkeypatch.setattr(solver, "_direction", noted)
    return seen


def test_the_search_remembers_the_last_six_steps(directions):
    X = np.repeat([[-9.0, 1.0], [9.0, 1.0]], 40, axis=0) * np.linspace(0.8, 1, 80)[:, None]
    fit(X, np.repeat([0, 1], 40), prior_precision=1e-4)
    sizes = [len(pairs) for _, pairs in directions]
    assert sizes[0] == 0 and max(sizes) == 6
    assert all(np.vdot(s, y) > 0 for _, pairs in directions for s, y in pairs)


def test_the_metric_is_made_anew_after_three_steps(directions):
    fit(*SETS["separable"]())
    metrics = [id(axes) for axes, _ in directions]
    assert metrics[:3] == metrics[:1] * 3 and metrics[3:] == metrics[3:4] * len(metrics[3:])
    assert metrics[0] != metrics[3]


@pytest.mark.parametrize("family", ["mean-field", "aligned"])
def test_inputs_of_single_precision_stay_so(family, evaluations):
    X, y = SETS["toy"]()
    fit(X.astype(np.float32), y, family=family, sample_weight=1 + y)
    for given, _, _ in evaluations:
        assert given.X.dtype == given.Y.dtype == given.weight.dtype == np.float32
        assert given.prior.dtype == np.float64


@pytest.mark.parametrize("family", ["mean-field", "aligned"])
def test_rows_of_weight_zero_cost_nothing(family, evaluations):
    X, y = SETS["toy"]()
    weight = np.arange(60) % 3
    fit(X, y, family=family, sample_weight=weight)
    assert {len(given.X) for given, _, _ in evaluations} == {40}


def test_inputs_near_the_largest_numbers_end_in_a_warning_of_our_own():
    """Whatever overflows on the way."""
    X, y = SETS["toy"]()
    for size in (1e100, 2.5e150):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            posterior = fit(size * X, y, max_evaluations=9)
        assert [w.category for w in caught] == [solver.ConvergenceWarning]
        assert not posterior.gap <= 1e-3
