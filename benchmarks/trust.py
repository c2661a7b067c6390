"""How far the approximations of chapter 6 can be trusted: NUTS, k-hat, coverage.

``python trust.py`` measures everything, writes ``trust.json`` and prints its tables; given names
of parts or sets, it measures those anew and keeps the rest. What each number means is said in
``README.md``.
"""

# ruff: noqa: E402  (threads must be set before NumPy and JAX load)
from __future__ import annotations

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}

import argparse
import time
import warnings
from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
warnings.filterwarnings("ignore", module="arviz|numpyro|jax")

import arviz
import gaussians
from gaussians import laplace, most_probable, seen
from measures import between, store, stored, timed
from reference import nuts
from sets import Problem, random_problem, six_sets

import vilogit

STORE = Path(__file__).with_name("trust.json")
PARTS = ("sets", "many", "coverage", "random")
DRAWS = {"wine": 80_000, "digits": 5_000}  # of NUTS, in four chains
USUAL_DRAWS = 50_000
SEEDS, WEIGHTS = 5, 4_000  # of k-hat
PACKAGES = ("numpy", "scipy", "jax", "numpyro", "arviz", "scikit-learn")
FAMILIES = {
    "plain": gaussians.plain,
    "shift only": gaussians.shift_only,
    "rotation only": gaussians.rotation_only,
    "aligned": gaussians.aligned,
}


def main() -> None:
    """Read the command line, measure, write, print."""
    names = [p.name for p in six_sets()]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--sets", nargs="*", choices=names, default=names)
    parser.add_argument("--print", action="store_true", help="only print what is stored")
    options = parser.parse_args()
    if not options.print:
        for part in options.parts:
            if part == "sets":
                for problem in six_sets():
                    if problem.name in options.sets:
                        store(STORE, PACKAGES, {"sets": {problem.name: one_set(problem)}})
            else:
                store(
                    STORE,
                    PACKAGES,
                    {part: {"many": many, "coverage": coverage, "random": random}[part]()},
                )
    show(stored(STORE))


# --- six data sets ---------------------------------------------------------------------------


def one_set(problem: Problem) -> dict:
    """Compare every method with NUTS on one data set."""
    X, y, D = problem.X, problem.y, problem.D
    where = seen(X, y, D)
    everywhere = np.concatenate([X, between(X)])
    start = time.perf_counter()
    truth = nuts(where, everywhere, DRAWS.get(problem.name, USUAL_DRAWS))
    found = {
        "N": len(X),
        "M": X.shape[1],
        "D": D,
        "nuts": {
            "chains": truth.chains,
            "draws": truth.draws,
            "max_mcse_probability": truth.max_mcse,
            "max_r_hat": truth.max_r_hat,
            "min_ess": truth.min_ess,
            "seconds": time.perf_counter() - start,
        },
        "methods": {"MAP": most_probable_errors(where, everywhere, truth)},
    }
    print(problem.name, found["nuts"], flush=True)
    for name, make in makers(problem).items():
        q, seconds = timed(make)
        khat, log_evidence = importance(q)
        found["methods"][name] = {
            "elbo": q.elbo,
            "evaluations": q.evaluations if name != "Laplace" else None,
            "khat": khat,
            "parameters": q.parameters,
            "seconds": seconds,
            **sd_ratios(q, truth),
            **errors(q.mean, q.probs(everywhere @ q.problem.axes), truth, len(X)),
        }
        if name == "full rank":
            found["methods"][name]["gap"] = q.gap
            found["log_evidence"] = log_evidence
        print("  ", name, found["methods"][name], flush=True)
    return found


def makers(problem: Problem) -> dict:
    """Return how to fit every Gaussian of the comparison."""
    X, y, D = problem.X, problem.y, problem.D
    return {
        **{name: lambda f=f: f(X, y, D) for name, f in FAMILIES.items()},
        "Laplace": lambda: laplace(seen(X, y, D)),
        "full rank": lambda: gaussians.full_rank(seen(X, y, D)),
    }


def most_probable_errors(where, everywhere, truth) -> dict:
    """MAP is a point: it has neither ELBO nor widths."""
    V, seconds = timed(lambda: most_probable(where))
    V = V @ where.basis.T
    empty = dict.fromkeys(
        ("elbo", "evaluations", "sd_ratio_median", "sd_ratio_min", "sd_ratio_max",
         "centred_sd_ratio_median", "centred_sd_ratio_min", "centred_sd_ratio_max")
    )  # fmt: skip
    found = errors(
        where.axes @ V, vilogit.softmax(everywhere @ where.axes @ V), truth, len(where.Z)
    )
    M, D = truth.mean.shape
    return {**empty, **found, "khat": [], "parameters": M * D, "seconds": seconds}


def sd_ratios(q, truth) -> dict:
    """Divide standard deviations, of raw and of row-centred weights, by those of NUTS."""
    found = {}
    for name, ratio in (
        ("sd_ratio", q.scale() / truth.scale),
        ("centred_sd_ratio", q.scale(centred=True) / truth.centred_scale),
    ):
        found[f"{name}_median"] = float(np.median(ratio))
        found[f"{name}_min"], found[f"{name}_max"] = float(ratio.min()), float(ratio.max())
    return found


def errors(mean: np.ndarray, probs: np.ndarray, truth, n: int) -> dict:
    """Errors of means in standard deviations of NUTS, and of predictions; `n` inputs train."""
    off = np.abs(probs - truth.probs)
    return {
        "mean_error": float(np.max(np.abs(mean - truth.mean) / truth.scale)),
        "predictive_error_mean": float(off[:n].mean()),
        "predictive_error_max": float(off[:n].max()),
        "predictive_error_between": float(off[n:].mean()),
    }


def importance(q) -> tuple[list[float], float | None]:
    """PSIS k-hat, one per seed, and the log evidence where all weights together allow it."""
    draws = [q.log_weights(WEIGHTS, np.random.default_rng(seed)) for seed in range(SEEDS)]
    together = np.concatenate(draws)
    # The average log weight is the ELBO: a check of both by other means.
    error = together.std() / np.sqrt(len(together))
    if abs(together.mean() - q.elbo) > 5 * error + 0.02:
        raise RuntimeError(f"ELBO {q.elbo:.3f}, but its draws average {together.mean():.3f}")
    reliable = arviz.psislw(together)[1] < 0.7
    top = together.max()
    log_evidence = float(top + np.log(np.mean(np.exp(together - top)))) if reliable else None
    return [float(arviz.psislw(one)[1]) for one in draws], log_evidence


# --- many problems ---------------------------------------------------------------------------


def many(n: int = 24) -> dict:
    """Repeat the comparison on simulated problems of varied size."""
    rng, problems = np.random.default_rng(11), []
    for seed in range(n):
        problems.append(one_of_many(*random_problem(rng, 400), seed))
        store(STORE, PACKAGES, {"many": {"problems": problems}})
        print(len(problems), problems[-1], flush=True)
    return {"problems": problems}


def one_of_many(X: np.ndarray, y: np.ndarray, D: int, seed: int) -> dict:
    """Compare plain and aligned with NUTS on one problem."""
    everywhere = np.concatenate([X, between(X)])
    truth = nuts(seen(X, y, D), everywhere, 12_000, seed=seed)
    jax.clear_caches()
    found = {"N": len(X), "M": X.shape[1], "D": D}
    found |= {"max_r_hat": truth.max_r_hat, "max_mcse_probability": truth.max_mcse}
    for name in ("plain", "aligned"):
        q = FAMILIES[name](X, y, D)
        found[name] = {
            "elbo": q.elbo,
            **sd_ratios(q, truth),
            **errors(q.mean, q.probs(everywhere @ q.problem.axes), truth, len(X)),
        }
    return found


def random(n: int = 200, tol: float = 1e-3) -> dict:
    """ELBO of aligned less plain, on random problems, with a precision for each feature."""
    rng, gains = np.random.default_rng(12), []
    for _ in range(n):
        X, y, D = random_problem(rng)
        precision = 10 ** rng.uniform(-1, 1, X.shape[1])
        fits = [
            vilogit.fit(X, y, n_classes=D, prior_precision=precision, family=family, tol=tol)
            for family in ("mean-field", "aligned")
        ]
        gains.append(fits[1].elbo - fits[0].elbo)
    return {
        "n": n,
        "tol": tol,
        "worst_gain": min(gains),
        "median_gain": float(np.median(gains)),
        "best_gain": max(gains),
    }


# --- coverage --------------------------------------------------------------------------------


def coverage(n_sets: int = 400, draws: int = 2_000) -> dict:
    """Share of true contrasts and probabilities in central intervals of q.

    True weights come from the prior, so that intervals of the exact posterior would hold their
    nominal share on average, whatever the data. Standard errors are over data sets.
    """
    rng, inside = np.random.default_rng(13), {"plain": [], "aligned": [], "full rank": []}
    for _ in range(n_sets):
        data = vilogit.simulate(rng)
        new = np.column_stack([rng.uniform(-5, 5, (10, 2)), np.ones(10)])
        X, y = data.X, data.y
        for name, W in (
            ("plain", vilogit.fit(X, y, n_classes=3).sample(draws, rng)),
            ("aligned", vilogit.fit(X, y, n_classes=3, family="aligned").sample(draws, rng)),
            ("full rank", gaussians.full_rank(seen(X, y, 3)).centred_draws(draws, rng)),
        ):
            pairs = [(np.diff(w), vilogit.softmax(new @ w)) for w in (W, data.W)]
            inside[name].append(
                [
                    [share_inside(drawn, true, level) for level in (0.5, 0.9)]
                    for drawn, true in zip(*pairs, strict=True)
                ]
            )
    found = {"n_sets": n_sets}
    for name, shares in inside.items():
        mean, error = np.mean(shares, axis=0), np.std(shares, axis=0) / np.sqrt(n_sets)
        found[name] = {
            what: {"0.5": m[0], "0.9": m[1], "se": {"0.5": e[0], "0.9": e[1]}}
            for what, m, e in zip(("contrasts", "probabilities"), mean, error, strict=True)
        }
    return found


def share_inside(draws: np.ndarray, true: np.ndarray, level: float) -> float:
    """Share of the true values inside the central interval of the draws."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return float(np.mean((low <= true) & (true <= high)))


# --- tables ----------------------------------------------------------------------------------

COLUMNS = {
    "elbo": ("ELBO", "{:.3f}"),
    "sd_ratio_median": ("sd/NUTS", "{:.3f}"),
    "sd_ratio_min": ("least", "{:.3f}"),
    "sd_ratio_max": ("most", "{:.3f}"),
    "centred_sd_ratio_median": ("centred", "{:.3f}"),
    "mean_error": ("mean off", "{:.3f}"),
    "predictive_error_mean": ("p off", "{:.4f}"),
    "predictive_error_max": ("worst", "{:.4f}"),
    "predictive_error_between": ("between", "{:.4f}"),
    "parameters": ("numbers", "{}"),
    "seconds": ("seconds", "{:.3f}"),
}
METHODS = ("MAP", "Laplace", "plain", "shift only", "rotation only", "aligned", "full rank")


def show(found: dict) -> None:
    """Print what is stored."""
    for name, one in found["sets"].items():
        run = one["nuts"]
        print(
            f"\n{name}: N={one['N']}, M={one['M']}, D={one['D']}; NUTS {run['draws']} draws, "
            f"r-hat {run['max_r_hat']}, ESS {run['min_ess']:.0f}, "
            f"error of a probability {run['max_mcse_probability']}; "
            f"log evidence {one['log_evidence']}"
        )
        print(f"{'':14}" + "".join(f"{head:>10}" for head, _ in COLUMNS.values()) + "   k-hat")
        for method in METHODS:
            row = one["methods"][method]
            cells = [
                "-" if row[key] is None else shape.format(row[key])
                for key, (_, shape) in COLUMNS.items()
            ]
            khat = f"{min(row['khat']):.2f}..{max(row['khat']):.2f}" if row["khat"] else "-"
            print(f"{method:14}" + "".join(f"{cell:>10}" for cell in cells) + f"   {khat}")
    if "many" in found:
        print("\nmany problems: median (worst) over", len(found["many"]["problems"]))
        for name in ("plain", "aligned"):
            rows = [p[name] for p in found["many"]["problems"]]
            sd = [r["sd_ratio_median"] for r in rows]
            least = [r["sd_ratio_min"] for r in rows]
            off = [r["predictive_error_mean"] for r in rows]
            print(
                f"{name:14} median sd ratio {np.median(sd):.3f} ({min(sd):.3f}..{max(sd):.3f}), "
                f"least {min(least):.3f}, p off {np.median(off):.4f} ({max(off):.4f})"
            )
    if "coverage" in found:
        print("\ncoverage of 50 and 90 % intervals,", found["coverage"]["n_sets"], "sets")
        for name in ("plain", "aligned", "full rank"):
            for what, one in found["coverage"][name].items():
                shares = ", ".join(f"{one[k]:.3f} ± {one['se'][k]:.3f}" for k in ("0.5", "0.9"))
                print(f"{name:14}{what:14}{shares}")
    if "random" in found:
        print("\naligned less plain:", found["random"])


if __name__ == "__main__":
    main()
