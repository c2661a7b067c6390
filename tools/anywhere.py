"""The quick tests and the notebooks under every processor's arithmetic that this one can do.

OpenBLAS has kernels for each generation of processors, and NumPy vector code of its own; both
round differently from place to place. ``make anywhere`` runs the tests under each kernel, with one
thread and two, and with NumPy's vector code off, and prints a table. ``--kernelspec`` is for
``make test``: it gives Jupyter a kernel that computes as a foreign processor would.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

#: OpenBLAS's names (``OPENBLAS_CORETYPE``) for what NumPy supports, the older of a family first.
CORES = (
    "Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX", "Cooperlake", "SapphireRapids",
    "ARMV8", "NEOVERSEN1", "NEOVERSEV1", "VORTEX",
)  # fmt: skip
SPEC = "foreign"
PROBE = """
import numpy as np, threadpoolctl
np.ones((300, 300)) @ np.ones((300, 300))
print(*[one["architecture"] for one in threadpoolctl.threadpool_info()
        if one["internal_api"] == "openblas"][:1])
"""
FEATURES = """
from numpy._core import _multiarray_umath as umath
print(*[name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name]])
"""


def forced(core: str) -> dict[str, str]:
    """Return the environment of a kernel; without a size of the cache some builds crash."""
    return {"OPENBLAS_CORETYPE": core, "OPENBLAS_L2_SIZE": "512"}


def answer(code: str, **environment: str) -> str:
    """Return what a fresh Python prints, or nothing where it crashes."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def kernels() -> tuple[str, list[str]]:
    """Return this machine's own kernel, and all that it can run; none where BLAS is another's."""
    return answer(PROBE), [core for core in CORES if answer(PROBE, **forced(core)) == core]


def foreign() -> str:
    """Return the kernel least like this machine's own, or nothing where there is no choice."""
    own, able = kernels()
    if own not in able:
        return able[0] if able else ""
    farthest = max(able, key=lambda core: abs(able.index(core) - able.index(own)))
    return "" if farthest == own else farthest


def write_kernelspec() -> None:
    """Describe to Jupyter, in this environment, a kernel of a foreign processor."""
    core = foreign()
    folder = Path(sys.prefix, "share", "jupyter", "kernels", SPEC)
    folder.mkdir(parents=True, exist_ok=True)
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": f"Python 3 as on {core or 'this processor'}",
        "language": "python",
        "env": forced(core) if core else {},
    }
    (folder / "kernel.json").write_text(json.dumps(spec, indent=1))
    print(f"nbval's kernels compute as on {core or 'this processor: no OpenBLAS here'}")


def processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Result(NamedTuple):
    """What a run of the tests found; prints as a line of a table."""

    tests: list[int]  # passed, failed
    cells: list[int]
    seconds: float
    failures: list[str]

    def __str__(self) -> str:
        (good, bad), (cells, cut) = self.tests, self.cells
        return f"{good:6} {bad:7} {cells:15} {cut:7} {self.seconds:9.0f}"


HEAD = "tests  failed  notebook cells  failed   seconds"


def run(
    threads: int,
    environment: dict[str, str],
    without: list[str],
    python: str | Path = sys.executable,
) -> Result:
    """Run quick tests and notebooks in an environment, as many workers as it leaves cores."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        workers = max(1, (os.cpu_count() or 1) // threads)
        command = [
            str(python), "-m", "pytest", "-q", "-n", str(workers), "--dist", "loadscope",
            "--no-loadscope-reorder", "-p", "no:cacheprovider", f"--junitxml={report}",
            "-m", "not slow", "--nbval", "--nbval-current-env", "tests", "book",
            *(f"--ignore={path}" for path in without),
        ]  # fmt: skip
        environment = {**os.environ, **environment, "OPENBLAS_NUM_THREADS": str(threads)}
        start = time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        seconds = time.monotonic() - start
        if not report.exists():
            sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        cases = list(ElementTree.parse(report).iter("testcase"))
    counts, failures = {False: [0, 0], True: [0, 0]}, []
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = case.find("failure") is not None or case.find("error") is not None
        counts["ipynb" in name][bad] += case.find("skipped") is None
        failures += [name] if bad else []
    return Result(counts[False], counts[True], seconds, failures)


def table(head: str, rows: Iterable[tuple[str, Result | str]]) -> None:
    """Print a line a row, as soon as it is known, then what failed; fail where a test did."""
    print(f"{head:30} {HEAD}")
    bad = []
    for name, result in rows:
        print(f"{name:30} {result}", flush=True)
        bad += [f"{name}: {one}" for one in getattr(result, "failures", [])]
    print(*bad, sep="\n")
    sys.exit(bool(bad))


def main() -> None:
    """Choose the kernels, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernelspec", action="store_true", help="only write the kernel")
    parser.add_argument("--without", nargs="*", default=[], help="tests to leave out")
    parser.add_argument("cores", nargs="*", help="kernels to try, or own; all by default")
    options = parser.parse_args()
    if options.kernelspec:
        return write_kernelspec()
    own, able = kernels()
    if options.cores == ["own"]:
        rows = [(own or "own BLAS", 1, {})]
    else:
        rows = [(core, n, forced(core)) for core in options.cores or able for n in (1, 2)]
    if not options.cores:
        off = {"NPY_DISABLE_CPU_FEATURES": answer(FEATURES)}
        rows.append((f"{own or 'own BLAS'}, NumPy plain", 1, off))
    print(f"{processor()}; own kernel: {own or 'not OpenBLAS'}; can run: {', '.join(able) or '-'}")
    table(
        "kernel, threads",
        (
            (f"{name}, {threads}", run(threads, environment, options.without))
            for name, threads, environment in rows
        ),
    )


if __name__ == "__main__":
    main()
