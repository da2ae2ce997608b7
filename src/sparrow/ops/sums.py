"""Operand and result types of sums of products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.tensor import BF16, F32, I8, I16, I32, U8, Array, DType, TensorType

CODES = (I8, U8)
# (data, accumulate): sums that may be kept in a wider type than that of the operands.
ACCUMULATE = ((BF16, F32),)


def over_codes(x: DType, w: DType) -> bool:
    """Whether a sum of products of ``x`` and ``w`` is one over codes, which is of int32."""
    return (x in CODES and w in CODES) or (x, w) == (I16, I8)


def sum_type(what: str, operands: Sequence[TensorType], accumulate: DType | None = None) -> DType:
    """Type of a sum of products: that of the operands, int32 `over_codes`.

    Sums over codes are exact; zero points and scales are not applied.

    Args:
        what: Names the sum in errors.
        operands: What is multiplied.
        accumulate: Another type of the sum, one of `ACCUMULATE` for the operands' type.

    Raises:
        InvalidGraph: The operands differ in type, or the sum cannot have the type.
    """
    first = operands[0].dtype
    if accumulate is not None:
        if any((t.dtype, accumulate) not in ACCUMULATE for t in operands):
            raise InvalidGraph(f"{what} of {first} in {accumulate}")
        return accumulate
    if over_codes(first, operands[-1].dtype):
        return I32
    if any(t.dtype != first for t in operands):
        raise InvalidGraph(f"{what} of {' and '.join(str(t.dtype) for t in operands)}")
    return first


def check_zero(zero: int, dtype: DType) -> None:
    """Check the zero point of an operand of ``dtype``: only codes have one, and it is a code.

    Raises:
        InvalidGraph: It is not.
    """
    low, high = dtype.limits if dtype in CODES else (0, 0)
    if not low <= zero <= high:
        raise InvalidGraph(f"zero point {zero} of {dtype}")


def widened(x: Array) -> Array:
    """An operand in the type it is summed in: half as float32, 8-bit codes as float64 (exact)."""
    if x.dtype == np.float16:
        return x.astype(np.float32)
    return x.astype(np.float64) if x.dtype.itemsize == 1 else x


def narrowed(y: Array, operand: Array) -> Array:
    """A sum over operands like ``operand`` in its own type; of codes, summed as float64, in int32,
    which wraps.
    """
    if operand.dtype.kind in "iu" and y.dtype.kind == "f":
        return y.astype(np.int64).astype(np.int32)
    return y.astype(operand.dtype, copy=False)
