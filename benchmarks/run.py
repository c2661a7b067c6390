"""Time `vilogit.fit` against its peers, and against its own matrix products as N grows.

``python run.py`` writes ``results.json``; ``--quick`` tries everything out in a minute or two
and writes ``results.quick.json``; ``--tune`` first searches the peers' settings anew and writes
``tuned.json``. What each number means is said in ``README.md``.
"""

# ruff: noqa: E402  (threads must be set before NumPy, JAX and torch load)
from __future__ import annotations

import os

os.environ |= {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "NPROC": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}

import argparse
import datetime
import importlib.metadata
import json
import logging
import platform
import time
import warnings
from pathlib import Path

import numpy as np

warnings.filterwarnings("ignore")  # the peers' own, about their future versions

from peers import PEERS
from race import TARGETS, first_arrival, seconds_of, tune
from scale import QUICK_SIZES, SIZES, measure, scikit_learn
from sets import PRIOR_PRECISION, ExactElbo, Problem, six_sets

import vilogit

HERE = Path(__file__).parent
TUNED = HERE / "tuned.json"
TOLERANCES = (1e-3, *reversed(TARGETS))  # the default first: it is what peers are compared with
PACKAGES = ("numpy", "jax", "numpyro", "pymc", "pytensor", "pyro-ppl", "torch", "scikit-learn")
BUDGET = {"tune": 10.0, "run": 30.0}  # seconds of updates, for one run of one peer
ENOUGH = 10.0  # seconds of one peer on one set after which it is not started again


def main() -> None:
    """Read the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two sets, one repeat, small N")
    parser.add_argument("--tune", action="store_true", help="search the peers' settings anew")
    parser.add_argument("--sets", nargs="*", help="only these sets")
    parser.add_argument("--no-scale", action="store_true", help="leave out the growing N")
    options = parser.parse_args()
    logging.getLogger("pytensor").setLevel(logging.ERROR)

    wanted = options.sets or (["toy", "iris"] if options.quick else None)
    problems = [p for p in six_sets() if wanted is None or p.name in wanted]
    if options.tune:
        tune_all(problems)
    tuned = json.loads(TUNED.read_text())
    start = time.perf_counter()
    for kind in PEERS:  # the first compilation in a process pays for much else
        kind(six_sets()[0]).run(tuned["toy"][kind.name]["settings"], 0, lambda *_: None)
    repeats = 1 if options.quick else 5
    results = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "threads": 1,
        "repeats": repeats,
        "targets": TARGETS,
        "sets": {p.name: compare(p, tuned[p.name], repeats) for p in problems},
    }
    if not options.no_scale:
        results["scale"] = []
        for size in QUICK_SIZES if options.quick else SIZES:
            results["scale"].append(measure(size, min(repeats, 3), summary))
            say_scale(results["scale"][-1])
    results["minutes"] = round((time.perf_counter() - start) / 60, 1)
    partial = options.quick or options.sets or options.no_scale
    output = HERE / ("results.quick.json" if partial else "results.json")
    output.write_text(json.dumps(rounded(results), indent=1) + "\n")
    print(f"wrote {output.name} after {results['minutes']} minutes")


def compare(problem: Problem, tuned: dict, repeats: int) -> dict:
    """Time all solvers on one set, taking turns; score all by the same ELBO.

    Returns
    -------
    dict
        See ``README.md``, "One set".
    """
    exact, optimum, proven = score(problem)
    peers = {kind.name: kind(problem) for kind in PEERS}
    seconds: dict[tuple, list[float]] = {}
    steps: dict[tuple, list[int]] = {}
    closest: dict[str, list[float]] = {name: [] for name in peers}
    spent = dict.fromkeys(peers, 0.0)

    def record(key: tuple, value: float) -> None:
        seconds.setdefault(key, []).append(value)

    fits = {tol: fit(problem, tol) for tol in TOLERANCES}
    scikit_learn(problem.X, problem.y)  # all warm now
    for seed in range(1, repeats + 1):
        for tol in TOLERANCES * 3:
            record(("vilogit", tol), clock(lambda tol=tol: fit(problem, tol)))
        for _ in range(3):
            record(("scikit-learn",), clock(lambda: scikit_learn(problem.X, problem.y)))
        for name, peer in peers.items():
            if spent[name] > ENOUGH:
                continue
            settings = tuned[name]["settings"]
            arrival = first_arrival(peer, settings, seed, exact, optimum, BUDGET["run"])
            closest[name].append(arrival.closest)
            spent[name] += arrival.spent
            # A long run of a loop in Python would take as long again, and show nothing new.
            again = peer.compiled_loop or arrival.spent < ENOUGH / 4
            for target, count in arrival.steps.items():
                took = seconds_of(peer, settings, seed, count) if again else arrival.seconds[target]
                spent[name] += took if again else 0.0
                steps.setdefault((name, target), []).append(count)
                record((name, target), took)

    base = np.median(seconds["vilogit", TOLERANCES[0]])
    row = {
        "N": len(problem.X), "M": problem.X.shape[1], "D": problem.D,
        "optimum": optimum, "optimum_gap": proven,
        "budget_ratio": BUDGET["run"] / base,
        "vilogit": {
            str(tol): {
                "seconds": summary(seconds["vilogit", tol]),
                "evaluations": len(fits[tol].trace),
                "gap": float(fits[tol].gap),
                "distance": optimum - exact(fits[tol].mean, fits[tol].scale),
            }
            for tol in TOLERANCES
        },
        "scikit-learn": {
            "seconds": summary(seconds[("scikit-learn",)]),
            "ratio": np.median(seconds[("scikit-learn",)]) / base,
        },
        "peers": {},
    }  # fmt: skip
    for name, peer in peers.items():
        row["peers"][name] = entry = {
            "settings": tuned[name]["settings"],
            "compile_seconds": peer.compile_seconds,
            "closest": min(closest[name]),
            "targets": {},
        }
        for target in TARGETS:
            times = seconds.get((name, target))
            entry["targets"][str(target)] = times and {
                "steps": float(np.median(steps[name, target])),
                "seconds": summary(times),
                "ratio": np.median(times) / base,
                "ratio_same_target": np.median(times) / np.median(seconds["vilogit", target]),
                "ratio_with_compile": (np.median(times) + peer.compile_seconds) / base,
                "runs": f"{len(times)} of {len(closest[name])}",
            }
    say_set(problem, row)
    return row


def tune_all(problems: list[Problem]) -> None:
    """Search the settings of every peer on every set; keep what was found in ``tuned.json``."""
    tuned = json.loads(TUNED.read_text()) if TUNED.exists() else {}
    for problem in problems:
        exact, optimum, _ = score(problem)
        for kind in PEERS:
            start = time.perf_counter()
            found = tune(kind(problem), exact, optimum, BUDGET["tune"])
            tuned.setdefault(problem.name, {})[kind.name] = found
            TUNED.write_text(json.dumps(rounded(tuned), indent=1) + "\n")
            took = time.perf_counter() - start
            print(f"{problem.name}, {kind.name}: {found} (tuned in {took:.0f} s)", flush=True)


def score(problem: Problem) -> tuple[ExactElbo, float, float]:
    """Return the scorer, the best ELBO by it, and the proven gap of the fit that found it."""
    exact = ExactElbo(problem)
    best = fit(problem, 1e-4)
    optimum = exact(best.mean, best.scale)
    rho = np.log(np.expm1(best.scale))
    theirs = vilogit.elbo(vilogit.MeanField(best.mean, rho), problem.X, exact.Y, PRIOR_PRECISION)
    if abs(theirs - optimum) > 0.01:
        raise RuntimeError(f"{problem.name}: ELBO {optimum} here, {theirs} by vilogit.elbo")
    return exact, optimum, float(best.gap)


def fit(problem: Problem, tol: float) -> vilogit.Posterior:
    """Fit by `vilogit.fit`."""
    return vilogit.fit(
        problem.X, problem.y, prior_precision=PRIOR_PRECISION, n_classes=problem.D, tol=tol
    )


def clock(call: object) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def summary(values: list[float]) -> dict:
    """Return median, least and largest, and their number."""
    return {
        "median": float(np.median(values)), "min": min(values), "max": max(values),
        "n": len(values),
    }  # fmt: skip


def machine() -> dict:
    """Describe the processor and the memory, and nothing that tells one machine from another."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [s.split(":")[1].strip() for s in cpuinfo.read_text().splitlines() if "name" in s]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model, "cores": os.cpu_count(), "memory_gib": round(memory / 2**30),
        "system": platform.system(),
    }  # fmt: skip


def versions() -> dict:
    """Return the versions of Python and of the packages that are compared."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version()} | found


def rounded(value: object) -> object:
    """Return the same structure with numbers cut to four digits, ELBOs to four decimals."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.4g}") if abs(value) < 10 else round(float(value), 4)
    return value


def say_set(problem: Problem, row: dict) -> None:
    """Print one set's ratios."""
    best = row["vilogit"][str(TOLERANCES[0])]
    print(
        f"\n{problem.name} (N = {row['N']}, M = {row['M']}, D = {row['D']}): vilogit.fit "
        f"{best['seconds']['median'] * 1e3:.1f} ms, {best['evaluations']} evaluations, "
        f"{best['distance']:.1e} nats from the optimum; scikit-learn x "
        f"{row['scikit-learn']['ratio']:.2f}"
    )
    for name, entry in row["peers"].items():
        cells = []
        for target, cell in entry["targets"].items():
            missed = f"not in x {row['budget_ratio']:.3g}, {entry['closest']:.3g} off"
            cells.append(
                f"to {target} nats x {cell['ratio']:.3g} (with compilation "
                f"{cell['ratio_with_compile']:.3g}), {cell['steps']:.0f} steps"
                if cell
                else f"to {target} nats: {missed}"
            )
        print(f"  {name:12s} " + "; ".join(cells), flush=True)


def say_scale(row: dict) -> None:
    """Print one size's ratios."""
    print(
        f"N = {row['N']}, M = {row['M']}, D = {row['D']}, {row['dtype']}: {row['evaluations']} "
        f"evaluations, each x {row['evaluation_to_products']:.2f} its products; whole x "
        f"{row['fit_to_scikit_learn']:.2f} scikit-learn; memory x "
        f"{row['memory_to_X']['vilogit']:.2f} X, gap {row['gap']:.1e}",
        flush=True,
    )


if __name__ == "__main__":
    main()
