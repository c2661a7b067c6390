"""Guards on the notebooks: every claim is checked, every output is stored."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
LABEL = re.compile(r"\$\$\s*\(((?:eq|def)-[\w-]+)\)|:label:\s*((?:eq|def)-[\w-]+)")
DISPLAYED = re.compile(r"\$\$.+?\$\$[ \t]*(\([\w-]+\))?", re.DOTALL)
ASSERTION = re.compile(r"^\s*(assert |(np\.testing\.)?assert_\w+\()", re.MULTILINE)


def cells(path, kind):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [
        {**cell, "text": "".join(cell["source"])}
        for cell in notebook["cells"]
        if cell["cell_type"] == kind
    ]


def labels(path):
    text = "\n".join(cell["text"] for cell in cells(path, "markdown"))
    return [first or second for first, second in LABEL.findall(text)]


def faults(path):
    """What is wrong with the claims of a chapter, one line each."""
    named = labels(path)
    found = [f"label {name} is defined twice" for name in set(named) if named.count(name) > 1]
    checked = set()
    for cell in cells(path, "code"):
        first, *rest = cell["text"].split("\n")
        if not first.startswith("# checks:"):
            continue
        names = [name.strip() for name in first.removeprefix("# checks:").split(",")]
        found += [f"check names {name}, which is no claim here" for name in names
                  if name not in named or not name.startswith("eq-")]  # fmt: skip
        if not ASSERTION.search("\n".join(rest)):
            found.append(f"check of {', '.join(names)} asserts nothing")
        checked |= set(names)
    claims = {name for name in named if name.startswith("eq-")}
    return found + [f"claim {name} has no check" for name in sorted(claims - checked)]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_every_claim_is_checked(path):
    assert faults(path) == []
    assert labels(path), "a chapter without a labelled equation"


def test_part_one_checks_forty_claims():
    claims = [name for path in CHAPTERS[:3] for name in labels(path) if name.startswith("eq-")]
    assert len(claims) >= 40


def test_labels_are_unique_in_the_book():
    every = [name for path in CHAPTERS for name in labels(path)]
    assert len(every) == len(set(every))


@pytest.mark.parametrize(
    ("cells", "fault"),
    [
        (["md:$$a = b$$ (eq-a)"], "claim eq-a has no check"),
        (["md:$$a = b$$ (eq-a)", "code:# checks: eq-a\na == b"], "check of eq-a asserts nothing"),
        (
            ["md:$$a = b$$ (eq-a)", "code:# checks: eq-a, eq-b\nassert a == b"],
            "check names eq-b, which is no claim here",
        ),
        (
            ["md:$$a = b$$ (def-a)", "code:# checks: def-a\nassert a == b"],
            "check names def-a, which is no claim here",
        ),
        (["md:$$a$$ (def-a)", "md:$$b$$ (def-a)"], "label def-a is defined twice"),
    ],
)
def test_the_guard_sees(tmp_path, cells, fault):
    notebook = {"cells": []}
    for cell in cells:
        kind, source = cell.split(":", 1)
        cell_type = {"md": "markdown", "code": "code"}[kind]
        notebook["cells"].append({"cell_type": cell_type, "source": source.splitlines(True)})
    path = tmp_path / "chapter.ipynb"
    path.write_text(json.dumps(notebook))
    assert fault in faults(path)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_every_code_cell_was_run_and_stored_as_text_alone(path):
    printed = 0
    for cell in cells(path, "code"):
        assert cell["execution_count"] is not None, "never run: nbval would compare nothing"
        for output in cell["outputs"]:
            printed += 1
            kinds = set(output.get("data", {}))
            assert kinds <= {"text/plain", "application/papermill.record/text/plain"}
    assert printed, "no stored output: nbval would compare nothing"
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_has_what_the_reader_expects(path):
    text = "\n".join(cell["text"] for cell in cells(path, "markdown"))
    exercises = re.findall(r"^`{3,}\{exercise\}.*\n:label: (\S+)", text, re.MULTILINE)
    solutions = re.findall(r"^`{3,}\{solution-start\} (\S+)\n:class: dropdown", text, re.MULTILINE)
    assert len(exercises) >= 3
    assert sorted(exercises) == sorted(solutions)
    assert text.count("{solution-end}") == len(solutions)
    assert "In this chapter" in text and "What to remember" in text and "## References" in text
    code = "\n".join(cell["text"] for cell in cells(path, "code"))
    assert "flipbook(" in code and "interact(" in code
    # An exercise's solution is executed: code stands between its start and its end.
    open_solution, executed = None, set()
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and open_solution and ASSERTION.search(source):
            executed.add(open_solution)
        for start, end in re.findall(r"\{solution-start\} (\S+)|(\{solution-end\})", source):
            open_solution = None if end else start
    assert executed == set(solutions)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_no_picture_goes_through_the_output_of_interact(path):
    """There nbclient answers the kernel on the socket that it waits at, and may wait for ever."""
    for cell in cells(path, "code"):
        if "interact(" in cell["text"]:
            assert "frame.value = vilogit.picture(" in cell["text"]
            assert "plt.show()" not in cell["text"] and "print(" not in cell["text"]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_every_figure_has_a_text(path):
    for cell in cells(path, "code"):
        if "plt.show()" in cell["text"] and "remove-cell" not in cell["metadata"].get("tags", []):
            alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) > 20, cell["text"][:80]


#: Control sequences of LaTeX that MathJax and KaTeX know by themselves: a macro of our own would be
#: red in every notebook program. Add what both document.
STANDARD = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma "
    "tau varphi chi omega phi varsigma Gamma Delta Lambda Sigma Phi ell nabla partial infty "
    "mathbb mathbf mathcal mathrm boldsymbol text "
    "bar hat widehat tilde dot frac tfrac sqrt underbrace sum prod int lim max min arg det Pr exp "
    "ln sinh approx sim propto le ge ne in mid star pm mp cdot odot otimes times to "
    "Longleftrightarrow leftarrow longrightarrow dots ldots top langle rangle Vert "
    "left right Big bigl bigr Bigl Bigr begin end quad qquad"
)
VERBATIM = re.compile(r"^(`{3,}|~{3,})\w+\n.*?^\1|(?<!`)`[^`\n]+`(?!`)", re.DOTALL | re.MULTILINE)


def texts(path):
    """Yield where each text of a page stands, and the text: Markdown, captions and image texts."""
    if path.suffix == ".md":
        yield path.name, path.read_text(encoding="utf-8")
        return
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        shown = cell["metadata"].get("mystnb", {})
        captions = [one.get("caption", one.get("alt")) for one in shown.values()]
        for text in ["".join(cell["source"])] if cell["cell_type"] == "markdown" else captions:
            yield f"{path.name}, cell {number}", text


def strange(path):
    """List the control sequences that plain Jupyter may not know, and where they stand."""
    return [
        f"{where}: \\{name}"
        for where, text in texts(path)
        for name in re.findall(r"\\([A-Za-z]+)", VERBATIM.sub("", text))
        if name not in STANDARD.split()
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "book").glob("*.[im][pd]*")), ids=lambda p: p.name)
def test_formulas_are_standard_latex(path):
    assert strange(path) == []


@pytest.mark.parametrize(
    ("kind", "metadata"),
    [
        ("markdown", {}),
        ("code", {"mystnb": {"image": {"alt": r"The matrix $\bJ$."}}}),
        ("code", {"mystnb": {"figure": {"caption": r"The matrix $\bJ$.", "name": "fig-j"}}}),
    ],
)
def test_a_macro_is_seen(tmp_path, kind, metadata):
    directive = "```{note}\nText.\n```\n"
    source = [
        directive,
        "```python\n",
        "\\bA\n",
        "```\n",
        r"Let $\bJ = \mathrm{diag}(\alpha)$ be `\bJ`.",
    ]
    notebook = {"cells": [{"cell_type": kind, "metadata": metadata, "source": source}]}
    path = tmp_path / "chapter.ipynb"
    path.write_text(json.dumps(notebook))
    assert strange(path) == [r"chapter.ipynb, cell 0: \bJ"]


def bound(tree):
    """List the names that a cell gives a meaning to, outside of its functions."""
    names, nodes = set(), [tree]
    inside = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    while nodes:
        node = nodes.pop()
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif not isinstance(node, inside):
            nodes += ast.iter_child_nodes(node)
    return names


def used(function, functions, seen=()):
    """List the global names that a function reads, itself and through the functions it calls."""
    nodes = list(ast.walk(function))
    local = {node.arg for node in nodes if isinstance(node, ast.arg)}
    local |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names = {node.id for node in nodes if isinstance(node, ast.Name)} - local
    for name in names & functions.keys() - {*seen}:
        names |= used(functions[name], functions, (*seen, name))
    return names


def rebound(path):
    """Say which names a live drawing reads that a later cell gives another meaning."""
    found, functions, live = [], {}, set()
    for cell in cells(path, "code"):
        tree = ast.parse(cell["text"])
        again = sorted(bound(tree) & live)
        found += [f"{path.name}: {', '.join(again)}, in {cell['text'][:60]!r}"] if again else []
        here = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        functions |= here
        if "interact(" in cell["text"]:
            live |= set().union(*(used(one, functions) for one in here.values()))
    return found


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_live_drawing_still_draws_when_all_cells_have_run(path):
    assert rebound(path) == []


def test_a_name_that_changes_under_a_live_drawing_is_seen(tmp_path):
    sources = [
        "turns = {0: 1}\ndef draw(k):\n    return turns[k]",
        "@ipywidgets.interact(k=3)\ndef redraw(k):\n    picture(draw(k))",
        "k = [turns for turns in range(3)]",
        "for turns in range(3): pass",
    ]
    path = tmp_path / "chapter.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": s} for s in sources]}))
    assert rebound(path) == ["chapter.ipynb: turns, in 'for turns in range(3): pass'"]


def test_nbval_notices_one_digit(tmp_path):
    """A stored output with one digit changed must fail."""
    notebook = json.loads(CHAPTERS[0].read_text(encoding="utf-8"))
    notebook["cells"] = [
        {"cell_type": "code", "id": "one", "metadata": {}, "execution_count": 1,
         "source": ["print(0.25)"],
         "outputs": [{"output_type": "stream", "name": "stdout", "text": ["0.25\n"]}]},
    ]  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval",
               "--nbval-current-env", "-c", str(ROOT / "pyproject.toml")]  # fmt: skip
    for text, code in (("0.25\n", 0), ("0.24\n", 1)):
        notebook["cells"][0]["outputs"][0]["text"] = [text]
        path = tmp_path / "digit.ipynb"
        path.write_text(json.dumps(notebook))
        assert subprocess.run([*command, str(path)], capture_output=True).returncode == code


def test_the_errata_page_counts_the_claims():
    text = (ROOT / "book" / "errata.md").read_text(encoding="utf-8")
    for path in CHAPTERS:
        count = sum(name.startswith("eq-") for name in labels(path))
        assert re.search(rf"\({path.stem}\.ipynb\)[^|]*\|\s*{count}\s*\|", text), (path.stem, count)


def test_every_public_name_is_on_the_api_page():
    import vilogit

    text = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"auto\w+:: vilogit(?:\.\w+)*\.(\w+)", text))
    assert set(vilogit.__all__) <= documented
