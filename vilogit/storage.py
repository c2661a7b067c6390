"""Arrays to one file and back: without pickle, written whole or not at all."""

import os
import secrets
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from zipfile import ZipFile

import numpy as np

_FORMAT = 1
_Made = TypeVar("_Made")


def write(path: str | os.PathLike, **arrays: Any) -> None:
    """Write named arrays to one ``.npz`` file; what it is under, `Posterior.save` says."""
    path = Path(path)
    # Under a name of its own first: the rename that ends it leaves no moment in between.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(draft, "xb") as file:
            np.savez(file, vilogit=_FORMAT, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read(path: str | os.PathLike, make: Callable[[dict[str, np.ndarray]], _Made]) -> _Made:
    """Make something of the arrays of a file; whatever is wrong with either is a ValueError."""
    content = Path(path).read_bytes()
    try:
        with ZipFile(BytesIO(content)) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"its part {damaged} is damaged")
        with np.load(BytesIO(content), allow_pickle=False) as file:
            arrays = dict(file)
        if "vilogit" not in arrays:
            raise ValueError("it was not saved by vilogit")
        if (is_ := arrays.pop("vilogit")) != _FORMAT:
            raise ValueError(f"its format is {is_}, this vilogit knows {_FORMAT}; try a newer one")
        return make(arrays)
    except Exception as error:  # a damaged archive fails in many ways
        raise ValueError(f"{path} is not a posterior that vilogit can read: {error}") from error
