"""What a fit tells of its way: records that it keeps, states for a callback, and its warning."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .gaussian import MeanField


class ConvergenceWarning(UserWarning):
    """A fit stopped before it reached what it was asked for."""


class Record(NamedTuple):
    """One evaluation of the ELBO in a fit: its value and the proven gap to the optimum, nats."""

    elbo: float
    gap: float


class State(NamedTuple):
    """What the callback of a fit sees.

    Attributes
    ----------
    step : int
        `fit_sgd`: updates made so far; 0 is the random start. `fit`: evaluations made so far.
    q : MeanField
        The approximation there.
    elbo : float
        Its ELBO in nats; for `fit_sgd` a noisy estimate from one draw.
    gap : float
        Proven bound on the distance to the optimum in nats; NaN for `fit_sgd`.
    """

    step: int
    q: MeanField
    elbo: float
    gap: float = np.nan
