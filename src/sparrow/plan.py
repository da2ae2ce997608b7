"""Graph -> Plan: kernels, buffers and arena offsets, all fixed, no text.

Values are views into buffers. Reshapes, slices and concatenations become views where the kernels
around them accept the strides; elementwise ops reuse a dying operand's buffer; what is left is
packed into one arena by liveness. Entry points share the arena (it is as large as the largest
needs), the weights (equal bytes are stored once) and the states of the same name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Graph, Module, Node
from sparrow.kernels import KERNELS
from sparrow.kernels.case import (
    Case,
    Epilogue,
    In,
    Invoke,
    Kernel,
    Lowered,
    Tensor,
    is_contiguous,
)
from sparrow.ops.concat import Concat
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.selection import Choice, CostTable, choose, refuse
from sparrow.targets import Target
from sparrow.tensor import BF16, Array, TensorType, row_major

ALIGN = 64
Kind = Literal["arena", "input", "output", "weights", "state"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a buffer lives: byte ``offset`` in the arena, weights or states, or caller's ``index``."""

    kind: Kind
    index: int
    offset: int


@dataclass(frozen=True, slots=True)
class View:
    """A value: its type and its elements in a place. ``offset`` is in bytes from the place."""

    type: TensorType
    place: Place
    offset: int
    strides: tuple[int, ...]

    @property
    def span(self) -> tuple[int, int]:
        """First byte and byte past the last, relative to the place."""
        if self.type.size == 0:
            return self.offset, self.offset
        reach = [(d - 1) * s for d, s in zip(self.type.shape, self.strides, strict=True)]
        low = self.offset + self.type.dtype.bytes * sum(min(r, 0) for r in reach)
        high = self.offset + self.type.dtype.bytes * (1 + sum(max(r, 0) for r in reach))
        return low, high


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One node to run: its views, its call, where its packed arrays and scratch lie."""

    node: Node
    kernel: str
    lowered: Lowered
    inputs: tuple[View | None, ...]
    outputs: tuple[View, ...]
    packed: tuple[int, ...]
    scratch: Place | None
    rejected: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """An entry point: steps in order, the views of its values, and states to be copied at the end."""

    graph: Graph
    steps: tuple[Step, ...]
    views: Mapping[str, View]
    arena_bytes: int
    commits: tuple[tuple[View, Place], ...]


@dataclass(frozen=True, slots=True)
class StateSlot:
    """A state's type and its place in the state block and, for its initial value, in the weights."""

    name: str
    type: TensorType
    offset: int
    initial: int


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Everything an emitter needs."""

    module: Module
    target: Target
    entries: tuple[Entry, ...]
    states: tuple[StateSlot, ...]
    arena_bytes: int
    state_bytes: int
    weights: bytes


class Weights:
    """The weight blob under construction; equal bytes are stored once, each aligned to ALIGN."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._seen: dict[bytes, int] = {}

    def add(self, data: bytes) -> int:
        """Byte offset of ``data`` in the blob."""
        key = hashlib.sha256(data).digest()
        if key not in self._seen:
            pad = -self._size % ALIGN
            self._parts += [bytes(pad), data]
            self._seen[key] = self._size + pad
            self._size += pad + len(data)
        return self._seen[key]

    def blob(self) -> bytes:
        """All parts."""
        return b"".join(self._parts)


def stored_bytes(array: Array, t: TensorType) -> bytes:
    """An array in the byte form it has at run time (bfloat16 as its upper half)."""
    if t.dtype == BF16:
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16
        return bits.astype("<u2").tobytes()
    return np.ascontiguousarray(array).tobytes()


@dataclass(slots=True)
class _Buffer:
    """Memory of one or more values."""

    bytes: int
    place: Place | None = None
    values: list[str] = field(default_factory=list)
    first: int = 1 << 30
    last: int = -1


@dataclass(slots=True)
class _Alias:
    buffer: _Buffer
    offset: int
    strides: tuple[int, ...]


class _Planner:
    def __init__(
        self,
        g: Graph,
        target: Target,
        threads: int,
        kernels: Sequence[Kernel],
        costs: CostTable | None,
        weights: Weights,
        state_at: Mapping[str, int],
    ) -> None:
        self.g, self.target, self.threads = g, target, threads
        self.kernels, self.costs, self.weights = kernels, costs, weights
        self.alias: dict[str, _Alias] = {}
        self.producers = g.producers()
        self.users = g.users()
        self.at = {y: i for i, n in enumerate(g.nodes) for y in n.outputs}
        self.state_at = state_at
        self.absorbed: set[int] = set()
        self.commits: list[tuple[str, Place]] = []
        self.pinned = set(g.outputs) | {s.output for s in g.states} | {n.count for n in g.lengths}

    def run(self) -> Entry:
        g = self.g
        for i, name in enumerate(g.inputs):
            self._own(name, Place("input", i, 0))
        for s in g.states:
            self._own(s.input, Place("state", 0, self.state_at[s.name]))
        for name in g.consts:
            self._own(name, None)
        for i, n in enumerate(g.nodes):
            if not self._as_view(i, n):
                for y in n.outputs:
                    self._own(y, None)
        for i, n in enumerate(g.nodes):
            if isinstance(n.op, Concat):
                self._absorb(i, n)
        choices = [
            None if i in self.absorbed else self._choose(n) for i, n in enumerate(g.nodes)
        ]
        self._place_outputs()
        self._lifetimes(choices)
        self._in_place(choices)
        arena, scratch = self._pack(choices)
        self._const_places(choices)
        views = {
            name: View(self.g.types[name], a.buffer.place, a.offset, a.strides)
            for name, a in self.alias.items()
            if a.buffer.place is not None
        }
        steps = []
        for i, (n, c) in enumerate(zip(g.nodes, choices, strict=True)):
            if c is None:
                continue
            steps.append(
                Step(
                    n,
                    c.kernel.name,
                    c.lowered,
                    tuple(views.get(x) if x else None for x in n.inputs),
                    tuple(views[y] for y in n.outputs),
                    tuple(self.weights.add(np.ascontiguousarray(p).tobytes()) for p in c.lowered.packed),
                    scratch.get(i),
                    c.rejected,
                )
            )
        commits = tuple((views[v], place) for v, place in self.commits)
        return Entry(g, tuple(steps), views, arena, commits)

    def _own(self, name: str, place: Place | None) -> None:
        t = self.g.types[name]
        self.alias[name] = _Alias(_Buffer(t.bytes, place, [name]), 0, row_major(t.shape))

    def _tensor(self, name: str) -> Tensor:
        return Tensor(self.g.types[name], self.alias[name].strides, self.g.consts.get(name))

    def _case(self, n: Node) -> Case:
        x = tuple(self._tensor(v) if v else None for v in n.inputs)
        y = tuple(self._tensor(v) for v in n.outputs)
        if isinstance(n.op, Concat):
            out = self.alias[n.outputs[0]].buffer
            x = tuple(
                replace(t, placed=self.alias[v].buffer is out) if t else None
                for v, t in zip(n.inputs, x, strict=True)
            )
        return Case(n.op, x, y, self.target, self.threads)

    def _choose(self, n: Node) -> Choice:
        c = choose(self._case(n), self.kernels, self.costs)
        if isinstance(c, str):
            raise refuse(n, c, self.target)
        return c

    def _kernel_name(self, n: Node) -> str | None:
        c = choose(self._case(n), self.kernels, self.costs)
        return None if isinstance(c, str) else c.kernel.name

    def _as_view(self, i: int, n: Node) -> bool:
        """Make a reshape or slice a view of its operand when everyone around accepts it."""
        if not isinstance(n.op, (Reshape, Slice)):
            return False
        (x,), (y,) = n.inputs, n.outputs
        source = self.alias[x]
        t = self.g.types[y]
        movable = source.buffer.place is None and x not in self.g.consts
        if y in self.pinned and (
            not movable
            or source.buffer.bytes != t.bytes
            or any(v in self.pinned for v in source.buffer.values)
        ):
            return False
        if isinstance(n.op, Reshape):
            if not is_contiguous(self.g.types[x].shape, source.strides):
                return False
            self._view(y, source, source.offset, row_major(t.shape))
            self.absorbed.add(i)
            return True
        start = sum(a * s for a, s in zip(n.op.starts, source.strides, strict=True))
        strides = tuple(k * s for k, s in zip(n.op.steps, source.strides, strict=True))
        offset = source.offset + start * t.dtype.bytes
        if y in self.pinned:
            return False
        if not is_contiguous(t.shape, strides):
            if any(isinstance(u.op, (Reshape, Concat)) for u in self.users.get(y, ())):
                return False
            self._own(y, None)
            before = [self._dense_kernel(u) for u in self.users.get(y, ())]
            self.alias[y] = _Alias(source.buffer, offset, strides)
            after = [self._dense_kernel(u) for u in self.users.get(y, ())]
            if before != after or None in after:
                del self.alias[y]
                return False
        self._view(y, source, offset, strides)
        self.absorbed.add(i)
        return True

    def _dense_kernel(self, n: Node) -> str | None:
        """Kernel of a node whose operands not yet placed are taken as dense."""
        guessed = [v for v in (*n.inputs, *n.outputs) if v and v not in self.alias]
        for v in guessed:
            self._own(v, None)
        name = self._kernel_name(n)
        for v in set(guessed):
            del self.alias[v]
        return name

    def _view(self, name: str, source: _Alias, offset: int, strides: tuple[int, ...]) -> None:
        self.alias[name] = _Alias(source.buffer, offset, strides)
        source.buffer.values.append(name)

    def _absorb(self, i: int, n: Node) -> None:
        """Let the operands of a concatenation be written where it would copy them."""
        assert isinstance(n.op, Concat)
        y = n.outputs[0]
        out = self.alias[y]
        axis = n.op.axis
        element = self.g.types[y].dtype.bytes
        outer_one = all(d == 1 for d in self.g.types[y].shape[:axis])
        done: list[str] = []
        at = 0
        for x in n.inputs:
            offset = out.offset + at * out.strides[axis] * element
            at += self.g.types[x].shape[axis]
            if self._may_move(x, n, outer_one):
                moved = self.alias[x]
                previous = {v: (self.alias[v].offset, self.alias[v].strides) for v in moved.buffer.values}
                touched = {id(u): u for v in moved.buffer.values for u in self._around(v)}
                touched.pop(id(n), None)
                before = {k: self._kernel_name(u) for k, u in touched.items()}
                for v in moved.buffer.values:
                    a = self.alias[v]
                    strides = a.strides if outer_one else out.strides
                    self.alias[v] = _Alias(out.buffer, offset + a.offset, strides)
                after = {k: self._kernel_name(u) for k, u in touched.items()}
                if before == after:
                    out.buffer.values += moved.buffer.values
                    done.append(x)
                    continue
                for v, (o, s) in previous.items():
                    self.alias[v] = _Alias(moved.buffer, o, s)
        if len(done) == len(n.inputs):
            self.absorbed.add(i)

    def _around(self, v: str) -> Iterable[Node]:
        """Nodes that read or write a value and still run."""
        near = [*self.users.get(v, ())]
        if v in self.producers:
            near.append(self.producers[v])
        return [u for u in near if self.at[u.outputs[0]] not in self.absorbed]

    def _may_move(self, x: str, n: Node, outer_one: bool) -> bool:
        a = self.alias[x]
        whole = a.offset == 0 and self.g.types[x].bytes == a.buffer.bytes
        if not whole or a.buffer.place is not None or n.inputs.count(x) > 1:
            return False
        if any(v in self.pinned or v in self.g.consts for v in a.buffer.values):
            return False
        if self.alias[n.outputs[0]].buffer is a.buffer:
            return False
        return outer_one or a.buffer.values == [x]

    def _place_outputs(self) -> None:
        for i, name in enumerate(self.g.outputs):
            if not self._pin(name, Place("output", i, 0)):
                raise InvalidGraph(f"output {name!r} has no memory of its own")
        for s in self.g.states:
            a = self.alias[s.output]
            written = self.at[s.output]
            reads = [self.at[u.outputs[0]] for v in self.alias[s.input].buffer.values for u in self.users.get(v, ())]
            place = Place("state", 0, self.state_at[s.name])
            if not all(r < written for r in reads) or not self._pin(s.output, place):
                self.commits.append((s.output, place))

    def _pin(self, name: str, place: Place) -> bool:
        a = self.alias[name]
        dense = is_contiguous(self.g.types[name].shape, a.strides)
        if a.buffer.place is None and a.offset == 0 and dense and a.buffer.bytes == self.g.types[name].bytes:
            a.buffer.place = place
            return True
        return False

    def _lifetimes(self, choices: Sequence[Choice | None]) -> None:
        for i, n in enumerate(self.g.nodes):
            for v in (*n.inputs, *n.outputs):
                if v:
                    b = self.alias[v].buffer
                    b.first, b.last = min(b.first, i), max(b.last, i)
        for name in self.g.live_out():
            self.alias[name].buffer.last = len(self.g.nodes)

    def _in_place(self, choices: Sequence[Choice | None]) -> None:
        """Let output 0 take over the buffer of an operand that dies here."""
        for i, (n, c) in enumerate(zip(self.g.nodes, choices, strict=True)):
            if c is None or not c.kernel.inplace:
                continue
            y = n.outputs[0]
            out = self.alias[y]
            if out.buffer.place is not None or out.offset or out.buffer.first != i:
                continue
            for k in c.kernel.inplace:
                if k >= len(n.inputs) or not n.inputs[k]:
                    continue
                x = n.inputs[k]
                a = self.alias[x]
                same = (
                    a.buffer is not out.buffer
                    and a.buffer.place is None
                    and x not in self.g.consts
                    and a.buffer.last == i
                    and a.offset == 0
                    and a.strides == out.strides
                    and self.g.types[x].shape == self.g.types[y].shape
                    and self.g.types[x].dtype.bytes == self.g.types[y].dtype.bytes
                    and a.buffer.bytes == out.buffer.bytes
                    and not any(self._overlaps(v, x) for j, v in enumerate(n.inputs) if v and j != k)
                )
                if same:
                    for v in out.buffer.values:
                        self.alias[v].buffer = a.buffer
                    a.buffer.values += out.buffer.values
                    a.buffer.last = max(a.buffer.last, out.buffer.last)
                    break

    def _overlaps(self, v: str, x: str) -> bool:
        """Whether another operand lies in the buffer of ``x`` at other elements."""
        a, b = self.alias[v], self.alias[x]
        return a.buffer is b.buffer and (a.offset, a.strides) != (b.offset, b.strides)

    def _pack(self, choices: Sequence[Choice | None]) -> tuple[int, dict[int, Place]]:
        """Offsets by size, largest first, each at the lowest free place during its life."""
        buffers = {id(a.buffer): a.buffer for v, a in self.alias.items() if v not in self.g.consts}
        items: list[tuple[int, int, int, _Buffer | int]] = [
            (b.bytes, b.first, b.last, b) for b in buffers.values() if b.place is None and b.last >= 0
        ]
        for i, c in enumerate(choices):
            if c is not None and c.lowered.scratch_bytes:
                items.append((c.lowered.scratch_bytes, i, i, i))
        placed: list[tuple[int, int, int, int]] = []
        scratch: dict[int, Place] = {}
        for size, first, last, what in sorted(items, key=lambda t: (-t[0], t[1])):
            at = 0
            for start, end, f, last_use in sorted(placed):
                if f <= last and first <= last_use and at < end and start < at + size:
                    at = -(-end // ALIGN) * ALIGN
            placed.append((at, at + size, first, last))
            if isinstance(what, int):
                scratch[what] = Place("arena", 0, at)
            else:
                what.place = Place("arena", 0, at)
        return max((end for _, end, _, _ in placed), default=0), scratch

    def _const_places(self, choices: Sequence[Choice | None]) -> None:
        """Store the constants that kernels read as they are (not only packed)."""
        for n, c in zip(self.g.nodes, choices, strict=True):
            if c is not None:
                for index in _reads(c.lowered):
                    self._store(n.inputs[index])

    def _store(self, name: str) -> None:
        a = self.alias[name]
        if name in self.g.consts and a.buffer.place is None:
            data = stored_bytes(self.g.consts[name], self.g.types[name])
            a.buffer.place = Place("weights", 0, self.weights.add(data))
        elif a.buffer.place is None:
            for v in a.buffer.values:
                if v in self.g.consts:
                    self._store(v)


def _reads(lowered: Lowered) -> set[int]:
    """Indices of the inputs that a call's arguments point to."""
    found: set[int] = set()
    for c in lowered.calls:
        if isinstance(c, Invoke):
            for a in c.arguments:
                if isinstance(a, In):
                    found.add(a.index)
                elif isinstance(a, Epilogue):
                    found |= {e.source.index for e in a.extras if isinstance(e.source, In)}
        else:
            found |= {s.operand.index for s in c.x if isinstance(s.operand, In)}
    return found


def plan(
    module: Module,
    target: Target,
    *,
    threads: int = 1,
    kernels: Sequence[Kernel] = KERNELS,
    costs: CostTable | None = None,
) -> Plan:
    """Choose kernels and place every buffer.

    Args:
        module: Entry points whose graphs are legal for the kernels (after the passes).
        target: Device.
        threads: Threads the caller means to use; results never depend on it.
        kernels: Kernel table.
        costs: Measured cycles by (kernel, signature); predictions are used where missing.

    Raises:
        UnsupportedOp: A node has no kernel; says which and why.
    """
    weights = Weights()
    slots: dict[str, StateSlot] = {}
    at = 0
    for g in module:
        for s in g.states:
            t = g.types[s.input]
            if s.name in slots and slots[s.name].type != t:
                raise InvalidGraph(f"state {s.name!r} is {slots[s.name].type} and {t}")
            if s.name not in slots:
                initial = weights.add(stored_bytes(s.initial, t)) if np.any(s.initial) else -1
                slots[s.name] = StateSlot(s.name, t, at, initial)
                at += -(-t.bytes // ALIGN) * ALIGN
    state_at = {s.name: s.offset for s in slots.values()}
    entries = tuple(
        _Planner(g, target, threads, kernels, costs, weights, state_at).run() for g in module
    )
    return Plan(
        module,
        target,
        entries,
        tuple(slots.values()),
        max((e.arena_bytes for e in entries), default=0),
        at,
        weights.blob(),
    )

