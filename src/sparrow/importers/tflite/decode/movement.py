"""Shapes and data movement: codes pass as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from sparrow import lane
from sparrow.importers.tflite.call import Call, Decoder
from sparrow.ops.concat import Concat
from sparrow.ops.gather import Gather
from sparrow.ops.gather_nd import GatherND
from sparrow.ops.lane import broadcast_shape
from sparrow.ops.pad import Expand, Pad
from sparrow.ops.slice import Slice
from sparrow.tensor import BOOL, I32, I64


def _reshape(n: Call) -> Sequence[str]:
    """The shape of input 1, else of the options, else of the output tensor."""
    x = n.type()
    want: Sequence[int]
    if n.has(1):
        want = n.ints(1, "the shape")
    elif n.option("new_shape") is not None:
        want = n.option("new_shape")
    else:
        want = n.outs[0].shape
    shape = list(want)
    if shape.count(-1) == 1:
        rest = prod(d for d in shape if d != -1)
        if rest <= 0 or x.size % rest:
            raise n.bad(f"{x} cannot become {shape}")
        shape[shape.index(-1)] = x.size // rest
    return [n.b.reshape(n.x(), shape)]


def _squeeze(n: Call) -> Sequence[str]:
    shape = n.type().shape
    given = n.option("axes")
    drop = {n.axis(a, len(shape)) for a in given or ()}
    drop = drop or {i for i, d in enumerate(shape) if d == 1}
    if any(shape[i] != 1 for i in drop):
        raise n.bad(f"axes {sorted(drop)} of {n.type()} are not all 1")
    return [n.b.reshape(n.x(), [d for i, d in enumerate(shape) if i not in drop])]


def _expand_dims(n: Call) -> Sequence[str]:
    shape = list(n.type().shape)
    (axis,) = n.ints(1, "the axis")[:1] or (0,)
    shape.insert(n.axis(axis, len(shape) + 1), 1)
    return [n.b.reshape(n.x(), shape)]


def _transpose(n: Call) -> Sequence[str]:
    perm, rank = n.ints(1, "the permutation"), n.type().rank
    if sorted(perm) != list(range(rank)):
        raise n.bad(f"permutation {perm} of {n.type()}")
    return [n.b.transpose(n.x(), perm)]


def _concat(n: Call) -> Sequence[str]:
    indices = range(len(n.ins))
    axis = n.axis(int(n.option("axis")), n.type().rank)
    if n.option("activation") == 0 and n.alike(*indices):
        return [n.b.add(Concat(axis), *(n.x(i) for i in indices))]
    y = n.b.add(Concat(axis), *(n.real(i) for i in indices))
    return [n.write(n.activated(y))]


def _pack(n: Call) -> Sequence[str]:
    if n.option("count") != len(n.ins):
        raise n.bad(f"{len(n.ins)} parts, expected {n.option('count')}")
    shape = list(n.type().shape)
    axis = n.axis(int(n.option("axis")), len(shape) + 1)
    shape.insert(axis, 1)
    alike = n.alike(*range(len(n.ins)))
    parts = [n.x(i) if alike else n.real(i) for i in range(len(n.ins))]
    if any(n.b.type(p).size != prod(shape) for p in parts):
        raise n.bad("parts differ in shape")
    y = n.b.add(Concat(axis), *(n.b.reshape(p, shape) for p in parts))
    return [y if alike else n.write(y)]


def cut(n: Call, x: str, axis: int, start: int, size: int) -> str:
    """``x`` restricted along one axis; the value itself when nothing is dropped."""
    shape = n.b.shape(x)
    if start == 0 and size == shape[axis]:
        return x
    starts, sizes = [0] * len(shape), list(shape)
    starts[axis], sizes[axis] = start, size
    return n.b.add(Slice(tuple(starts), tuple(sizes), (1,) * len(shape)), x)


def _unpack(n: Call) -> Sequence[str]:
    shape = n.type().shape
    axis = n.axis(int(n.option("axis")), len(shape))
    if shape[axis] != len(n.outs):
        raise n.bad(f"{len(n.outs)} outputs of axis {axis} of {n.type()}")
    rest = shape[:axis] + shape[axis + 1 :]
    return [n.b.reshape(cut(n, n.x(), axis, i, 1), rest) for i in range(shape[axis])]


def _parts(n: Call, x: str, axis: int, sizes: Sequence[int]) -> Sequence[str]:
    if len(sizes) != len(n.outs) or min((0, *sizes)) < 0 or sum(sizes) != n.b.shape(x)[axis]:
        raise n.bad(f"{len(n.outs)} outputs of sizes {tuple(sizes)[:8]} of {n.b.type(x)}")
    starts = np.cumsum([0, *sizes])
    return [cut(n, x, axis, int(a), d) for a, d in zip(starts, sizes, strict=False)]


def _split(n: Call) -> Sequence[str]:
    (axis,) = n.ints(0, "the axis")[:1] or (0,)
    axis = n.axis(axis, n.type(1).rank)
    extent, count = n.type(1).shape[axis], len(n.outs)
    if not count or extent % count:
        raise n.bad(f"{count} equal parts of axis {axis} of {n.type(1)}")
    return _parts(n, n.x(1), axis, [extent // count] * count)


def _split_v(n: Call) -> Sequence[str]:
    sizes = list(n.ints(1, "the sizes"))
    (axis,) = n.ints(2, "the axis")[:1] or (0,)
    axis = n.axis(axis, n.type().rank)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = n.type().shape[axis] - sum(s for s in sizes if s != -1)
    return _parts(n, n.x(), axis, sizes)


def _slice(n: Call) -> Sequence[str]:
    begin, size = n.ints(1, "the start"), n.ints(2, "the size")
    shape = n.type().shape
    if len(begin) != len(shape) or len(size) != len(shape):
        raise n.bad(f"start {begin}, size {size} of {n.type()}")
    sizes = tuple(d - a if s == -1 else s for d, a, s in zip(shape, begin, size, strict=True))
    return [n.b.add(Slice(begin, sizes, (1,) * len(shape)), n.x())]


def _strided_slice(n: Call) -> Sequence[str]:
    """Python slices per axis; bits of the masks say which bounds are missing or drop their axis."""
    begin, end, steps = (
        n.ints(i, what) for i, what in ((1, "the start"), (2, "the end"), (3, "the step"))
    )
    shape = n.type().shape
    if n.option("ellipsis_mask") or n.option("new_axis_mask"):
        raise n.unsupported("an ellipsis or a new axis", "write it as a reshape")
    if n.option("offset"):
        end = tuple(a + e for a, e in zip(begin, end, strict=False))
    if not len(begin) == len(end) == len(steps) <= len(shape) or 0 in steps:
        raise n.bad(f"start {begin}, end {end}, step {steps} of {n.type()}")
    starts, sizes, strides, kept = [], [], [], []
    for i, d in enumerate(shape):
        bit = 1 << i
        if i >= len(begin):
            a, count, s = 0, d, 1
        elif n.option("shrink_axis_mask") & bit:
            a, count, s = n.axis(begin[i], d), 1, 1
        else:
            s = steps[i]
            open_ = n.option("begin_mask") & bit, n.option("end_mask") & bit
            span = range(d)[None if open_[0] else begin[i] : None if open_[1] else end[i] : s]
            a, count = (span.start, len(span)) if len(span) else (0, 0)
        starts.append(a)
        sizes.append(count)
        strides.append(s)
        if i >= len(begin) or not n.option("shrink_axis_mask") & bit:
            kept.append(count)
    y = n.b.add(Slice(tuple(starts), tuple(sizes), tuple(strides)), n.x())
    return [n.b.reshape(y, kept)]


def pairs(n: Call, i: int, what: str, rank: int) -> tuple[tuple[int, int], ...]:
    """Input ``i`` as ``rank`` constant pairs, none of them negative."""
    flat = n.ints(i, what)
    if len(flat) != 2 * rank or min((0, *flat)) < 0:
        raise n.bad(f"{what} are {flat}, expected {rank} pairs")
    return tuple((flat[2 * k], flat[2 * k + 1]) for k in range(rank))


def zero_code(n: Call) -> int:
    """What means zero in input 0: its zero point, 0 where it holds numbers."""
    t = n.tensor(0)
    return int(t.zero_point[0]) if t.quantized else 0


def _pad(n: Call) -> Sequence[str]:
    pads = pairs(n, 1, "the pads", n.type().rank)
    value: float | int | bool = zero_code(n)
    if n.has(2):
        known = n.const(2, "the value")
        if known.size != 1:
            raise n.bad(f"value {n.type(2)}, expected one element")
        value = known.ravel()[0].item()
    if n.type().dtype == BOOL:
        value = bool(value)
    return [n.b.add(Pad(pads, "constant", value), n.x())]


def _mirror_pad(n: Call) -> Sequence[str]:
    """Mode 0 leaves the border element out, mode 1 repeats it: ours has the first only."""
    shape = n.type().shape
    pads = pairs(n, 1, "the pads", len(shape))
    if n.option("mode") == 0:
        return [n.b.add(Pad(pads, "reflect"), n.x())]
    if max((0, *(v for p in pads for v in p))) <= 1:
        # one element of symmetric padding is the border itself
        return [n.b.add(Pad(pads, "edge"), n.x())]
    y = n.x()
    for axis, (d, p) in enumerate(zip(shape, pads, strict=True)):
        if max(p) > d:
            raise n.bad(f"symmetric pads {p} of an axis of {d}")
        if sum(p):
            index = np.pad(np.arange(d, dtype=np.int32), p, mode="symmetric")
            y = n.b.add(Gather(axis), y, n.b.const(index, I32))
    return [y]


def _gather(n: Call) -> Sequence[str]:
    x, index = n.type(0), n.type(1)
    axis = n.axis(int(n.option("axis")), x.rank)
    batch = int(n.option("batch_dims"))
    if batch == 0:
        return [n.b.add(Gather(axis), n.x(0), _index(n, 1))]
    if batch == axis and 0 < batch <= index.rank:
        # the leading axes in step: one index more per element
        return [n.b.add(GatherND(batch), n.x(0), n.b.reshape(_index(n, 1), (*index.shape, 1)))]
    raise n.unsupported(f"batch_dims {batch} with axis {axis}")


def _index(n: Call, i: int) -> str:
    return n.x(i) if n.type(i).dtype in (I32, I64) else n.b.cast(n.x(i), I32)


def _gather_nd(n: Call) -> Sequence[str]:
    return [n.b.add(GatherND(), n.x(0), _index(n, 1))]


def _embedding(n: Call) -> Sequence[str]:
    """Rows of the table at input 1; they may be numbers where the table is codes."""
    y = n.b.add(Gather(0), n.x(1), _index(n, 0))
    if n.tensor(1).quantized and not n.outs[0].quantized:
        table = n.tensor(1)
        if table.scale.size != 1:
            raise n.unsupported("a table with several scales and an output of numbers")
        y = n.b.add(Gather(0), n.real(1), _index(n, 0))
    return [y]


def _broadcast(n: Call, x: str, shape: Sequence[int]) -> str:
    return x if n.b.shape(x) == tuple(shape) else n.b.add(Expand(tuple(shape)), x)


def _broadcast_to(n: Call) -> Sequence[str]:
    want = n.ints(1, "the shape")
    return [_broadcast(n, n.x(), broadcast_shape(n.type().shape, want))]


def _tile(n: Call) -> Sequence[str]:
    """Repetition of an axis is a broadcast axis before it."""
    shape, repeats = n.type().shape, n.ints(1, "the repeats")
    if len(repeats) != len(shape) or min((0, *repeats)) < 0:
        raise n.bad(f"repeats {repeats} of {n.type()}")
    split = [e for d in shape for e in (1, d)]
    grown = [e for d, r in zip(shape, repeats, strict=True) for e in (r, d)]
    y = _broadcast(n, n.b.reshape(n.x(), split), grown)
    return [n.b.reshape(y, [d * r for d, r in zip(shape, repeats, strict=True)])]


def _shape(n: Call) -> Sequence[str]:
    dtype = n.outs[0].dtype
    return [n.b.const(np.array(n.type().shape, dtype.numpy), dtype)]


def _rank(n: Call) -> Sequence[str]:
    return [n.b.scalar(n.type().rank, I32)]


def _fill(n: Call) -> Sequence[str]:
    shape = n.ints(0, "the shape")
    value = n.const(1, "the value")
    if min((0, *shape)) < 0 or value.size != 1:
        raise n.bad(f"a constant of shape {shape} from {n.type(1)}")
    n.b.made(prod(max(d, 1) for d in shape), f"shape {shape}")
    return [n.b.const(np.full(shape, value.ravel()[0]), n.type(1).dtype)]


def _zeros_like(n: Call) -> Sequence[str]:
    t = n.type()
    n.b.made(t.size, f"shape {t.shape}")
    return [n.b.const(np.full(t.shape, zero_code(n), t.dtype.numpy), t.dtype)]


def _range(n: Call) -> Sequence[str]:
    start, limit, step = (n.const(i, "a bound") for i in range(3))
    if not all(v.size == 1 for v in (start, limit, step)) or not step.any():
        raise n.bad(f"range from {n.type(0)} to {n.type(1)} by {n.type(2)}")
    a, b, s = (v.ravel()[0].item() for v in (start, limit, step))
    if not abs(b - a) / abs(s) < float("inf"):
        raise n.bad(f"range({a}, {b}, {s}) is too long")
    n.b.made(4 * int(abs(b - a) / abs(s)), "the range")
    return [n.b.const(np.arange(a, b, s).astype(start.dtype), n.type(0).dtype)]


def _reverse(n: Call) -> Sequence[str]:
    shape = n.type().shape
    axes = {n.axis(a, len(shape)) for a in n.ints(1, "the axes")}
    starts = tuple(max(0, d - 1) if i in axes else 0 for i, d in enumerate(shape))
    steps = tuple(-1 if i in axes else 1 for i in range(len(shape)))
    return [n.b.add(Slice(starts, shape, steps), n.x())]


def _one_hot(n: Call) -> Sequence[str]:
    """Inputs (indices, depth, on value, off value)."""
    (depth,) = n.ints(1, "the depth")[:1] or (0,)
    index = n.type(0)
    axis = n.axis(int(n.option("axis")), index.rank + 1)
    # codes pass as they are, whatever scales their file gives both
    alike = n.type(2).dtype == n.type(3).dtype and n.type(2).size == n.type(3).size == 1
    if not 0 <= depth <= 1 << 20 or not alike:
        raise n.bad(f"depth {depth}, values {n.type(2)} and {n.type(3)}")
    shape = [*index.shape[:axis], 1, *index.shape[axis:]]
    spots = n.b.const(
        np.arange(depth, dtype=index.dtype.numpy).reshape(-1, *(1,) * (index.rank - axis)),
        index.dtype,
    )
    hit = n.b.call("eq", n.b.reshape(n.x(0), shape), spots)
    on, off = (n.b.reshape(n.x(i), ()) for i in (2, 3))
    return [
        n.b.lane(lane.call("where", n.b.arg(0, hit), n.b.arg(1, on), n.b.arg(2, off)), hit, on, off)
    ]


DECODERS: Mapping[str, Decoder] = {
    "BROADCAST_TO": _broadcast_to,
    "CONCATENATION": _concat,
    "DENSIFY": lambda n: [n.x()],  # sparse constants are read dense
    "EMBEDDING_LOOKUP": _embedding,
    "EXPAND_DIMS": _expand_dims,
    "FILL": _fill,
    "GATHER": _gather,
    "GATHER_ND": _gather_nd,
    "MIRROR_PAD": _mirror_pad,
    "ONE_HOT": _one_hot,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "RANGE": _range,
    "RANK": _rank,
    "RESHAPE": _reshape,
    "REVERSE_V2": _reverse,
    "SHAPE": _shape,
    "SLICE": _slice,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
    "ZEROS_LIKE": _zeros_like,
}
