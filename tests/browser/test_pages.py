"""Every page of the built site, as a reader meets it."""

import functools
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from conftest import SITE

PAGES = sorted(str(p.relative_to(SITE)) for p in SITE.glob("book/*.html"))
WITH_SLIDERS = [p for p in PAGES if "application/vnd.jupyter.widget-view" in (SITE / p).read_text()]
LOOKS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]


def test_the_site_was_built():
    assert len(PAGES) >= 9 and len(WITH_SLIDERS) >= 4


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole(visit, name, width, scheme):
    page = visit(name, width, scheme)
    if name in WITH_SLIDERS:
        page.wait_for_selector(".jupyter-widgets")
    page.wait_for_load_state("networkidle")
    site = urlsplit(page.url).netloc
    away = [u for u in page.requested if urlsplit(u).netloc != site and not u.startswith("data:")]
    assert away == [], f"{name} asks other hosts: {away}"
    assert page.faults == [], f"{name}: {page.faults}"
    redrawn = page.locator("svg.svg-inline--fa").count()
    assert redrawn == 0, f"{name}: the theme's icon script redrew {redrawn} icons: Play is dead"
    assert page.locator("mjx-merror").count() == 0, f"{name}: an error in its mathematics"
    assert (
        page.locator("div.math, span.math").count()
        == page.locator("div.math:has(mjx-container), span.math:has(mjx-container)").count()
    ), f"{name}: mathematics that was not typeset"
    prose = page.locator("article").inner_text()
    assert not re.search(r"\$\$|\\begin\{|\\frac", re.sub(r"(?s)```.*?```", "", prose))
    across = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert across <= 0, f"{name}: {across} px too wide"


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_is_loaded_and_has_a_text(visit, name):
    page = visit(name)
    page.wait_for_load_state("networkidle")
    for picture in page.locator("img").all():
        source = picture.get_attribute("src")[:80]
        assert picture.get_attribute("alt") is not None, f"{name}: no alt text: {source}"
        picture.evaluate("i => { i.loading = 'eager'; return i.decode().catch(() => 0); }")
        assert picture.evaluate("i => i.naturalWidth") > 0, f"{name}: not loaded: {source}"
    for picture in page.locator("article .cell_output img").all():
        alt, source = picture.get_attribute("alt"), picture.get_attribute("src")[:80]
        assert len(alt) > 20, f"{name}: alt text {alt!r} of {source}"


class _Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        for key in ("href", "src"):
            if attributes.get(key) and not attributes[key].startswith(("data:", "javascript:")):
                self.links.append(attributes[key])


@functools.cache
def parsed(path):
    return _Links(path.read_text())


@pytest.mark.parametrize("name", ["index.html", *PAGES])
def test_every_link_inside_the_site_resolves(name):
    for link in parsed((SITE / name).resolve()).links:
        target = urlsplit(urljoin(f"http://site.invalid/{name}", link))
        if target.netloc != "site.invalid":
            assert target.scheme in ("https", "mailto"), link
            continue
        path = SITE / unquote(target.path).lstrip("/")
        assert path.exists(), f"{link} leads nowhere"
        if target.fragment and path.suffix == ".html":
            anchors = parsed(path.resolve()).anchors
            assert unquote(target.fragment) in anchors, f"{link}: no such anchor"


SHOWN = """area => [...area.querySelectorAll('img')].filter(i => i.offsetParent).map(i => i.src)"""


@pytest.mark.parametrize("name", WITH_SLIDERS)
def test_sliders_move_their_picture_with_the_keyboard_alone(visit, name):
    page = visit(name)
    page.wait_for_selector(".noUi-handle")
    page.wait_for_selector(".widget-subarea img")
    for book in page.locator(".widget-subarea").all():
        handle, play = book.locator(".noUi-handle"), book.locator(".widget-play button").first

        def shows():
            (source,) = book.evaluate(SHOWN)  # noqa: B023
            return source

        def press(key):
            handle.focus()  # noqa: B023
            page.keyboard.press(key)
            return shows()

        start = shows()
        assert press("Home") == start, "a flip book starts at its first frame"
        second = press("ArrowRight")
        assert second != start, "the right arrow key left the picture as it was"
        assert press("ArrowLeft") == start, "the left arrow key did not lead back"
        last = press("End")
        assert last not in (start, second), "the End key did not lead to the last frame"
        picture = book.locator("img:visible").get_attribute("alt")
        assert handle.get_attribute("aria-valuetext") == picture, "the slider says something else"
        assert press("Home") == start

        handle.scroll_into_view_if_needed()
        box, knob = book.locator(".noUi-base").bounding_box(), handle.bounding_box()
        page.mouse.move(knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"], knob["y"] + knob["height"] / 2, steps=5)
        page.mouse.up()
        assert shows() == last, "dragging to the end did not show the last frame"
        assert press("Home") == start

        play.focus()
        page.keyboard.press("Enter")
        page.wait_for_function(f"([area, start]) => ({SHOWN})(area)[0] != start",
                               arg=[book.element_handle(), start], timeout=10_000)  # fmt: skip
        page.keyboard.press("Enter")
