"""Common subexpressions: nodes with equal ops and equal operands become one."""

from __future__ import annotations

import hashlib

from sparrow.graph import Graph, Node, Op, retyped


def cse(g: Graph) -> Graph:
    """Merge equal nodes and equal constants; graph outputs keep their names."""
    first: dict[bytes, str] = {}
    rename: dict[str, str] = {}
    for name, array in g.consts.items():
        key = hashlib.sha256(f"{g.types[name]!r}{array.shape}".encode() + array.tobytes()).digest()
        same = first.setdefault(key, name)
        if same != name and name not in g.outputs:
            rename[name] = same
    seen: dict[tuple[Op, tuple[str, ...]], Node] = {}
    nodes: list[Node] = []
    live = g.live_out()
    for n in g.nodes:
        inputs = tuple(rename.get(x, x) for x in n.inputs)
        twin = seen.get((n.op, inputs))
        if twin is not None and not live.intersection(n.outputs):
            rename.update(zip(n.outputs, twin.outputs, strict=True))
            continue
        seen.setdefault((n.op, inputs), n)
        nodes.append(Node(n.op, inputs, n.outputs, n.origin))
    return g if len(nodes) == len(g.nodes) and not rename else retyped(g, nodes)
