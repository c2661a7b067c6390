"""What every family owes its users: one set of demands, and a line in `NAMES` for each family.

The last family is no part of the package: it shows what one is made of, and that it plugs in.
"""

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
from scipy import optimize, special

from vilogit import MeanField, Posterior, checks, fit, load, log_softmax, simulate
from vilogit.bound import Bound, Point
from vilogit.families import FAMILIES

NAMES = ["mean-field", "aligned", "full-rank", "point"]
families = pytest.mark.parametrize("family", NAMES)


# A family in forty lines: all mass at the most probable weights.


@dataclass(frozen=True, eq=False, repr=False)
class PointPosterior(Posterior):
    W: np.ndarray
    elbo: float
    trace: tuple
    gap: float
    family, parts = "point", ("W",)
    mean = property(lambda self: self.W)
    scale = property(lambda self: np.zeros_like(self.W))

    def marginals(self):
        return MeanField(self.W, np.full_like(self.W, -np.inf))

    def logit_moments(self, X):
        logits = checks.array(X, "X", ("N", len(self.W))) @ self.W
        return logits, np.zeros_like(logits)

    def sample(self, n, rng):
        n = checks.size(n, "n", at_least=0)
        checks.rng(rng)
        return np.repeat(self.W[None], n, axis=0)

    def around(self, mean):
        return dataclasses.replace(self, W=mean, elbo=np.nan, trace=(), gap=np.nan)

    def arrays(self):
        return (self.W,)

    @classmethod
    def from_arrays(cls, arrays, **rest):
        return cls(checks.array(arrays[0], "W", ("M", "D")), **rest)


class PointBound(Bound):
    posterior_type = PointPosterior

    def evaluate(self, theta, accuracy):
        """Log joint density: it does not hang on the scales, which so stay where they start."""
        rows, W = self.rows, theta[0]
        Y, log_probs = rows.one_hot(), log_softmax(rows.X @ W.astype(rows.X.dtype))
        slope = rows.X.T @ (Y - rows.weighted(np.exp(log_probs))) - self.prior * W
        value = np.vdot(Y, log_probs) - np.sum(self.prior * W**2) / 2
        probs, gap = np.exp(log_probs)[rows.sampled()], np.sum(slope**2 / self.prior) / 2
        spread = rows.sample().weighted(probs * (1 - probs))
        slopes = np.stack([slope, 0 * slope])
        return Point(theta, float(value), slopes, float(gap), self.prior, probs, spread)

    def resumed(self, posterior):
        return self, np.stack([posterior.W, np.zeros_like(posterior.W)])

    def posterior(self, point, trace=()):
        return PointPosterior(point.theta[0], point.elbo, trace, point.gap)


@pytest.fixture(autouse=True)
def plugged_in(monkeypatch):
    monkeypatch.setitem(FAMILIES, "point", PointBound)


def problem(n=40, n_classes=3, seed=1):
    X, y, _ = simulate(np.random.default_rng(seed), n, n_classes)
    return np.column_stack([X, X[:, 0]]), y  # one direction has no data


def entropy(probs):
    return special.entr(probs).sum(axis=-1)


def check_family(posterior, tmp_path, rng):
    """Moments, draws, predictions, entropies, file and messages agree with one another."""
    M, D = posterior.mean.shape
    W = posterior.sample(40_000, rng)
    new = rng.standard_normal((6, M))  # reaches where the data did not
    probs = special.softmax(new @ W, axis=-1)
    # Five standard errors of means and standard deviations of 40,000 draws.
    np.testing.assert_allclose(
        W.mean(axis=0), posterior.mean, atol=1e-9 + 0.025 * posterior.scale.max()
    )
    np.testing.assert_allclose(W.std(axis=0), posterior.scale, rtol=0.02, atol=1e-9)
    marginals = posterior.marginals()
    np.testing.assert_array_equal(marginals.mean, posterior.mean)
    np.testing.assert_allclose(marginals.scale, posterior.scale, rtol=1e-9)
    assert posterior.sample(0, rng).shape == (0, M, D)

    np.testing.assert_allclose(posterior.predict_proba(new), probs.mean(axis=0), atol=0.01)
    np.testing.assert_array_equal(
        posterior.predict(new), posterior.predict_proba(new).argmax(axis=1)
    )
    total, aleatoric, epistemic = posterior.uncertainty(new)
    np.testing.assert_allclose(total, entropy(probs.mean(axis=0)), atol=0.01)
    np.testing.assert_allclose(aleatoric, entropy(probs).mean(axis=0), atol=0.01)
    np.testing.assert_allclose(total, aleatoric + epistemic)
    assert (epistemic >= 0).all() and (aleatoric >= 0).all()
    for answer in (posterior.predict_proba, lambda X: np.stack(posterior.uncertainty(X), axis=1)):
        alone = np.concatenate([answer(row[None]) for row in new])
        np.testing.assert_allclose(answer(new), alone, rtol=1e-9, atol=1e-12)

    centred = W - W.mean(axis=2, keepdims=True)
    mean, scale = posterior.centred()
    np.testing.assert_allclose(mean.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(centred.mean(axis=0), mean, atol=1e-9 + 0.025 * scale.max())
    np.testing.assert_allclose(centred.std(axis=0), scale, rtol=0.02, atol=1e-9)

    logit, var = posterior.centred_logits(np.eye(M))  # of unit vectors, logits are weights
    np.testing.assert_allclose(logit, mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.sqrt(var), scale, rtol=1e-9, atol=1e-12)
    if posterior.family == "full-rank" and D > 2:
        for moments in (posterior.weight_moments, lambda: posterior.logit_moments(new)):
            with pytest.raises(ValueError, match=r"no independent logits .* with 4 classes"):
                moments()
    else:
        in_closed_form, of_units = posterior.weight_moments(), posterior.logit_moments(np.eye(M))
        for moment, of_unit in zip(in_closed_form, of_units, strict=True):
            np.testing.assert_allclose(moment, of_unit, rtol=1e-9, atol=1e-12)

    if D == 2:
        centred = centred[..., 1:] - centred[..., :1]
    check_summary(posterior, centred.reshape(len(W), -1))

    posterior.save(tmp_path / "a.npz")
    back = load(tmp_path / "a.npz")
    assert back == posterior and hash(back) == hash(posterior)
    for again in (pickle.loads(pickle.dumps(posterior)), copy.deepcopy(posterior)):
        assert type(again) is type(posterior) and again == posterior
    assert dataclasses.replace(posterior, elbo=0.0) != posterior
    assert type(back) is type(posterior) is FAMILIES[posterior.family].posterior_type
    for name in ("mean", "scale", "elbo", "gap", "trace"):
        np.testing.assert_array_equal(getattr(back, name), getattr(posterior, name))
    seeds = np.random.default_rng(3), np.random.default_rng(3)
    np.testing.assert_array_equal(back.sample(2, seeds[0]), posterior.sample(2, seeds[1]))

    with pytest.raises(ValueError, match=rf"^X has shape \(2, {M + 1}\); expected \(N, {M}\)$"):
        posterior.predict_proba(np.ones((2, M + 1)))
    with pytest.raises(ValueError, match=r"^n must be at least 0, not -1$"):
        posterior.sample(-1, rng)
    with pytest.raises(TypeError, match=r"^rng must be"):
        posterior.sample(1, 0)
    with pytest.raises(FrozenInstanceError):
        posterior.elbo = 0.0


def check_summary(posterior, draws):
    """Means, deviations and quantiles are those of draws, (n, rows)."""
    summary = posterior.summary(level=0.8)
    assert list(summary.columns) == ["mean", "sd", "10%", "90%"]
    mean, sd, low, high = summary.to_numpy().T
    assert mean.shape == (draws.shape[1],)
    # Five standard errors of 40,000 draws; a quantile's is 1.7 times a mean's.
    near = 1e-9 + 0.025 * sd.max()
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=near)
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.02, atol=1e-9)
    np.testing.assert_allclose(np.quantile(draws, 0.1, axis=0), low, atol=2 * near)
    np.testing.assert_allclose(np.quantile(draws, 0.9, axis=0), high, atol=2 * near)


@families
@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_posterior_agrees_with_itself(family, n_classes, tmp_path, rng):
    X, y = problem(n_classes=n_classes)
    prior = np.linspace(0.5, 2, 4)
    posterior = fit(X, y, family=family, n_classes=n_classes, prior_precision=prior)
    check_family(posterior, tmp_path, rng)


def exact(X, y, family, **options):
    options = {"n_classes": 3, "tol": 1e-7, "accuracy": 1e-8} | options
    return fit(X, y, family=family, **options)


def assert_same_answer(a, b, X):
    """The same answer, but for what is left of gap and axes."""
    assert a.elbo == pytest.approx(b.elbo, abs=1e-5)
    np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), atol=1e-3)


@families
def test_a_weight_of_two_is_a_row_given_twice(family, rng):
    X, y = problem()
    weight = rng.integers(0, 4, len(X))
    again = np.repeat(np.arange(len(X)), weight)
    weighted = exact(X, y, family, sample_weight=weight)
    repeated = exact(X[again], y[again], family, sample_weight=np.ones(len(again)))
    assert_same_answer(weighted, repeated, X)


@families
def test_relabelled_classes_relabel_the_answer(family, rng):
    X, y = problem()
    order = rng.permutation(3)
    here, there = exact(X, y, family), exact(X, order[y], family)
    assert there.elbo == pytest.approx(here.elbo, abs=1e-5)
    np.testing.assert_allclose(there.mean[:, order], here.mean, atol=5e-3)
    np.testing.assert_allclose(there.scale[:, order], here.scale, rtol=5e-3)


@families
def test_other_units_change_nothing_but_the_weights(family, rng):
    X, y = problem()
    factor = np.exp(rng.uniform(-2, 2, 4))
    here, there = exact(X, y, family), exact(X * factor, y, family, prior_precision=factor**2)
    assert there.elbo == pytest.approx(here.elbo, abs=1e-5)
    np.testing.assert_allclose(there.mean * factor[:, None], here.mean, atol=1e-2)
    np.testing.assert_allclose(there.scale * factor[:, None], here.scale, rtol=1e-2)


@families
def test_the_order_of_rows_does_not_matter(family, rng):
    X, y = problem()
    order = rng.permutation(len(X))
    assert_same_answer(exact(X, y, family), exact(X[order], y[order], family), X)


@families
def test_a_fit_proves_its_gap_and_shows_every_evaluation(family):
    X, y = problem()
    states = []
    posterior = fit(X, y, family=family, callback=states.append)
    assert posterior.gap <= 1e-3 and len(posterior.trace) <= 15
    assert [(s.elbo, s.gap) for s in states] == list(posterior.trace)
    np.testing.assert_allclose(states[-1].q.mean, posterior.mean)


@families
def test_a_fit_that_starts_at_its_end_proves_it_at_once(family):
    X, y = problem()
    cold = fit(X, y, family=family)
    warm = fit(X, y, family=family, start=cold)
    assert warm.gap <= 1e-3 and len(warm.trace) <= min(4, len(cold.trace) - 1)
    assert warm.elbo == pytest.approx(cold.elbo, abs=2e-2)
    assert type(warm) is type(cold) and not np.isnan(warm.elbo)


@families
@pytest.mark.parametrize("change", ["rows", "stronger", "weaker", "one precision", "weights"])
def test_from_any_start_the_optimum_is_the_same(family, change):
    X, y = problem()
    here = {"X": X, "y": y, "prior_precision": 1.0, "n_classes": 3}
    there = (
        here
        | {
            "rows": {"X": X[:25], "y": y[:25]},
            "stronger": {"prior_precision": 30.0},
            "weaker": {"prior_precision": 0.03},
            "one precision": {"prior_precision": [1.0, 50.0, 1.0, 1.0]},
            "weights": {"sample_weight": np.linspace(0, 9, len(X))},
        }[change]
    )
    start = fit(**there, family=family)
    cold, warm = exact(**here, family=family), exact(**here, family=family, start=start)
    assert warm.gap <= 1e-7
    # The axes hang on the way there, nothing else does.
    assert warm.elbo == pytest.approx(cold.elbo, abs=2e-2 if family == "aligned" else 1e-5)
    np.testing.assert_allclose(warm.predict_proba(X), cold.predict_proba(X), atol=1e-2)


@families
@pytest.mark.parametrize("size", [1e3, 1e100, 1e300])
def test_a_start_from_nowhere_is_brought_back(family, size, rng):
    X, y = problem()
    cold = fit(X, y, family=family)
    start = cold.around(size * rng.standard_normal(cold.mean.shape))
    warm = fit(X, y, family=family, start=start)
    assert warm.gap <= 1e-3
    assert warm.elbo == pytest.approx(cold.elbo, abs=2e-2)


@families
def test_around_other_means_the_gaussian_is_the_same(family):
    posterior = fit(*problem(), family=family)
    moved = posterior.around(2 * posterior.mean)
    np.testing.assert_allclose(moved.mean, 2 * posterior.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(moved.scale, posterior.scale)
    assert type(moved) is type(posterior) and moved.trace == ()
    assert np.isnan(moved.elbo) and np.isnan(moved.gap)
    if family == "aligned":  # twice the same column: what sets them apart has no data
        apart = posterior.around(posterior.mean + np.array([[1.0], [0.0], [0.0], [-1.0]]))
        np.testing.assert_allclose(apart.mean, posterior.mean, atol=1e-12)


@families
def test_what_is_no_start_is_named(family):
    X, y = problem()
    start = fit(X, y, family=family)
    other = fit(X, y, family="aligned" if family == "mean-field" else "mean-field")
    with pytest.raises(TypeError, match=r"^start must be a Posterior, not ndarray$"):
        fit(X, y, family=family, start=start.mean)
    message = rf'^start is of the family "{other.family}"; expected "{family}"$'
    with pytest.raises(ValueError, match=message):
        fit(X, y, family=family, start=other)
    with pytest.raises(ValueError, match=r"^start.mean has shape \(4, 3\); expected \(3, 3\)$"):
        fit(X[:, :3], y, family=family, start=start)
    with pytest.raises(ValueError, match=r"^start.mean has shape \(4, 3\); expected \(4, 5\)$"):
        fit(X, y, family=family, n_classes=5, start=start)
    with pytest.raises(ValueError, match=r"^start's (mean|W) must be finite, but holds nan"):
        fit(X, y, family=family, start=start.around(np.nan * start.mean))


@families
def test_inputs_of_single_precision_give_nearly_the_same(family):
    X, y = problem()
    single = fit(X.astype(np.float32), y, family=family)
    assert single.elbo == pytest.approx(fit(X, y, family=family).elbo, abs=5e-3)
    assert single.mean.dtype == np.float64


def test_the_point_is_the_most_probable_one():
    X, y = problem()

    def loss(w):
        logits = X @ w.reshape(4, 3)
        log_likelihood = logits[np.arange(len(y)), y] - special.logsumexp(logits, axis=1)
        return w @ w / 2 - log_likelihood.sum()

    best = optimize.minimize(loss, np.zeros(12), options={"gtol": 1e-8})
    posterior = exact(X, y, "point")
    assert posterior.elbo == pytest.approx(-best.fun, abs=1e-6)
    np.testing.assert_allclose(posterior.mean.ravel(), best.x, atol=1e-4)
