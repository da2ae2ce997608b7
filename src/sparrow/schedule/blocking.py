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

from collections.abc import Mapping

from sparrow.graph import Graph
from sparrow.passes.patches import ROWS, Stage, in_strips, rows_of
from sparrow.plan import Plan
from sparrow.schedule.patching import Search, strips_of
from sparrow.schedule.row import Planned, Schedule
from sparrow.schedule.trial import alone, same_rounding

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


def _runs(p: Plan, entry: int, planned: Planned) -> list[Stage]:
    g = p.module.entries[entry]
    return [s for s in _Gains(p, entry).stages() if _same(g, s, planned)]


def _same(g: Graph, s: Stage, planned: Planned) -> bool:
    whole = alone(g, s.first, s.last)
    strips = in_strips(whole, (Stage(0, s.last - s.first, s.rows),))
    return same_rounding(whole, strips, planned)


def _has_l2(p: Plan) -> bool:
    """Not of firmware, of pages, nor where nothing was measured."""
    machine = p.target.machine
    return not machine.bare and machine.system != "wasm32" and p.target.l2_bytes > 0


def _remark(g: Graph, s: Stage) -> str:
    return f"{strips_of(g, s)}, within L2"


BLOCKING = Schedule("blocks", _has_l2, _runs, in_strips, _remark)
