"""Shared by all tests: fixed problems, and Hypothesis without a clock."""

import hypothesis
import numpy as np
import pytest

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
