"""Remove data movement that moves nothing: identities, inverse and repeated movement.

Transpose(Transpose(x, p), q)         ->  Transpose(x, p o q)
Transpose(x, p)                       ->  Reshape(x)        p only moves axes of extent 1
Reshape(Reshape(x))                   ->  Reshape(x)
Slice(Slice(x))                       ->  Slice(x)
Gather(x, [3, 4, 5])                  ->  Slice(x)          constant, equally spaced indices
Gather(x, [[0, 1, 2], [1, 2, 3]])     ->  Concat of slices  as sliding windows are written
Lane(Reshape(x))                      ->  Reshape(Lane(x))  so that it meets what computes x
Reshape(Lane(Reshape(x), c))          ->  Lane(x, Reshape(c))  where x has the shape again
Lane(Transpose(sum))                  ->  Transpose(Lane(sum))  the same (`lane_before_transpose`)
Concat(Concat(a, b), c)               ->  Concat(a, b, c)   along one axis, read once
Concat(a), Concat(a, nothing)         ->  a
Pad(x, 0), Expand(x), Reshape(x), Slice(x), Lane(x)  ->  x  nothing changes
f(constants)                          ->  constant
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from operator import mul

import numpy as np
from numpy.typing import NDArray

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.gather import Gather
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.pad import Expand, Pad
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.rewrite import Match, Reject, Rewrite, Rule
from sparrow.tensor import Affine, TensorType

MAX_ROWS = 8


def tidy_transpose(m: Match, n: Node) -> Rewrite | None:
    """Compose, drop or turn into a reshape."""
    if not isinstance(n.op, Transpose):
        return None
    (x,) = n.inputs
    p = m.producer(x, Transpose)
    if p is not None:
        assert isinstance(p.op, Transpose)
        perm = tuple(p.op.perm[i] for i in n.op.perm)
        return Rewrite((Node(Transpose(perm, n.op.axes), p.inputs, n.outputs, n.origin),), (n,))
    if n.op.perm == tuple(range(len(n.op.perm))):
        return Rewrite((), (n,), {n.outputs[0]: x})
    shape, quant = m.type(x).shape, m.type(x).quant
    movers = [i for i in n.op.perm if shape[i] != 1]
    if movers == sorted(movers) and not per_axis(m.type(x)):
        new = Node(Reshape(m.type(n.outputs[0]).shape), n.inputs, n.outputs, n.origin)
        return Rewrite((new,), (n,)) if m.type(n.outputs[0]).quant == quant else None
    return None


def per_axis(t: TensorType) -> bool:
    """Whether quantization of a type speaks of positions, which movement would change."""
    return t.quant is not None and not (isinstance(t.quant, Affine) and t.quant.per_tensor)


def tidy_reshape(m: Match, n: Node) -> Rewrite | None:
    """Merge with a reshape before it; drop when the shape stays."""
    if not isinstance(n.op, Reshape):
        return None
    (x,) = n.inputs
    if m.type(x).shape == n.op.shape:
        return Rewrite((), (n,), {n.outputs[0]: x})
    p = m.producer(x, Reshape)
    if p is not None:
        return Rewrite((Node(n.op, p.inputs, n.outputs, n.origin),), (n,))
    return None


def tidy_slice(m: Match, n: Node) -> Rewrite | None:
    """Merge with a slice before it."""
    if not isinstance(n.op, Slice):
        return None
    p = m.producer(n.inputs[0], Slice)
    if p is None:
        return None
    assert isinstance(p.op, Slice)
    rows = zip(p.op.starts, p.op.steps, n.op.starts, n.op.steps, n.op.sizes, strict=True)
    found = [(a + s * b if size else 0, s * t) for a, s, b, t, size in rows]
    starts, steps = (tuple(v) for v in zip(*found, strict=True)) if found else ((), ())
    return Rewrite((Node(Slice(starts, n.op.sizes, steps), p.inputs, n.outputs, n.origin),), (n,))


def gather_slice(m: Match, n: Node) -> Rewrite | Reject | None:
    """Turn a gather of equally spaced constant indices into a slice."""
    if not isinstance(n.op, Gather):
        return None
    index, x, axis = m.const(n.inputs[1]), m.type(n.inputs[0]), n.op.axis
    if index is None or index.size == 0:
        return None
    extent = x.shape[axis]
    at = np.where(index < 0, index + extent, index).ravel().astype(np.int64)
    step = int(at[1] - at[0]) if at.size > 1 else 1
    if at.min() < 0 or at.max() >= extent:
        return Reject("an index lies outside the axis")
    if step == 0 or np.any(np.diff(at) != step):
        return _gather_rows(m, n, at.reshape(index.shape))
    starts, steps, sizes = [0] * x.rank, [1] * x.rank, list(x.shape)
    starts[axis], steps[axis], sizes[axis] = int(at[0]), step, at.size
    part, y = m.fresh(), n.outputs[0]
    cut = Node(Slice(tuple(starts), tuple(sizes), tuple(steps)), n.inputs[:1], (part,), n.origin)
    return Rewrite((cut, Node(Reshape(m.type(y).shape), (part,), (y,), n.origin)), (n,))


def _gather_rows(m: Match, n: Node, at: NDArray[np.int64]) -> Rewrite | Reject:
    """A gather of a few rows of equally spaced indices as slices side by side."""
    assert isinstance(n.op, Gather)
    x, axis = m.type(n.inputs[0]), n.op.axis
    if at.ndim != 2 or at.shape[0] > MAX_ROWS or at.shape[1] < 2 or x.quant is not None:
        return Reject("the indices are not equally spaced")
    steps = at[:, 1] - at[:, 0]
    if np.any(steps == 0) or np.any(np.diff(at, axis=1) != steps[:, None]):
        return Reject("the indices are not equally spaced in every row")
    new: list[Node] = []
    parts: list[str] = []
    for row, step in zip(at, steps, strict=True):
        first, every, sizes = [0] * x.rank, [1] * x.rank, list(x.shape)
        first[axis], every[axis], sizes[axis] = int(row[0]), int(step), row.size
        cut, part = m.fresh(), m.fresh()
        op = Slice(tuple(first), tuple(sizes), tuple(every))
        new.append(Node(op, n.inputs[:1], (cut,), n.origin))
        shape = (*sizes[:axis], 1, *sizes[axis:])
        new.append(Node(Reshape(shape), (cut,), (part,), n.origin))
        parts.append(part)
    new.append(Node(Concat(axis), tuple(parts), n.outputs, n.origin))
    return Rewrite(tuple(new), (n,))


def lane_before_reshape(m: Match, n: Node) -> Rewrite | None:
    """Match a Lane over reshapes of tensors of one shape, and literals."""
    if not isinstance(n.op, Lane) or not n.inputs:
        return None
    sources: list[str] = []
    for x in n.inputs:
        p = m.producer(x, Reshape)
        if p is None or m.type(x).shape != m.type(n.outputs[0]).shape:
            return None
        sources.append(p.inputs[0])
    shape = m.type(sources[0]).shape
    if any(m.type(s).shape != shape or m.type(s).quant is not None for s in sources):
        return None
    middle, y = m.fresh(), n.outputs[0]
    early = Node(n.op, tuple(sources), (middle,), n.origin)
    return Rewrite((early, Node(Reshape(m.type(y).shape), (middle,), (y,), n.origin)), (n,))


def lane_between_reshapes(m: Match, n: Node) -> Rewrite | None:
    """Match what restores the shape in which operands of a Lane were, but for constants."""
    if not isinstance(n.op, Reshape) or m.only_user(n.inputs[0]) is None:
        return None
    p = m.producer(n.inputs[0], Lane)
    if p is None or any(m.type(v).quant is not None for v in (*p.inputs, *n.outputs)):
        return None
    within, shape = m.type(n.inputs[0]).shape, n.op.shape
    new: list[Node] = []
    operands: list[str] = []
    for x in p.inputs:
        r = m.producer(x, Reshape)
        if r is not None and m.type(x).shape == within and m.type(r.inputs[0]).shape == shape:
            operands.append(r.inputs[0])
            continue
        view = _broadcasting(m.type(x).shape, within, shape) if m.const(x) is not None else None
        if view is None:
            return None
        operands.append(m.fresh())
        new.append(Node(Reshape(view), (x,), (operands[-1],), n.origin))
    if len(new) == len(operands):
        return None
    return Rewrite((*new, Node(p.op, tuple(operands), n.outputs, p.origin)), (p, n))


def _broadcasting(
    x: tuple[int, ...], within: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Shape in which x, which broadcasts to ``within``, does to ``shape`` alike.

    None where axes that become one are not all there or all missing.
    """
    if 0 in within:
        return None
    x = (*(1,) * (len(within) - len(x)), *x)
    old, new = (list(accumulate(s, mul, initial=1)) for s in (within, shape))
    view = [1] * len(shape)
    for low, high in pairwise(sorted({*old} & {*new})):
        there = {
            x[i] == d
            for i, d in enumerate(within)
            if d > 1 and low <= old[i] and old[i + 1] <= high
        }
        if len(there) > 1:
            return None
        for i, d in enumerate(shape):
            if there == {True} and low <= new[i] and new[i + 1] <= high:
                view[i] = d
    return tuple(view)


def lane_before_transpose(m: Match, n: Node) -> Rewrite | None:
    """Match a function of the transposed result of a sum, as channels-last models write it.

    No part of `TIDY`: once layouts are assigned, a transpose that is left is best read through.
    """
    if not isinstance(n.op, Lane) or len(n.inputs) != 1 or m.only_user(n.inputs[0]) is not n:
        return None
    p = m.producer(n.inputs[0], Transpose)
    if p is None or m.only_user(p.inputs[0]) is not p or m.type(n.outputs[0]).quant is not None:
        return None
    if m.producer(p.inputs[0], (Conv, ConvTranspose, MatMul)) is None:
        return None
    middle = m.fresh()
    early = Node(n.op, p.inputs, (middle,), n.origin)
    return Rewrite((early, Node(p.op, (middle,), n.outputs, p.origin)), (p, n))


def tidy_concat(m: Match, n: Node) -> Rewrite | None:
    """Flatten a concatenation of concatenations along one axis; drop empty operands."""
    if not isinstance(n.op, Concat):
        return None
    axis = n.op.axis
    full = tuple(x for x in n.inputs if m.type(x).shape[axis])
    if full and len(full) < len(n.inputs) and m.type(full[0]) == m.type(n.inputs[0]):
        return Rewrite((Node(n.op, full, n.outputs, n.origin),), (n,))
    for i, x in enumerate(n.inputs):
        p = m.producer(x, Concat)
        if p is not None and p.op == n.op and m.only_user(x) is n:
            inputs = (*n.inputs[:i], *p.inputs, *n.inputs[i + 1 :])
            return Rewrite((Node(n.op, inputs, n.outputs, n.origin),), (p, n))
    return None


def tidy_identity(m: Match, n: Node) -> Rewrite | None:
    """Drop nodes that return an operand as it is."""
    y = n.outputs[0]
    source = _identity_of(n)
    if source is None or m.type(source).shape != m.type(y).shape:
        return None
    if m.is_output(y) and (isinstance(n.op, Lane) or m.producer(source) is None):
        return None
    return Rewrite((), (n,), {y: source})


def _identity_of(n: Node) -> str | None:
    """The operand a node returns if the shape stays."""
    op = n.op
    if isinstance(op, Slice):
        return n.inputs[0] if all(s > 0 for s in op.steps) else None
    if isinstance(op, Concat):
        return n.inputs[0] if len(n.inputs) == 1 else None
    if isinstance(op, (Pad, Expand)):
        return n.inputs[0]
    if isinstance(op, Lane) and isinstance(op.expr, lane.Arg):
        return n.inputs[op.expr.index]
    return None


def fold_constants(m: Match, n: Node) -> Rewrite | Reject | None:
    """Evaluate a node over constants."""
    known = [m.const(x) if x else None for x in n.inputs]
    if not known or any(k is None and x for k, x in zip(known, n.inputs, strict=True)):
        return None
    if not n.op.foldable([m.type(x) if x else None for x in n.inputs]):
        return None
    types = [m.type(y) for y in n.outputs]
    if any(m.is_output(y) for y in n.outputs):
        return None
    if not m.folding.takes(n.op, [m.type(x) if x else None for x in n.inputs], types):
        return Reject("the constant would cost too much")
    with np.errstate(all="ignore"):
        values = n.op.eval(*known)
    names = [m.fresh() for _ in n.outputs]
    return Rewrite(
        (),
        (n,),
        dict(zip(n.outputs, names, strict=True)),
        dict(zip(names, values, strict=True)),
        dict(zip(names, types, strict=True)),
    )


TIDY: tuple[tuple[str, Rule], ...] = (
    ("fold_constants", fold_constants),
    ("tidy_transpose", tidy_transpose),
    ("tidy_reshape", tidy_reshape),
    ("tidy_slice", tidy_slice),
    ("gather_slice", gather_slice),
    ("tidy_concat", tidy_concat),
    ("tidy_identity", tidy_identity),
    ("lane_before_reshape", lane_before_reshape),
    ("lane_between_reshapes", lane_between_reshapes),
)
