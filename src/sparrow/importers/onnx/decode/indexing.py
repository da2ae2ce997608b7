"""Gather and scatter operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from sparrow import lane
from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode.movement import slice_axis
from sparrow.ops.gather import Gather
from sparrow.ops.gather_elements import GatherElements
from sparrow.ops.gather_nd import GatherND
from sparrow.ops.scatter import REDUCTIONS, Reduction, ScatterElements, ScatterND
from sparrow.tensor import BF16, BOOL, F16, F32, I64


def check_indices(n: Call, index: str, extent: int) -> None:
    """Refuse constant indices outside [-extent, extent)."""
    v = n.b.value(index)
    if v is not None and v.dtype.kind not in "iu":
        raise n.bad(f"indices are {v.dtype}, expected integers")
    if v is not None and v.size and (v.min() < -extent or v.max() >= extent):
        raise n.bad(f"indices reach {v.min()}..{v.max()} on an axis of {extent}")


def _gather(n: Call) -> Sequence[str]:
    x = n.type()
    axis = n.axis(int(n.attr("axis", 0)), x.rank)
    check_indices(n, n.x(1), x.shape[axis])
    index = n.b.value(n.x(1))
    if index is not None and index.size == 1:
        y = slice_axis(n, n.x(), axis, int(index.ravel()[0]) % x.shape[axis], 1)
        return [n.b.reshape(y, (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))]
    return [n.b.add(Gather(axis), n.x(), n.x(1))]


def _gather_elements(n: Call) -> Sequence[str]:
    axis = n.axis(int(n.attr("axis", 0)), n.type().rank)
    check_indices(n, n.x(1), n.type().shape[axis])
    return [n.b.add(GatherElements(axis), n.x(), n.x(1))]


def _check_vectors(n: Call, extents: Sequence[int]) -> None:
    """Refuse constant index vectors that leave ``extents``, one per component."""
    v = n.b.value(n.x(1))
    if v is None or not v.size or not v.ndim or v.shape[-1] > len(extents):
        return
    for j, d in enumerate(extents[: v.shape[-1]]):
        if v[..., j].min() < -d or v[..., j].max() >= d:
            raise n.bad(f"indices reach {v[..., j].min()}..{v[..., j].max()} on an axis of {d}")


def _gather_nd(n: Call) -> Sequence[str]:
    batch = int(n.attr("batch_dims", 0))
    if batch < 0:
        raise n.bad(f"batch_dims is {batch}")
    _check_vectors(n, n.type().shape[batch:])
    return [n.b.add(GatherND(batch), n.x(), n.x(1))]


def _reduction(n: Call) -> Reduction:
    given = n.attr("reduction", "none")
    for r in REDUCTIONS:
        if r == given:
            return r
    raise n.bad(f"reduction is {given!r}, expected one of {', '.join(REDUCTIONS)}")


def _scatter(n: Call, op: ScatterElements | ScatterND) -> Sequence[str]:
    x, index, updates = n.x(0), n.x(1), n.x(2)
    dtype = n.type().dtype
    if dtype == BOOL and op.reduction in ("add", "mul"):
        # a sum of truth values is their disjunction, a product their conjunction
        op = replace(op, reduction="max" if op.reduction == "add" else "min")
    if op.reduction in ("add", "mul") and dtype in (F16, BF16):
        # half types accumulate in float32 and round once
        wide = n.b.add(op, n.b.cast(x, F32), index, n.b.cast(updates, F32))
        return [n.b.cast(wide, dtype)]
    return [n.b.add(op, x, index, updates)]


def _scatter_elements(n: Call) -> Sequence[str]:
    axis = n.axis(int(n.attr("axis", 0)), n.type().rank)
    check_indices(n, n.x(1), n.type().shape[axis])
    return _scatter(n, ScatterElements(axis, _reduction(n)))


def _scatter_nd(n: Call) -> Sequence[str]:
    _check_vectors(n, n.type().shape)
    return _scatter(n, ScatterND(_reduction(n)))


def tensor_scatter(n: Call) -> Sequence[str]:
    """Rows of ``update`` written at ``write_indices[batch]`` + 0, 1, ..; a ScatterElements along
    the axis.
    """
    cache, update = n.type(0), n.type(1)
    axis = n.axis(int(n.attr("axis", -2)), cache.rank)
    mode = n.attr("mode", "linear")
    if mode not in ("linear", "circular"):
        raise n.bad(f"mode is {mode!r}, expected 'linear' or 'circular'")
    if axis == 0 or update.rank != cache.rank:
        raise n.bad(f"axis {axis} of cache {cache} and update {update}")
    n.b.made(2 * update.size, "the places")
    steps = n.b.places(update.shape[axis])
    steps = steps.reshape(-1, *(1,) * (cache.rank - 1 - axis))
    at = n.b.const(np.ascontiguousarray(np.broadcast_to(steps, update.shape)), I64)
    if n.has(2):
        if n.type(2).shape != (cache.shape[0],):
            raise n.bad(f"write_indices {n.type(2)} for a batch of {cache.shape[0]}")
        start = n.b.cast(n.x(2), I64)
        start = n.b.reshape(start, (cache.shape[0], *(1,) * (cache.rank - 1)))
        at = n.b.call("add", at, start)
    if mode == "circular":
        at = n.b.lane(lane.call("mod", n.b.arg(0, at), lane.Imm(cache.shape[axis], I64)), at)
    check_indices(n, at, cache.shape[axis])
    return [n.b.add(ScatterElements(axis), n.x(0), at, n.x(1))]


DECODERS: Mapping[str, Decoder] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TensorScatter": tensor_scatter,
}
