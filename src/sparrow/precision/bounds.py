"""Goals that no precision keeps, known from the float graph alone before anything is built."""

from __future__ import annotations

from collections.abc import Mapping

from sparrow.errors import GateFailed
from sparrow.graph import Graph
from sparrow.precision.account import say
from sparrow.precision.choice import Quantity
from sparrow.quant.kinds import LAYERS
from sparrow.targets import Target
from sparrow.tensor import F32
from sparrow.text import array_key

# By how much codes, transforms and a faster clock may pass the float operations that a row states:
# bytes in matrix registers 32 times, sums of Winograd's a quarter, half as fast a clock.
HEADROOM = 64


def least_bytes(g: Graph) -> int:
    """What the weights of the layers take at a byte each, those that are stored once counted so."""
    weights = {
        array_key(g.consts[x]): g.types[x].size
        for n in g.nodes
        if isinstance(n.op, LAYERS)
        for x in n.inputs
        if x in g.consts and g.types[x].dtype == F32 and g.types[x].rank > 1
    }
    return sum(weights.values())


def least_ns(g: Graph, row: Target, threads: int) -> float:
    """Nanoseconds that the products of the layers take at the very least."""
    products = (n for n in g.nodes if isinstance(n.op, LAYERS))
    flops = sum(n.op.flops(g.in_types(n), g.out_types(n)) for n in products)
    return flops / (row.isa.flops_per_cycle * row.ghz * threads * HEADROOM)


def refuse_hopeless(g: Graph, row: Target, threads: int, goals: Mapping[Quantity, float]) -> None:
    """Refuse goals that are out of reach of any precision.

    Args:
        g: After `sparrow.passes.FRONT`, in floats.
        row: Target.
        threads: Threads per call.
        goals: Limits.

    Raises:
        GateFailed: One is.
    """
    reasons: dict[Quantity, tuple[float, str]] = {
        "latency": (least_ns(g, row, threads), "the products alone take that at the least"),
        "size": (float(least_bytes(g)), "the weights alone take that at a byte each"),
    }
    for what, (least, why) in reasons.items():
        if what in goals and goals[what] < least:
            raise GateFailed(
                f"goal {what}: no mix of precisions keeps {say(what, goals[what])}; "
                f"the nearest is above {say(what, least)}: {why}",
                gate=what,
            )
