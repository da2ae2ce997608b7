"""Which layers threads compute in parts that overlap, so that no halo changes cores.

Between layers that threads divide by rows, those of a window's halo move: a depthwise layer of 5x5
taps over 14 x 14 x 240 codes took as long on two cores as on one. Parts that overlap
(`passes.overlap`) compute these rows twice, from the rows of a thinner value. A run of layers ends
in a window of several rows; it begins where most is gained by the cost of a moved line,
if anything is: not where images are large, whose halo is little of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from sparrow.graph import Graph
from sparrow.ops.lookup import Lookup
from sparrow.passes.overlap import Overlap, overlapped, spans_of
from sparrow.passes.patches import ROWS, strippable, windows_of
from sparrow.plan import Plan
from sparrow.schedule.columns import at_once, divided, moved_cycles
from sparrow.schedule.row import Planned, Schedule
from sparrow.schedule.trial import alone, same_rounding

# Nodes of a run.
LONGEST = 6


class _Gains:
    """What overlapping parts of an entry point gain, in cycles."""

    def __init__(self, p: Plan, entry: int) -> None:
        self.g: Graph = p.module.entries[entry]
        self.threads, self.target = p.threads, p.target
        self.steps = {s.node.outputs[0]: s for s in p.entries[entry].steps}

    def runs(self) -> Iterator[Overlap]:
        """Runs that gain, in order, none of which meet."""
        at = 0
        for last, n in enumerate(self.g.nodes):
            windows = windows_of(self.g, n) or {}
            if all(w.reach <= w.stride for w in windows.values()):
                continue
            found = [
                (gain, Overlap(first, last, self.threads))
                for first in range(max(at, last + 1 - LONGEST), last)
                if strippable(self.g, first, last)
                if (gain := self._gain(Overlap(first, last, self.threads))) > 0
            ]
            if found:
                yield max(found, key=lambda f: f[0])[1]
                at = last + 1

    def _gain(self, o: Overlap) -> float:
        g = self.g
        spans, nodes = spans_of(g, o), g.nodes[o.first : o.last + 1]
        inside = {n.outputs[0]: n for n in nodes}
        if spans is None or not all(divided(self.steps.get(v)) for v in inside):
            return 0.0
        # larger parts lost: cold memory takes longer than the halo, which prefetchers see coming
        if any(
            self._bytes(v, s[v][1] - s[v][0]) > self.target.l1_bytes for s in spans for v in inside
        ):
            return 0.0
        gain = 0.0
        for n in nodes:
            for i, w in (windows_of(g, n) or {}).items():
                if n.inputs[i] in inside and w.reach > w.stride:
                    gain += self._moved(n.inputs[i], w.reach - w.stride)
        for v in spans[0]:
            twice = sum(s[v][1] - s[v][0] for s in spans) - g.types[v].shape[ROWS]
            if v not in inside:
                gain -= self._moved(v, max(0, twice) / (self.threads - 1))
            elif not isinstance(inside[v].op, Lookup):
                # rows of a table take a tenth of what is predicted where vectors hold it
                share = twice / g.types[v].shape[ROWS] / self.threads
                gain -= self.steps[v].lowered.cycles * share
        return gain

    def _bytes(self, v: str, rows: float) -> float:
        t = self.g.types[v]
        return rows * t.bytes / t.shape[ROWS]

    def _moved(self, v: str, rows: float) -> float:
        """What a core takes longer at a seam where two of them read so many rows of a value."""
        return moved_cycles(self.target, self._bytes(v, rows))


def _runs(p: Plan, entry: int, planned: Planned) -> list[Overlap]:
    g = p.module.entries[entry]
    return [o for o in _Gains(p, entry).runs() if _same(g, o, planned)]


def _same(g: Graph, o: Overlap, planned: Planned) -> bool:
    """Whether the parts give the same answers to the bit: sums of integers always do."""
    nodes = g.nodes[o.first : o.last + 1]
    if all(g.types[y].dtype.kind != "float" for n in nodes for y in n.outputs):
        return True
    whole = alone(g, o.first, o.last)
    parts = overlapped(whole, (Overlap(0, o.last - o.first, o.parts),))
    return same_rounding(whole, parts, planned)


def _remark(g: Graph, o: Overlap) -> str:
    last = g.nodes[o.last].origin
    return f"{o.last - o.first + 1} layers to {last} by each thread for its own rows"


OVERLAPPING = Schedule("overlap", at_once, _runs, overlapped, _remark)
