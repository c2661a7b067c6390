"""Weighted draws: against dense sums, other people's densities, and their own stated errors."""

import warnings

import numpy as np
import pytest
import scipy.special
import scipy.stats

from vilogit import cross_entropy, fit, one_hot, softmax
from vilogit import draws as module
from vilogit.contrasts import contrast_basis
from vilogit.draws import pareto_fit, pareto_smoothed

X = np.column_stack([[-1.6, -0.9, -0.3, 0.4, 0.8, 1.3, 1.7, 2.2, 2.6, 3.1], np.ones(10)])
Y = np.array([0, 0, 0, 1, 0, 1, 0, 1, 1, 1])


@pytest.fixture(scope="module")
def few():
    return fit(X, Y, family="aligned")


@pytest.fixture(scope="module")
def dense():
    """The posterior of slope and bias, (log evidence, contrasts (2, G), share (G,))."""
    grid = np.linspace(-7, 7, 351)
    t = np.stack(np.meshgrid(grid, grid, indexing="ij")).reshape(2, -1)
    log_joint = scipy.stats.norm.logpdf(t).sum(axis=0)
    margin = np.sqrt(2) * (X @ t) * (2 * Y - 1)[:, None]
    log_joint -= np.logaddexp(0, -margin).sum(axis=0)
    total = scipy.special.logsumexp(log_joint)
    return total + 2 * np.log(grid[1] - grid[0]), t, np.exp(log_joint - total)


def quietly(q, *args, **named):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return q.exact(*args, **named)


def test_evidence_moments_and_intervals_are_those_of_a_dense_sum(few, dense):
    log_evidence, t, share = dense
    draws = few.exact(X, Y, 20_000, np.random.default_rng(0))
    assert abs(draws.log_evidence - log_evidence) < 4 * draws.log_evidence_error < 0.03
    mean = t @ share
    scale = np.sqrt((t - mean[:, None]) ** 2 @ share)
    # Of two classes a contrast is the second centred weight times sqrt(2), up to its sign.
    np.testing.assert_allclose(draws.mean[:, 1] * np.sqrt(2), mean, atol=0.02)
    np.testing.assert_allclose(draws.scale[:, 1] * np.sqrt(2), scale, rtol=0.02)
    low, high = draws.interval(0.8, [-1.0, 1.0])
    for m in range(2):
        below = [share[t[m] * np.sqrt(2) < end].sum() for end in (low[m], high[m])]
        np.testing.assert_allclose(below, [0.1, 0.9], atol=0.012)
    probs = scipy.special.expit(np.sqrt(2) * (X @ t)) @ share
    np.testing.assert_allclose(draws.predict_proba(X)[:, 1], probs, atol=4e-3)
    entropy = scipy.special.entr(scipy.special.expit(np.sqrt(2) * (X @ t)))
    entropy += scipy.special.entr(scipy.special.expit(-np.sqrt(2) * (X @ t)))
    total, aleatoric, epistemic = draws.uncertainty(X)
    np.testing.assert_allclose(aleatoric, entropy @ share, atol=5e-3)
    np.testing.assert_allclose(total, scipy.stats.entropy([probs, 1 - probs]), atol=5e-3)
    np.testing.assert_allclose(total - aleatoric, epistemic)


@pytest.mark.slow
def test_the_error_of_the_evidence_is_what_it_says(few):
    runs = [few.exact(X, Y, 600, np.random.default_rng(seed)) for seed in range(60)]
    spread = np.std([run.log_evidence for run in runs])
    stated = np.mean([run.log_evidence_error for run in runs])
    assert 0.7 < spread / stated < 1.4


def test_weights_are_joint_over_proposal_by_densities_of_others(toy):
    q = fit(toy.X, toy.y, family="aligned", prior_precision=[0.5, 1.0, 2.0])
    weight = np.random.default_rng(0).uniform(0.5, 2, 60)
    draws = q.exact(toy.X, toy.y, 800, np.random.default_rng(1), sample_weight=weight)
    V = np.linalg.pinv(q.axes) @ draws.W
    t = (V @ contrast_basis(3)).reshape(800, -1)
    labels = np.log(softmax(toy.X @ draws.W)[:, np.arange(60), toy.y])
    log_joint = labels @ weight + scipy.stats.norm.logpdf(t).sum(axis=1)
    inner = q.response(toy.X, sample_weight=weight).inner.reshape(6, 6)
    centre = (q.location @ contrast_basis(3)).ravel()
    proposal = scipy.stats.multivariate_t(centre, inner, df=10)
    expected, khat = pareto_smoothed(log_joint - proposal.logpdf(t))
    np.testing.assert_allclose(draws.weight, expected, rtol=1e-7)
    assert draws.khat == pytest.approx(khat, abs=1e-7)
    assert draws.ess == pytest.approx(1 / np.sum(expected**2))
    log_omega = log_joint - proposal.logpdf(t)
    log_evidence = scipy.special.logsumexp(log_omega) - np.log(800)
    assert draws.log_evidence == pytest.approx(log_evidence, abs=1e-8)
    omega = np.exp(log_omega - log_omega.max())
    error = omega.std(ddof=1) / omega.mean() / np.sqrt(800)
    assert draws.log_evidence_error == pytest.approx(error)


@pytest.mark.parametrize("in_cache", [7, 500, 10**6])
def test_the_likelihood_is_that_of_chapter_two_in_blocks_of_any_size(in_cache, toy, monkeypatch):
    monkeypatch.setattr(module, "_IN_CACHE", in_cache)
    rng = np.random.default_rng(0)
    V = 3 * rng.standard_normal((9, 3, 3))
    ours = module._log_likelihood(toy.X, toy.y, None, V)
    expected = [-cross_entropy(W, toy.X, one_hot(toy.y, 3)) for W in V]
    np.testing.assert_allclose(ours, expected, rtol=1e-10)
    weight = rng.uniform(0, 2, (60, 1))
    ours = module._log_likelihood(toy.X, toy.y, weight, V)
    each = np.log(softmax(toy.X @ V)[:, np.arange(60), toy.y])
    np.testing.assert_allclose(ours, each @ weight[:, 0], rtol=1e-10)
    far = module._log_likelihood(toy.X, toy.y, None, 1e6 * V)
    assert np.isfinite(far).all() and (far <= 0).all()


def test_more_rows_than_a_block_holds():
    rng = np.random.default_rng(0)
    Z, labels = rng.standard_normal((9001, 2)), rng.integers(3, size=9001)
    V = rng.standard_normal((5, 2, 3))
    expected = np.log(softmax(Z @ V)[:, np.arange(9001), labels]).sum(axis=1)
    np.testing.assert_allclose(module._log_likelihood(Z, labels, None, V), expected, rtol=1e-10)


@pytest.mark.parametrize("n", [100, 2500])
@pytest.mark.parametrize("df", [1.5, 4, 30])
def test_smoothing_agrees_with_arviz(n, df):
    stats = pytest.importorskip("arviz_stats.base").array_stats
    log_weights = scipy.stats.t(df).rvs(n, random_state=3)
    ours, khat = pareto_smoothed(log_weights)
    # Its argument is minus the logarithm, as of a log likelihood that is left out; where three
    # roots of n are no whole number, its tail has one draw less.
    theirs, k = stats.psislw(-log_weights)
    assert khat == pytest.approx(float(k), abs=1e-6)
    np.testing.assert_allclose(ours, np.exp(theirs), rtol=1e-6, atol=1e-200)


@pytest.mark.parametrize("shape", [0.1, 0.5, 0.9])
def test_the_shape_of_a_pareto_tail_is_found(shape):
    law = scipy.stats.genpareto(shape, scale=3.0)
    rng = np.random.default_rng(0)
    fits = [pareto_fit(np.sort(law.rvs(1000, random_state=rng))) for _ in range(30)]
    np.testing.assert_allclose(np.mean(fits, axis=0), [3.0, shape], atol=0.08)


def test_intervals_of_equal_weights_are_quantiles(few):
    draws = few.exact(X, Y, 5000, np.random.default_rng(0))
    equal = module.WeightedDraws(draws.W, np.full(5000, 1 / 5000), 0.0, 5000.0, 0.0, 0.0)
    for C in ([-1.0, 1.0], [[1.0, -2.0], [-1.0, 2.0]]):
        low, high = equal.interval(0.9, C)
        values = draws.W @ np.asarray(C)
        expected = np.quantile(values, [0.05, 0.95], axis=0)
        assert low.shape == values.shape[1:]
        np.testing.assert_allclose([low, high], expected, atol=5e-3 * values.std())
    low, high = draws.interval(0.9)
    assert low.shape == (2, 2) and (low < draws.mean).all() and (draws.mean < high).all()
    np.testing.assert_allclose(low[:, 0], -high[:, 1], atol=1e-9)


def test_moments_are_weighted_sums_of_centred_draws(few):
    draws = few.exact(X, Y, 1000, np.random.default_rng(0))
    centred = draws.W - draws.W.mean(axis=2, keepdims=True)
    mean = np.einsum("s,smd->md", draws.weight, centred)
    np.testing.assert_allclose(draws.mean, mean, atol=1e-12)
    var = np.einsum("s,smd->md", draws.weight, (centred - mean) ** 2)
    np.testing.assert_allclose(draws.scale, np.sqrt(var), rtol=1e-9)
    probs = np.einsum("s,snd->nd", draws.weight, softmax(X @ draws.W))
    np.testing.assert_allclose(draws.predict_proba(X), probs, rtol=1e-9)
    assert repr(draws).startswith("WeightedDraws(n=1000, M=2, D=2, khat=")


def test_what_no_data_tell_is_drawn_from_its_prior(toy):
    rows = np.column_stack([toy.X, np.zeros(60)])
    q = fit(rows, toy.y, family="aligned", prior_precision=[1.0, 1.0, 1.0, 4.0])
    draws = q.exact(rows, toy.y, 20_000, np.random.default_rng(0))
    shift = draws.W.mean(axis=2)
    prior = np.array([1.0, 1.0, 1.0, 0.25]) / 3
    np.testing.assert_allclose(shift.var(axis=0), prior, rtol=0.05)
    np.testing.assert_allclose(np.corrcoef(shift.T), np.eye(4), atol=0.03)
    np.testing.assert_allclose(draws.W[:, 3].var(axis=0), 0.25, rtol=0.05)


@pytest.mark.slow
def test_draws_of_equal_weight(few):
    draws = few.exact(X, Y, 2000, np.random.default_rng(0))
    again = few.exact(X, Y, 2000, np.random.default_rng(0))
    np.testing.assert_array_equal(draws.W, again.W)
    equal = draws.sample(40_000, np.random.default_rng(1))
    assert equal.shape == (40_000, 2, 2)
    contrast = equal @ [-1.0, 1.0]
    np.testing.assert_allclose(contrast.mean(axis=0), draws.mean @ [-1, 1], atol=0.05)
    np.testing.assert_allclose(contrast.std(axis=0), 2 * draws.scale[:, 1], rtol=0.03)
    pytest.importorskip("arviz_base")
    tree = draws.to_arviz(50, np.random.default_rng(2))
    assert tree["posterior"]["W"].shape == (1, 50, 2, 2)


def test_a_weight_of_two_is_a_row_given_twice(few):
    weight = 1.0 + (np.arange(10) < 4)
    once = few.exact(X, Y, 1000, np.random.default_rng(0), sample_weight=weight)
    rows, labels = np.concatenate([X, X[:4]]), np.concatenate([Y, Y[:4]])
    twice = few.exact(rows, labels, 1000, np.random.default_rng(0))
    np.testing.assert_allclose(once.weight, twice.weight, rtol=1e-8)
    assert once.log_evidence == pytest.approx(twice.log_evidence, abs=1e-9)


@pytest.mark.slow
def test_draws_that_are_not_to_be_relied_on_say_so_with_their_numbers(few):
    with pytest.warns(UserWarning) as caught:
        draws = few.exact(X, Y, 110, np.random.default_rng(0))
    assert len(caught) == 1
    assert str(caught[0].message) == (
        f"110 draws have an effective size of {draws.ess:.0f}, below 400: an average is off by "
        f"{draws.ess**-0.5:.0%} of a standard deviation, an interval's end by more; draw more"
    )
    rng = np.random.default_rng(0)
    rows, labels = rng.standard_normal((300, 60)), rng.integers(4, size=300)
    q = fit(rows, labels, family="aligned")
    with pytest.warns(UserWarning, match=r"k-hat is \d\.\d\d, above 0.7: the proposal misses"):
        seen = [quietly(q, rows, labels, 200, np.random.default_rng(s)).khat for s in range(6)]
        q.exact(rows, labels, 200, np.random.default_rng(int(np.argmax(seen))))


def test_the_warning_of_draws_points_at_the_caller(few):
    with pytest.warns(UserWarning) as caught:
        few.exact(X, Y, 110, np.random.default_rng(0))
    assert caught[0].filename == __file__


def test_good_draws_do_not_warn(toy):
    q = fit(toy.X, toy.y, family="aligned")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draws = q.exact(toy.X, toy.y, 2000, np.random.default_rng(0))
    assert draws.khat < 0.5 and draws.ess > 1000
    assert draws.weight.sum() == pytest.approx(1) and (draws.weight >= 0).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": 99}, ValueError, "n must be at least 100, not 99"),
        ({"n": 1e3}, TypeError, "n must be an integer"),
        ({"rng": 0}, TypeError, "rng must be a numpy.random.Generator"),
        ({"y": Y[1:]}, ValueError, "y has 9 labels, but X has 10 rows"),
        ({"y": Y + 1}, ValueError, "expected a label in 0..1"),
        ({"X": X[:, :1]}, ValueError, r"X has shape \(10, 1\)"),
        ({"sample_weight": [1.0]}, ValueError, "sample_weight has shape"),
    ],
)
def test_bad_input_is_named(few, change, error, message):
    arguments = {"X": X, "y": Y, "n": 500, "rng": np.random.default_rng(0), **change}
    with pytest.raises(error, match=message):
        few.exact(**arguments)
    draws = few.exact(X, Y, 2000, np.random.default_rng(0))
    with pytest.raises(ValueError, match="X has shape"):
        draws.predict_proba(X[:, :1])
    with pytest.raises(ValueError, match="level must be below 1"):
        draws.interval(1.5)
    with pytest.raises(TypeError, match="rng must be"):
        draws.sample(3, None)
