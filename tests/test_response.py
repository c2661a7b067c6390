"""The linear response: the derivative of optima that are fitted anew, whatever the problem."""

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.stats

from vilogit import fit, simulate
from vilogit.bound import AlignedBound, Bound
from vilogit.contrasts import contrast_basis
from vilogit.response import linear_response
from vilogit.rows import Rows
from vilogit.search import Search


@dataclass(frozen=True)
class Tilted(AlignedBound):
    """The bound of a log joint to which ``sum(tilt * V)`` is added."""

    tilt: np.ndarray

    def evaluate(self, theta, accuracy):
        point = super().evaluate(theta, accuracy)
        slope = point.slope + np.stack([self.tilt, 0 * self.tilt])
        gap = self._square(slope, np.exp(2 * theta[1])) / 2
        elbo = point.elbo + np.vdot(self.tilt, theta[0])
        return point._replace(elbo=elbo, slope=slope, gap=float(gap))


def problem(n_classes, seed=0, n=60):
    rng = np.random.default_rng(seed)
    data = simulate(rng, n, n_classes)
    return data.X, data.y, rng


def fitted(X, y, **options):
    return fit(X, y, family="aligned", tol=1e-8, accuracy=1e-9, **options)


def moved(q, X, y, tilt, weight=None):
    """How fast the means in the axes move with the tilt."""
    D = q.location.shape[1]
    plain = Bound(Rows.of(X, y, D, weight), q.prior_precision)
    bound = AlignedBound.within(q.axes, plain)
    theta = np.stack([q.location, np.log(q.width)])
    ends = []
    for sign in (1, -1):
        tilted = Tilted(bound.rows, bound.prior, bound.axes, plain, 0.01 * sign * tilt)
        ends.append(Search(60).climb(tilted, theta, 1e-14, (1e-9, 1e-9, 1e-9)).theta[0])
    return (ends[0] - ends[1]) / 0.02


@pytest.mark.slow
@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_derivative_of_refitted_optima(n_classes, weighted):
    X, y, rng = problem(n_classes)
    weight = rng.uniform(0.2, 2, len(X)) if weighted else None
    prior = [0.5, 1.0, 3.0]
    q = fitted(X, y, n_classes=n_classes, sample_weight=weight, prior_precision=prior)
    inner = q.response(X, sample_weight=weight).inner
    basis = contrast_basis(n_classes)
    for a in rng.standard_normal((2, 3, n_classes - 1)):
        expected = moved(q, X, y, a @ basis.T, weight) @ basis
        ours = np.einsum("kalb,lb->ka", inner, a)
        np.testing.assert_allclose(ours, expected, atol=5e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_it_is_never_below_the_inverse_of_the_averaged_curvature():
    X, y, _ = problem(3)
    q = fitted(X, y)
    inner = q.response(X).inner.reshape(6, 6)
    rng, Z, basis = np.random.default_rng(1), X @ q.axes, contrast_basis(3)
    V = q.location + q.width * rng.standard_normal((20_000, 3, 3))
    logits = Z @ V
    p = np.exp(logits - logits.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    J = np.einsum("snd,de->nde", p, np.eye(3)) - np.einsum("snd,sne->nde", p, p)
    J = basis.T @ (J / len(V)) @ basis
    curvature = np.einsum("nk,nl,nab->kalb", Z, Z, J).reshape(6, 6) + np.eye(6)
    more = np.linalg.eigvalsh(inner - np.linalg.inv(curvature))
    assert more.min() > -5e-3 and more.max() > 0.02
    np.testing.assert_allclose(inner, inner.T, atol=1e-12)


def test_moments_agree_with_dense_linear_algebra():
    X, y, rng = problem(4)
    X = np.column_stack([X, X[:, 0]])  # one direction without data
    q = fitted(X, y, prior_precision=[1.0, 2.0, 0.5, 3.0])
    response = q.response(X)
    M, D, K = 4, 4, 3
    assert response.axes.shape == (M, K) and repr(response) == "Response(M=4, D=4, K=3)"
    basis = contrast_basis(D)
    turn = np.kron(response.axes, basis)  # of contrasts in the axes, to centred weights
    dense = turn @ response.inner.reshape(9, 9) @ turn.T
    unit = np.diag(1 / np.sqrt(response.prior_precision[:, 0]))
    U = np.linalg.solve(unit, response.axes)
    rest = unit @ (np.eye(M) - U @ U.T) @ unit
    dense += np.kron(rest, np.eye(D) - 1 / D)
    np.testing.assert_allclose(response.covariance.reshape(16, 16), dense, atol=1e-12)
    np.testing.assert_allclose(response.scale.ravel() ** 2, np.diag(dense), rtol=1e-9)
    np.testing.assert_allclose(response.mean, q.centred()[0], atol=1e-9)
    new = rng.standard_normal((5, M))
    for C in ([-1.0, 1, 0, 0], rng.standard_normal((D, 2)) @ [[1, 0], [0, 1]]):
        C = np.asarray(C) - np.mean(C, axis=0)
        mean, scale = response.moments(new, C)
        of = np.einsum("rm,dj->rjmd", new, C.reshape(D, -1)).reshape(5, -1, 16)
        expected = np.sqrt(np.einsum("rjx,xy,rjy->rj", of, dense, of)).reshape(scale.shape)
        np.testing.assert_allclose(scale, expected, rtol=1e-9)
        np.testing.assert_allclose(mean, new @ q.mean @ C, atol=1e-9)
    for level in (0.5, 0.9):
        low, high = response.interval(level)
        reach = scipy.stats.norm.ppf((1 + level) / 2) * response.scale
        np.testing.assert_allclose(low, response.mean - reach, atol=1e-9)
        np.testing.assert_allclose(high, response.mean + reach, atol=1e-9)
    low, high = response.interval(0.9, [0.0, 0.0, -1.0, 1.0])
    assert low.shape == (M,) and (low < high).all()


def test_what_no_data_tell_has_its_prior():
    X, y, _ = problem(3)
    X = np.column_stack([X, np.zeros(len(X))])
    response = fitted(X, y, prior_precision=4.0).response(X)
    np.testing.assert_allclose(response.scale[3], np.sqrt(2 / 3 / 4), rtol=1e-9)
    np.testing.assert_allclose(response.interval(0.9, [-1, 1, 0])[1][3],
                               scipy.stats.norm.ppf(0.95) * np.sqrt(2 / 4), rtol=1e-9)  # fmt: skip


def test_a_weight_of_two_is_a_row_given_twice():
    X, y, _ = problem(3)
    q = fitted(X, y)
    weight = 1.0 + (np.arange(60) < 20)
    twice = q.response(np.concatenate([X, X[:20]]))
    np.testing.assert_allclose(q.response(X, sample_weight=weight).inner, twice.inner, rtol=1e-9)
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(q.response(X[order]).inner, q.response(X).inner, rtol=1e-9)


def test_neither_turned_inputs_nor_the_order_of_classes_change_it():
    X, y, rng = problem(3)
    response = fitted(X, y).response(X)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    turned = fitted(X @ turn, y).response(X @ turn)
    np.testing.assert_allclose(turned.moments(X @ turn)[1], response.moments(X)[1], rtol=2e-3)
    names = np.array([2, 0, 1])
    renamed = fitted(X, names[y]).response(X)
    np.testing.assert_allclose(renamed.scale[:, names], response.scale, rtol=2e-3)


@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_it_stays_finite_in_any_units(unit):
    X, y, _ = problem(3)
    with np.errstate(all="ignore"):
        q = fit(X * unit, y, family="aligned", tol=0.1)
    scale = q.response(X * unit).scale
    assert np.isfinite(scale).all() and (scale > 0).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda q, X: q.response(X[:, :2]),
            ValueError,
            r"X has shape \(60, 2\); expected \(N, 3\)",
        ),
        (lambda q, X: q.response(np.full((2, 3), np.nan)), ValueError, "X"),
        (lambda q, X: q.response(X, sample_weight=-np.ones(60)), ValueError, "sample_weight"),
        (lambda q, X: q.response(X).interval(1), ValueError, "level must be below 1, not 1"),
        (lambda q, X: q.response(X).interval(0), ValueError, "level must be positive"),
        (lambda q, X: q.response(X).interval("high"), TypeError, "level"),
        (
            lambda q, X: q.response(X).moments(X, [1, 1, 0]),
            ValueError,
            "contrasts must sum to zero",
        ),
        (lambda q, X: q.response(X).moments(X, [1, -1]), ValueError, "contrasts has shape"),
        (lambda q, X: q.response(X).moments(X, np.zeros((2, 3, 3))), ValueError, "contrasts has"),
        (lambda q, X: q.with_covariance(np.eye(6)), ValueError, "inner has shape"),
    ],
)
def test_bad_input_is_named(call, error, message, toy):
    q = fit(toy.X, toy.y, family="aligned")
    with pytest.raises(error, match=message):
        call(q, toy.X)


def test_too_many_contrasts_are_refused_before_they_take_memory():
    with pytest.raises(ValueError, match="of 1001 directions and 3 classes has 2002 rows; expec"):
        linear_response(np.zeros((1, 1001)), None, np.zeros((1001, 3)), np.ones((1001, 3)))
