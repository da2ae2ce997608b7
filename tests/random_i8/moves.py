"""Rows that move, select and order codes, or reduce them."""

from __future__ import annotations

from math import prod

import numpy as np

from random_i8.draw import Draw, Made
from sparrow.ops.bitcast import BitCast
from sparrow.ops.compress import Compress
from sparrow.ops.concat import Concat
from sparrow.ops.gather import Gather
from sparrow.ops.gather_elements import GatherElements
from sparrow.ops.gather_nd import GatherND
from sparrow.ops.nonzero import NonZero
from sparrow.ops.pad import Expand, Pad, PadMode
from sparrow.ops.pool import Order, Pool
from sparrow.ops.reduce import ArgReduce, Cumulate, Reduce
from sparrow.ops.reshape import Reshape
from sparrow.ops.resize import Axis, Mode, Resize
from sparrow.ops.scatter import ScatterElements, ScatterND
from sparrow.ops.slice import Slice
from sparrow.ops.topk import TopK
from sparrow.ops.transpose import Transpose
from sparrow.ops.unique import Unique
from sparrow.ops.unpool import Unpool
from sparrow.tensor import I8, I16, I32, U8, Array, DType

_PADS: tuple[PadMode, ...] = ("constant", "edge", "reflect", "wrap")
_MODES: tuple[Mode, ...] = ("linear", "linear", "cubic", "nearest")
_ORDERS: tuple[Order, ...] = ("", "", "row", "column")


def _shape(d: Draw, least: int = 1, most: int = 4) -> tuple[int, ...]:
    return tuple(d.pick(1, d.n(1, 6), d.n(1, 6), d.n(1, 40)) for _ in range(d.n(least, most)))


def _codes(d: Draw, shape: tuple[int, ...], *dtypes: DType) -> Array:
    dtype = d.pick(*(dtypes or (I8, U8, I16)))
    few = dtype.limits if d.flag() else (0, 3)  # equal ones are common
    return d.codes(shape, *few).astype(dtype.numpy)


def _index(d: Draw, shape: tuple[int, ...], extent: int) -> Array:
    """Indices, of which some lie outside."""
    wide = d.pick(np.int32, np.int64)
    return d.rng.integers(-1, extent + 1, shape).astype(wide)


def copy_transpose(seed: int) -> Made:
    """Axes in another order."""
    d = Draw(seed)
    shape = _shape(d, 1, 4)
    return Made(Transpose(tuple(d.rng.permutation(len(shape)).tolist())), (_codes(d, shape),), ())


def copy_reshape(seed: int) -> Made:
    """Of a turned tensor."""
    d = Draw(seed)
    x = _codes(d, _shape(d, 1, 3))
    x = np.asfortranarray(x) if d.flag() else d.slice(x)
    return Made(Reshape((x.size,)), (x,), ())


def copy_slice(seed: int) -> Made:
    """Steps both ways."""
    d = Draw(seed)
    shape = _shape(d)
    starts, sizes, steps = [], [], []
    for n in shape:
        step, start = d.pick(1, 1, 2, 3, -1, -2), d.n(0, n - 1)
        room = (n - 1 - start if step > 0 else start) // abs(step) + 1
        starts.append(start)
        sizes.append(d.n(1, room))
        steps.append(step)
    return Made(Slice(tuple(starts), tuple(sizes), tuple(steps)), (_codes(d, shape),), ())


def copy_expand(seed: int) -> Made:
    """Axes of extent 1 repeated, and axes in front."""
    d = Draw(seed)
    shape = _shape(d, 1, 3)
    own = tuple(n if d.flag() else 1 for n in shape)
    return Made(Expand((*_shape(d, 0, 1), *shape)), (_codes(d, own),), ())


def copy_bitcast(seed: int) -> Made:
    """int8 as uint8, and back."""
    d = Draw(seed)
    x = _codes(d, _shape(d), I8, U8)
    x = d.slice(x) if d.flag() else x
    return Made(BitCast(U8 if x.dtype == np.int8 else I8), (x,), ())


def copy_concat(seed: int) -> Made:
    """Along any axis, of up to five."""
    d = Draw(seed)
    shape = _shape(d)
    axis, dtype = d.n(0, len(shape) - 1), d.pick(I8, U8, I16)
    parts = []
    for _ in range(d.n(1, 5)):
        own = tuple(d.n(1, 40) if i == axis else n for i, n in enumerate(shape))
        x = d.codes(own, *dtype.limits).astype(dtype.numpy)
        parts.append(d.slice(x) if d.flag() else x)
    return Made(Concat(axis), tuple(parts), ())


def pad_copies(seed: int) -> Made:
    """A border of one code."""
    d = Draw(seed)
    x = _codes(d, _shape(d))
    pads = tuple((d.n(0, 3), d.n(0, 3)) if d.flag() else (0, 0) for _ in x.shape)
    low, high = np.iinfo(x.dtype).min, np.iinfo(x.dtype).max
    return Made(Pad(pads, "constant", d.n(low, high)), (x,), ())


def pad_moved(seed: int) -> Made:
    """A border of any kind."""
    d = Draw(seed)
    mode = d.pick(*_PADS)
    x = _codes(d, tuple(n + 1 for n in _shape(d)))
    pads = tuple((d.n(0, 3), d.n(0, 3)) if d.flag() else (0, 0) for _ in x.shape)
    return Made(Pad(pads, mode, d.n(0, 100)), (x,), ())


def resize(seed: int) -> Made:
    """Linear, cubic and nearest, up and down, along any two axes."""
    d = Draw(seed)
    x = _codes(d, (d.n(1, 2), d.n(1, 9), d.n(1, 9), d.n(1, 40)))
    axes = d.pick((1,), (2,), (1, 2), (1, 2))
    taken = []
    for a in axes:
        size = d.n(1, 20)
        taken.append(Axis(a, size, size / x.shape[a]))
    mode = d.pick(*_MODES)
    rounded = mode != "nearest" and x.dtype != np.int16 and d.n(0, 3) > 0
    return Made(Resize(tuple(taken), mode, rounded=rounded), (x,), ())


def gather(seed: int) -> Made:
    """Rows by number, of which some lie outside."""
    d = Draw(seed)
    shape = _shape(d)
    axis = d.n(0, len(shape) - 1)
    index = _index(d, _shape(d, 0, 2), shape[axis])
    return Made(Gather(axis), (_codes(d, shape), index), ())


def gather_elements(seed: int) -> Made:
    """An index for each element."""
    d = Draw(seed)
    shape = _shape(d)
    axis = d.n(0, len(shape) - 1)
    own = tuple(d.n(1, 9) if i == axis else d.n(1, n) for i, n in enumerate(shape))
    return Made(GatherElements(axis), (_codes(d, shape), _index(d, own, shape[axis])), ())


def gather_nd(seed: int) -> Made:
    """Vectors of indices."""
    d = Draw(seed)
    shape = _shape(d, 1, 4)
    batch = d.n(0, min(1, len(shape) - 1))
    depth = d.n(1, len(shape) - batch)
    index = _index(d, (*shape[:batch], d.n(1, 9), depth), min(shape[batch : batch + depth]))
    return Made(GatherND(batch), (_codes(d, shape), index), ())


def scatter_elements(seed: int) -> Made:
    """Written, added, multiplied, the larger or smaller kept: bytes wrap."""
    d = Draw(seed)
    shape = _shape(d)
    axis = d.n(0, len(shape) - 1)
    own = tuple(d.n(1, 9) if i == axis else d.n(1, n) for i, n in enumerate(shape))
    x = _codes(d, shape)
    updates = _codes(d, own).astype(x.dtype)
    op = ScatterElements(axis, d.pick("none", "add", "mul", "max", "min"))
    return Made(op, (x, _index(d, own, shape[axis]), updates), ())


def scatter_nd(seed: int) -> Made:
    """The same by vectors of indices."""
    d = Draw(seed)
    shape = _shape(d)
    depth = d.n(1, len(shape))
    rows = d.n(1, 9)
    x, index = _codes(d, shape), _index(d, (rows, depth), min(shape[:depth]))
    updates = _codes(d, (rows, *shape[depth:])).astype(x.dtype)
    return Made(ScatterND(d.pick("none", "add", "mul", "max", "min")), (x, index, updates), ())


def unpool(seed: int) -> Made:
    """Elements put where they were, some outside."""
    d = Draw(seed)
    x, shape = _codes(d, _shape(d)), _shape(d)
    return Made(Unpool(shape), (x, _index(d, x.shape, prod(shape)).astype(np.int64)), ())


def reduce(seed: int) -> Made:
    """Sums, products, means and extremes; sums wrap."""
    d = Draw(seed)
    x = _codes(d, _shape(d), I8, U8, I16, I32)
    axes = tuple(i for i in range(x.ndim) if d.flag())
    return Made(Reduce(d.pick("sum", "mean", "max", "min", "prod"), axes), (x,), ())


def reduce_rows(seed: int) -> Made:
    """The same along neighbouring axes, of more than a vector, where nothing is divided."""
    d = Draw(seed)
    shape = (*(d.n(1, 9) for _ in range(d.n(0, 3))), d.n(1, 150))
    x = _codes(d, shape, I8, U8, I16, I32)
    first = d.n(0, x.ndim - 1)
    axes = tuple(range(first, d.n(first, x.ndim - 1) + 1))
    return Made(Reduce(d.pick("sum", "max", "min", "prod"), axes), (x,), ())


def arg_reduce(seed: int) -> Made:
    """Where the extreme is, the first or the last of equal ones."""
    d = Draw(seed)
    x = _codes(d, _shape(d))
    return Made(ArgReduce(d.pick("max", "min"), d.n(0, x.ndim - 1), d.flag()), (x,), ())


def cumulate(seed: int) -> Made:
    """Running sums and products."""
    d = Draw(seed)
    x = _codes(d, _shape(d), I8, U8, I16, I32)
    op = Cumulate(d.pick("sum", "prod"), d.n(0, x.ndim - 1), d.flag(), d.flag())
    return Made(op, (x,), ())


def pool(seed: int) -> Made:
    """Maxima and where they are: every layout, rank, window and rounding of extents."""
    d = Draw(seed)
    rank = d.n(1, 3)
    kernel = tuple(d.n(1, 4) for _ in range(rank))
    order = d.pick(*_ORDERS)
    # a window that holds nothing has no place
    pads = tuple((d.n(0, k - (order != "")), d.n(0, k - (order != ""))) for k in kernel)
    dilations = tuple(d.n(1, 2) for _ in range(rank))
    sides = tuple((k - 1) * s + 1 + d.n(0, 5) for k, s in zip(kernel, dilations, strict=True))
    last = d.flag()
    shape = (d.n(1, 2), *sides, d.n(1, 20)) if last else (d.n(1, 2), d.n(1, 20), *sides)
    strides = tuple(d.n(1, 3) for _ in range(rank))
    op = Pool("max", kernel, strides, dilations, pads, d.flag(), channels_last=last, indices=order)
    return Made(op, (_codes(d, shape),), ())


def topk(seed: int) -> Made:
    """The largest or smallest, and where they are."""
    d = Draw(seed)
    x = _codes(d, _shape(d))
    axis = d.n(0, x.ndim - 1)
    return Made(TopK(axis, d.n(1, x.shape[axis]), d.flag()), (x,), ())


def nonzero(seed: int) -> Made:
    """Where codes are not 0."""
    d = Draw(seed)
    return Made(NonZero(), (_codes(d, _shape(d)),), ())


def compress(seed: int) -> Made:
    """Slices picked by a vector of truths."""
    d = Draw(seed)
    x = _codes(d, _shape(d))
    axis = d.n(0, x.ndim - 1)
    return Made(Compress(axis), (x, d.rng.integers(0, 2, d.n(1, x.shape[axis])) > 0), ())


def unique(seed: int) -> Made:
    """Distinct elements or slices."""
    d = Draw(seed)
    x = _codes(d, _shape(d))
    return Made(Unique(None if d.flag() else d.n(0, x.ndim - 1), d.flag()), (x,), ())
