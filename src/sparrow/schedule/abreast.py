"""Layers that nobody shares and that do not wait for one another, each by a thread of its own.

before   y = concat(lstm(a(x)), lstm_reversed(b(x)))     one thread has both, the others wait
after    the same nodes, a and b first, then the two LSTMs, nodes of different columns

A recurrence over one sequence is not split: its steps wait for each other. The two directions of a
bidirectional layer do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sparrow.graph import Graph, Module, Node
from sparrow.plan import Plan, Step
from sparrow.rewrite import Remark
from sparrow.schedule.columns import by_entry

# Cycles to gain at least, of some that a prediction of a recurrence is off by.
LEAST = 20_000
# Nodes between two layers, which wait for the first of them no more or for both: memory of what
# moves ahead is held for so much longer.
NEAREST = 16


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that are computed at once, by index, and what moves ahead of the first of them."""

    members: tuple[int, ...]
    ahead: frozenset[int]


def abreast(p: Plan, planned: Callable[[Module], Plan], remarks: list[Remark]) -> Module:
    """The module with independent layers beside each other where that is predicted to be faster.

    Args:
        p: The plan of the module as it is.
        planned: Plans a module; no order of nodes changes what they compute.
        remarks: Told which layers were chosen.
    """

    def entry(i: int, g: Graph) -> Graph:
        groups = list(_groups(g, {s.node.outputs[0]: s for s in p.entries[i].steps}, p))
        for group in groups:
            first, *others = (g.nodes[k].origin for k in group.members)
            why = f"beside {', '.join(o or '?' for o in others)}, each by a thread of its own"
            remarks.append(Remark("abreast", first, why, True))
        return _side_by_side(g, groups) if groups else g

    return by_entry(p, entry)


def _groups(g: Graph, steps: Mapping[str, Step], p: Plan) -> Iterator[Group]:
    """Groups in order, none of which meet."""
    alone = [
        i
        for i, n in enumerate(g.nodes)
        if n.column is None
        and (s := steps.get(n.outputs[0])) is not None
        and s.lowered.tasks == 1
        and s.lowered.cycles > LEAST
    ]
    end = 0
    for at, first in enumerate(alone):
        if first < end:
            continue
        members, ahead = [first], frozenset[int]()
        for other in alone[at + 1 :]:
            if len(members) == p.threads or other - members[-1] > NEAREST:
                break
            before = _before(g, first, other)
            if before.isdisjoint(members) and _gain(g, g.nodes[other], steps, p) > LEAST:
                members.append(other)
                ahead |= before
        if len(members) > 1:
            end = members[-1] + 1
            yield Group(tuple(members), ahead)


def _before(g: Graph, first: int, last: int) -> frozenset[int]:
    """Nodes from ``first`` on that a node depends on."""
    needed, found = set(g.nodes[last].inputs), set[int]()
    for i in range(last - 1, first - 1, -1):
        if not needed.isdisjoint(g.nodes[i].outputs):
            found.add(i)
            needed.update(g.nodes[i].inputs)
    return frozenset(found)


def _gain(g: Graph, n: Node, steps: Mapping[str, Step], p: Plan) -> float:
    """Cycles that a layer takes, less those in which its values change cores."""
    values = {v for v in (*n.inputs, *n.outputs) if v and v not in g.consts}
    moved = sum(g.types[v].bytes for v in values)
    return steps[n.outputs[0]].lowered.cycles - p.target.move_cycles * moved


def _side_by_side(g: Graph, groups: Sequence[Group]) -> Graph:
    nodes: list[Node] = []
    at = 0
    for group in groups:
        first, last = group.members[0], group.members[-1]
        between = [i for i in range(first, last) if i not in group.members]
        nodes += g.nodes[at:first]
        nodes += (g.nodes[i] for i in between if i in group.ahead)
        nodes += (replace(g.nodes[i], column=k) for k, i in enumerate(group.members))
        nodes += (g.nodes[i] for i in between if i not in group.ahead)
        at = last + 1
    return replace(g, nodes=(*nodes, *g.nodes[at:]))
