"""The chapters in JupyterLab, with what `make lab` sets: what a reader sees, runs and moves."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
RUN = CHAPTERS[0]  # the one that takes least time
PATIENCE = 300  # seconds that nothing may take, however busy the machine

OPEN = """async ([path, own]) => {
    const lab = window.jupyterapp;
    // What is only looked at shares a kernel: to start one takes as long as to read a chapter.
    if (!own && !window.kernel) {
        const {id, name} = await lab.serviceManager.kernels.startNew({name: 'python3'});
        window.kernel = {id, name};
    }
    window.panel = await lab.commands.execute('docmanager:open',
        {path, factory: 'Notebook', ...(own ? {} : {kernel: window.kernel})});
    await window.panel.context.ready;
}"""
CLOSE = "() => { window.panel.context.model.dirty = false; window.panel.dispose(); }"
# What a cell shows: formulas, the words that stand for what cannot be looked up, marks of errors.
LOOK = """() => window.panel.content.widgets.map(cell => {
    const shown = cell.node.querySelector('.myst');
    if (cell.model.type != 'markdown' || !shown) return null;
    const missing = [...shown.querySelectorAll('[title$="Not Found"]')];
    const wrong = [...shown.querySelectorAll('[class*="text-yellow-"], [class*="-red-"]')];
    const plain = mark => getComputedStyle(mark).color == getComputedStyle(mark.parentNode).color
        && getComputedStyle(mark.querySelector('svg')).display == 'none';
    const text = shown.cloneNode(true);
    text.querySelectorAll('.katex, code, pre, [class*="text-yellow-"]').forEach(it => it.remove());
    return {
        formulas: shown.querySelectorAll('.katex').length,
        missing: missing.map(mark => mark.textContent),
        marked: missing.filter(mark => !plain(mark)).map(mark => mark.textContent),
        wrong: wrong.filter(mark => !missing.includes(mark)
                                    && !wrong.some(other => other != mark && other.contains(mark)))
                    .map(mark => mark.title || mark.textContent),
        text: text.textContent,
    };
})"""
# Asked often, so nothing that makes the browser lay out the page.
DONE = """([formulas, missing]) => {
    const shown = window.panel.node, count = what => shown.querySelectorAll(what).length;
    const marks = count('.myst [title$="Not Found"]');
    const red = count('.myst [class*="text-yellow-"], .myst [class*="text-red-"]') - marks;
    return count('.myst .katex') + red >= formulas && marks == missing
        && window.panel.content.widgets.every(
            cell => cell.model.type != 'markdown' || cell.node.querySelector('.myst *'));
}"""

#: Code in a text; a role, which looks like it, is the group that stays.
CODE = re.compile(r"^(?:```|~~~)\w+\n.*?^(?:```|~~~)|(\{[\w:]+\}`[^`]+`)|(?<!`)`[^`\n]+`(?!`)",
                  re.DOTALL | re.MULTILINE)  # fmt: skip
FORMULA = re.compile(r"\$\$.+?\$\$|(?<!\\)\$[^$]+?(?<!\\)\$", re.DOTALL)
LABEL = re.compile(r"\$\$\s*\(([\w-]+)\)|^:(?:label|name):\s*([\w-]+)|^\(([\w-]+)\)=", re.MULTILINE)
REFERENCE = re.compile(r"\{(cite|cite:t|eq|numref|ref|prf:ref)\}`([^`<]+)`")
RAW = re.compile(r":::|```|~~~|\{[\w:-]+\}`|^:\w+:|\$\$|\([\w-]+\)=|\\[A-Za-z]+", re.MULTILINE)


def expected(path):
    """Say what each Markdown cell holds by its source: formulas, and names that Lab cannot know."""
    sources = [
        CODE.sub(r"\1", "".join(cell["source"])) if cell["cell_type"] == "markdown" else None
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    ]
    known = {name for text in sources if text for found in LABEL.findall(text) for name in found}
    return [
        text and {
            "formulas": len(FORMULA.findall(text)),
            "missing": [name.strip() for _, names in REFERENCE.findall(text)
                        for name in names.split(",") if name not in known],
        } for text in sources
    ]  # fmt: skip


def faults(path, seen):
    """What a reader of a chapter would stumble over, one line each."""
    found = []
    for number, (cell, source) in enumerate(zip(seen, expected(path), strict=True)):
        if source is None:
            continue
        where = f"{path.name}, cell {number}"
        if cell is None:
            found.append(f"{where}: not rendered")
            continue
        found += [f"{where}: marked as an error: {what}" for what in cell["wrong"] + cell["marked"]]
        found += [f"{where}: raw: {sign}" for sign in RAW.findall(cell["text"])]
        typeset = cell["formulas"] + len(cell["wrong"])
        if typeset < source["formulas"]:
            found.append(f"{where}: {typeset} formulas of {source['formulas']}")
        if cell["missing"] != source["missing"]:
            found.append(f"{where}: looked up in vain: {cell['missing']}")
    return found


def serve(folder, home):
    """Start JupyterLab on a folder as `make lab` does, apart from the settings of who runs it."""
    tracker = home / "CONFIG/lab/user-settings/@jupyterlab/notebook-extension"
    tracker.mkdir(parents=True)
    # Cells that are out of sight are rendered now, not when there is time.
    (tracker / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    private = {f"JUPYTER_{kind}_DIR": str(home / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    settings = {"JUPYTER_CONFIG_PATH": str(ROOT / "tools/lab"), "IPYTHONDIR": str(home / "IPYTHON")}
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
         "--ServerApp.port=0", "--LabApp.expose_app_in_browser=True"],
        cwd=folder, env={**os.environ, **private, **settings},
        stdout=subprocess.DEVNULL, stderr=(home / "log").open("w"),
    )  # fmt: skip
    notes, late = home / "RUNTIME" / f"jpserver-{server.pid}.json", time.monotonic() + PATIENCE
    while not notes.exists():
        if server.poll() is not None or time.monotonic() > late:
            server.kill()
            pytest.fail(f"JupyterLab did not start: {(home / 'log').read_text()[-2000:]}")
        time.sleep(0.1)
    return server, notes


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """JupyterLab in a browser, on a copy of the book."""
    root, home = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("home")
    (root / "book").mkdir()
    (root / "benchmarks").mkdir()
    for path in CHAPTERS:
        shutil.copy(path, root / "book")
    for path in (ROOT / "benchmarks").glob("*.json"):
        shutil.copy(path, root / "benchmarks")
    server, notes = serve(root / "book", home)
    try:
        note = json.loads(notes.read_text())
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(1000 * PATIENCE)
        page = context.new_page()
        lab = SimpleNamespace(page=page, folder=root / "book", faults=[])
        page.on("pageerror", lambda error: lab.faults.append(f"exception: {error}"))
        page.on("request", lambda request: lab.faults.append(f"asked for {request.url}")
                if note["url"] not in request.url.replace("ws:", "http:")
                and not request.url.startswith(("data:", "blob:")) else None)  # fmt: skip
        page.goto(f"{note['url']}lab?token={note['token']}")
        page.wait_for_function("() => window.jupyterapp")
        page.evaluate("() => window.jupyterapp.restored.then(() => 0)")
        yield lab
        context.close()
    finally:
        server.terminate()
        server.wait(PATIENCE)


@pytest.fixture
def visit(lab):
    """Open a notebook of the copy, and close it after the test."""

    def visit(path, own=False):
        lab.page.evaluate(OPEN, [path.name, own])
        cells = list(filter(None, expected(path)))
        whole = [sum(c["formulas"] for c in cells), sum(len(c["missing"]) for c in cells)]
        with contextlib.suppress(PlaywrightTimeout):  # what is missing then is a fault
            lab.page.wait_for_function(DONE, arg=whole, polling=300)
        return lab.page.evaluate(LOOK)

    lab.faults.clear()
    yield visit
    lab.page.evaluate(CLOSE)


def run_all(page):
    """Run the notebook that is open, and say which cells fail."""
    page.evaluate("() => window.panel.sessionContext.ready")
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    cells = page.evaluate("() => window.panel.content.widgets.map(cell => cell.model.toJSON())")
    ran = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert ran == list(range(1, len(ran) + 1))
    return [f"cell {number}: {output['ename']}: {output['evalue']}"
            for number, cell in enumerate(cells)
            for output in cell.get("outputs", []) if output["output_type"] == "error"]  # fmt: skip


LIVE = """() => {
    const cells = window.panel.content.widgets;
    const number = cells.findLastIndex(cell => cell.model.sharedModel.source.includes('interact('));
    const shown = cells[number].outputArea.node;
    const failed = shown.querySelector('[data-mime-type$="error"], [data-mime-type$="stderr"]');
    const handle = shown.querySelector('.noUi-handle');
    return {number, handle, picture: handle && shown.querySelector('img')?.src,
            failed: failed?.textContent.trim().split('\\n').at(-1)};
}"""


def move_the_live_slider(page):
    """Press an arrow on the slider that asks the kernel; what fails instead of a new picture."""
    changed = f"""before => {{
        const now = ({LIVE})();
        return now.failed || now.picture && now.picture != before;
    }}"""
    page.wait_for_function(changed, arg=None, polling=100)
    before = page.evaluate(f"() => ({LIVE})().picture")
    page.evaluate_handle(f"() => ({LIVE})().handle").as_element().focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(changed, arg=before, polling=100)
    number, failed = page.evaluate(f"() => {{ const {{number, failed}} = ({LIVE})(); "
                                   "return [number, failed]; }")  # fmt: skip
    return [f"cell {number}: {failed}"] if failed else []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_is_readable_and_runs(lab, visit, path):
    """All are read, one is run."""
    assert faults(path, visit(path, own=path == RUN)) == []
    if path == RUN:
        assert run_all(lab.page) == []
        assert move_the_live_slider(lab.page) == []
    assert lab.faults == []


#: A macro in a text and in a display, a directive that nobody knows, what stands raw, and a name
#: that changes its meaning under a live drawing.
PLANTED = [
    "# Title\n\nLet $\\bJ = 1$ and $x$.",
    "$$\n\\bJ = 1\n$$ (eq-macro)\n\nSee {eq}`eq-macro` and {eq}`eq-elsewhere`.",
    "```{nonsense} Title\nText\n```",
    "Text (a-label)= here, :::",
    ["import ipywidgets", "frame = ipywidgets.HTML()", "display(frame)", "turns = {0: 'a', 1: 'b'}",
     "def redraw(k):\n    frame.value = f'<img src=\"data:,{turns[k]}\">'",
     "ipywidgets.interact(redraw, k=ipywidgets.IntSlider(0, 0, 1));"],
    ["turns = 1"],
]  # fmt: skip


def test_planted_faults_are_seen(lab, visit):
    cells = []
    for number, source in enumerate(PLANTED):
        cell = {"id": f"cell-{number}", "metadata": {}, "cell_type": "markdown", "source": source}
        if isinstance(source, list):
            code = {"cell_type": "code", "execution_count": None, "outputs": []}
            cell |= code | {"source": "\n".join(source)}
        cells.append(cell)
    path = lab.folder / "planted.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook), encoding="utf-8")
    found = faults(path, visit(path, own=True))
    assert [fault.split(" at position")[0] for fault in found] == [
        r"planted.ipynb, cell 0: marked as an error: Undefined control sequence: \bJ",
        r"planted.ipynb, cell 1: marked as an error: Undefined control sequence: \bJ",
        "planted.ipynb, cell 2: marked as an error: nonsense - Unknown DirectiveText",
        "planted.ipynb, cell 3: raw: (a-label)=",
        "planted.ipynb, cell 3: raw: :::",
    ]
    assert run_all(lab.page) == []
    failed = "TypeError: 'int' object is not subscriptable"
    assert move_the_live_slider(lab.page) == [f"cell 4: {failed}"]


def test_the_reader_is_asked_nothing(lab):
    """No offer of news and no dialog has come up by now."""
    boxes = "() => [...document.querySelectorAll('.Toastify__toast, .jp-Dialog')]"
    assert lab.page.evaluate(f"({boxes})().map(box => box.textContent)") == []
