import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import directional_derivative

from vilogit import log_softmax, softmax, softmax_jacobian, softmax_jvp
from vilogit.softmax import sigmoid

LOGITS = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6),
    elements=st.floats(-700, 700),
)


@given(LOGITS)
def test_values_agree_with_scipy(logits):
    for ours, theirs in (
        (softmax, scipy.special.softmax),
        (log_softmax, scipy.special.log_softmax),
    ):
        for axis in range(-logits.ndim, logits.ndim):
            np.testing.assert_allclose(
                ours(logits, axis=axis), theirs(logits, axis=axis), rtol=1e-12, atol=1e-300
            )


@given(LOGITS, st.data())
def test_several_axes_run_over_the_classes_together(logits, data):
    some = data.draw(st.sets(st.integers(0, logits.ndim - 1)))
    for axis in (None, tuple(some), tuple(k - logits.ndim for k in some)):
        for ours, theirs in (
            (softmax, scipy.special.softmax),
            (log_softmax, scipy.special.log_softmax),
        ):
            expected = theirs(logits, axis=axis)
            np.testing.assert_allclose(ours(logits, axis), expected, rtol=1e-12, atol=1e-300)


def test_all_axes_of_a_number_and_infinities_along_two_axes():
    assert softmax(3.0, axis=None) == 1 and log_softmax(3.0, axis=None) == 0
    one, two = np.array([[np.inf, 0.0], [1.0, 2.0]]), np.array([[np.inf, 0.0], [np.inf, 2.0]])
    np.testing.assert_array_equal(softmax(one, axis=None), [[1, 0], [0, 0]])
    assert np.isnan(softmax(two, axis=None)).all()
    together = softmax(np.stack([one, two]), axis=(1, 2))
    np.testing.assert_array_equal(together[0], [[1, 0], [0, 0]])
    assert np.isnan(together[1]).all()


@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_axes_that_cannot_be_are_named(function):
    logits = np.ones((2, 3))
    for axis in (1.0, "1", [0, 1], (0, 1.0)):
        with pytest.raises(TypeError, match=r"^axis must be an integer, a tuple or None, not "):
            function(logits, axis=axis)
    with pytest.raises(ValueError, match=r"^axis \(1, -1\) names an axis twice: logits has shape"):
        function(logits, axis=(1, -1))
    with pytest.raises(ValueError, match=r"^axis 2 does not exist: logits has shape \(2, 3\)$"):
        function(logits, axis=(0, 2))
    for axis in (None, (0, 1)):
        with pytest.raises(ValueError, match="expected at least one class"):
            function(np.ones((0, 3)), axis=axis)


def test_default_axis_is_the_last(rng):
    logits = rng.standard_normal((4, 3))
    np.testing.assert_allclose(softmax(logits).sum(axis=-1), 1)
    np.testing.assert_array_equal(softmax(logits), softmax(logits, axis=1))


@pytest.mark.parametrize(
    ("logits", "probs"),
    [
        ([1e300, -1e300, 0], [1, 0, 0]),
        ([1e300, 1e300], [0.5, 0.5]),
        ([-1e300, -1e300], [0.5, 0.5]),
        ([1.7e308, -1.7e308], [1, 0]),
        ([np.inf, 0, -np.inf], [1, 0, 0]),
        ([np.inf, 1e308], [1, 0]),
        ([-np.inf, 0, 0], [0, 0.5, 0.5]),
        ([-np.inf, -1e300], [0, 1]),
        ([5.0], [1]),
        ([np.inf], [1]),
    ],
)
def test_extreme_logits_have_their_limit(logits, probs):
    np.testing.assert_array_equal(softmax(logits), probs)
    log_probs = log_softmax(logits)
    assert not np.isnan(log_probs).any()
    np.testing.assert_allclose(np.exp(log_probs), probs, rtol=1e-15)
    jacobian = np.diag(probs) - np.outer(probs, probs)
    np.testing.assert_array_equal(softmax_jacobian(logits), jacobian)


@pytest.mark.parametrize(
    "row", [[np.nan, 0], [np.inf, np.inf, 0], [-np.inf, -np.inf], [-np.inf], [np.nan, np.inf]]
)
def test_a_row_without_a_limit_is_nan_and_leaves_the_others_alone(row):
    rows = np.array([row, np.zeros(len(row))])
    for function, expected in ((softmax, 1 / len(row)), (log_softmax, -np.log(len(row)))):
        values = function(rows)
        assert np.isnan(values[0]).all()
        np.testing.assert_allclose(values[1], expected)


def test_log_softmax_keeps_what_underflows():
    np.testing.assert_array_equal(log_softmax([0.0, -1e300]), [0, -1e300])
    np.testing.assert_allclose(log_softmax([0.0, -2000.0]), [0, -2000])


@pytest.mark.parametrize("n_classes", [1, 2, 10, 10_000])
def test_any_number_of_classes_and_no_rows(n_classes, rng):
    logits = 50 * rng.standard_normal((3, n_classes))
    np.testing.assert_allclose(softmax(logits), scipy.special.softmax(logits, axis=1), rtol=1e-12)
    assert softmax(logits[:0]).shape == (0, n_classes)
    assert log_softmax(logits[:0]).shape == (0, n_classes)
    assert softmax_jvp(logits[:0], logits[:0]).shape == (0, n_classes)


def test_jacobian_is_the_derivative_of_softmax(rng):
    logits = rng.standard_normal((5, 4))
    jacobian = softmax_jacobian(logits)
    for n in range(5):
        for d in range(4):
            column = directional_derivative(softmax, logits[n], np.eye(4)[d], step=1e-3)
            np.testing.assert_allclose(jacobian[n, :, d], column, rtol=1e-6, atol=1e-10)


@given(LOGITS)
def test_jacobian_rows_sum_to_zero_and_it_is_symmetric(logits):
    jacobian = softmax_jacobian(logits)
    np.testing.assert_allclose(jacobian.sum(axis=-1), 0, atol=1e-15 * logits.shape[-1])
    np.testing.assert_allclose(jacobian, np.swapaxes(jacobian, -1, -2), atol=1e-16)


def test_jacobian_is_the_covariance_of_a_categorical_draw(rng):
    logits = np.array([0.3, -1.0, 0.8])
    draws = rng.multinomial(1, softmax(logits), size=200_000)
    # Entries are means of 200,000 bounded terms: four standard errors are below 5e-3.
    np.testing.assert_allclose(softmax_jacobian(logits), np.cov(draws.T), atol=5e-3)


@given(LOGITS)
def test_jvp_is_the_product_with_the_jacobian(logits):
    tangent = np.cos(np.arange(logits.shape[-1]))
    full = np.einsum("...ud,d->...u", softmax_jacobian(logits), tangent)
    np.testing.assert_allclose(softmax_jvp(logits, tangent), full, atol=1e-14)


def test_sigmoid_agrees_with_scipy_and_never_overflows(rng):
    x = np.concatenate([rng.uniform(-40, 40, 50), [-1e300, -800, 0, 800, 1e300]])
    np.testing.assert_allclose(sigmoid(x), scipy.special.expit(x), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, bool])
def test_everything_but_float32_becomes_float64(dtype):
    assert softmax(np.ones((2, 3), dtype)).dtype == np.float64
    assert softmax(np.ones((2, 3), np.float32)).dtype == np.float32
    assert softmax(np.float32([np.inf, 0])).dtype == np.float32
    assert softmax_jacobian(np.ones((2, 3), np.float32)).dtype == np.float32


def test_input_is_left_alone():
    logits = np.array([1.0, 2.0, np.inf])
    logits.flags.writeable = False
    for function in (softmax, log_softmax, softmax_jacobian):
        function(logits)
        np.testing.assert_array_equal(logits, [1, 2, np.inf])


@pytest.mark.parametrize("function", [softmax, log_softmax, softmax_jacobian])
def test_bad_input_is_named(function):
    with pytest.raises(TypeError, match="logits must hold real numbers"):
        function(["a", "b"])
    with pytest.raises(TypeError, match="logits must hold real numbers"):
        function([1j, 2])
    with pytest.raises(ValueError, match=r"logits has shape \(2, 0\); expected at least one"):
        function(np.ones((2, 0)))
    with pytest.raises(ValueError, match=r"axis -1 does not exist: logits has shape \(\)"):
        function(1.0)
    with pytest.raises(ValueError, match="logits must be a rectangular array"):
        function([[1.0], [1.0, 2.0]])


def test_a_missing_axis_is_named():
    with pytest.raises(ValueError, match=r"axis 2 does not exist: logits has shape \(2, 3\)"):
        softmax(np.ones((2, 3)), axis=2)


def test_tangents_must_match():
    with pytest.raises(ValueError, match=r"tangent has shape \(4,\); expected \(\.\.\., 3\)"):
        softmax_jvp(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match=r"\(0, 3\); expected one that broadcasts with logits"):
        softmax_jvp(np.ones((4, 3)), np.ones((0, 3)))
    assert softmax_jvp(np.ones((4, 1, 3)), np.ones((2, 3))).shape == (4, 2, 3)


def test_what_is_wrong_is_named_by_its_argument():
    with pytest.raises(TypeError, match=r"^tangent must hold real numbers"):
        softmax_jvp(np.ones(3), ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"^tangent must be finite"):
        softmax_jvp(np.ones(3), [1, 2, np.nan])
    for axis in (-3, 2):
        with pytest.raises(ValueError, match=rf"^axis {axis} does not exist"):
            log_softmax(np.ones((2, 3)), axis=axis)
    with pytest.raises(ValueError, match="expected at least one class"):
        softmax(np.ones((0, 3)), axis=0)


def test_rows_with_and_without_infinities_keep_apart_along_any_axis():
    rows = np.array([[np.inf, 0.0, 1.0], [1.0, 2.0, 0.0], [np.inf, np.inf, 0.0]])
    for function in (softmax, log_softmax):
        np.testing.assert_array_equal(function(rows.T, axis=0), function(rows).T)
        for n in range(3):
            np.testing.assert_array_equal(function(rows)[n], function(rows[n]))
