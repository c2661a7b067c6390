"""Run notebooks and store their text outputs, which nbval compares with; pictures are dropped."""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

KEPT = ("text/plain", "application/papermill.record/text/plain")
IGNORED = "nbval-ignore-output"


def joined(outputs: list) -> list:
    """Join what a cell prints in one go: where the kernel cuts it hangs on the clock."""
    whole = []
    for output in outputs:
        last = whole[-1] if whole else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            whole.append(output)
    return whole


def refresh(path: Path) -> None:
    """Execute one notebook in its folder and write it back with text outputs only."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [] if IGNORED in cell.metadata.get("tags", []) else joined(cell.outputs)
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data = {k: v for k, v in output.data.items() if k in KEPT}
            if "metadata" in output:
                output.metadata = {k: v for k, v in output.metadata.items() if k in ("scrapbook",)}
    nbformat.write(notebook, path)
    print(f"{path}: {len(notebook.cells)} cells")


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for name in sys.argv[1:] or sorted(Path("book").glob("*.ipynb")):
        refresh(Path(name))
