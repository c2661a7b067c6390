"""Find when a peer first comes near the optimum, and time how long it takes to get there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from peers import Moments, Peer
from sets import ExactElbo

#: Distances to the best ELBO, in nats, that are timed.
TARGETS = (1.0, 0.1)


@dataclass
class Arrival:
    """The first states of one run that an oracle would have stopped at.

    Attributes
    ----------
    steps, seconds : dict
        Updates made and time taken (scoring excluded) until each target was met.
    closest : float
        Smallest distance to the optimum that was seen, in nats.
    spent : float
        Time that all updates took, in seconds.
    """

    steps: dict[float, int] = field(default_factory=dict)
    seconds: dict[float, float] = field(default_factory=dict)
    closest: float = float("inf")
    spent: float = 0.0

    @property
    def arrived(self) -> bool:
        """Whether the last target was met."""
        return TARGETS[-1] in self.steps


def first_arrival(
    peer: Peer, settings: dict, seed: int, exact: ExactElbo, optimum: float, budget: float
) -> Arrival:
    """Run a peer until it meets the last target, or has spent its budget.

    The exact ELBO is computed at growing intervals: 3% of the updates made so far when the
    optimum is near, more when it is far.

    Parameters
    ----------
    peer : Peer
        Solver of one problem.
    settings, seed
        As `Peer.run`.
    exact : ExactElbo
        Scores a state.
    optimum : float
        The best ELBO, nats.
    budget : float
        Seconds that updates may take in all.
    """
    arrival = Arrival()
    limit = settings.get("steps") or 4 * settings["horizon"]
    mark = 0.0

    def look(step: int, moments: Callable[[], Moments]) -> int | None:
        nonlocal mark
        arrival.spent += time.perf_counter() - mark if step else 0.0
        gap = optimum - exact(*moments())
        arrival.closest = min(arrival.closest, gap)
        for target in TARGETS:
            if gap <= target and target not in arrival.steps:
                arrival.steps[target], arrival.seconds[target] = step, arrival.spent
        if arrival.arrived or step >= limit or arrival.spent >= budget:
            return None
        growth = 0.03 if gap < 3 else 0.1 if gap < 20 else 0.25
        more = max(2, int(growth * step))
        if step:
            more = min(more, max(1, int((budget - arrival.spent) / (arrival.spent / step))))
        mark = time.perf_counter()
        return min(step + more, limit)

    peer.run(settings, seed, look)
    return arrival


def seconds_of(peer: Peer, settings: dict, seed: int, steps: int) -> float:
    """Time one run of exactly so many updates; neither building nor starting counts."""
    start = end = 0.0

    def look(step: int, moments: Callable[[], Moments]) -> int | None:
        nonlocal start, end
        if step == 0:
            start = time.perf_counter()
            return steps
        end = time.perf_counter()
        return None

    peer.run(settings, seed, look)
    return end - start


def tune(peer: Peer, exact: ExactElbo, optimum: float, budget: float) -> dict:
    """Find the settings that bring a peer soonest to the last target.

    Four seeds must arrive, and their median counts. Where nothing arrives, the settings
    that come closest are kept.

    Returns
    -------
    dict
        ``settings``; ``arrived``; ``seconds`` to the last target, or None; ``closest``, nats.
    """
    best: dict = {"settings": None, "arrived": False, "seconds": None, "closest": float("inf")}

    def attempt(settings: dict) -> None:
        times, closest = [], 0.0
        for seed in range(100, 104):
            allowed = min(budget, 0.05 + 3 * best["seconds"]) if best["arrived"] else budget
            arrival = first_arrival(peer, settings, seed, exact, optimum, allowed)
            closest = max(closest, arrival.closest)
            if not arrival.arrived:
                break
            steps, seconds = arrival.steps[TARGETS[-1]], arrival.seconds[TARGETS[-1]]
            if peer.compiled_loop:
                seconds = min(seconds_of(peer, settings, seed, steps) for _ in range(2))
            times.append(seconds)
            if best["arrived"] and times[0] > 2 * best["seconds"]:
                return
        if arrival.arrived:
            typical = float(np.median(times))
            if not best["arrived"] or typical < best["seconds"]:
                best.update(settings=settings, arrived=True, seconds=typical, closest=closest)
        elif not best["arrived"] and closest < best["closest"]:
            best.update(settings=settings, closest=closest)

    for settings in peer.grid():
        attempt(settings)
    for change in peer.variations():
        attempt(best["settings"] | change)
    return best
