"""The book on paper: printed from the site, then read back."""

import html
import re
import subprocess
import sys

import headless
import pytest
from conftest import SITE
from pypdf import PdfReader
from test_pages import PAGES

TOOL = headless.SITE.parents[1] / "tools" / "pdf.py"


@pytest.fixture(scope="module")
def printed(tmp_path_factory, browser):
    target = tmp_path_factory.mktemp("pdf") / "book.pdf"
    done = subprocess.run(
        [sys.executable, TOOL, SITE, target], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return PdfReader(target)


@pytest.fixture(scope="module")
def leaves(printed):
    return [page.extract_text() for page in printed.pages]


def bookmarks(printed):
    chapters = [item for item in printed.outline if not isinstance(item, list)]
    return {item.title: printed.get_destination_page_number(item) for item in chapters}


def test_every_page_of_the_site_is_in_the_bookmarks_and_the_contents(printed, leaves):
    heads = [re.search("<title>(.+?)</title>", (SITE / name).read_text())[1] for name in PAGES]
    titles = [html.unescape(head).split(" \u2014 ")[0] for head in heads]
    marks = bookmarks(printed)
    assert sorted(marks) == sorted(titles)
    first = min(marks.values())
    contents = " ".join(" ".join(leaves[:first]).split())
    for title, at in marks.items():
        assert f"{title} {at + 1}" in contents, f"{title}: not in the contents with page {at + 1}"
        assert title in " ".join(leaves[at].split()), f"{title}: page {at + 1} does not carry it"


def test_every_leaf_after_the_first_carries_its_number(leaves):
    assert len(leaves) > 80
    assert "CC BY 4.0" in leaves[0]
    for number, text in enumerate(leaves[1:], 2):
        assert text.split()[-1] == str(number), f"page {number} ends with {text[-30:]!r}"


def test_mathematics_is_typeset(leaves):
    for number, text in enumerate(leaves, 1):
        raw = re.search(r"\$\$|\\begin\{|\\frac\{|\\\(|\\\[", text)
        assert not raw, f"page {number}: {text[raw.start() - 40 : raw.end() + 40]!r}"
    assert sum(text.count("∑") for text in leaves) > 20
