"""Sphinx extension: pages load what they use, the text first, pictures small and late."""

import json
import re
from pathlib import Path

from PIL import Image
from sphinx.transforms.post_transforms.images import BaseImageConverter

#: Files that the theme declares on every page, and what a page that uses them contains.
USED_WITH = {"thebe": "thebe-button", "design": 'class="sd-'}
#: The icons that the theme and its buttons use, as in vendor/fontawesome; f09b is GitHub's.
ICONS = (
    "f002 f00d f010 f019 f03a f042 f04b f053 f054 f057 f058 f05a f062 f064 f065 f06a f071 f077 "
    "f078 f09b f0c1 f0c9 f0eb f0f3 f104 f105 f106 f107 f121 f135 f15b f185 f186 f1c1 f303 f35d"
)
STATE = "application/vnd.jupyter.widget-state+json"


def lean(app, pagename, templatename, context, doctree):
    """Drop scripts and styles that the page does not use; move the widgets behind its text."""
    body = context.get("body", "")
    for kind in ("script_files", "css_files"):
        kept = []
        for file in context.get(kind, []):
            declared = f"{file} {getattr(file, 'attributes', '')}"
            tag = None
            if any(name in declared and sign not in body for name, sign in USED_WITH.items()):
                continue
            if STATE in declared:
                state = shown_widgets(json.loads(file.attributes["body"]), body)
                text = json.dumps(state, separators=(",", ":")).replace("</", "<\\/")
                tag = f'<script type="{STATE}">{text}</script>'
            elif "widgets/embed.js" in declared:
                tag = context["js_tag"](file).replace(
                    "<script", '<script async fetchpriority="low"'
                )
            if tag:
                context["body"] += tag
            else:
                kept.append(file)
        context[kind] = kept
    if body:
        context["body"] = late_pictures(context["body"], app.builder)


def shown_widgets(saved, body):
    """Keep the widgets that the page shows, what they are made of, and the links between them."""
    models = saved["state"]
    parts = {name: set(re.findall(r"IPY_MODEL_(\w+)", json.dumps(m))) for name, m in models.items()}
    kept, found = set(), set(re.findall(r'"model_id": "(\w+)"', body))
    while found:
        kept |= found
        found = set().union(*(parts.get(name, ()) for name in found)) - kept
    kept |= {
        name
        for name, model in models.items()
        if model["model_name"].endswith("LinkModel") and parts[name] <= kept
    }
    return {**saved, "state": {name: m for name, m in models.items() if name in kept}}


def late_pictures(body, builder):
    """Give pictures their size, so that nothing jumps, and fetch all but the first when near."""
    sources = {Path(name).name: path for path, name in builder.images.items()}
    first = True

    def sized(match):
        nonlocal first
        path = sources.get(match[1])
        if path is None:
            return match[0]
        with Image.open(Path(builder.srcdir, path)) as picture:
            width, height = picture.size
        order = 'fetchpriority="high"' if first else 'loading="lazy"'
        first = False
        return match[0].replace("<img ", f'<img width="{width}" height="{height}" {order} ', 1)

    return re.sub(
        rf'<img [^>]*src="[^"]*{builder.imagedir}/([^"/]+\.(?:webp|avif))"[^>]*>', sized, body
    )


class Smaller(BaseImageConverter):
    """Store a picture at a fifth of its weight as PNG.

    256 colours in a lossless WebP suit lines and letters; they leave steps in the smooth shades of
    a class map, which AVIF keeps at the same weight.
    """

    default_priority = 210

    def match(self, node):
        return self.app.builder.format == "html" and node["uri"].endswith(".png")

    def handle(self, node):
        source = Path(self.app.srcdir, node["uri"])
        with Image.open(source) as picture:
            colours = picture.convert("RGB")
        if colours.getcolors(5000):
            colours = colours.quantize(256, method=Image.Quantize.FASTOCTREE).convert("RGB")
            suffix, options = ".webp", {"lossless": True, "quality": 100, "method": 4}
        else:
            suffix, options = ".avif", {"quality": 85, "subsampling": "4:4:4"}
        target = Path(self.imagedir, source.with_suffix(suffix).name)
        target.parent.mkdir(parents=True, exist_ok=True)
        colours.save(target, **options)
        node["png"] = node["uri"]
        node["uri"] = str(target)
        node["candidates"] = {"*": str(target)}
        self.env.images.add_file(self.env.docname, str(target))


def drop_icons(app, exception):
    """Take the names of two thousand icons out of the theme's style sheet."""
    path = Path(app.outdir, "_static/styles/pydata-sphinx-theme.css")
    if exception is None and app.builder.format == "html":
        icon = re.compile(r'(?:\.fa-[\w-]+:before,?)+\{content:"\\?([^"]+)"\}')
        text = path.read_text(encoding="utf-8")
        path.write_text(
            icon.sub(lambda rule: rule[0] if rule[1] in ICONS else "", text), encoding="utf-8"
        )


def setup(app):
    """Connect after the theme and the extensions have added their files."""
    app.add_post_transform(Smaller)
    app.connect("html-page-context", lean, priority=1000)
    app.connect("build-finished", drop_icons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
