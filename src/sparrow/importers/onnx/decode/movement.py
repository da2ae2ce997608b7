"""Shapes, constants and data movement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from sparrow.importers.onnx.call import Call, Decoder, to_array
from sparrow.ops.concat import Concat
from sparrow.ops.slice import Slice
from sparrow.tensor import F32, I64

MAX_PARTS = 1 << 16


def _constant(n: Call) -> Sequence[str]:
    for name, value in n.attrs.items():
        if name == "value":
            array, dtype = to_array(value, n.where)
            return [n.b.stored(array, dtype)]
        if name in ("value_float", "value_floats"):
            return [n.b.const(np.asarray(value, np.float32), F32)]
        if name in ("value_int", "value_ints"):
            return [n.b.const(np.asarray(value, np.int64), I64)]
    raise n.unsupported(f"constant given as {sorted(n.attrs)}")


def _constant_of_shape(n: Call) -> Sequence[str]:
    shape = n.ints_at(0, "the shape") or ()
    if min((0, *shape)) < 0:
        raise n.bad(f"shape {shape} has a negative extent")
    value, dtype = np.zeros(1, np.float32), F32
    if n.attr("value") is not None:
        value, dtype = to_array(n.attr("value"), n.where)
    if len(shape) > 64:
        raise n.bad(f"{len(shape)} axes, at most 64 can be")
    if value.size != 1:
        raise n.bad(f"value has {value.size} elements, expected 1")
    # of an empty one, too: NumPy counts its other extents
    n.b.made(prod(max(d, 1) for d in shape), f"shape {shape}")
    return [n.b.const(np.full(shape, value.ravel()[0], dtype.numpy), dtype)]


def _shape(n: Call) -> Sequence[str]:
    shape = n.type().shape
    rank = len(shape)
    start, end = int(n.attr("start", 0)), int(n.attr("end", rank))
    return [n.b.ints(*shape[slice(*(max(0, v + rank if v < 0 else v) for v in (start, end)))])]


def _size(n: Call) -> Sequence[str]:
    return [n.b.scalar(n.type().size, I64)]


def _reshape(n: Call) -> Sequence[str]:
    x = n.type()
    want = list(n.ints_at(1, "the shape") or ())
    if not n.attr("allowzero", 0):
        for i, d in enumerate(want):
            if d == 0:
                if i >= x.rank:
                    raise n.bad(f"shape {want} copies axis {i} of {x}")
                want[i] = x.shape[i]
    if want.count(-1) == 1:
        rest = 1
        for d in want:
            rest *= d if d != -1 else 1
        if rest == 0 or x.size % rest:
            raise n.bad(f"{x} cannot become {want}")
        want[want.index(-1)] = x.size // rest
    return [n.b.reshape(n.x(), want)]


def _flatten(n: Call) -> Sequence[str]:
    shape, axis = n.type().shape, int(n.attr("axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    if not 0 <= axis <= len(shape):
        raise n.bad(f"axis {axis} of a rank-{len(shape)} tensor")
    rows = int(np.prod(shape[:axis], dtype=np.int64))
    return [
        n.b.reshape(
            n.x(),
            (rows, n.type().size // rows if rows else int(np.prod(shape[axis:], dtype=np.int64))),
        )
    ]


def axes_of(n: Call, since: int) -> tuple[int, ...] | None:
    """``axes``: an attribute before opset ``since``, the second input from then on."""
    return n.ints("axes") if n.version < since else n.ints_at(1, "axes")


def _squeeze(n: Call) -> Sequence[str]:
    shape = n.type().shape
    axes = axes_of(n, 13)
    drop = {i for i, d in enumerate(shape) if d == 1}
    if axes is not None:
        wanted = {n.axis(a, len(shape)) for a in axes}
        if not wanted <= drop:
            raise n.bad(f"axes {axes} of {n.type()} are not all 1")
        drop = wanted
    return [n.b.reshape(n.x(), [d for i, d in enumerate(shape) if i not in drop])]


def _unsqueeze(n: Call) -> Sequence[str]:
    axes = axes_of(n, 13)
    if axes is None:
        raise n.bad("axes are missing")
    shape = list(n.type().shape)
    rank = len(shape) + len(axes)
    where = {n.axis(a, rank) for a in axes}
    if len(where) != len(axes):
        raise n.bad(f"axes {axes} repeat")
    rest = iter(shape)
    return [n.b.reshape(n.x(), [1 if i in where else next(rest) for i in range(rank)])]


def _transpose(n: Call) -> Sequence[str]:
    rank = n.type().rank
    perm = n.ints("perm") or tuple(range(rank))[::-1]
    return [n.b.transpose(n.x(), perm)]


def _concat(n: Call) -> Sequence[str]:
    axis = n.axis(int(n.attr("axis", 1)), n.type().rank)
    return [n.x() if len(n.inputs) == 1 else n.b.add(Concat(axis), *n.xs())]


def slice_axis(n: Call, x: str, axis: int, start: int, size: int, step: int = 1) -> str:
    """X restricted along one axis; the value itself when nothing is dropped."""
    shape = n.b.shape(x)
    if start == 0 and size == shape[axis] and step == 1:
        return x
    starts, sizes, steps = [0] * len(shape), list(shape), [1] * len(shape)
    starts[axis], sizes[axis], steps[axis] = start, size, step
    return n.b.add(Slice(tuple(starts), tuple(sizes), tuple(steps)), x)


def _slice(n: Call) -> Sequence[str]:
    shape = n.type().shape
    if n.version < 10:
        starts, ends, axes, steps = n.ints("starts"), n.ints("ends"), n.ints("axes"), None
    else:
        starts, ends = n.ints_at(1, "starts"), n.ints_at(2, "ends")
        axes, steps = n.ints_at(3, "axes"), n.ints_at(4, "steps")
    if starts is None or ends is None:
        raise n.bad("starts or ends are missing")
    axes = axes or tuple(range(len(starts)))
    steps = steps or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise n.bad(f"starts {starts}, ends {ends}, axes {axes}, steps {steps} differ in length")
    first, sizes, strides = [0] * len(shape), list(shape), [1] * len(shape)
    for a, lo, hi, s in zip(axes, starts, ends, steps, strict=True):
        axis = n.axis(a, len(shape))
        if s == 0:
            raise n.bad("step 0")
        picked = range(shape[axis])[slice(lo, hi if hi > -(1 << 31) else None, s)]
        first[axis], sizes[axis], strides[axis] = (
            (picked.start if len(picked) else 0),
            len(picked),
            s,
        )
    if all(s == 1 for s in strides) and tuple(sizes) == shape:
        return [n.x()]
    return [n.b.add(Slice(tuple(first), tuple(sizes), tuple(strides)), n.x())]


def _split(n: Call) -> Sequence[str]:
    shape = n.type().shape
    axis = n.axis(int(n.attr("axis", 0)), len(shape))
    sizes = n.ints("split") if n.version < 13 else n.ints_at(1, "split")
    if sizes is None:
        parts = int(n.attr("num_outputs", n.n_outputs))
        if not 1 <= parts <= MAX_PARTS:
            raise n.bad(f"num_outputs is {parts}, expected 1 to {MAX_PARTS}")
        each = -(-shape[axis] // parts)
        sizes = tuple(max(0, min(each, shape[axis] - i * each)) for i in range(parts))
        if n.version < 18 and shape[axis] % parts:
            raise n.bad(f"axis of {shape[axis]} does not split into {parts} equal parts")
    if sum(sizes) != shape[axis] or min((0, *sizes)) < 0:
        raise n.bad(f"split {sizes} does not fit an axis of {shape[axis]}")
    named = sizes[: n.n_outputs]
    starts = np.cumsum([0, *named])
    return [slice_axis(n, n.x(), axis, int(a), int(k)) for a, k in zip(starts, named, strict=False)]


DECODERS: Mapping[str, Decoder] = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Shape": _shape,
    "Size": _size,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
}
