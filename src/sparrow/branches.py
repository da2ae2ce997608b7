"""Nodes that only one side of a choice needs, and when they have to run.

    c = x > 0;  a = Conv(u);  b = MatMul(v);  y = where(c, a, b)            c is a single bool
    a runs where c holds, b where it does not

A graph has no branches: both sides are computed and one is selected, which is what is exported,
evaluated and proved. A plan may leave a node out where no output depends on it, because the
selection takes nothing of what it reads on that side, whatever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from sparrow import lane
from sparrow.graph import Graph, Node
from sparrow.ops.lane import Lane
from sparrow.ops.reshape import Reshape
from sparrow.tensor import BOOL

Condition: TypeAlias = tuple[str, bool]
"""A value, a single bool, and what it has to be."""


def conditions(g: Graph) -> dict[int, tuple[Condition, ...]]:
    """Of nodes by index: conditions that all hold where an output depends on the node.

    Each is known before the node runs, and where a condition has conditions of its own, they are
    among those before it.
    """
    needed = {v: frozenset[Condition]() for v in g.live_out()}
    own: list[frozenset[Condition]] = []
    made = g.producers()
    for n in reversed(g.nodes):
        uses = [needed[y] for y in n.outputs if y in needed]
        own.append(frozenset.intersection(*uses) if uses else frozenset())
        sides = _chosen(g, n, made)
        for k, x in enumerate(n.inputs):
            under = own[-1] | sides.get(k, frozenset())
            needed[x] = needed[x] & under if x in needed else under
    known = dict.fromkeys((*g.inputs, *(s.input for s in g.states)), -1)
    found = {}
    for i, (n, all_of) in enumerate(zip(g.nodes, reversed(own), strict=True)):
        before = sorted((known[v], v, holds) for v, holds in all_of if v in known)
        if before:
            found[i] = tuple((v, holds) for _, v, holds in before)
        known |= dict.fromkeys(n.outputs, i)
    return found


def _chosen(g: Graph, n: Node, made: Mapping[str, Node]) -> dict[int, frozenset[Condition]]:
    """Of inputs of a node: what holds where it takes anything of them."""
    if not isinstance(n.op, Lane):
        return {}
    single = {k for k, x in enumerate(n.inputs) if g.types[x].size == 1}
    return {
        k: frozenset((_source(n.inputs[c], made), holds) for c, holds in under if c in single)
        for k, under in sides(n.op.expr).items()
    }


def _source(v: str, made: Mapping[str, Node]) -> str:
    """The value that one is a reshape of: importers write those behind the branches."""
    while v in made and isinstance(made[v].op, Reshape):
        v = made[v].inputs[0]
    return v


def sides(e: lane.Expr) -> Mapping[int, frozenset[tuple[int, bool]]]:
    """Of operands that an expression reads: bool operands and what they are wherever it is used."""
    found: dict[int, frozenset[tuple[int, bool]]] = {}
    _walk(e, frozenset(), found)
    return found


def _walk(
    e: lane.Expr,
    under: frozenset[tuple[int, bool]],
    found: dict[int, frozenset[tuple[int, bool]]],
) -> None:
    if isinstance(e, lane.Arg):
        found[e.index] = found[e.index] & under if e.index in found else under
    if not isinstance(e, lane.Call):
        return
    condition = e.args[0] if e.fn == "where" else None
    if isinstance(condition, lane.Arg) and condition.dtype == BOOL:
        _walk(condition, under, found)
        for side, holds in zip(e.args[1:], (True, False), strict=True):
            _walk(side, under | {(condition.index, holds)}, found)
        return
    for a in e.args:
        _walk(a, under, found)
