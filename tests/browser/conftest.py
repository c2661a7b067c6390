"""A headless Chromium on the built site, served from this machine."""

import os
from pathlib import Path

import headless
import pytest
from playwright.sync_api import sync_playwright

SITE = Path(os.environ.get("SITE", headless.SITE))


@pytest.fixture(scope="session")
def address():
    """The site's address on this machine."""
    if not (SITE / "index.html").exists():
        pytest.fail(f"no site in {SITE}: run 'make book' first")
    with headless.serve(SITE) as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    """Chromium, Debian's or the runner's own."""
    found = headless.chromium()
    if found is None:
        missing = f"no browser found (looked for {', '.join(headless.NAMES)})"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=headless.QUIET)
        yield browser
        browser.close()


def opened(browser, address, name, width, scheme):
    """Open a page in a context of its own; it lists what it logged and asked for."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.faults, page.requested, page.responses = [], [], []
    page.on(
        "console",
        lambda m: page.faults.append(f"console: {m.text}") if m.type == "error" else None,
    )
    page.on("pageerror", lambda error: page.faults.append(f"exception: {error}"))
    page.on("response", lambda response: page.responses.append(response))
    page.on("request", lambda request: page.requested.append(request.url))
    page.on(
        "response",
        lambda r: page.faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None,
    )
    page.goto(f"{address}/{name}", wait_until="load")
    page.evaluate("() => window.MathJax?.startup?.promise")
    return page


@pytest.fixture
def visit(browser, address):
    """Open a page of the site for one test alone."""
    pages = []

    def visit(name, width=1280, scheme="light"):
        pages.append(opened(browser, address, name, width, scheme))
        return pages[-1]

    yield visit
    for page in pages:
        page.context.close()


#: The scheme in which a shared page is loaded; it turns to the other one as a reader's system does.
LOADED = {1280: "light", 390: "dark"}


@pytest.fixture(scope="session")
def shared(browser, address):
    """The page of the site that is open now, by width; tests of one page follow each other."""
    pages = {}

    def shared(name, width=1280, scheme="light"):
        if any(page.name != name for page in pages.values()):
            shared.close()
        if width not in pages:
            page = opened(browser, address, name, width, LOADED[width])
            page.name = name
            pages[width] = page
            if page.locator('script[type*="widget-view"]').count():
                page.wait_for_selector(".widget-subarea img")
            page.wait_for_load_state("networkidle")
        page = pages[width]
        turn(page, scheme)
        return page

    def close(*widths):
        for width in widths or list(pages):
            pages.pop(width).context.close()

    shared.close = close
    yield shared
    close()


# An end of one change may begin another. To wait for them took time, and once in a while for ever.
SETTLE = """() => {
    const running = () => document.getAnimations().filter(animation =>
        animation.playState == 'running' && isFinite(animation.effect.getComputedTiming().endTime));
    for (let all; (all = running()).length;) all.forEach(animation => animation.finish());
}"""


def turn(page, scheme):
    """Change the system's colour scheme, and bring the page's changes of colour to their end."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function("scheme => document.documentElement.dataset.theme == scheme", arg=scheme)
    page.evaluate(SETTLE)


@pytest.fixture
def look(shared):
    """Look at a page that others look at, too: nothing on it may be changed."""
    return shared


@pytest.fixture
def operate(shared):
    """Use the controls of a page that others look at before, and put them back."""
    return shared


@pytest.fixture
def alter(shared):
    """Take a shared page in order to change it: it is closed after the test."""
    widths = set()

    def alter(name, width=1280):
        widths.add(width)
        return shared(name, width, LOADED[width])

    yield alter
    shared.close(*widths)
