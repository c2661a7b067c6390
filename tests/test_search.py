"""How a bound is climbed: seen by what it asks of hills whose shape is known."""

import itertools
import warnings

import numpy as np
import pytest
from test_solver import SETS

from vilogit import ConvergenceWarning, fit
from vilogit.averages import averages
from vilogit.bound import Bound, Point
from vilogit.race import Averages
from vilogit.search import Search, bfgs


class Hill:
    """A concave stand-in for a bound along one direction, which counts what is asked of it."""

    def __init__(self, top, error=0.0, length=1.0, share=1.0):
        self.top, self.error, self.length, self.share = top, error, length, share
        self.gap, self.asked, self.accuracies = 1.0, [], []

    def evaluate(self, theta, accuracy):
        t = float(theta[0])
        self.asked.append(t)
        self.accuracies.append(accuracy)
        value = -((self.top - t) ** 2) / 2 + self.error * (t > 0)
        return Point(theta, value, np.array([self.top - t]), self.gap * (t == 0), None, None, None)

    provisional, exact, finest = False, False, 1e-9

    def difference(self, a, b):
        return 0.0, abs(a.elbo - b.elbo)

    def metric(self, point):
        return self

    def direction(self, point, slope):
        return np.array([self.length])

    def longest(self, way):
        return self.share


def asked(hill, most=100):
    """The places where a climb looks from 0, up to the one that it takes."""
    search = Search(most)
    end = search.climb(hill, np.zeros(1), 0.5, (1e-5, 1e-5, 1e-5))
    assert len(search.trace) == len(hill.asked) and search.remaining == most - len(hill.asked)
    return hill.asked[1:], float(end.theta[0])


def test_a_step_that_still_climbs_at_its_end_is_taken():
    # Even where the value seems to have dropped.
    for hill in (Hill(5.0), Hill(1.0), Hill(5.0, -100), Hill(1.5, -100), Hill(1.0, -100)):
        assert asked(hill) == ([1], 1)


def test_a_step_beyond_the_top_is_taken_where_the_slope_turned_by_less_than_four_fifths():
    """There a parabola is higher than at the start, by a tenth of what its slope promised."""
    assert asked(Hill(0.6))[0] == [1]  # from 0.6 to -0.4
    assert asked(Hill(0.5))[0] == [1, 0.5]  # from 0.5 to -0.5: half way is better
    assert asked(Hill(0.2))[0] == [1, 0.5, 0.25]
    assert asked(Hill(1 / 1.8 + 1e-9))[0] == [1]
    assert asked(Hill(1 / 1.8 - 1e-9))[0] == [1, 0.5]


def test_values_are_not_compared():
    """They may be of another accuracy than those before."""
    assert asked(Hill(0.6, error=-100))[0] == [1]
    assert asked(Hill(0.5, error=100))[0] == [1, 0.5]


def test_a_search_gives_up_where_nothing_rises_or_nothing_is_left():
    assert asked(Hill(-1.0)) == ([], 0)
    assert asked(Hill(1.0, length=-1.0)) == ([], 0)
    assert asked(Hill(1.0), most=1) == ([], 0)
    places, end = asked(Hill(1e-9, error=-1.0))
    assert end == 0 and len(places) == 20  # down to a millionth of the step
    assert asked(Hill(0.2), most=3) == ([1, 0.5], 0)


@pytest.mark.parametrize("most", [1, 2, 9])
def test_a_search_that_finds_nothing_looks_closer_and_then_gives_up(most):
    hill, search = Hill(-1.0), Search(most)
    search.climb(hill, np.zeros(1), 0.5, (3e-2, 1e-3, 1e-5))
    assert hill.accuracies == pytest.approx(
        {1: [1e-5], 2: [3e-2, 1e-5], 9: [3e-2, 1e-5, 1e-7, 1e-9]}[most]
    )
    assert set(hill.asked) == {0}


def test_far_from_the_top_averages_are_coarse_and_the_proof_is_fine():
    """Here the gap is 1 at the start, and closed elsewhere."""
    for gap, first in ((1.0, 1e-3), (1.5, 3e-2)):
        hill = Hill(1.0)
        hill.gap = gap
        Search(9).climb(hill, np.zeros(1), 0.5, (3e-2, 1e-3, 1e-5))
        assert hill.accuracies == [3e-2, first, 1e-5] and hill.asked == [0, 1, 1]


def test_a_step_is_no_longer_than_the_bound_allows():
    assert asked(Hill(9.0, share=0.25))[0] == [0.25]


class Fog:
    """A parabola with its top at 2, seen with errors that fall with the accuracy."""

    provisional, exact, finest = False, False, 1e-9

    def __init__(self, of_slope, of_value):
        self.of_slope, self.of_value, self.seen = of_slope, of_value, []

    def evaluate(self, theta, accuracy):
        left = 2 - theta
        slope = left + self.of_slope * accuracy
        value = -float(left @ left) / 2 + self.of_value * accuracy
        point = Point(theta, value, slope, float(slope @ slope) / 2, None, None, None)
        self.seen.append((accuracy, point))
        return point

    def difference(self, a, b):
        return float(np.abs(a.slope - b.slope)[0]), abs(a.elbo - b.elbo)

    def metric(self, point):
        return self

    def direction(self, point, slope):
        return slope

    def longest(self, way):
        return 1.0


def climb_in_fog(fog, tol, most=50):
    """Search for the top from 0; the accuracies of all evaluations, and the end."""
    search = Search(most)
    end = search.climb(fog, np.zeros(1), tol, (3e-2, 1e-3, 1e-5))
    return [accuracy for accuracy, _ in fog.seen], end, search


@pytest.mark.parametrize(("of_slope", "of_value"), [(1.0, 0.0), (0.0, 1.0), (-2.0, 3.0)])
def test_the_gap_holds_what_slope_and_value_may_be_off(of_slope, of_value):
    """A tenth of what they changed by, a hundredth of the accuracy being left."""
    fog = Fog(of_slope, of_value)
    accuracies, end, search = climb_in_fog(fog, 0.1)
    assert accuracies[-2:] == [3e-2, 1e-5]
    coarse, fine = (point for _, point in fog.seen[-2:])
    of_slope, of_value = fog.difference(fine, coarse)
    expected = (abs(fine.slope[0]) + 0.1 * of_slope) ** 2 / 2 + 0.1 * of_value
    assert end.gap == pytest.approx(expected, rel=1e-12) and end.gap > fine.gap
    assert search.trace[-1].gap == end.gap
    # The value at the top is zero.
    assert end.gap >= -end.elbo


@pytest.mark.parametrize(
    ("of_value", "finest"), [(0.1, 1e-5), (1e3, 1e-7), (1e5, 1e-9), (1e7, 1e-9)]
)
def test_where_errors_exceed_the_tolerance_averages_get_finer(of_value, finest):
    accuracies, end, _ = climb_in_fog(Fog(0.0, of_value), 1e-3)
    np.testing.assert_allclose(
        sorted(set(accuracies)), [a for a in (1e-9, 1e-7, 1e-5, 3e-2) if a > 0.9 * finest]
    )
    # At the finest of all nothing is left to do.
    assert (end.gap <= 1e-3) == (of_value < 1e7)
    assert end.gap >= abs(end.elbo)


@pytest.mark.parametrize("of_slope", [30.0, 3e3])
def test_errors_of_the_slope_make_averages_finer_too(of_slope):
    accuracies, end, _ = climb_in_fog(Fog(of_slope, 0.0), 1e-6)
    assert min(accuracies) < 2e-7 and end.gap <= 1e-6
    assert -end.elbo <= end.gap


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_gap_is_infinite_until_its_errors_are_measured(most):
    accuracies, end, search = climb_in_fog(Fog(0.1, 0.1), 1e-3, most)
    assert accuracies[-1] == 1e-5 and len(search.trace) == most
    assert (end.gap == np.inf) == (most == 1)


@pytest.mark.parametrize(("factor", "proven"), [(1.0, True), (1e7, False)])
def test_a_fit_warns_where_errors_cannot_be_brought_down(factor, proven, monkeypatch):
    """Averages of log-sum-exp that are off by so many times the accuracy, row by row."""
    X, y = SETS["toy"]()
    exact = fit(X, y)

    def off(mean, var, accuracy, single=True):
        lse, *rest = averages(mean, var, accuracy, single)
        return Averages(lse + factor * accuracy, *rest)

    monkeypatch.setattr("vilogit.bound.averages", off)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        posterior = fit(X, y)
    assert [w.category for w in caught] == [ConvergenceWarning] * (not proven)
    assert (posterior.gap <= 1e-3) == proven and np.isfinite(posterior.gap)
    assert abs(posterior.elbo - exact.elbo) <= posterior.gap + exact.gap


def test_memory_is_that_of_bfgs(rng):
    """Against the update of the dense inverse (Nocedal and Wright, 2006, equation 6.17)."""
    shape, size = (2, 3, 2), 12
    root = rng.standard_normal((size, size))
    B = root @ root.T  # the metric without memory

    def direction(slope, pairs):
        return bfgs(slope, pairs, lambda slope: (root @ root.T @ slope.ravel()).reshape(shape))

    pairs = []
    for _ in range(3):
        s = rng.standard_normal(shape)
        y = s * rng.uniform(1, 2, shape)
        pairs.append((s, y))
        s, y = s.ravel(), y.ravel()
        left = np.eye(size) - np.outer(s, y) / (s @ y)
        B = left @ B @ left.T + np.outer(s, s) / (s @ y)
    slope = rng.standard_normal(shape)
    np.testing.assert_allclose(direction(slope, pairs).ravel(), B @ slope.ravel(), rtol=1e-9)
    # The secant condition: what the last step changed in the slope calls for that step.
    np.testing.assert_allclose(direction(pairs[-1][1], pairs), pairs[-1][0], atol=1e-9)


@pytest.fixture
def evaluations(monkeypatch):
    """Every evaluation of a fit: the bound, its accuracy, and the gap that it found."""
    seen, evaluate = [], Bound.evaluate

    def noted(bound, theta, accuracy):
        point = evaluate(bound, theta, accuracy)
        seen.append((bound, accuracy, point.gap))
        return point

    monkeypatch.setattr(Bound, "evaluate", noted)
    return seen


@pytest.mark.parametrize("name", ["toy", "wine", "separable", "breast cancer"])
def test_averages_get_finer_as_the_gap_closes(name, evaluations):
    posterior = fit(*SETS[name]())
    accuracies = [accuracy for _, accuracy, _ in evaluations]
    gaps = [gap for *_, gap in evaluations]
    traced = [record.gap for record in posterior.trace]
    first = accuracies.index(1e-5)  # from here on, errors are in the proof
    np.testing.assert_allclose(gaps[:first], traced[:first], rtol=1e-12)
    assert np.all(np.less(gaps[first:], traced[first:])) and traced[-1] <= 1e-3
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
    [(0.1, {3e-2, 1e-3, 1e-4}), (1e-4, {3e-2, 1e-3, 1e-4}), (1e-9, {3e-2, 1e-3, 1e-9})],
)
def test_averages_are_as_fine_as_asked_for_in_the_end(accuracy, expected, evaluations):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(*SETS["wine"](), accuracy=accuracy)
    assert {accuracy for _, accuracy, _ in evaluations} == expected
    assert evaluations[-1][1] == min(accuracy, 1e-4)


def test_where_rounding_hides_the_way_up_the_search_looks_closer(evaluations):
    posterior = fit(*SETS["wine"](), tol=1e-7)
    assert posterior.gap <= 1e-7
    accuracies = [accuracy for _, accuracy, _ in evaluations]
    assert accuracies[-1] in (1e-7, 1e-9) and len(accuracies) <= 20


def test_the_first_axes_are_left_within_a_nat(evaluations):
    X, y = SETS["wine"]()
    posterior = fit(X, y, family="aligned")
    bounds = [bound for bound, _, _ in evaluations]
    first = [k for k, bound in enumerate(bounds) if bound is bounds[0]]
    assert first == list(range(len(first)))  # never again
    assert all(bound is bounds[-1] for bound in bounds[len(first) :])
    np.testing.assert_allclose(bounds[-1].rows.X, X @ posterior.axes)
    gaps = [gap for *_, gap in evaluations]
    assert gaps[first[-1]] <= 1 < gaps[first[-2]]
    assert {accuracy for _, accuracy, _ in evaluations[: len(first)]} == {3e-2}
    # The second start is near the end of the first climb, and no farther than a nat or two.
    assert gaps[len(first)] < 2


def test_conjugate_gradients_without_a_digit_left_keep_what_they_have():
    rng = np.random.default_rng(1)
    X = 1e17 * rng.standard_normal((1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        posterior = fit(X, rng.integers(2, size=1), n_classes=2, max_evaluations=60)
    assert np.isfinite(posterior.mean).all() and np.isfinite(posterior.elbo)


def test_the_search_remembers_the_last_six_steps():
    """On a long way in many directions, a seventh pair would take another one."""
    rng = np.random.default_rng(3)
    curvature, start = np.exp(rng.uniform(0, 5, 12)), rng.standard_normal(12)

    class Valley:
        provisional, exact, finest = False, False, 1e-9

        def evaluate(self, theta, accuracy):
            slope = -curvature * theta
            return Point(theta, theta @ slope / 2, slope, slope @ slope, None, None, None)

        def metric(self, point):
            return self

        def direction(self, point, slope):
            return slope / curvature.max()

        def longest(self, way):
            return 1.0

    def after(steps, kept):
        """Whole steps only: on this way no value ever drops."""
        pairs, theta = [], start
        for _ in range(steps):
            slope, last = -curvature * theta, pairs[max(0, len(pairs) - kept) :]
            step = bfgs(slope, last, lambda slope: slope / curvature.max())
            pairs.append((step, curvature * step))
            theta = theta + step
        return theta

    end = Search(11).climb(Valley(), start, 1e-300, (1e-5, 1e-5, 1e-5)).theta
    np.testing.assert_allclose(end, after(10, kept=6), rtol=1e-6)
    for kept in (5, 7):
        assert np.abs(end - after(10, kept)).max() > 1e-3


def test_inputs_near_the_largest_numbers_end_in_a_warning_of_our_own():
    """Whatever overflows on the way."""
    X, y = SETS["toy"]()
    for size in (1e100, 2.5e150):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            posterior = fit(size * X, y, max_evaluations=9)
        assert [w.category for w in caught] == [ConvergenceWarning]
        assert not posterior.gap <= 1e-3
