"""Functions of one value, and what precision the value that they read needs.

fused   the result of a sum that a cheap function alone reads stays the float that it is when the
        sum is scaled, so that one rounding is left of two; in all but a table's place that costs
        time (hard-swish behind every convolution of a PP-LCNet: 9 % more), and the last, small
        maps gain the most for it: the smallest come first, up to a twentieth of all elements; of
        the others those whose codes `sparrow.quant.widen` finds to cost the most
seen    where functions are all that reads a value, its range is the one whose codes give them the
        least error: below -3 a hard-swish is 0, whatever the codes tell apart there
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from sparrow import lane
from sparrow.graph import Graph, Node
from sparrow.ops.lane import Lane
from sparrow.tensor import F32, Array

# Share of the elements of all floats that are fused. Measured in docs/accuracy.md.
ELEMENTS = 0.05
# In additions: hard-swish and hard-sigmoid, no exponential.
CHEAP = 8


def of_one(n: Node) -> bool:
    """Whether a node computes a function of one value, elementwise."""
    return isinstance(n.op, Lane) and len(set(n.inputs)) == 1


def fusable(g: Graph, sums: Collection[str], integer: Collection[str]) -> list[Node]:
    """Cheap functions that alone read the result of a sum, the smallest first.

    Args:
        g: Float graph.
        sums: Results of products over codes.
        integer: First results of the nodes that compute on codes.
    """
    users, outputs = g.users(), set(g.live_out())

    def fits(x: str, y: str) -> bool:
        return x in sums and y in integer and x not in outputs and len(users[x]) == 1

    return [n for n in _cheap(g) if fits(n.inputs[0], n.outputs[0])]


def _cheap(g: Graph) -> list[Node]:
    cheap = [
        n
        for n in g.nodes
        if of_one(n) and isinstance(n.op, Lane) and 1 < lane.cost(n.op.expr) <= CHEAP
    ]
    return sorted(cheap, key=lambda n: g.types[n.outputs[0]].size)


def fused(
    g: Graph, sums: Collection[str], integer: Collection[str], asked: Collection[str] = ()
) -> dict[str, str]:
    """The results of sums that are no codes -> what the function that reads them makes.

    Which ones depends on the graph and ``asked`` alone, so that statistics of one recipe serve
    others.

    Args:
        g: Float graph.
        sums: Results of products over codes.
        integer: First results of the nodes that compute on codes.
        asked: Results of sums that shall be fused whatever their size.
    """
    floats = [x for n in g.nodes for x in n.outputs if x and g.types[x].dtype == F32]
    left = ELEMENTS * sum(g.types[x].size for x in floats)
    small = set()
    for n in _cheap(g):
        left -= g.types[n.outputs[0]].size
        if left >= 0:
            small.add(n.inputs[0])
    return {
        n.inputs[0]: n.outputs[0]
        for n in fusable(g, sums, integer)
        if n.inputs[0] in small or n.inputs[0] in asked
    }


def read_by_functions(
    g: Graph, group: Mapping[str, str], movement: Collection[str], integer: Collection[str]
) -> dict[str, tuple[Node, ...]]:
    """Of each group of codes that functions of one value over codes alone read, those.

    Args:
        g: Float graph.
        group: Value -> the one that stands for all that share its scale.
        movement: First results of the nodes that move codes.
        integer: First results of those that compute on them.
    """
    users = g.users()
    readers: dict[str, list[Node]] = {}
    for x, root in group.items():
        read = (n for n in users.get(x, ()) if n.outputs[0] not in movement)
        readers.setdefault(root, []).extend(read)
    exposed = {group[x] for x in g.live_out() if x in group}
    return {
        root: tuple(ns)
        for root, ns in readers.items()
        if ns and root not in exposed and all(n.outputs[0] in integer and of_one(n) for n in ns)
    }


def seen(readers: Sequence[Node]) -> Callable[[Array], Array]:
    """What some functions of one value make of values: [N] to [readers, N].

    Each is a share of the largest that it makes of what it is given first.
    """
    scales: list[float] = []

    def made(x: Array) -> Array:
        found = []
        with np.errstate(all="ignore"):
            for n in readers:
                assert isinstance(n.op, Lane)
                operands = (x.astype(np.float32),) * len(n.inputs)
                found.append(n.op.eval(*operands)[0].astype(np.float64))
        if not scales:
            scales.extend(float(np.abs(y).max(initial=0.0)) or 1.0 for y in found)
        return np.stack([y / s for y, s in zip(found, scales, strict=True)])

    return made
