"""Arrays of the constants of a .tflite file, those that are stored sparse as well."""

from __future__ import annotations

from math import prod

import numpy as np

from sparrow.errors import BadModel, UnsupportedOp
from sparrow.importers.tflite.flatbuffer import File
from sparrow.importers.tflite.model import Tensor
from sparrow.tensor import BF16, BOOL, I4, Array

# A sparse tensor of a few bytes may claim any shape: what is stored pays for the zeros.
SPARE_DENSE = 16 << 20
DENSE_PER_STORED = 64


class Constants:
    """The arrays of the constants of one file.

    Args:
        file: Its name for messages.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._left = SPARE_DENSE
        self._paid: set[int] = set()

    def read(self, t: Tensor) -> Array:
        """The array of a constant tensor, in the storage type of its elements.

        Raises:
            BadModel: Its bytes do not fill its shape, or lie nowhere in it.
            UnsupportedOp: It is stored sparse and the zeros are too many.
        """
        if t.sparsity is None:
            return _stored(t, self.file)
        assert t.data is not None, t.name
        at = t.data.__array_interface__["data"][0]
        if at not in self._paid:
            self._paid.add(at)
            self._left += DENSE_PER_STORED * t.data.nbytes
        self._left -= prod(t.shape) * t.dtype.bits // 8
        if self._left < 0 or t.dtype.bits < 8 or t.dtype == BF16:
            raise UnsupportedOp(
                f"tensor {t.name!r} is stored sparse: {t.dtype}{list(t.shape)} "
                f"in {t.data.nbytes} bytes",
                hint="convert the model without sparsity",
            )
        return _dense(t, self.file)


def _stored(t: Tensor, file: str) -> Array:
    assert t.data is not None, t.name
    count = int(np.prod(t.shape, dtype=np.float64))
    wanted = -(-count * t.dtype.bits // 8)
    if t.data.size != wanted:
        raise File(b"", file).bad(
            f"tensor {t.name!r}: {t.data.size} bytes for {t.dtype}{list(t.shape)}, "
            f"expected {wanted}"
        )
    if t.dtype.bits == 4:
        nibbles = np.stack([t.data & 15, t.data >> 4], 1).reshape(-1)[:count]
        if t.dtype == I4:
            nibbles = (nibbles.astype(np.int8) ^ 8) - 8
        return nibbles.astype(t.dtype.numpy).reshape(t.shape)
    if t.dtype == BF16:
        wide = t.data.view("<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(t.shape)
    if t.dtype == BOOL:
        found: Array = t.data != 0
    else:
        found = t.data.view(t.dtype.numpy)
    return found.reshape(t.shape)


def _dense(t: Tensor, file: str) -> Array:
    """A sparse tensor with its zeros, as DENSIFY gives it."""
    s = t.sparsity
    assert s is not None and t.data is not None, t.name
    rank, total = len(t.shape), prod(t.shape)

    def bad(what: str) -> BadModel:
        return File(b"", file).bad(f"tensor {t.name!r} is stored sparse: {what}")

    if sorted(s.order) != list(range(rank + len(s.blocked))) or len(s.levels) != len(s.order):
        raise bad(f"it is traversed in the order {s.order} with {len(s.levels)} levels")
    if any(not 0 <= axis < rank for axis in s.blocked) or len(set(s.blocked)) != len(s.blocked):
        raise bad(f"its blocks divide the axes {s.blocked}")
    steps, extents = [1] * rank, list(t.shape)
    for k, axis in enumerate(s.blocked):
        size = s.levels[s.order.index(rank + k)]
        if not isinstance(size, int) or size < 1 or t.shape[axis] % size:
            raise bad(f"a block of {size} elements along axis {axis} of {list(t.shape)}")
        steps[axis], extents[axis] = size, t.shape[axis] // size
        extents.append(size)
    # the element strides of every axis and every axis of the blocks
    strides = [prod(t.shape[i + 1 :]) for i in range(rank)]
    moves = [n * step for n, step in zip(strides, steps, strict=True)]
    moves += [strides[axis] for axis in s.blocked]
    place = np.zeros(1, np.int64)
    for axis, level in zip(s.order, s.levels, strict=True):
        if isinstance(level, int):
            if level != extents[axis] or place.size * level > total:
                raise bad(f"a level of {level} for an extent of {extents[axis]}")
            place = (place[:, None] + np.arange(level) * moves[axis]).reshape(-1)
            continue
        first, at = (v.astype(np.int64) for v in level)
        counts = np.diff(first)
        if first.size != place.size + 1 or first[0] or first[-1] != at.size or (counts < 0).any():
            raise bad(f"{first.size} row ends for {place.size} rows of {at.size} entries")
        if at.size and not 0 <= at.min() <= at.max() < extents[axis]:
            raise bad(f"an entry lies outside of an extent of {extents[axis]}")
        place = np.repeat(place, counts) + at * moves[axis]
    if t.data.size != place.size * (t.dtype.bits // 8):
        raise bad(f"{t.data.size} bytes for {place.size} elements of {t.dtype}")
    dense = np.zeros(total, t.dtype.numpy)
    dense[place] = t.data.view(dense.dtype) if t.dtype != BOOL else t.data != 0
    return dense.reshape(t.shape)
