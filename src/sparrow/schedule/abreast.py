"""Layers that nobody shares and that do not wait for one another, each by a thread of its own.

before   y = concat(lstm(a(x)), lstm_reversed(b(x)))     one thread has both, the others wait
after    the same nodes, a and b first, then the two LSTMs, nodes of different columns

A recurrence over one sequence is not split: its steps wait for each other. The two directions of a
bidirectional layer do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sparrow.graph import Graph, Node
from sparrow.plan import Plan, Step
from sparrow.schedule.columns import at_once
from sparrow.schedule.row import Planned, Schedule

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

    @property
    def first(self) -> int:
        """Index of the first of them."""
        return self.members[0]


def _groups(p: Plan, entry: int) -> Iterator[Group]:
    """Groups in order, none of which meet."""
    g, steps = p.module.entries[entry], {s.node.outputs[0]: s for s in p.entries[entry].steps}
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
        first, last = group.first, group.members[-1]
        between = [i for i in range(first, last) if i not in group.members]
        nodes += g.nodes[at:first]
        nodes += (g.nodes[i] for i in between if i in group.ahead)
        nodes += (replace(g.nodes[i], column=k) for k, i in enumerate(group.members))
        nodes += (g.nodes[i] for i in between if i not in group.ahead)
        at = last + 1
    return replace(g, nodes=(*nodes, *g.nodes[at:]))


def _runs(p: Plan, entry: int, _: Planned) -> list[Group]:
    return list(_groups(p, entry))


def _remark(g: Graph, group: Group) -> str:
    others = ", ".join(g.nodes[k].origin or "?" for k in group.members[1:])
    return f"beside {others}, each by a thread of its own"


ABREAST = Schedule("abreast", at_once, _runs, _side_by_side, _remark)
