"""Which layers threads compute in parts of channels instead of rows.

Those of codes where images have few rows, of which one thread has more than the other and a window
reads most twice: 7 x 7 pixels are 4 rows and 3, and what 5x5 taps read of them 6 and 5. Parts of
channels (`passes.channel_parts`) are nearly equal, and what one core did between them, as the
products of squeeze and excitation, all do. In return whole values change cores, where a run begins
and where it ends. Sums of integers are the same however they are divided.
"""

from __future__ import annotations

from collections.abc import Iterator

from sparrow.graph import Graph, Node
from sparrow.passes.channel_parts import Channels, Division, division_of, in_channels, produces
from sparrow.passes.patches import ROWS, windows_of
from sparrow.plan import Plan
from sparrow.schedule.columns import at_once, divided, moved_cycles
from sparrow.schedule.row import Planned, Schedule

# Nodes of a run.
LONGEST = 24
# Of a run's time, what is to be gained at least: predictions are not better.
LEAST = 0.05


class _Gains:
    """What parts of channels gain in an entry point, in cycles."""

    def __init__(self, p: Plan, entry: int) -> None:
        self.g: Graph = p.module.entries[entry]
        self.threads, self.target = p.threads, p.target
        self.steps = {s.node.outputs[0]: s for s in p.entries[entry].steps}

    def runs(self) -> Iterator[Channels]:
        """Runs that gain, in order, none of which meet."""
        at = 0
        for first, n in enumerate(self.g.nodes):
            if first < at or not self._few_rows(n):
                continue
            best, gain = None, 0.0
            for last in range(first + 1, min(first + LONGEST, len(self.g.nodes))):
                c = Channels(first, last, self.threads)
                d = division_of(self.g, c)
                if d is None or len(d.joined) == len(d.axis):
                    continue
                found = self._gain(c, d)
                if found > gain:
                    best, gain = c, found
            if best is not None:
                yield best
                at = best.last + 1

    def _few_rows(self, n: Node) -> bool:
        """Whether a node begins a run: a convolution of an image that threads share by rows."""
        if not divided(self.steps.get(n.outputs[0])) or not produces(self.g, n):
            return False
        t = self.g.types[n.outputs[0]]
        return t.rank == 4 and t.shape[0] == 1 and t.shape[ROWS] > 1

    def _gain(self, c: Channels, d: Division) -> float:
        rows = channels = 0.0
        inside = self.g.nodes[c.first : c.last + 1]
        values = [self.g.types[y] for y in d.axis]
        # floats lost (two runs of MobileNetV3-small 0.92x), and larger layers gained nothing
        # (7 x 7 x 1152 codes 0.98x to 1.00x): two of a part's values are to stay in L1
        largest = max(
            t.bytes * d.share(t.shape[d.axis[y]]) for y, t in zip(d.axis, values, strict=True)
        )
        if any(t.dtype.kind == "float" for t in values) or 2 * largest > self.target.l1_bytes:
            return 0.0
        for n in inside:
            t = self.g.types[n.outputs[0]]
            s = self.steps.get(n.outputs[0])
            if s is not None:
                if s.column is not None:
                    return 0.0
                by_rows = 1.0 if s.lowered.tasks == 1 else self._uneven(t.shape)
                rows += s.lowered.cycles * by_rows
                channels += s.lowered.cycles * d.share(t.shape[d.axis[n.outputs[0]]])
            rows += self._halo(n, d)
            if produces(self.g, n):
                channels += self._moved(n.inputs[0])
        rest = (*self.g.nodes[: c.first], *self.g.nodes[c.last + 1 :])
        outside = {x for n in rest for x in n.inputs}
        # which reads rows, or the channels of a pixel
        channels += sum(self._moved(v) / self.threads for v in d.joined & outside)
        gain = rows - channels
        return gain if gain > LEAST * rows else 0.0

    def _uneven(self, shape: tuple[int, ...]) -> float:
        """The largest share of the rows that a thread has."""
        height = shape[ROWS] if len(shape) == 4 else 1
        return -(-height // self.threads) / height if height > 1 else 1 / self.threads

    def _halo(self, n: Node, d: Division) -> float:
        """What rows take that two threads read: to move them, or to compute them twice."""
        x, w = n.inputs[0], (windows_of(self.g, n) or {}).get(0)
        if w is None or x not in d.axis or w.reach <= w.stride:
            return 0.0
        t = self.g.types[x]
        twice = min(w.reach - w.stride, t.shape[ROWS])
        moved = moved_cycles(self.target, t.bytes / t.shape[ROWS] * twice)
        made = sum(
            s.lowered.cycles
            for v in d.axis
            if self.g.types[v].shape == t.shape and (s := self.steps.get(v)) is not None
        )
        return min(moved, made * twice / t.shape[ROWS] / self.threads)

    def _moved(self, v: str) -> float:
        """What it takes a core to read what others have of a value, and them to overwrite it."""
        others = (self.threads - 1) / self.threads
        return moved_cycles(self.target, self.g.types[v].bytes * others)


def _runs(p: Plan, entry: int, _: Planned) -> list[Channels]:
    return list(_Gains(p, entry).runs())


def _remark(g: Graph, c: Channels) -> str:
    last = g.nodes[c.last].origin
    return f"{c.last - c.first + 1} layers to {last} by each thread for its own channels"


CHANNELWISE = Schedule("channels", at_once, _runs, in_channels, _remark)
