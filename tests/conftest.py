"""Shared by all tests: fixed problems, and Hypothesis without a clock."""

import re

import hypothesis
import numpy as np
import pytest
from builds import local, published  # noqa: F401, fixtures

import vilogit

hypothesis.settings.register_profile(
    "vilogit", deadline=None, derandomize=True, max_examples=60, database=None
)
# `make mutants` asks whether a test fails, not for the smallest example.
hypothesis.settings.register_profile(
    "mutants",
    parent=hypothesis.settings.get_profile("vilogit"),
    max_examples=20,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
hypothesis.settings.load_profile("vilogit")


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture(scope="session")
def toy():
    return vilogit.simulate(np.random.default_rng(1))


#: The parts of a run that last, longest first: workers that begin with them end together.
FIRST = ("ipynb", "test_lab", "test_published", "test_pdf")
PAGE = re.compile(r"browser/.*\[(book/\w+\.html)")


def part(nodeid):
    """What one worker runs in one piece: a page of the site, a notebook, or a module.

    Two modules look at the same builds and go together.
    """
    page = PAGE.search(nodeid)
    return page[1] if page else nodeid.split("::")[0].replace("elsewhere", "published")


def rank(item):
    """Notebooks and builds come first, then modules, then pages; of a page, what alters it last."""
    name = part(item.nodeid)
    page = name.endswith(".html")
    long = next((k for k, sign in enumerate(FIRST) if sign in name), len(FIRST))
    return long + page, name, [page and how in item.fixturenames for how in ("alter", "operate")]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Send each part to one worker; `xdist_group` cannot, where pytest fixes an item's name."""
    from xdist.scheduler import LoadScopeScheduling

    class ByPart(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return part(nodeid)

    return ByPart(config, log)
