"""Offsets of buffers in memory that threads share, so that bytes keep their core.

A line that one core has written arrives late where another one writes it next. Buffers of different
sizes, each in halves by two threads, meet like this where they begin at the same place; where their
seams do, no byte changes cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sparrow.kernels.case import Lowered, Out, scratch_of
from sparrow.memory.arena import ALIGN, Item
from sparrow.tensor import Array

# Byte behind the last one that each column writes, ascending: column k writes [seams[k - 1],
# seams[k]). Of () nothing is known.
Seams = tuple[int, ...]


def output_seams(c: Lowered, columns: Sequence[range], output: int, offset: int, end: int) -> Seams:
    """Of the tasks that columns have, in the buffer of an output.

    Args:
        c: Of the step.
        columns: Tasks of each.
        output: Index of the output.
        offset: Byte of the buffer where it begins.
        end: Byte behind its last one.
    """

    def last(tasks: range) -> int:
        spans = (x for t in tasks for x in c.spans[t] if x.operand == Out(output))
        return max((offset + x.high for x in spans), default=0)

    return _seams(c, columns, end, last if c.spans else None)


def scratch_seams(c: Lowered, columns: Sequence[range]) -> Seams:
    """The same in the scratch memory of a step."""
    per = max(a.per_task for a in scratch_of(c))
    known = c.spans and per
    return _seams(c, columns, c.scratch_bytes, (lambda tasks: tasks.stop * per) if known else None)


def _seams(
    c: Lowered, columns: Sequence[range], end: int, last: Callable[[range], int] | None
) -> Seams:
    """``last`` says where a column of some tasks ends, if that is known."""
    some = [len(tasks) not in (0, c.tasks) for tasks in columns]
    if last is None:
        return () if any(some) else tuple(end if tasks else 0 for tasks in columns)
    return tuple(
        last(tasks) if part else end if tasks else 0
        for tasks, part in zip(columns, some, strict=True)
    )


def settle(items: Sequence[Item], seams: Sequence[Seams], growth: int = 1) -> tuple[list[int], int]:
    """Byte offset of every item, multiples of ALIGN, and the bytes needed in all.

    The largest come first. Each is placed at a seam or an end of those before, where the fewest
    bytes have another core than in them and memory grows least. No item runs over another.

    Args:
        items: Buffers.
        seams: Of each item, all of one length or empty.
        growth: Bytes of another core that a byte of memory counts for.
    """
    columns = max(map(len, seams), default=0)
    order = sorted((i for i, x in enumerate(items) if x.bytes), key=lambda i: (-items[i].bytes, i))
    size = np.array([items[i].bytes for i in order], np.int64)
    first = np.array([items[i].first for i in order], np.int64)
    last = np.array([items[i].last for i in order], np.int64)
    known = np.array([bool(seams[i]) for i in order], bool)
    ends = np.array([[0, *(seams[i] or (0,) * columns)] for i in order], np.int64)
    at = np.zeros(len(order), np.int64)
    for k in range(1, len(order)):
        before, behind, own = at[:k], at[:k] + size[:k], ends[k]
        at_seams = (before[:, None] + ends[:k, 1:-1] - own[1:-1]).ravel()
        found = np.concatenate([before, behind + ALIGN - 1, before - size[k], at_seams])
        found = np.unique(found // ALIGN * ALIGN)
        shared = _common(found, found + size[k], before, behind)
        meets = (first[:k] <= last[k]) & (last[:k] >= first[k])
        free = ~(shared[:, meets] > 0).any(axis=1)
        found, shared = found[free], shared[free]
        for c in range(columns):
            theirs = before + ends[:k, c], before + ends[:k, c + 1]
            shared -= _common(found + own[c], found + own[c + 1], *theirs)
        moved = shared[:, known[:k]].sum(axis=1) * int(known[k])
        low, high = before.min(), behind.max()
        grown = np.maximum(low - found, 0) + np.maximum(found + size[k] - high, 0)
        at[k] = found[np.lexsort((np.abs(found), moved + growth * grown))[0]]
    offsets = [0] * len(items)
    for i, place in zip(order, (at - at.min(initial=0)).tolist(), strict=True):
        offsets[i] = place
    return offsets, max((o + x.bytes for o, x in zip(offsets, items, strict=True)), default=0)


def _common(low: Array, high: Array, begins: Array, ends: Array) -> Array:
    """Bytes that each range [low, high) has in common with each range [begins, ends)."""
    top = np.minimum(high[:, None], ends[None, :])
    found: Array = np.maximum(top - np.maximum(low[:, None], begins[None, :]), 0)
    return found
