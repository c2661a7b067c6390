"""Linear response: how far refitted optima move, and what is read from the answer."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from vilogit import fit, simulate
from vilogit.bound import AlignedBound, Bound
from vilogit.contrasts import contrast_basis
from vilogit.response import Response, linear_response
from vilogit.rows import Rows
from vilogit.search import Search

FINE = (1e-9, 1e-9, 1e-9)


@dataclass(frozen=True)
class Tilted(AlignedBound):
    """The log joint plus a linear function of the means."""

    tilt: np.ndarray

    def evaluate(self, theta, accuracy):
        point = super().evaluate(theta, accuracy)
        slope = point.slope + np.stack([self.tilt, 0 * self.tilt])
        gap = self._square(slope, np.exp(2 * theta[1])) / 2
        elbo = point.elbo + np.vdot(self.tilt, theta[0])
        return point._replace(slope=slope, gap=float(gap), elbo=float(elbo))


def problem(D=3, n=40, copies=0, seed=1):
    X, y, _ = simulate(np.random.default_rng(seed), n=n, n_classes=D)
    return np.column_stack([X, X[:, :copies], np.zeros((n, copies))]), y


def optimum(X, y, D, weight=None, precision=1.0, tilt=None):
    """Posterior at the exact optimum of the bound, tilted or not, in axes that stay as they are."""
    first = fit(X, y, n_classes=D, family="aligned", prior_precision=precision,
                sample_weight=weight)  # fmt: skip
    plain = Bound(Rows.of(X, y, D, weight), first.prior_precision)
    within = AlignedBound.within(first.axes, plain)
    tilt = np.zeros((len(first.location), D)) if tilt is None else tilt
    bound = Tilted(within.rows, within.prior, within.axes, plain, tilt)
    theta = np.stack([first.location, np.log(first.width)])
    return bound.posterior(Search(300).climb(bound, theta, 1e-13, FINE))


def given(K=3, D=3, M=None, seed=0):
    """Some response, of M features of which K directions have data, with a prior of its own."""
    rng, M = np.random.default_rng(seed), M or K
    root = rng.standard_normal((K * (D - 1), K * (D - 1)))
    inner = (root @ root.T / len(root)).reshape(K, D - 1, K, D - 1)
    prior = rng.uniform(0.5, 3, (M, 1))
    axes = np.linalg.qr(rng.standard_normal((M, K)))[0] / np.sqrt(prior)
    location = rng.standard_normal((K, D))
    return Response(location - location.mean(axis=1, keepdims=True), inner, axes, prior)


def dense(response):
    """Covariance of all weights, feature by feature and class by class, by Kronecker products."""
    K, D = response.location.shape
    basis, axes = contrast_basis(D), response.axes
    lift = np.kron(axes, basis)
    # The prior's covariance, less what it gives to the directions of the axes.
    left = np.diag(1 / response.prior_precision[:, 0]) - axes @ axes.T
    inner = response.inner.reshape(K * (D - 1), K * (D - 1))
    return lift @ inner @ lift.T + np.kron(left, np.eye(D) - 1 / D)


CASES = [
    {"D": 2},
    {"D": 3, "n": 8, "weight": True},
    *(
        pytest.param(case, marks=pytest.mark.slow)
        for case in [
            {"D": 3, "precision": 0.3},
            {"D": 4, "weight": True},
            {"D": 3, "copies": 1, "weight": True, "precision": "each"},
        ]
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_derivative_of_refitted_optima(case, monkeypatch):
    monkeypatch.setattr("vilogit.response._ACCURACY", 1e-9)
    D = case["D"]
    X, y = problem(D, case.get("n", 40), case.get("copies", 0))
    rng = np.random.default_rng(5)
    weight = rng.integers(1, 4, len(X)).astype(float) if "weight" in case else None
    precision = case.get("precision", 1.0)
    precision = np.geomspace(0.5, 2, X.shape[1]) if precision == "each" else precision
    posterior = optimum(X, y, D, weight, precision)
    inner = posterior.response(X, sample_weight=weight).inner
    basis, step = contrast_basis(D), 1e-2
    of_contrasts = rng.standard_normal((len(posterior.location), D - 1))
    ends = [
        optimum(X, y, D, weight, precision, t * step * of_contrasts @ basis.T).location @ basis
        for t in (-2, -1, 1, 2)
    ]
    moved = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * step)
    # Optima are known to 1e-7 or so, of steps of 1e-2.
    expected = np.tensordot(inner, of_contrasts, 2)
    assert_allclose(moved, expected, atol=1e-5 * np.abs(expected).max() + 1e-7)


def jacobian_of_rows(Z, weight, location, width):
    """Averaged Hessian in the contrasts, by averages of random logits alone."""
    K, D = location.shape
    noise = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    basis, H = contrast_basis(D), np.eye(K * (D - 1))
    rng = np.random.default_rng(0)
    draws = np.stack([rng.permutation(noise) for _ in range(D)], axis=1)
    for z, w in zip(Z, weight, strict=True):
        logits = z @ location + np.sqrt(z**2 @ width**2) * draws
        probs = np.exp(logits - logits.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
        J = np.diag(probs.mean(axis=0)) - probs.T @ probs / len(probs)
        H += w * np.kron(np.outer(z, z), basis.T @ J @ basis)
    return H


@pytest.mark.parametrize("D", [2, 4])
def test_never_below_the_inverse_of_the_averaged_hessian(D):
    X, y = problem(D, n=25)
    weight = np.random.default_rng(0).uniform(0.5, 2, 25)
    posterior = fit(X, y, n_classes=D, family="aligned", sample_weight=weight)
    inner = posterior.response(X, sample_weight=weight).inner
    d = int(np.sqrt(inner.size))
    H = jacobian_of_rows(X @ posterior.axes, weight, posterior.location, posterior.width)
    gain = np.linalg.eigvalsh(inner.reshape(d, d) - np.linalg.inv(H))
    # Random logits leave a hundredth of the averages.
    assert gain[0] > -0.01 and gain[-1] > 0.02


def test_no_data_worth_speaking_of_leave_the_prior():
    X = np.full((1, 1), 1e-9)
    inner = linear_response(X, None, np.zeros((1, 3)), np.ones((1, 3)))
    assert_allclose(inner.reshape(2, 2), np.eye(2), atol=1e-12)


@pytest.mark.parametrize(("K", "D", "M"), [(3, 3, 3), (2, 4, 4), (1, 2, 3), (2, 2, 2)])
def test_covariance_scale_and_moments_are_those_of_the_dense_gaussian(K, D, M, rng):
    response = given(K, D, M)
    full = dense(response)
    assert_allclose(response.covariance, full.reshape(M, D, M, D), atol=1e-12)
    assert_allclose(response.scale, np.sqrt(np.diag(full)).reshape(M, D), atol=1e-12)
    assert_allclose(response.mean, response.axes @ response.location, atol=1e-12)
    X, C = rng.standard_normal((5, M)), rng.standard_normal((D, 2))
    C -= C.mean(axis=0)
    mean, scale = response.moments(X, C)
    assert_allclose(mean, X @ response.axes @ response.location @ C, atol=1e-12)
    for j in range(2):
        lift = np.kron(X, C[:, j])
        assert_allclose(scale[:, j] ** 2, np.einsum("nk,kl,nl->n", lift, full, lift), rtol=1e-10)
        one = response.moments(X, C[:, j])
        assert_allclose(one, (mean[:, j], scale[:, j]), rtol=1e-12)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.999])
def test_intervals_are_quantiles_of_the_gaussian(level):
    response = given(2, 3, 3)
    for contrasts, shape in [(None, (3, 3)), ([-1, 1, 0], (3,)), ([[-1], [1], [0]], (3, 1))]:
        low, high = response.interval(level, contrasts)
        mean, scale = response.moments(np.eye(3), contrasts)
        assert low.shape == high.shape == shape
        assert_allclose(stats.norm.cdf(low, mean, scale), (1 - level) / 2, rtol=1e-8)
        assert_allclose(stats.norm.sf(high, mean, scale), (1 - level) / 2, rtol=1e-8)
    default, chosen = response.interval(), response.interval(0.9)
    assert_allclose(default, chosen, rtol=0)


def test_a_difference_of_two_classes_is_that_of_their_weights():
    response = given()
    mean, scale = response.moments(np.eye(3), [-1, 1, 0])
    assert_allclose(mean, response.mean[:, 1] - response.mean[:, 0], atol=1e-12)
    C = response.covariance
    for m in range(3):
        var = C[m, 0, m, 0] + C[m, 1, m, 1] - 2 * C[m, 0, m, 1]
        assert scale[m] == pytest.approx(np.sqrt(var), rel=1e-12)


def test_a_weight_of_two_is_a_row_given_twice_and_order_is_nothing(rng, monkeypatch):
    monkeypatch.setattr("vilogit.response._ACCURACY", 1e-9)  # averages depend on the rows beside
    X, y = problem(3, n=30)
    posterior = fit(X, y, n_classes=3, family="aligned")
    weight = rng.integers(0, 3, 30)
    weighted = posterior.response(X, sample_weight=weight)
    again = rng.permutation(np.repeat(np.arange(30), weight))
    assert_allclose(posterior.response(X[again]).inner, weighted.inner, atol=1e-8)
    ones = posterior.response(X, sample_weight=np.ones(30))
    assert_allclose(ones.inner, posterior.response(X).inner, atol=1e-12)


def test_order_of_classes_is_the_order_of_the_answer():
    X, y = problem(4)
    posterior = fit(X, y, n_classes=4, family="aligned")
    order = np.array([2, 0, 3, 1])
    turned = replace(posterior, location=posterior.location[:, order], rho=posterior.rho[:, order])
    here, there = posterior.response(X), turned.response(X)
    # The response's averages are exact to 1e-4.
    assert_allclose(there.scale, here.scale[:, order], rtol=1e-3)
    assert_allclose(there.mean, here.mean[:, order], atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_rotated_inputs_have_the_same_widths(seed):
    X, y = problem(3, seed=seed)
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    options = {"n_classes": 3, "family": "aligned", "tol": 1e-6, "accuracy": 1e-8}
    here, there = (fit(Z, y, **options).response(Z) for Z in (X, X @ Q))
    assert_allclose(there.moments(X @ Q), here.moments(X), rtol=5e-3, atol=5e-3)


def test_single_precision_serves_the_inputs_only():
    X, y = problem(3)
    posterior = fit(X, y, n_classes=3, family="aligned")
    single = posterior.response(X.astype(np.float32))
    assert single.inner.dtype == np.float64
    assert_allclose(single.scale, posterior.response(X).scale, rtol=1e-3)


@pytest.mark.parametrize("size", [1e-6, 1.0, pytest.param(1e6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("n", [1, 12])
def test_one_row_and_extreme_inputs_have_a_finite_answer(n, size):
    X, y = problem(3, n=n)
    X = X * [1, size, 1]
    response = fit(X, y, n_classes=3, family="aligned", tol=0.1).response(X)
    assert np.isfinite(response.covariance).all() and (response.scale > 0).all()
    # No wider than the prior, which a centred weight has where no data tell.
    assert response.scale.max() < np.sqrt(2 / 3) * (1 + 1e-3)


def test_bad_input_is_named():
    X, y = problem(3)
    posterior = fit(X, y, n_classes=3, family="aligned")
    with pytest.raises(ValueError, match=r"^X has shape \(2, 4\); expected \(N, 3\)$"):
        posterior.response(np.ones((2, 4)))
    with pytest.raises(ValueError, match="X must be finite"):
        posterior.response(np.full((40, 3), np.nan))
    with pytest.raises(ValueError, match=r"sample_weight\[0\] is -1"):
        posterior.response(X, sample_weight=-np.ones(40))
    with pytest.raises(ValueError, match="sample_weight is zero in every row"):
        posterior.response(X, sample_weight=np.zeros(40))
    with pytest.raises(ValueError, match=r"sample_weight has shape \(3,\); expected \(40,\)"):
        posterior.response(X, sample_weight=np.ones(3))
    response = posterior.response(X)
    with pytest.raises(ValueError, match=r"^X has shape \(2, 4\); expected \(R, 3\)$"):
        response.moments(np.ones((2, 4)))
    with pytest.raises(ValueError, match="contrasts must sum to zero over the classes, not to 1"):
        response.interval(0.9, [1, 0, 0])
    with pytest.raises(ValueError, match=r"contrasts must sum to zero .*0\. +1\."):
        response.moments(X, [[1, 1], [-1, 0], [0, 0]])
    for wrong in (1.0, [-1, 1], np.zeros((3, 2, 1))):
        with pytest.raises(ValueError, match=r"contrasts has shape .*; expected \(3,"):
            response.moments(X, wrong)
    with pytest.raises(TypeError, match="contrasts must hold real numbers"):
        response.moments(X, ["a", "b", "c"])


@pytest.mark.parametrize(("level", "error"), [(0, ValueError), (1, ValueError), (2, ValueError),
                                              (-0.5, ValueError), ("much", TypeError)])  # fmt: skip
def test_levels_are_probabilities(level, error):
    with pytest.raises(error, match=r"^level must"):
        given().interval(level)


def test_too_many_numbers_are_refused_before_anything_is_computed(monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr("vilogit.response.curvature", never)
    with pytest.raises(ValueError, match=r"^the covariance of 667 directions and 4 classes has "
                                         r"2001 rows; expected 2000 at most$"):  # fmt: skip
        linear_response(np.ones((1, 667)), None, np.zeros((667, 4)), np.ones((667, 4)))
    with pytest.raises(AssertionError):  # as many as are allowed
        linear_response(np.ones((1, 1000)), None, np.zeros((1000, 3)), np.ones((1000, 3)))


def test_repr_says_the_sizes():
    assert repr(given(2, 4, 3)) == "Response(M=3, D=4, K=2)"


def test_what_no_data_tell_has_its_prior(toy):
    X = np.column_stack([toy.X, np.zeros(len(toy.X))])
    response = fit(X, toy.y, family="aligned", prior_precision=4.0).response(X)
    assert_allclose(response.scale[3], np.sqrt(2 / 3 / 4), rtol=1e-9)
    high = response.interval(0.9, [-1, 1, 0])[1][3]
    assert_allclose(high, stats.norm.ppf(0.95) * np.sqrt(2 / 4), rtol=1e-9)


def test_a_covariance_of_another_shape_is_refused(toy):
    q = fit(toy.X, toy.y, family="aligned")
    with pytest.raises(ValueError, match="inner has shape"):
        q.with_covariance(np.eye(6))
