"""Proof that a Plan's memory is sound, from the Plan alone and by another method than the
planner's.

Memory is a map from granules (the largest unit that divides all sizes and offsets) to tokens, one
token per element that a step ever writes. Steps are run on tokens in order: what a step reads must
be exactly the elements its graph says. A value overwritten too early, a view with wrong strides, a
step that reads what nobody wrote, a half-written output: each shows as a wrong token.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sparrow.graph import Op
from sparrow.kernels.case import is_contiguous
from sparrow.memory.arena import ALIGN
from sparrow.memory.views import Place
from sparrow.ops.bitcast import BitCast
from sparrow.ops.concat import Concat
from sparrow.ops.pad import Expand
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.plan import Entry, Plan, Step, View, stored_bytes
from sparrow.tensor import Array, row_major

Tokens = NDArray[np.int64]
CLOBBERED = -1


def audit(plan: Plan) -> list[str]:
    """What is wrong with the memory of a plan; an empty list is the proof that nothing is.

    Checks that views lie inside their places and scratch and weights are aligned and hold what was
    packed; that no step writes to inputs or weights; that a step's outputs share bytes with its
    scratch never, and with its inputs only element on element where its kernel allows it, or with
    the first from as far behind as it asks for; and, by
    running tokens through the memory, that every step reads, and every output and state ends as,
    what the graph says.
    """
    found: list[str] = []
    for e in plan.entries:
        found += [f"{e.graph.name}: {text}" for text in _Run(plan, e).faults()]
    return found + _weight_faults(plan)


def _weight_faults(plan: Plan) -> list[str]:
    found = []
    for e in plan.entries:
        for s in e.steps:
            for at, array in zip(s.packed, s.lowered.packed, strict=True):
                data = np.ascontiguousarray(array).tobytes()
                if at % ALIGN or plan.weights[at : at + len(data)] != data:
                    found.append(f"{_name(s)}: packed weights at {at} are not those of its kernel")
        for name, value in e.graph.consts.items():
            v = e.views.get(name)
            if v is not None:
                data = stored_bytes(value, v.type)
                at = v.place.offset + v.offset
                if v.place.kind != "weights" or plan.weights[at : at + len(data)] != data:
                    found.append(f"constant {name!r} is not stored at {at}")
    for slot in plan.states:
        if slot.offset % ALIGN or slot.offset + slot.type.bytes > plan.state_bytes:
            found.append(f"state {slot.name!r} leaves the state block")
    spans = sorted((s.offset, s.offset + s.type.bytes) for s in plan.states)
    if any(a[1] > b[0] for a, b in itertools.pairwise(spans)):
        found.append("states overlap")
    return found


def _name(s: Step) -> str:
    return s.node.origin or s.node.outputs[0]


class _Run:
    def __init__(self, plan: Plan, e: Entry) -> None:
        self.plan, self.e = plan, e
        g = e.graph
        self.unit = self._unit()
        self.next = 1
        self.tokens: dict[str, Tokens] = {}
        self.memory: dict[tuple[str, int], Tokens] = {
            ("arena", 0): self._blank(plan.arena_bytes),
            ("state", 0): self._blank(plan.state_bytes),
            ("weights", 0): self._blank(len(plan.weights)),
        }
        for i, name in enumerate(g.inputs):
            self.memory["input", i] = self._blank(g.types[name].bytes)
        for i, name in enumerate(g.outputs):
            self.memory["output", i] = self._blank(g.types[name].bytes)
        given = (*g.inputs, *g.consts, *(s.input for s in g.states))
        for name in given:
            self.tokens[name] = self._fresh(g.types[name].shape)

    def _unit(self) -> int:
        """Largest number of bytes that divides every element size and every distance."""
        unit = ALIGN
        for s in self.e.steps:
            for v in (*s.inputs, *s.outputs):
                if v is not None:
                    unit = math.gcd(unit, v.type.dtype.bytes, v.offset, v.place.offset)
        for v in self.e.views.values():
            unit = math.gcd(unit, v.type.dtype.bytes, v.offset, v.place.offset)
        return unit

    def _blank(self, size: int) -> Tokens:
        return np.full(-(-size // self.unit), CLOBBERED, np.int64)

    def _fresh(self, shape: tuple[int, ...]) -> Tokens:
        n = math.prod(shape)
        first, self.next = self.next, self.next + n
        return np.arange(first, first + n, dtype=np.int64).reshape(shape)

    def faults(self) -> list[str]:
        return list(self._faults())

    def _faults(self) -> Iterator[str]:
        g = self.e.graph
        outside = [
            f"{n!r} leaves its {v.place.kind}" for n, v in self.e.views.items() if self._leaves(v)
        ]
        if outside:
            # nothing below can be trusted to stay inside an array
            yield from outside
            return
        for name in (*g.inputs, *g.consts, *(s.input for s in g.states)):
            v = self.e.views.get(name)
            if v is None:
                continue
            if v.place.kind == "weights" and np.all(self._read(v) != CLOBBERED):
                # another constant of equal bytes; `_weight_faults` compares them
                self.tokens[name] = self._read(v)
            self._write(v, self.tokens[name])
        waiting = iter(self.e.steps)
        step = next(waiting, None)
        for n in g.nodes:
            if step is not None and step.node is n:
                yield from self._run(step)
                step = next(waiting, None)
            else:
                # no step: the result must already be where its view says
                x = [self.tokens[v] if v else None for v in n.inputs]
                if any(g.types[y].size for y in n.outputs):
                    for y, t in zip(n.outputs, _moved(n.op, x), strict=True):
                        self.tokens[y] = t
                else:
                    self.tokens |= {y: self._fresh(g.types[y].shape) for y in n.outputs}
        if step is not None:
            yield f"{_name(step)}: out of order"
        yield from self._end()

    def _run(self, s: Step) -> Iterator[str]:
        where = _name(s)
        if s.scratch is not None:
            end = s.scratch.offset + s.lowered.scratch_bytes
            if s.scratch.offset % ALIGN or s.scratch.kind != "arena" or end > self.plan.arena_bytes:
                yield f"{where}: scratch leaves the arena"
                return
            low, high = s.scratch.offset // self.unit, -(-end // self.unit)
            self.memory["arena", 0][low:high] = CLOBBERED
            for y, v in zip(s.node.outputs, s.outputs, strict=True):
                if v.place.kind == "arena" and _between(v, s.scratch.offset, end):
                    yield f"{where}: output {y!r} lies on the scratch memory"
        for x, view in zip(s.node.inputs, s.inputs, strict=True):
            if view is not None and not self._holds(view, self.tokens[x]):
                yield f"{where}: input {x!r} is not there any more"
        for g in s.guards:
            if not self._holds(g.view, self.tokens[g.value]):
                yield f"{where}: condition {g.value!r} is not there any more"
            if any(_meet(g.view, y) for y in s.outputs):
                yield f"{where}: an output overwrites condition {g.value!r}"
        if not isinstance(s.node.op, Concat):
            yield from self._aliasing(s, where)
        for y, v in zip(s.node.outputs, s.outputs, strict=True):
            if v.place.kind in ("input", "weights"):
                yield f"{where}: writes {y!r} to {v.place.kind}"
            self.tokens[y] = self._result(s, v)
            self._write(v, self.tokens[y])
        if isinstance(s.node.op, Concat):
            # a part that lies in the result already is not copied, and may be read again
            for x, view in zip(s.node.inputs, s.inputs, strict=True):
                if view is not None and not self._holds(view, self.tokens[x]):
                    yield f"{where}: part {x!r} is overwritten"
        for y, v in zip(s.node.outputs, s.outputs, strict=True):
            if not self._holds(v, self.tokens[y]):
                yield f"{where}: output {y!r} overlaps itself or another output"

    def _result(self, s: Step, v: View) -> Tokens:
        if isinstance(s.node.op, Concat):
            return _moved(s.node.op, [self.tokens[x] for x in s.node.inputs])[0]
        return self._fresh(v.type.shape)

    def _aliasing(self, s: Step, where: str) -> Iterator[str]:
        for k, x in enumerate(s.inputs):
            for j, y in enumerate(s.outputs):
                if x is None or not _meet(x, y):
                    continue
                a, b = self._granules(x), self._granules(y)
                same = a.shape == b.shape and np.array_equal(a, b)
                in_place = same and j == 0 and k in s.inplace
                behind = j == k == 0 and _behind(s)
                if not (in_place or behind) and np.intersect1d(a, b).size:
                    yield f"{where}: output {j} overwrites input {k} while it is read"

    def _end(self) -> Iterator[str]:
        g = self.e.graph
        committed = [(self._read(v), place) for v, place in self.e.commits]
        for (view, _), (now, place) in zip(self.e.commits, committed, strict=True):
            dense = View(view.type, place, 0, row_major(view.type.shape))
            self._write(dense, now)
        for i, name in enumerate(g.outputs):
            t = g.types[name]
            if not self._holds(
                View(t, Place("output", i, 0), 0, row_major(t.shape)), self.tokens[name]
            ):
                yield f"output {name!r} is not written completely, or not with its value"
        slots = {s.name: s for s in self.plan.states}
        for s in g.states:
            t = g.types[s.output]
            place = Place("state", 0, slots[s.name].offset)
            if not self._holds(View(t, place, 0, row_major(t.shape)), self.tokens[s.output]):
                yield f"state {s.name!r} does not end with its new value"

    def _leaves(self, v: View) -> bool:
        low, high = v.span
        size = {
            "arena": self.plan.arena_bytes,
            "state": self.plan.state_bytes,
            "weights": len(self.plan.weights),
        }.get(v.place.kind)
        if size is None:
            names = self.e.graph.inputs if v.place.kind == "input" else self.e.graph.outputs
            size = self.e.graph.types[names[v.place.index]].bytes
        aligned = v.place.offset % ALIGN == 0 and v.offset % v.type.dtype.bytes == 0
        return not aligned or v.place.offset + low < 0 or v.place.offset + high > size

    def _granules(self, v: View) -> NDArray[np.int64]:
        """Index of every granule of every element, of shape (*shape, granules per element)."""
        each = v.type.dtype.bytes // self.unit
        at = np.asarray((v.place.offset + v.offset) // self.unit, np.int64)
        for d, s in zip(v.type.shape, v.strides, strict=True):
            at = at[..., None] + np.arange(d, dtype=np.int64) * (s * each)
        return np.asarray(at[..., None] + np.arange(each, dtype=np.int64))

    def _window(self, v: View) -> Tokens:
        """The memory of a view, of shape (*shape, granules per element); writing to it writes
        through.
        """
        each = v.type.dtype.bytes // self.unit
        memory = self.memory[v.place.kind, v.place.index]
        low, high = (b // self.unit for b in v.span)
        start = (v.place.offset + v.offset) // self.unit
        part = memory[v.place.offset // self.unit + low : v.place.offset // self.unit + high]
        first = start - v.place.offset // self.unit - low
        return np.lib.stride_tricks.as_strided(
            part[first:],
            (*v.type.shape, each),
            (*(s * each * memory.itemsize for s in v.strides), memory.itemsize),
        )

    def _write(self, v: View, tokens: Tokens) -> None:
        if v.type.size:
            window = self._window(v)
            window[...] = tokens[..., None] * 8 + np.arange(window.shape[-1]) % 8

    def _read(self, v: View) -> Tokens:
        if v.type.size == 0:
            return np.zeros(v.type.shape, np.int64)
        return np.asarray(self._window(v)[..., 0] // 8)

    def _holds(self, v: View, tokens: Tokens) -> bool:
        if v.type.size == 0:
            return True
        window = self._window(v)
        return bool(np.array_equal(window, tokens[..., None] * 8 + np.arange(window.shape[-1]) % 8))


def _behind(s: Step) -> bool:
    """Whether input 0 begins as far behind output 0 as its kernel asks for."""
    x, y, lead = s.inputs[0], s.outputs[0], s.lowered.lead
    if x is None or lead is None or not (_is_dense(x) and _is_dense(y)):
        return False
    return x.place.offset + x.offset - y.place.offset - y.offset >= lead


def _is_dense(v: View) -> bool:
    return is_contiguous(v.type.shape, v.strides)


def _between(v: View, low: int, high: int) -> bool:
    a, b = (v.place.offset + end for end in v.span)
    return a < high and low < b


def _meet(x: View, y: View) -> bool:
    """Whether the byte ranges of two views overlap."""
    if (x.place.kind, x.place.index) != (y.place.kind, y.place.index):
        return False
    a, b = ((v.place.offset + v.span[0], v.place.offset + v.span[1]) for v in (x, y))
    return a[0] < b[1] and b[0] < a[1]


def _moved(op: Op, x: list[Tokens | None]) -> tuple[Array, ...]:
    """What a node without a step does to tokens; only movement makes sense here."""
    if isinstance(op, BitCast):
        assert x[0] is not None
        return (x[0],)
    assert isinstance(op, (Reshape, Slice, Transpose, Expand, Concat)), op
    evaluate: Callable[..., tuple[Array, ...]] = op.eval
    return evaluate(*x)
