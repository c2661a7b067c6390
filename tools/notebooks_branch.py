"""Lay out the branch that Colab and Binder open: resolved notebooks, and what they need to run."""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: What Binder installs, the module, and the stored results that chapters read.
CARRIED = (".binder/*", "requirements.txt", "pyproject.toml", "LICENSE", "vilogit/*.*",
           "benchmarks/*.json")  # fmt: skip
README = """\
# Notebooks of the book

Each chapter of *Variational logistic regression* as a notebook that opens anywhere: its formulas,
numbers and links are those of the book, its first cell installs the module where it is missing, and
its pictures are those of the last build.

Every build of the main branch, where the sources are, writes this branch anew: a change made here
is lost.

{chapters}
"""


def lay_out(site: Path, target: Path) -> None:
    """Write the branch's files into an empty folder, from a built site and this repository."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(site / "_sources" / "book", target / "book",
                    ignore=shutil.ignore_patterns("*.md"))  # fmt: skip
    for file in (file for pattern in CARRIED for file in ROOT.glob(pattern)):
        copy = target / file.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(file, copy)
    names = sorted(path.name for path in (target / "book").iterdir())
    chapters = "\n".join(f"- [{name}](book/{name})" for name in names)
    (target / "README.md").write_text(README.format(chapters=chapters), encoding="utf-8")


if __name__ == "__main__":
    built = ROOT / "_build"
    lay_out(Path(sys.argv[1]) if len(sys.argv) > 1 else built / "html", built / "notebooks")
