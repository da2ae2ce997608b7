"""Ranges of real numbers as codes, and back."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparrow.tensor import Affine, Array, DType

Range: TypeAlias = tuple[float, float]
# A scale below float32's normal numbers would lose its own digits.
_SMALLEST = float(np.finfo(np.float32).tiny)


def code_limits(dtype: DType, symmetric: bool) -> tuple[int, int]:
    """Smallest and largest code in use; symmetric codes leave the lowest one out."""
    low, high = dtype.limits
    return (-high if symmetric and dtype.kind == "int" else low), high


def scale_and_zero_point(limits: Range, dtype: DType, symmetric: bool = False) -> tuple[float, int]:
    """Scale (a float32 value) and zero point of codes that cover a range and hold 0 exactly.

    Args:
        limits: Smallest and largest real number; widened to hold 0.
        dtype: Integer type of the codes.
        symmetric: Zero point 0.

    Returns:
        Scale 1 and zero point 0 for a range without extent.
    """
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    qmin, qmax = code_limits(dtype, symmetric)
    if symmetric:
        scale = max(-low, high) / qmax
        return (1.0, 0) if scale < _SMALLEST else (float(np.float32(scale)), 0)
    scale = float(np.float32((high - low) / (qmax - qmin)))
    if scale < _SMALLEST:
        return 1.0, 0
    return scale, int(np.clip(np.rint(qmin - low / scale), qmin, qmax))


def per_tensor(limits: Range, dtype: DType, rank: int, symmetric: bool = False) -> Affine:
    """One scale for a tensor of ``rank`` axes."""
    scale, zero = scale_and_zero_point(limits, dtype, symmetric)
    ones = (1,) * rank
    return Affine(np.full(ones, scale, np.float32), np.full(ones, zero, np.int32), (-1,) * rank)


def round_trip(
    x: Array, limits: Range, dtype: DType, symmetric: bool = False
) -> NDArray[np.float64]:
    """Real numbers as their codes say them."""
    scale, zero = scale_and_zero_point(limits, dtype, symmetric)
    qmin, qmax = code_limits(dtype, symmetric)
    codes = np.clip(np.rint(np.asarray(x, np.float64) / scale) + zero, qmin, qmax)
    result: NDArray[np.float64] = (codes - zero) * scale
    return result
