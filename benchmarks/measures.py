"""What the studies of chapters 6 and 8 share: inputs, intervals, a clock, a file of results."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path

import numpy as np

from vilogit.draws import weighted_quantiles


def between(X: np.ndarray, n: int = 300) -> np.ndarray:
    """Half way between random pairs of training inputs: where predictions are less sure."""
    pairs = np.random.default_rng(14).integers(len(X), size=(2, n))
    return X[pairs].mean(axis=0)


def central(
    values: np.ndarray, levels: tuple[float, ...], weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return ends of the central intervals of draws that may count unequally.

    Parameters
    ----------
    values : ndarray, shape (n, ...)
        Draws.
    levels : tuple of float
        Probabilities of the intervals.
    weight : ndarray, shape (n,), optional
        How much each draw counts; they sum to one.

    Returns
    -------
    low, high : ndarray, shape (levels, ...)
    """
    tails = (1 - np.array(levels)) / 2
    if weight is None:
        low, high = np.quantile(values, [tails, 1 - tails], axis=0)
        return low, high
    low, high = weighted_quantiles(values, weight, np.concatenate([tails, 1 - tails])).reshape(
        2, len(tails), *values.shape[1:]
    )
    return low, high


def mass_between(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Share of draws (n, ...) inside intervals (levels, ...), averaged over these, (levels,)."""
    inside = [
        np.mean((one <= values) & (values <= other)) for one, other in zip(low, high, strict=True)
    ]
    return np.array(inside)


def timed(make):
    """Return the result and the median processor time of three runs, of one that takes long."""
    seconds = []
    while len(seconds) < 3 and sum(seconds) < 2:
        start = time.process_time()
        result = make()
        seconds.append(time.process_time() - start)
    return result, float(np.median(seconds))


def stored(path: Path) -> dict:
    """Read what has been found so far."""
    return json.loads(path.read_text()) if path.exists() else {"sets": {}}


def store(path: Path, packages: tuple[str, ...], new: dict) -> None:
    """Add to what is stored; also when, where and with what."""
    found = stored(path)
    found["sets"] |= new.pop("sets", {})
    found |= {
        **new,
        "date": datetime.date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
    }
    path.write_text(json.dumps(rounded(found), indent=1, sort_keys=True) + "\n")


def rounded(value):
    """Keep four significant digits; or three decimals above ten."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return None if np.isnan(value) else float(f"{value:{'.4g' if abs(value) < 10 else '.3f'}}")
    return value
