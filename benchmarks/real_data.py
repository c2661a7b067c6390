"""Point estimates and posteriors on real data, over repeated splits: chapter 7's numbers.

``make real-data`` runs it on one thread and writes ``real_data.json``, which the chapter reads.
All data sets are inside scikit-learn; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy
import sklearn
from scipy.optimize import minimize_scalar
from scipy.stats import norm, qmc, t
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.preprocessing import StandardScaler

import vilogit

SPLITS = {"iris": 10, "wine": 10, "breast_cancer": 10, "digits": 6}
REPEATS = 20
TEST_SHARE = 0.3
BINS = 15
C_GRID = np.logspace(-3, 4, 15)
PRECISIONS = np.logspace(-2, 1, 7)
PER_CLASS = (2, 3, 5, 10, 20)
INTERCEPT_PRECISION = 0.01  # of Laplace; the estimator's default


def problem(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the raw table of a set; the pixels of digits, 0 to 16, become 0 to 1."""
    data = getattr(datasets, f"load_{name}")()
    return (data.data / 16 if name == "digits" else data.data), data.target


def prepared(name: str, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardise by the training rows; pixels share one unit and stay as they are."""
    if name == "digits":
        return train, test
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test)


class Laplace:
    """A Gaussian with the full curvature at the mode, its prior precision by its own evidence."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Laplace:
        """Find the precision of the largest evidence (MacKay, 1992), then mode and covariance."""
        X, self.D = np.column_stack([X, np.ones(len(X))]), y.max() + 1
        self.mean = np.zeros((X.shape[1], self.D))
        Y = vilogit.one_hot(y, self.D)
        found = minimize_scalar(
            lambda u: -self._at(np.exp(u), X, Y), bounds=(-7, 7), method="bounded",
            options={"xatol": 0.1},
        )  # fmt: skip
        self.prior_precision_ = float(np.exp(found.x))
        self._at(self.prior_precision_, X, Y)
        self.covariance = np.linalg.inv(self.curvature)
        return self

    def _at(self, precision: float, X: np.ndarray, Y: np.ndarray) -> float:
        """Move to the mode by Newton's method; return the log evidence in nats."""
        M = X.shape[1]
        prior = np.full((M, 1), precision)
        prior[-1] = INTERCEPT_PRECISION
        W = self.mean

        def loss(W: np.ndarray) -> float:
            return vilogit.cross_entropy(W, X, Y) + np.sum(prior * W**2) / 2

        value = loss(W)
        for _ in range(100):
            gradient = vilogit.cross_entropy_gradient(W, X, Y) + prior * W
            self.curvature = self._curvature(W, X, prior)
            step = np.linalg.solve(self.curvature, gradient.ravel()).reshape(W.shape)
            size = 1.0
            while loss(W - size * step) > value and size > 1e-6:
                size /= 2
            W = W - size * step
            value, before = loss(W), value
            if before - value < 1e-6:
                break
        self.mean = W
        self.curvature = self._curvature(W, X, prior)
        log_prior = self.D * np.sum(np.log(prior)) / 2
        return log_prior - value - np.linalg.slogdet(self.curvature)[1] / 2

    def _curvature(self, W: np.ndarray, X: np.ndarray, prior: np.ndarray) -> np.ndarray:
        M, D = W.shape
        probs = vilogit.softmax(X @ W)
        H = np.empty((M, D, M, D))
        for d in range(D):
            for e in range(d, D):
                weight = probs[:, d] * ((d == e) - probs[:, e])
                H[:, d, :, e] = H[:, e, :, d] = (X * weight[:, None]).T @ X
        H = H.reshape(M * D, M * D)
        H[np.diag_indices(M * D)] += np.repeat(prior[:, 0], D)
        return H

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Average the softmax over the Gaussian logits, on 1024 points of a Sobol sequence."""
        X = np.column_stack([X, np.ones(len(X))])
        M, D = self.mean.shape
        S = self.covariance.reshape(M, D, M, D)
        eps = norm.ppf(qmc.Sobol(D, seed=0).random(1024))
        probs = np.empty((len(X), D))
        for rows in np.array_split(np.arange(len(X)), len(X) // 100 + 1):
            half = np.einsum("nm,mdke->nkde", X[rows], S, optimize=True)
            cov = np.einsum("nkde,nk->nde", half, X[rows], optimize=True)
            root = np.linalg.cholesky(cov + 1e-9 * np.eye(D))
            logits = (X[rows] @ self.mean)[:, None] + np.einsum("nde,se->nsd", root, eps)
            probs[rows] = vilogit.softmax(logits).mean(axis=1)
        return probs


def folds(y: np.ndarray) -> StratifiedKFold:
    """Five folds, or as many as the rarest class has rows."""
    return StratifiedKFold(min(5, int(np.bincount(y).min())), shuffle=True, random_state=0)


def mle(X: np.ndarray, y: np.ndarray) -> LogisticRegression:
    """Maximum likelihood."""
    return LogisticRegression(C=np.inf, max_iter=10_000).fit(X, y)


def tuned(X: np.ndarray, y: np.ndarray) -> LogisticRegressionCV:
    """Return the mode, its penalty by cross-validated log loss, every fit converged."""
    search = LogisticRegressionCV(
        Cs=C_GRID, cv=folds(y), scoring="neg_log_loss", solver="newton-cg", tol=1e-9,
        max_iter=1000,
    )  # fmt: skip
    with warnings.catch_warnings():  # about defaults of later releases
        warnings.simplefilter("ignore", FutureWarning)
        return search.fit(X, y)


def by_evidence(family: str) -> Callable:
    """Return a way to fit a posterior, its prior precision by the ELBO."""

    def fit(X: np.ndarray, y: np.ndarray) -> vilogit.VariationalLogisticRegression:
        model = vilogit.VariationalLogisticRegression(prior_precision="evidence", family=family)
        return model.fit(X, y)

    return fit


def by_folds(X: np.ndarray, y: np.ndarray) -> GridSearchCV:
    """Return the aligned posterior, its prior precision by cross-validated log loss."""
    # A gap of 0.1 nats over all rows is no difference to a prediction.
    model = vilogit.VariationalLogisticRegression(family="aligned", tol=0.1)
    grid = {"prior_precision": PRECISIONS}
    return GridSearchCV(model, grid, cv=folds(y), scoring="neg_log_loss").fit(X, y)


METHODS = {
    "MLE": mle,
    "MAP": tuned,
    "Laplace": lambda X, y: Laplace().fit(X, y),
    "plain": by_evidence("mean-field"),
    "aligned": by_evidence("aligned"),
    "aligned, folds": by_folds,
}


def log_probs(model: object, X: np.ndarray) -> np.ndarray:
    """Log probabilities; of a point estimate from its logits, without a floor."""
    if isinstance(model, LogisticRegression):
        logits = model.decision_function(X)
        if logits.ndim == 1:
            logits = np.column_stack([np.zeros(len(X)), logits])
        return vilogit.log_softmax(logits)
    return np.log(np.maximum(model.predict_proba(X), 1e-300))


def scores(log_p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Log loss in nats, share of errors, and Brier score, means over rows."""
    p = np.exp(log_p)
    return {
        "log_loss": -np.mean(log_p[np.arange(len(y)), y]),
        "error": np.mean(p.argmax(axis=1) != y),
        "brier": np.mean(np.sum((p - np.eye(p.shape[1])[y]) ** 2, axis=1)),
    }


def bins(confidence: np.ndarray, hit: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Rows, summed confidence and hits of each of the equal bins of confidence, (3, BINS)."""
    weight = np.ones(len(hit)) if weight is None else weight
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return np.array(
        [np.bincount(index, weight * of, BINS) for of in (np.ones(len(hit)), confidence, hit)]
    )


def calibration_error(confidence: np.ndarray, hit: np.ndarray, weight=None) -> float:
    """Return the expected calibration error: bins' mean gap of accuracy and confidence."""
    count, trust, hits = bins(confidence, hit, weight)
    return float(np.abs(hits - trust).sum() / count.sum())


def interval(values: list[float] | np.ndarray, ratio: float = 0.0) -> dict[str, float]:
    """Mean and its 95% interval by Student's t.

    Parameters
    ----------
    values : array_like, shape (J,)
        One of each split.
    ratio : float
        Test rows over training rows: widens the interval for splits that share rows
        (Nadeau and Bengio, 2003).
    """
    values = np.asarray(values, float)
    J = len(values)
    half = t.ppf(0.975, J - 1) * np.sqrt((1 / J + ratio) * values.var(ddof=1))
    return {"mean": values.mean(), "low": values.mean() - half, "high": values.mean() + half}


def compare(name: str, splits: int) -> dict:
    """All methods on the same random splits of one set."""
    X, y = problem(name)
    rows = np.arange(len(y))
    kept: dict[str, dict] = {
        method: {"log_p": [], "seconds": [], "precision": []} for method in METHODS
    }
    tests = []
    for seed in range(splits):
        train, test = train_test_split(rows, test_size=TEST_SHARE, stratify=y, random_state=seed)
        A, B = prepared(name, X[train], X[test])
        tests.append(test)
        for method, fit in METHODS.items():
            start = time.process_time()
            model = fit(A, y[train])
            one = kept[method]
            one["seconds"].append(time.process_time() - start)
            one["log_p"].append(log_probs(model, B))
            model = getattr(model, "best_estimator_", model)
            one["precision"].append(_precision(model))
        print(f"{name} {seed}", flush=True)

    ratio = len(test) / len(train)
    every, label = np.concatenate(tests), y[np.concatenate(tests)]
    rng = np.random.default_rng(0)
    draws = [rng.multinomial(len(y), np.full(len(y), 1 / len(y)))[every] for _ in range(200)]
    results, pooled, single = {}, {}, {}
    for method, one in kept.items():
        single[method] = [scores(p, y[test]) for p, test in zip(one["log_p"], tests, strict=True)]
        p = np.exp(np.concatenate(one["log_p"]))
        pooled[method] = p.max(axis=1), p.argmax(axis=1) == label
        found = {}
        for key in ("log_loss", "error", "brier"):
            values = [s[key] for s in single[method]]
            ends = {"first": values[0], "min": min(values), "max": max(values)}
            found[key] = interval(values, ratio) | ends
        found["ece"] = {"mean": calibration_error(*pooled[method])}
        count, trust, hits = bins(*pooled[method])
        found["bins"] = {"rows": count.astype(int), "confidence": trust, "hits": hits.astype(int)}
        found["seconds"] = float(np.median(one["seconds"]))
        found["precision"] = {
            "median": float(np.median(one["precision"])), "first": one["precision"][0],
        }  # fmt: skip
        results[method] = found

    against = {}
    for method, other in [
        *((m, "MAP") for m in METHODS if m != "MAP"),
        ("aligned", "plain"), ("aligned", "Laplace"), ("aligned, folds", "aligned"),
    ]:  # fmt: skip
        pairs = list(zip(single[method], single[other], strict=True))
        found = {
            key: interval([a[key] - b[key] for a, b in pairs], ratio)
            for key in ("log_loss", "error", "brier")
        }
        two = [
            calibration_error(*pooled[method], weight) - calibration_error(*pooled[other], weight)
            for weight in [None, *draws]
        ]
        found["ece"] = {"mean": two[0]} | _spread(two[1:])
        against[f"{method} - {other}"] = found
    M, D = X.shape[1], int(y.max()) + 1
    return {
        "splits": splits,
        "N": len(y),
        "inputs": M,
        "classes": D,
        "methods": results,
        "differences": against,
    }


def learning_curve(name: str, repeats: int) -> dict:
    """Log loss against the number of training rows of each class."""
    X, y = problem(name)
    rows = np.arange(len(y))
    methods = ("MAP", "Laplace", "aligned")
    curve = {}
    for size in PER_CLASS:
        values: dict[str, list] = {method: [] for method in methods}
        for seed in range(repeats):
            pool, test = train_test_split(rows, test_size=TEST_SHARE, stratify=y, random_state=seed)
            rng = np.random.default_rng([seed, size])
            train = np.concatenate(
                [rng.choice(pool[y[pool] == d], size, replace=False) for d in np.unique(y)]
            )
            A, B = prepared(name, X[train], X[test])
            for method in methods:
                model = METHODS[method](A, y[train])
                values[method].append(scores(log_probs(model, B), y[test]))
        found = {
            method: {
                key: interval([s[key] for s in values[method]]) for key in ("log_loss", "error")
            }
            for method in methods
        }
        found["aligned - MAP"] = {
            key: interval(
                [a[key] - b[key] for a, b in zip(values["aligned"], values["MAP"], strict=True)]
            )
            for key in ("log_loss", "error")
        }
        curve[str(size)] = found
        print(f"{name}, {size} a class", flush=True)
    return curve


def strangers(X: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Make inputs that are no digits from rows of pixels in [0, 1]."""
    return {
        "shuffled pixels": rng.permuted(X, axis=1),
        "inverted": 1 - X,
        "noise": rng.integers(0, 17, X.shape) / 16,
        "three times brighter": 3 * X,
    }


def unseen(repeats: int) -> dict:
    """Train on the digits 0 to 7; tell held-out ones from 8, 9 and from things that are none."""
    X, y = problem("digits")
    known = np.flatnonzero(y < 8)
    areas: dict[str, dict[str, list]] = {}
    for seed in range(repeats):
        train, test = train_test_split(
            known, test_size=TEST_SHARE, stratify=y[known], random_state=seed
        )
        point, q = tuned(X[train], y[train]), by_evidence("aligned")(X[train], y[train])
        new = {"digits 8 and 9": X[y >= 8]}
        new |= strangers(X[test], np.random.default_rng(seed))
        usual = _doubts(point, q, X[test])
        for kind, inputs in new.items():
            for score, doubt in _doubts(point, q, inputs).items():
                truth = np.repeat([0, 1], [len(test), len(inputs)])
                area = roc_auc_score(truth, np.concatenate([usual[score], doubt]))
                areas.setdefault(kind, {}).setdefault(score, []).append(area)
        print(f"unseen {seed}", flush=True)
    return {
        kind: {score: interval(values) | {"first": values[0]} for score, values in of.items()}
        | {
            "difference": interval(
                np.array(of["epistemic, aligned"]) - np.array(of["1 - max, MAP"])
            )
        }
        for kind, of in areas.items()
    }


def _doubts(point: object, q: object, X: np.ndarray) -> dict[str, np.ndarray]:
    """Scores that are large where a model doubts."""
    total, _, epistemic = q.uncertainty(X)
    # Of a point estimate from the losing classes: 1 - max would round to ties.
    losing = np.sort(log_probs(point, X), axis=1)[:, :-1]
    return {
        "1 - max, MAP": np.logaddexp.reduce(losing, axis=1),
        "1 - max, aligned": 1 - q.predict_proba(X).max(axis=1),
        "total, aligned": total,
        "epistemic, aligned": epistemic,
    }


def _precision(model: object) -> float:
    """Prior precision that a model chose; of a point estimate 1 / C."""
    if isinstance(model, LogisticRegressionCV):
        return float(1 / np.ravel(model.C_)[0])
    return float(getattr(model, "prior_precision_", 0.0))


def _spread(values: list[float]) -> dict[str, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return {"low": float(low), "high": float(high)}


def _rounded(value: object) -> object:
    """Round all numbers to four significant digits."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_rounded(one) for one in value]
    if isinstance(value, (int, np.integer)):
        return int(value)
    return float(f"{value:.4g}") if isinstance(value, (float, np.floating)) else value


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


def main() -> None:
    """Run everything and write the file; ``--quick`` only shows that it works."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="three splits, into real_data.quick.json"
    )
    parser.add_argument("--parts", nargs="+", default=["splits", "learning", "unseen"])
    parser.add_argument("--sets", nargs="+", default=["iris", "wine", "breast_cancer", "digits"])
    options = parser.parse_args()
    # Maximum likelihood on separable rows runs until its steps are used up: expected here.
    warnings.simplefilter("ignore", ConvergenceWarning)

    file = Path(__file__).with_name("real_data.quick.json" if options.quick else "real_data.json")
    results = json.loads(file.read_text()) if file.exists() else {}
    results |= {
        "date": datetime.date.today().isoformat(),
        "machine": _processor(),
        "versions": {
            "python": platform.python_version(), "numpy": np.__version__,
            "scipy": scipy.__version__, "scikit-learn": sklearn.__version__,
        },
        "test_share": TEST_SHARE,
    }  # fmt: skip

    def write() -> None:
        text = json.dumps(_rounded(results), separators=(",", ":"))
        file.write_text(text.replace('"methods"', '\n"methods"') + "\n")

    for name in options.sets:
        if "splits" in options.parts:
            one = compare(name, 3 if options.quick else SPLITS[name])
            results.setdefault("sets", {})[name] = one
            write()
        if "learning" in options.parts:
            one = learning_curve(name, 3 if options.quick else REPEATS)
            results.setdefault("learning", {})[name] = one
            write()
    if "unseen" in options.parts:
        results["unseen"] = unseen(3 if options.quick else SPLITS["digits"])
        write()


if __name__ == "__main__":
    main()
