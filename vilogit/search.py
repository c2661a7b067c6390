"""Up a concave bound by limited-memory BFGS; knows neither softmax nor Gaussians (chapter 5)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .bound import Bound, Point
from .progress import Record, State

_PAIRS = 6  # steps that the metric remembers
_PLAIN = 1e-5  # a gap that averages in single precision can still show

Pairs = list[tuple[np.ndarray, np.ndarray]]


class Search:
    """A number of evaluations to spend, each kept in `trace` and shown to the caller.

    Parameters
    ----------
    most : int
        Most evaluations of all climbs together.
    callback : callable, optional
        Called with a `State` after each.
    """

    def __init__(self, most: int, callback: Callable[[State], object] | None = None) -> None:
        self.most, self.callback = most, callback
        self.trace: list[Record] = []

    @property
    def left(self) -> int:
        """Evaluations that are left."""
        return self.most - len(self.trace)

    def climb(
        self, bound: Bound, theta: np.ndarray, tol: float, accuracies: tuple[float, ...]
    ) -> Point:
        """Ascend with finer averages as the gap closes; what is proven, is on the last.

        Parameters
        ----------
        bound : Bound
            What to climb.
        theta : ndarray
            Where to begin.
        tol : float
            Gap at which to stop, in nats.
        accuracies : tuple of float
            Of the averages, coarse ones first.
        """
        level, pairs = 0, []
        proof = len(accuracies) - 1
        point = self._kept(bound, bound.evaluate(theta, accuracies[level]))
        metric = bound.metric(point)
        while self.left:
            if level < proof and point.gap <= max(tol, _PLAIN):
                level = proof
                point = self._kept(bound, bound.evaluate(point.theta, accuracies[level]))
                continue
            if point.gap <= tol:
                break
            way = bfgs(point.slope, pairs, partial(metric.direction, point))
            finer = level < proof - 1 and point.gap < 1
            level += finer
            rise, t, new = np.vdot(point.slope, way), bound.longest(way), None
            while self.left and rise > 0 and t > 1e-6:
                ahead = bound.evaluate(point.theta + t * way, accuracies[level])
                if _risen(point, self._kept(bound, ahead), way, t, finer):
                    new = ahead
                    break
                t /= 2
            if new is None:
                # Rounding hides the way up: look closer, or give up where one cannot.
                if level == proof or not self.left:
                    break
                level, pairs = level + 1, []
                point = self._kept(bound, bound.evaluate(point.theta, accuracies[level]))
                continue
            pairs = [*pairs, (new.theta - point.theta, point.slope - new.slope)][-_PAIRS:]
            pairs = [(s, y) for s, y in pairs if np.vdot(s, y) > 0]
            point = new
        return point

    def _kept(self, bound: Bound, point: Point) -> Point:
        """Take note of an evaluation, and return it."""
        self.trace.append(Record(point.elbo, point.gap))
        if self.callback is not None:
            q = bound.posterior(point).marginals()
            self.callback(State(len(self.trace), q, point.elbo, point.gap))
        return point


def _risen(point: Point, ahead: Point, way: np.ndarray, t: float, finer: bool) -> bool:
    """Whether a step of length `t` has brought enough; values of unlike accuracy do not compare."""
    rise, slope = np.vdot(point.slope, way), np.vdot(ahead.slope, way)
    # The bound is concave: where it still rises at the far end, it has risen all the way.
    if slope >= 0 or (finer and slope > -rise / 2):
        return True
    return ahead.elbo >= point.elbo + 1e-4 * t * rise and not finer


def bfgs(slope: np.ndarray, pairs: Pairs, metric: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Correct a metric by the steps, and changes of slope, that are remembered (Nocedal, 1980)."""
    kept = []
    for s, y in reversed(pairs):
        kept.append(np.vdot(s, slope) / np.vdot(s, y))
        slope = slope - kept[-1] * y
    way = metric(slope)
    for (s, y), a in zip(pairs, reversed(kept), strict=True):
        way = way + s * (a - np.vdot(y, way) / np.vdot(s, y))
    return way
