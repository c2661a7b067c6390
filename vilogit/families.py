"""The families by name, a line each: what `fit` climbs, and what `load` makes of a file."""

import numpy as np

from . import checks, storage
from .bound import Bound, PrincipalBound
from .full_rank import LooseBound
from .posterior import Posterior, Record

FAMILIES: dict[str, type[Bound]] = {
    "mean-field": Bound,
    "aligned": PrincipalBound,
    "full-rank": LooseBound,
}


def load(path: storage.File) -> Posterior:
    """Read a posterior that `Posterior.save` wrote.

    Parameters
    ----------
    path : str, path-like object or binary file
        The file, read to its end.

    Returns
    -------
    Posterior
        Of the family that was saved, with the same numbers to the last bit.

    Raises
    ------
    OSError
        If the file cannot be opened or is no regular one.
    TypeError
        If `path` is none of these, or a file opened as text.
    ValueError
        If it is cut off or damaged, is no posterior, or comes from a later format. Nothing in a
        file is ever executed, and none takes more memory than its size: `Posterior.save` does
        not compress, so an archive that claims to unpack to more than it holds is refused
        beforehand, and so is an array whose header claims more than what follows.
    """
    return storage.read(path, _posterior)


def _posterior(arrays: dict[str, np.ndarray]) -> Posterior:
    """Check what a file holds as if a user had typed it in."""
    bound = FAMILIES.get(str(arrays.get("family")))
    kind = bound.posterior_type if bound else None
    if kind is None or arrays.keys() != {"family", "elbo", "gap", "trace", *kind.parts}:
        raise ValueError(f"it holds {sorted(arrays)}, which is no family's")
    elbo, gap = (checks.array(arrays[name], name, (), finite=False) for name in ("elbo", "gap"))
    records = checks.array(arrays["trace"], "trace", ("steps", 2), finite=False)
    trace = tuple(Record(*record) for record in records.tolist())
    parts = [arrays[part] for part in kind.parts]
    return kind.from_arrays(parts, elbo=float(elbo), trace=trace, gap=float(gap))
