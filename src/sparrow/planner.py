"""Graph -> Plan: choose kernels and place every buffer.

Values are views into buffers (`views`); elementwise ops reuse a dying operand's buffer; what is
left is packed into one arena by liveness (`arena`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from sparrow.branches import conditions
from sparrow.errors import InvalidGraph
from sparrow.graph import Graph, Module, Node, State
from sparrow.kernels import KERNELS
from sparrow.kernels.case import Epilogue, In, Invoke, Kernel, Lowered
from sparrow.memory.arena import Item, aligned, alive, pack
from sparrow.memory.blob import Weights
from sparrow.memory.partition import Flow, share, split_cycles, worth_splitting
from sparrow.memory.settled import Seams, output_seams, scratch_seams, settle
from sparrow.memory.views import Alias, Buffer, Choosing, Place, Views
from sparrow.passes.own_outputs import with_own_outputs
from sparrow.plan import Entry, Guard, Plan, StateSlot, Step, View, stored_bytes
from sparrow.selection import Choice, refuse
from sparrow.targets import Target
from sparrow.tuning import Tuning

# How much larger the arena of several threads may be for bytes that keep their core, and what one
# of its bytes counts for beside them, in turn until it is no larger.
_SPREAD = 1.05
_GROWTH = (1, 2, 4)


class _Planner:
    """Plans one entry point."""

    def __init__(
        self, g: Graph, choosing: Choosing, weights: Weights, state_at: Mapping[str, int]
    ) -> None:
        self.g = with_own_outputs(g)
        self.weights = weights
        self.choosing = choosing
        self.state_places = {s.name: Place("state", 0, state_at[s.name]) for s in g.states}
        self.stored = [s for s in self.g.states if s.output != s.input]
        self.conditions = conditions(self.g)

    def run(self) -> Entry:
        g = self.g
        fixed = {name: Place("input", i, 0) for i, name in enumerate(g.inputs)}
        fixed |= {s.input: self.state_places[s.name] for s in g.states}
        pinned = frozenset({*g.outputs, *(s.output for s in self.stored)})
        self.views = Views(g, self.choosing, fixed, pinned)
        self.choices = {i: self._choose(n) for i, n in self._running()}
        self.whole: frozenset[int] = frozenset()
        if self.choosing.threads > 1:
            self._keep_whole()
        self._lifetimes()
        for i, name in enumerate(g.outputs):
            self._pin(name, Place("output", i, 0))
        commits = [s for s in self.stored if not self._direct(s)]
        self._reuse()
        self._keep_apart()
        arena_bytes, live, scratch = self._pack()
        self._store_constants()
        at = {
            name: View(g.types[name], a.buffer.place, a.offset, a.strides)
            for name, a in self.views.alias.items()
            if a.buffer.place is not None
        }
        steps = tuple(
            replace(
                self._step(n, self.choices[i], at, scratch.get(i)),
                whole=i in self.whole,
                guards=tuple(Guard(v, at[v], holds) for v, holds in self.conditions.get(i, ())),
            )
            for i, n in self._running()
        )
        copies = tuple((at[s.output], self.state_places[s.name]) for s in commits)
        return Entry(g, steps, at, arena_bytes, live, copies)

    def _running(self) -> Iterator[tuple[int, Node]]:
        return ((i, n) for i, n in enumerate(self.g.nodes) if i not in self.views.still)

    def _choose(self, n: Node, threads: int | None = None) -> Choice:
        c = self.views.choose(n, threads if n.column is None else 1)
        if isinstance(c, str):
            raise refuse(n, c, self.choosing.target)
        return c

    def _keep_whole(self) -> None:
        """Compute on one core what does not gain from being split."""
        threads, target = self.choosing.threads, self.choosing.target
        alone = {
            i: self._choose(n, 1)
            for i, n in self._running()
            if n.column is None and self.choices[i].lowered.tasks > 1
        }
        apart = frozenset(i for i, n in self._running() if n.column is not None)
        steps = list(self.choices)
        at = {i: k for k, i in enumerate(steps)}
        written = self._written()
        flows = [
            Flow(at[source], at[i], size)
            for i, n in self._running()
            for v in n.inputs
            for source, size in written.get(v, {}).items()
        ]
        whole = [(alone.get(i) or self.choices[i]).lowered.cycles for i in steps]
        split: list[float | None] = []
        for i in steps:
            c = self.choices[i].lowered
            split.append(split_cycles(c.cycles, c.tasks, threads, target) if i in alone else None)
        beside = frozenset(at[i] for i in apart)
        kept = worth_splitting(whole, split, flows, threads, target, beside)
        single = frozenset(i for i in alone if at[i] not in kept)
        self.choices |= {i: alone[i] for i in single}
        self.whole = single | apart

    def _written(self) -> dict[str, dict[int, int]]:
        """Of each value, the running nodes that write it or what it is a view of: their bytes."""
        found: dict[str, dict[int, int]] = {}
        for i, n in enumerate(self.g.nodes):
            for y in n.outputs:
                size = self.g.types[y].bytes
                found[y] = {} if i in self.views.still else {i: size}
                for v in n.inputs if i in self.views.still else ():
                    for source, part in found.get(v, {}).items():
                        found[y][source] = min(size, found[y].get(source, 0) + part)
        return found

    def _abreast(self) -> dict[int, tuple[int, int]]:
        """Of each node that one of several threads computes, the ends of the run of such nodes.

        In a run each thread goes on by itself, so that none may write where another still reads.
        """
        found: dict[int, tuple[int, int]] = {}
        run: list[int] = []
        for i, n in (*self._running(), (len(self.g.nodes), None)):
            if n is not None and n.column is not None:
                run.append(i)
            elif run:
                found |= dict.fromkeys(run, (run[0], run[-1]))
                run = []
        return found

    def _keep_apart(self) -> None:
        """Give what threads compute beside one another memory of its own."""
        for i, (first, last) in self._abreast().items():
            for v in self._touched(i):
                b = self._buffer(v)
                b.first = min(b.first, first)
                b.last = max(b.last, last)

    def _buffer(self, name: str) -> Buffer:
        return self.views.alias[name].buffer

    def _deciding(self, i: int) -> list[Buffer]:
        """What says whether a node runs."""
        return [self._buffer(v) for v, _ in self.conditions.get(i, ())]

    def _touched(self, i: int) -> Iterator[str]:
        """Values that a node, or the decision whether it runs, reads or writes."""
        n = self.g.nodes[i]
        yield from (v for v in (*n.inputs, *n.outputs) if v)
        yield from (v for v, _ in self.conditions.get(i, ()))

    def _lifetimes(self) -> None:
        for i, _ in self._running():
            for v in self._touched(i):
                b = self._buffer(v)
                b.first, b.last = min(b.first, i), max(b.last, i)
        for name in self.g.live_out():
            self._buffer(name).last = len(self.g.nodes)

    def _pin(self, name: str, place: Place) -> None:
        a = self.views.alias[name]
        assert a.buffer.place is None and a.offset == 0, name
        assert a.buffer.bytes == self.g.types[name].bytes, name
        a.buffer.place = place

    def _direct(self, s: State) -> bool:
        """Write a state's new value where the old one is, if that has been read by then."""
        old = self._buffer(s.input)
        written = self._buffer(s.output).first
        for i, n in self._running():
            if i >= written and any(b is old for b in self._deciding(i)):
                return False
            for k, v in enumerate(n.inputs):
                if not v or self._buffer(v) is not old or i < written:
                    continue
                in_step = n.outputs[0] == s.output and k in self.choices[i].kernel.inplace
                if i > written or not in_step or not self._same_elements(v, s.output):
                    return False
        self._pin(s.output, self.state_places[s.name])
        return True

    def _same_elements(self, x: str, y: str) -> bool:
        """Whether two values of one shape and element size lie alike in their buffers."""
        a, b, t, u = self.views.alias[x], self.views.alias[y], self.g.types[x], self.g.types[y]
        if t.shape != u.shape or t.dtype.bytes != u.dtype.bytes or a.offset != b.offset:
            return False
        walks = zip(t.shape, a.strides, b.strides, strict=True)
        return all(d == 1 or p == q for d, p, q in walks)

    def _reuse(self) -> None:
        """Let output 0 take over the buffer of an operand that dies in its step."""
        for i, n in self._running():
            out = self._buffer(n.outputs[0])
            if out.place is not None or out.first != i:
                continue
            for k in self.choices[i].kernel.inplace:
                if k < len(n.inputs) and n.inputs[k] and self._dies_into(i, n, k):
                    self._merge(out, self._buffer(n.inputs[k]))
                    break

    def _dies_into(self, i: int, n: Node, k: int) -> bool:
        x, y = n.inputs[k], n.outputs[0]
        dying, out = self._buffer(x), self._buffer(y)
        if dying is out or dying.place is not None or x in self.g.consts or dying.last != i:
            return False
        if any(b is dying for b in self._deciding(i)):
            return False
        if dying.bytes != out.bytes or not self._same_elements(x, y):
            return False
        # another output, or an operand that reads other elements of the buffer, would be
        # overwritten
        others = [v for v in n.inputs if v and self._buffer(v) is dying]
        return all(self._same_elements(v, x) for v in others) and not any(
            self._buffer(v) is dying for v in n.outputs
        )

    def _merge(self, out: Buffer, into: Buffer) -> None:
        for v in out.values:
            a = self.views.alias[v]
            self.views.alias[v] = Alias(into, a.offset, a.strides)
        into.values += out.values
        into.last = max(into.last, out.last)

    def _pack(self) -> tuple[int, tuple[int, ...], dict[int, Place]]:
        """Place what is left in the arena: its bytes, the least of each step, scratch of steps."""
        consts = self.g.consts
        buffers = {id(a.buffer): a.buffer for v, a in self.views.alias.items() if v not in consts}
        free = [
            b
            for b in buffers.values()
            if b.place is None and b.last >= 0 and not any(v in consts for v in b.values)
        ]
        scratch = [(i, c.lowered.scratch_bytes) for i, c in self.choices.items()]
        scratch = [(i, size) for i, size in scratch if size]
        over = self._over({id(b): k for k, b in enumerate(free)})
        items = [Item(b.bytes, b.first, b.last, *over.get(k, ())) for k, b in enumerate(free)]
        abreast = self._abreast()
        items += [Item(size, *abreast.get(i, (i, i))) for i, size in scratch]
        offsets, total = pack(items)
        if self.choosing.threads > 1:
            seams = self._seams(free, [i for i, _ in scratch])
            tried = (settle(items, seams, growth) for growth in _GROWTH)
            offsets, total = next((t for t in tried if t[1] <= _SPREAD * total), (offsets, total))
        for b, offset in zip(free, offsets, strict=False):
            b.place = Place("arena", 0, offset)
        rest = offsets[len(free) :]
        places = {i: Place("arena", 0, o) for (i, _), o in zip(scratch, rest, strict=True)}
        return total, tuple(alive(items, i) for i, _ in self._running()), places

    def _column(self, i: int, n: Node) -> int | None:
        return (n.column or 0) if i in self.whole else None

    def _seams(self, free: Sequence[Buffer], scratch: Sequence[int]) -> list[Seams]:
        """Where columns end in buffers and in the scratch memory of steps."""
        threads = self.choosing.threads
        columns = {
            i: share(self.choices[i].lowered.tasks, threads, self._column(i, n))
            for i, n in self._running()
        }
        found: dict[int, list[int]] = {id(b): [] for b in free}
        for i, n in self._running():
            for k, y in enumerate(n.outputs):
                a = self.views.alias[y]
                if id(a.buffer) not in found:
                    continue
                end = View(self.g.types[y], Place("arena", 0, 0), a.offset, a.strides).span[1]
                ends = output_seams(self.choices[i].lowered, columns[i], k, a.offset, end)
                if ends:
                    old = found[id(a.buffer)] or [0] * threads
                    found[id(a.buffer)] = [max(pair) for pair in zip(old, ends, strict=True)]
        return [
            *(tuple(accumulate(found[id(b)], max)) for b in free),
            *(scratch_seams(self.choices[i].lowered, columns[i]) for i in scratch),
        ]

    def _over(self, at: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        """Which buffer may run over which other one that its step reads last, and with what lead.

        Buffers are named by the index that ``at`` gives for their identity.
        """
        found: dict[int, tuple[int, int]] = {}
        for i, n in self._running():
            lead = self.choices[i].lowered.lead
            x, y = n.inputs[0], n.outputs[0]
            if lead is None or not (self.views.dense(x) and self.views.dense(y)):
                continue
            lead += self.views.alias[y].offset - self.views.alias[x].offset
            dying, out = self._buffer(x), self._buffer(y)
            alone = not any(v and self._buffer(v) is dying for v in n.inputs[1:])
            if id(dying) in at and id(out) in at and dying.last == i == out.first and alone:
                found[at[id(out)]] = at[id(dying)], min(lead, out.bytes)
        return found

    def _store_constants(self) -> None:
        """Store the constants that kernels read as they are (not only packed)."""
        for i, n in self._running():
            for k in sorted(_reads(self.choices[i].lowered)):
                b = self._buffer(n.inputs[k])
                const = next((v for v in b.values if v in self.g.consts), None)
                if const is not None and b.place is None:
                    data = stored_bytes(self.g.consts[const], self.g.types[const])
                    b.place = Place("weights", 0, self.weights.add(data))

    def _step(self, n: Node, c: Choice, at: Mapping[str, View], scratch: Place | None) -> Step:
        packed = tuple(
            self.weights.add(np.ascontiguousarray(p).tobytes()) for p in c.lowered.packed
        )
        inputs = tuple(at.get(x) if x else None for x in n.inputs)
        outputs = tuple(at[y] for y in n.outputs)
        return Step(
            n,
            c.kernel.name,
            c.lowered,
            inputs,
            outputs,
            packed,
            scratch,
            c.rejected,
            c.kernel.inplace,
            c.options,
        )


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
    tuning: Tuning | None = None,
) -> Plan:
    """Choose kernels and place every buffer.

    Args:
        module: Entry points whose graphs are legal for the kernels (after the passes).
        target: Device.
        threads: Threads the caller means to use; results never depend on it.
        kernels: Kernel table.
        tuning: Measured times of tiles; predictions are used where they say nothing.

    Raises:
        UnsupportedOp: A node has no kernel; says which and why.
        InvalidGraph: A state has different types in two entry points.
    """
    weights = Weights()
    states, state_bytes = _state_slots(module, weights)
    state_at = {s.name: s.offset for s in states}
    choosing = Choosing(target, threads, kernels, tuning)
    entries = tuple(_Planner(g, choosing, weights, state_at).run() for g in module)
    arena_bytes = max((e.arena_bytes for e in entries), default=0)
    blob = weights.blob()
    return Plan(module, target, entries, states, arena_bytes, state_bytes, blob, threads)


def _state_slots(module: Module, weights: Weights) -> tuple[tuple[StateSlot, ...], int]:
    slots: dict[str, StateSlot] = {}
    at = 0
    for g in module:
        for s in g.states:
            t = g.types[s.input]
            if s.name not in slots:
                initial = weights.add(stored_bytes(s.initial, t)) if np.any(s.initial) else -1
                slots[s.name] = StateSlot(s.name, t, at, initial)
                at += aligned(t.bytes)
            elif slots[s.name].type != t:
                raise InvalidGraph(f"state {s.name!r} is {slots[s.name].type} and {t}")
    return tuple(slots.values()), at
