"""The toy problem of every chapter, and labels as rows with a single one."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import checks


class Dataset(NamedTuple):
    """Inputs, labels, and the weights that the labels were drawn with.

    Attributes
    ----------
    X : ndarray, shape (N, M)
        Inputs; the last column is the bias, all ones.
    y : ndarray of int, shape (N,)
        Labels in ``0..D-1``.
    W : ndarray, shape (M, D)
        True weights.
    """

    X: np.ndarray
    y: np.ndarray
    W: np.ndarray


def simulate(
    rng: np.random.Generator, n: int = 60, n_classes: int = 3, n_features: int = 2, *,
    extent: float = 5.0, prior_precision: float = 1.0,
) -> Dataset:  # fmt: skip
    """Draw a data set from the model: uniform inputs, Gaussian weights, categorical labels.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of randomness.
    n, n_classes, n_features : int
        Observations (at least 1), classes (at least 2), input features without the bias (at
        least 1).
    extent : float
        Inputs are uniform on ``[-extent, extent]``; finite and positive.
    prior_precision : float
        Precision of the zero-mean Gaussian that the weights are drawn from.

    Returns
    -------
    Dataset
        ``X`` has shape (n, n_features + 1): the bias column is included.

    Raises
    ------
    TypeError
        If `rng` is not a generator or a size is not an integer.
    ValueError
        If a size or a positive number is out of range.
    """
    checks.rng(rng)
    n = checks.size(n, "n", at_least=1)
    n_classes = checks.size(n_classes, "n_classes", at_least=2)
    n_features = checks.size(n_features, "n_features", at_least=1)
    extent = float(checks.positive(extent, "extent", ()))
    precision = checks.positive(prior_precision, "prior_precision", ())
    X = np.column_stack([rng.uniform(-extent, extent, (n, n_features)), np.ones(n)])
    W = rng.standard_normal((n_features + 1, n_classes)) / np.sqrt(precision)
    # The largest of logits with Gumbel noise added is a draw from their softmax.
    return Dataset(X, (X @ W + rng.gumbel(size=(n, n_classes))).argmax(axis=1), W)


def one_hot(y: ArrayLike, n_classes: int) -> np.ndarray:
    """Turn integer labels into rows with a single one.

    Parameters
    ----------
    y : array_like of int, shape (N,)
        Labels in ``0..n_classes-1``.
    n_classes : int
        Number of classes D, at least 1.

    Returns
    -------
    ndarray, shape (N, D)
        Row n is zero but for a one in column ``y[n]``.

    Raises
    ------
    TypeError, ValueError
        If the labels are not integers or lie outside the range.
    """
    n_classes = checks.size(n_classes, "n_classes", at_least=1)
    labels = checks.label_integers(y, n_classes)
    rows = np.zeros((len(labels), n_classes))
    rows[np.arange(len(labels)), labels] = 1
    return rows
