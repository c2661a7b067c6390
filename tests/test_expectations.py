import tracemalloc

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from oracles import directional_derivative, tensor_expectations

from vilogit import expectations, expected_softmax, softmax
from vilogit.expectations import _expansion, averages


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
    count = 401 if n_classes == 2 else 31 + round(10 * scale)
    oracle = [tensor_expectations(m, v, count) for m, v in zip(mean, var, strict=True)]
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


@pytest.mark.parametrize("n_classes", [2, 3])
def test_wider_rows_than_the_widest_are_measured_in_larger_units(n_classes, rng):
    mean, var = rng.standard_normal((2, n_classes)), rng.uniform(0.3, 1, (2, n_classes))
    var /= var.max(axis=1, keepdims=True)
    near = expected_softmax(64 * mean, 64**2 * var, accuracy=1e-2)
    for factor in (4.0, 1e6):
        unit = 64 * factor
        far = expected_softmax(unit * mean, unit**2 * var, accuracy=1e-2)
        np.testing.assert_allclose(far.log_sum_exp, factor * near.log_sum_exp, rtol=1e-9)
        np.testing.assert_allclose(far.probs, near.probs, atol=1e-9)
        np.testing.assert_allclose(far.spread, near.spread / factor, rtol=1e-6, atol=1e-12)


def test_a_wide_row_does_not_depend_on_its_neighbours(rng):
    """All in larger units than their own: each in those of its own width."""
    width = np.array([[66.0], [70.0], [90.0]])
    mean, var = width * rng.standard_normal((3, 3)), width**2 * np.ones((3, 3))
    together = expected_softmax(mean, var, accuracy=1e-2)
    for n in range(3):
        alone = expected_softmax(mean[n : n + 1], var[n : n + 1], accuracy=1e-2)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a[0], b[n], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("n_classes", [2, 3, 40])
def test_blocks_of_rows_are_as_good_as_one(n_classes, rng, monkeypatch):
    mean, var = 2 * rng.standard_normal((2, 60, n_classes)) ** 2
    var[::2] /= 1e4
    whole = expected_softmax(mean, var)
    monkeypatch.setattr(expectations, "_SLAB", 3)
    monkeypatch.setattr(expectations, "_BLOCK", 7 * n_classes)
    for a, b in zip(whole, expected_softmax(mean, var), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_single_precision_is_for_coarse_averages_of_narrow_rows_that_allow_it(rng):
    mean = rng.standard_normal((5, 3)).astype(np.float32)
    var = np.full((5, 3), 1.0, np.float32)
    fine = averages(mean.astype(float), var.astype(float), 1e-9)
    for accuracy, single, dtype in (
        (1e-3, True, np.float32),
        (1e-2, True, np.float32),
        (9e-4, True, np.float64),
        (1e-3, False, np.float64),
    ):
        rough = averages(mean, var, accuracy, single)
        assert rough.probs.dtype == dtype
        for a, b in zip(rough, fine, strict=True):
            np.testing.assert_allclose(a, b, atol=2 * accuracy)


@pytest.fixture
def asked(monkeypatch):
    """What the rules are asked for: rows of the expansion's calls, and the grids."""
    rows, grids = [], []
    expansion, grid = expectations._expansion, expectations._grid

    def counted(mean, var):
        rows.append(len(mean))
        return expansion(mean, var)

    def noted(width, accuracy, *rest):
        grids.append((float(width), accuracy, *rest))
        return grid(width, accuracy, *rest)

    monkeypatch.setattr(expectations, "_expansion", counted)
    monkeypatch.setattr(expectations, "_grid", noted)
    return rows, grids


@pytest.mark.parametrize(("accuracy", "edge"), [(1e-6, 0.01817), (1e-3, 0.1817), (1.0, 0.5)])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_expansion_serves_rows_where_its_error_is_small_enough(
    n_classes, accuracy, edge, asked
):
    """The cube of the variance over six, but never beyond a half."""
    var = np.zeros((1, n_classes))
    for factor, expected in ((0.99, [1]), (1.01, [])):
        var[0, 1] = factor * edge
        asked[0].clear()
        expected_softmax(np.zeros_like(var), var, accuracy=accuracy)
        assert asked[0] == expected


@pytest.mark.parametrize("n_classes", [2, 5])
def test_a_row_gets_the_narrowest_grid_that_covers_it(n_classes, asked):
    step = 4 if n_classes == 2 else 2  # between the variances that grids are made for
    for top in (0.3, 0.5, 0.51, 1.9, 2.0, 2.1, 4.0, 30.0, 63.9, 64.1, 1000.0, 4095.0):
        var = np.full((3, n_classes), 0.2)
        var[:, -1] = top
        asked[1].clear()
        expected_softmax(np.zeros_like(var), var, accuracy=1e-3)
        ((width, accuracy, D, *single),) = asked[1]
        if n_classes == 2:  # the difference of two such logits, to a digit more
            width, accuracy = width / np.sqrt(2), 10 * accuracy
        else:
            assert single == [True]
        assert accuracy == pytest.approx(1e-3) and n_classes == D
        assert width**2 >= top * (1 - 1e-9)
        assert width**2 < step * max(top, 2 if top > 0.5 else 0.5) * (1 - 1e-9)


@pytest.mark.parametrize(("n_classes", "grids"), [(2, 1), (3, 2)])
def test_rows_of_like_width_share_a_grid(n_classes, grids, asked):
    """Within a factor of four in the variance for two classes, of two for more."""
    var = np.zeros((4, n_classes))
    var[:, 0] = 5, 7, 9, 15
    for single in (True, False):
        asked[1].clear()
        averages(np.zeros_like(var), var, 1e-2, single)
        assert len(asked[1]) == grids
        assert n_classes == 2 or {grid[3] for grid in asked[1]} == {single}


def test_beyond_the_widest_grid_there_is_one_grid(asked):
    for top in (64.1**2, 1e6, 1e200):
        expected_softmax(np.zeros((1, 3)), np.full((1, 3), top), accuracy=1e-2)
    assert [width for width, *_ in asked[1]] == [64.0] * 3


@pytest.mark.parametrize("n_classes", [2, 3, 50, 20_000])
def test_temporary_arrays_of_the_expansion_stay_small(n_classes, asked):
    n = 40_000 // n_classes
    expected_softmax(np.zeros((n, n_classes)), np.zeros((n, n_classes)))
    assert max(asked[0]) == max(1, 10_000 // n_classes) and sum(asked[0]) == n


@pytest.mark.parametrize("n_classes", [3, 40])
def test_temporary_arrays_of_the_race_stay_small(n_classes, monkeypatch):
    seen, everywhere = [], expectations._everywhere

    def noted(start, scale, steps, nodes, weights, scratch):
        seen.append((scale.size * len(nodes) * len(steps), scratch))
        return everywhere(start, scale, steps, nodes, weights, scratch)

    monkeypatch.setattr(expectations, "_everywhere", noted)
    averages(np.zeros((300, n_classes)), np.ones((300, n_classes)), 1e-2)
    sizes = [size for size, _ in seen]
    assert 50_000 < max(sizes) <= 100_000
    assert len({id(scratch) for _, scratch in seen}) == 1
    assert seen[0][1].shape == (2, max(sizes)) and seen[0][1].dtype == np.float32
    seen.clear()
    averages(np.zeros((2, n_classes)), np.ones((2, n_classes)), 1e-2)
    assert seen[0][1].shape == (2, seen[0][0])  # no more than two rows need
    seen.clear()
    averages(np.zeros((3, 3000)), np.ones((3, 3000)), 1e-2)
    assert len(seen) == 3  # a row that is too much by itself comes alone


@pytest.mark.parametrize("width", [6.0, 20.0, 1000.0])
def test_wide_rows_need_no_more_memory_than_others(width, rng):
    mean, var = width * rng.standard_normal((100, 3)), np.full((100, 3), width**2)
    expected_softmax(mean[:1], var[:1])  # what is kept from call to call
    tracemalloc.start()
    expected_softmax(mean, var)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1e5 < peak < 1e7


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
