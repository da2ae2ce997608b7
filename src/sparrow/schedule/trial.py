"""Some layers as a graph of their own, which is planned to see what would become of them."""

from __future__ import annotations

from sparrow.graph import Graph, Module, retyped
from sparrow.kernels.case import Invoke
from sparrow.ops.conv import Conv
from sparrow.plan import Plan
from sparrow.schedule.row import Planned

# Kernels whose tiles of several rows begin with the first: a strip begins others.
TILED = ("winograd_f32", "winograd_raw_f32", "winograd_stream_f32")


def alone(g: Graph, first: int, last: int) -> Graph:
    """Nodes ``first`` to ``last`` as a graph."""
    nodes = g.nodes[first : last + 1]
    inside = {y for n in nodes for y in n.outputs}
    read = {x for n in nodes for x in n.inputs if x}
    inputs = tuple(sorted(x for x in read if x not in inside and x not in g.consts))
    return retyped(g, nodes, inputs=inputs, outputs=nodes[-1].outputs, states=(), lengths=())


def same_rounding(whole: Graph, cut: Graph, planned: Planned) -> bool:
    """Whether layers computed by parts of their rows give the same answers to the bit."""
    before, after = (_rounding(planned(Module("stage", (x,)))) for x in (whole, cut))
    return before == after and not any(k in TILED for found in before.values() for k, _ in found)


def _rounding(p: Plan) -> dict[str, set[tuple[str, int]]]:
    """By the weights of a convolution, its kernels and in how many partial sums they add."""
    found: dict[str, set[tuple[str, int]]] = {}
    for s in p.entries[0].steps:
        if isinstance(s.node.op, Conv):
            for c in s.lowered.calls:
                sums = c.params.get("ku", 1) if isinstance(c, Invoke) else 1
                assert isinstance(sums, int)
                found.setdefault(s.node.inputs[1], set()).add((s.kernel, sums))
    return found
