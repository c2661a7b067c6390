"""What the constants of `vilogit.fit` cost and buy: each is changed alone, and the sets fitted.

``python constants.py`` prints, for every value, evaluations and the averages' work (numbers that
the rules handle, those of single precision counted half) of all fits together against the value in
use, the ELBO that the aligned fits gain, and for the rules' own constants the worst error against
the accuracy asked for. Some minutes; nothing is timed.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from sets import Problem, simulated, six_sets

import vilogit

#: Module, name, place in a tuple or None, and what to try; the value in use comes first.
ALTERNATIVES = (
    ("search", "_PAIRS", None, (6, 3, 12)),
    ("search", "_BEYOND", None, (0.8, 0.5, 0.95)),
    ("search", "_SINGLE", None, (1e-5, 1e-7)),
    ("bound", "_LEAP", None, (2.5, 1.0, 6.0)),
    ("bound", "_CG_STEPS", None, (15, 7, 30)),
    ("bound", "_CG_ERROR", None, (0.1, 0.3, 0.03)),
    ("bound", "_NEWTON_STEPS", None, (8, 4, 16)),
    ("bound", "_NEWTON_RISE", None, (0.5, 0.1, 3.0)),
    ("rows", "_ENOUGH", None, (5000, 1000, 20_000)),
    ("solver", "_FAR", None, (3e-2, 1e-2, 1e-3)),
    ("solver", "_NEAR", None, (1e-3, 3e-3, 1e-4)),
    ("solver", "_REALIGN", None, (1.0, 0.1, 10.0)),
    ("race", "_FREQUENCY", 0, (1.05, 0.9, 1.2)),
    ("race", "_FREQUENCY", 1, (0.275, 0.235, 0.32)),
    ("race", "_HERMITE", 0, (12, 0, 24)),
    ("race", "_HERMITE", 1, (0.25, 0.2, 0.3)),
    ("race", "_HERMITE", 2, (0.45, 0.35, 0.55)),
)


def main() -> None:
    """Try every value of every constant."""
    problems = [p for p in six_sets() if p.name != "digits"]
    problems.append(simulated(20_000, 10, 4, np.float64))
    print(
        f"{'constant':24s}{'value':>8s}{'evaluations':>14s}{'work':>8s}{'ELBO':>10s}{'error':>8s}"
    )
    for module, name, place, values in ALTERNATIVES:
        base = None
        for value in values:
            with changed(module, name, place, value):
                count, done, elbo = fitted(problems)
                base = base or (count, done, elbo)
                error = f"{worst_error():8.2f}" if module == "race" else ""
            print(
                f"{module + '.' + name:24s}{value:8g}{count:8d}{count / base[0]:6.2f}"
                f"{done / base[1]:8.2f}{elbo - base[2]:+10.4f}{error}",
                flush=True,
            )


def fitted(problems: list[Problem]) -> tuple[int, float, float]:
    """Fit all by both families: evaluations, work, and the sum of the aligned ELBOs."""
    count, elbo, work.total = 0, 0.0, 0.0
    for problem in problems:
        for family in ("mean-field", "aligned"):
            posterior = vilogit.fit(problem.X, problem.y, n_classes=problem.D, family=family)
            count += len(posterior.trace)
            elbo += posterior.elbo * (family == "aligned")
    return count, work.total, elbo


def worst_error() -> float:
    """Largest error of averages of three classes and seven, against the accuracy asked for."""
    rng, worst = np.random.default_rng(0), 0.0
    for n_classes in (3, 7):
        width = np.repeat(np.geomspace(0.3, 7.9, 60), 10)[:, None]
        mean = rng.standard_normal((600, n_classes)) * np.maximum(width, 2)
        var = (width * rng.uniform(0, 1, mean.shape)) ** 2
        var[:, 0] = width[:, 0] ** 2
        fine = vilogit.expected_softmax(mean, var, accuracy=1e-9)
        for accuracy in (3e-2, 1e-3, 1e-5, 1e-7):
            rough = vilogit.expected_softmax(mean, var, accuracy=accuracy)
            error = max(np.abs(a - b).max() for a, b in zip(rough, fine, strict=True))
            worst = max(worst, error / accuracy)
    return worst


class Work:
    """Counts the numbers that a rule of averages handles, and lets it work."""

    total = 0.0

    def __init__(self) -> None:
        rules = importlib.import_module("vilogit.averages")
        race = importlib.import_module("vilogit.race")
        everywhere, expansion, difference = race.everywhere, rules._expansion, rules._difference

        def counted_everywhere(above, scale, grid, scratch):
            numbers = above.size * len(grid.nodes) * len(grid.scores)
            self.total += numbers * grid.nodes.itemsize / 8
            return everywhere(above, scale, grid, scratch)

        def counted_expansion(mean, var):
            self.total += 8 * mean.size
            return expansion(mean, var)

        def counted_difference(mean, var, grid):
            self.total += 2 * len(mean) * len(grid.nodes)
            return difference(mean, var, grid)

        race.everywhere, rules._expansion = counted_everywhere, counted_expansion
        rules._difference = counted_difference


@contextmanager
def changed(module: str, name: str, place: int | None, value: float) -> Iterator[None]:
    """Set one constant, and put it back."""
    where = importlib.import_module(f"vilogit.{module}")
    before = getattr(where, name)
    after = value if place is None else (*before[:place], value, *before[place + 1 :])
    importlib.import_module("vilogit.race").make_grid.cache_clear()
    setattr(where, name, after)
    try:
        yield
    finally:
        setattr(where, name, before)
        importlib.import_module("vilogit.race").make_grid.cache_clear()


work = Work()

if __name__ == "__main__":
    warnings.simplefilter("ignore", vilogit.ConvergenceWarning)
    main()
