"""A value times constants plus constants, that vary from channel to channel or place to place.

before   y = Quantize(clip(Dequantize(x) * g + b)) batch normalization before its convolution,
after    y = requantize of (x - z_x) m_g + m_b     scales of layers, position embeddings
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.lane import Lane
from sparrow.passes.integer.codes import Edit, Target, codes_of, unclipped
from sparrow.passes.requantize import Constants, blended
from sparrow.passes.unfold import Unfolded
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import I32, Array


def line(m: Match, n: Node, t: Target) -> Rewrite | Reject | None:
    """A chain of Lanes that ends in ``n`` and is a line in one value of codes.

    None where no constant in it varies, or other values do.
    """
    u = Unfolded(m)
    body, *bounds = unclipped(u.of(n.outputs[0]))
    known = [m.const(name) for name in u.leaves]
    live = [name for name, v in zip(u.leaves, known, strict=True) if v is None]
    if len(live) != 1 or all(v is None or v.size == 1 for v in known):
        return None
    x = codes_of(m, live[0])
    if x is None:
        return None
    if m.type(live[0]).shape != m.type(n.outputs[0]).shape:
        return Reject("it broadcasts")
    found = _line(body, [None if v is None else v.astype(np.float64) for v in known])
    if found is None:
        return Reject("it has an operand that varies, and is no line in the other")
    slope, offset = (np.asarray(v) / t.scale for v in found)
    if not (np.isfinite(slope).all() and np.isfinite(offset).all()):
        return Reject("its constants are not finite")
    steps = np.rint(np.asarray(bounds) / t.scale) + t.grid.zero
    low, high = (int(v) for v in np.clip(steps, t.grid.low, t.grid.high))
    grid = replace(t.grid, low=low, high=high)
    constants = Constants(1)
    terms = [(x.real(0), x.reach, slope * x.scale), (lane.Imm(1, I32), 1, offset)]
    expr = blended(terms, grid, constants)
    if isinstance(expr, Reject):
        return expr
    e = Edit(m, n.origin)
    e.add(Lane(expr), x.name, *map(e.const, constants.arrays), y=t.node.outputs[0])
    return e.done(t.node)


def _line(e: lane.Expr, known: list[Array | None]) -> tuple[Array | float, Array | float] | None:
    """(slope, offset) of an expression in its one unknown operand."""
    if isinstance(e, lane.Arg):
        v = known[e.index]
        return (1.0, 0.0) if v is None else (0.0, v)
    if isinstance(e, lane.Imm):
        return 0.0, float(e.value)
    parts = [_line(a, known) for a in e.args]
    if any(p is None for p in parts):
        return None
    found = [p for p in parts if p is not None]
    if e.fn == "neg":
        ((a, b),) = found
        return -a, -b
    if e.fn not in ("add", "sub", "mul", "div") or len(found) != 2:
        return None
    (a, b), (c, d) = found
    if e.fn == "add":
        return a + c, b + d
    if e.fn == "sub":
        return a - c, b - d
    with np.errstate(all="ignore"):
        if not np.any(c):
            return (a * d, b * d) if e.fn == "mul" else (np.divide(a, d), np.divide(b, d))
    return (c * b, d * b) if e.fn == "mul" and not np.any(a) else None
