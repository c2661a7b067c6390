"""The list of licences that goes with the site is of all that is there."""

import fnmatch
from pathlib import Path

import licences
import pytest

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "_build" / "html" / "_static"


def owner(name):
    """Whose a file of the site is, by the list."""
    if name in (*licences.OWN, licences.FILE) or name == "vendor/README.txt":
        return "own"
    for title, (folder, _) in licences.VENDORED.items():
        if name.startswith(f"{folder}/"):
            return title
    for package, (_, *patterns) in licences.PACKAGES.items():
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            return package
    return None


@pytest.mark.skipif(not STATIC.exists(), reason="no site: run 'make book' first")
def test_every_file_of_the_site_has_an_owner_and_every_owner_a_file():
    names = [p.relative_to(STATIC).as_posix() for p in STATIC.rglob("*") if p.is_file()]
    owners = {name: owner(name) for name in names}
    assert [name for name, whose in owners.items() if whose is None] == []
    assert {"own", *licences.VENDORED, *licences.PACKAGES} == set(owners.values())


def test_every_licence_comes_with_its_text():
    found = dict(licences.texts(ROOT / "book" / "_static"))
    assert len(found) == len(licences.VENDORED) + len(licences.PACKAGES)
    for title, text in found.items():
        assert "opyright" in text and len(text) > 500, title
        named = title.rsplit(", ", 1)[1]
        sign = {"MIT": "free of charge", "BSD": "Redistribution", "Apache": "Apache License"}
        for short, words in sign.items():
            assert not named.startswith(short) or words in " ".join(text.split()), title
