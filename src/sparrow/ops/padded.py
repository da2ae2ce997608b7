"""Outputs whose extent depends on the data: packed at the start of the largest one, beside a
count.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from sparrow.tensor import Array

if TYPE_CHECKING:
    from sparrow.export import Writer


def packed(x: Array, shape: tuple[int, ...]) -> Array:
    """An array of ``shape`` that starts with the elements of ``x`` and goes on with zeros."""
    y = np.zeros(prod(shape), x.dtype)
    y[: x.size] = x.reshape(-1)
    return y.reshape(shape)


def export_count(w: Writer, x: str, axis: int, output: str) -> None:
    """Write the extent of ``x`` along ``axis`` as an int64 scalar."""
    n = w.node("Shape", [x], start=axis, end=axis + 1)
    w.node("Squeeze", [n], [output])


def export_packed(w: Writer, x: str, shape: tuple[int, ...], output: str) -> None:
    """Write `packed`."""
    total = w.const(np.array([prod(shape)], np.int64))
    flat = w.node("Reshape", [x, w.const(np.array([-1], np.int64))])
    missing = w.node("Sub", [total, w.node("Shape", [flat])])
    pads = w.node("Concat", [w.const(np.zeros(1, np.int64)), missing], axis=0)
    y = w.node("Pad", [flat, pads])
    w.node("Reshape", [y, w.const(np.array(shape, np.int64))], [output], allowzero=1)
