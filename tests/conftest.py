"""Shared by all tests: fixed problems, and Hypothesis without a clock."""

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
