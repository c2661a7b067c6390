"""What every public function owes its caller, whatever it is given."""

import threading
import warnings

import hypothesis.extra.numpy as hnp
import matplotlib
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import vilogit
from vilogit import MeanField, VariationalLogisticRegression

X, Y, _ = vilogit.simulate(np.random.default_rng(1), n=20)
Q = MeanField(np.full((3, 3), 0.5), np.full((3, 3), -0.5))
POSTERIOR = vilogit.fit(X, Y)
ALIGNED = vilogit.fit(X, Y, family="aligned")

# Every public function of the inputs, as a function of them alone.
OF_INPUTS = {
    "fit": lambda X: vilogit.fit(X, Y).mean,
    "fit aligned": lambda X: vilogit.fit(X, Y, family="aligned").mean,
    "fit weighted": lambda X: vilogit.fit(X, Y, sample_weight=Y + 1).mean,
    "fit_sgd": lambda X: (
        vilogit.fit_sgd(X, Y, rng=np.random.default_rng(0), steps=3, learning_rate=1e-9).mean
    ),
    "estimator": lambda X: VariationalLogisticRegression().fit(X, Y).coef_,
    "elbo": lambda X: vilogit.elbo(Q, X, np.eye(3)[Y]),
    "elbo_and_gradient": lambda X: (
        vilogit.elbo_and_gradient(Q, np.ones((3, 3)), X, np.eye(3)[Y])[1].mean
    ),
    "cross_entropy": lambda X: vilogit.cross_entropy(Q.mean, X, np.eye(3)[Y]),
    "cross_entropy_gradient": lambda X: vilogit.cross_entropy_gradient(Q.mean, X, np.eye(3)[Y]),
    "cross_entropy_hvp": lambda X: vilogit.cross_entropy_hvp(Q.mean, X, Q.mean),
    "expected_softmax": lambda X: vilogit.expected_softmax(X, np.ones(np.shape(X))).probs,
    "predict_proba": lambda X: POSTERIOR.predict_proba(X),
    "predict_proba aligned": lambda X: ALIGNED.predict_proba(X),
    "uncertainty": lambda X: POSTERIOR.uncertainty(X)[0],
}
every = pytest.mark.parametrize("function", OF_INPUTS.values(), ids=OF_INPUTS)


@every
@pytest.mark.parametrize(
    "view",
    [
        lambda X: X.tolist(),
        np.asfortranarray,
        lambda X: np.repeat(X, 2, axis=0)[::2],
        lambda X: np.hstack([X, X])[:, :3],
        lambda X: X[::-1].copy()[::-1],
        lambda X: X.astype(">f8"),
        lambda X: np.frombuffer(X.tobytes()).reshape(X.shape),
    ],
    ids=["list", "Fortran", "every other row", "columns", "reversed", "big-endian", "read-only"],
)
def test_memory_does_not_matter(function, view):
    given_ = view(X)
    before = np.array(given_)
    np.testing.assert_allclose(function(given_), function(X), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(given_, before)


@every
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, np.uint64, bool, np.longdouble])
def test_every_real_dtype_is_taken(function, dtype):
    small = np.clip(np.round(np.abs(X)), 0, 1 if dtype is bool else 9)
    result = function(small.astype(dtype))
    np.testing.assert_allclose(result, function(small), rtol=2e-2, atol=2e-3)


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(function, bad):
    wrong = X.copy()
    wrong[7, 1] = bad
    with pytest.raises(ValueError, match=r"index \(7, 1\)|contains (NaN|infinity)"):
        function(wrong)


@every
@pytest.mark.parametrize("kind", ["object", "text", "complex", "record", "ragged", "none"])
def test_what_is_not_numbers_is_refused(function, kind):
    wrong = {
        "object": np.full(X.shape, object()),
        "text": np.full(X.shape, "one"),
        "complex": X + 1j,
        "record": np.zeros(X.shape, dtype="f8,i4"),
        "ragged": [[1.0, 2.0], [3.0]],
        "none": None,
    }[kind]
    with pytest.raises((TypeError, ValueError)) as caught:
        function(wrong)
    assert str(caught.value)


@every
@pytest.mark.parametrize("shape", [(), (20,), (20, 3, 1), (20, 0)])
def test_wrong_shapes_are_refused(function, shape):
    with pytest.raises(ValueError, match=r"shape|2D|dim 3|0 feature|two classes"):
        function(np.ones(shape))


@settings(max_examples=25)
@given(
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(2, 5),
    st.integers(-150, 150),
    st.sampled_from(["mean-field", "aligned"]),
    st.integers(0, 2**32 - 1),
)
@example(1, 2, 2, 17, "mean-field", 1)  # conjugate gradients without a digit left
def test_any_shape_and_scale_gets_a_proof_or_a_warning(n, m, d, exponent, family, seed):
    rng = np.random.default_rng(seed)
    inputs, y = rng.standard_normal((n, m)) * 10.0**exponent, rng.integers(d, size=n)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        posterior = vilogit.fit(inputs, y, n_classes=d, family=family, max_evaluations=60)
    assert {w.category for w in caught} <= {vilogit.ConvergenceWarning}
    assert bool(caught) == (not posterior.gap <= 1e-3)
    assert np.isfinite(posterior.mean).all() and (posterior.scale > 0).all()
    np.testing.assert_allclose(posterior.predict_proba(inputs).sum(axis=1), 1)


@pytest.mark.parametrize(("dtype", "top"), [(np.float64, 1e152), (np.float32, 1e17)])
def test_inputs_whose_squares_overflow_are_refused(dtype, top):
    huge = X.astype(dtype)
    huge[3, 1] = -top
    with pytest.raises(ValueError, match=r"X holds 1e\+\d+, whose square is too large for float"):
        vilogit.fit(huge, Y)


@settings(max_examples=100)
@given(
    hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.float16, np.int64, bool]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    )
)
def test_softmax_of_anything_sums_to_one_or_is_nan(logits):
    totals = vilogit.softmax(logits).sum(axis=1)
    finite = np.isfinite(np.asarray(logits, float)).all(axis=1)
    np.testing.assert_allclose(totals[finite], 1, rtol=1e-5)


@settings(max_examples=30)
@given(
    hnp.arrays(np.float64, (4, 3), elements=st.floats(-1e100, 1e100)),
    hnp.arrays(np.float64, (4, 3), elements=st.floats(0, 1e100)),
)
def test_averages_of_huge_and_tiny_logits_are_probabilities(mean, var):
    assume(np.isfinite(var).all())
    averages = vilogit.expected_softmax(mean, var)
    assert np.isfinite(averages.log_sum_exp).all()
    np.testing.assert_allclose(averages.probs.sum(axis=1), 1, atol=1e-6)
    assert (averages.probs >= 0).all()


def test_threads_give_the_bits_of_one_fit_alone():
    problems = [
        (*vilogit.simulate(np.random.default_rng(k), n=400)[:2], family)
        for k, family in enumerate(["mean-field", "aligned"] * 2)
    ]

    def bits(X, y, family):
        posterior = vilogit.fit(X, y, family=family)
        return posterior.mean.tobytes() + posterior.predict_proba(X).tobytes()

    alone = [bits(*problem) for problem in problems]
    together = [None] * len(problems)
    barrier = threading.Barrier(len(problems))

    def work(k):
        barrier.wait()
        together[k] = bits(*problems[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(problems))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_nothing_global_is_touched(tmp_path):
    def state():
        return (
            np.geterr(),
            np.geterrcall(),
            list(warnings.filters),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            dict(matplotlib.rcParams),
            matplotlib.get_backend(),
        )

    matplotlib.use("agg")
    before = state()
    for function in OF_INPUTS.values():
        function(X)
    POSTERIOR.save(tmp_path / "a")
    vilogit.load(tmp_path / "a").sample(2, np.random.default_rng(0))
    VariationalLogisticRegression("evidence").fit(X[:, :2], Y)
    vilogit.plot_class_map(POSTERIOR.predict_proba, X, Y)
    data = vilogit.simulate(np.random.default_rng(0))
    figure = vilogit.plot_before_after(data, POSTERIOR, ALIGNED)
    vilogit.flipbook(lambda step: figure, [0], describe=str)
    matplotlib.pyplot.close("all")
    assert state() == before
