"""The resolved notebooks say what the book says to programs that know Markdown and LaTeX alone."""

import functools
import io
import json
import re
import subprocess
import sys
from urllib.parse import unquote, urldefrag, urljoin

import nbformat
import pytest
from bs4 import BeautifulSoup, SoupStrainer
from builds import CHAPTERS, REPOSITORY, ROOT, SITE
from markdown_it import MarkdownIt
from sphinx.application import Sphinx
from test_book import STANDARD

#: How the formulas spell what Markdown would read as a mark of its own.
SPELLED = {
    "cr": r"\\", "thinspace": r"\,", "enspace": r"\;", "negthinspace": r"\!", "lbrace": r"\{",
    "rbrace": r"\}", "Vert": r"\|", "vert": "|", "ast": "*", "lt": "<", "gt": ">",
}  # fmt: skip
FORMULA = re.compile(r"\$\$ (.+?)(?: \\tag\{(.+?)\})? \$\$|(?<!\\)\$(.+?)\$")
RAW = re.compile(r":::|[`~]{3}\{|\{[\w:-]+\}`|^\([\w-]+\)=|^---$|\?\?", re.MULTILINE)
LABEL = re.compile(r"\b(?:eq|def|fig|ex|thm|ch)-[a-z]\w*")


def cells(path, kind):
    """Yield the place and the text of the cells of a notebook, of one kind."""
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == kind:
            yield f"{path.name}, cell {number}", "".join(cell["source"])


def rendered(text):
    """Return what a plain CommonMark renderer, with GitHub's tables, makes of a text."""
    return BeautifulSoup(MarkdownIt().enable("table").render(text), "html.parser")


def without(page, kind):
    """Take elements of one kind off a page, and return its text."""
    for element in page.select(kind):
        element.decompose()
    return page.get_text()


def faults(path):
    """List what a program that knows Markdown and LaTeX alone would not show, and where."""
    known, tags = {*STANDARD.split(), *SPELLED, "tag"}, set()
    for where, text in cells(path, "markdown"):
        page = rendered(text)
        labels = LABEL.findall(without(page, "pre"))
        yield from (f"{where}: unresolved {label}" for label in labels)
        shown = without(page, "code")
        yield from (f"{where}: raw {found!r}" for found in RAW.findall(shown) + RAW.findall(text))
        yield from (
            f"{where}: unknown \\{name}"
            for name in re.findall(r"\\([A-Za-z]+)", shown)
            if name not in known
        )
        written = re.sub(r"^(`+).*?^\1$|`[^`]+`", "", text, flags=re.DOTALL | re.MULTILINE)
        for formula in FORMULA.finditer(re.sub(r"^(> ?)+", "", written, flags=re.MULTILINE)):
            if formula[0] not in shown:
                yield f"{where}: Markdown eats a part of {formula[0]}"
            if formula[2] in tags:
                yield f"{where}: number {formula[2]} again"
            tags.add(formula[2] or len(tags))
        for formula in FORMULA.finditer(shown):
            beside = shown[: formula.start()][-1:] + shown[formula.end() :][:1]
            if re.search("[A-Za-z0-9]", beside):  # where VS Code sees no formula
                yield f"{where}: no room around {formula[0]}"
        for mark in re.findall(r"[$*]", FORMULA.sub("", shown)):
            yield f"{where}: lone {mark}"


def resolved(site):
    return [site / "_sources" / "book" / path.name for path in CHAPTERS]


def test_markdown_and_latex_are_all_that_a_program_must_know(published, local):
    for site in (published, local):
        assert [fault for path in resolved(site) for fault in faults(path)] == []


def canonical(formula):
    """Undo the spelling of a formula."""
    name = r"\\(" + "|".join(SPELLED) + r")(?![A-Za-z])"
    return re.sub(r"\s", "", re.sub(name, lambda match: SPELLED[match[1]], formula))


@functools.cache
def article(page):
    """Return what a page of the site says, without code and what only a site has."""
    text = page.read_text(encoding="utf-8")
    found = BeautifulSoup(text, "html.parser", parse_only=SoupStrainer("article"))
    for cell in found.select("div.cell"):
        captions = [caption.extract() for caption in cell.select("figcaption")]
        cell.replace_with(*captions)
    for extra in found.select(".headerlink, .backrefs, script, style, svg"):
        extra.decompose()
    return found


def on_the_page(page):
    """Return the text of a page of the site without spaces; numbers stand before formulas."""
    formula = r"\\\[(?:\\begin\{split\})?(.*?)(?:\\end\{split\})?\\\]|\\\((.*?)\\\)"
    text = article(page).get_text()
    text = re.sub(formula, lambda m: canonical(m[1] or m[2]), text, flags=re.DOTALL)
    return re.sub(r"\s", "", text)


def in_the_notebook(path):
    """The same of a rendered notebook. A solution that code cuts in pieces is named on each."""
    parts, named = [], set()
    for _, text in cells(path, "markdown"):
        page = rendered(text)
        for title in page.select("summary, p > strong:only-child"):
            if title.text in named:
                title.decompose()
            elif title.name == "summary" or title.text == title.parent.text:
                named.add(title.text)
        parts.append(page.get_text())
    number = lambda m: (f"({m[2]})" if m[2] else "") + canonical(m[1] or m[3])  # noqa: E731
    return re.sub(r"\s", "", FORMULA.sub(number, "\n".join(parts)))


def test_nothing_of_the_page_is_lost_and_every_number_is_the_page_s(published):
    """Not a character: headings, numbers, formulas, captions, references, solutions, sources."""
    for path in resolved(published):
        page = on_the_page(published / "book" / f"{path.stem}.html")
        notebook = in_the_notebook(path)
        assert len(page) > 10_000
        for k in range(0, len(page), 80):
            assert notebook[k : k + 80] == page[k : k + 80], path.name
        assert len(notebook) == len(page), path.name


def code_cells(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_code_cells_are_the_source_s_and_so_is_nbval_s_verdict(published, local):
    """It runs the sources and compares texts: the same code with the same texts fares the same."""
    for site, address in ((published, REPOSITORY), (local, "")):
        for path, copy in zip(CHAPTERS, resolved(site), strict=True):
            stored, given = code_cells(path), code_cells(copy)
            first = "".join(stored[0]["source"])
            assert 'REPOSITORY = ""' in first
            first = first.replace('REPOSITORY = ""', f'REPOSITORY = "{address}"')
            stored[0]["source"] = first.splitlines(keepends=True)
            for cell in given:
                cell["metadata"].pop("jupyter", None)
                for output in cell["outputs"]:
                    output.get("data", {}).pop("image/png", None)
            assert given == stored, path.name


def test_notebooks_are_valid_and_of_a_size_to_open(published, local):
    for path in resolved(published) + resolved(local):
        nbformat.validate(nbformat.read(path, as_version=4))
        text = path.read_text(encoding="utf-8")
        assert len(text) < 2_000_000, path.name


def test_links_are_those_of_the_page_and_lead_to_places_on_the_site(published, local):
    ids = {}
    for path in resolved(published):
        page = published / "book" / f"{path.stem}.html"
        # Plain in a notebook: what folds a solution, and the way back from a source.
        plain = article(page).select(".solution > .admonition-title a, .citation > .label a")
        expected = [
            urljoin(f"{SITE}/book/{page.name}", link["href"])
            for link in article(page).select("a[href]")
            if link not in plain
        ]
        found = []
        for where, text in cells(path, "markdown"):
            for link in rendered(text).select("a[href]"):
                found.append(unquote(link["href"]))
                address, anchor = urldefrag(link["href"])
                target = published / address.removeprefix(f"{SITE}/")
                if target == published / address:  # elsewhere
                    continue
                assert target.is_file(), f"{where}: {link}"
                if target not in ids:
                    html = target.read_text(encoding="utf-8")
                    ids[target] = set(re.findall(r'\bid="([^"]+)"', html))
                assert not anchor or anchor in ids[target], f"{where}: {link}"
        assert found == expected and len(found) > 10, path.name
    for path in resolved(local):  # where there is no site, only sources have links
        for where, text in cells(path, "markdown"):
            for link in rendered(text).select("a[href]"):
                assert re.match("https?://", link["href"]), f"{where}: {link}"


TINY = {
    "extensions": ["myst_nb", "sphinx_proof", "sphinx_exercise", "resolved_notebooks"],
    "myst_enable_extensions": ["colon_fence", "dollarmath"], "nb_execution_mode": "off",
    "numfig": True, "root_doc": "index", "html_sourcelink_suffix": "",
    "html_theme": "basic", "suppress_warnings": ["app"],
}  # fmt: skip


def tiny(folder, *texts, **config):
    """Build a book of one page; return its resolved notebook and the warnings."""
    new = nbformat.v4
    notebook = new.new_notebook(cells=[
        new.new_markdown_cell(text) if isinstance(text, str) else new.new_code_cell(*text, **{
            "execution_count": 1, "outputs": [new.new_output("stream", text="0.25\n")]})
        for text in texts])  # fmt: skip
    notebook.metadata = json.loads(CHAPTERS[0].read_text(encoding="utf-8"))["metadata"]
    nbformat.write(notebook, folder / "index.ipynb")
    warnings = io.StringIO()
    Sphinx(folder, None, folder / "html", folder / "trees", "html", confoverrides=TINY | config,
           status=None, warning=warnings).build()  # fmt: skip
    return folder / "html" / "_sources" / "index.ipynb", warnings.getvalue()


@pytest.mark.parametrize(
    ("text", "warning", "fault"),
    [
        (
            "See {numref}`fig-nope`.",
            r"index.ipynb:\d+: WARNING: undefined label: 'fig-nope'",
            "unresolved fig-nope",
        ),
        (
            "```{figure} p.png\n:name: fig-bare\n```\n\nSee {numref}`fig-bare`.",
            r"index.ipynb:\d+: WARNING: Failed to create a cross reference. .*: fig-bare",
            "unresolved fig-bare",
        ),
        (
            "```{topic} Title\nText.\n```",
            r"index.ipynb:\d+: WARNING: index: no Markdown for <topic>",
            None,
        ),
        (
            "A {kbd}`key`.\n\n```{exercise} Title\n:nonumber:\nText.\n```",
            r"index.ipynb:\d+: WARNING: index: no Markdown for <exercise_node>",
            None,
        ),
        (r"The matrix $\bJ$.", "", r"unknown \bJ"),
    ],
)
def test_a_planted_fault_is_seen_and_named(tmp_path, text, warning, fault):
    (tmp_path / "p.png").write_bytes(b"")
    path, warnings = tiny(tmp_path, f"# Title\n\n{text}")
    assert re.search(warning, warnings) if warning else not warnings
    assert not fault or f"index.ipynb, cell 0: {fault}" in list(faults(path))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```{note}\nText.\n```", "raw '```{'"),
        (":::{note}\nText.\n:::", "raw ':::'"),
        ("By {eq}`a`.", "raw '{eq}`'"),
        ("(label)=\n# Title", "raw '(label)='"),
        ("---\nmath: {}\n---", "raw '---'"),
        ("See Fig. ??.", "raw '??'"),
        ("By eq-simplex.", "unresolved eq-simplex"),
        (r"Let $\bJ$ be.", r"unknown \bJ"),
        (r"A set $\{1\}$.", r"Markdown eats a part of $\{1\}$"),
        ("$$ a \\, b $$", r"Markdown eats a part of $$ a \, b $$"),
        (r"For $\hat{p}_u$ and $x_{d}$.", r"Markdown eats a part of $\hat{p}_u$"),
        ("If $a <b c> d$.", "Markdown eats a part of $a <b c> d$"),
        ("> $$ a\n> \\tag{1.1} $$", r"lone $"),
        (r"$$ a \tag{1} $$" + "\n\n" + r"$$ b \tag{1} $$", "number 1 again"),
        ("The $n$th row.", "no room around $n$"),
        ("It costs $5.", "lone $"),
        ("A **word **.", "lone *"),
    ],
)
def test_the_guard_sees(tmp_path, text, fault):
    path = tmp_path / "page.ipynb"
    cell = {"cell_type": "markdown", "source": text.splitlines(keepends=True)}
    path.write_text(json.dumps({"cells": [cell]}))
    assert f"page.ipynb, cell 0: {fault}" in list(faults(path))


EVERYTHING = r"""# Title

:::{note}
A note with $\{a_b \mid a < b\}$ and `code`[^1].
:::

| $\Vert a_b\Vert$ | b |
| --- | --- |
| 1 \| 2 | 3 |

3. Three
4. Four, and

   $$x_{1}$$ (eq-one)

[^1]: Said below.

```{prf:lemma} Name
:label: lem
By {eq}`eq-one` and [the web](https://someone.invalid/a_(b)).
```

```{exercise} Half $\tau$
:label: ex-half
Halve it.
```

```{solution-start} ex-half
```
"""


PLAIN = r"""# Title

> **Note**
>
> A note with $\lbrace a_b \mid a \lt b\rbrace$ and `code`<sup>1</sup>.

| $\Vert a_b\Vert$ | b |
| --- | --- |
| 1 \| 2 | 3 |

3. Three

4. Four, and

   $$ x_{1} \tag{1} $$

> **Lemma 1** (Name)
>
> By (1) and [the web](https://someone.invalid/a_%28b%29).

> **Exercise 1** (Half $\tau$)
>
> Halve it."""


def test_a_page_of_everything_reads_well_and_passes_nbval(tmp_path):
    end = "Two.\n\n```{solution-end}\n```\n\n> Said *so*."
    path, warnings = tiny(tmp_path, EVERYTHING, ["print(1 / 4)"], end)
    assert warnings == "" and list(faults(path)) == []
    title = r"Solution to Exercise 1 (Half $\tau$)"
    assert [text for _, text in cells(path, "markdown")] == [
        f"{PLAIN}\n\n**{title}**",  # there is nothing to fold before the code
        f"<details>\n<summary>{title}</summary>\n\nTwo.\n\n</details>",
        "> Said *so*.\n\n***\n\n<sup>1</sup> Said below.",
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval",
               "--nbval-current-env", "-c", str(ROOT / "pyproject.toml"), str(path)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


def test_references_lead_to_the_site_that_there_is(tmp_path):
    text = "# Title\n\n$$x$$ (eq-one)\n\nBy {eq}`eq-one`."
    path, _ = tiny(tmp_path, text, html_baseurl=f"{SITE}/")
    ((_, text),) = cells(path, "markdown")
    assert text.endswith(f"By [(1)]({SITE}/index.html#equation-eq-one).")
