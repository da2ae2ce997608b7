"""The values whose error says how well a quantized network does.

They are its outputs, but for what an operator makes that ranks or chooses places (TopK, ArgMax,
non-maximum suppression, the peaks that equal the maximum around them, ..): there two elements that
are as good as equal change places with the least rounding, and the difference of what stands in a
place says nothing. What such an operator and all that follows it read is judged instead.
"""

from __future__ import annotations

from sparrow import lane
from sparrow.graph import Graph, Node
from sparrow.ops.compress import Compress
from sparrow.ops.lane import Lane
from sparrow.ops.nms import NonMaxSuppression
from sparrow.ops.nonzero import NonZero
from sparrow.ops.reduce import ArgReduce
from sparrow.ops.topk import TopK
from sparrow.ops.unique import Unique

CHOOSING = (TopK, ArgReduce, NonMaxSuppression, NonZero, Compress, Unique)


def _chooses(n: Node) -> bool:
    return isinstance(n.op, CHOOSING) or (
        isinstance(n.op, Lane)
        and any(
            isinstance(e, lane.Call)
            and e.fn in ("eq", "ne")
            and all(a.dtype.kind == "float" and not isinstance(a, lane.Imm) for a in e.args)
            for e in lane.walk(n.op.expr)
        )
    )


def judged(g: Graph) -> tuple[str, ...]:
    """Names of the float values to compare with the float network's, in order of their making."""
    made = g.producers()
    behind: set[str] = set()
    for n in g.nodes:
        if _chooses(n) or not behind.isdisjoint(n.inputs):
            behind.update(n.outputs)
    # masks and counts on the way to a choice are no floats: what they are made of is
    left = list(behind)
    while left:
        for x in made[left.pop()].inputs:
            if x in made and x not in behind and g.types[x].dtype.kind != "float":
                behind.update(made[x].outputs)
                left.extend(made[x].outputs)
    read = {x for n in g.nodes if not behind.isdisjoint(n.outputs) for x in n.inputs}
    return tuple(
        x
        for n in g.nodes
        for x in n.outputs
        if x not in behind and x in read.union(g.outputs) and g.types[x].dtype.kind == "float"
    )
