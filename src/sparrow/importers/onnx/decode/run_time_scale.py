"""Quantization whose scale or zero point is computed at run time: arithmetic, no quantized type.

What kernels exploit is a constant scale; without one these are elementwise expressions that give
the same answers as `Quantize` and `Dequantize`.
"""

from __future__ import annotations

from sparrow import lane
from sparrow.importers.onnx.call import Call
from sparrow.importers.onnx.decode.arrange import expand
from sparrow.importers.onnx.decode.movement import slice_axis
from sparrow.tensor import F32, I32, I64, DType


def is_static(n: Call, i: int) -> bool:
    """Whether the scale at input ``i`` and the zero point behind it are constants."""
    return all(n.b.value(n.x(k)) is not None for k in (i, i + 1) if n.has(k))


def _spread(n: Call, x: str, values: str, axis: int, block: int) -> str:
    """A scale or zero point shaped so that it broadcasts to ``x``.

    One element; one per index of ``axis``; the rank of ``x`` with extents of 1 where one element
    serves all; or, with ``block``, one per block of ``axis``.
    """
    shape, own = n.b.shape(x), n.b.shape(values)
    size = n.b.type(values).size
    if size == 1 and not block:
        # then `axis` says nothing and may be any number
        return n.b.reshape(values, ())
    axis = n.axis(axis, len(shape))
    if block:
        want = tuple(-(-d // block) if i == axis else d for i, d in enumerate(shape))
        if own != want:
            raise n.bad(f"scale {own} for blocks of {block} along axis {axis}: expected {want}")
        split = n.b.reshape(values, (*want[: axis + 1], 1, *want[axis + 1 :]))
        wide = expand(n, split, (*want[: axis + 1], block, *want[axis + 1 :]))
        whole = n.b.reshape(wide, (*want[:axis], want[axis] * block, *want[axis + 1 :]))
        return slice_axis(n, whole, axis, 0, shape[axis])
    if len(own) == 1 and size == shape[axis]:
        return n.b.reshape(values, [d if i == axis else 1 for i, d in enumerate(shape)])
    if len(own) == len(shape) and all(a in (1, b) for a, b in zip(own, shape, strict=True)):
        return values
    raise n.bad(f"scale {own} along axis {axis} of {shape}")


def dequantize(n: Call, x: str, i: int, axis: int = 1, block: int = 0, dtype: DType = F32) -> str:
    """(x - zero point) * scale with the scale at input ``i`` and the zero point behind it."""
    scale = n.b.cast(_spread(n, x, n.x(i), axis, block), F32)
    codes = x
    if n.has(i + 1):
        wide = I32 if n.b.type(x).dtype.bits <= 16 else I64
        zero = n.b.cast(_spread(n, x, n.x(i + 1), axis, block), wide)
        codes = n.b.call("sub", n.b.cast(x, wide), zero)
    return n.b.cast(n.b.call("mul", n.b.cast(codes, F32), scale), dtype)


def quantize(n: Call, x: str, i: int, dtype: DType, axis: int = 1, block: int = 0) -> str:
    """saturate(rne(x / scale) + zero point), NaN to the zero point; codes of at most 16 bits."""
    if dtype.bits > 16:
        raise n.unsupported(f"quantization to {dtype} with a scale computed at run time")
    scale = n.b.cast(_spread(n, x, n.x(i), axis, block), F32)
    steps = n.b.call("round", n.b.call("div", n.b.cast(x, F32), scale))
    low, high = (lane.Imm(float(v), F32) for v in dtype.limits)
    e: lane.Expr = lane.Arg(0, F32)
    if not n.has(i + 1):
        return n.b.cast(n.b.lane(lane.cast(lane.clip(e, low, high), I32), steps), dtype)
    zero = _spread(n, x, n.x(i + 1), axis, block)
    z = lane.cast(n.b.arg(1, zero), F32)
    # clipped before the zero point is added: both exact, and NaN becomes 0 in between
    clipped = lane.clip(e, lane.call("sub", low, z), lane.call("sub", high, z))
    codes = lane.call("add", lane.cast(clipped, I32), lane.cast(n.b.arg(1, zero), I32))
    return n.b.lane(lane.cast(codes, dtype), steps, zero)
