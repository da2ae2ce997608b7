"""External tensor data: only files beside the model, never through links or out of the folder."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path, PurePosixPath

import numpy as np
import onnx

from sparrow.errors import BadModel
from sparrow.tensor import Array, DType


def load_external(t: onnx.TensorProto, dtype: DType, folder: Path | None) -> Array:
    """Read a tensor stored beside the model.

    Raises:
        BadModel: The location leaves the folder, is a link, or does not hold the bytes it should.
    """
    where = f"initializer {t.name!r}"
    if folder is None:
        raise BadModel(f"{where}: external data need a model file, not a model in memory")
    info = {e.key: e.value for e in t.external_data}
    # protobuf hands out as bytes what is not UTF-8
    if not all(isinstance(text, str) for pair in info.items() for text in pair):
        raise BadModel(f"{where}: what is said of its external data is not UTF-8")
    location = info.get("location", "")
    path = _beside(folder, location, where)
    try:
        offset, shape = int(info.get("offset", "0") or 0), tuple(int(d) for d in t.dims)
        length = int(info["length"]) if info.get("length") else None
    except ValueError:
        raise BadModel(f"{where}: external data offset or length is no number") from None
    n = prod(shape)
    if min((0, *shape)) < 0 or offset < 0 or n > 1 << 40:
        raise BadModel(f"{where}: shape {shape} or offset {offset} is out of range")
    if dtype.bits < 8:
        need = (n * dtype.bits + 7) // 8
    else:
        need = n * dtype.bytes
    if length is not None and length != need:
        raise BadModel(f"{where}: external data have {length} bytes, shape needs {need}")
    if not os.path.isfile(path):
        raise BadModel(f"{where}: external data file {location!r} is missing")
    short = BadModel(
        f"{where}: external data file {location!r} is too short for {need} bytes at {offset}"
    )
    if path.stat().st_size < offset + need:
        raise short
    try:
        with path.open("rb") as f:
            f.seek(offset)
            raw = f.read(need)
    except OSError as e:
        raise BadModel(f"{where}: external data file {location!r}: {e.strerror}") from None
    if len(raw) != need:
        raise short
    copy = onnx.TensorProto()
    copy.data_type = t.data_type
    copy.dims.extend(t.dims)
    copy.raw_data = raw
    return np.asarray(onnx.numpy_helper.to_array(copy)).astype(dtype.numpy)


def _beside(folder: Path, location: str, where: str) -> Path:
    """The file at a location below the folder of a model; no part of the way is a link."""
    parts = PurePosixPath(location.replace("\\", "/")).parts
    if (
        not parts
        or ".." in parts
        or location.startswith(("/", "\\"))
        or ":" in location
        or "\0" in location
    ):
        raise BadModel(f"{where}: external data at {location!r} are not beside the model")
    path = folder
    for part in parts:
        path = path / part
        try:
            if path.is_symlink():
                raise BadModel(f"{where}: external data at {location!r} go through a link")
        except OSError as e:
            raise BadModel(f"{where}: external data at {location!r}: {e.strerror}") from None
    return path
