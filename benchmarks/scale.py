"""How the cost of `vilogit.fit` grows: against bare matrix products and scikit-learn.

As a script, ``python scale.py SOLVER X.npy y.npy``, it fits once in a process of its own and
prints the growth of that process's peak memory in bytes.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from sets import PRIOR_PRECISION, Problem, simulated
from sklearn.linear_model import LogisticRegression

import vilogit

#: N, M, D and the type of X.
SIZES = (
    (1_000, 50, 5, np.float64),
    (10_000, 50, 5, np.float64),
    (100_000, 50, 5, np.float64),
    (1_000_000, 50, 5, np.float64),
    (100_000, 784, 10, np.float32),
)
QUICK_SIZES = SIZES[:2]


def scikit_learn(X: np.ndarray, y: np.ndarray) -> LogisticRegression:
    """Find the most probable weights under the same prior; the bias is a column of `X`."""
    model = LogisticRegression(C=1 / PRIOR_PRECISION, fit_intercept=False, max_iter=10_000)
    return model.fit(X, y)


def ours(X: np.ndarray, y: np.ndarray, **options: float) -> vilogit.Posterior:
    """Fit as anyone would: every option at its default, unless said otherwise."""
    return vilogit.fit(X, y, prior_precision=PRIOR_PRECISION, **options)


#: What is measured for memory; a loose tolerance saves time and holds the same arrays.
SOLVERS = {"vilogit": partial(ours, tol=1.0), "scikit-learn": scikit_learn}


def measure(size: tuple, repeats: int, summary: Callable[[list[float]], dict]) -> dict:
    """Time products, `vilogit.fit` and scikit-learn on one simulated set, taking turns.

    Parameters
    ----------
    size : tuple
        One of `SIZES`.
    repeats : int
        Rounds; only one once a round has taken longer than 20 seconds.
    summary : callable
        Turns a list of seconds into what is stored.

    Returns
    -------
    dict
        Times and their ratios, evaluations, proven gap, peak memory as a share of `X`.
    """
    problem = simulated(*size)
    seconds: dict[str, list[float]] = {"products": [], "vilogit": [], "scikit-learn": []}
    for _ in range(repeats):
        seconds["products"].append(_four_products(problem))
        start = time.perf_counter()
        posterior = ours(problem.X, problem.y)
        seconds["vilogit"].append(time.perf_counter() - start)
        start = time.perf_counter()
        model = scikit_learn(problem.X, problem.y)
        seconds["scikit-learn"].append(time.perf_counter() - start)
        if sum(map(sum, seconds.values())) > 20:
            break
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    evaluations = len(posterior.trace)
    N, M, D, dtype = size
    return {
        "N": N, "M": M, "D": D, "dtype": np.dtype(dtype).name,
        "evaluations": evaluations,
        "gap": float(posterior.gap),
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "evaluation_to_products": median["vilogit"] / evaluations / median["products"],
        "fit_to_products": median["vilogit"] / median["products"],
        "fit_to_scikit_learn": median["vilogit"] / median["scikit-learn"],
        "scikit_learn_iterations": int(np.max(model.n_iter_)),
        "memory_to_X": {name: _extra_memory(name, problem) for name in SOLVERS},
    }  # fmt: skip


def _four_products(problem: Problem) -> float:
    """Seconds for what no evaluation of the ELBO and its gradient can do without."""
    X, X2 = problem.X, problem.X**2
    rng = np.random.default_rng(0)
    mean, var = rng.random((2, X.shape[1], problem.D)).astype(X.dtype)
    R, S = rng.random((2, len(X), problem.D)).astype(X.dtype)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        _ = X @ mean, X2 @ var, X.T @ R, X2.T @ S
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _extra_memory(solver: str, problem: Problem) -> float:
    """Peak memory of a fit in a fresh process, less what it held before, as a share of X."""
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("X.npy", "y.npy")]
        for file, array in zip(files, (problem.X, problem.y), strict=True):
            np.save(file, array)
        output = subprocess.run(
            [sys.executable, __file__, solver, *files], check=True, capture_output=True, text=True
        ).stdout
    return json.loads(output) / problem.X.nbytes


def _peak() -> int:
    """Largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would hand down the peak of the process that started this one.
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _fit_once(solver: str, X_file: str, y_file: str) -> None:
    X, y = np.load(X_file), np.load(y_file)
    rows = slice(0, 200)
    SOLVERS[solver](X[rows, :3].copy(), y[rows] % 2)  # loads code and libraries
    before = _peak()
    SOLVERS[solver](X, y)
    print(_peak() - before)


if __name__ == "__main__":
    _fit_once(*sys.argv[1:])
