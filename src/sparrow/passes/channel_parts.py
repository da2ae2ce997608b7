"""Compute a run of layers in parts of channels, one for each thread.

before   y = c(b(a(x)))                    a: products over all channels; b, c: channel by channel
after    v[t] = a(x; weights of t)         for every thread t: channels of its own
         w[t] = b(v[t])
         y[t] = c(w[t])
         y = concat(y[0], y[1], ..)

Images of few rows are not divided evenly by rows (7 rows: 4 and 3), and parts of rows that overlap
compute most of them twice. Channels divide better, windows over them have no halo, and each thread
reads its own weights only. Products inside the run, as those of squeeze and excitation, read the
channels of all threads, which are joined before them: so much waits, and changes cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import numpy as np

from sparrow.graph import Graph, Node, retyped
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.lookup import Lookup
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.rewrite import namer
from sparrow.tensor import Array, TensorType

# A line of memory, which parts of a pixel do not share.
LINE_BYTES = 64
# Channels of a vector, where no two threads share a line.
VECTOR = 16


@dataclass(frozen=True, slots=True)
class Channels:
    """Nodes ``first`` to ``last`` of a graph, in ``parts`` of nearly as many channels."""

    first: int
    last: int
    parts: int


@dataclass(frozen=True, slots=True)
class Division:
    """How a run is divided.

    Attributes:
        axis: Of each value that it computes, the axis of channels.
        joined: Values that somebody reads whole.
        cuts: Of each number of channels, where parts begin, and the end.
    """

    axis: Mapping[str, int]
    joined: frozenset[str]
    cuts: Mapping[int, tuple[int, ...]]

    def share(self, channels: int) -> float:
        """Of so many channels, the share of the largest part."""
        cuts = self.cuts[channels]
        return max(b - a for a, b in pairwise(cuts)) / channels


def produces(g: Graph, n: Node) -> bool:
    """Whether a node is a convolution whose output channels may be computed one by one."""
    if not isinstance(n.op, Conv) or not n.op.channels_last or n.op.group != 1:
        return False
    known = [x in g.consts and g.types[x].quant is None for x in n.inputs[1:3] if x]
    return len(known) > 0 and all(known)


def division_of(g: Graph, c: Channels) -> Division | None:
    """How a run that begins with a convolution is divided; None where it is not."""
    nodes = g.nodes[c.first : c.last + 1]
    axis: dict[str, int] = {}
    whole: set[str] = set()
    for n in nodes:
        found = _axis(g, n, axis)
        if found is None:
            return None
        axis[n.outputs[0]] = found
        if produces(g, n):
            whole.add(n.inputs[0])
    rest = (*g.nodes[: c.first], *g.nodes[c.last + 1 :])
    read = {x for n in rest for x in n.inputs} | g.live_out() | whole | {nodes[-1].outputs[0]}
    joined = frozenset(read & axis.keys())
    units: dict[int, int] = {}
    for v, a in axis.items():
        t, unit = g.types[v], VECTOR
        if v in joined and prod(t.shape[:a]) > 1:
            unit = max(1, LINE_BYTES // t.dtype.bytes)
            if t.shape[a] % unit or a != t.rank - 1:
                return None
        units[t.shape[a]] = max(unit, units.get(t.shape[a], 0))
    cuts = {}
    for size, unit in units.items():
        at = [min(size, round(size * k / (c.parts * unit)) * unit) for k in range(c.parts)]
        cuts[size] = (*at, size)
        if any(a >= b for a, b in pairwise(cuts[size])):
            return None
    return Division(axis, joined, cuts)


def _axis(g: Graph, n: Node, axis: Mapping[str, int]) -> int | None:
    """Where channels are in the result of a node; None where it is not computed by them.

    ``axis``: where they are in the values computed before it in the run.
    """
    if len(n.outputs) != 1:
        return None
    y, x = g.types[n.outputs[0]], n.inputs[0]
    if isinstance(n.op, Conv):
        if y.rank < 3 or not _cut_alike(g, n.inputs[3:], y, y.rank - 1, axis):
            return None
        if produces(g, n):
            return y.rank - 1
        w = g.types[n.inputs[1]]
        own = n.op.channels_last and n.op.group == w.shape[0] == y.shape[-1] and w.shape[1] == 1
        constant = all(v in g.consts and g.types[v].quant is None for v in n.inputs[1:3] if v)
        return y.rank - 1 if own and constant and x in axis else None
    if isinstance(n.op, Lane):
        behind = {y.rank - g.types[v].rank + axis[v] for v in n.inputs if v in axis}
        a = next(iter(behind), 0)
        return a if len(behind) == 1 and _cut_alike(g, n.inputs, y, a, axis) else None
    if x not in axis:
        return None
    a, shape = axis[x], g.types[x].shape
    if isinstance(n.op, Lookup):
        return a if len(n.inputs) == 2 and n.inputs[1] in g.consts else None
    if isinstance(n.op, Slice):
        return a if (n.op.starts[a], n.op.sizes[a], n.op.steps[a]) == (0, shape[a], 1) else None
    if isinstance(n.op, Reshape):
        before = prod(shape[:a])
        same = (b for b, d in enumerate(y.shape) if d == shape[a] and prod(y.shape[:b]) == before)
        return next(same, None)
    return None


def _cut_alike(
    g: Graph, operands: Sequence[str], y: TensorType, a: int, axis: Mapping[str, int]
) -> bool:
    """Whether operands that broadcast to ``y`` have one channel for each of its axis ``a``."""
    for v in filter(None, operands):
        t = g.types[v]
        b = a - (y.rank - t.rank)
        if v in axis and (axis[v] != b or t.shape[b] != y.shape[a]):
            return False
        if v in g.consts and t.quant is not None:
            return False
    return y.shape[a] > 1


def in_channels(g: Graph, runs: Sequence[Channels]) -> Graph:
    """The graph with some runs of nodes, which do not meet, in parts; gives the same answers."""
    cut = _Cut(g)
    nodes: list[Node] = []
    at = 0
    for c in sorted(runs, key=lambda c: c.first):
        assert c.first >= at
        nodes += (*g.nodes[at : c.first], *cut.nodes(c))
        at = c.last + 1
    consts, types = {**g.consts, **cut.consts}, {**g.types, **cut.types}
    return retyped(g, [*nodes, *g.nodes[at:]], consts=consts, types=types)


class _Cut:
    """Writes runs in parts; ``consts`` and their ``types`` are those that they read."""

    def __init__(self, g: Graph) -> None:
        self.g, self.fresh = g, namer(g)
        self.consts: dict[str, Array] = {}
        self.types: dict[str, TensorType] = {}

    def nodes(self, c: Channels) -> Iterator[Node]:
        """The nodes of a run."""
        d = division_of(self.g, c)
        assert d is not None
        held: dict[str, list[str]] = {}
        for n in self.g.nodes[c.first : c.last + 1]:
            y = n.outputs[0]
            cuts = d.cuts[self.g.types[y].shape[d.axis[y]]]
            held[y] = [self.fresh() for _ in range(c.parts)]
            for t, name in enumerate(held[y]):
                own = {v: names[t] for v, names in held.items() if v != y}
                for made in self._part(n, d.axis, own, name, (cuts[t], cuts[t + 1])):
                    yield replace(made, column=t)
            if y in d.joined:
                yield Node(Concat(d.axis[y]), tuple(held[y]), (y,), n.origin)

    def _part(
        self,
        n: Node,
        axis: Mapping[str, int],
        own: Mapping[str, str],
        name: str,
        ends: tuple[int, int],
    ) -> Iterator[Node]:
        """The node for channels between two ``ends``, from what is its ``own``."""
        low, end = ends
        y, op, inputs = self.g.types[n.outputs[0]], n.op, list(n.inputs)
        a = axis[n.outputs[0]]
        whole = produces(self.g, n)
        for i, v in enumerate(n.inputs):
            if not v or (i == 0 and whole) or (isinstance(op, Lookup) and i == 1):
                continue
            if v in own:
                inputs[i] = own[v]
                continue
            t = self.g.types[v]
            b = 0 if isinstance(op, Conv) and i in (1, 2) else a - (y.rank - t.rank)
            if b < 0 or t.shape[b] == 1:
                continue
            starts = tuple(low if k == b else 0 for k in range(t.rank))
            sizes = _with(t.shape, b, end - low)
            inputs[i] = self.fresh()
            if v in self.g.consts:
                at = tuple(slice(s, s + z) for s, z in zip(starts, sizes, strict=True))
                self.consts[inputs[i]] = np.ascontiguousarray(self.g.consts[v][at])
                self.types[inputs[i]] = replace(t, shape=sizes)
            else:
                yield Node(Slice(starts, sizes, (1,) * t.rank), (v,), (inputs[i],), v)
        if isinstance(op, Conv) and not whole:
            op = replace(op, group=end - low)
        elif isinstance(op, Slice):
            op = replace(op, sizes=_with(op.sizes, a, end - low))
        elif isinstance(op, Reshape):
            op = replace(op, shape=_with(op.shape, a, end - low))
        yield Node(op, tuple(inputs), (name,), f"{n.origin} channels {low}-{end - 1}")


def _with(shape: tuple[int, ...], axis: int, extent: int) -> tuple[int, ...]:
    """A shape with another extent along an axis."""
    return (*shape[:axis], extent, *shape[axis + 1 :])
