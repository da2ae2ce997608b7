"""Write products over bfloat16 into a float graph: data and weights rounded, sums in float32.

    before   y = Conv(x, w, b)
    after    x' = float32(bfloat16(x))
             y = Conv(x', w', b)                 w' rounded now

The graph says what the numbers are; `sparrow.bfloat16` then multiplies them as bfloat16.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from sparrow import lane
from sparrow.graph import Graph, Node, retyped
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.quant.recipe import Precision
from sparrow.rewrite import namer
from sparrow.tensor import BF16, F32, Array, TensorType, round_bfloat16

ROUNDING = Lane(lane.cast(lane.cast(lane.Arg(0, F32), BF16), F32))


def rounded(g: Graph, wanted: Mapping[str, Precision], codes: Collection[str]) -> Graph:
    """``g`` with the products of constant weights that are asked for in bfloat16.

    A value that elementwise nodes read beside them is rounded for those too, so that it is stored
    once.

    Args:
        g: A float graph.
        wanted: Precision of every node, by its first result.
        codes: Values that become codes.
    """
    ours = {n.outputs[0] for n in g.nodes if wanted[n.outputs[0]] == "bfloat16" and _takes(g, n)}
    if not ours:
        return g
    fresh = namer(g)
    made, users, kept = g.producers(), g.users(), g.live_out()
    names = {n.inputs[0]: fresh() for n in g.nodes if n.outputs[0] in ours}

    def elsewhere(x: str) -> bool:
        """Whether a value is stored as it is whatever products read."""
        stored = x not in made or not isinstance(made[x].op, Conv | MatMul | Lane)
        return stored or x in kept or x in codes

    shared = {
        x
        for x in names
        if not elsewhere(x)
        and all(isinstance(u.op, Lane) or u.outputs[0] in ours for u in users[x])
    }
    consts: dict[str, Array] = dict(g.consts)
    types: dict[str, TensorType] = dict(g.types)
    weights: dict[str, str] = {}
    nodes = [Node(ROUNDING, (x,), (names[x],), x) for x in names if x not in made]
    for n in g.nodes:
        inputs = [names[x] if x in shared else x for x in n.inputs]
        if n.outputs[0] in ours:
            x, w = n.inputs[:2]
            if w not in weights:
                weights[w] = fresh()
                consts[weights[w]], types[weights[w]] = round_bfloat16(g.consts[w]), g.types[w]
            inputs[:2] = names[x], weights[w]
        nodes.append(replace(n, inputs=tuple(inputs)))
        nodes += [Node(ROUNDING, (y,), (names[y],), n.origin) for y in n.outputs if y in names]
    return retyped(g, nodes, consts=consts, types=types)


def _takes(g: Graph, n: Node) -> bool:
    """Whether a node multiplies float data by constant weights."""
    if not isinstance(n.op, Conv | MatMul) or n.inputs[0] in g.consts:
        return False
    return n.inputs[1] in g.consts and all(g.types[x].dtype == F32 for x in n.inputs[:2])


def rounded_products(g: Graph) -> frozenset[str]:
    """Source names of the products whose data and weights are rounded to bfloat16 in a graph."""
    made = g.producers()
    return frozenset(
        n.origin or n.outputs[0]
        for n in g.nodes
        if _takes(g, n)
        and (source := made.get(n.inputs[0])) is not None
        and source.op == ROUNDING
        and bool((round_bfloat16(g.consts[n.inputs[1]]) == g.consts[n.inputs[1]]).all())
    )


__all__ = ["ROUNDING", "rounded", "rounded_products"]
