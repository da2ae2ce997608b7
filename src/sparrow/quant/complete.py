"""Elementwise chains one operation at a time, so that codes can stand between any two.

A device that computes with integers alone needs a scale for every value an operation makes. Ops
that fuse several operations hide those values; literals become constants, which can be codes.
"""

from __future__ import annotations

import numpy as np

from sparrow import lane
from sparrow.export import EXPANSIONS, slope_of
from sparrow.graph import Graph, Node, retyped, verify
from sparrow.ops.lane import Lane
from sparrow.tensor import F32, Array, TensorType


def spelled(g: Graph) -> Graph:
    """``g`` with one operation in each float32 `Lane`.

    Clamps, which need no codes, stay whole, and so do slopes, which are one operator of devices.
    """
    taken = set(g.types)
    consts: dict[str, Array] = dict(g.consts)
    types: dict[str, TensorType] = dict(g.types)
    literals: dict[lane.Imm, str] = {}
    nodes: list[Node] = []

    def fresh(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    def value(n: Node, e: lane.Expr) -> str:
        if isinstance(e, lane.Arg):
            return n.inputs[e.index]
        if isinstance(e, lane.Imm):
            if e not in literals:
                x = literals[e] = fresh(f"{e.value:g}")
                consts[x], types[x] = np.asarray(e.value, e.dtype.numpy), TensorType((), e.dtype)
            return literals[e]
        y = fresh(f"{n.outputs[0]}.{e.fn}")
        operation(n, e, y)
        return y

    def operation(n: Node, e: lane.Call, y: str) -> None:
        if e.fn in EXPANSIONS:
            spelling = EXPANSIONS[e.fn](e.args[0])
            assert isinstance(spelling, lane.Call)
            return operation(n, spelling, y)
        whole, inner = _clamp(e)
        if (slope := slope_of(e)) is not None:
            inner, x = e.args[2], lane.Arg(0, e.dtype)
            below = lane.call("mul", lane.imm_like(slope, x), x)
            whole = lane.call("where", lane.call("lt", x, lane.imm_like(0, x)), below, x)
        if isinstance(whole, lane.Arg):
            of = tuple(lane.Arg(i, a.dtype) for i, a in enumerate(e.args))
            whole, operands = lane.Call(e.fn, of, e.dtype), e.args
        else:
            operands = (inner,)
        nodes.append(Node(Lane(whole), tuple(value(n, a) for a in operands), (y,), n.origin))

    for n in g.nodes:
        e = n.op.expr if isinstance(n.op, Lane) else None
        if isinstance(e, lane.Call) and e.dtype == F32:
            operation(n, e, n.outputs[0])
        else:
            nodes.append(n)
    done = retyped(g, nodes, consts=consts, types=types)
    verify(done)
    return done


def _clamp(e: lane.Expr) -> tuple[lane.Expr, lane.Expr]:
    """The clamps outside an expression as one of operand 0, and what they cut off."""
    if isinstance(e, lane.Call) and e.fn in ("relu", "max", "min"):
        inner = [a for a in e.args if not isinstance(a, lane.Imm)]
        if len(inner) == 1:
            outer, rest = _clamp(inner[0])
            args = tuple(outer if a is inner[0] else a for a in e.args)
            return lane.Call(e.fn, args, e.dtype), rest
    return lane.Arg(0, e.dtype), e
