"""A posterior as one file: arrays without pickle, written whole or not at all."""

from __future__ import annotations

import os
import secrets
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from .axes import AlignedPosterior
from .data import check_array, check_positive
from .variational import MeanField, Posterior, Record

_FORMAT = 1
_PARTS = {
    "mean-field": {"vilogit", "family", "mean", "rho", "elbo", "gap", "trace"},
    "aligned": {
        "vilogit", "family", "mean", "rho", "elbo", "gap", "trace", "axes", "prior_precision",
    },
}  # fmt: skip


def save(posterior: Posterior, path: str | os.PathLike) -> None:
    """Write a posterior; what it is under, `Posterior.save` says."""
    aligned = isinstance(posterior, AlignedPosterior)
    arrays = {
        "vilogit": np.int64(_FORMAT),
        "family": np.array("aligned" if aligned else "mean-field"),
        "mean": posterior.q.mean,
        "rho": posterior.q.rho,
        "elbo": np.float64(posterior.elbo),
        "gap": np.float64(posterior.gap),
        "trace": np.reshape(posterior.trace, (-1, 2)).astype(np.float64),
    }
    if aligned:
        arrays |= {"axes": posterior.axes, "prior_precision": posterior.prior_precision}
    path = Path(path)
    # Under a name of its own first: the rename that ends it leaves no moment in between.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(draft, "xb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def load(path: str | os.PathLike) -> Posterior:
    """Read a posterior that `Posterior.save` wrote.

    Parameters
    ----------
    path : str
        The file, or any path-like object.

    Returns
    -------
    Posterior
        Of the family that was saved, with the same numbers to the last bit.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is cut off or damaged, is no posterior, or comes from a later format. Nothing in a
        file is ever executed.
    """
    content = Path(path).read_bytes()
    try:
        with ZipFile(BytesIO(content)) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"its part {damaged} is damaged")
        with np.load(BytesIO(content), allow_pickle=False) as file:
            return _posterior(dict(file))
    except Exception as error:  # a damaged archive fails in many ways
        raise ValueError(f"{path} is not a posterior that vilogit can read: {error}") from error


def _posterior(arrays: dict[str, np.ndarray]) -> Posterior:
    """Check what a file holds as if a user had typed it in."""
    if "vilogit" not in arrays:
        raise ValueError("it was not saved by vilogit")
    if arrays["vilogit"] != _FORMAT:
        raise ValueError(
            f"its format is {arrays['vilogit']}, this vilogit knows {_FORMAT}; try a newer one"
        )
    family = str(arrays.get("family"))
    if arrays.keys() != _PARTS.get(family):
        raise ValueError(f"it holds {sorted(arrays)}, which is no family's")
    mean = check_array(arrays["mean"], "mean", ("M", "D"))
    q = MeanField(mean, check_array(arrays["rho"], "rho", mean.shape))
    elbo, gap = (
        float(check_array(arrays[name], name, (), finite=False)) for name in ("elbo", "gap")
    )
    records = check_array(arrays["trace"], "trace", ("steps", 2), finite=False)
    trace = tuple(Record(*record) for record in records.tolist())
    if family == "mean-field":
        return Posterior(q, elbo, trace, gap)
    axes = check_array(arrays["axes"], "axes", ("M", len(mean)))
    prior = check_positive(arrays["prior_precision"], "prior_precision", (len(axes), 1))
    return AlignedPosterior(q, elbo, trace, gap, axes, prior)
