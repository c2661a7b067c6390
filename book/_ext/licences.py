"""Sphinx extension: the licences of all that the site carries, in one file that it carries too."""

from importlib.metadata import distribution
from pathlib import Path

#: Files of the site by whose they are, as patterns under ``_static``; each belongs to the first.
OWN = ("book.css", "controls.js", "explore.js", "favicon.svg", "mathjax-hub.js")
VENDORED = {
    "MathJax, Apache-2.0": ("vendor/mathjax", "LICENSE"),
    "Jupyter Widgets HTML manager, BSD-3-Clause": ("vendor/widgets", "*LICENSE*"),
    "Font Awesome Free, icons CC BY 4.0, fonts SIL OFL 1.1, code MIT": (
        "vendor/fontawesome",
        "LICENSE.txt",
    ),
}
PACKAGES = {
    "sphinx-copybutton": ("MIT", "copy*", "clipboard.min.js", "check-solid.svg"),
    "sphinx-togglebutton": ("MIT", "togglebutton.*"),
    "sphinx-design": ("MIT", "design-tabs.js", "sphinx-design.min.css"),
    "sphinx-thebe": ("MIT", "sphinx-thebe.*", "play-solid.svg"),
    "sphinx-exercise": ("MIT", "exercise.css"),
    "sphinx-proof": ("MIT", "proof.css"),
    "myst-nb": ("BSD-3-Clause", "mystnb.*.css"),
    "pydata-sphinx-theme": (
        "BSD-3-Clause", "scripts/*bootstrap*", "scripts/fontawesome*", "scripts/pydata*",
        "styles/pydata*", "styles/theme.css", "webpack-macros.html",
    ),
    "sphinx-book-theme": (
        "BSD-3-Clause", "scripts/sphinx-book*", "styles/sphinx-book*", "images/*", "locales/*",
        "sbt-webpack*",
    ),
    "sphinx": (
        "BSD-2-Clause", "basic.css", "doctools.js", "documentation_options.js", "file.png",
        "language_data.js", "minus.png", "plus.png", "pygments.css", "searchtools.js",
        "sphinx_highlight.js",
    ),
}  # fmt: skip
#: What packages carry of others, named in the package's own files; both are under the MIT licence.
WITHIN = {
    "sphinx-copybutton": "With clipboard.js, MIT licence, copyright Zeno Rocha.",
    "pydata-sphinx-theme": (
        "With Bootstrap, MIT licence, copyright The Bootstrap Authors, and Font Awesome Free."
    ),
}
FILE = "licences.txt"


def texts(static):
    """Yield a title and the licence's text for everything that is not this project's own."""
    for title, (folder, pattern) in VENDORED.items():
        yield (
            title,
            "\n\n".join(p.read_text("utf-8") for p in sorted((static / folder).glob(pattern))),
        )
    for name, (licence, *_) in PACKAGES.items():
        found = distribution(name)
        files = [p for p in found.files if "dist-info" in str(p) and "LICENSE" in p.name]
        text = "\n\n".join([WITHIN.get(name, ""), *(p.read_text("utf-8") for p in files)])
        yield f"{name} {found.version}, {licence}", text.strip()


def write(app, exception):
    """Put the list beside the files that it is about."""
    if exception is None and app.builder.format == "html":
        static = Path(app.outdir, "_static")
        parts = [f"{title}\n{'=' * len(title)}\n\n{text}\n" for title, text in texts(static)]
        head = "Whose the files of others are that the site of this book carries:\n"
        (static / FILE).write_text("\n\n".join([head, *parts]), encoding="utf-8")


def setup(app):
    """Write when all other files are there."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
