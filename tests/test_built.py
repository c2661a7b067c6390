"""What the build printed, on this processor, is what the notebooks store."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
EXECUTED = ROOT / "_build" / "jupyter_execute" / "book"


def printed(path):
    """Yield each code cell's number and what it printed, on each stream and as results."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for number, cell in enumerate(cells):
        found = {}
        if "nbval-ignore-output" in cell["metadata"].get("tags", []):
            continue
        for output in cell.get("outputs", []):
            if "data" in output:
                found.setdefault("results", []).append("".join(output["data"]["text/plain"]))
            else:  # the build joins a stream's parts in the first, and leaves the others behind
                found.setdefault(output["name"], "".join(output["text"]).rstrip())
        yield number, found


def different(stored, executed):
    """Say where a chapter printed something else, one line a cell."""
    pairs = zip(printed(stored), printed(executed), strict=True)
    return [
        f"{stored.name}, cell {number}: stored {ours}, printed {theirs}"
        for (number, ours), (_, theirs) in pairs
        if ours != theirs
    ]


@pytest.mark.skipif(not EXECUTED.exists(), reason="no site: run 'make book' first")
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_the_build_printed_what_is_stored(path):
    assert different(path, EXECUTED / path.name) == []


def test_one_digit_is_seen(tmp_path):
    def notebook(name, *texts, tags=()):
        outputs = [{"output_type": "stream", "name": "stdout", "text": text} for text in texts]
        cell = {"cell_type": "code", "metadata": {"tags": [*tags]}, "outputs": outputs}
        path = tmp_path / name
        path.write_text(json.dumps({"cells": [cell]}))
        return path

    stored = notebook("chapter.ipynb", ["0.25\n", "0.5\n"])
    assert different(stored, notebook("same", "0.25\n0.5\n", "0.5\n")) == []
    (wrong,) = different(stored, notebook("other", "0.24\n0.5\n"))
    assert wrong.startswith("chapter.ipynb, cell 0: stored {'stdout': '0.25") and "0.24" in wrong
