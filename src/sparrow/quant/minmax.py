"""The range of a tensor is all that was seen of it."""

from __future__ import annotations

from sparrow.quant.affine import Range
from sparrow.quant.histogram import Histogram
from sparrow.tensor import DType


def minmax(h: Histogram, dtype: DType, symmetric: bool) -> Range:
    """Smallest and largest value: nothing seen saturates, one outlier costs every other value."""
    return h.low, h.high
