"""Fuse chains of elementwise ops into one.

    before   y = f(a, b);  z = g(y, c)          y used once, or so cheap that computing it twice is less
    after    z = g(f(a, b), c)                  than storing and loading it
"""

from __future__ import annotations

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.lane import Lane
from sparrow.rewrite import Match, Reject, Rewrite

MAX_CALLS = 48
MAX_OPERANDS = 12


def fuse_lanes(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Lane one of whose operands is a Lane of the same size."""
    if not isinstance(n.op, Lane):
        return None
    why: Reject | None = None
    for x in dict.fromkeys(n.inputs):
        p = m.producer(x, Lane)
        if p is None:
            continue
        r = _fuse(m, n, x, p)
        if isinstance(r, Rewrite):
            return r
        why = r
    return why


def _fuse(m: Match, n: Node, x: str, p: Node) -> Rewrite | Reject:
    assert isinstance(n.op, Lane) and isinstance(p.op, Lane)
    uses = [u for u in m.users(x) if u is not n]
    if uses or m.is_output(x):
        return Reject(f"{x} is used elsewhere")
    inner, outer = m.type(x), m.type(n.outputs[0])
    if inner.size < outer.size and lane.cost(p.op.expr) > 2:
        return Reject(f"{x} is broadcast: fused, it would be computed for every element")
    args = [
        lane.substitute(p.op.expr, [lane.Arg(len(n.inputs) + k, a.dtype) for k, a in _args(m, p)])
        if v == x
        else lane.Arg(i, m.type(v).dtype)
        for i, v in enumerate(n.inputs)
    ]
    e, names = lane.compact(lane.substitute(n.op.expr, args), (*n.inputs, *p.inputs))
    if sum(isinstance(c, lane.Call) for c in set(lane.walk(e))) > MAX_CALLS:
        return Reject("the fused expression would be too long")
    if len(names) > MAX_OPERANDS:
        return Reject("the fused loop would read too many streams")
    shapes = {m.type(v).shape for v in names}
    if outer.shape not in shapes and inner.shape == outer.shape:
        return Reject("no operand of the fused loop has the shape of the result")
    return Rewrite((Node(Lane(e), names, n.outputs, n.origin),), (p, n))


def _args(m: Match, p: Node) -> list[tuple[int, lane.Arg]]:
    return [(k, lane.Arg(k, m.type(v).dtype)) for k, v in enumerate(p.inputs)]
