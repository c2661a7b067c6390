"""The landing page's picture that follows the reader's points, against vilogit."""

import numpy as np
import pytest
from conftest import SITE
from matplotlib import colormaps

import vilogit
from vilogit.maps import blend

PAGE = "book/index.html"
SCRIPT = "explore.js"
LAYER = "#explore [role=application]"

SETS = {
    "separable": [(-3, 1, 0), (-2, 2, 0), (3, 1, 1), (2, 2, 1), (0, -3, 2), (1, -4, 2)],
    "a class is absent": [(-3, 1, 0), (-2, 2, 0), (3, 1, 2), (2, 2, 2), (0, -3, 0)],
    "four": [(-3, 1, 0), (2.5, 1, 1), (0, -3, 2), (1, 1, 0)],
    "one": [(1, 2, 1)],
    "on top of each other": [(1, 2, 1), (1, 2, 1), (1, 2, 0), (1, 2, 2), (5, 5, 0), (5, 5, 0)],
    "far apart": [(-30, 10, 0), (25, 10, 1), (0, -30, 2), (10, 10, 0)],
}


def reference(points):
    """What vilogit makes of points (x1, x2, label), as closely as it can."""
    points = np.array(points)
    X, y = np.column_stack([points[:, :2], np.ones(len(points))]), points[:, 2].astype(int)
    return vilogit.fit(X, y, n_classes=3, tol=1e-12, accuracy=1e-9, max_evaluations=2000)


def fit(page, points):
    """What the page makes of them."""
    points = [dict(zip(("x1", "x2", "label"), map(float, p), strict=True)) for p in points]
    script = "points => vilogitExplore.fit(points, { accuracy: 1e-9, tol: 1e-13 })"
    found = page.evaluate(script, points)
    return found, *np.split(np.array(found["theta"]).reshape(6, 3), 2)


def assert_same_numbers(page, points):
    found, mean, log_scale = fit(page, points)
    right = reference(points)
    assert found["gap"] <= 1e-13, f"stopped at a gap of {found['gap']:.1e}"
    assert abs(found["elbo"] - right.elbo) < 1e-6, f"ELBO {found['elbo']}, not {right.elbo}"
    np.testing.assert_allclose(mean / right.scale, right.mean / right.scale, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.exp(log_scale) / right.scale, 1, rtol=0, atol=1e-6)


def at_rest(page):
    """Wait for the exact picture; return its points and what it shows and says."""
    page.wait_for_selector("#explore [role=status][aria-busy=false]")
    state = page.evaluate("vilogitExplore.state()")
    state["points"] = [(p["x1"], p["x2"], p["label"]) for p in state["points"]]
    canvases = page.locator("#explore canvas")
    state["pictures"] = canvases.evaluate_all("all => all.map(c => c.toDataURL())")
    state["texts"] = canvases.evaluate_all("all => all.map(c => c.ariaLabel)")
    state["status"] = page.locator("#explore [role=status]").inner_text()
    return state


def assert_all_changed(before, after):
    for part in ("pictures", "texts"):
        for what, old, new in zip(("map", "doubt"), before[part], after[part], strict=True):
            assert old != new, f"the {what}'s {part} stayed"
    assert before["status"] != after["status"] and before["elbo"] != after["elbo"]


def middle(locator):
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.fixture
def page(visit):
    page = visit(PAGE)
    page.locator(LAYER).scroll_into_view_if_needed()
    return page


@pytest.mark.parametrize("points", SETS.values(), ids=SETS)
def test_its_numbers_are_those_of_vilogit(look, points):
    assert_same_numbers(look(PAGE), points)


def test_its_numbers_are_those_of_vilogit_on_the_toy_problem(look):
    data = vilogit.simulate(np.random.default_rng(1))
    assert_same_numbers(look(PAGE), np.column_stack([data.X[:, :2], data.y]))


def test_a_drag_with_the_mouse_moves_the_point_the_fit_and_the_picture(page):
    before = at_rest(page)
    point = page.locator(f"{LAYER} button").nth(8)
    x, y = middle(point)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 70, y + 60, steps=8)
    page.mouse.up()
    after = at_rest(page)
    unit = page.locator(LAYER).bounding_box()["width"] / 10
    moved = (before["points"][8][0] - 70 / unit, before["points"][8][1] - 60 / unit, 1)
    np.testing.assert_allclose(after["points"][8], moved, rtol=0, atol=0.01)
    rest = [k for k in range(18) if k != 8]
    assert [after["points"][k] for k in rest] == [before["points"][k] for k in rest]
    assert_all_changed(before, after)
    assert abs(after["elbo"] - reference(after["points"]).elbo) < 1e-6
    assert_same_numbers(page, after["points"])


def test_a_finger_drags_a_point_and_taps_add_one(browser, address):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    page.goto(f"{address}/{PAGE}")
    before = at_rest(page)
    for point in page.locator(f"{LAYER} button").all():
        assert min(point.bounding_box()[side] for side in ("width", "height")) >= 24
    page.locator(LAYER).evaluate("layer => layer.scrollIntoView({ block: 'center' })")
    x, y = middle(page.locator(f"{LAYER} button").nth(8))
    touch = context.new_cdp_session(page)
    for kind, ahead in [("Start", 0), *(("Move", k) for k in range(10, 70, 10)), ("End", None)]:
        points = [] if ahead is None else [{"x": x - ahead, "y": y + ahead}]
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    after = at_rest(page)
    assert after["points"][8][0] < before["points"][8][0] - 1
    assert after["points"][8][1] < before["points"][8][1] - 1
    assert_all_changed(before, after)

    page.locator("#explore label").nth(2).tap()
    page.locator(LAYER).evaluate("layer => layer.scrollIntoView({ block: 'center' })")
    box = page.locator(LAYER).bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.5)
    added = at_rest(page)["points"]
    assert len(added) == 19
    np.testing.assert_allclose(added[-1], (4, 0, 2), rtol=0, atol=0.05)
    context.close()


def test_the_keyboard_alone_moves_adds_and_removes(page):
    before = at_rest(page)
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate(f"document.activeElement.closest('{LAYER}') !== null"):
            break
    else:
        pytest.fail("the Tab key leads to no point")
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring != "none", "no focus ring"
    scrolled = page.evaluate("scrollY")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    moved = at_rest(page)
    assert page.evaluate("scrollY") == scrolled, "the arrow keys scrolled the page, too"
    step = np.subtract(moved["points"], before["points"])
    np.testing.assert_allclose(step[8], (-0.25, -0.3, 0), rtol=0, atol=1e-12)
    assert np.abs(np.delete(step, 8, axis=0)).max() == 0
    assert_all_changed(before, moved)

    page.keyboard.press("PageDown")
    page.keyboard.press("ArrowRight")
    assert at_rest(page)["points"][9][0] == before["points"][9][0] + 0.25
    page.keyboard.press("Delete")
    gone = at_rest(page)
    assert len(gone["points"]) == 17
    assert "orange squares: 5," in gone["texts"][0]
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    added = at_rest(page)
    assert added["points"][-1] == (0, 0, 1)
    page.keyboard.press("ArrowUp")
    assert at_rest(page)["points"][-1] == (0, 0.25, 1)


def test_buttons_clicks_and_double_clicks_change_the_points(page):
    start = at_rest(page)
    page.get_by_role("button", name="Remove all").click()
    none = at_rest(page)
    assert none["points"] == []
    assert none["gap"] < 1e-8 and abs(none["elbo"]) < 1e-8, "not the prior"
    box = page.locator(LAYER).bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.3)
    one = at_rest(page)
    np.testing.assert_allclose(one["points"], [(-3, 2, 0)], rtol=0, atol=0.05)
    page.locator(f"{LAYER} button").dblclick()
    assert at_rest(page)["points"] == []
    page.get_by_role("button", name="Remove the selected").click()
    page.get_by_role("button", name="Add one").click()
    assert at_rest(page)["points"] == [(0, 0, 0)]
    page.get_by_role("button", name="Start again").click()
    again = at_rest(page)
    assert again["points"] == start["points"] and page.faults == []


def test_the_colours_are_those_of_vilogit(look):
    page = look(PAGE)
    page.locator(LAYER).scroll_into_view_if_needed()
    state = at_rest(page)
    posterior = reference(state["points"])
    where = np.array([(x1, x2) for x1 in (-4.5, -1.9, 0.2, 2.6, 4.6) for x2 in (-4.6, -2.2, 4.4)])
    where = where[[min(np.hypot(*(w - p[:2])) for p in state["points"]) > 0.4 for w in where]]
    script = """(canvas, spots) => spots.map(([x1, x2]) => [...canvas.getContext('2d').getImageData(
        canvas.width * (5 + x1) / 10, canvas.width * (5 - x2) / 10, 1, 1).data].slice(0, 3))"""
    canvases = page.locator("#explore canvas")
    shown = [np.array(canvases.nth(k).evaluate(script, where.tolist())) / 255 for k in (0, 1)]
    inputs = np.column_stack([where, np.ones(len(where))])
    hues = blend(posterior.predict_proba(inputs))
    light = np.where(hues <= 0.04045, hues / 12.92, ((hues + 0.055) / 1.055) ** 2.4)
    light = 0.1 + 0.9 * light
    paper = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    # The map's cells are 0.125 wide and a pixel 0.03; a line of the border may cross a few.
    assert np.mean(np.abs(shown[0] - paper).max(axis=1) < 0.03) > 0.8
    stops, share = np.linspace(0, 1, 5), posterior.uncertainty(inputs)[2] / 0.5
    doubt = [np.interp(share, stops, channel) for channel in colormaps["viridis"](stops).T[:3]]
    np.testing.assert_allclose(shown[1], np.transpose(doubt), rtol=0, atol=0.02)


def test_without_javascript_the_still_picture_stands_there(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/{PAGE}")
    picture = page.locator("#explore-still img")
    assert picture.is_visible() and len(picture.get_attribute("alt")) > 20
    assert not page.locator("#explore").is_visible()
    context.close()


def test_with_javascript_it_takes_the_still_pictures_place(look):
    page = look(PAGE)
    assert page.locator("#explore").is_visible()
    assert not page.locator("#explore-still").is_visible()


def test_no_other_page_loads_the_script():
    loads = {p.name for p in SITE.glob("**/*.html") if SCRIPT in p.read_text()}
    assert loads == {"index.html"}


def test_the_script_is_at_most_300_lines():
    lines = (SITE / "_static" / SCRIPT).read_text().splitlines()
    assert len(lines) <= 300 and max(map(len, lines)) <= 100
