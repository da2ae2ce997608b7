"""What convolution-like ops do to their sums: a lane expression over the sum and extra operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sparrow import lane
from sparrow.errors import InvalidGraph
from sparrow.ops.lane import broadcast_shape
from sparrow.tensor import Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


def epilogue_type(
    epilogue: lane.Expr | None, y: TensorType, extras: Sequence[TensorType]
) -> TensorType:
    """Type after the epilogue; extra operands broadcast to ``y`` and never widen it."""
    if epilogue is None:
        if extras:
            raise InvalidGraph("extra operands without an epilogue")
        return y
    operands = (y, *extras)
    for a in lane.walk(epilogue):
        if isinstance(a, lane.Arg) and operands[a.index].dtype != a.dtype:
            raise InvalidGraph(f"epilogue operand {a.index} is {operands[a.index].dtype}")
    if broadcast_shape(*(t.shape for t in operands)) != y.shape:
        raise InvalidGraph(f"epilogue operands {[t.shape for t in extras]} widen {y.shape}")
    return replace(y, dtype=epilogue.dtype)


def apply_epilogue(epilogue: lane.Expr | None, y: Array, extras: Sequence[Array]) -> Array:
    """Value after the epilogue."""
    if epilogue is None:
        return y
    return np.ascontiguousarray(np.broadcast_to(lane.evaluate(epilogue, (y, *extras)), y.shape))


def export_epilogue(w: Writer, epilogue: lane.Expr | None, y: str, site: Site, first: int) -> None:
    """Write the epilogue of the sum ``y``; extra operands are the site's inputs from ``first``."""
    if epilogue is not None:
        shapes = (site.out_types[0].shape, *(t.shape for t in site.in_types[first:] if t))
        y = w.expr(epilogue, (y, *site.inputs[first:]), shapes)
    w.node("Identity", [y], [site.outputs[0]])


def rows_and_columns(
    shape: tuple[int, ...], operand: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, int] | None:
    """How a broadcast operand moves with the row and the column of an output.

    Args:
        shape: Output shape; its last axis is the column, all others together are the row.
        operand: Shape of the operand, broadcasting to ``shape``.
        strides: Strides of the operand in elements.

    Returns:
        (row stride, column stride), or None when rows are not equally spaced.
    """
    lead = len(shape) - len(operand)
    walk = [0] * lead + [0 if d == 1 else s for d, s in zip(operand, strides, strict=True)]
    row: int | None = None
    span = 1
    for d, s in zip(shape[-2::-1], walk[-2::-1], strict=True):
        if d == 1:
            continue
        if row is None:
            row = s
        if s != row * span:
            return None
        span *= d
    return row or 0, walk[-1] if shape else 0
