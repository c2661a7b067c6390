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
_CLOSER = 100.0  # factor of accuracy where a proof fails
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
        fine = max(fine, bound.finest)
        prove = near != fine
        self.error = 0.0, 0.0
        pairs: Pairs = []
        point = best = self._look(bound, theta, far if self.remaining > 1 else fine)
        metric = bound.metric(point)
        while self.remaining and not (near == fine and self._proven(point.gap) <= tol):
            new = None
            # Slopes no larger than their errors show no way up.
            blind = prove and near == fine and point.gap <= max(tol / 2, self.error[0] ** 2 / 2)
            if not blind and (near == fine or point.gap > max(tol, _SINGLE)):
                way = bfgs(point.slope, pairs, partial(metric.direction, point))
                rise, t = np.vdot(point.slope, way), bound.longest(way)
                # What an exact metric promises tells more than a bound on it.
                left = min(point.gap, rise) if metric.exact else point.gap
                accuracy = far if left > 1 else near
                if left <= tol and (bound.provisional or near != fine):
                    rise = 0.0  # nothing is left to gain here
                # What follows wants one evaluation for the proof, and one before.
                spare = 2 if bound.provisional else int(near != fine)
                while not new and self.remaining > spare and rise > 0 and t > _SHORTEST:
                    ahead = self._look(bound, point.theta + t * way, accuracy)
                    best = max(best, ahead, key=_elbo)
                    # The bound is concave: where it still rises, it has risen all the way, and
                    # beyond its top it is higher for a while. Slopes tell, values may differ in
                    # accuracy.
                    new = ahead if np.vdot(ahead.slope, way) >= -_BEYOND * rise else None
                    t /= 2
                pairs = [] if new is None else pairs
            if new is not None:
                if not metric.exact:
                    pairs = [*pairs, (new.theta - point.theta, point.slope - new.slope)][-_PAIRS:]
                    pairs = [(s, y) for s, y in pairs if np.vdot(s, y) > 0]
                point = new
            elif not (prove and self.remaining) or near <= bound.finest:
                break
            else:  # the gap looks closed, or errors hide the way up: look closer, and measure them
                coarse = best if self.remaining == 1 else point
                fine = fine if near != fine else max(fine / _CLOSER, bound.finest)
                point = best = self._look(bound, coarse.theta, fine, coarse, near)
                far = near = fine
        end = point if self._proven(point.gap) <= tol else best
        return end._replace(gap=np.inf if prove and near != fine else self._proven(end.gap))

    def _proven(self, gap: float) -> float:
        """Gap with the averages' errors in it, :eq:`eq-gap-with-errors`."""
        of_slope, of_value = self.error
        return float((np.sqrt(2 * gap) + of_slope) ** 2 / 2 + of_value)

    def _look(
        self, bound: Bound, theta: np.ndarray, accuracy: float, coarse: Point | None = None,
        near: float = 1.0,
    ) -> Point:  # fmt: skip
        """Evaluate, with the averages' errors in the gap; measured where `coarse` is known."""
        point = bound.evaluate(theta, accuracy)
        if coarse is not None:
            # Errors fall as the accuracy does, or faster; what is left counts tenfold.
            left = min(1.0, 10 * accuracy / near)
            of_slope, of_value = bound.difference(point, coarse)
            self.error = left * of_slope, left * of_value
        gap = self._proven(point.gap)
        self.remaining -= 1
        self.trace.append(Record(point.elbo, gap))
        if self.callback is not None:
            q = bound.posterior(point).marginals()
            try:
                self.callback(State(len(self.trace), q, point.elbo, gap))
            except StopIteration:  # the proof is still due
                self.remaining, self.callback = min(self.remaining, 1), None
        return point


def _elbo(point: Point) -> float:
    return point.elbo


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
