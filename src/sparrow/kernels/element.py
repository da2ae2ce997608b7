"""Names of element types in native kernels, and how rows are divided into tasks."""

from __future__ import annotations

from math import prod

from sparrow.kernels.case import Case, Reject
from sparrow.tensor import BF16, BOOL, F16, F32, F64, DType

TASK_ELEMENTS = 1 << 12
HALVES = (F16, BF16)
_SUFFIX = {F16: "f16", BF16: "bf16", F32: "f32", F64: "f64", BOOL: "u8"}


def suffix(dtype: DType) -> str:
    """Name of a type in ``native/kernels/element.h``: ``f16`` .. ``u64``; booleans are ``u8``."""
    return _SUFFIX.get(dtype) or f"{dtype.kind[0]}{max(dtype.bits, 8)}"


def rows_per_task(case: Case, rows: int, work: int) -> int:
    """Rows each task takes when ``rows`` rows are ``work`` elements of work together.

    A task for each thread: halves of rows then meet those of the layers around.
    """
    return -(-rows // max(1, min(rows, case.threads, work // TASK_ELEMENTS))) if rows else 1


def around_axis(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Extents [outer, n, inner] of ``shape`` around one axis, also where that has extent 1."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def dense(case: Case) -> Reject | None:
    """A refusal unless every operand is dense; the planner then keeps them dense."""
    operands = (*(t for t in case.x if t is not None), *case.y)
    return None if all(t.contiguous for t in operands) else Reject("operands are not dense")
