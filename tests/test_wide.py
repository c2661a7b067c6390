"""Noise instead of logits: Gaussian tails, Gauss rules and the pairs that Newton's step wants."""

import math

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from oracles import directional_derivative

from vilogit import expected_softmax
from vilogit.averages import averages
from vilogit.wide import gumbel_rule, log_normal_cdf, logistic_rule, mills, normal, pair_averages

PLACES = np.array([0.0, 1e-300, 1e-9, 0.3, 1.0, 3.9, 4.0, 9.0, 20.0, 37.0, 40.0, 1e3, 1e9])


def test_the_tail_over_the_density_is_the_scaled_error_function():
    expected = np.sqrt(np.pi / 2) * scipy.special.erfcx(PLACES / np.sqrt(2))
    np.testing.assert_allclose(mills(PLACES), expected, rtol=1e-13)


def test_the_normal_cdf_has_its_last_digits_in_either_tail():
    x = np.concatenate([-PLACES, PLACES])
    with np.errstate(under="ignore"):
        cdf, density = normal(x)
    # Below the normal range numbers lose digits.
    np.testing.assert_allclose(cdf, scipy.special.ndtr(x), rtol=1e-12, atol=1e-307)
    np.testing.assert_allclose(density, scipy.stats.norm.pdf(x), rtol=1e-12, atol=1e-307)


def test_the_logarithm_of_the_normal_cdf_has_all_digits_however_small_that_is():
    x = np.concatenate([-PLACES, PLACES])
    with np.errstate(under="ignore"):
        ours = log_normal_cdf(x)
    np.testing.assert_allclose(ours, scipy.special.log_ndtr(x), rtol=1e-12, atol=1e-307)


@given(st.floats(0, 1e150))
def test_tails_agree_with_scipy_everywhere(size):
    x = np.array([-size, size])
    # Rounding of the exponent, 700 at most before all is zero, is in both.
    with np.errstate(under="ignore"):
        np.testing.assert_allclose(
            log_normal_cdf(x), scipy.special.log_ndtr(x), rtol=1e-12, atol=1e-307
        )
        np.testing.assert_allclose(normal(x)[0], scipy.special.ndtr(x), rtol=5e-12, atol=1e-307)


def moments(cumulants):
    """Moments 0, 1, ... of a number with cumulants 1, 2, ..."""
    out = [1.0]
    for n in range(1, len(cumulants) + 1):
        out.append(sum(math.comb(n - 1, k - 1) * cumulants[k - 1] * out[n - k]
                       for k in range(1, n + 1)))  # fmt: skip
    return out


ORDERS = range(2, 25)
GUMBEL = [np.euler_gamma, *(math.factorial(k - 1) * scipy.special.zeta(k) for k in ORDERS)]
LOGISTIC = [0.0, *(2 * (k % 2 == 0) * cumulant for k, cumulant in enumerate(GUMBEL[1:], 2))]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 12, 24])
@pytest.mark.parametrize(("rule", "cumulants"), [(gumbel_rule, GUMBEL), (logistic_rule, LOGISTIC)])
def test_gauss_rules_average_all_powers_up_to_twice_their_nodes(rule, cumulants, n):
    nodes, weights = rule(n)
    assert nodes.shape == weights.shape == (n,) and (weights > 0).all()
    exact = moments(cumulants)
    for power in range(min(2 * n, 25)):
        size = weights @ np.abs(nodes) ** power
        assert weights @ nodes**power == pytest.approx(exact[power], abs=1e-11 * size), power
    if n < 5:  # and no more
        assert weights @ nodes ** (2 * n) < 0.99 * exact[2 * n]


@pytest.mark.parametrize(("rule", "sign"), [(gumbel_rule, 1), (logistic_rule, -1)])
def test_gauss_rules_of_many_nodes_average_exponentials(rule, sign):
    """The moment-generating function of the noise, in whose series every power counts."""
    for t in (-0.4, 0.3):
        nodes, weights = rule(24)
        exact = scipy.special.gamma(1 - t)
        exact *= scipy.special.gamma(1 + t) if sign < 0 else 1
        assert weights @ np.exp(t * nodes) == pytest.approx(exact, rel=1e-9)


def differences(mean, var):
    """Second derivatives of the averaged log-sum-exp of one row, by differences of the first."""
    D = mean.shape[1]
    step = 1e-2 * np.sqrt(var.min())

    def first(mean, var):
        _, probs, spread = expected_softmax(mean, var, accuracy=1e-9)
        return np.stack([probs[0], spread[0] / 2])

    by_mean, by_var = (
        np.stack([directional_derivative(f, at, e[None], h) for e in np.eye(D)])
        for f, at, h in (
            (lambda m: first(m, var), mean, step),
            (lambda v: first(mean, v), var, 1e-2 * var.min()),
        )
    )
    # Axes: the one varied, mean or variance, the other.
    return by_mean[:, 0], by_mean[:, 1], by_var[:, 1]


def row(n_classes, width, rng):
    mean = width * rng.standard_normal((1, n_classes)) / 2
    return mean, (width * rng.uniform(0.5, 1, (1, n_classes))) ** 2


def assert_close(ours, expected, digits, width):
    """Beside the largest in the means: a derivative in a variance is smaller by the width."""
    size = np.abs(expected[0]).max()
    for k, (a, b) in enumerate(zip(ours, expected, strict=True)):
        np.testing.assert_allclose(a, b, rtol=0, atol=digits * size / width**k)


@pytest.mark.parametrize("width", [0.05, 0.6, 1.0, 2.9, 4.0, 30.0, 1e4])
@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_pairs_are_derivatives_of_the_averages(n_classes, width, rng):
    mean, var = row(n_classes, width, rng)
    expected = differences(mean, var)
    assert_close([part[0] for part in pair_averages(mean, var, 1e-9)], expected, 1e-6, width)
    rough = pair_averages(mean, var, 1e-2)
    assert_close([part[0] for part in rough], expected, 5e-2, max(width, 1))


def test_pairs_of_narrow_logits_are_derivatives_of_log_sum_exp():
    mean, one = np.array([0.3, -1.2, 0.9, 0.0]), np.eye(4, dtype=int)

    def log_sum_exp(*logits):
        return mpmath.log(sum(map(mpmath.exp, logits)))

    def derivative(orders):
        return float(mpmath.diff(log_sum_exp, tuple(mean), tuple(map(int, orders))))

    with mpmath.workdps(40):
        expected = [
            [[factor * derivative(a * d + b * e) for e in one] for d in one]
            for a, b, factor in ((1, 1, 1), (1, 2, 0.5), (2, 2, 0.25))
        ]
    ours = pair_averages(mean[None], np.full((1, 4), 1e-14), 1e-11)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a[0], b, atol=1e-9)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_a_shift_of_all_logits_changes_no_pair(n_classes, rng):
    """So they sum to zero over the means; and pairs of a kind are the same either way round."""
    mean, var = (np.concatenate(part) for part in zip(
        *(row(n_classes, width, rng) for width in (1, 10, 1e4)), strict=True))  # fmt: skip
    mm, mv, vv = pair_averages(mean, var, 1e-4)
    for part in (mm, vv):
        np.testing.assert_allclose(part, part.swapaxes(1, 2), rtol=1e-12)
    np.testing.assert_allclose(mm.sum(axis=2) / np.abs(mm).max(axis=2), 0, atol=1e-12)
    np.testing.assert_allclose(mv.sum(axis=1) / np.abs(mv).max(axis=1), 0, atol=1e-12)
    for part, shifted in zip((mm, mv, vv), pair_averages(mean + 1e5, var, 1e-4), strict=True):
        np.testing.assert_allclose(part, shifted, rtol=1e-6, atol=1e-9 * np.abs(part).max())


def test_pairs_of_a_row_do_not_depend_on_its_neighbours_but_for_their_digits(rng):
    mean, var = (np.concatenate(part) for part in zip(
        *(row(3, width, rng) for width in (1, 10, 1e4)), strict=True))  # fmt: skip
    together = pair_averages(mean, var, 1e-6)
    for n in range(3):
        alone = pair_averages(mean[n : n + 1], var[n : n + 1], 1e-6)
        assert_close([p[0] for p in alone], [p[n] for p in together], 1e-4, (1, 10, 1e4)[n])


def test_pairs_of_the_largest_numbers_are_those_of_the_classes_with_a_chance():
    ours = pair_averages(
        np.array([[0, 0.5, -1e300], [1e300, 1e300, 0]]), np.full((2, 3), 9.0), 1e-6
    )
    two = pair_averages(np.array([[0, 0.5], [0, 0]]), np.full((2, 2), 9.0), 1e-6)
    assert_close([part[:, :2, :2] for part in ours], two, 1e-5, 3)
    for part in ours:
        np.testing.assert_array_equal(part[:, 2], 0)
    far = pair_averages(np.array([[-1e17, 0, -3e17]]), np.array([[1, 1e36, 25e34]]), 1e-6)
    assert all(np.isfinite(part).all() for part in far) and (far.mm.diagonal(0, 1, 2) > 0).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logits_of_single_precision_far_from_zero_come_to_an_end(n_classes):
    """Where numbers of single precision are farther apart than a stretch of scores is long."""
    mean = np.full((4, n_classes), 4.0278672e8, np.float32)
    var = np.array([[5], [9], [100], [180]], np.float32) * np.ones(n_classes, np.float32)
    far, near = averages(mean, var, 1e-6), averages(0 * mean, var, 1e-6)
    np.testing.assert_allclose(far.probs, 1 / n_classes, atol=1e-6)
    np.testing.assert_allclose(far.spread, near.spread, atol=1e-6)
    np.testing.assert_allclose(far.log_sum_exp, 4.0278672e8 + near.log_sum_exp, rtol=1e-7)
