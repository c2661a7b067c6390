import tracemalloc
import warnings
from functools import partial

import numpy as np
import pytest

from vilogit import checks, fit, fit_sgd, one_hot, simulate, softmax


def test_one_hot_marks_the_label():
    np.testing.assert_array_equal(one_hot([2, 0], 3), [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(one_hot(np.uint8([1]), 2), [[0, 1]])
    assert one_hot([], 3).shape == (0, 3)


def test_one_hot_takes_the_memory_of_its_rows():
    labels = [0, 10**6 - 1]
    tracemalloc.start()
    rows = one_hot(labels, 10**6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.01 * rows.nbytes
    assert rows.sum() == 2 and rows[0, 0] == rows[1, -1] == 1


@pytest.mark.parametrize(
    ("labels", "n_classes", "error", "message"),
    [
        ([[0], [0, 1]], 2, ValueError, "y must be a rectangular array"),
        (np.ma.masked_equal([0, 1], 1), 2, ValueError, "y has masked entries; fill them or leave"),
        ([0, 3], 3, ValueError, r"y\[1\] is 3; expected a label in 0..2"),
        ([0, -1], 3, ValueError, r"y\[1\] is -1; expected a label in 0..2"),
        ([0.5], 3, ValueError, "y must hold integers, not float64"),
        ([1.0], 3, ValueError, "y must hold integers, not float64"),
        (["a"], 3, TypeError, "y must hold integers"),
        ([None], 3, TypeError, "y must hold integers"),
        ([[0]], 3, ValueError, r"y has shape \(1, 1\); expected \(N,\)"),
        ([0], 0, ValueError, "n_classes must be at least 1, not 0"),
        ([0], 2.0, TypeError, "n_classes must be an integer, not 2.0"),
        ([0], True, TypeError, "n_classes must be an integer, not True"),
    ],
)
def test_one_hot_names_bad_labels(labels, n_classes, error, message):
    with pytest.raises(error, match=message):
        one_hot(labels, n_classes)


def test_labels_of_a_fit():
    for labels, n_classes, found in (([0, 1], None, 2), ([0, 0], 3, 3), ([0, 2], 3, 3)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            integers, D = checks.labels(labels, 2, n_classes)
        np.testing.assert_array_equal(integers, labels)
        assert found == D
    with pytest.raises(ValueError, match="y has 3 labels, but X has 2 rows"):
        checks.labels([0, 1, 1], 2, None)
    with pytest.raises(ValueError, match="y holds only class 0; expected two classes or more"):
        checks.labels([0, 0], 2, None)
    with pytest.raises(ValueError, match="n_classes must be at least 2, not 1"):
        checks.labels([0, 0], 2, 1)
    with pytest.raises(ValueError, match=r"y\[0\] is -1; expected a label in 0..D-1"):
        checks.labels([-1, 0], 2, None)
    with pytest.raises(ValueError, match=r"y\[1\] is 5; expected a label in 0..2"):
        checks.labels([0, 5], 2, 3)


ROWS = np.column_stack([np.linspace(-1, 1, 3), np.ones(3)])


@pytest.mark.parametrize("fitted", [fit, partial(fit_sgd, rng=np.random.default_rng(0), steps=2)])
@pytest.mark.parametrize(
    ("y", "absent"),
    [([1, 2, 2], "0"), ([0, 2, 0], "1"), ([5, 7, 7], "0, 1, 2, 3, 4, ...")],
)
def test_a_class_that_nobody_announced_is_named(fitted, y, absent):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        posterior = fitted(ROWS, y)
    assert str(next(w for w in caught if w.category is UserWarning).message) == (
        f"y holds labels up to {max(y)}, but none of class {absent}; "
        f"pass n_classes={max(y) + 1} if they are meant, or number the classes from 0"
    )
    assert posterior.mean.shape == (2, max(y) + 1)


@pytest.mark.parametrize("fitted", [fit, partial(fit_sgd, rng=np.random.default_rng(0), steps=2)])
def test_the_warning_of_absent_classes_points_at_the_caller(fitted):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted(ROWS, [1, 2, 2])
    assert next(w for w in caught if w.category is UserWarning).filename == __file__


@pytest.mark.parametrize("fitted", [fit, partial(fit_sgd, rng=np.random.default_rng(0))])
@pytest.mark.parametrize("top", [1003, 10_000_000, 2**63 - 1])
def test_a_label_that_is_no_class_is_refused_before_it_takes_memory(fitted, top):
    message = f"^y holds {top}, which implies {top + 1} classes for 3 rows; pass n_classes"
    with pytest.raises(ValueError, match=message):
        fitted(ROWS, [0, 1, top])


def test_a_thousand_absent_classes_may_still_be_meant():
    with pytest.warns(UserWarning, match=r"none of class 2, 3, 4, 5, 6, \.\.\.;"):
        assert checks.labels([0, 1, 1002], 3, None)[1] == 1003
    assert checks.labels([0, 1, 5000], 3, 5001)[1] == 5001


def test_no_integer_becomes_another_one():
    for n_classes in (None, 3):
        with pytest.raises(ValueError, match=rf"y\[1\] is {2**64 - 1}; expected a label in 0"):
            checks.labels(np.array([0, 2**64 - 1], np.uint64), 2, n_classes)


def test_masked_numbers_are_no_numbers():
    masked = np.ma.masked_invalid([[1.0, np.nan]])
    with pytest.raises(ValueError, match="X has masked entries; fill them or leave them out"):
        checks.inputs(masked)
    np.testing.assert_array_equal(checks.inputs(masked[:, :1]), [[1.0]])


def test_inputs_of_a_fit():
    assert checks.inputs([[1, 2]]).dtype == np.float64
    assert checks.inputs(np.ones((2, 2), np.float32)).dtype == np.float32
    for bad in (np.ones((0, 2)), np.ones((2, 0))):
        with pytest.raises(ValueError, match="expected at least one row and one column"):
            checks.inputs(bad)
    with pytest.raises(ValueError, match=r"X has shape \(3,\); expected \(N, M\)"):
        checks.inputs(np.ones(3))
    with pytest.raises(ValueError, match=r"X must be finite, but holds inf at index \(0, 1\)"):
        checks.inputs([[0, np.inf]])


def test_arrays_are_checked_without_a_copy():
    array = np.ones((2, 3))
    assert checks.array(array, "a", (2, "M")) is array
    assert checks.array(array, "a", (..., 3)) is array
    with pytest.raises(ValueError, match=r"a has shape \(2, 3\); expected \(\.\.\., 2\)"):
        checks.array(array, "a", (..., 2))
    with pytest.raises(ValueError, match=r"a must be finite, but holds nan$"):
        checks.array(np.nan, "a", ())
    with pytest.raises(TypeError, match="a must hold real numbers, not values of dtype object"):
        checks.array(np.array([1, None]), "a", ("N",))


def test_prior_precision_is_a_scalar_or_one_per_feature():
    assert checks.prior_precision(2, 3).shape == ()
    assert checks.prior_precision([1, 2, 3], 3).shape == (3, 1)
    with pytest.raises(ValueError, match=r"prior_precision has shape \(2,\); expected \(3,\)"):
        checks.prior_precision([1, 2], 3)
    for bad in (0, -1.0, [1, 0, 1]):
        with pytest.raises(ValueError, match="prior_precision must be positive"):
            checks.prior_precision(bad, 3)
    for bad in (np.nan, np.inf, [1, np.inf, 1]):
        with pytest.raises(ValueError, match="prior_precision must be finite"):
            checks.prior_precision(bad, 3)
    with pytest.raises(TypeError, match="prior_precision must hold real numbers"):
        checks.prior_precision("strong", 3)


def test_sizes_numbers_and_generators():
    assert checks.size(np.int64(3), "n", at_least=0) == 3
    assert checks.positive(2, "rate", ()) == 2
    with pytest.raises(TypeError, match=r"rng must be a numpy.random.Generator, not int"):
        checks.rng(3)
    with pytest.raises(TypeError, match="not RandomState"):
        checks.rng(np.random.RandomState(0))


def test_simulated_inputs_end_in_a_bias_column(rng):
    X, y, W = simulate(rng, n=50, n_classes=4, n_features=2)
    assert X.shape == (50, 3) and y.shape == (50,) and W.shape == (3, 4)
    np.testing.assert_array_equal(X[:, -1], 1)
    assert (np.abs(X[:, :2]) <= 5).all() and np.abs(X[:, :2]).max(axis=0).min() > 4


def test_simulated_labels_follow_the_softmax_of_the_logits():
    X, y, W = simulate(np.random.default_rng(3), n=100_000, prior_precision=4.0)
    probs = softmax(X @ W)
    # Four standard errors of a mean of 100,000 products of bounded terms.
    residual = np.eye(3)[y] - probs
    for column in X.T:
        np.testing.assert_allclose((residual * column[:, None]).mean(axis=0), 0, atol=0.02)


def test_simulated_weights_have_the_stated_precision():
    W = np.stack([simulate(np.random.default_rng(k), n=1, prior_precision=25.0).W
                  for k in range(500)])  # fmt: skip
    assert W.std() == pytest.approx(0.2, rel=0.05)
    assert W.mean() == pytest.approx(0, abs=0.012)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": 0}, ValueError, "n must be at least 1"),
        ({"n_classes": 1}, ValueError, "n_classes must be at least 2"),
        ({"n_features": 0}, ValueError, "n_features must be at least 1"),
        ({"n": 2.5}, TypeError, "n must be an integer"),
        ({"extent": 0}, ValueError, "extent must be positive"),
        ({"prior_precision": [1, 2]}, ValueError, r"prior_precision has shape \(2,\)"),
        ({"rng": 1}, TypeError, "rng must be"),
    ],
)
def test_simulate_names_bad_arguments(arguments, error, message, rng):
    with pytest.raises(error, match=message):
        simulate(**{"rng": rng, **arguments})


def test_nothing_global_is_touched(toy):
    import vilogit

    before = np.geterr(), warnings.filters[:], np.random.get_state()[1].copy()  # noqa: NPY002
    vilogit.softmax([np.inf, 0.0])
    vilogit.fit_sgd(toy.X, toy.y, rng=np.random.default_rng(0), steps=5)
    assert np.geterr() == before[0] and warnings.filters[:] == before[1]
    np.testing.assert_array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002
