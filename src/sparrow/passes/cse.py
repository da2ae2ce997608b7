"""Common subexpressions: nodes with equal ops and equal operands become one, and so do equal
constants.

    before   y = f(x);  z = f(x)          after   y = f(x), read for z

An output that repeats another value becomes a copy of it where computing it again would cost more.
"""

from __future__ import annotations

from sparrow import lane
from sparrow.graph import Graph, Node, Op, retyped
from sparrow.ops.lane import Lane
from sparrow.tensor import Distinct


def cse(g: Graph) -> Graph:
    """Merge equal nodes and equal constants; graph outputs keep their names."""
    live = g.live_out()
    rename = _same_constants(g, live)
    first: dict[tuple[Op, tuple[str, ...]], Node] = {}
    nodes: list[Node] = []
    changed = bool(rename)
    for n in g.nodes:
        inputs = tuple(rename.get(x, x) for x in n.inputs)
        twin = first.setdefault((n.op, inputs), n)
        if twin is n:
            nodes.append(Node(n.op, inputs, n.outputs, n.origin) if inputs != n.inputs else n)
            continue
        if live.intersection(n.outputs) and not _worth_copying(n):
            nodes.append(Node(n.op, inputs, n.outputs, n.origin))
            continue
        for x, y in zip(twin.outputs, n.outputs, strict=True):
            if y in live:
                nodes.append(Node(Lane(lane.Arg(0, g.types[y].dtype)), (x,), (y,), n.origin))
            else:
                rename[y] = x
        changed = True
    return retyped(g, nodes) if changed else g


def _same_constants(g: Graph, live: frozenset[str]) -> dict[str, str]:
    """Constant -> earlier constant of equal type (quantization included) and equal bytes."""
    distinct = Distinct()
    rename: dict[str, str] = {}
    for name, array in g.consts.items():
        same = distinct.first(g.types[name], array, name)
        if same != name and name not in live:
            rename[name] = same
    return rename


def _worth_copying(n: Node) -> bool:
    """Whether a copy of the result costs less than computing it again."""
    return not isinstance(n.op, Lane) or lane.cost(n.op.expr) > 1
