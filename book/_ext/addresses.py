"""Sphinx extension: links that only a published book has, from addresses in the environment.

``BOOK_REPOSITORY_URL`` (with ``BOOK_REPOSITORY_BRANCH``, ``main`` by default) adds the buttons that
launch, edit and report, and is written into the notebooks for elsewhere. ``BOOK_SITE_URL`` adds
canonical links, cards, the site map, the link to the PDF, and the links of those notebooks. Without
them, none of these appear.
"""

import os
import shutil
from pathlib import Path

from docutils import nodes

REPOSITORY = os.environ.get("BOOK_REPOSITORY_URL", "").rstrip("/")
BRANCH = os.environ.get("BOOK_REPOSITORY_BRANCH") or "main"
#: Where `tools/notebooks_branch.py` puts what Colab and Binder open.
NOTEBOOKS = "notebooks"
SITE = os.environ.get("BOOK_SITE_URL", "").rstrip("/")
CARD = "book/images/after.png"


def configure(app, config):
    """Fill in the theme's options."""
    if SITE:
        config.html_baseurl = config.ogp_site_url = f"{SITE}/"
        config.ogp_site_name = config.project
        config.ogp_social_cards = {"enable": False}
        config.ogp_enable_meta_description = True
        config.sitemap_url_scheme = "{link}"
        config.sitemap_locales = [None]
        config.sitemap_excludes = ["search.html", "genindex.html", "prf-prf.html"]
    if REPOSITORY:
        options = config.html_theme_options
        options |= {"repository_url": REPOSITORY, "repository_branch": BRANCH, "path_to_docs": ""}
        options |= {f"use_{name}_button": True for name in ("edit_page", "repository", "issues")}
        options.setdefault("launch_buttons", {}).update(
            binderhub_url="https://mybinder.org", colab_url="https://colab.research.google.com"
        )


def aim(app):
    """Launch from the notebooks' branch; the theme has noted by now which one is to be edited."""
    if REPOSITORY:
        app.config.html_theme_options["repository_branch"] = NOTEBOOKS


def choose_card(app, pagename, templatename, context, doctree):
    """Use a page's first picture as its card, as the PNG that every network can read."""
    if not (SITE and doctree):
        return
    pictures = [node for node in doctree.findall(nodes.image) if "png" in node]
    source, alt = (pictures[0]["png"], pictures[0].get("alt")) if pictures else (CARD, None)
    target = Path(app.outdir, app.builder.imagedir, Path(source).name)
    target.parent.mkdir(exist_ok=True)
    shutil.copy(Path(app.srcdir, source), target)
    context["meta"] = {
        **(context["meta"] or {}),
        "og:image": f"{app.builder.imagedir}/{target.name}",
        "og:image:alt": alt or app.config.project,
    }


def setup(app):
    """Load what the given addresses call for."""
    if SITE:
        app.tags.add("published")
        app.setup_extension("sphinxext.opengraph")
        app.setup_extension("sphinx_sitemap")
    app.connect("config-inited", configure)
    app.connect("builder-inited", aim, priority=900)
    app.connect("html-page-context", choose_card, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
