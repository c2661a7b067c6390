"""The search page finds words of the text and names of the module."""

import pytest

FOUND_ON = {
    "separable": {"book/02_cross_entropy_gradient.html"},
    "softmax_jvp": {"book/01_softmax_jacobian.html", "book/api.html"},
    "fit_sgd": {"book/03_variational_update.html", "book/api.html"},
}


@pytest.mark.parametrize(("word", "names"), FOUND_ON.items(), ids=FOUND_ON)
def test_search_finds(visit, address, word, names):
    page = visit("book/index.html")
    page.keyboard.press("Control+k")
    field = page.locator("#pst-search-dialog input[name=q]")
    field.wait_for(state="visible")
    field.fill(word)
    field.press("Enter")
    page.wait_for_url("**/search.html?q=*")
    page.wait_for_function("document.querySelector('#search-results p.search-summary')?.innerText")
    page.wait_for_selector("#search-results ul.search li a", timeout=10_000)
    page.wait_for_load_state("networkidle")
    hits = page.locator("#search-results ul.search > li a").evaluate_all("a => a.map(x => x.href)")
    places = {hit.removeprefix(f"{address}/").split("#")[0].split("?")[0] for hit in hits}
    assert names <= places, f"{word}: found on {sorted(places)}"
    assert page.faults == []
