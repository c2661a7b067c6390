"""Sphinx extension: figures for dark mode, roles that screen readers know, columns that stay."""

import re

# What book.css does to figures in dark mode. Paper and ink change places: in sRGB, with white
# w = min(R, G, B), black k = 1 - max(R, G, B) and chroma c = 1 - w - k, a pixel p becomes
# p - w + w paper + k ink + w c / 2. White turns to the page's background, black to the colour of
# its text, and every colour keeps its hue; the last term keeps pale colours apart from the page.
# Each sum is one whose alpha comes to one, too: hence 1 - w, 1 - c and 1 - w c / 2.
SWAP = """
<feColorMatrix in="SourceGraphic" result="r" values="-1 0 0 0 1 -1 0 0 0 1 -1 0 0 0 1 0 0 0 0 1"/>
<feColorMatrix in="SourceGraphic" result="g" values="0 -1 0 0 1 0 -1 0 0 1 0 -1 0 0 1 0 0 0 0 1"/>
<feColorMatrix in="SourceGraphic" result="b" values="0 0 -1 0 1 0 0 -1 0 1 0 0 -1 0 1 0 0 0 0 1"/>
<feBlend in="r" in2="g" mode="lighten"/>
<feBlend in2="b" mode="lighten" result="1-w"/>
<feBlend in="r" in2="g" mode="darken"/>
<feBlend in2="b" mode="darken" result="k"/>
<feComposite operator="arithmetic" in="1-w" in2="k" k2="-1" k3="1" k4="1" result="1-c"/>
<feComposite operator="arithmetic" in="1-w" in2="1-c" k1="-.5" k2=".5" k3=".5" k4=".5"
  result="1-wc/2"/>
<feColorMatrix in="1-w" result="paper"
  values="-.0706 0 0 0 .0706 -.0706 0 0 0 .0706 -.0706 0 0 0 .0706 0 0 0 0 1"/>
<feColorMatrix in="k" result="ink" values=".808 0 0 0 0 .839 0 0 0 0 .867 0 0 0 0 0 0 0 0 1"/>
<feComposite operator="arithmetic" in="SourceGraphic" in2="1-w" k2="1" k3="1" k4="-1"/>
<feComposite operator="arithmetic" in2="1-wc/2" k2="1" k3="-1" k4="1"/>
<feComposite operator="arithmetic" in2="paper" k2="1" k3="1"/>
<feComposite operator="arithmetic" in2="ink" k2="1" k3="1"/>
<feComposite operator="in" in2="SourceGraphic" result="swapped"/>
"""
# A map's colours mean something, so a map stays as drawn: what is left of the pixels that are not
# white when thin ink is opened away and the rings around points are closed. Radii are shares of
# the picture's width and height.
KEEP = """
<feColorMatrix in="1-w" values="0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 50 0 0 0 -1"/>
<feMorphology operator="erode" radius=".006 .008"/>
<feMorphology operator="dilate" radius=".0115 .0155"/>
<feMorphology operator="erode" radius=".0055 .0075" result="map"/>
<feComposite operator="in" in="SourceGraphic" in2="map"/>
<feComposite operator="over" in2="swapped"/>
"""
BOX = 'x="0" y="0" width="1" height="1" color-interpolation-filters="sRGB"'
FILTERS = f"""
<svg width="0" height="0" style="position: absolute" aria-hidden="true">
<filter id="dark-figure" {BOX}>{SWAP}</filter>
<filter id="dark-map" {BOX} primitiveUnits="objectBoundingBox">{SWAP}{KEEP}</filter>
</svg>
"""


OUTPUT = re.compile(
    r'(<div class="output stream[^"]*)("><div class="highlight"><pre>)(.*?)</pre>', re.DOTALL
)


def columns(match):
    """Mark an output in which two lines or more have columns: it is not to wrap."""
    lines = re.sub("<.*?>", "", match[3]).splitlines()
    aligned = sum(re.search(r"\S {2,}\S", line) is not None for line in lines) > 1
    return f"{match[1]} columns{match[0][len(match[1]) :]}" if aligned else match[0]


def mend(app, pagename, templatename, context, doctree):
    """Give bibliographies roles that are still in use, and pages what their figures need."""
    if "body" in context:
        body = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
        context["body"] = OUTPUT.sub(columns, body) + FILTERS


def setup(app):
    """Change each page's body just before it is written."""
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
