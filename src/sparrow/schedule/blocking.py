"""Which layers are computed in strips of rows so that what passes between them stays in L2.

A layer whose result does not fit there sends it to the level behind, from where the next one reads
it again. Where that takes longer than the arithmetic meanwhile, a run of such layers is faster in
strips (`passes.patches`), which cost steps, and copies of the rows they share. What is looked for
is a choice of stages, which do not overlap, that gains most: a longest path along the nodes.

Strips must not change a bit, so that the choice may depend on the number of threads: every strip
has the kernel of the whole layer, with as many partial sums, and none whose tiles round a pixel by
where the rows begin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from sparrow.graph import Graph, Module, retyped
from sparrow.kernels.case import Invoke
from sparrow.ops.conv import Conv
from sparrow.passes.patches import ROWS, Stage, in_strips, rows_of
from sparrow.plan import Plan
from sparrow.rewrite import Remark
from sparrow.schedule.patching import Search

# Of L2, what two layers may fill whose result is still there when it is read, and what a strip may
# fill: its rows, and the weights that read them.
SHARE = 0.75
STRIP = 0.4
# Bytes behind L2 that one written byte takes: its line is read first, and written back later.
WRITTEN = 2
# Cycles that a step takes beyond its arithmetic: a call, cold code, the ends of its rows.
STEP_CYCLES = 1500
# Bytes that are copied in a cycle within L2.
COPY_RATE = 16
# What a stage must gain of the time of its layers.
LEAST = 0.05
# Kernels whose tiles of several rows begin with the first: a strip begins others.
TILED = ("winograd_f32", "winograd_raw_f32", "winograd_stream_f32")


class _Gains:
    """What stages of an entry point gain, in cycles; threads share rows, and so halve all of it."""

    def __init__(self, p: Plan, entry: int) -> None:
        self.g: Graph = p.module.entries[entry]
        self.target, self.threads = p.target, p.threads
        steps = {s.node.outputs[0]: s for s in p.entries[entry].steps}
        found = (steps.get(n.outputs[0]) for n in self.g.nodes)
        self.cycles = [0.0 if s is None else s.lowered.cycles / p.threads for s in found]
        self.l2_bytes = p.threads * p.target.l2_bytes
        self.room = SHARE * self.l2_bytes
        self.far = self._far()
        if any(self.far.values()):
            self.search = Search(p, entry)

    def _far(self) -> Mapping[str, float]:
        """Of each value, the share that has left L2 when it is read."""
        g = self.g
        found: dict[str, float] = {}
        for n in g.nodes:
            size = sum(g.types[x].bytes for x in {*n.inputs, *n.outputs} if x and x not in g.consts)
            for y in n.outputs:
                found[y] = min(1.0, max(0.0, size / self.room - 1.0))
        return found

    def _time(self, k: int, near: frozenset[str]) -> float:
        """Cycles of node ``k`` with some of its values in L2."""
        n, g = self.g.nodes[k], self.g
        moved = sum(
            times * self.far.get(v, 1.0) * g.types[v].bytes
            for values, times in ((n.inputs, 1), (n.outputs, WRITTEN))
            for v in dict.fromkeys(values)
            if v and v not in near and v not in g.consts
        )
        return max(self.cycles[k], moved / (self.threads * self.target.cache_rate))

    def stages(self) -> tuple[Stage, ...]:
        """The stages that are predicted to gain most together."""
        if not any(self.far.values()):
            return ()
        ends: dict[int, list[tuple[float, Stage]]] = {}
        for a, b in self.search.spans:
            inside = frozenset(y for n in self.g.nodes[a:b] for y in n.outputs)
            saved = sum(self._time(k, frozenset()) - self._time(k, inside) for k in range(a, b + 1))
            if saved > LEAST * sum(self.cycles[a : b + 1]) and (s := self._fitting(a, b)):
                gain = saved - self._price(s)
                if gain > LEAST * sum(self.cycles[a : b + 1]):
                    ends.setdefault(b, []).append((gain, s))
        best: list[tuple[float, tuple[Stage, ...]]] = [(0.0, ())]
        for k in range(len(self.g.nodes)):
            found = [best[k]]
            for gain, s in ends.get(k, ()):
                before = best[s.first]
                found.append((before[0] + gain, (*before[1], s)))
            best.append(max(found, key=lambda f: f[0]))
        return best[-1][1]

    def _fitting(self, a: int, b: int) -> Stage | None:
        """Nodes ``a`` to ``b`` in the highest strips that fit."""
        g = self.g
        inside = {y for n in g.nodes[a : b + 1] for y in n.outputs}
        read = {x for n in g.nodes[a : b + 1] for x in n.inputs if x and x not in inside}
        weights = sum(g.types[x].bytes for x in read if x in g.consts)
        ends = {*(x for x in read if x not in g.consts), g.nodes[b].outputs[0]}
        whole = sum(g.types[x].bytes for x in ends)
        for s in self.search.options(a, b):
            height = g.types[g.nodes[b].outputs[0]].shape[ROWS]
            if weights + whole * s.rows / height + self.search.held(s) <= STRIP * self.l2_bytes:
                return s
        return None

    def _price(self, s: Stage) -> float:
        """Cycles that strips cost beyond the layers themselves."""
        g, rows = self.g, rows_of(self.g, s)
        assert rows is not None
        copied, steps = 0, 0
        for k in range(s.first, s.last + 1):
            y = g.nodes[k].outputs[0]
            each = g.types[y].bytes // g.types[y].shape[ROWS]
            strips = len(rows.made[y]) - 1
            steps += strips - 1
            for t in range(strips if k < s.last else 0):
                kept = rows.made[y][t] - rows.low[y][t]
                if kept > 0:
                    copied += kept * each
                    steps += 1
        if self.threads == 1:
            return steps * STEP_CYCLES + copied / COPY_RATE
        # rows that two strips share are also where two threads meet, another pair in every strip
        moved = 2 * copied * self.target.move_cycles
        return steps * (STEP_CYCLES + self.target.fork_cycles) + copied / COPY_RATE + moved


def alone(g: Graph, first: int, last: int) -> Graph:
    """Nodes ``first`` to ``last`` as a graph."""
    nodes = g.nodes[first : last + 1]
    inside = {y for n in nodes for y in n.outputs}
    read = {x for n in nodes for x in n.inputs if x}
    inputs = tuple(sorted(x for x in read if x not in inside and x not in g.consts))
    return retyped(g, nodes, inputs=inputs, outputs=nodes[-1].outputs, states=(), lengths=())


def _rounding(p: Plan) -> dict[str, set[tuple[str, int]]]:
    """By the weights of a convolution, its kernels and in how many partial sums they add."""
    found: dict[str, set[tuple[str, int]]] = {}
    for s in p.entries[0].steps:
        if isinstance(s.node.op, Conv):
            for c in s.lowered.calls:
                sums = c.params.get("ku", 1) if isinstance(c, Invoke) else 1
                assert isinstance(sums, int)
                found.setdefault(s.node.inputs[1], set()).add((s.kernel, sums))
    return found


def same_rounding(whole: Graph, cut: Graph, planned: Callable[[Module], Plan]) -> bool:
    """Whether layers computed by parts of their rows give the same answers to the bit."""
    before, after = (_rounding(planned(Module("stage", (x,)))) for x in (whole, cut))
    return before == after and not any(k in TILED for found in before.values() for k, _ in found)


def _same(g: Graph, s: Stage, planned: Callable[[Module], Plan]) -> bool:
    whole = alone(g, s.first, s.last)
    strips = in_strips(whole, (Stage(0, s.last - s.first, s.rows),))
    return same_rounding(whole, strips, planned)


def blocked(p: Plan, planned: Callable[[Module], Plan], remarks: list[Remark]) -> Module:
    """The module with the layers in strips that are predicted to gain by it.

    Firmware, pages and what has no L2 stay as they are: there is no such level, or nothing was
    measured.

    Args:
        p: The plan of the module as it is.
        planned: Plans a module.
        remarks: Told which layers were chosen.
    """
    t = p.target
    if t.machine.bare or t.machine.system == "wasm32" or not t.l2_bytes:
        return p.module
    entries = []
    for i, g in enumerate(p.module.entries):
        stages = [s for s in _Gains(p, i).stages() if _same(g, s, planned)]
        for s in stages:
            last = g.nodes[s.last]
            strips = -(-g.types[last.outputs[0]].shape[ROWS] // s.rows)
            why = f"{s.last - s.first + 1} layers to {last.origin} in {strips} strips, within L2"
            remarks.append(Remark("blocks", g.nodes[s.first].origin, why, True))
        entries.append(in_strips(g, stages) if stages else g)
    if all(a is b for a, b in zip(entries, p.module.entries, strict=True)):
        return p.module
    return replace(p.module, entries=tuple(entries))
