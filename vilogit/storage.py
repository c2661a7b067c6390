"""Arrays to one file and back: without pickle, written whole or not at all."""

import errno
import math
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeGuard, TypeVar
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from numpy.lib import format as npy

_FORMAT = 1
_Made = TypeVar("_Made")

#: A path, or a binary file that is open.
File = str | os.PathLike[str] | IO[bytes]


def write(file: File, **arrays: Any) -> None:
    """Write named arrays to one ``.npz`` file; what it is under, `Posterior.save` says."""

    def save(opened: Any) -> None:
        np.savez(opened, vilogit=_FORMAT, **arrays)

    if _is_path(file, "write"):
        with _errors_naming(file):
            _replace(Path(os.path.realpath(file)), save)
    else:
        save(file)


def read(file: File, make: Callable[[dict[str, np.ndarray]], _Made]) -> _Made:
    """Make something of the arrays of a file; whatever is wrong with either is a ValueError."""
    content = _content(file)
    try:
        arrays = _unpacked(content)
        if (is_ := arrays.pop("vilogit")) != _FORMAT:
            raise ValueError(f"its format is {is_}, this vilogit knows {_FORMAT}; try a newer one")
        return make(arrays)
    except Exception as error:  # a damaged archive fails in many ways
        raise ValueError(f"{file} is not a posterior that vilogit can read: {error}") from error


def _is_path(file: File, method: str) -> TypeGuard[str | os.PathLike[str]]:
    if isinstance(file, str | os.PathLike) or hasattr(file, method):
        return isinstance(file, str | os.PathLike)
    raise TypeError(f"path must be a path or a binary file to {method}, not {file!r}")


@contextmanager
def _errors_naming(file: str | os.PathLike[str]) -> Iterator[None]:
    """Let errors name what the caller knows: neither a draft nor what links lead to."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(file)) from error


def _replace(path: Path, save: Callable[[IO[bytes]], None]) -> None:
    """Put what `save` writes in a file's place, and leave it the file's mode."""
    old = _status(path)
    # Under a name of its own first: the rename that ends it leaves no moment in between.
    draft = path.with_name(f".vilogit-{secrets.token_hex(8)}")
    try:
        # Never readable by more than the file that it replaces.
        mode = 0o666 if old is None else stat.S_IMODE(old.st_mode) & 0o666
        with open(draft, "xb", opener=partial(os.open, mode=mode)) as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        if old is not None:
            os.chmod(draft, stat.S_IMODE(old.st_mode))
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _status(path: Path) -> os.stat_result | None:
    """Status of a regular file, None where there is none yet; what else is there is an error."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise OSError(code, "Not a regular file", os.fspath(path))
    return status


def _content(file: Any) -> bytes:
    if _is_path(file, "read"):
        with _errors_naming(file):
            _status(Path(file))  # to open a pipe would wait for its other end
            return Path(file).read_bytes()
    content = file.read()
    if not isinstance(content, bytes):
        raise TypeError(f"{file} yields {type(content).__name__}; expected a file opened as binary")
    return content


def _unpacked(content: bytes) -> dict[str, np.ndarray]:
    """Arrays of an archive, which together take no more memory than the archive itself.

    `write` stores without compression, so that no header can promise more.
    """
    with ZipFile(BytesIO(content)) as archive:
        parts = archive.infolist()
        if any(part.compress_type != ZIP_STORED for part in parts):
            raise ValueError("its parts are compressed, which vilogit's are not")
        if sum(max(part.file_size, part.compress_size) for part in parts) > len(content):
            raise ValueError("its parts claim to be larger than it is")
        if "vilogit.npy" not in archive.namelist():
            raise ValueError("it was not saved by vilogit")
        # Read to its end, each part is compared with its checksum.
        return {part.filename.removesuffix(".npy"): _array(archive.read(part)) for part in parts}


def _array(part: bytes) -> np.ndarray:
    """Read an array whose header announces what is there: NumPy takes the memory beforehand."""
    file = BytesIO(part)
    if npy.read_magic(file) != (1, 0):
        raise ValueError("its arrays are in a format that vilogit does not write")
    shape, _, dtype = npy.read_array_header_1_0(file)
    if math.prod(shape) * max(dtype.itemsize, 1) != len(part) - file.tell() and not dtype.hasobject:
        raise ValueError(f"a header announces {dtype} of shape {shape}, which is not what follows")
    return np.load(BytesIO(part), allow_pickle=False)
