"""The module's order: every file stands on those above it in CONTRIBUTING's picture."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PICTURE = re.search(
    r"```text\n(?P<house>.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL
)["house"]
ORDER = re.findall(r"\b(\w+)\.py\b", PICTURE)
FILES = sorted((ROOT / "vilogit").glob("*.py"))


def imported(tree):
    """Files of the package that are imported anywhere, in functions and for types alone, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (name.split(".")[0] for name in names)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not any(name.split(".")[0] == "vilogit" for name in names), names


def test_every_file_has_one_place_in_the_picture():
    assert sorted(ORDER) == sorted(path.stem for path in FILES if path.stem != "__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_arrow_goes_up(path):
    above = ORDER if path.stem == "__init__" else ORDER[: ORDER.index(path.stem)]
    assert set(imported(ast.parse(path.read_text(encoding="utf-8")))) <= set(above)


def test_the_guard_sees():
    text = (
        "def f():\n    from . import a\nif TYPE_CHECKING:\n    from .b.c import d\nimport numpy\n"
    )
    assert set(imported(ast.parse(text))) == {"a", "b"}
    with pytest.raises(AssertionError):
        list(imported(ast.parse("from vilogit.a import b")))


def test_a_file_alone_needs_no_more_than_numpy():
    """Matplotlib, scikit-learn and the rest are for the files that say so."""
    free = {"maps", "frames", "estimator", "__init__"}
    known = {"numpy", "__future__"} | set(sys.stdlib_module_names)
    for path in FILES:
        if path.stem in free:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert {name.split(".")[0] for name in names} <= known, path.name
