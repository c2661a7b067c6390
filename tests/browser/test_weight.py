"""What a page weighs over the wire, scrolled to its end, and whether its icons are in its fonts."""

import gzip
from urllib.parse import urlsplit

import pytest
from test_pages import PAGES, WITH_SLIDERS

PACKED = ("image/", "font/", "application/font")  # sent as they are; the rest is gzip-compressed
END = "() => scrollTo(0, document.documentElement.scrollHeight)"


def wire_size(response):
    body = response.body()
    kind = response.headers.get("content-type", "")
    packed = kind.startswith(PACKED) and "svg" not in kind
    return len(body if packed else gzip.compress(body, 6))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light(look, name):
    page = look(name)
    page.evaluate("document.querySelectorAll('img').forEach(i => { i.loading = 'eager'; })")
    page.evaluate(END)
    page.wait_for_load_state("networkidle")
    sizes = {urlsplit(r.url).path: wire_size(r) for r in page.responses if r.url.startswith("http")}
    total, budget = sum(sizes.values()), 1_200_000 if name in WITH_SLIDERS else 700_000
    heaviest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    assert len(sizes) > 20, f"{name}: only {len(sizes)} responses were seen"
    assert total <= budget, f"{name}: {total} bytes of {budget}; heaviest {heaviest}"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_for_widgets_only_where_it_has_them(look, name):
    page = look(name)
    embedded = any("widgets/embed.js" in url for url in page.requested)
    assert embedded == (name in WITH_SLIDERS), f"{name}: widget script fetched: {embedded}"


@pytest.mark.parametrize("name", PAGES)
def test_every_icon_is_in_the_font(look, name):
    """A sign that the cut-down font lacks is drawn as the box of a sign that no font has."""
    page = look(name)
    page.evaluate("() => document.fonts.ready")
    missing = page.evaluate(
        """() => {
            const pen = document.createElement('canvas').getContext('2d');
            const draw = (sign, font) => {
                pen.clearRect(0, 0, 300, 150);
                pen.font = font;
                pen.fillText(sign, 20, 80);
                return pen.getImageData(0, 0, 300, 150).data.join();
            };
            return [...document.querySelectorAll('i[class*="fa-"]')].filter(icon => {
                const style = getComputedStyle(icon, '::before');
                const sign = style.content.replaceAll('"', '');
                const font = `${style.fontWeight} 40px ${style.fontFamily}`;
                return [...sign].length != 1 || draw(sign, font) == draw('\\uefff', font);
            }).map(icon => icon.className);
        }"""
    )
    assert missing == [], f"{name}: icons that the font lacks: {missing}"
