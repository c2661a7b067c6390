"""Every page for those who do not see it, or see it otherwise."""

import base64
import contextlib
import io
import re
from pathlib import Path

import axe_playwright_python
import numpy as np
import pytest
from conftest import LOADED, SITE, turn
from matplotlib.colors import to_rgb
from PIL import Image
from playwright.sync_api import Error
from test_pages import PAGES, WITH_SLIDERS, assert_quiet

from vilogit.maps import PALETTE

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
WITH_MATHS = [p for p in PAGES if re.search(r'class="math ', (SITE / p).read_text())]
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
# The rules that look at colours: what the others find is the same in either scheme.
COLOURS = ["color-contrast", "link-in-text-block"]
CHECK = """([only, but, include]) => axe.run(include ? { include: [...include] } : document, {
    runOnly: only, resultTypes: ['violations'],
    rules: Object.fromEntries(but.map(rule => [rule, { enabled: false }])),
}).then(found => found.violations.flatMap(rule => rule.nodes.map(
    node => `${rule.id} at ${node.target}: ${node.failureSummary.replace(/\\s+/g, ' ')}`)))"""
PAPER, INK = (0x12, 0x12, 0x12), (0xCE, 0xD6, 0xDD)  # the theme's, in dark mode


def violations(page, only=LEVELS, but=(), include=None):
    """What axe-core finds on a page as it stands, one line each."""
    return page.evaluate(CHECK, [only, but, include])


def unfold(page):
    """Open every folded solution and cell, and wait for the theme to notice."""
    page.evaluate(
        """() => {
            document.querySelectorAll('article details').forEach(fold => fold.open = true);
            document.querySelectorAll('article .toggle-button').forEach(button => button.click());
        }"""
    )
    assert page.locator("article .toggle-hidden:visible").count() == 0
    with contextlib.suppress(Error):  # if not, axe tells which
        page.wait_for_function(
            "[...document.querySelectorAll('pre')]"
            ".every(code => code.scrollWidth <= code.clientWidth || code.tabIndex == 0)",
            timeout=3000,
        )


# Axe-core's time grows faster than a page. A formula's boxes are hidden from readers and carry no
# text: an empty box of the same size stands in.
EMPTY = """() => {
    const formulas = [...document.querySelectorAll('mjx-math[aria-hidden=true]')]
        .filter(f => !f.textContent.trim() && !f.querySelector('[tabindex], [role], a'))
        .map(f => [f, f.getBoundingClientRect()]);
    for (const [formula, { width, height }] of formulas) {
        formula.replaceChildren();
        formula.style.cssText = `display: inline-block; width: ${width}px; height: ${height}px`;
    }
}"""
# Texts of the same colour, size and weight on the same ground have the same contrast. Each element
# gets its look in this scheme: '' if it is not shown.
LOOK = """() => {
    const TEXT = ['color', 'fontSize', 'fontWeight', 'textShadow'];
    const GROUND = ['backgroundColor', 'backgroundImage', 'opacity', 'filter', 'mixBlendMode',
                    'position', 'zIndex'];
    const styles = (element, names) => names.map(name => getComputedStyle(element)[name]).join();
    const bare = 'rgba(0, 0, 0, 0),none,1,none,normal,static,auto', grounds = new Map([[null, '']]);
    const ground = element => {
        if (!grounds.has(element)) {
            const own = styles(element, GROUND), under = ground(element.parentElement);
            grounds.set(element, own == bare ? under : `${under} > ${own}`);
        }
        return grounds.get(element);
    };
    window.looks ??= new Map();
    for (const element of document.querySelectorAll('body *:not(mjx-assistive-mml *)')) {
        const shown = element.checkVisibility({ visibilityProperty: true });
        const look = shown ? styles(element, TEXT) + ground(element) : '';
        looks.set(element, [...looks.get(element) ?? [], look]);
    }
}"""
# Of each kind of text, the first and the last are judged in each scheme, and every link. Axe-core
# judges no single characters and no signs. Other words of code lose their marks, to save time.
PICK = """() => {
    const kinds = new Map(), judged = text => text.length > 1 && /[\\p{L}\\p{N}]/u.test(text);
    for (const [element, look] of looks) {
        const texts = [...element.childNodes].filter(node => node.nodeType == Node.TEXT_NODE);
        if (look.some(Boolean) && judged(texts.map(text => text.data.trim()).join(''))) {
            const kind = kinds.get(look.join()) ?? [];
            kinds.set(look.join(), [...kind.slice(0, 1), element]);
        }
    }
    window.picked = new Set([...kinds.values()].flat());
    document.querySelectorAll('a[href]').forEach(link => picked.add(link));
    for (const word of document.querySelectorAll('pre span')) {
        const bare = !word.children.length && [...word.attributes].every(a => a.name == 'class');
        if (bare && !picked.has(word)) word.replaceWith(...word.childNodes);
    }
    document.querySelectorAll('pre').forEach(code => code.normalize());
    return [...looks].filter(([, look]) => look.some(Boolean) && !look.every(Boolean))
        .map(([element]) => `shown in one scheme only: ${element.outerHTML.slice(0, 100)}`);
}"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_barrier(alter, name, width):
    page = alter(name, width)
    if name in WITH_SLIDERS:
        page.wait_for_selector(".noUi-handle[aria-label]")
    unfold(page)
    assert_quiet(page, name)  # now: axe-core itself asks for style sheets that are not there
    page.evaluate(EMPTY)
    schemes = sorted(["light", "dark"], key=LOADED[width].__ne__)
    for scheme in schemes:
        turn(page, scheme)
        page.evaluate(LOOK)
    found = page.evaluate(PICK)
    page.evaluate(AXE)
    found += violations(page, but=COLOURS)
    # MathML for screen readers has no colour, and nothing moves without it.
    page.evaluate("document.querySelectorAll('mjx-assistive-mml').forEach(m => m.remove())")
    picked = page.evaluate_handle("picked")
    for scheme in reversed(schemes):
        turn(page, scheme)
        found += [f"{scheme}: {fault}" for fault in violations(page, COLOURS, include=picked)]
    assert not found, "\n".join([f"{name}, {width} px wide", *found])


def test_search_and_the_menu_of_a_phone_have_no_barrier(visit):
    page = visit("book/index.html", 390, "light")  # with the next, the two looks that no shared
    assert_quiet(page, "index, 390 px, light")  # page is loaded in
    page.locator(".primary-toggle").click()
    page.wait_for_selector(".bd-sidebar-primary .nav:visible")
    page.evaluate(AXE)
    assert violations(page) == []
    page = visit("book/index.html", 1280, "dark")
    assert_quiet(page, "index, 1280 px, dark")
    page.keyboard.press("Control+k")
    page.wait_for_selector("dialog[open]")
    page.evaluate(AXE)
    assert violations(page) == []


@pytest.mark.parametrize("name", WITH_MATHS)
def test_every_formula_has_its_mathml(look, name):
    page = look(name)
    spoken = page.evaluate(
        """() => [...document.querySelectorAll('mjx-container')].map(formula => ({
            hidden: formula.querySelector('mjx-math').getAttribute('aria-hidden'),
            mathml: formula.querySelector('mjx-assistive-mml > math')?.textContent,
        }))"""
    )
    assert spoken, f"{name}: no formula"
    for number, formula in enumerate(spoken):
        assert formula["hidden"] == "true", f"{name}: formula {number} is spoken twice"
        assert (formula["mathml"] or "").strip(), f"{name}: formula {number} has no MathML"


def test_mathml_says_what_the_page_shows(look):
    page = look("book/index.html")
    found = page.evaluate(
        """() => [...document.querySelectorAll('mjx-assistive-mml > math')].map(math =>
            [math.textContent.replace(/[\\s\u2061]/g, ''), math.innerHTML])"""
    )
    assert found[0][0] == "q"
    jacobian = next(inner for text, inner in found if text == "diag(α)−αα⊤")
    assert re.search(r"<msup>.*α.*⊤.*</msup>", jacobian, re.DOTALL)
    assert any("<msub>" in inner and text == "(αd−ynd)xnm" for text, inner in found)


def pixels(locator):
    """A screenshot of one element, (height, width, 3)."""
    locator.evaluate("element => element.scrollIntoView({ block: 'center', behavior: 'instant' })")
    shot = locator.page.screenshot(clip=locator.bounding_box())
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


# The landing page draws its own picture over the still one.
WITH_FIGURES = [
    p
    for p in PAGES
    if "<img" in (SITE / p).read_text().split("<article", 1)[1] and p != "book/index.html"
]


@pytest.mark.parametrize("name", WITH_FIGURES)
def test_figures_stand_on_the_paper_of_the_page(look, name):
    for scheme, paper in (("light", (255, 255, 255)), ("dark", PAPER)):
        page = look(name, scheme=scheme)
        figures = page.locator("article img:visible")
        assert figures.count(), f"{name}: no figure"
        for figure in figures.all():
            figure.evaluate("i => { i.loading = 'eager'; return i.decode(); }")
            picture = pixels(figure)
            corners = picture[[2, 2, -3, -3], [2, -3, 2, -3]]
            off = np.abs(corners - paper).max(axis=1)
            text = (figure.get_attribute("alt") or "")[:60]
            assert np.sum(off <= 3) >= 3, f"{name}, {scheme}: corners {corners.tolist()}: {text}"


@pytest.mark.parametrize("name", ["book/04_visualization.html"])
def test_the_switch_of_the_page_turns_figures_and_leaves_maps_alone(operate, name):
    page = operate(name)

    def switch(choice):
        for _ in range(3):
            if page.evaluate("document.documentElement.dataset.mode") != choice:
                page.locator(".theme-switch-button:visible").first.click()
        page.mouse.move(0, 0)
        page.wait_for_function(f"document.documentElement.dataset.mode == '{choice}'")

    figure = page.locator("article figure img.class-map").first
    before = pixels(figure)
    switch("dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    after = pixels(figure)
    switch("auto")
    assert before.shape == after.shape
    np.testing.assert_allclose(after[3, 3], PAPER, atol=2)
    coloured = np.ptp(before, axis=2) > 40
    assert coloured.mean() > 0.3, "a picture without maps"
    changed = (np.abs(after - before).max(axis=2) > 3)[coloured].mean()
    assert changed < 0.02, f"{changed:.0%} of the maps' pixels changed"


@pytest.mark.parametrize("name", ["book/01_softmax_jacobian.html"])
def test_every_class_stands_out_from_dark_paper(operate, name):
    """The filter on flat patches: white, black, then the palette."""
    codes = np.array([[round(255 * c) for c in to_rgb(code)] for code in PALETTE])
    patches = np.concatenate([[[255] * 3, [0] * 3], codes]).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.repeat(np.repeat(patches[None], 40, 0), 40, 1)).save(file, "png")
    page = operate(name, scheme="dark")
    page.evaluate(
        """data => document.querySelector('article figure').insertAdjacentHTML('beforeend',
            `<img id="patches" src="data:image/png;base64,${data}">`)""",
        base64.b64encode(file.getvalue()).decode(),
    )
    page.locator("#patches").evaluate("image => image.decode()")
    shown = pixels(page.locator("#patches"))[20, 20::40]
    page.locator("#patches").evaluate("image => image.remove()")
    np.testing.assert_allclose(shown[0], PAPER, atol=2)
    np.testing.assert_allclose(shown[1], INK, atol=2)
    encoded = shown / 255
    light = np.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)
    luminance = light @ [0.2126, 0.7152, 0.0722]
    contrast = (luminance[1:] + 0.05) / (luminance[0] + 0.05)
    assert contrast[0] > 7, "text"
    assert (contrast[1:] >= 3).all(), dict(zip(PALETTE, contrast[1:].round(1), strict=True))
