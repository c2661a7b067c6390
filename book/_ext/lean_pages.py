"""Sphinx extension: drop what the theme loads on every page and no page of this book uses."""


def drop_thebe(app, pagename, templatename, context, doctree):
    """Remove the in-page kernel's scripts: they are declared twice, and point off the site."""
    for kind in ("script_files", "css_files"):
        context[kind] = [
            file
            for file in context.get(kind, [])
            if "thebe" not in f"{file} {getattr(file, 'attributes', '')}"
        ]


def setup(app):
    """Connect after the theme and the extensions have added their files."""
    app.connect("html-page-context", drop_thebe, priority=1000)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
