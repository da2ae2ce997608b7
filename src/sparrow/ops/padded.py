"""Outputs whose extent depends on the data: padded with zeros to the largest one, beside a
count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparrow.tensor import Array

if TYPE_CHECKING:
    from sparrow.export import Writer


def pad_to(x: Array, axis: int, extent: int) -> Array:
    """``x`` with zeros behind it up to ``extent`` along ``axis``."""
    pads = [(0, 0)] * x.ndim
    pads[axis] = (0, extent - x.shape[axis])
    return np.pad(x, pads)


def export_count(w: Writer, x: str, axis: int, output: str) -> None:
    """Write the extent of ``x`` along ``axis`` as an int64 scalar."""
    n = w.node("Shape", [x], start=axis, end=axis + 1)
    w.node("Squeeze", [n], [output])


def export_padded(w: Writer, x: str, axis: int, shape: tuple[int, ...], output: str) -> None:
    """Write ``x`` padded with zeros to the static ``shape``, from which it differs along
    ``axis``.
    """
    n = w.node("Shape", [x], start=axis, end=axis + 1)
    missing = w.node("Sub", [w.const(np.array([shape[axis]], np.int64)), n])
    before = w.const(np.zeros(len(shape) + axis, np.int64))
    after = w.const(np.zeros(len(shape) - axis - 1, np.int64))
    padded = w.node("Pad", [x, w.node("Concat", [before, missing, after], axis=0)])
    w.node("Reshape", [padded, w.const(np.array(shape, np.int64))], [output], allowzero=1)
