"""Sphinx extension: notebooks for elsewhere, which need no MyST and are numbered as the book.

A chapter's doctree, all references resolved, is written as plain Markdown between the notebook's
own code cells, and takes the place of the source that the download button serves. Links lead to
the site at ``html_baseurl``; without one, a reference is words alone. Labels come from the doctree,
the configuration and the catalogues: a translated build writes translated notebooks.

Code cells and their texts stay as stored, which is what nbval compares. Where the build has run
them they get their pictures, too, for a reader who only looks: half a megabyte a chapter, three
times as much with many maps. They get no widgets, which are an error until their cell is run.
"""

import html
import json
import re
from itertools import pairwise
from pathlib import Path
from textwrap import indent
from urllib.parse import urljoin

from docutils import nodes
from sphinx.locale import admonitionlabels, get_translation
from sphinx.util import logging

from addresses import REPOSITORY

#: Characters that Markdown may take for marks of its own, and a dollar, which begins a formula.
MARK = re.compile(r"[\\`*_\[\]<>$~]|&(?=#?\w+;)")
#: Some programs take formulas out before they read Markdown, others after. Hence no escape that
#: Markdown would undo, no underscore that could begin an emphasis, nothing that looks like a tag,
#: a link or the border of a column: each has a name in LaTeX, or needs a space.
SPELLED = {
    r"\\": r"\cr ", r"\,": r"\thinspace ", r"\;": r"\enspace ", r"\!": r"\negthinspace ",
    r"\{": r"\lbrace ", r"\}": r"\rbrace ", r"\|": r"\Vert ", "|": r"\vert ", "*": r"\ast ",
    "<": r"\lt ", ">": r"\gt ", "_": "_ ", "](": "] (",
}  # fmt: skip
AWKWARD = re.compile(r"\\[^A-Za-z\s]|\]\(|[|*<>]|(?<![A-Za-z0-9])_")


def latex(node):
    """Write a formula on one line: a line of its own could begin with the mark of a list."""
    text = AWKWARD.sub(lambda m: SPELLED.get(m[0], m[0]), " ".join(node.astext().split()))
    return re.sub(r" +", " ", text).strip()


def hang(mark, text):
    """Set a list's mark before a text, and its other lines below the first."""
    return mark + indent(text, " " * len(mark))[len(mark) :]


def is_cell(node):
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"


class Page:
    """One page as cells: its text, block by block, between the code cells of its notebook."""

    def __init__(self, app, docname, doctree, cells):
        self.config, self.docname = app.config, docname
        self.numbers = app.env.toc_fignumbers.get(docname, {})
        self.sections = app.env.toc_secnumbers.get(docname, {})
        site = app.config.html_baseurl
        self.home = urljoin(site, app.builder.get_target_uri(docname)) if site else ""
        # Cells that the site does not show follow the one before them.
        shown = [node["cell_index"] for node in doctree.findall(is_cell)]
        spans = pairwise([0, *shown, len(cells)])
        self.code = ([c for c in cells[a:b] if c["cell_type"] == "code"] for a, b in spans)
        self.cells, self.texts, self.level, self.fold = next(self.code), [], 0, None
        self.flow(doctree)
        self.end_text()

    def flow(self, node):
        """Take the blocks of what a code cell may interrupt: the page, a section, a solution."""
        for child in node:
            if is_cell(child):
                self.end_text()
                self.cells += next(self.code)
                self.texts += [self.block(c) for c in child.findall(nodes.caption)]
            elif isinstance(child, nodes.section):
                self.end_text()
                self.level += 1
                self.flow(child)
                self.level -= 1
            elif child.tagname == "solution_node":
                title, content = child.children
                fold = "".join(
                    f"${latex(t.parent)}$" if isinstance(t.parent, nodes.math) else html.escape(t)
                    for t in title.findall(nodes.Text)
                )
                if is_cell(content[0]):  # nothing to fold, but something to name
                    self.texts.append(f"**{fold}**")
                self.end_text()
                self.fold = fold
                self.flow(content)
                self.end_text()
                self.fold = None
            else:
                self.texts.append(self.block(child))

    def end_text(self):
        """Make a cell of the text so far; in a solution, folded."""
        text = "\n\n".join(filter(None, self.texts))
        if text and self.fold:
            text = f"<details>\n<summary>{self.fold}</summary>\n\n{text}\n\n</details>"
        if text:
            cell = {"cell_type": "markdown", "id": f"text-{len(self.cells)}", "metadata": {}}
            self.cells.append({**cell, "source": text.splitlines(keepends=True)})
        self.texts = []

    def blocks(self, children):
        return "\n\n".join(filter(None, map(self.block, children)))

    def boxed(self, title, children):
        """Set what has a frame on the site apart from the rest."""
        lines = f"{title}\n\n{self.blocks(children)}".strip().splitlines()
        return "\n".join(f"> {line}".rstrip() for line in lines)

    def block(self, node):
        """Return the Markdown of a block, without an empty line after it."""
        match node.tagname:
            case "title":
                number = self.sections.get(f"#{node.parent['ids'][0]}" if self.level > 1 else "")
                suffix = self.config.html_secnumber_suffix
                number = ".".join(map(str, number)) + suffix if number else ""
                return f"{'#' * self.level} {number}{self.inline(node)}"
            case "paragraph":
                return self.inline(node)
            case "math_block":
                tag = f" \\tag{{{self.number('displaymath', node)}}}" if node["ids"] else ""
                return f"$$ {latex(node)}{tag} $$"
            case "literal_block":
                language = "" if node["language"] in ("default", "none") else node["language"]
                return f"```{language}\n{node.astext().rstrip()}\n```"
            case "bullet_list" | "enumerated_list":
                mark, first = "- " if "bullet" in node else "{}. ", node.get("start", 1)
                items = [hang(mark.format(first + k), self.blocks(i)) for k, i in enumerate(node)]
                return ("\n\n" if any(len(item) > 1 for item in node) else "\n").join(items)
            case name if name in ("admonition", "sidebar", *admonitionlabels):
                # The page is written, and its writer has given a title to notes as well.
                return self.boxed(f"**{self.inline(node[0])}**", node[1:])
            case "proof_node" | "block_quote":
                return self.boxed("", node[0] if node.tagname == "proof_node" else node)
            case "exercise_enumerable_node":
                label = node[0]["title"] % self.number("exercise", node)
                return self.boxed(f"**{label}**{self.inline(node[0])}", node[1:])
            case _ if "countertype" in node:  # a theorem, a definition, a lemma ...
                label = get_translation("proof")(node["realtype"].title())
                label = f"{label} {self.number(node['countertype'], node)}"
                return self.boxed(f"**{label}**{self.inline(node[0])}", node[1:])
            case "caption":
                label = self.config.numfig_format["figure"] % self.number("figure", node.parent)
                return f"**{label}** {self.inline(node)}"
            case "table":
                rows = [[self.blocks(entry) for entry in row] for row in node.findall(nodes.row)]
                rows = [[cell.replace("|", r"\|") for cell in row] for row in rows]
                rows.insert(1, ["---"] * len(rows[0]))
                return "\n".join(f"| {' | '.join(row)} |" for row in rows)
            case "citation":
                return hang("- ", f"**\\[{node[0].astext()}\\]** {self.blocks(node[1:])}")
            case "footnote":
                return f"<sup>{node[0].astext()}</sup> {self.blocks(node[1:])}"
            case "transition":
                return "***"
            case "section" | "container":
                return self.blocks(node)
            case "target" | "comment" | "index":
                return ""
            case "raw" if isinstance(node.parent, nodes.document):  # the theme's own scripts
                return ""
            case name:
                self.warn(node, f"no Markdown for <{name}>")
                return self.blocks(c for c in node if isinstance(c, nodes.Element))

    def number(self, kind, node):
        number = self.numbers.get(kind, {}).get("".join(node["ids"][:1]))
        if number is None:
            self.warn(node, f"no number for <{node.tagname}>")
        return ".".join(map(str, number or "?"))

    def warn(self, node, message):
        logging.getLogger(__name__).warning("%s: %s", self.docname, message, location=node)

    def inline(self, node):
        return "".join(map(self.span, node))

    def span(self, node):
        match node.tagname:
            case "#text":
                return MARK.sub(r"\\\g<0>", re.sub(r" *\n *", " ", node))
            case "math":
                return f"${latex(node)}$"
            case "literal":
                return f"`{node.astext()}`" if "`" not in node.astext() else f"``{node.astext()}``"
            case "emphasis" | "strong":
                mark = "*" if node.tagname == "emphasis" else "**"
                return f"{mark}{self.inline(node)}{mark}"
            case "reference" | "number_reference":
                address = urljoin(self.home, node.get("refuri") or f"#{node['refid']}")
                address = address.replace("(", "%28").replace(")", "%29")
                text = self.inline(node)
                return f"[{text}]({address})" if "://" in address else text
            case "footnote_reference":
                return f"<sup>{node.astext()}</sup>"
            case "inline":
                return self.inline(node)
            case name:
                self.warn(node, f"no Markdown for <{name}>")
                return MARK.sub(r"\\\g<0>", node.astext())


def prepare(cell, run):
    """Let a code cell know the repository; fold it as on the site; add the pictures of its run."""
    source = "".join(cell["source"]).replace('REPOSITORY = ""', f'REPOSITORY = "{REPOSITORY}"')
    cell["source"] = source.splitlines(keepends=True)
    if "hide-input" in cell["metadata"].get("tags", []):
        cell["metadata"]["jupyter"] = {"source_hidden": True}
    stored, drawn = ([o["data"] for o in c["outputs"] if "data" in o] for c in (cell, run))
    for data, pictures in zip(stored, drawn, strict=False):
        data |= {kind: picture for kind, picture in pictures.items() if kind == "image/png"}


def resolve(app, pagename, templatename, context, doctree):
    """Write a chapter's notebook, to be put in its source's place when all files are there."""
    source = Path(app.env.doc2path(pagename))
    if doctree is None or source.suffix != ".ipynb":
        return
    run = Path(app.env.mystnb_config.output_folder, f"{pagename}.ipynb")
    notebook, twin = (json.loads(path.read_text(encoding="utf-8")) for path in (source, run))
    for cell, executed in zip(notebook["cells"], twin["cells"], strict=True):
        if cell["cell_type"] == "code":
            prepare(cell, executed)
    notebook["cells"] = Page(app, pagename, doctree, notebook["cells"]).cells
    app.resolved_notebooks[pagename] = notebook


def write(app, exception):
    """Replace the copies of the sources, which Sphinx makes after it has written a page."""
    for pagename, notebook in app.resolved_notebooks.items() if exception is None else ():
        path = Path(app.outdir, "_sources", f"{pagename}.ipynb")
        text = json.dumps(notebook, ensure_ascii=False, indent=1)
        path.write_text(f"{text}\n", encoding="utf-8")


def setup(app):
    """Look at each doctree when its page is written: numbers and references are known then."""
    app.resolved_notebooks = {}
    app.connect("html-page-context", resolve)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
