"""Stages of a parallel region: where columns of tasks have to wait for one another.

All steps of a call run in one region. A *column* is what one thread computes: a share of the tasks
of every step, the whole of a step that is not split. Steps that follow one another are one *stage*
as long as no column touches bytes that another one writes there, whether it reads what that has
computed or reuses memory that it still reads: then nobody waits between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sparrow.kernels.case import In, Out, scratch_of
from sparrow.memory.partition import share
from sparrow.plan import Step, View


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes [low, high) of the arena, the states, or an input or output of the caller.

    With ``gaps``, periods and widths, of these the first ``width`` of every ``period`` from ``low``
    on, for each.
    """

    memory: tuple[str, int]
    low: int
    high: int
    written: bool
    gaps: tuple[tuple[int, int], ...] = ()

    def conflicts(self, other: Use) -> bool:
        """Whether the order of the two matters."""
        return (
            self.memory == other.memory
            and (self.written or other.written)
            and self.low < other.high
            and other.low < self.high
            and not self._between(other)
        )

    def _between(self, other: Use) -> bool:
        """Whether each lies in the gaps of the other, as columns of a matrix do."""
        theirs = dict(other.gaps)
        return any(
            width <= (other.low - self.low) % period <= period - theirs[period]
            for period, width in self.gaps
            if period in theirs
        )


def stages(steps: Sequence[Step], columns: int) -> tuple[int, ...]:
    """The first step of each stage; () where no step is split.

    Args:
        steps: Of an entry, in order.
        columns: Threads that share the work.
    """
    if columns == 1 or not any(s.column or (not s.whole and s.lowered.tasks > 1) for s in steps):
        return ()
    starts: list[int] = []
    held: list[list[Use]] = []
    for i, s in enumerate(steps):
        uses = [list(uses_of(s, tasks)) for tasks in share(s.lowered.tasks, columns, s.column)]
        if not starts or _meet(uses, held):
            starts.append(i)
            held = [[] for _ in range(columns)]
        for mine, new in zip(held, uses, strict=True):
            mine += new
    return tuple(starts)


def _meet(uses: Sequence[Sequence[Use]], held: Sequence[Sequence[Use]]) -> bool:
    return any(
        a.conflicts(b)
        for k, mine in enumerate(uses)
        for a in mine
        for j, others in enumerate(held)
        if j != k
        for b in others
    )


def uses_of(s: Step, tasks: range) -> Iterator[Use]:
    """What successive tasks of a step touch."""
    if not tasks:
        return
    spans = s.lowered.spans
    assert not spans or len(spans) == s.lowered.tasks, (s.node, len(spans), s.lowered.tasks)
    named = {(type(x.operand), x.operand.index) for x in spans[tasks[0]]} if spans else set()
    for t in tasks if spans else ():
        for x in spans[t]:
            written = isinstance(x.operand, Out)
            v = (s.outputs if written else s.inputs)[x.operand.index]
            assert v is not None
            at = v.place.offset + v.offset
            if v.place.kind != "weights" and x.low < x.high:
                yield Use((v.place.kind, v.place.index), at + x.low, at + x.high, written)
    for guard in s.guards:
        if guard.view.place.kind != "weights":
            yield use_of(guard.view, False)
    for kind, views in ((In, s.inputs), (Out, s.outputs)):
        for k, v in enumerate(views):
            if v is not None and v.place.kind != "weights" and (kind, k) not in named:
                yield use_of(v, kind is Out)
    if s.scratch is not None:
        per = max((a.per_task for a in scratch_of(s.lowered)), default=0)
        low, high = 0, s.lowered.scratch_bytes
        if spans and per:
            low, high = tasks.start * per, tasks.stop * per
        yield Use(("arena", 0), s.scratch.offset + low, s.scratch.offset + high, True)


def use_of(v: View, written: bool) -> Use:
    """What a step touches that reads or writes all of a view."""
    low, high = v.span
    start = v.place.offset
    memory = v.place.kind, v.place.index
    return Use(memory, start + low, start + high, written, tuple(_gaps(v)))


def _gaps(v: View) -> Iterator[tuple[int, int]]:
    """Periods and widths of what a view takes of its span, in bytes, where it has even gaps."""
    width = size = v.type.dtype.bytes
    axes = sorted((abs(s) * size, d) for s, d in zip(v.strides, v.type.shape, strict=True) if d > 1)
    for k, (stride, extent) in enumerate(axes):
        if stride > width and all(outer % stride == 0 for outer, _ in axes[k:]):
            yield stride, width
        width += (extent - 1) * stride
