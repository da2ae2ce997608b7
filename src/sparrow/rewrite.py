"""Rules over a Graph, and the one loop that applies them.

A rule looks at one node and answers with a `Rewrite`, with a `Reject` that says why it does not
apply although it nearly does, or with None where it has nothing to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from sparrow import lane
from sparrow.folding import Folding
from sparrow.graph import Graph, Node, Op, declared, infer_types, retyped
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
        remove: Nodes that go (the matched node is always among them); new nodes take the place
            of the last.
        rename: Value -> value that takes its place everywhere.
        consts: New constants, under names from `Match.fresh`.
        types: Types of new constants that `type_of` would not give them.
    """

    nodes: tuple[Node, ...]
    remove: tuple[Node, ...]
    rename: Mapping[str, str] = field(default_factory=dict)
    consts: Mapping[str, Array] = field(default_factory=dict)
    types: Mapping[str, TensorType] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Remark:
    """One line of ``--explain``: pass, node, and what was done or why not."""

    rule: str
    node: str
    text: str
    applied: bool


class Match:
    """A graph while rules rewrite it: what they ask about, and the edits they ask for.

    Nodes have keys that stay when a rename touches their operands; definitions and uses are kept
    up to date edit by edit, so that a rule costs what it looks at and not the size of the graph.
    """

    def __init__(self, g: Graph) -> None:
        self.fresh = namer(g)
        self._g = g
        self._types = dict(g.types)
        self._consts = dict(g.consts)
        self._out = g.live_out()
        self._fixed = {*g.inputs, *(s.input for s in g.states)}
        self._nodes: dict[int, Node] = {}
        self._key_of: dict[int, int] = {}
        self._producers: dict[str, int] = {}
        self._uses: dict[str, dict[int, int]] = {}
        self._order = list(range(len(g.nodes)))
        self._became: dict[int, list[int]] = {}
        self._count = 0
        self.folding = Folding()
        self.folding.grant(sum(a.nbytes for a in g.consts.values()))
        for n in g.nodes:
            self._attach(n)

    # What rules ask about

    def producer(self, value: str, kind: type[Op] | tuple[type[Op], ...] = Op) -> Node | None:
        """The node that defines ``value`` if its op is of ``kind``."""
        key = self._producers.get(value)
        n = None if key is None else self._nodes[key]
        return n if n is not None and isinstance(n.op, kind) else None

    def users(self, value: str) -> list[Node]:
        """Nodes that read a value, once per use."""
        uses = self._uses.get(value, {})
        return [self._nodes[k] for k, times in uses.items() for _ in range(times)]

    def only_user(self, value: str) -> Node | None:
        """The node of the single use of a value that is no graph output."""
        uses = self._uses.get(value, {})
        if len(uses) != 1 or value in self._out:
            return None
        ((key, times),) = uses.items()
        return self._nodes[key] if times == 1 else None

    def is_output(self, value: str) -> bool:
        """Whether a value outlives the graph."""
        return value in self._out

    def const(self, value: str) -> Array | None:
        """Array of a constant."""
        return self._consts.get(value)

    def type(self, value: str) -> TensorType:
        """Type of a value."""
        return self._types[value]

    # Edits

    def _attach(self, n: Node) -> int:
        key = self._count
        self._count += 1
        self._nodes[key] = n
        self._key_of[id(n)] = key
        for y in n.outputs:
            self._producers[y] = key
        self._read(key, n, 1)
        return key

    def _read(self, key: int, n: Node, sign: int) -> None:
        for x in n.inputs:
            if x:
                uses = self._uses.setdefault(x, {})
                uses[key] = uses.get(key, 0) + sign
                if not uses[key]:
                    del uses[key]

    def _detach(self, key: int) -> Node:
        n = self._nodes.pop(key)
        del self._key_of[id(n)]
        for y in n.outputs:
            if self._producers.get(y) == key:
                del self._producers[y]
        self._read(key, n, -1)
        return n

    def _swap(self, key: int, n: Node) -> None:
        """Put a node that reads the same values in the place of another."""
        del self._key_of[id(self._nodes[key])]
        self._nodes[key] = n
        self._key_of[id(n)] = key

    def _substitute(self, value: str, by: str) -> None:
        """Let every reader of ``value`` read ``by``."""
        # only these two values change their readers: a node may have thousands of others
        readers = self._uses.pop(value, {})
        for key, count in readers.items():
            n = self._nodes[key]
            inputs = list(n.inputs)
            for _ in range(count):
                inputs[inputs.index(value)] = by
            self._swap(key, replace(n, inputs=tuple(inputs)))
            uses = self._uses.setdefault(by, {})
            uses[key] = uses.get(key, 0) + count

    def _rename(self, y: str, x: str) -> list[int]:
        self._types[x] = declared(self._types[x], self._types[y])
        same = _same_values(declared(self._types[y], self._types[x]), self._types[x])
        assert same, (y, self._types[y], self._types[x])
        if y not in self._out:
            self._substitute(y, x)
            return []
        if x in self._out or x not in self._producers:
            # an output keeps its name, and its source must keep its own: a copy
            return [self._attach(Node(Lane(lane.Arg(0, self._types[x].dtype)), (x,), (y,), y))]
        key = self._producers.pop(x)
        n = self._nodes[key]
        self._swap(key, replace(n, outputs=tuple(y if v == x else v for v in n.outputs)))
        self._producers[y] = key
        self._substitute(x, y)
        return []

    def apply(self, r: Rewrite) -> list[int]:
        """Do what a rule asks for; returns the keys of the nodes whose neighbourhood changed."""
        keys = [self._key_of[id(n)] for n in r.remove]
        near = {x for n in r.remove for x in (*n.inputs, *n.outputs)}
        gone = [self._detach(k) for k in keys]
        for name, array in r.consts.items():
            self._consts[name] = array
            self._types[name] = r.types.get(name) or type_of(array)
        new: list[int] = []
        for n in r.nodes:
            for y, inferred in zip(n.outputs, infer_types(n, self._types), strict=True):
                t = declared(inferred, self._types.get(y))
                assert y not in self._types or _same_values(self._types[y], t), (
                    n,
                    self._types[y],
                    t,
                )
                self._types[y] = t
            new.append(self._attach(n))
            near.update((*n.inputs, *n.outputs))
        for y, x in r.rename.items():
            near.update((x, y))
            new += self._rename(y, x)
        self._became[keys[-1]] = new
        for n in gone:
            for y in n.outputs:
                alive = y in self._producers or not (self._uses.get(y) or y in self._out)
                assert alive, f"{y} lost its definition"
        self._sweep_dead(near)
        found = {self._producers[v] for v in near if v in self._producers}
        found.update(k for v in near for k in self._uses.get(v, ()))
        return sorted(found)

    def _sweep_dead(self, values: Iterable[str]) -> None:
        """Remove definitions nobody reads, beginning at ``values``."""
        todo = list(values)
        while todo:
            key = self._producers.get(todo.pop())
            if key is None:
                continue
            n = self._nodes[key]
            if not any(self._uses.get(y) or y in self._out for y in n.outputs):
                self._detach(key)
                todo += n.inputs

    # The result

    def node(self, key: int) -> Node | None:
        """The node of a key, None when it is gone."""
        return self._nodes.get(key)

    def keys(self) -> list[int]:
        """Keys in execution order; what replaced a node stands where it stood."""
        order: list[int] = []
        stack = self._order[::-1]
        while stack:
            k = stack.pop()
            if k in self._nodes:
                order.append(k)
            stack += reversed(self._became.get(k, ()))
        nodes = [self._nodes[k] for k in order]
        self._order, self._became = [self._key_of[id(n)] for n in in_order(nodes)], {}
        return self._order

    def graph(self) -> Graph:
        """The rewritten graph."""
        nodes = [self._nodes[k] for k in self.keys()]
        return retyped(self._g, nodes, consts=self._consts, types=self._types)


def _same_values(a: TensorType, b: TensorType) -> bool:
    """Whether two types hold the same values; axis letters are only a name for the order."""
    return (a.shape, a.dtype, a.quant) == (b.shape, b.dtype, b.quant)


Rule: TypeAlias = Callable[[Match, Node], Rewrite | Reject | None]
EDITS_PER_NODE = 400


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
    """Apply rules until none changes anything; ``g`` itself when none ever did.

    After an edit the nodes around it are looked at again; when nothing is left to look at, a last
    round over all nodes proves that no rule applies and collects the refusals.
    """
    m = Match(g)
    edits, limit = 0, EDITS_PER_NODE * (len(g.nodes) + 10)
    while True:
        before = edits
        refused: list[Remark] = []
        queue = deque(m.keys())
        waiting = set(queue)
        while queue:
            key = queue.popleft()
            waiting.discard(key)
            n = m.node(key)
            if n is None:
                continue
            for name, rule in rules:
                r = rule(m, n)
                where = n.origin or n.outputs[0]
                if isinstance(r, Reject):
                    refused.append(Remark(name, where, r.reason, False))
                if not isinstance(r, Rewrite):
                    continue
                edits += 1
                assert edits < limit, f"rule {name} undoes another at {where}"
                if remarks is not None:
                    what = ", ".join(type(k.op).__name__ for k in r.nodes) or "nothing"
                    remarks.append(Remark(name, where, f"became {what}", True))
                for k in m.apply(r):
                    if k not in waiting:
                        waiting.add(k)
                        queue.append(k)
                break
        if edits == before:
            if remarks is not None:
                remarks += dict.fromkeys(refused)
            return m.graph() if edits else g


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
            live.update(x for x in n.inputs if x)
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
