"""Shared by all tests: fixed problems, and Hypothesis without a clock."""

from pathlib import PurePath

import hypothesis
import numpy as np
import pytest

import vilogit

hypothesis.settings.register_profile(
    "vilogit", deadline=None, derandomize=True, max_examples=60, database=None
)
hypothesis.settings.load_profile("vilogit")


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture(scope="session")
def toy():
    return vilogit.simulate(np.random.default_rng(1))


#: The parts of a run that last, longest first; parallel workers end together if they begin so.
FIRST = ("ipynb", "test_published", "test_pdf")


def part(item):
    """What one worker runs in one piece: a notebook, a page of the site, or a module."""
    name = getattr(item, "callspec", None) and item.callspec.params.get("name")
    return name if name and "browser" in item.path.parts else item.path.name


def rank(item):
    """Notebooks and builds come first, then modules, then pages; of a page, what alters it last."""
    group = part(item)
    last = next((k for k, sign in enumerate(FIRST) if sign in group), len(FIRST))
    page = PurePath(group).suffix == ".html"
    return last + page, group if page else "", "alter" in getattr(item, "fixturenames", ())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    items.sort(key=rank)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(part(item)))
