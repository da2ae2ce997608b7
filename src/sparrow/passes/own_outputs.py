"""Every output and stored state is computed by a node of its own, so that it has its own memory."""

from __future__ import annotations

from dataclasses import replace

from sparrow import lane
from sparrow.graph import Graph, Node, State
from sparrow.ops.lane import Lane
from sparrow.rewrite import namer


def with_own_outputs(g: Graph) -> Graph:
    """``g`` with every output and stored state computed by a node and none of them twice.

    An output that is an input, a constant, the old value of a state, or another output as well
    becomes a copy made at the end.
    """
    taken = {*g.inputs, *g.consts, *(s.input for s in g.states)}
    fresh = namer(g)
    types = dict(g.types)
    copies: list[Node] = []

    def own(value: str) -> str:
        if value not in taken:
            taken.add(value)
            return value
        name = fresh()
        types[name] = types[value]
        expr = lane.Arg(0, types[value].dtype)
        copies.append(Node(Lane(expr), (value,), (name,), f"copy of {value}"))
        return name

    outputs = tuple(map(own, g.outputs))
    # a state that keeps its value needs no step
    states = tuple(
        s if s.output == s.input else State(s.name, s.input, own(s.output), s.initial)
        for s in g.states
    )
    if not copies:
        return g
    nodes = (*g.nodes, *copies)
    return replace(g, nodes=nodes, outputs=outputs, states=states, types=types)
