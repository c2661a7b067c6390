"""How near linear response and weighted draws come to the posterior: chapter 8's numbers.

``make response`` measures everything on one thread, writes ``response.json`` and prints its
tables; given names of parts or sets, it measures those anew and keeps the rest. What each number
means is said in ``README.md``.
"""

from __future__ import annotations

import os

# Threads must be set before NumPy loads.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import argparse
import time
import warnings
from pathlib import Path
from statistics import NormalDist

import gaussians
import numpy as np
from gaussians import Freed, laplace, most_probable, seen
from hmc import Run, hmc, log_evidence
from measures import between, central, mass_between, store, stored
from sets import Problem, random_problem, six_sets

import vilogit
from vilogit.draws import WeightedDraws

STORE = Path(__file__).with_name("response.json")
PARTS = ("coverage", "sets", "costs", "random")
PACKAGES = ("numpy", "scipy", "scikit-learn")
LEVELS = (0.5, 0.8, 0.9, 0.95)  # of central intervals
CLASSES = (2, 3, 4, 5, 6)  # of the sets for coverage, in turn
FEW, MANY, SEEDS = 2_000, 20_000, 5  # weighted draws
GAUSSIAN_DRAWS = 4_000  # for the intervals of a Gaussian's probabilities
RUN = {"chains": 100, "draws": 120, "warmup": 40}  # for coverage
LONG_RUN = {"chains": 400, "draws": 400}
LONG_RUN_OF_DIGITS = {"chains": 100, "draws": 200, "warmup": 60}

warnings.filterwarnings("ignore", message=".*(k-hat|effective size)", category=UserWarning)


def main() -> None:
    """Read the command line, measure, write, print."""
    names = [p.name for p in six_sets()]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--sets", nargs="*", choices=names, default=names)
    parser.add_argument("--print", action="store_true", help="only print what is stored")
    options = parser.parse_args()
    if not options.print:
        if "coverage" in options.parts:
            store(STORE, PACKAGES, {"coverage": coverage()})
        for problem in six_sets():
            if problem.name in options.sets and {"sets", "costs"} & set(options.parts):
                new = "sets" in options.parts
                one = one_set(problem) if new else stored(STORE)["sets"][problem.name]
                store(STORE, PACKAGES, {"sets": {problem.name: with_costs(one, costs(problem))}})
        if "random" in options.parts:
            store(STORE, PACKAGES, {"random": random()})
    show(stored(STORE))


def weighed(q: Freed, n: int, seed: int) -> WeightedDraws:
    """Draws of a Gaussian itself, weighed by joint density over q."""
    log_weights = q.log_weights(n, np.random.default_rng(seed))
    W = q.centred_draws(n, np.random.default_rng(seed))  # the same seed, the same draws
    return WeightedDraws.of(W, log_weights)


# --- coverage --------------------------------------------------------------------------------


def coverage(n_sets: int = 400) -> dict:
    """Posterior mass inside central intervals, on sets simulated from the model."""
    sets = []
    for i in range(n_sets):
        rng, D = np.random.default_rng([21, i]), CLASSES[i % len(CLASSES)]
        data = vilogit.simulate(rng, n_classes=D)
        new = np.column_stack([rng.uniform(-5, 5, (10, 2)), np.ones(10)])
        sets.append(one_coverage(data.X, data.y, D, new, i))
        if i % 50 == 49:
            print(i + 1, "sets", flush=True)
            store(STORE, PACKAGES, {"coverage": of_all(sets)})
    return of_all(sets)


def of_all(sets: list) -> dict:
    """Turn what single sets found into means and quantiles over them."""
    masses, runs = zip(*sets, strict=True)
    r_hat, ess = np.transpose(runs)
    return {
        "n_sets": len(sets),
        "long_run": RUN | {"max_r_hat": r_hat.max(), "min_ess": ess.min()},
        "methods": {
            method: {kind: in_short(np.array([m[method][kind] for m in masses])) for kind in kinds}
            for method, kinds in masses[0].items()
        },
    }


def in_short(mass: np.ndarray) -> dict:
    """Mean, standard error and lowest twentieth over sets, and mean by number of classes."""

    def by_level(values: np.ndarray) -> dict:
        return {str(level): value for level, value in zip(LEVELS, values, strict=True)}

    return {
        "mean": by_level(mass.mean(axis=0)),
        "se": by_level(mass.std(axis=0, ddof=1) / np.sqrt(len(mass))),
        "worst_twentieth": by_level(np.quantile(mass, 0.05, axis=0)),
        "by_classes": {
            str(D): by_level(mass[k :: len(CLASSES)].mean(axis=0)) for k, D in enumerate(CLASSES)
        },
    }


def one_coverage(X: np.ndarray, y: np.ndarray, D: int, new: np.ndarray, seed: int):
    """Mass in the intervals of each method, as {method: {kind: (levels,)}}; r-hat and ESS."""
    rng = np.random.default_rng([22, seed])
    contrasts = {"contrasts": np.diff(np.eye(D)), "centred weights": np.eye(D) - 1 / D}
    q = vilogit.fit(X, y, n_classes=D, family="aligned")
    response = q.response(X)
    written_out = gaussians.freed(X, y, q)
    tilted = gaussians.responding(written_out, response)
    run = hmc(tilted, seed=seed, **RUN)

    def values(W: np.ndarray) -> dict:
        return {kind: W @ C for kind, C in contrasts.items()} | {
            "probabilities": vilogit.softmax(new @ W)
        }

    def intervals(W: np.ndarray, weight: np.ndarray | None = None) -> dict:
        return {kind: central(of_kind, LEVELS, weight) for kind, of_kind in values(W).items()}

    def weighted(draws: WeightedDraws) -> dict:
        of_contrasts = {kind: by_levels(draws.interval, C) for kind, C in contrasts.items()}
        return intervals(draws.W, draws.weight) | of_contrasts

    def gaussian(q) -> dict:
        of_contrasts = {kind: normal_ends(*q.contrast_moments(C)) for kind, C in contrasts.items()}
        return intervals(q.centred_draws(GAUSSIAN_DRAWS, rng)) | of_contrasts

    ends = {
        "Laplace": gaussian(laplace(seen(X, y, D), scored=False)),
        "plain": gaussian(gaussians.plain(X, y, D)),
        "aligned": gaussian(written_out),
        "full rank": gaussian(gaussians.full_rank(seen(X, y, D), scored=False)),
        "Newton step": gaussian(gaussians.newton_step(written_out)),
        "linear response": gaussian(tilted)
        | {kind: by_levels(response.interval, C) for kind, C in contrasts.items()},
        "weighted draws of q": weighted(weighed(written_out, FEW, seed)),
        "weighted draws": weighted(q.exact(X, y, FEW, rng)),
    }
    W = run.centred_weights().reshape(-1, X.shape[1], D)
    truth = values(W)
    mass = {
        method: {kind: mass_between(truth[kind], *of_kind[kind]) for kind in truth}
        for method, of_kind in ends.items()
    }
    # One half of the chains in the intervals of the other.
    one, other = np.split(W, 2)
    half, rest = intervals(one), values(other)
    mass["long run"] = {kind: mass_between(rest[kind], *half[kind]) for kind in rest}
    centred, probs = run.centred(), run.probs(new @ written_out.problem.axes)
    quality = max(centred.r_hat.max(), probs.r_hat.max()), min(centred.ess.min(), probs.ess.min())
    return mass, quality


def by_levels(interval, C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ends of the intervals of one method at all levels, each (levels, ...)."""
    low, high = zip(*(interval(level, C) for level in LEVELS), strict=True)
    return np.array(low), np.array(high)


def normal_ends(mean: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ends of a normal's central intervals at all levels, each (levels, ...)."""
    reach = np.multiply.outer([NormalDist().inv_cdf((1 + level) / 2) for level in LEVELS], scale)
    return mean - reach, mean + reach


# --- six data sets ---------------------------------------------------------------------------


def one_set(problem: Problem) -> dict:
    """Compare every method with a long run on one data set."""
    X, y, D = problem.X, problem.y, problem.D
    everywhere, C = np.concatenate([X, between(X)]), np.eye(D) - 1 / D
    large = problem.name == "digits"
    q = vilogit.fit(X, y, n_classes=D, family="aligned")
    response = q.response(X)
    written_out = gaussians.freed(X, y, q)
    where = written_out.problem
    tilted = gaussians.responding(written_out, response)
    start = time.process_time()
    run = hmc(tilted, seed=31, **(LONG_RUN_OF_DIGITS if large else LONG_RUN))
    seconds = time.process_time() - start
    truth = Truth(run, everywhere, len(X))
    found = {"N": len(X), "M": X.shape[1], "D": D, "elbo": q.elbo, "methods": {}}
    found["long_run"] = truth.quality(run) | {"seconds": seconds}
    if not large:
        value, error = log_evidence(run, 32)
        found |= {"log_evidence": value, "log_evidence_error": error}
    print(problem.name, found, flush=True)

    def add(name: str, *errors: dict) -> None:
        found["methods"][name] = together(errors)
        print("  ", name, found["methods"][name], flush=True)

    top = where.axes @ most_probable(where) @ where.basis.T
    add("MAP", truth.errors((top, None), vilogit.softmax(everywhere @ top)))
    for name, gaussian in {
        "Laplace": laplace(where, scored=False),
        "plain": gaussians.plain(X, y, D),
        "aligned": written_out,
        "full rank": gaussians.full_rank(where, scored=False),
        "Newton step": gaussians.newton_step(written_out),
        "linear response": tilted,
    }.items():
        # Quadrature where it can be had; from four classes on, the others take Sobol points.
        if gaussian is written_out:
            probs = q.predict_proba(everywhere)
        else:
            probs = gaussian.probs(everywhere @ gaussian.problem.axes)
        add(name, truth.errors(gaussian.contrast_moments(C), probs))
    for name, n, draw in weighted_methods(problem, q, written_out):
        each = []
        for seed in range(1 if large and n == MANY else SEEDS):
            draws = draw(seed)
            off = truth.errors((draws.mean, draws.scale), draws.predict_proba(everywhere))
            each.append(off | {key: getattr(draws, key) for key in BY_SEED})
        add(name, *each)
    return found


def weighted_methods(problem: Problem, q, written_out: Freed) -> list:
    """Return name, number of draws and how to draw, given a seed."""
    X, y = problem.X, problem.y

    def of_response(n: int):
        return lambda seed: q.exact(X, y, n, np.random.default_rng(seed))

    return [
        (f"weighted draws of q, {FEW}", FEW, lambda seed: weighed(written_out, FEW, seed)),
        (f"weighted draws, {FEW}", FEW, of_response(FEW)),
        (f"weighted draws, {MANY}", MANY, of_response(MANY)),
    ]


def costs(problem: Problem) -> dict:
    """Processor time and evaluations of every method over those of the aligned fit."""
    X, y, D = problem.X, problem.y, problem.D

    def fit(family: str = "aligned"):
        return vilogit.fit(X, y, n_classes=D, family=family)

    q, where = fit(), seen(X, y, D)
    written_out = gaussians.freed(X, y, q)
    plain, full = fit("mean-field"), gaussians.full_rank(where, scored=False)
    methods = {
        "aligned": (fit, len(q.trace)),
        "plain": (lambda: fit("mean-field"), len(plain.trace)),
        "MAP": (lambda: most_probable(where), None),
        "Laplace": (lambda: laplace(where, scored=False), None),
        "full rank": (lambda: gaussians.full_rank(where, scored=False), full.evaluations),
        "Newton step": (lambda: gaussians.newton_step(written_out), 1),
        "linear response": (lambda: q.response(X), 1),
    }
    for name, n, draw in weighted_methods(problem, q, written_out):
        methods[name] = (lambda draw=draw: draw(0)), n
    seconds = quickest({name: make for name, (make, _) in methods.items()})
    found = {
        name: {
            "seconds_ratio": seconds[name] / seconds["aligned"],
            "evaluations": evaluations,
            "evaluations_ratio": evaluations and evaluations / len(q.trace),
        }
        for name, (_, evaluations) in methods.items()
    }
    return found | {"seconds": seconds["aligned"]}


def quickest(makers: dict, repeats: int = 9, enough: float = 2.0) -> dict:
    """Return the least processor time of each, in turns; what takes long is not repeated."""
    least = dict.fromkeys(makers, np.inf)
    spent = dict.fromkeys(makers, 0.0)
    for _ in range(repeats):
        for name, make in makers.items():
            if spent[name] < enough:
                start = time.process_time()
                make()
                seconds = time.process_time() - start
                spent[name] += seconds
                least[name] = min(least[name], seconds)
    return least


def with_costs(one: dict, cost: dict) -> dict:
    """Add costs to what is known of a set."""
    seconds = cost.pop("seconds")
    one["fit_seconds"] = seconds
    one["long_run"]["seconds_ratio"] = one["long_run"]["seconds"] / seconds
    for name, of_method in cost.items():
        one["methods"][name] |= of_method
    return one


BY_SEED = ("khat", "ess", "log_evidence", "log_evidence_error")


def together(errors: tuple[dict, ...]) -> dict:
    """Average over seeds; what says how far draws can be trusted, one by one."""
    found = {}
    for key in errors[0]:
        values = [one[key] for one in errors]
        found[key] = values if key in BY_SEED else None if None in values else np.mean(values)
        if key.startswith("predictive") and len(values) > 1:
            found[f"{key}_worst_seed"] = max(values)
    return found


class Truth:
    """What a long run says of weights and predictions.

    Parameters
    ----------
    run : Run
        The draws.
    X : ndarray, shape (L, M)
        Inputs to predict.
    n_train : int
        How many of them, the first, trained.
    """

    def __init__(self, run: Run, X: np.ndarray, n_train: int):
        self.with_data = run.with_data
        self.centred = run.centred()
        self.probs = run.probs(X @ run.problem.axes)
        self.n_train = n_train

    def quality(self, run: Run) -> dict:
        """Say how exact the run is."""
        mcse = np.sqrt(self.probs.var / self.probs.ess)
        return {
            "chains": run.V.shape[0],
            "draws": run.V.shape[0] * run.V.shape[1],
            "gradients": run.gradients,
            "max_r_hat": max(self.centred.r_hat.max(), self.probs.r_hat.max()),
            "min_ess": min(self.centred.ess.min(), self.probs.ess.min()),
            "max_mcse_probability": mcse.max(),
            "mean_mcse_probability": mcse[: self.n_train].mean(),
        }

    def errors(self, moments: tuple[np.ndarray, np.ndarray | None], probs: np.ndarray) -> dict:
        """Errors of centred weights' means and widths, (M, D), and of predictions, (L, D)."""
        mean, scale = moments
        true_scale = np.sqrt(self.centred.var)
        ratio = None if scale is None else scale[self.with_data] / true_scale
        off, n = np.abs(probs - self.probs.mean), self.n_train
        return {
            "sd_ratio_median": None if ratio is None else float(np.median(ratio)),
            "sd_ratio_min": None if ratio is None else float(ratio.min()),
            "mean_error": np.max(np.abs(mean[self.with_data] - self.centred.mean) / true_scale),
            "predictive_error_mean": off[:n].mean(),
            "predictive_error_max": off[:n].max(),
            "predictive_error_between": off[n:].mean(),
        }


# --- many problems ---------------------------------------------------------------------------


def random(n: int = 200) -> dict:
    """k-hat and effective size of weighted draws on random problems, with correlated inputs."""
    rng, found = np.random.default_rng(33), []
    for i in range(n):
        X, y, D = random_problem(rng)
        q = vilogit.fit(X, y, n_classes=D, family="aligned")
        draws = q.exact(X, y, FEW, np.random.default_rng(i))
        found.append((draws.khat, draws.ess, q.location.shape[0] * (D - 1)))
    khat, ess, dimension = np.transpose(found)
    return {
        "n": n,
        "draws": FEW,
        "dimension": [int(dimension.min()), int(dimension.max())],
        "khat": {"max": khat.max(), "q95": np.quantile(khat, 0.95), "median": np.median(khat)},
        "ess": {"min": ess.min(), "q05": np.quantile(ess, 0.05), "median": np.median(ess)},
        "share_khat_above_0.7": float(np.mean(khat > 0.7)),
    }


# --- tables ----------------------------------------------------------------------------------

COLUMNS = {
    "sd_ratio_median": ("sd ratio", "{:.3f}"),
    "sd_ratio_min": ("least", "{:.3f}"),
    "mean_error": ("mean off", "{:.3f}"),
    "predictive_error_mean": ("p off", "{:.5f}"),
    "predictive_error_max": ("worst", "{:.4f}"),
    "predictive_error_between": ("between", "{:.5f}"),
    "seconds_ratio": ("seconds", "{:.2f}"),
    "evaluations_ratio": ("evals", "{:.2f}"),
}


ORDER = (
    "MAP", "Laplace", "plain", "aligned", "full rank", "Newton step", "linear response",
    "weighted draws of q", f"weighted draws of q, {FEW}", "weighted draws",
    f"weighted draws, {FEW}", f"weighted draws, {MANY}", "long run",
)  # fmt: skip


def show(found: dict) -> None:
    """Print what is stored."""
    if "coverage" in found:
        one = found["coverage"]
        print(f"mass inside intervals, {one['n_sets']} sets; long runs {one['long_run']}")
        for kind in ("contrasts", "centred weights", "probabilities"):
            print(f"\n{kind:22}" + "".join(f"{level:>18}" for level in LEVELS))
            for method in filter(one["methods"].get, ORDER):
                row = one["methods"][method]
                cells = [
                    "{:.3f}±{:.3f} {:.3f}".format(
                        *(row[kind][key][str(level)] for key in ("mean", "se", "worst_twentieth"))
                    )
                    for level in LEVELS
                ]
                print(f"{method:22}" + "".join(f"{cell:>18}" for cell in cells))
    for name, one in found["sets"].items():
        print(f"\n{name}: N={one['N']}, M={one['M']}, D={one['D']}; long run {one['long_run']}")
        print(f"log evidence {one.get('log_evidence')} ± {one.get('log_evidence_error')}")
        print(f"{'':28}" + "".join(f"{head:>10}" for head, _ in COLUMNS.values()))
        for method in filter(one["methods"].get, ORDER):
            row = one["methods"][method]
            cells = [
                "-" if row[key] is None else shape.format(row[key])
                for key, (_, shape) in COLUMNS.items()
            ]
            print(f"{method:28}" + "".join(f"{cell:>10}" for cell in cells))
            if "khat" in row:
                print(f"{'':4}" + "; ".join(f"{key} {row[key]}" for key in BY_SEED))
    if "random" in found:
        print("\nrandom problems:", found["random"])


if __name__ == "__main__":
    main()
