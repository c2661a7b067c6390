"""Newton's step in means and log scales together, for logits that may grow wide."""

import sys
from pathlib import Path

import numpy as np
import pytest
from oracles import difference_expectations, race_expectations, tensor_expectations
from sklearn.datasets import load_breast_cancer, load_iris, load_wine

from vilogit import ConvergenceWarning, expected_softmax, fit, simulate
from vilogit.bound import Bound, PrincipalBound
from vilogit.joint import JointNewton
from vilogit.rows import Rows

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from sets import six_sets

IRIS, SPECIES = load_iris(return_X_y=True)


def problem(scale, weight=None, dtype=np.float64):
    X = np.column_stack([IRIS * scale, np.ones(150)]).astype(dtype)
    return Rows.of(X, SPECIES, 3, weight), np.ones((5, 1))


@pytest.mark.parametrize("kind", [Bound, PrincipalBound])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_curvature_is_that_of_the_bound(kind, weighted, rng):
    """Against differences of slopes, in units of the diagonal."""
    rows, prior = problem(30.0, rng.uniform(0.5, 2, 150) if weighted else None)
    bound = kind.of(rows, prior)
    theta = bound.start()
    theta[1] += 1  # wide logits
    metric = bound.metric(bound.evaluate(theta, 1e-6))
    assert isinstance(metric, JointNewton)
    H = metric.curvature(bound.evaluate(theta, 1e-6))
    unit = 1 / np.sqrt(np.diag(H))
    numerical = np.empty_like(H)
    for k in range(len(H)):
        step = np.zeros(theta.size)
        step[k] = 1e-3 * unit[k]
        up, down = (
            bound.evaluate(theta + sign * step.reshape(theta.shape), 1e-9).slope.ravel()
            for sign in (1, -1)
        )
        numerical[k] = (down - up) / (2e-3 * unit[k])
    np.testing.assert_allclose(
        H * np.outer(unit, unit), numerical * np.outer(unit, unit), atol=2e-2
    )
    np.testing.assert_allclose(H, H.T, rtol=1e-9, atol=1e-12 * np.abs(H).max())


def test_it_serves_few_weights_that_may_make_wide_logits():
    rows, prior = problem(100.0)
    assert JointNewton.serves(rows, prior)
    assert not JointNewton.serves(rows, 1e4 * prior)
    many = Rows.of(100 * np.ones((3, 70)), np.arange(3), 3, None)
    assert not JointNewton.serves(many, np.ones((70, 1)))


def test_without_a_finite_curvature_there_is_no_step(rng, monkeypatch):
    rows, prior = problem(100.0)
    metric, slope = JointNewton(rows, prior, 1.0), rng.standard_normal((2, 5, 3))
    monkeypatch.setattr(metric, "curvature", lambda point: np.full((30, 30), np.inf))
    np.testing.assert_array_equal(metric.direction(None, slope), np.zeros((2, 5, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mean-field", "aligned"])
@pytest.mark.parametrize("factor", [1e-4, 1e-2, 1e2, 1e4])
def test_every_unit_of_the_inputs_gets_its_proof(factor, family, rng):
    for inputs, y in ((IRIS, SPECIES), simulate(rng)[:2]):
        X = np.column_stack([inputs[:, :2] * factor, np.ones(len(y))])
        posterior = fit(X, y, family=family)
        assert posterior.gap <= 1e-3 and len(posterior.trace) <= 40
        # The same q by draws of its logits: of its own weights there are 4000.
        logits = X @ posterior.sample(4000, rng)
        top = logits.max(axis=2)
        lse = top + np.log(np.exp(logits - top[:, :, None]).sum(axis=2))
        drawn = (logits[:, np.arange(len(y)), y] - lse).sum(axis=1)
        mean, var = posterior.logit_moments(X)
        claimed = mean[np.arange(len(y)), y].sum() - expected_softmax(mean, var)[0].sum()
        assert abs(drawn.mean() - claimed) < 5 * drawn.std() / np.sqrt(4000) + 1e-3


def sets():
    """Small benchmark sets, those of scikit-learn in their own units: name, inputs, labels."""
    toy, separable = (s for s in six_sets() if s.name in ("toy", "separable"))
    yield from ((s.name, s.X[:, :-1], s.y) for s in (toy, separable))
    for load in (load_iris, load_wine, load_breast_cancer):
        yield load.__name__[5:], *load(return_X_y=True)


def average(mean, var):
    """Averages of one row: by a tensor rule where it is narrow, by scores where it is not."""
    if len(mean) == 2 and var.sum() > 1:
        return difference_expectations(mean, var)
    return tensor_expectations(mean, var, 25, 7) if var.max() < 2 else race_expectations(mean, var)


def proof(posterior, X, y, family):
    """Bound on the distance to the optimum, :eq:`eq-gap`, from averages that share no code."""
    aligned = family == "aligned"
    Z = X @ posterior.axes if aligned else X
    mean = posterior.location if aligned else posterior.mean
    scale = posterior.width if aligned else posterior.scale
    D = mean.shape[1]
    kappa = (D - 1) / D if aligned else 1.0
    rows = zip(Z @ mean, Z**2 @ scale**2, strict=True)
    _, probs, spread = (
        np.array(part) for part in zip(*(average(*row) for row in rows), strict=True)
    )
    of_mean = Z.T @ (np.eye(D)[y] - probs) - mean
    of_scale = kappa * (1 / scale - scale) - scale * ((Z**2).T @ spread)
    return np.sum(of_mean**2) / 2 + np.sum(of_scale**2) / (2 * kappa)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1e-4, 1e-2, 1.0, 1e2, 1e4])
@pytest.mark.parametrize(
    ("name", "inputs", "y"), list(sets()), ids=lambda x: x if isinstance(x, str) else ""
)
def test_small_sets_in_every_unit_get_their_optimum(name, inputs, y, factor):
    X = np.column_stack([inputs * factor, np.ones(len(y))])
    # Where means and scales must grow ten-thousandfold together, a step brings a third of a unit.
    most = {("separable", 1e4): 55, ("wine", 1e4): 45}.get((name, factor), 40)
    for family in ("mean-field", "aligned"):
        posterior = fit(X, y, family=family)
        assert posterior.gap <= 1e-3 and len(posterior.trace) <= most
        if name == "toy" and factor != 1:  # with the others it would take minutes
            assert proof(posterior, X, y, family) <= 1.1 * posterior.gap


@pytest.mark.slow
def test_more_evaluations_never_give_less():
    X = np.column_stack([IRIS * 1e4, np.ones(150)])
    elbos = []
    for most in (2, 3, 5, 8, 12, 16, 20, 24, 28, 31, 40):
        if most < 32:
            with pytest.warns(ConvergenceWarning):
                posterior = fit(X, SPECIES, max_evaluations=most)
        else:
            posterior = fit(X, SPECIES, max_evaluations=most)
        assert len(posterior.trace) <= most
        elbos.append(posterior.elbo)
    assert np.all(np.diff(elbos) > -1e-2)


def test_one_evaluation_proves_nothing():
    with pytest.warns(ConvergenceWarning, match="gap of inf nats"):
        posterior = fit(IRIS, SPECIES, max_evaluations=1)
    assert posterior.gap == np.inf and np.isfinite(posterior.elbo)


def test_a_callback_may_stop_a_fit():
    seen = []

    def stop(state):
        seen.append(state)
        if state.step == 4:
            raise StopIteration

    with pytest.warns(ConvergenceWarning, match="after 5 evaluations"):
        posterior = fit(IRIS, SPECIES, callback=stop, tol=1e-9)
    assert len(seen) == 4 and len(posterior.trace) == 5
    assert posterior.elbo >= max(state.elbo for state in seen) - 0.1
