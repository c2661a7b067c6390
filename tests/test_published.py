"""What a published book adds, built with addresses and without, and how its notebooks start."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import notebooks_branch
import pytest
from builds import CHAPTERS, REPOSITORY, ROOT, SITE, pages


class Head(HTMLParser):
    """A page's links, and the properties that its head declares."""

    def __init__(self, path):
        super().__init__()
        self.links, self.properties, self.canonical = [], {}, None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag == "meta" and attributes.get("property"):
            self.properties[attributes["property"]] = attributes["content"]
        if tag == "link" and attributes.get("rel") == "canonical":
            self.canonical = attributes["href"]


def source(page):
    """The file that a page was made of, relative to the root."""
    return next(f"book/{page.stem}{s}" for s in (".ipynb", ".md")
                if (ROOT / "book" / f"{page.stem}{s}").exists())  # fmt: skip


@pytest.fixture(scope="module")
def branch(published, tmp_path_factory):
    """The files of the branch that Colab and Binder open."""
    target = tmp_path_factory.mktemp("branch")
    notebooks_branch.lay_out(published, target)
    return target


def test_buttons_edit_the_page_s_source_and_open_its_resolved_notebook(published, branch):
    for page in pages(published):
        links, path = Head(page).links, source(page)
        assert f"{REPOSITORY}/edit/trunk/{path}" in links, page.name
        assert REPOSITORY in links, page.name
        assert any(link.startswith(f"{REPOSITORY}/issues/new?") for link in links), page.name
        colab = [link for link in links if "colab.research.google.com" in link]
        binder = [link for link in links if "mybinder.org" in link]
        if path.endswith(".md"):
            assert colab == binder == [], page.name
            continue
        assert set(colab) == {
            f"https://colab.research.google.com/github/someone/some-book/blob/notebooks/{path}"
        }
        for link in binder:
            address = urlsplit(link)
            assert address.path == "/v2/gh/someone/some-book/notebooks"
            assert parse_qs(address.query)["urlpath"] == [f"lab/tree/{path}"]
        assert binder, page.name
        assert f"../_sources/{path}" in links, page.name
        download = (published / "_sources" / path).read_bytes()
        assert (branch / path).read_bytes() == download != (ROOT / path).read_bytes()


def test_the_branch_holds_what_its_notebooks_need(branch):
    for path in CHAPTERS:
        code = (branch / "book" / path.name).read_text(encoding="utf-8")
        for name in re.findall(r"\.\./([\w/]+\.\w+)", code):
            assert (branch / name).is_file(), f"{path.name}: {name}"
        assert f"(book/{path.name})" in (branch / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "vilogit").glob("*.*"):
        assert (branch / "vilogit" / path.name).read_bytes() == path.read_bytes()
    wanted = (branch / ".binder" / "requirements.txt").read_text(encoding="utf-8").split()
    assert wanted == ["-r", "../requirements.txt"]
    assert re.search(r"^-e \.$", (branch / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    for name in ("pyproject.toml", "LICENSE", ".binder/runtime.txt"):
        assert (branch / name).read_bytes() == (ROOT / name).read_bytes()


def test_every_link_into_the_repository_leads_to_a_file(published):
    for page in pages(published):
        for link in Head(page).links:
            found = re.search(r"/(?:edit|blob|tree)/trunk/([^?#]+)", link)
            assert not found or (ROOT / found[1]).is_file(), f"{page.name}: {link}"


def test_every_page_has_a_card(published):
    titles = set()
    for page in pages(published):
        head = Head(page)
        card = head.properties
        assert head.canonical == card["og:url"] == f"{SITE}/book/{page.name}"
        assert card["og:title"] and card["og:description"] and card["og:image:alt"], page.name
        assert card["og:image"].startswith(f"{SITE}/_images/"), page.name
        picture = published / card["og:image"].removeprefix(f"{SITE}/")
        assert picture.suffix == ".png" and picture.stat().st_size > 1000, page.name
        titles.add(card["og:title"])
    assert len(titles) == len(pages(published))


def test_the_site_map_lists_every_page_and_nothing_else(published):
    places = ElementTree.parse(published / "sitemap.xml").findall(".//{*}loc")
    expected = [f"{SITE}/book/{page.name}" for page in pages(published)]
    assert sorted(place.text for place in places) == expected


def test_the_landing_page_links_the_pdf(published):
    assert "../variational-logistic-regression.pdf" in Head(published / "book/index.html").links


def test_without_addresses_none_of_this_appears(local):
    assert not (local / "sitemap.xml").exists()
    for page in pages(local):
        head = Head(page)
        assert head.canonical is None and not head.properties, page.name
        text = page.read_text(encoding="utf-8")
        for sign in ("mybinder", "colab.research", "launch-button", "source-edit", "issues/new"):
            assert sign not in text, f"{page.name}: {sign}"
        assert not any(link.endswith("regression.pdf") for link in head.links), page.name


def test_a_notebook_for_download_knows_the_repository(published, local):
    for path in CHAPTERS:
        for site, address in ((published, REPOSITORY), (local, "")):
            notebook = json.loads((site / "_sources/book" / path.name).read_text(encoding="utf-8"))
            first = "".join(notebook["cells"][0]["source"])
            assert f'REPOSITORY = "{address}"' in first, f"{path.name}: {first}"


def first_cell(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"][0]


def run(code, tmp_path):
    """Run code where `vilogit` is missing and pip only says what it was asked for."""
    (tmp_path / "pip.py").write_text("import sys; print(*sys.argv[1:], sep='|')")
    (tmp_path / "cell.py").write_text(
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'vilogit' else find(name, *a)\n" + code
    )
    return subprocess.run(
        [sys.executable, "cell.py"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_starts_with_the_cell_that_installs(path):
    cell = first_cell(path)
    assert cell["cell_type"] == "code" and "remove-cell" in cell["metadata"]["tags"]
    assert cell["source"] == first_cell(CHAPTERS[0])["source"]
    assert cell["outputs"] == [], "silent where vilogit is there"


def test_the_cell_installs_from_the_given_repository_alone(tmp_path):
    code = "".join(first_cell(CHAPTERS[0])["source"])
    done = run(code.replace('REPOSITORY = ""', f'REPOSITORY = "{REPOSITORY}"'), tmp_path)
    assert done.returncode == 0, done.stderr
    asked = f"install|--quiet|vilogit[plot] @ git+{REPOSITORY}|scikit-learn|scipy"
    assert done.stdout.strip() == asked


def test_the_cell_says_how_to_get_vilogit_where_no_repository_was_given(tmp_path):
    done = run("".join(first_cell(CHAPTERS[0])["source"]), tmp_path)
    assert done.returncode != 0 and done.stdout == ""
    assert "Set REPOSITORY above" in done.stderr and "pip install" in done.stderr


def test_the_cell_is_silent_where_vilogit_is_there():
    done = subprocess.run(
        [sys.executable, "-c", "".join(first_cell(CHAPTERS[0])["source"])],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
