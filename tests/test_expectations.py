import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from oracles import directional_derivative, tensor_expectations

from vilogit import expected_softmax, softmax
from vilogit.expectations import _expansion


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


@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.1, 0.5, 1.0, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_averages_agree_with_a_tensor_rule(n_classes, scale, rng):
    mean = max(scale, 1) * rng.standard_normal((6, n_classes))
    var = (scale * rng.uniform(0.2, 1, (6, n_classes))) ** 2
    ours = expected_softmax(mean, var)
    # The nodes of the oracle are a logit apart at most: its own error is far below 1e-6.
    oracle = [
        tensor_expectations(m, v, 401 if n_classes == 2 else 81)
        for m, v in zip(mean, var, strict=True)
    ]
    for value, expected in zip(ours, zip(*oracle, strict=True), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-6)


@pytest.mark.parametrize("scale", [10.0, 50.0])
def test_wide_logits_of_two_classes_agree_with_one_dimension(scale, rng):
    mean, var = scale * rng.standard_normal((2, 4, 2))
    var = scale**2 * rng.uniform(0.1, 1, (4, 2))
    lse, probs, spread = expected_softmax(mean, var)
    nodes = np.linspace(-9, 9, 20_001)
    weights = np.exp(-(nodes**2) / 2)
    weights /= weights.sum()
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
        errors.append(
            [np.abs(a - b).max() for a, b in zip(_expansion(mean, v), exact, strict=True)]
        )
    order = np.log2(np.divide(*errors))
    np.testing.assert_allclose(order, [4, 3, 3], atol=0.3)
