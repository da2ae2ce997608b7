"""Where values lie relative to their buffers: data movement as addressing instead of copies.

Every value starts dense in a buffer of its own. Then

- a reshape, slice, transpose, expansion or bit cast becomes a *view* of its operand,
- operands of a concatenation are *moved* into its result, and are written where it would copy them;
  a buffer that has its form already *becomes* the result, of which other operands replace parts,
- the operand of a transpose is moved into its result, and is written transposed,

each when the strides can say it and the kernels around cost less with the new strides than with the
copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from sparrow.graph import Graph, Node
from sparrow.kernels.case import Case, Kernel, Tensor, is_contiguous
from sparrow.memory.strides import Strides, repitch, reshape_strides
from sparrow.ops.bitcast import BitCast
from sparrow.ops.concat import Concat
from sparrow.ops.pad import Expand
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.selection import Choice, choose
from sparrow.targets import Target
from sparrow.tensor import row_major
from sparrow.tuning import Tuning

Kind = Literal["arena", "input", "output", "weights", "state"]
MOVERS = (Reshape, Slice, Transpose, Expand, BitCast)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a buffer lives: ``offset`` in arena, weights or states, or the caller's ``index``."""

    kind: Kind
    index: int
    offset: int


@dataclass(slots=True, eq=False)
class Buffer:
    """Memory of one or more values; ``first`` and ``last`` are the nodes it is alive between."""

    bytes: int
    place: Place | None = None
    values: list[str] = field(default_factory=list)
    first: int = 1 << 30
    last: int = -1


@dataclass(frozen=True, slots=True)
class Alias:
    """A value in a buffer: byte offset, strides in elements."""

    buffer: Buffer
    offset: int
    strides: Strides


Moved: TypeAlias = Alias | None


@dataclass(frozen=True, slots=True)
class Choosing:
    """What selection needs beside a node."""

    target: Target
    threads: int
    kernels: Sequence[Kernel]
    tuning: Tuning | None


class Views:
    """Aliases of all values of a graph.

    Attributes:
        alias: Where each value lies.
        still: Indices of nodes that nothing has to be done for.
    """

    def __init__(
        self, g: Graph, choosing: Choosing, fixed: dict[str, Place], pinned: frozenset[str]
    ) -> None:
        """Give every value an alias; ``pinned`` values need memory of their own."""
        self.g, self.choosing, self.pinned = g, choosing, pinned
        self.alias: dict[str, Alias] = {}
        self.still: set[int] = set()
        self._placed: set[tuple[str, int]] = set()
        self._producers, self._users = g.producers(), g.users()
        self._at = {n.outputs[0]: i for i, n in enumerate(g.nodes)}
        for name, t in g.types.items():
            self.alias[name] = Alias(
                Buffer(t.bytes, fixed.get(name), [name]), 0, row_major(t.shape)
            )
        for i, n in enumerate(g.nodes):
            if all(g.types[y].size == 0 for y in n.outputs):
                self.still.add(i)
        for i, n in enumerate(g.nodes):
            if isinstance(n.op, MOVERS) and i not in self.still:
                self._pull(i, n)
        for i, n in enumerate(g.nodes):
            if isinstance(n.op, Concat) and i not in self.still:
                self._gather(i, n)
        for i, n in enumerate(g.nodes):
            if isinstance(n.op, Transpose) and i not in self.still:
                self._push(i, n)

    def case(self, n: Node, threads: int | None = None) -> Case:
        """A node as kernels see it, for as many threads as are meant to run it."""
        x = tuple(
            replace(self._tensor(v), placed=(n.outputs[0], k) in self._placed) if v else None
            for k, v in enumerate(n.inputs)
        )
        y = tuple(self._tensor(v) for v in n.outputs)
        return Case(n.op, x, y, self.choosing.target, threads or self.choosing.threads)

    def choose(self, n: Node, threads: int | None = None) -> Choice | str:
        """The kernel of a node, or why there is none."""
        return choose(self.case(n, threads), self.choosing.kernels, self.choosing.tuning)

    def _tensor(self, name: str) -> Tensor:
        return Tensor(self.g.types[name], self.alias[name].strides, self.g.consts.get(name))

    def _price(self, n: Node) -> float:
        # times are of one addressing, and say nothing of another
        c = choose(self.case(n), self.choosing.kernels)
        return math.inf if isinstance(c, str) else c.lowered.cycles

    def dense(self, name: str) -> bool:
        """Whether the elements of a value lie side by side, in order."""
        return is_contiguous(self.g.types[name].shape, self.alias[name].strides)

    def whole(self, name: str) -> bool:
        """Whether a value is its whole buffer, in order."""
        a = self.alias[name]
        return a.offset == 0 and self.g.types[name].bytes == a.buffer.bytes and self.dense(name)

    def movable(self, b: Buffer) -> bool:
        """Whether a buffer may become part of another."""
        return b.place is None and not any(v in self.pinned or v in self.g.consts for v in b.values)

    # -- results as views of operands ------------------------------------------------------------

    def _pull(self, i: int, n: Node) -> None:
        x, y = n.inputs[0], n.outputs[0]
        a = self._seen_through(n)
        if a is None:
            return
        own = self.alias[y]
        dense = is_contiguous(self.g.types[y].shape, a.strides)
        if y in self.pinned:
            takes_over = dense and self.whole(x) and self.movable(a.buffer)
            if not takes_over or self.g.types[y].bytes != a.buffer.bytes:
                return
        users = list({id(u): u for u in self._users.get(y, ())}.values())
        before = self._price(n) + sum(self._price_at(u, y) for u in users)
        self.alias[y] = a
        if dense or sum(self._price_at(u, y) for u in users) < before:
            a.buffer.values.append(y)
            self.still.add(i)
        else:
            self.alias[y] = own

    def _seen_through(self, n: Node) -> Alias | None:
        """The result of a movement as a view of its operand, if strides can express it."""
        x, y = n.inputs[0], n.outputs[0]
        t, shape, a = self.g.types[y], self.g.types[x].shape, self.alias[x]
        start = 0
        strides: Strides | None
        if isinstance(n.op, Reshape):
            strides = reshape_strides(shape, a.strides, t.shape)
        elif isinstance(n.op, Transpose):
            strides = tuple(a.strides[p] for p in n.op.perm)
        elif isinstance(n.op, Slice):
            start = sum(b * s for b, s in zip(n.op.starts, a.strides, strict=True))
            strides = tuple(k * s for k, s in zip(n.op.steps, a.strides, strict=True))
        elif isinstance(n.op, Expand):
            lead = (0,) * (t.rank - len(shape))
            strides = (*lead, *(0 if d == 1 else s for d, s in zip(shape, a.strides, strict=True)))
        else:
            strides = a.strides
        if strides is None:
            return None
        return Alias(a.buffer, a.offset + start * t.dtype.bytes, strides)

    def _price_at(self, u: Node, y: str) -> float:
        """Price of a user of ``y``, whose own result is dense or, where it can be, a view."""
        t = self.g.types[y]
        if isinstance(u.op, Concat):
            copied = not self.whole(y)
            return 2 * t.size / self.choosing.target.isa.lanes if copied else 0.0
        if isinstance(u.op, Reshape):
            seen = reshape_strides(t.shape, self.alias[y].strides, u.op.shape)
            return 0.0 if seen is not None and u.outputs[0] not in self.pinned else self._price(u)
        if isinstance(u.op, MOVERS) and u.outputs[0] not in self.pinned:
            return 0.0
        return self._price(u)

    # -- operands inside results -----------------------------------------------------------------

    def _gather(self, i: int, n: Node) -> None:
        """Move the operands of a concatenation into its result."""
        assert isinstance(n.op, Concat)
        y = n.outputs[0]
        axis, t = n.op.axis, self.g.types[y]
        inner = math.prod(t.shape[axis + 1 :])
        adopted = self._adopt(i, n)
        at = 0
        for k, x in enumerate(n.inputs):
            out = self.alias[y]
            pitch = self.g.types[x].shape[axis] * inner
            start = out.offset + at * out.strides[axis] * t.dtype.bytes
            first, at = at, at + self.g.types[x].shape[axis]
            if self.g.types[x].size == 0 or x in adopted:
                self._placed.add((y, k))
            elif (
                n.inputs.count(x) == 1
                and self.whole(x)
                and self.dense(y)
                and self._free(adopted, n, x, first)
            ):
                one_row = all(d == 1 for d in t.shape[:axis])
                saved = 2 * self.g.types[x].size / self.choosing.target.isa.lanes
                if adopted and not one_row:
                    # rows that were read where they are written: the copy alone would skip
                    saved += 1.5 * (self.g.types[x].size // pitch)
                to = pitch if one_row else t.shape[axis] * inner

                def moved(v: str, start: int = start, rows: tuple[int, int] = (pitch, to)) -> Moved:
                    a, vt = self.alias[v], self.g.types[v]
                    size = vt.dtype.bytes
                    r = repitch(a.offset // size, vt.shape, a.strides, *rows)
                    if r is None:
                        return None
                    return Alias(self.alias[y].buffer, start + r[0] * size, r[1])

                if self._move(x, n, moved, saved):
                    self._placed.add((y, k))
        if all((y, k) in self._placed for k in range(len(n.inputs))):
            self.still.add(i)

    def _adopt(self, i: int, n: Node) -> tuple[str, ...]:
        """Values of a buffer that becomes the result of a concatenation, node ``i``; often none.

        It is one whose slices are operands that lie in it where the result has them: what is left
        of it after others have written their parts over it.
        """
        assert isinstance(n.op, Concat)
        y, at = n.outputs[0], 0
        own, t = self.alias[y].buffer, self.g.types[y]
        firsts: list[int] = []
        for x in n.inputs:
            firsts.append(at)
            at += self.g.types[x].shape[n.op.axis]
        for x in n.inputs:
            b = self.alias[x].buffer
            inside = [
                (self._interval(v, y, n.op.axis), first)
                for v, first in zip(n.inputs, firsts, strict=True)
                if self.alias[v].buffer is b
            ]
            if (
                b is own
                or b.bytes != t.bytes
                or not (self.movable(b) and self.whole(y))
                or self.whole(x)
                or any(span is None or span[0] != first for span, first in inside)
                or any(self._at[u.outputs[0]] > i for v in b.values for u in self._readers(v))
            ):
                continue
            for v in b.values:
                self.alias[v] = replace(self.alias[v], buffer=own)
            own.values += b.values
            return tuple(b.values)
        return ()

    def _free(self, adopted: Sequence[str], n: Node, x: str, first: int) -> bool:
        """Whether nobody needs what `adopted` values have in the part of ``x`` when it is written.

        That is where they are written before it, and only the node that writes it reads them,
        element for element.
        """
        assert isinstance(n.op, Concat)
        before, behind = (self._written(vs) for vs in (adopted, self.alias[x].buffer.values))
        if adopted and (not behind or max(before, default=0) > min(behind)):
            return False
        y, axis = n.outputs[0], n.op.axis
        end = first + self.g.types[x].shape[axis]
        for v in adopted:
            span = self._interval(v, y, axis)
            for u in self._readers(v):
                if u is n or (span is not None and (span[1] <= first or end <= span[0])):
                    continue
                alone = u.outputs == (x,) and self.alias[x].buffer.values == [x]
                choice = self.choose(u)
                if span != (first, end) or not alone or isinstance(choice, str):
                    return False
                same = self.g.types[v].shape == self.g.types[x].shape
                if not same or not set(_indices(u, v)) <= set(choice.kernel.inplace):
                    return False
        return True

    def _interval(self, v: str, y: str, axis: int) -> tuple[int, int] | None:
        """Along ``axis``, where the slice ``v`` of a buffer of the form of ``y`` lies in it.

        None where it is no such slice, or not of this axis alone.
        """
        t, a, shape = self.g.types[v], self.alias[v], self.g.types[y].shape
        strides = row_major(shape)
        if t.dtype.bytes != self.g.types[y].dtype.bytes or t.rank != len(shape):
            return None
        others = all(
            d == e for k, (d, e) in enumerate(zip(t.shape, shape, strict=True)) if k != axis
        )
        alike = all(d == 1 or p == q for d, p, q in zip(t.shape, a.strides, strides, strict=True))
        first, rest = divmod(a.offset, strides[axis] * t.dtype.bytes)
        if not (others and alike) or rest or first + t.shape[axis] > shape[axis]:
            return None
        return first, first + t.shape[axis]

    def _written(self, values: Sequence[str]) -> list[int]:
        """Indices of the nodes that write values."""
        writers = (self._producers.get(v) for v in values)
        return [i for w in writers if w and (i := self._at[w.outputs[0]]) not in self.still]

    def _readers(self, v: str) -> Iterable[Node]:
        """Nodes that read a value and do something."""
        return [u for u in self._users.get(v, ()) if self._at[u.outputs[0]] not in self.still]

    def _push(self, i: int, n: Node) -> None:
        """Let the operand of a transpose be written transposed."""
        assert isinstance(n.op, Transpose)
        x, y = n.inputs[0], n.outputs[0]
        out = self.alias[y]
        strides = [0] * len(n.op.perm)
        for s, p in zip(out.strides, n.op.perm, strict=True):
            strides[p] = s
        shape = self.g.types[x].shape

        def moved(v: str) -> Moved:
            if not self.whole(v):
                return None
            s = reshape_strides(shape, tuple(strides), self.g.types[v].shape)
            return None if s is None else Alias(out.buffer, out.offset, s)

        if self.whole(x) and self._move(x, n, moved, self._price(n)):
            self.still.add(i)

    def _move(self, x: str, n: Node, moved: Callable[[str], Moved], saved: float) -> bool:
        """Move the buffer of ``x`` into the result of ``n`` if that costs at most ``saved``."""
        source, into = self.alias[x].buffer, self.alias[n.outputs[0]].buffer
        if source is into or not self.movable(source):
            return False
        found = {v: a for v in source.values if (a := moved(v)) is not None}
        if len(found) < len(source.values):
            return False
        near = {id(u): u for v in source.values for u in self._around(v) if u is not n}
        before = sum(self._price(u) for u in near.values())
        previous = {v: self.alias[v] for v in found}
        self.alias |= found
        # a node without any kernel makes `before` infinite too: it is refused later, with its
        # reason
        after = sum(self._price(u) for u in near.values())
        if after == math.inf or after > before + saved:
            self.alias |= previous
            return False
        into.values += source.values
        return True

    def _around(self, v: str) -> Iterable[Node]:
        """Nodes that read or write a value and do something."""
        writer = self._producers.get(v)
        written = writer is not None and self._at[writer.outputs[0]] not in self.still
        return [*self._readers(v), *((writer,) if writer is not None and written else ())]


def _indices(n: Node, v: str) -> list[int]:
    """Which operands of a node a value is."""
    return [k for k, x in enumerate(n.inputs) if x == v]
