"""Rules over a Graph, and the one loop that applies them.

A rule looks at one node and answers with a `Rewrite`, with a `Reject` that says why it does not apply
although it nearly does, or with None where it has nothing to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from sparrow import lane
from sparrow.graph import Graph, Node, Op, retyped
from sparrow.ops.lane import Lane
from sparrow.tensor import Array, TensorType, type_of


@dataclass(frozen=True, slots=True)
class Reject:
    """Why a rule does not apply at a node; shown by ``--explain``."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What replaces some nodes.

    Attributes:
        nodes: New nodes; they may use and define values of the removed ones.
        remove: Nodes that go (the matched node is always among them).
        rename: Value -> value that takes its place everywhere.
        consts: New constants, under names from `Match.fresh`.
    """

    nodes: tuple[Node, ...]
    remove: tuple[Node, ...]
    rename: Mapping[str, str] = field(default_factory=dict)
    consts: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Remark:
    """One line of ``--explain``: pass, node, and what was done or why not."""

    rule: str
    node: str
    text: str
    applied: bool


class Match:
    """A node in its Graph, with what rules ask about."""

    def __init__(self, g: Graph, fresh: Callable[[], str]) -> None:
        self.g = g
        self.fresh = fresh
        self._producers = g.producers()
        self._users = g.users()
        self._out = g.live_out()

    def producer(self, value: str, kind: type[Op] | tuple[type[Op], ...]) -> Node | None:
        """The node that defines ``value`` if its op is of ``kind``."""
        n = self._producers.get(value)
        return n if n is not None and isinstance(n.op, kind) else None

    def users(self, value: str) -> list[Node]:
        """Nodes that read a value, once per use."""
        return self._users.get(value, [])

    def only_user(self, value: str) -> Node | None:
        """The single use of a value that is no graph output."""
        users = self.users(value)
        return users[0] if len(users) == 1 and value not in self._out else None

    def is_output(self, value: str) -> bool:
        """Whether a value outlives the graph."""
        return value in self._out

    def const(self, value: str) -> Array | None:
        """Array of a constant."""
        return self.g.consts.get(value)

    def type(self, value: str) -> TensorType:
        """Type of a value."""
        return self.g.types[value]


Rule: TypeAlias = Callable[[Match, Node], Rewrite | Reject | None]


def namer(g: Graph) -> Callable[[], str]:
    """A source of value names that are not in ``g``."""
    count = len(g.types)
    taken = set(g.types)

    def fresh() -> str:
        nonlocal count
        while True:
            count += 1
            name = f"%{count}"
            if name not in taken:
                taken.add(name)
                return name

    return fresh


def apply_rules(
    g: Graph, rules: Sequence[tuple[str, Rule]], remarks: list[Remark] | None = None
) -> Graph:
    """Apply rules until none changes anything.

    Every sweep collects rewrites of disjoint nodes, then rebuilds the graph once; the last sweep's
    rejections are reported.
    """
    fresh = namer(g)
    while True:
        m = Match(g, fresh)
        touched: set[int] = set()
        renamed: dict[str, str] = {}
        at: dict[int, tuple[Node, ...]] = {}
        consts: dict[str, Array] = {}
        done: list[Remark] = []
        refused: list[Remark] = []
        for n in g.nodes:
            for name, rule in rules:
                if id(n) in touched:
                    break
                r = rule(m, n)
                if isinstance(r, Reject):
                    refused.append(Remark(name, n.origin or n.outputs[0], r.reason, False))
                if not isinstance(r, Rewrite) or any(id(d) in touched for d in r.remove):
                    continue
                near = {id(d) for d in r.remove}
                near |= {id(p) for d in r.remove for x in d.inputs if (p := m._producers.get(x))}
                near |= {id(u) for d in r.remove for y in d.outputs for u in m.users(y)}
                touched |= near
                for d in r.remove:
                    at[id(d)] = ()
                at[id(r.remove[-1])] = r.nodes
                renamed.update(r.rename)
                consts.update(r.consts)
                what = ", ".join(type(k.op).__name__ for k in r.nodes) or "nothing"
                done.append(Remark(name, n.origin or n.outputs[0], f"became {what}", True))
        if remarks is not None:
            remarks += done or refused
        if not done:
            return g
        g = prune(_rebuilt(g, at, renamed, consts))


def _rebuilt(
    g: Graph,
    at: Mapping[int, tuple[Node, ...]],
    renamed: Mapping[str, str],
    consts: Mapping[str, Array],
) -> Graph:
    live = g.live_out()
    fixed = {*g.inputs, *g.consts, *consts, *(s.input for s in g.states)}
    names = dict(renamed)
    copies: list[Node] = []

    def to(x: str) -> str:
        while x in names:
            x = names[x]
        return x

    for y in renamed:
        if y in live:
            # an output keeps its name: its source takes it, or it stays as a copy
            del names[y]
            x = to(renamed[y])
            if x in live or x in fixed:
                t = g.types[x] if x in g.types else type_of(consts[x])
                copies.append(Node(Lane(lane.Arg(0, t.dtype)), (x,), (y,), y))
            else:
                names[x] = y
    nodes: list[Node] = []
    for n in (*g.nodes, *copies):
        for k in at.get(id(n), (n,)):
            outputs = tuple(names.get(y, y) for y in k.outputs)
            nodes.append(Node(k.op, tuple(map(to, k.inputs)), outputs, k.origin))
    types = {**g.types, **{k: type_of(a) for k, a in consts.items() if k not in g.types}}
    return retyped(g, in_order(nodes), consts={**g.consts, **consts}, types=types)


def in_order(nodes: Sequence[Node]) -> list[Node]:
    """Nodes sorted so that definitions precede uses, otherwise in the given order."""
    producer = {y: i for i, n in enumerate(nodes) for y in n.outputs}
    done: list[Node] = []
    state = [0] * len(nodes)
    for root in range(len(nodes)):
        stack = [root]
        while stack:
            i = stack[-1]
            if state[i] == 2:
                stack.pop()
                continue
            state[i] = 1
            wait = [producer[x] for x in nodes[i].inputs if x in producer]
            wait = [k for k in wait if state[k] == 0]
            if wait:
                stack.extend(reversed(wait))
            else:
                state[i] = 2
                done.append(nodes[i])
                stack.pop()
    return done


def prune(g: Graph) -> Graph:
    """``g`` without nodes whose results nobody uses."""
    live = set(g.live_out())
    kept: list[Node] = []
    for n in reversed(g.nodes):
        if live.intersection(n.outputs):
            live.update(n.inputs)
            kept.append(n)
    return g if len(kept) == len(g.nodes) else retyped(g, kept[::-1])


def per_channel(value: Array, shape: tuple[int, ...], axis: int) -> Array | None:
    """A broadcast constant as one value per index of ``axis``; None when it varies along others."""
    lead = len(shape) - value.ndim
    if lead < 0 or any(d != 1 and i + lead != axis for i, d in enumerate(value.shape)):
        return None
    return np.broadcast_to(value.ravel(), (shape[axis],)).copy()


__all__ = [
    "Match",
    "Reject",
    "Remark",
    "Rewrite",
    "Rule",
    "apply_rules",
    "in_order",
    "namer",
    "per_channel",
    "prune",
]
