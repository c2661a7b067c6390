"""Extreme and broken input, at random: ``python tests/fuzz.py [how many] [seed]``.

Every input must give the right answer, by a reference that shares no code with vilogit, or the
documented error. `make test` runs a few hundred, `make fuzz` ten thousand.
"""

import sys
import warnings

import mpmath
import numpy as np
from oracles import gaussian_rule, race_expectations

import vilogit

MP = mpmath.mp.clone()
MP.dps = 40

#: What replaces a good argument, and must be refused.
BROKEN = (
    None, "text", [], {}, np.nan, np.inf, -1, 0, 1j, True, object(), [[1, 2], [3]], [["a"]],
    np.zeros((0, 3)), np.zeros((3, 0)), np.full((4, 3), np.nan), np.full((4, 3), np.inf),
    np.zeros((2, 2, 2)), np.array([[1, None]], object), np.array(["x", "y"]), np.zeros(5) > 1,
)  # fmt: skip


def extreme(rng, shape, largest=300):
    """Numbers of all sizes and signs, some zero, some equal."""
    x = rng.choice([-1.0, 1.0], shape) * 10 ** rng.uniform(-largest, largest, shape)
    if rng.random() < 0.5:
        x = rng.standard_normal(shape) * 10 ** rng.uniform(-3, 3)
    x[rng.random(shape) < 0.1] = 0.0
    if rng.random() < 0.2:
        x[...] = x.flat[0]
    return x


def softmax_of_extreme_logits(rng):
    logits = extreme(rng, rng.integers(1, 6))
    if rng.random() < 0.3:
        logits[rng.integers(len(logits))] = rng.choice([np.inf, -np.inf])
    ours, ours_log = vilogit.softmax(logits), vilogit.log_softmax(logits)
    top = max(logits)
    if top == -np.inf or np.sum(logits == np.inf) > 1:
        assert np.isnan(ours).all()
        return
    if top == np.inf:
        np.testing.assert_array_equal(ours, logits == np.inf)
        return
    terms = [MP.exp(MP.mpf(b) - MP.mpf(top)) if b > -np.inf else MP.mpf(0) for b in logits]
    total = sum(terms)
    np.testing.assert_allclose(ours, [float(t / total) for t in terms], rtol=1e-13, atol=1e-300)
    exact = [MP.mpf(b) - MP.mpf(top) - MP.log(total) if b > -np.inf else -MP.inf for b in logits]
    np.testing.assert_allclose(ours_log, [float(e) for e in exact], rtol=1e-13, atol=1e-15)


def cross_entropy_of_extreme_weights(rng):
    n, M, D = rng.integers(1, 5), rng.integers(1, 4), rng.integers(2, 5)
    X, W = extreme(rng, (n, M), 70), extreme(rng, (M, D), 70)
    y = rng.integers(D, size=n)
    Y = vilogit.one_hot(y, D)
    exact, gradient = MP.mpf(0), np.zeros((M, D))
    size = 0.0
    for row, label in zip(X, y, strict=True):
        logits = [sum(MP.mpf(a) * MP.mpf(b) for a, b in zip(row, w, strict=True)) for w in W.T]
        top = max(logits)
        terms = [MP.exp(b - top) for b in logits]
        exact += top + MP.log(sum(terms)) - logits[label]
        size += float(sum(abs(b) for b in logits))
        residual = np.array([float(t / sum(terms)) for t in terms]) - Y[0] * 0
        residual[label] -= 1
        gradient += np.outer(row, residual)
    ours = vilogit.cross_entropy(W, X, Y)
    # Rounding of the logits themselves is all that may be lost.
    assert abs(ours - float(exact)) <= 1e-14 * size + 1e-13 * abs(float(exact))
    slope = vilogit.cross_entropy_gradient(W, X, Y)
    assert np.isfinite(slope).all()
    if size < 1e3:
        scale = np.abs(X).sum(axis=0)[:, None] + 1e-300
        np.testing.assert_allclose(slope / scale, gradient / scale, atol=1e-10)


def averages_of_extreme_logits(rng):
    """Two classes against a dense trapezium rule; more classes against limits and identities."""
    D = rng.choice([2, 2, 3, 6])
    width = 10 ** rng.uniform(-6, 1.7)
    mean = extreme(rng, (1, D), 2)
    var = (width * rng.uniform(0, 1, (1, D))) ** 2
    if rng.random() < 0.1:
        var[...] = 0
    lse, probs, spread = (a[0] for a in vilogit.expected_softmax(mean, var))
    assert np.isfinite(lse) and np.isfinite(probs).all() and np.isfinite(spread).all()
    np.testing.assert_allclose(probs.sum(), 1, atol=1e-12)
    top = mean.max()
    below = top + np.log(np.sum(np.exp(mean - top)))
    above = top + np.log(np.sum(np.exp(np.minimum(mean - top + var / 2, 700))))
    assert below - 2e-6 - 1e-12 * abs(top) <= lse <= above + 2e-6 + 1e-12 * abs(top)
    if not var.any():
        np.testing.assert_allclose(probs, vilogit.softmax(mean[0]), atol=1e-12)
    if D == 2:
        center, sd = mean[0, 1] - mean[0, 0], np.sqrt(var.sum())
        z, w = gaussian_rule(20_001, 9)
        x = center + sd * z
        one = 0.5 * (1 + np.tanh(x / 2))
        exact = mean[0, 0] + w @ np.logaddexp(0, x)
        np.testing.assert_allclose(lse, exact, rtol=1e-13, atol=2e-6)
        np.testing.assert_allclose(probs[1], w @ one, atol=2e-6)
        np.testing.assert_allclose(spread[1], w @ (one * (1 - one)), atol=2e-6)


def fit_of_extreme_data(rng):
    """The proof, recomputed by dense sums; else a warning, never a NaN."""
    n, M, D = rng.integers(1, 12), rng.integers(1, 5), rng.choice([2, 2, 3, 5])
    X = extreme(rng, (n, M), 4)
    if rng.random() < 0.7:  # what people have: units of all sizes, and zeros far away
        X = rng.standard_normal((n, M)) + 10 ** rng.uniform(-2, 3) * rng.standard_normal(M)
        X = X * 10 ** rng.uniform(-8, 8) * 10 ** rng.uniform(-1, 1, M)
    X = X.astype(rng.choice([np.float64, np.float64, np.float32]))
    y = rng.integers(D, size=n)
    precision = 10 ** rng.uniform(-8, 8, M if rng.random() < 0.5 else None)
    family = rng.choice(["mean-field", "aligned"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        posterior = vilogit.fit(
            X, y, n_classes=int(D), prior_precision=precision, family=str(family)
        )
    assert {w.category for w in caught} <= {vilogit.ConvergenceWarning}
    assert bool(caught) == (not posterior.gap <= 1e-3)
    assert np.isfinite(posterior.elbo) and not np.isnan(posterior.gap)
    assert np.isfinite(posterior.mean).all() and (posterior.scale > 0).all()
    assert np.isfinite(posterior.predict_proba(X)).all()
    if X.dtype == np.float64 and family == "aligned":
        m, v = posterior.logit_moments(X)
        likelihood = m[np.arange(n), y].sum()
        likelihood -= sum(race_expectations(*row)[0] for row in zip(m, v, strict=True))
        kl = divergence_of_aligned(posterior)
        slack = 1e-3 + 1e-10 * (np.abs(m).sum() + np.sqrt(v).sum() + abs(kl))
        assert caught or abs(posterior.elbo - (likelihood - kl)) < slack
    if X.dtype == np.float64 and family == "mean-field":
        mean, scale = posterior.mean, posterior.scale
        m, sd = X @ mean, np.sqrt(X**2 @ scale**2)
        likelihood = m[np.arange(n), y].sum()
        likelihood -= sum(race_expectations(*row)[0] for row in zip(m, sd**2, strict=True))
        lam = np.broadcast_to(np.reshape(precision, (-1, 1)), mean.shape)
        kl = np.sum(lam * (mean**2 + scale**2) - 1 - np.log(lam * scale**2)) / 2
        slack = 1e-3 + 1e-10 * (np.abs(m).sum() + sd.sum() + abs(kl))
        assert caught or abs(posterior.elbo - (likelihood - kl)) < slack
        if not caught:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                best = vilogit.fit(
                    X, y, n_classes=int(D), prior_precision=precision, tol=1e-7, accuracy=1e-8
                )
            assert best.elbo - posterior.elbo <= posterior.gap + slack


def labels_and_shifts_of_the_classifier(rng):
    """Labels of any kind come back, and where inputs are zero changes no prediction."""
    n, M, D = rng.integers(6, 30), rng.integers(1, 4), rng.integers(2, 5)
    kinds = np.arange(D) - 2, np.arange(D) * 2.0, np.array(list("dbca"))[:D], np.arange(D) > 0
    names = kinds[rng.integers(len(kinds))]
    X = rng.standard_normal((n, M))
    y = names[np.concatenate([np.arange(D), rng.integers(D, size=n - D)])]
    shift = 10 ** rng.uniform(-3, 4, M)
    model, moved = (vilogit.VariationalLogisticRegression().fit(X + by, y) for by in (0, shift))
    assert set(model.classes_) == set(names) and set(model.predict(X)) <= set(names)
    np.testing.assert_array_equal(model.classes_, np.unique(names))
    probs = model.predict_proba(X)
    np.testing.assert_array_equal(model.predict(X), model.classes_[probs.argmax(axis=1)])
    # Either fit is proven to a thousandth of a nat.
    np.testing.assert_allclose(moved.predict_proba(X + shift), probs, atol=0.05)


def divergence_of_aligned(posterior):
    """From a standard normal prior, by dense covariances: one for the classes of each axis."""
    D = posterior.location.shape[1]
    P = np.eye(D) - 1 / D
    total = 0.0
    for mean, width in zip(posterior.location, posterior.width, strict=True):
        # The shift is apart, and there the posterior is the prior; in units of the widest.
        cov = P @ np.diag((width / width.max()) ** 2) @ P + 1 / D
        log_det = np.linalg.slogdet(cov)[1] + 2 * (D - 1) * np.log(width.max())
        trace = width.max() ** 2 * np.trace(P @ cov @ P) + 1
        total += (trace + mean @ mean - D - log_det) / 2
    return total


#: A good call of every public function that takes numbers, by the names of its arguments.
def _good(rng):
    X, y, W = vilogit.simulate(rng, 4)
    Y = vilogit.one_hot(y, 3)
    q = vilogit.MeanField(W, np.zeros((3, 3)))
    posterior = vilogit.Posterior(q, -1.0)
    return rng.choice(
        [
            (vilogit.one_hot, {"y": y, "n_classes": 3}),
            (vilogit.softmax_jacobian, {"logits": X}),
            (vilogit.softmax_jvp, {"logits": X, "tangent": X}),
            (vilogit.cross_entropy, {"W": W, "X": X, "Y": Y}),
            (vilogit.cross_entropy_gradient, {"W": W, "X": X, "Y": Y}),
            (vilogit.cross_entropy_hvp, {"W": W, "X": X, "V": W}),
            (vilogit.expected_softmax, {"logit_mean": X, "logit_var": X**2}),
            (vilogit.kl_to_prior, {"q": q, "prior_precision": 1.0}),
            (vilogit.elbo, {"q": q, "X": X, "Y": Y, "prior_precision": 1.0}),
            (vilogit.elbo_and_gradient, {"q": q, "eps": W, "X": X, "Y": Y}),
            (vilogit.fit, {"X": X, "y": y, "prior_precision": 1.0, "tol": 1.0}),
            (vilogit.fit_sgd, {"X": X, "y": y, "rng": rng, "steps": 2}),
            (posterior.predict_proba, {"X": X}),
            (posterior.sample, {"n": 2, "rng": rng}),
        ]
    )


def broken_argument(rng):
    """An error that names the argument, or an answer: some broken things are good elsewhere."""
    function, arguments = _good(rng)
    name = rng.choice(list(arguments))
    broken = BROKEN[rng.integers(len(BROKEN))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vilogit.ConvergenceWarning)
        try:
            function(**{**arguments, name: broken})
        except (TypeError, ValueError) as error:
            message = str(error)
            assert len(message) > 10 and any(a in message for a in arguments), (name, message)
            return
    # What was taken must have been a number, or an array of numbers, that fits; softmax has
    # values where the mathematics has limits.
    taken = np.asarray(broken)
    finite = np.isfinite(taken.astype(float)).all() or "softmax_j" in function.__name__
    assert taken.dtype.kind in "biuf" and finite, (function.__name__, name)


CASES = {
    softmax_of_extreme_logits: 0.3,
    cross_entropy_of_extreme_weights: 0.15,
    averages_of_extreme_logits: 0.2,
    fit_of_extreme_data: 0.1,
    labels_and_shifts_of_the_classifier: 0.05,
    broken_argument: 0.2,
}


def run(n, seed=0):
    """Try `n` inputs; a failure says which seed repeats it."""
    kinds = np.random.default_rng(seed).choice(len(CASES), size=n, p=list(CASES.values()))
    counts = np.bincount(kinds, minlength=len(CASES))
    for k, kind in enumerate(kinds):
        case = list(CASES)[kind]
        try:
            with np.errstate(all="ignore"):
                case(np.random.default_rng((seed, k)))
        except Exception as error:
            error.add_note(f"{case.__name__}(np.random.default_rng(({seed}, {k})))")
            raise
    return {case.__name__: int(count) for case, count in zip(CASES, counts, strict=True)}


if __name__ == "__main__":
    tried = run(*map(int, sys.argv[1:] or ["10000"]))
    for name, count in tried.items():
        print(f"{count:6d} {name}")
    print(f"{sum(tried.values()):6d} in all: right, or refused with a clear error")
