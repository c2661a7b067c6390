"""Sphinx extension: notebooks for elsewhere, which need no MyST and are numbered as the book.

A chapter's doctree, all references resolved, is written as plain Markdown between the notebook's
own code cells, and takes the place of the source that the theme's download button serves. Links
lead to the site at ``html_baseurl``; where there is none, a reference is words alone. Labels come
from the doctree, the configuration and the extensions' catalogues, so that a translated build
writes translated notebooks.

Code cells and their texts stay as stored, which is what nbval compares. Where the build has run
them they get their pictures, too, for a reader who only looks: half a megabyte a chapter, three
times as much with many maps. They get no widgets, which are an error until their cell is run.
"""

import html
import json
import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import urljoin

from docutils import nodes
from sphinx.locale import admonitionlabels, get_translation
from sphinx.util import logging

from addresses import REPOSITORY

logger = logging.getLogger(__name__)

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


def quote(text):
    return re.sub(r"^> $", ">", re.sub("^", "> ", text, flags=re.MULTILINE), flags=re.MULTILINE)


def hang(mark, text):
    """Set a list's mark before a text, and its other lines below the first."""
    return mark + re.sub(r"\n(?=[^\n])", "\n" + " " * len(mark), text)


def is_cell(node):
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"


class Page:
    """One page as cells: its text, block by block, between the code cells of its notebook."""

    def __init__(self, app, docname, doctree, code):
        self.config, self.docname = app.config, docname
        self.numbers = app.env.toc_fignumbers.get(docname, {})
        self.sections = app.env.toc_secnumbers.get(docname, {})
        self.home = self.config.html_baseurl and urljoin(
            self.config.html_baseurl, app.builder.get_target_uri(docname)
        )
        # Cells that the site does not show follow the one before them.
        shown = [node["cell_index"] for node in doctree.findall(is_cell)]
        self.code = (code[start:end] for start, end in pairwise([0, *shown, len(code)]))
        self.cells, self.texts, self.level, self.fold = [], [], 0, None
        self.add_code()
        self.flow(doctree)
        self.end_text()

    # What a code cell may interrupt --------------------------------------------------------------

    def flow(self, node):
        for child in node:
            if is_cell(child):
                self.end_text()
                self.add_code()
                self.texts += [self.block(c) for c in child.findall(nodes.caption)]
            elif isinstance(child, nodes.section):
                self.end_text()
                self.level += 1
                self.flow(child)
                self.level -= 1
            elif child.tagname == "solution_node":
                self.end_text()
                title, content = child.children
                self.fold = "".join(
                    f"${latex(t.parent)}$" if isinstance(t.parent, nodes.math) else html.escape(t)
                    for t in title.findall(nodes.Text)
                )
                if is_cell(content[0]):  # nothing to fold, but something to name
                    self.cells.append(f"**{self.fold}**")
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
        self.cells += [text] if text else []
        self.texts = []

    def add_code(self):
        self.cells += [cell for cell in next(self.code) if cell["cell_type"] == "code"]

    # Blocks --------------------------------------------------------------------------------------

    def blocks(self, children):
        return "\n\n".join(filter(None, map(self.block, children)))

    def titled(self, label, node, start=1):
        """Set a labelled text apart from the rest."""
        title = f"**{label}**{self.inline(node[0])}" if label else f"**{self.inline(node[0])}**"
        return quote("\n\n".join(filter(None, [title, self.blocks(node[start:])])))

    def block(self, node):
        """Return the Markdown of a block, without an empty line after it."""
        match node.tagname:
            case "title":
                return f"{'#' * self.level} {self.section_number(node.parent)}{self.inline(node)}"
            case "paragraph":
                return self.inline(node)
            case "math_block":
                tag = f" \\tag{{{self.number('displaymath', node)}}}" if node["ids"] else ""
                return f"$$ {latex(node)}{tag} $$"
            case "literal_block":
                language = {"default": "", "none": ""}.get(node["language"], node["language"])
                return f"```{language}\n{node.astext().rstrip()}\n```"
            case "bullet_list" | "enumerated_list":
                first = node.get("start", 1) if node.tagname == "enumerated_list" else None
                items = [
                    hang("- " if first is None else f"{first + i}. ", self.blocks(item))
                    for i, item in enumerate(node)
                ]
                return ("\n\n" if any(len(item) > 1 for item in node) else "\n").join(items)
            case "admonition" | "sidebar":
                return self.titled("", node)
            case name if name in admonitionlabels:
                return quote(f"**{admonitionlabels[name]}**\n\n{self.blocks(node)}")
            case "proof_node":
                return quote(self.blocks(node[0]))
            case "exercise_enumerable_node":
                return self.titled(node[0]["title"] % self.number("exercise", node), node)
            case _ if "realtype" in node:  # a theorem, definition, lemma ...
                label = get_translation("proof")(node["realtype"].title())
                kind = node.get("countertype")
                return self.titled(f"{label} {self.number(kind, node)}" if kind else label, node)
            case "caption":
                label = self.config.numfig_format["figure"] % self.number("figure", node.parent)
                return f"**{label}** {self.inline(node)}"
            case "table":
                rows = [[self.cell(entry) for entry in row] for row in node.findall(nodes.row)]
                rows.insert(1, ["---"] * len(rows[0]))
                return "\n".join(f"| {' | '.join(row)} |" for row in rows)
            case "citation":
                return hang("- ", f"**\\[{node[0].astext()}\\]** {self.blocks(node[1:])}")
            case "footnote":
                return f"<sup>{node[0].astext()}</sup> {self.blocks(node[1:])}"
            case "block_quote":
                return quote(self.blocks(node))
            case "section" | "container":
                return self.blocks(node)
            case "target" | "comment" | "index" | "tabular_col_spec":
                return ""
            case "raw" if isinstance(node.parent, nodes.document):
                return ""  # the theme's own scripts
            case name:
                self.warn(node, f"no Markdown for <{name}>")
                return self.blocks(c for c in node if isinstance(c, nodes.Element))

    def cell(self, entry):
        return self.blocks(entry).replace("\n", " ").replace("|", r"\|")

    def number(self, kind, node):
        number = self.numbers.get(kind, {}).get(node["ids"][0] if node["ids"] else None)
        if number is None:
            self.warn(node, f"no number for <{node.tagname}> {node['ids']}")
        return ".".join(map(str, number or "?"))

    def section_number(self, section):
        names = [f"#{name}" for name in section["ids"]] + [""] * (self.level == 1)
        number = next((self.sections[name] for name in names if name in self.sections), None)
        return ".".join(map(str, number)) + self.config.html_secnumber_suffix if number else ""

    def warn(self, node, message):
        logger.warning("%s: %s", self.docname, message, location=node)

    # Text within a line --------------------------------------------------------------------------

    def inline(self, node):
        return "".join(map(self.span, node))

    def span(self, node):
        match node.tagname:
            case "#text":
                return MARK.sub(r"\\\g<0>", re.sub(r" *\n *", " ", node))
            case "math":
                return f"${latex(node)}$"
            case "literal":
                fence = "``" if "`" in node.astext() else "`"
                return f"{fence}{node.astext()}{fence}"
            case "emphasis":
                return self.around("*", node)
            case "strong":
                return self.around("**", node)
            case "reference" | "number_reference":
                return self.link(node)
            case "footnote_reference":
                return f"<sup>{node.astext()}</sup>"
            case "inline":
                return self.inline(node)
            case name:
                self.warn(node, f"no Markdown for <{name}>")
                return MARK.sub(r"\\\g<0>", node.astext())

    def around(self, mark, node):
        text = self.inline(node)
        return text.replace(text.strip(), f"{mark}{text.strip()}{mark}") if text.strip() else text

    def link(self, node):
        address = node.get("refuri") or f"#{node['refid']}"
        if "://" not in address:
            if not self.home:
                return self.inline(node)
            address = urljoin(self.home, address)
        return f"[{self.inline(node)}]({address.replace('(', '%28').replace(')', '%29')})"


def markdown(number, text):
    source = text.splitlines(keepends=True)
    return {"cell_type": "markdown", "id": f"text-{number}", "metadata": {}, "source": source}


def portable(cell, run):
    """Let a code cell know the repository; fold it as on the site; add the pictures of its run."""
    source = "".join(cell["source"]).replace('REPOSITORY = ""', f'REPOSITORY = "{REPOSITORY}"')
    cell["source"] = source.splitlines(keepends=True)
    if "hide-input" in cell["metadata"].get("tags", []):
        cell["metadata"]["jupyter"] = {"source_hidden": True}
    stored, drawn = ([o["data"] for o in c["outputs"] if "data" in o] for c in (cell, run))
    for data, pictures in zip(stored, drawn, strict=False):
        data |= {kind: picture for kind, picture in pictures.items() if kind == "image/png"}
    return cell


def resolve(app, pagename, templatename, context, doctree):
    """Write a chapter's notebook, to be put in its source's place when all files are there."""
    source = Path(app.env.doc2path(pagename))
    if doctree is None or source.suffix != ".ipynb":
        return
    run = Path(app.env.mystnb_config.output_folder, f"{pagename}.ipynb")
    notebook, twin = (json.loads(path.read_text(encoding="utf-8")) for path in (source, run))
    for cell, executed in zip(notebook["cells"], twin["cells"], strict=True):
        if cell["cell_type"] == "code":
            portable(cell, executed)
    cells = Page(app, pagename, doctree, notebook["cells"]).cells
    notebook["cells"] = [
        markdown(number, cell) if isinstance(cell, str) else cell
        for number, cell in enumerate(cells)
    ]
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
