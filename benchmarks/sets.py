"""The data sets of the comparison, and the exact ELBO that every solver is scored by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn import datasets

import vilogit

PRIOR_PRECISION = 1.0


class Problem(NamedTuple):
    """One classification problem; the bias is the last column of `X`.

    Attributes
    ----------
    name : str
        What tables call it.
    X : ndarray, shape (N, M)
        Inputs.
    y : ndarray of int, shape (N,)
        Labels in ``0..D-1``.
    D : int
        Number of classes.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    D: int


def six_sets() -> list[Problem]:
    """Return the sets of the comparison with other solvers, smallest first."""
    toy = vilogit.simulate(np.random.default_rng(1))
    iris, wine = datasets.load_iris(), datasets.load_wine()
    cancer, digits = datasets.load_breast_cancer(), datasets.load_digits()
    rng = np.random.default_rng(7)
    y_blobs = np.repeat(np.arange(3), 30)
    centres = np.array([[-4.0, -2.0], [4.0, -2.0], [0.0, 5.0]])
    blobs = centres[y_blobs] + 0.5 * rng.standard_normal((90, 2))
    return [
        Problem("toy", toy.X, toy.y, 3),
        Problem("separable", _with_bias(blobs), y_blobs, 3),
        Problem("iris", _with_bias(_standardised(iris.data)), iris.target, 3),
        Problem("wine", _with_bias(_standardised(wine.data)), wine.target, 3),
        Problem("breast cancer", _with_bias(_standardised(cancer.data)), cancer.target, 2),
        Problem("digits", _with_bias(digits.data / 16), digits.target, 10),
    ]


def simulated(n: int, n_inputs: int, n_classes: int, dtype: type) -> Problem:
    """Draw a large set from the model, its inputs scaled for logits of variance about 9.

    Parameters
    ----------
    n, n_inputs, n_classes : int
        N, M (bias included) and D.
    dtype : type
        Of `X`: float64 or float32.
    """
    rng = np.random.default_rng(n)
    extent = 3 * np.sqrt(3 / n_inputs)
    data = vilogit.simulate(rng, n, n_classes, n_inputs - 1, extent=extent)
    return Problem(f"N={n}, M={n_inputs}, D={n_classes}", data.X.astype(dtype), data.y, n_classes)


def random_problem(rng: np.random.Generator, most: int = 200):
    """Draw sizes, correlated inputs, and labels from the model with weights from its prior."""
    N, D = int(rng.integers(15, most)), int(rng.integers(2, 7))
    M = int(rng.integers(2, 11))
    mixing = rng.standard_normal((M - 1, M - 1)) * rng.uniform(0.3, 2) / np.sqrt(M - 1)
    X = np.column_stack([rng.standard_normal((N, M - 1)) @ mixing, np.ones(N)])
    W = rng.standard_normal((M, D))
    y = (X @ W + rng.gumbel(size=(N, D))).argmax(axis=1)
    return X, y, D


class ExactElbo:
    """The ELBO of a diagonal Gaussian by quadrature, quick enough to score thousands of states.

    It agrees with `vilogit.elbo` but shares no code with it (`run.py` checks on every set).
    The average of log-sum-exp is
    ``integral of exp(-exp(-u)) - prod_d E[exp(-exp(beta_d - u))] du`` over the line.

    Parameters
    ----------
    problem : Problem
        Data and number of classes.
    """

    def __init__(self, problem: Problem):
        self.X, self.X2 = problem.X, problem.X**2
        self.Y = vilogit.one_hot(problem.y, problem.D)

    def __call__(self, mean: np.ndarray, scale: np.ndarray) -> float:
        """Return the ELBO in nats of weights with this mean and standard deviation, (M, D)."""
        mean, scale = np.asarray(mean, float), np.asarray(scale, float)
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
            return -np.inf
        m, s = self.X @ mean, np.sqrt(self.X2 @ scale**2)
        variance_ratio = PRIOR_PRECISION * scale**2
        kl = np.sum(PRIOR_PRECISION * mean**2 + variance_ratio - 1 - np.log(variance_ratio)) / 2
        return float(np.sum(self.Y * m) - _log_sum_exp(m, s).sum() - kl)


def _log_sum_exp(m: np.ndarray, s: np.ndarray) -> np.ndarray:
    if m.shape[1] == 2:
        return _log_sum_exp_of_two(m, s)
    average = np.empty(len(m))
    level = np.ceil(2 * np.log2(np.maximum(s.max(axis=1), 1.0)))
    for width in np.unique(level):
        of_level = np.flatnonzero(level == width)
        for rows in np.array_split(of_level, len(of_level) // 32 + 1):
            average[rows] = _log_sum_exp_of_many(m[rows], s[rows], 2 ** (width / 2))
    return average


def _nodes(step: float) -> tuple[np.ndarray, np.ndarray]:
    z = np.arange(-6.0, 6.0 + step, step)
    weight = np.exp(-(z**2) / 2)
    return z, weight / weight.sum()


def _log_sum_exp_of_two(m: np.ndarray, s: np.ndarray) -> np.ndarray:
    z, weight = _nodes(min(0.5, 1.2 / max(1.0, np.hypot(s[:, 0], s[:, 1]).max())))
    difference = (m[:, 1] - m[:, 0])[:, None] + np.hypot(s[:, 0], s[:, 1])[:, None] * z
    return m[:, 0] + np.logaddexp(0, difference) @ weight


def _log_sum_exp_of_many(m: np.ndarray, s: np.ndarray, width: float) -> np.ndarray:
    # Single precision is several times faster, and off by 1e-6 a row.
    dtype, largest = (np.float32, 80.0) if width < 10 else (np.float64, 600.0)
    z, weight = _nodes(min(0.75, 1.4 / width))
    top = m.max(axis=1)
    du = 0.5
    u = np.arange(-4.5 - 5.5 * width, 17 + np.log(m.shape[1]) + 5.5 * width, du)
    # exp(beta - u) as a product, so that one exponential an entry is left.
    logits = (m - top[:, None])[..., None] + s[..., None] * z
    odds = np.exp(np.clip(logits, -largest, largest)).astype(dtype)
    race = np.exp(np.minimum(-u, largest)).astype(dtype)
    t = odds[..., None, :] * race[:, None]
    np.minimum(t, dtype(largest), out=t)
    np.negative(t, out=t)
    below = np.exp(t, out=t) @ weight.astype(dtype)
    room = np.exp(-np.exp(-u)) - below.prod(axis=1, dtype=np.float64)
    return top + du * room.sum(axis=1)


def _with_bias(X: np.ndarray) -> np.ndarray:
    return np.column_stack([X, np.ones(len(X))])


def _standardised(X: np.ndarray) -> np.ndarray:
    return (X - X.mean(axis=0)) / X.std(axis=0)
