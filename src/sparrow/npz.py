"""Reads ``.npy`` and ``.npz`` files of plain arrays: what the header claims is checked first.

`numpy.load` parses headers as Python, unpickles where asked to, and allocates what a header says
before it looks at the data; none of that belongs near files from elsewhere.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from sparrow.errors import BadInput
from sparrow.tensor import Array

T = TypeVar("T")
MAGIC = b"\x93NUMPY"
MAX_HEADER = 4096
MAX_MEMBERS = 100_000
# A compressed member may inflate this much, or to a size that harms nobody.
MAX_RATIO = 100
HARMLESS_BYTES = 16 << 20
_HEADER = re.compile(
    r"\{'descr': '([<>|=](?:b1|[iu][1248]|f[248]))', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,18}, ?){0,64}\d{0,18})\), \}\s*"
)


def read_arrays(path: Path) -> dict[str, Array]:
    """The array of a ``.npy`` file, under the name ``""``, or those of a ``.npz`` file.

    Raises:
        BadInput: The file cannot be read, is malformed, or holds anything but plain arrays.
    """
    return _read(path, _array)


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of what `read_arrays` returns, whose elements are not read.

    Raises:
        BadInput: The file cannot be read, or a header is not that of a plain array.
    """
    return _read(path, lambda f, size: _header(f, size)[2])


def parse_arrays(f: IO[bytes], size: int, where: str) -> dict[str, Array]:
    """What `read_arrays` returns, of an open file of ``size`` bytes.

    Raises:
        BadInput: It is malformed, or holds anything but plain arrays.
    """
    return _parse(f, size, where, _array)


def _read(path: Path, each: Callable[[IO[bytes], int], T]) -> dict[str, T]:
    """What ``each`` reads of every array of a file."""
    try:
        with open(path, "rb", opener=_opener) as f:
            return _parse(f, os.fstat(f.fileno()).st_size, str(path), each)
    except (OSError, ValueError) as e:  # the name may hold a NUL
        raise BadInput(f"{path}: cannot be read: {getattr(e, 'strerror', None) or e}") from None


def _parse(
    f: IO[bytes], size: int, where: str, each: Callable[[IO[bytes], int], T]
) -> dict[str, T]:
    try:
        if f.read(len(MAGIC)) == MAGIC:
            f.seek(0)
            return {"": each(f, size)}
        f.seek(0)
        with zipfile.ZipFile(f) as z:
            return dict(_members(z, size, each))
    except _MALFORMED as e:
        raise BadInput(f"{where}: not a .npy or .npz file of plain arrays: {e}") from None


# zipfile has no error of its own for encryption, unknown compression and broken fields
_MALFORMED = (
    ValueError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error,
    NotImplementedError, OverflowError,
)  # fmt: skip


def _opener(name: str, flags: int) -> int:
    """Open without waiting for the other end of a pipe; only a regular file will do."""
    handle = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "it is no regular file")
    return handle


def _members(
    z: zipfile.ZipFile, size: int, each: Callable[[IO[bytes], int], T]
) -> Iterator[tuple[str, T]]:
    infos = z.infolist()
    if len(infos) > MAX_MEMBERS:
        raise ValueError(f"{len(infos)} members")
    if len({i.filename for i in infos}) != len(infos):
        raise ValueError("two members have one name")
    total = sum(i.file_size for i in infos)
    if total > max(HARMLESS_BYTES, MAX_RATIO * size):
        raise ValueError(f"{size} bytes would inflate to {total}")
    for info in infos:
        name = info.filename.removesuffix(".npy")
        with z.open(info) as f:
            yield name, each(f, info.file_size)


def _header(f: IO[bytes], size: int) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    """Of the array of a stream that is said to have ``size`` bytes: dtype, whether the first axis
    is the innermost, and shape.
    """
    start = f.read(len(MAGIC) + 2)
    if start[: len(MAGIC)] != MAGIC or len(start) != len(MAGIC) + 2 or start[-2] not in (1, 2, 3):
        raise ValueError("no .npy data")
    width = 2 if start[-2] == 1 else 4
    length = int.from_bytes(f.read(width), "little")
    if length > MAX_HEADER:
        raise ValueError(f"a header of {length} bytes")
    header = f.read(length).decode("latin1")
    m = _HEADER.fullmatch(header)
    if m is None:
        raise ValueError(f"header {header[:80]!r} is not that of a plain array")
    dtype = np.dtype(m[1])
    shape = tuple(int(d) for d in m[3].split(",") if d.strip())
    need = prod(shape) * dtype.itemsize
    if need > size or len(shape) > 64 or any(d >= 1 << 62 for d in shape):
        raise ValueError(f"shape {shape} needs {need} bytes, there are {size}")
    return dtype, m[2] == "True", shape


def _array(f: IO[bytes], size: int) -> Array:
    dtype, backwards, shape = _header(f, size)
    need = prod(shape) * dtype.itemsize
    data = f.read(need)
    if len(data) != need:
        raise ValueError(f"shape {shape} needs {need} bytes, there are {len(data)}")
    flat = np.frombuffer(bytearray(data), dtype)
    if backwards:
        return flat.reshape(shape[::-1]).transpose()
    return flat.reshape(shape)


__all__ = ["parse_arrays", "read_arrays", "read_shapes"]
