"""Logarithms of probabilities that are next to nothing, of three classes or more."""

import numpy as np
import pytest
import scipy.special
from oracles import log_average_sigmoid, log_average_softmax
from scipy.special import logsumexp

from vilogit import MeanField, Posterior, expected_softmax, log_softmax
from vilogit.averages import expected_log_probs
from vilogit.tails import log_average


def log_average_of(mean, var, label=0):
    return log_average(np.array([mean]), np.array([var]), np.array([0]), np.array([label]))[0]


@pytest.mark.parametrize("depth", [3, 40, 5000])
@pytest.mark.parametrize("width", [1e-3, 0.6, 2.9, 3.1, 30, 1e4])
def test_beside_sure_logits_one_that_is_not_is_a_sigmoid(width, depth, rng):
    """Of all sure logits only the log-sum-exp counts: thirty digits in one dimension."""
    mean = np.array([-depth * max(1, width / 9), *rng.standard_normal(4)])
    var = np.array([width**2, 0, 0, 0, 0])
    rest = logsumexp(mean[1:])
    assert log_average_of(mean, var) == pytest.approx(
        log_average_sigmoid(mean[0] - rest, var[0]), rel=1e-12, abs=1e-6
    )
    # The same one far above, and a sure class far below the other sure ones.
    mean[:2] = -mean[0], -depth
    rest = logsumexp(mean[1:])
    expected = mean[1] - rest + log_average_sigmoid(rest - mean[0], var[0])
    assert log_average_of(mean, var, 1) == pytest.approx(expected, rel=1e-12, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 20, 300, 5000])
@pytest.mark.parametrize("scale", [[0.3, 0.2, 0.1], [1, 2, 3], [2, 0.1, 9], [20, 3, 1], [9, 9, 9]])
def test_of_three_logits_that_are_not_sure_all_averages_are_right(scale, depth, rng):
    """Against a rule in two dimensions, in which there are no scores."""
    mean = rng.standard_normal(3) * scale - [depth, 0, 0]
    assert log_average_of(mean, np.square(scale)) == pytest.approx(
        log_average_softmax(mean, np.square(scale)), abs=1e-6
    )


@pytest.mark.parametrize("n_classes", [3, 10])
def test_ordinary_probabilities_are_those_of_the_other_rules(n_classes, rng):
    width = np.repeat([0, 0.1, 1, 2, 2.9, 3.1, 6, 30, 1e3, 1e4], 3)[:, None]
    mean = np.maximum(width, 1) * rng.standard_normal((30, n_classes))
    var = (width * rng.uniform(0, 1, mean.shape)) ** 2
    probs = expected_softmax(mean, var, accuracy=1e-9).probs
    some = np.nonzero(probs > 1e-2)
    np.testing.assert_allclose(np.exp(log_average(mean, var, *some)), probs[some], rtol=1e-6)


@pytest.mark.parametrize("n_classes", [3, 40])
@pytest.mark.parametrize("width", [0, 1, 3, 10, 1e4, 1e8, 1e16])
def test_equal_logits_have_equal_chances(n_classes, width):
    """Also beside a class that has none."""
    mean, var = np.zeros(n_classes + 1), np.full(n_classes + 1, float(width) ** 2)
    mean[-1], var[-1] = -1e20, 1.0
    assert log_average_of(mean, var, 1) == pytest.approx(-np.log(n_classes), abs=1e-6)


def test_wins_far_from_one_another_share_a_row():
    """The highest score is near 0 where the second class wins, and near -3000 for the third."""
    mean, var = np.array([0.0, -900, -3000]), np.array([1e4, 1e4, 0])
    ours = log_average(mean[None], var[None], np.array([0, 0]), np.array([1, 2]))
    assert ours[0] == pytest.approx(log_average_of(mean, var, 1), abs=1e-6)
    assert ours[1] == pytest.approx(log_average_of(mean, var, 2), abs=1e-6)
    # The two wide ones are below -3000 by themselves, give or take, each with its own chance.
    below = scipy.special.log_ndtr((-3000 - mean[:2]) / 100).sum()
    assert ours[1] == pytest.approx(below, abs=1)


@pytest.mark.parametrize("depth", [40.0, 1000.0])
def test_against_two_sure_winners_the_chance_is_half_of_that_against_one(depth):
    two = log_average_of([-depth, 0.0, -1e9], [4.0, 0.0, 0.0])
    three = log_average_of([-depth, 0.0, 0.0], [4.0, 0.0, 0.0])
    assert three - two == pytest.approx(-np.log(2), abs=1e-6)


def rows(n_classes, rng):
    """Rows of all widths, with probabilities down to exp(-5000)."""
    scale = 10.0 ** rng.uniform(-2, 4, (12, n_classes)) * rng.integers(2, size=(12, n_classes))
    mean = (
        np.maximum(scale, 1)
        * rng.standard_normal((12, n_classes))
        * 10.0 ** rng.uniform(0, 3, (12, 1))
    )
    return mean, scale**2


@pytest.mark.parametrize("n_classes", [3, 5])
def test_log_probs_are_logarithms_of_probabilities(n_classes, rng):
    mean, var = rows(n_classes, rng)
    log_probs = expected_log_probs(mean, var)
    assert log_probs.min() < -1e3 and (log_probs <= 0).all()
    np.testing.assert_allclose(np.exp(log_probs), expected_softmax(mean, var).probs, atol=1e-6)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, rtol=1e-8)
    # Neither the order of the classes nor a shift of all logits counts.
    turned = expected_log_probs(mean[:, ::-1] + 7, var[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(turned, log_probs, rtol=1e-12, atol=1e-6)


def test_a_row_does_not_depend_on_its_neighbours(rng):
    mean, var = rows(3, rng)
    together = expected_log_probs(mean, var)
    for n in range(len(mean)):
        alone = expected_log_probs(mean[n : n + 1], var[n : n + 1])
        np.testing.assert_allclose(alone[0], together[n], rtol=1e-13, atol=1e-13)


def test_without_variance_they_are_those_of_softmax(rng):
    mean = 100 * rng.standard_normal((9, 4))
    ours = expected_log_probs(mean, 0 * mean)
    np.testing.assert_allclose(ours, log_softmax(mean), rtol=1e-12, atol=1e-6)


def test_the_logarithm_is_smooth_where_one_rule_takes_over_from_another():
    """At a thousandth: second differences show no step."""
    mean = np.zeros((400, 3))
    mean[:, 0] = np.linspace(-9, -7, 400)
    log_probs = expected_log_probs(mean, np.full(mean.shape, 2.0))[:, 0]
    assert log_probs[0] < np.log(1e-3) < log_probs[-1]
    assert np.abs(np.diff(log_probs, 2)).max() < 1e-5


def test_the_largest_numbers_have_finite_logarithms(rng):
    mean = rng.choice([-1, 1], (60, 4)) * 10.0 ** rng.uniform(-3, 308, (60, 4))
    var = 10.0 ** rng.uniform(-3, 300, (60, 4))
    var[::3] = 0
    log_probs = expected_log_probs(mean, var)
    assert np.isfinite(log_probs).all() and (log_probs <= 0).all()
    # Where no digits are left a class still has no chance.
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, atol=4e-3)


def test_of_very_many_classes_the_smallest_have_no_digits():
    mean = np.zeros((2, 101))
    mean[:, 0] = -2000
    assert (expected_log_probs(mean, mean * 0)[:, 0] < -20).all()
    np.testing.assert_allclose(expected_log_probs(mean, mean * 0)[:, 1:], -np.log(100), rtol=1e-9)
    np.testing.assert_allclose(
        expected_log_probs(mean[:, :100], mean[:, :100] * 0)[:, 0], -2000 - np.log(99), rtol=1e-9
    )


def test_a_posterior_knows_how_unlikely_a_class_is():
    q = MeanField(np.array([[0.0, 1, 2]]), np.full((1, 3), -3.0))
    posterior = Posterior(q, elbo=0.0)
    log_probs = posterior.predict_log_proba([[1000.0]])
    mean, var = posterior.logit_moments([[1000.0]])
    assert log_probs[0, 0] == pytest.approx(log_average_softmax(mean[0], var[0]), abs=1e-4)
    assert posterior.predict_proba([[1000.0]])[0, 0] < 1e-9
