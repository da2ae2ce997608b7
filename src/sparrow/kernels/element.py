"""Names of element types in native kernels, and how rows are divided into tasks."""

from __future__ import annotations

from math import prod

from sparrow.kernels.case import Case, Reject
from sparrow.tensor import BF16, BOOL, F16, F32, F64, DType

TASK_ELEMENTS = 1 << 12
# Shares of rows may be so much larger than equal ones.
UNEVEN = 1.15
HALVES = (F16, BF16)
_SUFFIX = {F16: "f16", BF16: "bf16", F32: "f32", F64: "f64", BOOL: "u8"}


def suffix(dtype: DType) -> str:
    """Name of a type in ``native/kernels/element.h``: ``f16`` .. ``u64``; booleans are ``u8``."""
    return _SUFFIX.get(dtype) or f"{dtype.kind[0]}{max(dtype.bits, 8)}"


def rows_per_task(case: Case, rows: int, work: int, together: int = 1) -> int:
    """Rows each task takes when ``rows`` rows are ``work`` elements of work together.

    A task for each thread: halves of rows then meet those of the layers around. So many of them as
    ``together`` says are of one row of an image, and stay so.
    """
    tasks = max(1, min(rows // together, case.threads, work // TASK_ELEMENTS))
    return -(-(rows // together) // tasks) * together if rows else 1


def image_row(shape: tuple[int, ...], threads: int) -> int:
    """Elements of a row of the image [1, h, w, c] where tasks share whole rows; 1 of others.

    As they do in convolutions, unless one had to wait for the others' longer shares.
    """
    if len(shape) != 4 or shape[0] != 1 or 0 in shape:
        return 1
    share = -(-shape[1] // threads)
    return prod(shape[2:]) if share * threads <= UNEVEN * shape[1] else 1


def around_axis(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Extents [outer, n, inner] of ``shape`` around one axis, also where that has extent 1."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def dense(case: Case) -> Reject | None:
    """A refusal unless every operand is dense; the planner then keeps them dense."""
    operands = (*(t for t in case.x if t is not None), *case.y)
    return None if all(t.contiguous for t in operands) else Reject("operands are not dense")
