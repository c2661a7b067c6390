"""Averages over pairs of classes: second derivatives of the averaged log-sum-exp."""

import mpmath
import numpy as np
import pytest
from oracles import directional_derivative

from vilogit import expected_softmax
from vilogit.pairs import pair_averages


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


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_both_rules_agree_where_one_takes_over(n_classes, rng):
    mean = 2 * rng.standard_normal((50, n_classes))
    var = 0.01 * rng.uniform(0.1, 1, (50, n_classes))
    var[:, 0] = 0.01
    below, above = (pair_averages(mean, var * (1 + t), 1e-4) for t in (-1e-9, 1e-9))
    assert not np.array_equal(below.mm, above.mm)  # they are two
    for a, b, digits in zip(below, above, (1e-4, 2e-2, 3e-2), strict=True):
        np.testing.assert_allclose(a, b, atol=digits * np.abs(b).max())
    mixed = pair_averages(
        mean, var * np.where(np.arange(50) % 2, 1 + 1e-9, 1 - 1e-9)[:, None], 1e-4
    )
    for part, a, b in zip(mixed, below, above, strict=True):
        np.testing.assert_array_equal(part[::2], a[::2])
        np.testing.assert_allclose(part[1::2], b[1::2], rtol=1e-9, atol=1e-12)
