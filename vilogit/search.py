"""Up a concave bound by limited-memory BFGS; knows neither softmax nor Gaussians (chapter 5).

References
----------
J. Nocedal (1980), Updating quasi-Newton matrices with limited storage, Mathematics of Computation
35, 773-782. W. W. Hager and H. Zhang (2005), A new conjugate gradient method with guaranteed
descent and an efficient line search, SIAM Journal on Optimization 16, 170-192.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from .bound import Bound, Point
from .posterior import Record, State

_PAIRS = 6  # steps that are remembered, see `benchmarks/constants.py`
_SINGLE = 1e-5  # a gap that averages in single precision can still show
_SHORTEST = 1e-6  # share of a step below which there is no way up
_BEYOND = 0.8  # of the slope, turned: a parabola is then a tenth higher (Hager and Zhang, 2005)

Pairs = list[tuple[np.ndarray, np.ndarray]]


class Search:
    """A number of evaluations to spend, each kept in `trace` and shown to the caller.

    Parameters
    ----------
    most : int
        Most evaluations of all climbs together; `remaining` counts them down.
    callback : callable, optional
        Called with a `State` after each.
    """

    def __init__(self, most: int, callback: Callable[[State], object] | None = None) -> None:
        self.remaining, self.callback = most, callback
        self.trace: list[Record] = []

    def climb(
        self, bound: Bound, theta: np.ndarray, tol: float, accuracies: tuple[float, float, float]
    ) -> Point:
        """Ascend until the gap is at most `tol` by fine averages, or nothing rises by them.

        Parameters
        ----------
        bound : Bound
            What to climb.
        theta : ndarray
            Where to begin.
        tol : float
            Gap at which to stop, in nats.
        accuracies : tuple of float
            Of the averages: far from the optimum, within a nat, and fine.
        """
        far, near, fine = accuracies
        pairs: Pairs = []
        point = self._kept(bound, bound.evaluate(theta, far))
        metric = bound.metric(point)
        while self.remaining:
            new = None
            if point.gap > max(tol, 0 if near == fine else _SINGLE):
                accuracy = far if point.gap > 1 else near
                way = bfgs(point.slope, pairs, partial(metric.direction, point))
                rise, t = np.vdot(point.slope, way), bound.longest(way)
                while new is None and self.remaining and rise > 0 and t > _SHORTEST:
                    ahead = self._kept(bound, bound.evaluate(point.theta + t * way, accuracy))
                    # The bound is concave: where it still rises, it has risen all the way, and
                    # beyond its top it is higher for a while. Slopes tell, values may differ in
                    # accuracy.
                    new = ahead if np.vdot(ahead.slope, way) >= -_BEYOND * rise else None
                    t /= 2
                pairs = [] if new is None else pairs
            if new is not None:
                pairs = [*pairs, (new.theta - point.theta, point.slope - new.slope)][-_PAIRS:]
                pairs = [(s, y) for s, y in pairs if np.vdot(s, y) > 0]
                point = new
            elif near == fine or not self.remaining:
                break
            else:  # the gap looks closed, or rounding hides the way up: look closer
                far = near = fine
                point = self._kept(bound, bound.evaluate(point.theta, fine))
        return point

    def _kept(self, bound: Bound, point: Point) -> Point:
        """Take note of an evaluation, and return it."""
        self.remaining -= 1
        self.trace.append(Record(point.elbo, point.gap))
        if self.callback is not None:
            q = bound.posterior(point).marginals()
            self.callback(State(len(self.trace), q, point.elbo, point.gap))
        return point


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
