"""Which layers are computed in strips of rows so that a plan keeps within a budget of RAM.

Strips cost steps, and copies of the rows they share; sums are computed once whatever is chosen. So
what is looked for is the fewest steps more: stages (`passes.patches`) that do not overlap, such
that every node is in one that needs no more than the budget, or needs no more by itself. That is a
shortest path along the nodes; what a stage needs is estimated, and the choice is planned to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sparrow.graph import Graph
from sparrow.passes.patches import ROWS, Stage, in_strips, rows_of, strippable, windows_of
from sparrow.plan import Plan
from sparrow.rewrite import Remark
from sparrow.schedule.row import Planned

# Nodes of a stage: longer ones keep more rows than they save.
LONGEST = 12
# Shares of the budget that estimates are held against, until the plan keeps it.
MARGINS = (1.0, 0.95, 0.9, 0.8)
# Steps of the search for the least budget.
HALVINGS = 8


class Search:
    """Stages of one entry point."""

    def __init__(self, p: Plan, entry: int) -> None:
        e = p.entries[entry]
        # the planner's graph has the module's nodes, and copies behind them
        self.g: Graph = p.module.entries[entry]
        step = {s.node.outputs[0]: i for i, s in enumerate(e.steps)}
        at = [step.get(n.outputs[0], -1) for n in self.g.nodes]
        self.live = [0 if i < 0 else e.live[i] for i in at]
        self.scratch = [0 if i < 0 else e.steps[i].lowered.scratch_bytes for i in at]
        copies = set(range(len(e.steps))) - set(at)
        self.rest = max((e.live[i] for i in copies), default=0)
        self.last_use = {x: k for k, n in enumerate(self.g.nodes) for x in n.inputs if x}
        self.last_use |= dict.fromkeys(self.g.live_out(), len(self.g.nodes))
        self.made_at = {y: k for k, n in enumerate(self.g.nodes) for y in n.outputs}
        self._needs: dict[Stage, int] = {}
        self.spans = list(self._spans())

    def _spans(self) -> Iterator[tuple[int, int]]:
        """First and last node of every run that may be a stage."""
        by_rows = [windows_of(self.g, n) is not None for n in self.g.nodes]
        for a in range(len(by_rows)):
            for b in range(a, min(a + LONGEST, len(by_rows))):
                if not by_rows[b]:
                    break
                if b > a and strippable(self.g, a, b):
                    yield a, b

    def needs(self, stage: Stage) -> int:
        """Bytes alive at the fullest moment of a stage, about."""
        if stage not in self._needs:
            self._needs[stage] = self._estimate(stage)
        return self._needs[stage]

    def _estimate(self, stage: Stage) -> int:
        g = self.g
        waiting = sum(
            g.types[v].bytes
            for v, k in self.made_at.items()
            if k < stage.first and self.last_use.get(v, -1) >= stage.first
        )
        return waiting + g.types[g.nodes[stage.last].outputs[0]].bytes + self.held(stage)

    def held(self, stage: Stage) -> int:
        """Bytes of rows between the layers of a stage, and of scratch, at its fullest moment."""
        g, a, b = self.g, stage.first, stage.last
        rows = rows_of(g, stage)
        assert rows is not None
        y = g.nodes[b].outputs[0]
        spans = [
            (v, k, max(i for i in range(a, b + 1) if v in g.nodes[i].inputs))
            for v, k in self.made_at.items()
            if a <= k < b
        ]
        strips = len(rows.made[y]) - 1
        most = 0
        for t in sorted({0, 1, 2, strips // 2, strips - 2, strips - 1} & set(range(strips))):
            for k in range(a, b + 1):
                held = self.scratch[k]
                for v, made, used in spans:
                    # of the strip before, until this one has moved what it keeps
                    now = t if k >= made else t - 1
                    if now < 0:
                        continue
                    done, end = rows.made[v][now : now + 2]
                    kept = now + 1 < strips and rows.low[v][now + 1] < end
                    if made <= k <= used or kept:
                        held += (end - min(done, rows.low[v][now])) * self._row(v)
                most = max(most, held)
        return most

    def _row(self, v: str) -> int:
        t = self.g.types[v]
        return t.bytes // t.shape[ROWS]

    def options(self, a: int, b: int) -> Iterator[Stage]:
        """A stage in more and more strips, even ones where there are some of about that height."""
        height = self.g.types[self.g.nodes[b].outputs[0]].shape[ROWS]
        rows = height
        while rows > 1:
            rows = rows // 2 if rows < 8 else rows * 2 // 3
            even = max(d for d in range(1, rows + 1) if height % d == 0)
            yield Stage(a, b, even if 3 * even >= 2 * rows else rows)

    def stages(self, budget: float) -> tuple[Stage, ...] | None:
        """The stages that add the fewest steps within a budget; None when there are none."""
        if self.rest > budget:
            return None
        n = len(self.g.nodes)
        best: list[tuple[int, tuple[Stage, ...]] | None] = [None] * (n + 1)
        best[0] = (0, ())
        ends: dict[int, list[Stage]] = {}
        for a, b in self.spans:
            if max(self.live[a : b + 1]) <= budget:
                continue
            fitting = (s for s in self.options(a, b) if self.needs(s) <= budget)
            if (s := next(fitting, None)) is not None:
                ends.setdefault(b, []).append(s)
        for k in range(n):
            found = []
            if self.live[k] <= budget and (before := best[k]) is not None:
                found.append(before)
            for s in ends.get(k, ()):
                if (before := best[s.first]) is not None:
                    height = self.g.types[self.g.nodes[k].outputs[0]].shape[ROWS]
                    steps = (k - s.first + 1) * (-(-height // s.rows) - 1)
                    found.append((before[0] + steps, (*before[1], s)))
            best[k + 1] = min(found, key=lambda f: f[0], default=None)
        last = best[n]
        return None if last is None else last[1]

    def least(self) -> float:
        """About the least budget for which there are stages."""
        low, high = 0.0, float(max(self.live, default=0))
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.stages(middle) is not None else (middle, high)
        return high


def within(p: Plan, ram: int, planned: Planned, remarks: list[Remark]) -> Plan:
    """A plan whose arena and state take at most ``ram`` bytes, or else as few as were found.

    Args:
        p: The plan of the module as it is.
        ram: Budget in bytes.
        planned: Plans a module.
        remarks: Told which layers were chosen.
    """
    budget = ram - p.state_bytes
    for i, e in enumerate(p.entries):
        if e.arena_bytes > budget:
            p = _entry_within(p, i, budget, planned, remarks)
    return p


def _entry_within(
    p: Plan, entry: int, budget: int, planned: Planned, remarks: list[Remark]
) -> Plan:
    search = Search(p, entry)
    g = search.g
    aims = [budget * m for m in MARGINS]
    if search.stages(budget) is None:
        aims = [search.least()]
    best = p
    chosen: tuple[Stage, ...] = ()
    for aim in aims:
        stages = search.stages(aim)
        if not stages:
            continue
        entries = list(p.module.entries)
        entries[entry] = in_strips(g, stages)
        found = planned(replace(p.module, entries=tuple(entries)))
        if found.entries[entry].arena_bytes < best.entries[entry].arena_bytes:
            best, chosen = found, stages
        if best.entries[entry].arena_bytes <= budget:
            break
    for s in chosen:
        remarks.append(Remark("patches", g.nodes[s.first].origin, strips_of(g, s), True))
    return best


def strips_of(g: Graph, s: Stage) -> str:
    """In words, how a stage is divided."""
    last = g.nodes[s.last]
    strips = -(-g.types[last.outputs[0]].shape[ROWS] // s.rows)
    return f"{s.last - s.first + 1} layers to {last.origin} in {strips} strips"
