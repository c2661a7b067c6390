import tracemalloc

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from oracles import (
    difference_expectations,
    directional_derivative,
    gaussian_rule,
    log_average_sigmoid,
    race_expectations,
    tensor_expectations,
)

import vilogit.averages
from vilogit import MeanField, Posterior, expected_softmax, softmax
from vilogit.averages import averages, expected_log_probs


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", [3e-2, 1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_every_rule_keeps_its_accuracy(accuracy, n_classes, rng):
    """From the expansion's widths to those of the widest grids, and for widths mixed in a row."""
    widths = np.repeat(np.geomspace(1e-2, 50, 60), 3)[:, None]
    mean = rng.standard_normal((180, n_classes)) * np.maximum(widths, 2)
    var = (widths * rng.uniform(0, 1, (180, n_classes))) ** 2
    var[:, 0] = widths[:, 0] ** 2
    rough = expected_softmax(mean, var, accuracy=accuracy)
    for value, exact in zip(rough, expected_softmax(mean, var, accuracy=1e-9), strict=True):
        np.testing.assert_allclose(value, exact, rtol=1e-12, atol=2 * accuracy)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.1, 0.5, 1.0, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_averages_agree_with_a_tensor_rule(n_classes, scale, rng):
    mean = max(scale, 1) * rng.standard_normal((6, n_classes))
    var = (scale * rng.uniform(0.2, 1, (6, n_classes))) ** 2
    ours = expected_softmax(mean, var)
    # The nodes of the oracle are a logit apart at most: its own error is far below 1e-6.
    count = 401 if n_classes == 2 else 31 + round(10 * scale)
    oracle = [tensor_expectations(m, v, count) for m, v in zip(mean, var, strict=True)]
    for value, expected in zip(ours, zip(*oracle, strict=True), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-6)


@pytest.mark.parametrize("scale", [10.0, 50.0])
def test_wide_logits_of_two_classes_agree_with_one_dimension(scale, rng):
    mean, var = scale * rng.standard_normal((2, 4, 2))
    var = scale**2 * rng.uniform(0.1, 1, (4, 2))
    lse, probs, spread = expected_softmax(mean, var)
    nodes, weights = gaussian_rule(20_001, 9)
    gap = (mean[:, 1] - mean[:, 0])[:, None] + np.sqrt(var.sum(axis=1))[:, None] * nodes
    np.testing.assert_allclose(lse, mean[:, 0] + np.logaddexp(0, gap) @ weights, atol=1e-6)
    s = scipy.special.expit(gap)
    np.testing.assert_allclose(probs[:, 1], s @ weights, atol=1e-6)
    np.testing.assert_allclose(spread, np.outer((s * (1 - s)) @ weights, [1, 1]), atol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3, 25, 1000])
def test_no_variance_gives_softmax_itself(n_classes, rng):
    mean = 3 * rng.standard_normal((5, n_classes))
    lse, probs, spread = expected_softmax(mean, np.zeros_like(mean))
    np.testing.assert_allclose(lse, scipy.special.logsumexp(mean, axis=1), atol=1e-6)
    np.testing.assert_allclose(probs, softmax(mean), atol=1e-6)
    np.testing.assert_allclose(spread, softmax(mean) * (1 - softmax(mean)), atol=1e-6)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1))
def test_averages_are_derivatives_of_one_another(seed):
    """Bonnet and Price: dE[LSE]/dm = E[alpha], dE[LSE]/dv = E[alpha (1 - alpha)] / 2."""
    rng = np.random.default_rng(seed)
    mean, var = 2 * rng.standard_normal((1, 4)), rng.uniform(0.3, 4, (1, 4))
    _, probs, spread = expected_softmax(mean, var, accuracy=1e-9)
    direction = rng.standard_normal((1, 4))

    def lse(mean, var):
        return expected_softmax(mean, var, accuracy=1e-9).log_sum_exp

    # Values exact to 1e-9, divided by the step of the difference.
    slope = directional_derivative(lambda m: lse(m, var), mean, direction, 0.02)
    assert slope == pytest.approx(np.sum(probs * direction), abs=1e-6)
    slope = directional_derivative(lambda v: lse(mean, v), var, direction, 0.02)
    assert slope == pytest.approx(np.sum(spread * direction) / 2, abs=1e-6)


def test_probabilities_sum_to_one_and_no_rows_are_allowed(rng):
    mean, var = rng.standard_normal((30, 5)), rng.uniform(0, 9, (30, 5))
    probs = expected_softmax(mean, var)[1]
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-14)
    assert [a.shape for a in expected_softmax(mean[:0], var[:0])] == [(0,), (0, 5), (0, 5)]


def test_a_row_does_not_depend_on_its_neighbours(rng):
    mean, var = 3 * rng.standard_normal((200, 3)), rng.uniform(0, 30, (200, 3))
    together = expected_softmax(mean, var)
    for n in (0, 77, 199):
        alone = expected_softmax(mean[n : n + 1], var[n : n + 1])
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a[0], b[n], rtol=1e-13, atol=1e-15)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"logit_var has shape \(2, 3\); expected \(3, 2\)"):
        expected_softmax(np.ones((3, 2)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="logit_var must not be negative, but holds -1"):
        expected_softmax(np.ones((3, 2)), -np.ones((3, 2)))
    with pytest.raises(ValueError, match="expected two classes or more"):
        expected_softmax(np.ones((3, 1)), np.ones((3, 1)))
    with pytest.raises(ValueError, match="logit_mean must be finite"):
        expected_softmax([[np.inf, 0]], [[1.0, 1]])
    with pytest.raises(TypeError, match="logit_mean must hold real numbers"):
        expected_softmax([["a", "b"]], [[1.0, 1]])


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_the_expansion_is_of_the_order_it_claims(n_classes, rng):
    """Halving the variances divides the errors by 16, 8 and 8."""
    mean = 2 * rng.standard_normal((200, n_classes))
    var = rng.uniform(0.02, 0.1, (200, n_classes))
    errors = []
    for v in (var, var / 2):
        exact = expected_softmax(mean, v, accuracy=1e-9)
        rough = expected_softmax(mean, v, accuracy=0.1)  # all by the expansion
        errors.append([np.abs(a - b).max() for a, b in zip(rough, exact, strict=True)])
    order = np.log2(np.divide(*errors))
    np.testing.assert_allclose(order, [4, 3, 3], atol=0.3)


def test_messages_start_with_the_argument_and_end_with_what_was_expected():
    with pytest.raises(ValueError, match=r"^logit_mean has shape \(3,\); expected \(N, D\)$"):
        expected_softmax(np.ones(3), np.ones(3))
    with pytest.raises(TypeError, match=r"^logit_var must hold real numbers"):
        expected_softmax(np.ones((1, 2)), [["a", "b"]])
    with pytest.raises(ValueError, match=r"^accuracy must be positive"):
        expected_softmax(np.ones((1, 2)), np.ones((1, 2)), accuracy=0)
    with pytest.raises(ValueError, match=r"^accuracy has shape \(1,\); expected \(\)$"):
        expected_softmax(np.ones((1, 2)), np.ones((1, 2)), accuracy=[0.1])


def mixed_rows(n_classes, rng):
    """Rows of every width beside one another, narrow and wide, shuffled."""
    widths = rng.permutation(np.geomspace(1e-2, 15, 12))[:, None]
    mean = rng.standard_normal((12, n_classes)) * np.maximum(widths, 2)
    var = (widths * rng.uniform(0, 1, (12, n_classes))) ** 2
    var[:, -1] = widths[:, 0] ** 2
    return mean, var


@pytest.mark.parametrize("accuracy", [3e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_rows_of_all_widths_beside_one_another_keep_their_accuracy(accuracy, n_classes, rng):
    mean, var = mixed_rows(n_classes, rng)
    rough = expected_softmax(mean, var, accuracy=accuracy)
    for value, exact in zip(rough, expected_softmax(mean, var, accuracy=1e-9), strict=True):
        assert value.dtype == np.float64
        np.testing.assert_allclose(value, exact, rtol=1e-12, atol=2 * accuracy)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_averages_of_narrow_rows_agree_with_a_tensor_rule(n_classes, rng):
    """One row each of the expansion, of Gauss-Hermite nodes and of evenly spaced ones."""
    mean = rng.standard_normal((4, n_classes))
    var = np.array([[1e-4], [0.1], [0.9], [3.0]]) * rng.uniform(0.3, 1, (4, n_classes))
    for ours, (m, v) in zip(zip(*expected_softmax(mean, var, accuracy=1e-8), strict=True),
                            zip(mean, var, strict=True), strict=True):  # fmt: skip
        for value, expected in zip(ours, tensor_expectations(m, v, 49), strict=True):
            np.testing.assert_allclose(value, expected, atol=1e-8)


def test_the_default_accuracy_is_a_millionth(rng):
    mean, var = mixed_rows(3, rng)
    for a, b in zip(
        expected_softmax(mean, var), expected_softmax(mean, var, accuracy=1e-6), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def assert_true_averages(mean, var, accuracy):
    """Of one row: to the accuracy asked for, and to the last digits but one of its width."""
    reference = difference_expectations if len(mean) == 2 else race_expectations
    lse, probs, spread = reference(mean, var)
    ours = expected_softmax([mean], [var], accuracy=accuracy)
    width = np.sqrt(np.max(var))
    np.testing.assert_allclose(ours.log_sum_exp[0], lse, rtol=0, atol=accuracy + 2e-14 * width)
    np.testing.assert_allclose(ours.probs[0], probs, rtol=0, atol=accuracy)
    # How often two logits meet falls as the width grows: so do the errors of that.
    np.testing.assert_allclose(ours.spread[0], spread, rtol=1e-12, atol=accuracy / max(1, width))


@pytest.mark.parametrize("accuracy", [1e-6, 1e-9])
@pytest.mark.parametrize("width", [3.0, 10.0, 100.0, 1e4, 1e6, 1e8])
@pytest.mark.parametrize("n_classes", [2, 3, pytest.param(10, marks=pytest.mark.slow)])
def test_wide_rows_keep_their_accuracy(n_classes, width, accuracy, rng):
    mean = width * rng.standard_normal(n_classes)
    var = (width * rng.uniform(0.1, 1, n_classes)) ** 2
    var[-1] = width**2
    assert_true_averages(mean, var, accuracy)


@pytest.mark.parametrize("accuracy", [1e-6, 1e-9])
@pytest.mark.parametrize(
    "scale",
    [[1e-2, 1e6], [1e-2, 1e6, 1], [1e-2, 1e6, 1e6], [1e-2, 3, 1e4], [0, 5, 1e8], [1, 1, 9, 1e3]],
)
def test_rows_of_narrow_and_wide_logits_keep_their_accuracy(scale, accuracy, rng):
    # Near one another, so that the narrow ones count.
    assert_true_averages(rng.standard_normal(len(scale)), np.square(scale), accuracy)


@pytest.mark.parametrize("unit", [1e13, 1e15, 1e17, 1e19, 1e140])
def test_a_narrow_logit_far_from_the_widest_is_known_as_far_as_its_mean(unit):
    """Between two that are wide: however few digits of its scores are left, it counts in full."""
    mean, scale = np.array([[-1.0, 0, -3]]), np.array([[0.0, 10, 5]])
    expected = race_expectations(1e8 * mean[0], (1e8 * scale[0]) ** 2)
    lse, probs, spread = expected_softmax(unit * mean, (unit * scale) ** 2)
    assert lse[0] / unit == pytest.approx(expected[0] / 1e8, rel=1e-7)
    np.testing.assert_allclose(probs[0], expected[1], atol=1e-6)
    # Of its density, which all the others see as a point, fewer digits are left.
    np.testing.assert_allclose(spread[0] * unit, expected[2] * 1e8, rtol=0.1)


def test_of_the_widest_logits_the_largest_takes_it_all(rng):
    """Probabilities are those of a Gaussian orthant; log-sum-exp is the largest logit."""
    mean, scale = rng.standard_normal(3), rng.uniform(0.3, 1, 3)
    lse, probs, spread = expected_softmax([1e8 * mean], [(1e8 * scale) ** 2])
    for d in range(3):
        # The other logits less this one, all below zero.
        less = np.delete(np.eye(3), d, 0) - np.eye(3)[d]
        orthant = scipy.stats.multivariate_normal(less @ mean, less * scale**2 @ less.T)
        # Logits a few apart, out of 1e8, share.
        assert probs[0, d] == pytest.approx(orthant.cdf(np.zeros(2)), abs=1e-7)
    assert spread.min() > 0 and spread.max() < 1e-7
    lse, probs, _ = expected_softmax([[0.0, 0, 0]], [[1e16, 1e16, 1e16]])
    assert lse[0] == pytest.approx(1e8 * 3 / (2 * np.sqrt(np.pi)), rel=1e-14)
    np.testing.assert_allclose(probs, 1 / 3, rtol=1e-14)


@pytest.mark.parametrize("width", [3.0, 30.0, 1e4, 1e8])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_averages_of_wide_rows_are_derivatives_of_one_another(n_classes, width, rng):
    """Bonnet and Price, in units of the width."""
    mean, var = rng.standard_normal((1, n_classes)), rng.uniform(0.5, 1, (1, n_classes))
    direction = rng.standard_normal((1, n_classes))

    def of(mean, var):
        return expected_softmax(width * mean, width**2 * var, accuracy=1e-9)

    _, probs, spread = of(mean, var)
    slope = directional_derivative(lambda m: of(m, var).log_sum_exp, mean, direction, 0.01)
    assert slope / width == pytest.approx(np.sum(probs * direction), abs=1e-6)
    slope = directional_derivative(lambda v: of(mean, v).log_sum_exp, var, direction, 0.01)
    assert slope / width == pytest.approx(np.sum(spread * direction) * width / 2, abs=1e-6)
    for d in range(n_classes):
        slope = directional_derivative(
            lambda m, d=d: of(m, var).probs[:, d], mean, np.eye(n_classes)[d], 0.01
        )
        assert slope / width == pytest.approx(spread[0, d], abs=1e-6 / width)


def test_the_largest_numbers_are_averaged_like_others():
    lse, probs, spread = expected_softmax([[1e308, -1e308]], [[1.0, 1.0]])
    np.testing.assert_array_equal((lse[0], *probs[0], *spread[0]), (1e308, 1, 0, 0, 0))
    lse, probs, spread = expected_softmax([[1e308, -1e308, 1e308]], [[1e300, 1, 1e300]])
    assert lse[0] == 1e308
    np.testing.assert_allclose(probs, [[0.5, 0, 0.5]], rtol=1e-12)
    assert spread.max() < 1e-140


@pytest.mark.parametrize("accuracy", [0.1, 1e-2, 1e-6, 1e-9])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_errors_take_no_average_out_of_its_range(n_classes, accuracy, rng):
    """Probabilities from 0 to 1, spreads to a quarter: where one is near 0, errors may be below."""
    for size in (0.3, 3, 10, 40, 1000):
        mean = size * rng.standard_normal((40, n_classes))
        for widest in (0.01, 1, 4, 30, 1e4):
            var = widest * rng.uniform(0, 1, mean.shape)
            _, probs, spread = expected_softmax(mean, var, accuracy=accuracy)
            assert probs.min() >= 0 and probs.max() <= 1 + 1e-15
            assert spread.min() >= 0 and spread.max() <= 0.25


@given(
    st.integers(2, 4).flatmap(
        lambda D: st.lists(st.tuples(st.floats(-1e308, 1e308), st.floats(0, 1e300)),
                           min_size=D, max_size=D)
    )
)  # fmt: skip
def test_whatever_the_size_averages_are_finite_and_in_range(row):
    mean, var = np.array(row).T[:, None]
    lse, probs, spread = expected_softmax(mean, var)
    assert (probs >= 0).all() and probs.sum() == pytest.approx(1, abs=1e-12)
    assert (spread >= 0).all() and (spread <= 0.25).all()
    # Above the largest mean (Jensen), and below that and the largest of so many Gaussians.
    top, width = mean.max(), np.sqrt(var.max())
    slack = 1e-5 + 1e-12 * (abs(top) + width)
    assert top - slack <= lse[0] <= top + np.log(4) + width * np.sqrt(2 * np.log(4)) + slack


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_wide_row_does_not_depend_on_its_neighbours(n_classes, rng):
    """Not on how wide they are, nor on which stretches of scores they need."""
    width = np.array([[3.0], [66.0], [70.0], [90.0], [1e6], [1e-2]])
    mean, var = width * rng.standard_normal((6, n_classes)), width**2 * np.ones((6, n_classes))
    together = expected_softmax(mean, var, accuracy=1e-2)
    for n in range(6):
        alone = expected_softmax(mean[n : n + 1], var[n : n + 1], accuracy=1e-2)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a[0], b[n], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("n_classes", [2, 3, 40])
def test_blocks_of_rows_are_as_good_as_one(n_classes, rng, monkeypatch):
    mean, var = 2 * rng.standard_normal((2, 60, n_classes)) ** 2
    var[::2] /= 1e4
    whole = expected_softmax(mean, var)
    monkeypatch.setattr(vilogit.averages, "_FEW_ARRAYS", 3)
    monkeypatch.setattr(vilogit.averages, "_MANY_ARRAYS", 7 * n_classes)
    for a, b in zip(whole, expected_softmax(mean, var), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("accuracy", [1e-3, 1e-2])
def test_where_a_weight_of_two_must_be_a_row_given_twice_averages_are_double(accuracy, rng):
    """To the last digits but three whatever the row's place; else coarse ones are single."""
    mean, var = rng.standard_normal((2000, 3)), rng.uniform(0.6, 1, (2000, 3))
    for single, digits in ((False, 1e-13), (True, 1e-5)):
        together = averages(mean, var, accuracy, single)
        alone = averages(mean[-1:], var[-1:], accuracy, single)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[-1:], b, rtol=digits)
    fine = averages(mean, var, 1e-9)
    for a, b in zip(together, fine, strict=True):
        np.testing.assert_allclose(a, b, atol=2 * accuracy)


@pytest.mark.parametrize(("accuracy", "edge"), [(1e-6, 0.01817), (1e-3, 0.1817), (1.0, 0.5)])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_expansion_serves_rows_where_its_error_is_small_enough(n_classes, accuracy, edge, rng):
    """The cube of the variance over six, but never beyond a half: there, values jump a little."""
    mean = rng.standard_normal((1, n_classes))
    below, at, above = (
        expected_softmax(mean, factor * edge * np.eye(n_classes)[-1:], accuracy=accuracy)
        for factor in (1 - 2e-7, 1 - 1e-7, 1 + 1e-7)
    )
    steps = [
        max(np.abs(a - b).max() for a, b in zip(x, y, strict=True))
        for x, y in ((below, at), (at, above))
    ]
    assert steps[0] < 1e-6 * edge and 2 * accuracy > steps[1]


def cost(mean, var, **options):
    """Peak of temporary memory in numbers of eight bytes; a first call fills what is kept."""
    expected_softmax(mean, var, **options)
    tracemalloc.start()
    expected_softmax(mean, var, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 8


@pytest.mark.parametrize("n_classes", [2, 3, 50, 20_000])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_temporary_arrays_stay_small(n_classes, spread):
    """A few times the rows themselves, and a fixed amount."""
    n = max(2, 200_000 // n_classes)
    numbers = cost(np.zeros((n, n_classes)), np.full((n, n_classes), spread), accuracy=1e-2)
    assert numbers < 8 * n * n_classes + 1_500_000 * max(1, n_classes // 500)


@pytest.mark.parametrize("width", [6.0, 20.0, 1000.0])
def test_wide_rows_need_no_more_memory_than_others(width, rng):
    mean, var = width * rng.standard_normal((100, 3)), np.full((100, 3), width**2)
    expected_softmax(mean[:1], var[:1])  # what is kept from call to call
    tracemalloc.start()
    expected_softmax(mean, var)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1e5 < peak < 1e7


@pytest.mark.slow
def test_a_class_without_a_chance_changes_nothing_however_wide_the_others(rng):
    """Three classes by the race, two by the integral over a difference."""
    scale = 10.0 ** rng.uniform(-2, np.log10(60), (300, 2))
    scale[::7, 0] = 0
    mean = scale.max(axis=1, keepdims=True) * rng.standard_normal((300, 2))
    third = np.full((300, 1), -1e4), np.resize([4.0, 4096.0], (300, 1))
    for accuracy in (1e-2, 1e-6, 1e-9):
        two = expected_softmax(mean, scale**2, accuracy=1e-9)
        three = expected_softmax(
            np.hstack([mean, third[0]]), np.hstack([scale**2, third[1]]), accuracy=accuracy
        )
        probs, spread = np.hstack([two.probs, 0 * third[0]]), np.hstack([two.spread, 0 * third[0]])
        for value, exact in zip(three, (two.log_sum_exp, probs, spread), strict=True):
            np.testing.assert_allclose(value, exact, rtol=1e-12, atol=2 * accuracy)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_however_coarse_averages_are_double_and_right_to_a_tenth(n_classes, scale, rng):
    mean, var = rng.standard_normal((5, n_classes)), np.full((5, n_classes), scale**2)
    for accuracy in (0.1, 1.0, 1e9):
        rough = expected_softmax(mean, var, accuracy=accuracy)
        for value, exact in zip(rough, expected_softmax(mean, var), strict=True):
            assert value.dtype == np.float64
            np.testing.assert_allclose(value, exact, rtol=1e-12, atol=0.2)


def test_input_is_left_alone(rng):
    mean, var = mixed_rows(3, rng)
    mean.flags.writeable = var.flags.writeable = False
    before = mean.copy(), var.copy()
    expected_softmax(mean, var, accuracy=1e-3)
    np.testing.assert_array_equal((mean, var), before)


@pytest.mark.parametrize("accuracy", [1e-2, 1e-6])
def test_classes_far_apart_keep_their_order_without_a_warning(accuracy):
    """A logit that is surely the largest takes all; two such, apart from the rest, share."""
    mean = np.array([[0.0, 5000.0, -5000.0], [-9000.0, 0.0, 0.0]])
    lse, probs, spread = expected_softmax(mean, np.ones((2, 3)), accuracy=accuracy)
    pair = expected_softmax(np.zeros((1, 2)), np.ones((1, 2)), accuracy=1e-9)
    np.testing.assert_allclose(lse, [5000, pair.log_sum_exp[0]], atol=2 * accuracy)
    np.testing.assert_allclose(probs, [[0, 1, 0], [0, 0.5, 0.5]], atol=2 * accuracy)
    np.testing.assert_allclose(spread[0], 0, atol=2 * accuracy)
    np.testing.assert_allclose(spread[1, 1:], pair.spread[0], atol=2 * accuracy)


def test_the_widest_rows_neither_overflow_nor_drown_their_neighbours():
    """Alike, or with one class far above: a third each, or all for one."""
    mean = np.array([[0.0, 0, 0], [0, -1e5, -1e5]])
    var = np.array([[4096.0, 4096, 4096], [0, 4096, 4096]])
    lse, probs, _ = expected_softmax(mean, var)
    np.testing.assert_allclose(probs, [[1 / 3, 1 / 3, 1 / 3], [1, 0, 0]], atol=1e-6)
    # Log-sum-exp is above the largest of three normals, on average, by ln 3 at most.
    largest = 64 * 3 / (2 * np.sqrt(np.pi))
    assert largest < lse[0] < largest + np.log(3)
    assert lse[1] == pytest.approx(0, abs=1e-6)


# Centres and variances: either tail, both sides of every switch, the ends of the range.
CENTERS = [(-1, 24), (-30, 900), (-700, 900), (-1e6, 0)]
MORE_CENTERS = [
    (0, 0),
    (1e6, 1),
    (-1, 1e-6),
    (1, 24.9),
    (1, 25.1),
    (-12.4, 24.9),
    (-12.6, 24.9),
    (-20, 24.9),
]
MORE_CENTERS += [(-3e3, 1e4), (-5.1e3, 1e4), (-1e6, 1e8), (40, 1e6), (-1e6, 1.9e6)]
CENTERS += [pytest.param(*case, marks=pytest.mark.slow) for case in MORE_CENTERS]


@pytest.mark.parametrize(("center", "var"), CENTERS)
def test_of_two_classes_both_probabilities_have_nine_digits(center, var):
    """However small one of them is; no less than its logarithm has, where that is long."""
    mean, var = np.array([[0.25, 0.25 + center]]), np.array([[0.75 * var, 0.25 * var]])
    center, square = mean[0, 1] - mean[0, 0], var.sum()
    ours = expected_log_probs(mean, var)
    expected = [log_average_sigmoid(sign * center, square) for sign in (-1, 1)]
    np.testing.assert_allclose(ours[0], expected, rtol=1e-12, atol=5e-10)
    np.testing.assert_array_equal(expected_log_probs(mean[:, ::-1], var), ours[:, ::-1])


@pytest.mark.slow
@given(st.floats(0, 1e8), st.floats(-1e6, 1e6))
def test_the_log_probability_of_a_class_rises_with_its_logit(var, center):
    """Also where one way of averaging takes over from another."""
    steps = np.concatenate([[-1e3, -1], np.linspace(-0.1, 0.1, 9), [1, 1e3]])
    near = np.array([center, -var / 2, 0])[:, None] + steps
    mean = np.stack([0 * near, near], axis=-1).reshape(-1, 2)
    log_probs = expected_log_probs(mean, np.full(mean.shape, var / 2)).reshape(*near.shape, 2)
    assert (log_probs <= 0).all()
    rise = np.diff(log_probs, axis=1) * [-1, 1]
    assert (rise >= -1e-10 - 1e-14 * np.abs(log_probs[:, 1:])).all()
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=-1), 1, rtol=1e-9)


def test_the_slope_of_the_log_probability_is_spread_over_probability():
    for center, var in ((-1.0, 0.0), (-3, 2), (0.5, 30), (-5, 1e4)):
        mean, var = np.array([[0.0, center]]), np.array([[var, var]]) / 2
        _, probs, spread = expected_softmax(mean, var, accuracy=1e-9)
        slope = directional_derivative(
            lambda m, var=var: expected_log_probs(m, var)[0, 1], mean, np.array([[0, 1.0]]), 1e-2
        )
        assert slope == pytest.approx(spread[0, 1] / probs[0, 1], abs=1e-6)


def test_log_probabilities_of_the_largest_numbers_are_finite():
    mean = np.array([[1e308, -1e308], [-1e308, 1e308], [0, 0], [0, 1e300]])
    var = np.array([[1, 1], [0, 0], [1.7e308, 1.7e308], [1e8, 1]])
    log_probs = expected_log_probs(mean, var)
    assert (log_probs[[0, 1, 3], [1, 0, 0]] < -1e299).all() and np.isfinite(log_probs).all()
    np.testing.assert_allclose(log_probs[[0, 1, 3], [0, 1, 1]], 0, atol=1e-15)
    np.testing.assert_allclose(log_probs[2], np.log(0.5), rtol=1e-9)


def test_log_probabilities_of_three_classes_are_those_of_their_averages(rng):
    mean, var = 5 * rng.standard_normal((20, 3)), rng.uniform(0, 30, (20, 3))
    probs = expected_softmax(mean, var, accuracy=1e-9).probs
    some = probs > 1e-2  # of those below, `test_tails.py` knows more
    np.testing.assert_array_equal(expected_log_probs(mean, var)[some], np.log(probs)[some])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_posterior_predicts_probabilities_and_their_logarithms(n_classes, rng):
    q = MeanField(rng.standard_normal((2, n_classes)), rng.standard_normal((2, n_classes)))
    posterior = Posterior(q, elbo=0.0)
    X = np.array([[0.0, 1], [-200, 1]])
    log_probs, probs = posterior.predict_log_proba(X), posterior.predict_proba(X)
    assert log_probs.shape == (2, n_classes)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-9)
    np.testing.assert_array_equal(posterior.predict(X), log_probs.argmax(axis=1))
    moments = posterior.logit_moments(X)
    if n_classes == 2:
        np.testing.assert_array_equal(probs, np.exp(log_probs))
        for n, (mean, var) in enumerate(zip(*moments, strict=True)):
            expected = log_average_sigmoid(mean[1] - mean[0], var.sum())
            assert log_probs[n, 1] == pytest.approx(expected, abs=5e-10)
    else:
        np.testing.assert_array_equal(probs, expected_softmax(*moments).probs)
        np.testing.assert_allclose(np.exp(log_probs), probs, atol=1e-6)
    with pytest.raises(ValueError, match=r"X has shape \(2, 1\); expected \(N, 2\)"):
        posterior.predict_log_proba(X[:, :1])
