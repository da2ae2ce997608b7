"""Compute a run of layers in strips of rows, so that only parts of its values exist at a time.

before   y = c(b(a(x)))                                     a, b, c: windows over rows, elementwise
after    for every strip t of the rows of y:
           k[t] = copy(last rows of w[t - 1])       what later strips read once more
           v[t] = a(rows of x)                      the rows that strip t is the first to need
           w[t] = concat(k[t], v[t])                what b reads
           .. y[t] = c(..)
         y = concat(y[0], y[1], ..)

This is patch-based inference (MCUNetV2, Lin et al. 2021, arXiv:2110.15352) with strips for patches,
and with the rows that two strips share kept, not computed again (line buffers: Alwani et al. 2016,
"Fused-layer CNN accelerators"). Every row of every value is computed once, by the same op over the
same elements: the result is the same to the bit. Slices and concatenations become addressing when
memory is planned, where rows that are kept move down in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sparrow import lane
from sparrow.graph import Graph, Node, retyped
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.lookup import Lookup
from sparrow.ops.pool import Pool
from sparrow.ops.slice import Slice
from sparrow.rewrite import namer

# Axis of rows in [N, H, W, C].
ROWS = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """Nodes ``first`` to ``last`` of a graph, computed in strips of ``rows`` rows of the result."""

    first: int
    last: int
    rows: int


@dataclass(frozen=True, slots=True)
class Window:
    """Row r of a result reads ``reach`` rows of a value, from r * stride - pad on."""

    reach: int = 1
    stride: int = 1
    pad: int = 0


def windows_of(g: Graph, n: Node) -> Mapping[int, Window] | None:
    """What a node reads by rows, by input; None when it is not computed row by row.

    Inputs that are not named are read whole for each row.
    """
    if len(n.outputs) != 1:
        return None
    y = g.types[n.outputs[0]]
    if y.rank != 4 or y.shape[0] != 1:
        return None
    found: dict[int, Window] = {}
    if isinstance(n.op, Conv | Pool):
        op = n.op
        if not op.channels_last or (isinstance(op, Pool) and (op.ceil or op.indices)):
            return None
        kernel = op.kernel if isinstance(op, Pool) else g.types[n.inputs[1]].shape[2:]
        if len(kernel) != 2 or n.inputs[0] in g.consts:
            return None
        reach = (kernel[0] - 1) * op.dilations[0] + 1
        if max(op.pads[0]) >= reach:
            return None  # a window that reads no row
        found[0] = Window(reach, op.strides[0], op.pads[0][0])
    elif isinstance(n.op, Lookup):
        return {0: Window()}
    elif not isinstance(n.op, Lane):
        return None
    for i, x in enumerate(n.inputs):
        t = g.types[x] if x else None
        if i in found or t is None or (isinstance(n.op, Conv) and i < 3):
            continue
        if t.rank >= 3 and t.shape[-3] > 1:
            if t.rank != 4 or x in g.consts:
                return None
            found[i] = Window()
    return found or None


@dataclass(frozen=True, slots=True)
class Rows:
    """How far a stage has come after each strip.

    Attributes:
        made: Rows of each value that exist after strips 0, 1, ..; in front of them, 0.
        low: The first row of each value that strips 0, 1, .. read, of those made in the stage.
    """

    made: Mapping[str, Sequence[int]]
    low: Mapping[str, Sequence[int]]


def rows_of(g: Graph, stage: Stage) -> Rows | None:
    """The rows of a stage; None when a node is not computed row by row, or reads a result whole."""
    nodes = g.nodes[stage.first : stage.last + 1]
    inside = {y for n in nodes for y in n.outputs}
    y = nodes[-1].outputs[0]
    if windows_of(g, nodes[-1]) is None:
        return None
    height = g.types[y].shape[ROWS]
    # all strips but the first and the last are alike, and share their code
    made = {y: [*range(0, height, stage.rows), height]}
    low: dict[str, list[int]] = {}
    for n in reversed(nodes):
        windows = windows_of(g, n)
        done = made.get(n.outputs[0])
        if windows is None or done is None:
            return None
        if any(x in inside and i not in windows for i, x in enumerate(n.inputs)):
            return None
        for i, w in windows.items():
            x = n.inputs[i]
            end = g.types[x].shape[ROWS]
            need = [min(end, (r - 1) * w.stride - w.pad + w.reach) if r else 0 for r in done]
            first = [min(end, max(0, r * w.stride - w.pad)) for r in done[:-1]]
            made[x] = list(map(max, made.get(x, need), need))
            low[x] = list(map(min, low.get(x, first), first))
    return Rows({v: r for v, r in made.items() if v in inside}, low)


def strippable(g: Graph, first: int, last: int) -> bool:
    """Whether nodes ``first`` to ``last`` are row by row and hand on the last result only."""
    nodes = g.nodes[first : last + 1]
    inside = {y for n in nodes[:-1] for y in n.outputs}
    if rows_of(g, Stage(first, last, 1 << 30)) is None or inside & g.live_out():
        return False
    rest = (*g.nodes[:first], *g.nodes[last + 1 :])
    read = {x for n in nodes for x in n.inputs}
    return inside <= read and not any(x in inside for n in rest for x in n.inputs)


def in_strips(g: Graph, stages: Sequence[Stage]) -> Graph:
    """The graph with some stages, which do not overlap, in strips; gives the same answers."""
    fresh = namer(g)
    nodes: list[Node] = []
    at = 0
    for s in sorted(stages, key=lambda s: s.first):
        assert s.first >= at and strippable(g, s.first, s.last)
        nodes += g.nodes[at : s.first]
        nodes += _Strips(g, s, fresh).nodes()
        at = s.last + 1
    return retyped(g, [*nodes, *g.nodes[at:]])


class Part:
    """Computes rows of values from rows of others.

    Attributes:
        held: Where rows of a value are that later nodes read: a name, the first of them and the
            end; all are under the value's own name where it is not held.
        out: The nodes so far.
    """

    def __init__(self, g: Graph, fresh: Callable[[], str]) -> None:
        self.g, self.fresh = g, fresh
        self.held: dict[str, tuple[str, int, int]] = {}
        self.out: list[Node] = []

    def compute(self, n: Node, done: int, end: int) -> str:
        """Rows ``done`` to ``end``, exclusive, of the result of a node."""
        windows = windows_of(self.g, n)
        assert windows is not None
        inputs = list(n.inputs)
        op = n.op
        for i, w in windows.items():
            height = self.g.types[n.inputs[i]].shape[ROWS]
            first, last = done * w.stride - w.pad, (end - 1) * w.stride - w.pad + w.reach
            inputs[i] = self._rows(n.inputs[i], max(first, 0), min(last, height))
            if isinstance(op, Conv | Pool) and i == 0:
                outside = (max(-first, 0), max(last - height, 0))
                op = replace(op, pads=(outside, op.pads[1]))
        name = self.fresh()
        self.out.append(Node(op, tuple(inputs), (name,), f"{n.origin} rows {done}-{end - 1}"))
        return name

    def _rows(self, value: str, first: int, last: int) -> str:
        """Rows ``first`` to ``last``, exclusive, of a value, from what is held of it."""
        name, low, high = self.held.get(value, (value, 0, self.g.types[value].shape[ROWS]))
        assert low <= first < last <= high, (value, first, last, low, high)
        if (first, last) == (low, high):
            return name
        shape = self.g.types[value].shape
        sizes = (shape[0], last - first, *shape[2:])
        part = self.fresh()
        cut = Slice((0, first - low, 0, 0), sizes, (1, 1, 1, 1))
        self.out.append(Node(cut, (name,), (part,), value))
        return part


class _Strips(Part):
    def __init__(self, g: Graph, stage: Stage, fresh: Callable[[], str]) -> None:
        super().__init__(g, fresh)
        rows = rows_of(g, stage)
        assert rows is not None
        self.rows = rows
        self.source = g.nodes[stage.first : stage.last + 1]

    def nodes(self) -> list[Node]:
        y = self.source[-1].outputs[0]
        parts: list[str] = []
        for t in range(len(self.rows.made[y]) - 1):
            for n in self.source:
                done, end = self.rows.made[n.outputs[0]][t : t + 2]
                if done == end:
                    continue
                if n.outputs[0] == y:
                    parts.append(self.compute(n, done, end))
                else:
                    self._advance(n, done, end, self.rows.low[n.outputs[0]][t])
        self.out.append(Node(Concat(ROWS), tuple(parts), (y,), self.source[-1].origin))
        return self.out

    def _advance(self, n: Node, done: int, end: int, low: int) -> None:
        """Compute the next rows of a value, and hold them behind those from ``low`` on.

        These are moved first: the memory that new rows are written to is then free.
        """
        value = n.outputs[0]
        if low >= done:
            self.held[value] = (self.compute(n, done, end), done, end)
            return
        kept, both = self.fresh(), self.fresh()
        t = self.g.types[value]
        still = self._rows(value, low, done)
        self.out.append(Node(Lane(lane.Arg(0, t.dtype)), (still,), (kept,), f"{n.origin} kept"))
        new = self.compute(n, done, end)
        self.out.append(Node(Concat(ROWS), (kept, new), (both,), n.origin))
        self.held[value] = (both, low, end)
