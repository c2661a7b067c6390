"""Unit tests and notebooks with every Python that is here, newest packages, oldest packages.

``make matrix`` makes an environment for each, runs, and prints a table. A Python that is missing
costs one line. Arguments choose rows by their names, such as ``3.13``, ``newest`` or ``oldest``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import anywhere

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
FOLDER = Path(".venv", "matrix")
EXTRAS = ".[plot,sklearn,arviz,test]"
#: What each kind of row installs. "oldest" takes the lower bounds that are written down here, and
#: what the packages themselves ask for below them.
KINDS = {
    "locked": ["--require-hashes", "-r", "requirements.lock"],
    "newest": ["--upgrade", "-r", "requirements.txt", EXTRAS],
    "oldest": ["--resolution", "lowest-direct", "-r", "requirements.txt", EXTRAS],
}
ROWS = [*(("locked", python) for python in PYTHONS), ("newest", "3.13"), ("oldest", "3.11")]


def uv(*arguments: str) -> None:
    """Run the resolver; what it says is shown where it fails."""
    done = subprocess.run([sys.executable, "-m", "uv", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"uv {' '.join(arguments)}\n{done.stderr}")


def environment(kind: str, found: str, folder: Path) -> Path:
    """Make an environment anew; returns its Python."""
    uv("venv", "--clear", "--python", found, str(folder))
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    uv("pip", "install", "--python", str(python), *KINDS[kind])
    uv("pip", "install", "--python", str(python), "--no-deps", "-e", ".")
    return python


def runnable(name: str) -> str | None:
    """Return the path of a Python of this version that starts."""
    found = shutil.which(f"python{name}")
    ok = found and subprocess.run([found, "--version"], capture_output=True).returncode == 0
    return found if ok else None


def row(kind: str, version: str, without: list[str]) -> anywhere.Result | str:
    """Make one environment and run in it."""
    found = runnable(version)
    if found is None:
        return "not on this machine"
    python = environment(kind, found, FOLDER / f"{kind}-{version}")
    return anywhere.run(1, {}, without, python)


def main() -> None:
    """Choose the rows, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", nargs="*", default=[], help="tests to leave out")
    parser.add_argument("names", nargs="*", help="rows to run; all by default")
    options = parser.parse_args()
    chosen = [one for one in ROWS if not options.names or {*one} & {*options.names}]
    anywhere.table(
        "packages, Python", ((", ".join(one), row(*one, options.without)) for one in chosen)
    )


if __name__ == "__main__":
    main()
