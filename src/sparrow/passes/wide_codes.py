"""Carry 16-bit codes as int32 from one elementwise op to the next, as vectors do.

    before   y = int16(e(..))             z = f(int32(y))
    after    w = e(..)                    z = f(w)              y = int16(w) where it is still read

The same through movement and tables of functions. Only where e cannot leave int16, so that nothing
was cut off. What nobody reads as int32 in the end is int16 again: sums and loops take the cast in,
and so do tables (`look_up_narrow`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.lane import Lane
from sparrow.ops.lookup_linear import LookupLinear
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.rewrite import Match, Rewrite
from sparrow.tensor import I16, I32

NARROWED = lane.cast(lane.Arg(0, I32), I16)
_KEEP_ORDER = ("round", "floor", "ceil", "trunc")


def bounds(e: lane.Expr) -> tuple[float, float]:
    """What an expression lies between; NaN becomes 0 where it is cast to an integer."""
    if isinstance(e, lane.Imm):
        return float(e.value), float(e.value)
    every = (-np.inf, np.inf) if e.dtype.kind == "float" else tuple(map(float, e.dtype.limits))
    if isinstance(e, lane.Arg) or e.fn not in ("max", "min", "add", "sub", "cast", *_KEEP_ORDER):
        return every[0], every[1]
    parts = [bounds(a) for a in e.args]
    (a, b), (c, d) = parts[0], parts[-1]
    if e.fn == "cast" and e.dtype.kind != "float" and e.args[0].dtype.kind == "float":
        # truncated, and 0 of NaN
        a, b = min(a, 0.0), max(b, 0.0)
    if e.fn in ("max", "min"):
        pick = max if e.fn == "max" else min
        a, b = pick(a, c), pick(b, d)
    elif e.fn in ("add", "sub"):
        a, b = (a + c, b + d) if e.fn == "add" else (a - d, b - c)
    if e.dtype.kind != "float" and not every[0] <= a <= b <= every[1]:
        return every[0], every[1]
    return a, b


def split_codes(m: Match, n: Node) -> Rewrite | None:
    """Match an expression of 16-bit codes."""
    if not isinstance(n.op, Lane) or n.op.expr.dtype != I16 or n.op.expr == NARROWED:
        return None
    e = n.op.expr
    if not isinstance(e, lane.Call) or e.fn != "cast" or e.args[0].dtype != I32:
        return None
    low, high = bounds(e.args[0])
    if low < I16.limits[0] or high > I16.limits[1] or m.is_output(n.outputs[0]):
        return None
    w = m.fresh()
    wide = Node(Lane(e.args[0]), n.inputs, (w,), n.origin)
    return Rewrite((wide, Node(Lane(NARROWED), (w,), n.outputs, n.origin)), (n,))


def _widened(m: Match, value: str) -> str | None:
    """The int32 codes behind 16-bit ones."""
    p = m.producer(value, Lane)
    known = p is not None and isinstance(p.op, Lane) and p.op.expr == NARROWED
    return p.inputs[0] if known and p is not None else None


def move_wide(m: Match, n: Node) -> Rewrite | None:
    """Match movement of 16-bit codes."""
    if not isinstance(n.op, Reshape | Transpose | Slice) or m.is_output(n.outputs[0]):
        return None
    w = _widened(m, n.inputs[0])
    if w is None:
        return None
    moved = m.fresh()
    first = Node(n.op, (w,), (moved,), n.origin)
    return Rewrite((first, Node(Lane(NARROWED), (moved,), n.outputs, n.origin)), (n,))


def look_up_wide(m: Match, n: Node) -> Rewrite | None:
    """Match a function of 16-bit codes, or to such."""
    if not isinstance(n.op, LookupLinear):
        return None
    x, table = n.inputs
    w = _widened(m, x) or x
    if n.op.dtype != I16 or m.is_output(n.outputs[0]):
        return Rewrite((replace(n, inputs=(w, table)),), (n,)) if w != x else None
    y = m.fresh()
    made = Node(replace(n.op, dtype=I32), (w, table), (y,), n.origin)
    return Rewrite((made, Node(Lane(NARROWED), (y,), n.outputs, n.origin)), (n,))


def look_up_narrow(m: Match, n: Node) -> Rewrite | None:
    """Match the only use of a function of 16-bit codes, as such."""
    if not isinstance(n.op, Lane) or n.op.expr != NARROWED:
        return None
    p = m.producer(n.inputs[0], LookupLinear)
    if p is None or m.only_user(n.inputs[0]) is None:
        return None
    assert isinstance(p.op, LookupLinear)
    return Rewrite((replace(p, op=replace(p.op, dtype=I16), outputs=n.outputs),), (p, n))


def read_wide(m: Match, n: Node) -> Rewrite | None:
    """Match an expression over 16-bit codes that casts them first."""
    if not isinstance(n.op, Lane) or n.op.expr == NARROWED:
        return None
    inputs, e = list(n.inputs), n.op.expr
    for i, x in enumerate(n.inputs):
        w = _widened(m, x)
        found = None if w is None else _over_int32(e, i)
        if w is not None and found is not None:
            inputs[i], e = w, found
    if e == n.op.expr:
        return None
    return Rewrite((replace(n, op=Lane(e), inputs=tuple(inputs)),), (n,))


def _over_int32(e: lane.Expr, index: int) -> lane.Expr | None:
    """``e`` with operand ``index`` in int32; None where it is used without a cast."""
    if isinstance(e, lane.Arg):
        return None if e.index == index else e
    if isinstance(e, lane.Imm):
        return e
    if e.fn == "cast" and isinstance(e.args[0], lane.Arg) and e.args[0].index == index:
        return lane.cast(lane.Arg(index, I32), e.dtype)
    args = [_over_int32(a, index) for a in e.args]
    if any(a is None for a in args):
        return None
    return lane.Call(e.fn, tuple(a for a in args if a is not None), e.dtype)
