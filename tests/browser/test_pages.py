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


def assert_quiet(page, name):
    """Nothing failed on a page, and it asked no other host."""
    site = urlsplit(page.url).netloc
    away = [u for u in page.requested if urlsplit(u).netloc != site and not u.startswith("data:")]
    assert away == [], f"{name} asks other hosts: {away}"
    assert page.faults == [], f"{name}: {page.faults}"


def test_the_site_was_built():
    assert len(PAGES) >= 9 and len(WITH_SLIDERS) >= 4


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole(look, name, width, scheme):
    page = look(name, width, scheme)
    if name in WITH_SLIDERS:
        page.wait_for_selector(".jupyter-widgets")
    assert_quiet(page, name)
    redrawn = page.locator("svg.svg-inline--fa").count()
    assert redrawn == 0, f"{name}: the theme's icon script redrew {redrawn} icons: Play is dead"
    assert page.locator("mjx-merror").count() == 0, f"{name}: an error in its mathematics"
    assert (
        page.locator("div.math, span.math").count()
        == page.locator("div.math:has(mjx-container), span.math:has(mjx-container)").count()
    ), f"{name}: mathematics that was not typeset"
    prose = page.locator("article").inner_text()
    raw = re.search(r"(\$\$|\\begin\{|\\frac).{,40}", re.sub(r"(?s)```.*?```", "", prose))
    assert not raw, f"{name}: raw mathematics: {raw[0]}"
    across = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert across <= 0, f"{name}: {across} px too wide"


@pytest.mark.parametrize("name", ["book/05_exact_expectations.html"])
def test_printed_columns_keep_their_lines_on_a_phone(look, name):
    printed = look(name, 390).locator(".cell_output .columns pre")
    assert printed.count(), "no output is marked as columns"
    styles = printed.evaluate_all("all => all.map(one => getComputedStyle(one).whiteSpace)")
    assert set(styles) == {"pre"}, styles


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_is_loaded_and_has_a_text(look, name):
    pictures = look(name).evaluate(
        """() => Promise.all([...document.images].map(async i => {
            i.loading = 'eager';
            await i.decode().catch(() => 0);
            const figure = i.matches('article .cell_output img');
            return [i.getAttribute('src').slice(0, 80), i.getAttribute('alt'),
                    i.naturalWidth, figure];
        }))"""
    )
    for source, alt, width, figure in pictures:
        assert alt is not None, f"{name}: no alt text: {source}"
        assert width > 0, f"{name}: not loaded: {source}"
        assert not figure or len(alt) > 20, f"{name}: alt text {alt!r} of {source}"


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
            assert target.scheme in ("https", "mailto"), f"{name}: {link}"
            continue
        path = SITE / unquote(target.path).lstrip("/")
        assert path.exists(), f"{name}: {link} leads nowhere"
        if target.fragment and path.suffix == ".html":
            anchors = parsed(path.resolve()).anchors
            assert unquote(target.fragment) in anchors, f"{name}: {link}: no such anchor"


SHOWN = """area => [...area.querySelectorAll('img')].filter(i => i.offsetParent).map(i => i.src)"""


@pytest.mark.parametrize("name", WITH_SLIDERS)
def test_sliders_move_their_picture_with_the_keyboard_alone(operate, name):
    page = operate(name)
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
        assert press("Home") == start
