import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from oracles import directional_derivative

from vilogit import cross_entropy, cross_entropy_gradient, cross_entropy_hvp, one_hot
from vilogit.cross_entropy import _product


def problem(seed, n=7, m=3, d=4):
    rng = np.random.default_rng(seed)
    X, W = rng.standard_normal((n, m)), 2 * rng.standard_normal((m, d))
    return rng, W, X, one_hot(rng.integers(d, size=n), d)


SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS)
def test_value_agrees_with_scipy(seed):
    _, W, X, Y = problem(seed)
    expected = -np.sum(Y * scipy.special.log_softmax(X @ W, axis=1))
    assert cross_entropy(W, X, Y) == pytest.approx(expected, rel=1e-12)


@given(SEEDS)
def test_gradient_is_the_derivative_of_the_value(seed):
    rng, W, X, Y = problem(seed)
    V = rng.standard_normal(W.shape)
    slope = directional_derivative(lambda W: cross_entropy(W, X, Y), W, V, step=1e-3)
    scale = np.abs(X).sum() * np.abs(V).max()
    assert np.sum(cross_entropy_gradient(W, X, Y) * V) == pytest.approx(
        slope, rel=1e-6, abs=1e-9 * scale
    )


@given(SEEDS)
def test_hessian_product_is_the_derivative_of_the_gradient(seed):
    rng, W, X, Y = problem(seed)
    V = rng.standard_normal(W.shape)
    slope = directional_derivative(lambda W: cross_entropy_gradient(W, X, Y), W, V, step=1e-3)
    np.testing.assert_allclose(cross_entropy_hvp(W, X, V), slope, rtol=1e-6, atol=1e-8)


@given(SEEDS)
def test_hessian_is_positive_semidefinite_and_blind_to_a_shared_shift(seed):
    rng, W, X, _ = problem(seed)
    V = rng.standard_normal(W.shape)
    assert np.sum(V * cross_entropy_hvp(W, X, V)) >= 0
    shift = np.repeat(rng.standard_normal((3, 1)), 4, axis=1)
    np.testing.assert_allclose(cross_entropy_hvp(W, X, shift), 0, atol=1e-12)


@given(SEEDS)
def test_soft_labels_agree_with_scipy(seed):
    rng, W, X, _ = problem(seed)
    Y = rng.dirichlet(np.ones(4), size=7)
    expected = -np.sum(Y * scipy.special.log_softmax(X @ W, axis=1))
    assert cross_entropy(W, X, Y) == pytest.approx(expected, rel=1e-12)


def test_sums_over_observations_are_float64():
    # In float32 this sum stops growing at 2**24; the labels are as wrong as can be.
    n = 40
    X = np.full((n, 1), 1e6, np.float32)
    X[0] = 3e-2
    W = np.array([[1.0, 0.0]], np.float32)
    Y = np.tile(np.float32([0, 1]), (n, 1))
    # Exact: (n - 1) 1e6 + softplus(0.03); float32 would lose the last term.
    assert cross_entropy(W, X, Y) == pytest.approx((n - 1) * 1e6 + np.logaddexp(0, 0.03), rel=1e-12)
    assert cross_entropy_gradient(W, X, Y).dtype == np.float64


@pytest.mark.parametrize("size", [1e300, np.inf])
def test_extreme_logits_have_their_limit(size):
    X, Y = np.ones((1, 1)), np.array([[1.0, 0, 0]])
    assert cross_entropy([[size, 0, -size]], X, Y) == 0
    assert cross_entropy([[-size, 0, 0]], X, Y) == size
    np.testing.assert_array_equal(cross_entropy_gradient([[size, 0, -size]], X, Y), [[0, 0, 0]])
    np.testing.assert_array_equal(cross_entropy_gradient([[-size, 0, -size]], X, Y), [[-1, 1, 0]])


def test_a_product_that_overflows_is_an_infinite_logit():
    assert cross_entropy([[1e300, 0]], [[1e300]], [[1.0, 0]]) == 0


@pytest.mark.parametrize("n_classes", [1, 2, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_number_of_classes_and_no_rows(n_classes, rng):
    W = rng.standard_normal((2, n_classes))
    X, Y = rng.standard_normal((3, 2)), one_hot([0, 0, n_classes - 1], n_classes)
    expected = -np.sum(Y * scipy.special.log_softmax(X @ W, axis=1))
    assert cross_entropy(W, X, Y) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert cross_entropy(W, X[:0], Y[:0]) == 0
    np.testing.assert_array_equal(cross_entropy_gradient(W, X[:0], Y[:0]), np.zeros_like(W))
    np.testing.assert_array_equal(cross_entropy_hvp(W, X[:0], W), np.zeros_like(W))


@pytest.mark.parametrize("function", [cross_entropy, cross_entropy_gradient])
def test_bad_input_is_named(function):
    _, W, X, Y = problem(0)
    with pytest.raises(ValueError, match=r"W has shape \(2, 4\); expected \(3, D\)"):
        function(W[:2], X, Y)
    with pytest.raises(ValueError, match=r"Y has shape \(6, 4\); expected \(7, 4\)"):
        function(W, X, Y[:6])
    with pytest.raises(ValueError, match="row 2 is"):
        bad = Y.copy()
        bad[2] = 1
        function(W, X, bad)
    with pytest.raises(ValueError, match=r"X must be finite, but holds nan at index \(1, 2\)"):
        bad = X.copy()
        bad[1, 2] = np.nan
        function(W, bad, Y)
    with pytest.raises(ValueError, match=r"Y must be finite"):
        function(W, X, np.full_like(Y, np.nan))
    with pytest.raises(TypeError, match="W must hold real numbers"):
        function(None, X, Y)
    with pytest.raises(ValueError, match=r"Y must have non-negative rows"):
        bad = Y.copy()
        bad[0] = [2, -1, 0, 0]
        function(W, X, bad)


def test_bad_directions_are_named():
    _, W, X, _ = problem(0)
    with pytest.raises(ValueError, match=r"V has shape \(3, 3\); expected \(3, 4\)"):
        cross_entropy_hvp(W, X, W[:, :3])
    with pytest.raises(ValueError, match=r"^X has shape \(3,\); expected \(N, M\)$"):
        cross_entropy_hvp(W, X[0], W)
    with pytest.raises(ValueError, match=r"^W has shape \(2, 4\); expected \(3, D\)$"):
        cross_entropy_hvp(W[:2], X, W)
    with pytest.raises(ValueError, match=r"^W has shape \(4,\); expected \(3, D\)$"):
        cross_entropy(W[0], X, np.eye(4))
    with pytest.raises(ValueError, match=r"^X has shape \(3,\); expected \(N, M\)$"):
        cross_entropy(W, X[0], np.eye(4))
    with pytest.raises(ValueError, match="V must be finite"):
        cross_entropy_hvp(W, X, W * np.inf)


def test_infinite_weights_have_no_curvature():
    W = np.array([[np.inf, 0.0, -1.0]])
    np.testing.assert_array_equal(cross_entropy_hvp(W, np.ones((2, 1)), np.ones((1, 3))), 0)


def test_hessian_products_of_float32_are_float64():
    """The sum over rows of 2**24 and ones, which float32 would lose."""
    X = np.ones((400, 1), np.float32)
    X[0] = 2**12
    V = np.array([[1.0, 0.0]])
    W = np.zeros((1, 2))
    assert cross_entropy_hvp(W, X, V).dtype == np.float64
    np.testing.assert_array_equal(
        cross_entropy_hvp(W, X, V), [[0.25, -0.25]] * (X.T @ X.astype(float))
    )


def test_a_certain_answer_costs_zero_without_a_sign():
    value = cross_entropy([[np.inf, 0.0]], [[1.0]], [[1.0, 0.0]])
    assert value == 0 and not np.signbit(value)


def test_logits_have_the_precision_of_the_inputs():
    X, W = np.ones((2, 3)), np.ones((3, 4))
    assert _product(X.astype(np.float32), W).dtype == np.float32
    assert _product(X, W.astype(np.float32)).dtype == np.float64


def test_nothing_times_an_infinite_weight_is_no_number_and_no_warning():
    assert np.isnan(cross_entropy([[np.inf, 0.0]], [[0.0]], [[1.0, 0.0]]))
