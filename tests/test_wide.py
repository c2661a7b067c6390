"""Noise instead of logits: Gaussian tails, Gauss rules and the pairs that Newton's step wants."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from vilogit.averages import averages
from vilogit.wide import gumbel_rule, log_normal_cdf, logistic_rule, mills, normal

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


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logits_of_single_precision_far_from_zero_come_to_an_end(n_classes):
    """Where numbers of single precision are farther apart than a stretch of scores is long."""
    mean = np.full((4, n_classes), 4.0278672e8, np.float32)
    var = np.array([[5], [9], [100], [180]], np.float32) * np.ones(n_classes, np.float32)
    far, near = averages(mean, var, 1e-6), averages(0 * mean, var, 1e-6)
    np.testing.assert_allclose(far.probs, 1 / n_classes, atol=1e-6)
    np.testing.assert_allclose(far.spread, near.spread, atol=1e-6)
    np.testing.assert_allclose(far.log_sum_exp, 4.0278672e8 + near.log_sum_exp, rtol=1e-7)
