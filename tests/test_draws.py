"""Weighted draws: smoothed weights, averages over them, and what a dense grid says instead."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import scipy.special
import scipy.stats

from vilogit import cross_entropy, draws, fit
from vilogit.contrasts import contrast_basis
from vilogit.draws import WeightedDraws, pareto_fit, pareto_smoothed, weighted_draws


def log_weights_with_tail(shape, n, rng):
    """Logarithms of weights whose tail is Pareto of a shape above zero, or normal for zero."""
    if shape == 0:
        return rng.standard_normal(n)
    return shape * rng.standard_exponential(n)


# Roots and fifths that are whole: where they are not, we round the tail's size up, ArviZ down.
@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 225, 2500])
@pytest.mark.parametrize("shape", [0, 0.2, 0.6, 1.1])
def test_smoothing_agrees_with_arviz(shape, n, rng):
    base = pytest.importorskip("arviz_stats.base")
    log_weights = log_weights_with_tail(shape, n, rng)
    # It was made for leave-one-out, where weights are one over likelihoods: it takes log
    # likelihoods, which are negative log weights.
    theirs, their_shape = base.array_stats.psislw(-log_weights)
    ours, khat = pareto_smoothed(log_weights + 1e4)
    assert khat == pytest.approx(float(their_shape), abs=1e-10)
    np.testing.assert_allclose(ours, scipy.special.softmax(theirs), rtol=1e-8)


@pytest.mark.parametrize("shape", [-0.4, 0.3, 0.9])
def test_fit_finds_the_law_of_exact_quantiles(shape):
    """Of exact quantiles the fit is nearly unbiased; the pull to one half is undone."""
    n = 20_000
    law = scipy.stats.genpareto(shape, scale=3)
    scale, khat = pareto_fit(law.ppf((np.arange(n) + 0.5) / n))
    assert scale == pytest.approx(3, rel=3e-3)
    assert (khat * (n + 10) - 5) / n == pytest.approx(shape, abs=3e-3)


@pytest.mark.parametrize("n", [2000, 100])
def test_only_the_tail_is_smoothed_and_in_order(n, rng):
    log_weights = log_weights_with_tail(0.6, n, rng)
    smooth, khat = pareto_smoothed(log_weights)
    raw = np.exp(log_weights)
    size = 20 if n == 100 else 135  # the fifth, or three roots
    order = np.argsort(raw)
    bulk, tail = order[:-size], order[-size:]
    np.testing.assert_allclose(smooth[bulk] / smooth[bulk[0]], raw[bulk] / raw[bulk[0]])
    assert (np.diff(smooth[order]) >= 0).all()
    assert smooth.sum() == pytest.approx(1)
    # SciPy's quantiles above the largest weight that stays, with the largest as their ceiling.
    cut = raw[bulk[-1]]
    law = scipy.stats.genpareto(khat, loc=cut, scale=pareto_fit(raw[tail] - cut)[0])
    expected = np.minimum(law.ppf((np.arange(size) + 0.5) / size), raw[tail[-1]])
    np.testing.assert_allclose(smooth[tail] / smooth[bulk[0]], expected / raw[bulk[0]])


def toy_response(rng, n_rows=12, n_features=2, n_classes=3, precision=1.0):
    """Rows, labels, and the posterior that was fitted to them."""
    X = rng.standard_normal((n_rows, n_features))
    y = rng.integers(0, n_classes, n_rows)
    y[:n_classes] = np.arange(n_classes)
    posterior = fit(X, y, family="aligned", prior_precision=precision, n_classes=n_classes)
    return X, y, posterior


def centred(W):
    return W - W.mean(axis=-1, keepdims=True)


@pytest.mark.parametrize("weighted", [False, True])
def test_raw_weights_are_joint_over_proposal(weighted, rng, monkeypatch):
    X, y, posterior = toy_response(rng)
    weight = rng.uniform(0.5, 2, (len(X), 1)) if weighted else None
    seen = []
    smoothed = draws.pareto_smoothed
    monkeypatch.setattr(
        draws, "pareto_smoothed", lambda logs: (seen.append(logs), smoothed(logs))[1]
    )
    response = posterior.response(X)
    answer = weighted_draws(response, X, y, weight, 1500, np.random.default_rng(3))
    ours, basis = seen[0], contrast_basis(3)
    # Of the draws only weights are left: back to the contrasts of the axes.
    contrasts = (response.axes.T @ answer.W @ basis).reshape(1500, 4)
    proposal = scipy.stats.multivariate_t(
        (response.location @ basis).ravel(), response.inner.reshape(4, 4), df=8
    )
    expected = -proposal.logpdf(contrasts)
    expected += scipy.stats.norm.logpdf(contrasts).sum(axis=1)
    times = np.ones(len(X)) if weight is None else weight[:, 0]
    log_probs = scipy.special.log_softmax(X @ answer.W, axis=2)
    expected += log_probs[:, np.arange(len(X)), y] @ times
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)
    smooth, khat = pareto_smoothed(expected)
    np.testing.assert_allclose(answer.weight, smooth, rtol=1e-6)
    assert answer.khat == pytest.approx(khat, abs=1e-6)
    assert answer.ess == pytest.approx(1 / np.sum(smooth**2), rel=1e-6)
    raw = np.exp(expected)
    assert answer.log_evidence == pytest.approx(np.log(raw.mean()))
    assert answer.log_evidence_error == pytest.approx(scipy.stats.sem(raw) / raw.mean())


def test_proposals_follow_the_t(rng):
    """Their squared distances from the centre follow Fisher's F."""
    X, y, posterior = toy_response(rng)
    response = posterior.response(X)
    answer = weighted_draws(response, X, y, None, 20_000, rng)
    basis = contrast_basis(3)
    off = (response.axes.T @ answer.W - response.location) @ basis
    off = np.linalg.solve(np.linalg.cholesky(response.inner.reshape(4, 4)), off.reshape(-1, 4).T)
    assert scipy.stats.kstest(np.sum(off**2, axis=0) / 4, scipy.stats.f(4, 8).cdf).pvalue > 1e-3
    np.testing.assert_allclose(np.cov(off) * 6 / 8, np.eye(4), atol=0.06)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("in_cache", [1, 50, 100_000])
def test_log_likelihood_of_draws_is_minus_the_cross_entropy(weighted, in_cache, rng, monkeypatch):
    """In blocks of any size."""
    monkeypatch.setattr(draws, "_IN_CACHE", in_cache)
    Z, V = rng.standard_normal((20, 2)), 3 * rng.standard_normal((7, 2, 3))
    V[0] *= 1e3  # no overflow
    labels = rng.integers(0, 3, 20)
    weight = rng.uniform(0, 2, (20, 1)) if weighted else None
    each = np.eye(3)[labels]
    expected = [
        -sum(
            cross_entropy(v, z[None], e[None]) * w
            for z, e, w in zip(Z, each, weight[:, 0] if weighted else np.ones(20), strict=True)
        )
        for v in V
    ]
    ours = draws._log_likelihood(Z, labels, weight, V)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


@pytest.mark.parametrize(("n_rows", "n_draws"), [(0, 5), (1, 1), (3, 100), (4001, 60), (9000, 30)])
def test_blocks_cover_all_pairs_once(n_rows, n_draws):
    seen = np.zeros((n_rows, n_draws), int)
    for rows, some in draws._blocks(n_rows, n_draws):
        part = seen[rows, some]
        assert part.size <= 100_000
        part += 1
    np.testing.assert_array_equal(seen, 1)


class Grid:
    """The posterior of two contrasts on a dense grid, in axes of the reader's."""

    def __init__(self, X, y, n_classes, precision):
        ends = np.linspace(-8, 8, 161)
        shape = (X.shape[1], n_classes - 1)
        C = np.stack(np.meshgrid(ends, ends, indexing="ij"), axis=-1).reshape(-1, *shape)
        self.W = C @ contrast_basis(n_classes).T / np.sqrt(precision)
        logs = -np.sum(C**2, axis=(1, 2)) / 2 - np.log(2 * np.pi)
        log_probs = scipy.special.log_softmax(X @ self.W, axis=2)
        logs += log_probs[:, np.arange(len(X)), y].sum(axis=1)
        self.log_evidence = scipy.special.logsumexp(logs) + 2 * np.log(ends[1] - ends[0])
        self.weight = scipy.special.softmax(logs)

    def average(self, values):
        """Mean and standard deviation."""
        mean = np.tensordot(self.weight, values, 1)
        return mean, np.sqrt(np.tensordot(self.weight, (values - mean) ** 2, 1))

    def below(self, contrast, end):
        """Probability that a contrast of the classes is below an end, for each feature."""
        values, step = self.W @ contrast, 1e-9
        answer = []
        for one, e in zip(values.T, end, strict=True):
            at, where = np.unique(np.round(one / step), return_inverse=True)
            mass = np.bincount(where, self.weight)
            answer.append(np.interp(e, at * step, np.cumsum(mass) - mass / 2))
        return np.array(answer)


@pytest.fixture(scope="module", params=[(2, 2), (1, 3)], ids=["two features", "three classes"])
def small(request):
    """A posterior of two contrasts: its rows, labels, fit, and grid."""
    n_features, n_classes = request.param
    precision = 0.5
    X, y, posterior = toy_response(np.random.default_rng(8), 10, n_features, n_classes, precision)
    return X, y, posterior, Grid(X, y, n_classes, precision)


def test_evidence_is_the_grids_and_its_error_is_of_the_right_size(small):
    X, y, posterior, grid = small
    response = posterior.response(X)
    many = [
        weighted_draws(response, X, y, None, 1000, np.random.default_rng(seed))
        for seed in range(50)
    ]
    off = np.array([one.log_evidence for one in many]) - grid.log_evidence
    error = np.array([one.log_evidence_error for one in many])
    assert (np.abs(off) < 4 * error).all()
    assert abs(off.mean()) < 4 * error.mean() / np.sqrt(50)
    # A spread over fifty is off by a tenth of itself.
    assert off.std() == pytest.approx(error.mean(), rel=0.35)


def test_averages_are_the_grids(small):
    X, y, posterior, grid = small
    ours = posterior.exact(X, y, 20_000, np.random.default_rng(5))
    bound = 4 / np.sqrt(ours.ess)
    mean, scale = grid.average(centred(grid.W))
    assert (np.abs(ours.mean - mean) < bound * scale).all()
    assert (np.abs(ours.scale / scale - 1) < bound).all()
    new = np.random.default_rng(6).standard_normal((5, X.shape[1])) * 2
    log_probs = scipy.special.log_softmax(new @ grid.W, axis=2)
    probs, spread = grid.average(np.exp(log_probs))
    assert (np.abs(ours.predict_proba(new) - probs) < bound * spread).all()
    aleatoric, spread = grid.average(-np.sum(np.exp(log_probs) * log_probs, axis=2))
    total, ours_aleatoric, _ = ours.uncertainty(new)
    assert (np.abs(ours_aleatoric - aleatoric) < bound * spread).all()
    np.testing.assert_allclose(total, scipy.stats.entropy(probs, axis=1), atol=bound)


def test_intervals_hold_the_grids_mass(small):
    X, y, posterior, grid = small
    ours = posterior.exact(X, y, 20_000, np.random.default_rng(5))
    D = grid.W.shape[2]
    less = np.zeros(D)
    less[:2] = -1, 1
    for level in (0.9, 0.5):
        tail = (1 - level) / 2
        bound = 4 * np.sqrt(tail * (1 - tail) / ours.ess)
        low, high = ours.interval(level)
        ends = [(np.eye(D)[d] - 1 / D, low[:, d], high[:, d]) for d in range(D)]
        for contrast, a, b in [*ends, (less, *ours.interval(level, less))]:
            np.testing.assert_allclose(grid.below(contrast, a), tail, atol=bound)
            np.testing.assert_allclose(grid.below(contrast, b), 1 - tail, atol=bound)


@pytest.fixture
def some(rng):
    """Draws and weights that are no posterior."""
    weight = rng.uniform(size=40)
    return WeightedDraws(rng.standard_normal((40, 2, 3)), weight / weight.sum(), 0.1, 30.0, -1, 0.1)


def test_averages_are_plain_sums_over_the_draws(some, rng, monkeypatch):
    monkeypatch.setattr(draws, "_IN_CACHE", 100)
    values = centred(some.W)
    mean = sum(w * v for w, v in zip(some.weight, values, strict=True))
    var = sum(w * (v - mean) ** 2 for w, v in zip(some.weight, values, strict=True))
    np.testing.assert_allclose(some.mean, mean)
    np.testing.assert_allclose(some.scale, np.sqrt(var))
    X = rng.standard_normal((7, 2))
    probs = scipy.special.softmax(X @ some.W, axis=2)
    expected = sum(w * p for w, p in zip(some.weight, probs, strict=True))
    np.testing.assert_allclose(some.predict_proba(X), expected)
    total, aleatoric, epistemic = some.uncertainty(X)
    np.testing.assert_allclose(total, scipy.stats.entropy(expected, axis=1))
    entropies = scipy.stats.entropy(probs, axis=2)
    expected = sum(w * h for w, h in zip(some.weight, entropies, strict=True))
    np.testing.assert_allclose(aleatoric, expected)
    np.testing.assert_array_equal(epistemic, total - aleatoric)
    assert repr(some) == "WeightedDraws(n=40, M=2, D=3, khat=0.10, ess=30)"


def test_uncertainty_of_sure_or_equal_draws_is_no_less_than_zero(some):
    sure = WeightedDraws(np.full((5, 1, 2), [-2e3, 2e3]), np.full(5, 0.2), 0.1, 5.0, -1, 0.1)
    for part in sure.uncertainty([[1.0], [-3.0]]):
        np.testing.assert_array_equal(part, 0)
    equal = WeightedDraws(np.full((7, 2, 3), some.W[0]), np.full(7, 1 / 7), 0.1, 7.0, -1, 0.1)
    for seed in range(20):
        X = np.random.default_rng(seed).standard_normal((9, 2))
        total, aleatoric, epistemic = equal.uncertainty(X)
        assert (epistemic >= 0).all() and (epistemic < 1e-12).all()
        np.testing.assert_allclose(total, aleatoric)
    assert equal.predict_proba(np.empty((0, 2))).shape == (0, 3)


@pytest.mark.parametrize("level", [0.9, 0.3])
def test_interval_of_equal_weights_is_the_sample_quantile(level, rng):
    """To the spacing of the draws: there are several conventions between them."""
    n, W = 1000, rng.standard_normal((1000, 2, 3))
    first, second = W[..., 0] - W[..., 1], W[..., 1] - W[..., 2]
    equal = WeightedDraws(W, np.full(n, 1 / n), 0.1, n, -1, 0.1)
    for contrasts, values in (
        (None, centred(W)),
        ([1, 0, -1], first + second),
        (
            [[1, 0], [-1, 2], [0, -2]],
            np.stack([first, 2 * second], axis=-1),
        ),
    ):
        tail = (1 - level) / 2
        for end, q in zip(equal.interval(level, contrasts), (tail, 1 - tail), strict=True):
            # Half a draw's share below each: Hazen's convention.
            np.testing.assert_allclose(end, np.quantile(values, q, axis=0, method="hazen"))


def test_interval_of_whole_weights_is_that_of_repeated_draws(some, rng):
    times = rng.integers(100, 200, 40)
    weighted = WeightedDraws(some.W, times / times.sum(), 0.1, 30.0, -1, 0.1)
    n = times.sum()
    repeated = WeightedDraws(np.repeat(some.W, times, axis=0), np.full(n, 1 / n), 0.1, n, -1, 0.1)
    for ours, theirs in zip(weighted.interval(0.8), repeated.interval(0.8), strict=True):
        # A neighbouring draw at most.
        values = np.sort(centred(some.W), axis=0)
        rank, same = (np.sum(values < end, axis=0) for end in (ours, theirs))
        assert np.abs(rank - same).max() <= 1
    low, high = weighted.interval()
    np.testing.assert_array_equal([low, high], weighted.interval(0.9))
    assert (low < high).all()


def test_sample_repeats_draws_as_often_as_they_weigh(some, rng):
    sample = some.sample(20_000, rng)
    assert sample.shape == (20_000, 2, 3)
    which = (sample[:, None, 0, 0] == some.W[:, 0, 0]).argmax(axis=1)
    np.testing.assert_array_equal(sample, some.W[which])
    share = np.bincount(which, minlength=40) / 20_000
    np.testing.assert_allclose(share, some.weight, atol=4 * np.sqrt(some.weight.max() / 20_000))
    assert some.sample(0, rng).shape == (0, 2, 3)
    twice = [some.sample(9, np.random.default_rng(4)) for _ in range(2)]
    np.testing.assert_array_equal(*twice)


def test_arviz_reads_a_sample_as_one_chain(some):
    pytest.importorskip("arviz_base")
    W = some.to_arviz(50, np.random.default_rng(4)).posterior["W"]
    assert W.dims == ("chain", "draw", "feature", "class")
    np.testing.assert_array_equal(W.values[0], some.sample(50, np.random.default_rng(4)))


def test_bad_input_is_refused_by_draws(some, rng):
    with pytest.raises(ValueError, match=r"X .*2"):
        some.predict_proba(np.ones((3, 3)))
    with pytest.raises(ValueError, match="X"):
        some.uncertainty([[np.nan, 1]])
    for level in (0, 1):
        with pytest.raises(ValueError, match="level"):
            some.interval(level)
    with pytest.raises(ValueError, match="sum to zero"):
        some.interval(0.9, [1, 0, 0])
    with pytest.raises(ValueError, match="n "):
        some.sample(-1, rng)
    with pytest.raises(TypeError, match="n "):
        some.sample(1.5, rng)
    for how in (some.sample, some.to_arviz):
        with pytest.raises(TypeError, match="rng"):
            how(3, 0)


@pytest.mark.parametrize(
    "log_weights",
    [
        np.linspace(-1e5, 0, 200),
        np.linspace(-9e3, 0, 2000),
        np.append(np.zeros(199), 1e4),
        np.append(np.full(190, -1e4), np.linspace(-3, 0, 10)),
    ],
)
def test_a_tail_of_hundreds_of_nats_is_seen_to_be_one(log_weights):
    smooth, khat = pareto_smoothed(log_weights)
    assert khat > 10 and smooth.sum() == pytest.approx(1)
    assert np.isfinite(smooth).all() and np.argmax(smooth) >= len(smooth) - 10


def test_shift_and_directions_without_data_have_their_prior(rng):
    """Two rows of four features leave two directions; the shift is left everywhere."""
    X, y, precision = rng.standard_normal((2, 4)), [0, 1], np.array([0.5, 1, 2, 4])
    posterior = fit(X, y, family="aligned", prior_precision=precision, n_classes=3)
    n = 20_000
    answer = posterior.exact(X, y, n, rng)
    unit = answer.W * np.sqrt(precision)[:, None]
    shift = unit.mean(axis=2) * np.sqrt(3)
    unseen = np.einsum("nmd,mk->nkd", unit, np.linalg.svd(X / np.sqrt(precision))[2][2:].T)
    for free in (shift, unseen.reshape(n, -1)):
        np.testing.assert_allclose(free.mean(axis=0), 0, atol=5 / np.sqrt(n))
        np.testing.assert_allclose(np.cov(free.T), np.eye(free.shape[1]), atol=6 / np.sqrt(n))
        seen = (X @ centred(answer.W)).reshape(n, -1)
        both = np.corrcoef(free.T, seen.T)[: free.shape[1], free.shape[1] :]
        np.testing.assert_allclose(both, 0, atol=5 / np.sqrt(n))


def test_a_seed_fixes_the_draws(toy):
    posterior = fit(toy.X, toy.y, family="aligned")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of these draws there is nothing to warn
        one, two = (posterior.exact(toy.X, toy.y, 2000, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one.W, two.W)
    np.testing.assert_array_equal(one.weight, two.weight)
    assert one.W.shape == (2000, 3, 3) and one.weight.shape == (2000,)
    assert (one.log_evidence, one.khat) == (two.log_evidence, two.khat)
    assert one.log_evidence > posterior.elbo


def test_a_row_of_weight_two_is_a_row_twice(rng):
    X, y, posterior = toy_response(rng)
    weight = np.ones(len(X))
    weight[3] = 2
    once = posterior.exact(X, y, 1500, np.random.default_rng(7), sample_weight=weight)
    X, y = np.vstack([X, X[3]]), np.append(y, y[3])
    twice = posterior.exact(X, y, 1500, np.random.default_rng(7))
    np.testing.assert_allclose(once.W, twice.W, atol=1e-7)
    np.testing.assert_allclose(once.weight, twice.weight, rtol=1e-6)
    assert once.log_evidence == pytest.approx(twice.log_evidence, abs=1e-7)


def test_the_order_of_the_classes_and_of_the_rows_does_not_matter(rng):
    X, y, posterior = toy_response(rng)
    order = np.array([2, 0, 1])
    turned = replace(posterior, location=posterior.location[:, order], rho=posterior.rho[:, order])
    rows = rng.permutation(len(X))
    one = posterior.exact(X, y, 8000, np.random.default_rng(7))
    other = turned.exact(X[rows], np.argsort(order)[y[rows]], 8000, np.random.default_rng(8))
    error = 4 * np.hypot(one.log_evidence_error, other.log_evidence_error)
    assert one.log_evidence == pytest.approx(other.log_evidence, abs=error)
    bound = 4 * np.sqrt(1 / one.ess + 1 / other.ess)
    assert (np.abs(one.mean[:, order] - other.mean) < bound * other.scale).all()
    np.testing.assert_allclose(one.scale[:, order], other.scale, rtol=bound)


@pytest.mark.parametrize(
    ("khat", "ess", "said"),
    [
        (0.7, 400, []),
        (0.834, 400, ["k-hat is 0.83, above 0.7: the proposal misses part of the posterior"]),
        (0.7, 100.3, ["600 draws have an effective size of 100, below 400: ", "off by 10% of"]),
        (1.25, 4, ["k-hat is 1.25, above 0.7: ", "MCMC; 600 draws", "size of 4,", "by 50% of"]),
    ],
)
def test_warnings_are_about_large_shapes_and_small_sizes(khat, ess, said):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        draws._warn(khat, ess, 600)
    assert len(seen) == bool(said)
    for part in said:
        assert part in str(seen[0].message)
    for one in seen:
        assert ("k-hat" in str(one.message)) == (khat > 0.7)
        assert ("effective" in str(one.message)) == (ess < 400)


def test_a_proposal_that_is_too_narrow_is_found_out(toy):
    posterior = fit(toy.X, toy.y, family="aligned")
    narrow = posterior.with_covariance(posterior.response(toy.X).inner / 30)
    with pytest.warns(UserWarning, match="k-hat") as seen:
        answer = weighted_draws(narrow, toy.X, toy.y, None, 1000, np.random.default_rng(0))
    assert answer.khat > 0.7 and answer.ess < 400
    assert f"k-hat is {answer.khat:.2f}, above 0.7" in str(seen[0].message)
    assert f"1000 draws have an effective size of {answer.ess:.0f}," in str(seen[0].message)


def test_warnings_point_at_the_caller(toy):
    posterior = fit(toy.X, toy.y, family="aligned")
    with pytest.warns(UserWarning, match="100 draws have an effective size of") as seen:
        posterior.exact(toy.X, toy.y, 100, np.random.default_rng(0))
    assert [one.filename for one in seen] == [__file__]


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"n": 99}, ValueError, "^n .*100"),
        ({"n": 150.5}, TypeError, "^n "),
        ({"rng": 3}, TypeError, "^rng"),
        ({"X": np.ones((5, 3))}, ValueError, "^X .*2"),
        ({"X": np.full((5, 2), np.nan)}, ValueError, "^X"),
        ({"y": [0, 1, 2, 0, 3]}, ValueError, "^y"),
        ({"y": [0, 1, 2, 0, -1]}, ValueError, "^y"),
        ({"y": [0, 1, 2, 0]}, ValueError, "y has 4 labels, but X has 5 rows"),
        ({"y": [0.5, 1, 2, 0, 1]}, ValueError, "y must hold integers"),
        ({"sample_weight": [1, 1, 1, 1, -1]}, ValueError, "sample_weight"),
        ({"sample_weight": [1, 1, 1, 1]}, ValueError, "sample_weight"),
    ],
)
def test_bad_input_is_refused(wrong, error, said, rng):
    X, y, posterior = toy_response(rng, n_rows=5)
    given = {"X": X, "y": y, "n": 150, "rng": rng, "sample_weight": None} | wrong
    with pytest.raises(error, match=said):
        posterior.exact(**given)
