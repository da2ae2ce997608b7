"""Operators that select elements: by order, by overlap, by condition, by being distinct."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparrow.graph import Op, filled
from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode.movement import slice_axis
from sparrow.ops.compress import Compress
from sparrow.ops.gather import Gather
from sparrow.ops.nms import NonMaxSuppression
from sparrow.ops.nonzero import NonZero
from sparrow.ops.topk import TopK
from sparrow.ops.unique import Unique
from sparrow.tensor import BOOL, I64


def _counted(n: Call, op: Op, cut: Mapping[int, int], *inputs: str) -> Sequence[str]:
    """Outputs of an op whose last one counts how much of the outputs in ``cut`` is filled.

    Args:
        n: The node.
        op: The op.
        cut: Output index -> the axis whose extent depends on the data.
        inputs: Operands.
    """
    *outputs, count = n.b.add_n(op, *inputs)
    known = n.b.value(count)
    for i, axis in cut.items():
        if known is not None:
            y = n.b.value(outputs[i])
            assert y is not None
            outputs[i] = n.b.const(filled(y, axis, int(known)), n.b.type(outputs[i]).dtype)
        else:
            n.b.lengths[outputs[i]] = (axis, count)
    return outputs


def _topk(n: Call) -> Sequence[str]:
    x = n.type()
    axis = n.axis(int(n.attr("axis", -1)), x.rank)
    k = int(n.attr("k", -1)) if n.version < 10 else n.integer(1, "k")
    if not 0 <= k <= x.shape[axis]:
        raise n.bad(f"k is {k} on an axis of {x.shape[axis]}")
    return n.b.add_n(TopK(axis, k, bool(n.attr("largest", 1))), n.x())


def _nms(n: Call) -> Sequence[str]:
    limit = n.integer(2, "max_output_boxes_per_class") if n.has(2) else 0
    op = NonMaxSuppression(max(0, limit), bool(n.attr("center_point_box", 0)))
    return _counted(n, op, {0: 0}, n.x(0), n.x(1), n.opt(3), n.opt(4))


def _nonzero(n: Call) -> Sequence[str]:
    return _counted(n, NonZero(), {0: 1}, n.x())


def _unique(n: Call) -> Sequence[str]:
    x = n.type()
    axis = n.attr("axis")
    at = None if axis is None else n.axis(int(axis), x.rank)
    if at is not None and x.size == 0:
        raise n.unsupported(f"distinct slices of {x}")
    op = Unique(at, bool(n.attr("sorted", 1)))
    return _counted(n, op, {0: at or 0, 1: 0, 3: 0}, n.x())


def _compress(n: Call) -> Sequence[str]:
    x, condition = n.x(), n.x(1)
    if n.attr("axis") is None:
        x = n.b.reshape(x, (n.type().size,))
    shape = n.b.shape(x)
    axis = n.axis(int(n.attr("axis", 0)), len(shape))
    if n.type(1).rank != 1 or n.type(1).dtype != BOOL:
        raise n.bad(f"the condition is {n.type(1)}, expected bool of rank 1")
    if n.type(1).size > shape[axis]:
        condition = slice_axis(n, condition, 0, 0, shape[axis])
    known = n.b.value(condition)
    if known is not None:
        kept = n.b.const(np.flatnonzero(known).astype(np.int64), I64)
        return [n.b.add(Gather(axis), x, kept)]
    return _counted(n, Compress(axis), {0: axis}, x, condition)


DECODERS: Mapping[str, Decoder] = {
    "TopK": _topk,
    "NonMaxSuppression": _nms,
    "NonZero": _nonzero,
    "Unique": _unique,
    "Compress": _compress,
}
