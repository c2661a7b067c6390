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


@pytest.fixture
def visit(browser, address):
    """Open a page of the site; returns it with what it logged and asked for."""
    contexts = []

    def visit(name, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
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

    yield visit
    for context in contexts:
        context.close()
