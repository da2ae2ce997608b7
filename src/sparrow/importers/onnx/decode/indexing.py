"""Gather and scatter operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode.movement import slice_axis
from sparrow.ops.gather import Gather


def _gather(n: Call) -> Sequence[str]:
    x = n.type()
    axis = n.axis(int(n.attr("axis", 0)), x.rank)
    index = n.b.value(n.x(1))
    if index is not None and index.size:
        if index.min() < -x.shape[axis] or index.max() >= x.shape[axis]:
            raise n.bad(f"indices reach {index.min()}..{index.max()} on an axis of {x.shape[axis]}")
        if index.size == 1:
            y = slice_axis(n, n.x(), axis, int(index.ravel()[0]) % x.shape[axis], 1)
            return [n.b.reshape(y, (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))]
    return [n.b.add(Gather(axis), n.x(), n.x(1))]


DECODERS: Mapping[str, Decoder] = {
    "Gather": _gather,
}
