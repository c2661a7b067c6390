"""The rows of a fit: inputs, labels and weights, seen a slab at a time or by a sample."""

from collections.abc import Callable
from functools import reduce
from itertools import repeat
from typing import NamedTuple, Self, TypeVar

import numpy as np

_Part = TypeVar("_Part")

_IN_CACHE = 150_000  # numbers in a slab: X and its square stay in the cache
_ENOUGH = 5000  # rows that tell a metric what all would: the pairs of a search correct the rest


class Rows(NamedTuple):
    """Rows of a fit, all of them or a slab; nothing else touches X.

    Attributes
    ----------
    X : ndarray, shape (N, M)
        Inputs, in the reader's axes or turned.
    y : ndarray of int, shape (N,)
        Labels in ``0..n_classes-1``.
    n_classes : int
        Number of classes D.
    weight : ndarray, shape (N, 1), or None
        How often each row counts, above zero; None is once.
    every : int
        One row in so many is in the sample of `sampled`.
    first : int
        Place of the first row among all.
    """

    X: np.ndarray
    y: np.ndarray
    n_classes: int
    weight: np.ndarray | None = None
    every: int = 1
    first: int = 0

    @classmethod
    def of(cls, X: np.ndarray, y: np.ndarray, n_classes: int, weight: np.ndarray | None) -> Self:
        """Rows of checked arrays that count, and how sparse their sample is."""
        if weight is not None:
            some = weight > 0
            X, y, weight = X[some], y[some], weight[some, None].astype(X.dtype)
        return cls(X, y, n_classes, weight, max(1, len(X) // max(_ENOUGH, 20 * X.shape[1])))

    def fold(
        self, work: Callable[..., _Part], join: Callable[[_Part, _Part], _Part], *shared: object
    ) -> _Part:
        """Join ``work(slab, *shared)`` over all slabs, from the first to the last."""
        size = max(1, _IN_CACHE // self.X.shape[1])
        slabs = (self._part(slice(k, k + size), k) for k in range(0, len(self.X), size))
        return reduce(join, map(work, slabs, *map(repeat, shared)))

    def sample(self) -> Self:
        """Return evenly spaced rows of all."""
        return self._part(self.sampled())._replace(every=1)

    def sampled(self) -> slice:
        """Which rows of these are in the sample of all."""
        return slice(-self.first % self.every, None, self.every)

    def turned(self, axes: np.ndarray) -> Self:
        """Return the same rows with their inputs in other axes, (M, K)."""
        return self._replace(X=self.X @ axes.astype(self.X.dtype, copy=False))

    def one_hot(self) -> np.ndarray:
        """Labels as rows with a single one, times the weight, (N, D)."""
        Y = np.zeros((len(self.y), self.n_classes), self.X.dtype)
        Y[np.arange(len(Y)), self.y] = 1
        return self.weighted(Y)

    def weighted(self, values: np.ndarray) -> np.ndarray:
        """Multiply values, (N, D) or (N, 1), by the weights of their rows."""
        return values if self.weight is None else values * self.weight

    def gram_root(self) -> np.ndarray:
        """Return inputs whose Gram matrix counts every row by its weight, (N, M)."""
        return self.X if self.weight is None else self.X * np.sqrt(self.weight)

    def _part(self, rows: slice, first: int = 0) -> Self:
        weight = None if self.weight is None else self.weight[rows]
        return self._replace(X=self.X[rows], y=self.y[rows], weight=weight, first=first)
