"""The book's pages, built from the stored outputs with addresses and without; nothing is run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
REPOSITORY, SITE = "https://github.com/someone/some-book", "https://someone.invalid/some-book"
CLI = "from jupyter_book.cli.main import main; main()"
ADDRESSES = {
    "BOOK_REPOSITORY_URL": REPOSITORY,
    "BOOK_REPOSITORY_BRANCH": "trunk",
    "BOOK_SITE_URL": SITE,
}


def pages(site):
    return sorted(site.glob("book/*.html"))


def build(folder, addresses):
    """Build a copy of the book as `make book` does, execution apart; a warning is an error."""
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "_toc.yml", folder)
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    assert "execute_notebooks: force" in config
    config = config.replace("execute_notebooks: force", 'execute_notebooks: "off"')
    (folder / "_config.yml").write_text(config, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BOOK_")} | addresses
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", CLI, "build", "--all", "-W", "-n", "--keep-going", "."],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(pages(folder / "_build" / "html")) >= 9
    return folder / "_build" / "html"


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """The site with all addresses."""
    return build(tmp_path_factory.mktemp("published"), ADDRESSES)


@pytest.fixture(scope="session")
def local(tmp_path_factory):
    """The site without addresses: the one at hand, if it was built so."""
    built = ROOT / "_build" / "html"
    if (built / "book/index.html").exists() and not any(k.startswith("BOOK_") for k in os.environ):
        return built
    return build(tmp_path_factory.mktemp("local"), {})
