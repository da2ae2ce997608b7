"""Offsets of buffers in one block of memory, by liveness."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

ALIGN = 64


@dataclass(frozen=True, slots=True)
class Item:
    """A buffer to be placed: its size and the first and last step it is alive at.

    This one may run over item number ``over`` where that begins at least ``lead`` bytes behind: the
    step that writes this one then reads that one in time, and last.
    """

    bytes: int
    first: int
    last: int
    over: int = -1
    lead: int = 0


def aligned(size: int) -> int:
    """``size`` rounded up to ALIGN."""
    return -(-size // ALIGN) * ALIGN


def alive(items: Sequence[Item], step: int) -> int:
    """Bytes alive at a step, each item aligned but the last one counted exactly.

    Two of which one runs over the other count what both together take.
    """
    near = {k: i.bytes for k, i in enumerate(items) if i.first <= step <= i.last}
    for k in list(near):
        i = items[k]
        if i.over >= 0 and i.first == step:
            other = near.pop(i.over)
            behind = max(i.bytes, aligned(max(i.lead, 0)) + other)
            near[k] = min(behind, aligned(other) + i.bytes)
    slack = max((aligned(b) - b for b in near.values()), default=0)
    return sum(map(aligned, near.values())) - slack


def lower_bound(items: Sequence[Item]) -> int:
    """The most bytes alive at one step."""
    return max((alive(items, step) for step in {i.first for i in items}), default=0)


def pack(items: Sequence[Item]) -> tuple[list[int], int]:
    """Byte offset of every item, multiples of ALIGN, and the bytes needed in all.

    Items are placed one by one, each in the gap chosen by best or first fit, in several orders; the
    smallest result is taken, the first among equals. Items run over others only at steps where
    there is no room for both.
    """
    floor = lower_bound(items)
    apart = [replace(i, over=-1) for i in items]
    tight = {i.first for i in items if i.over >= 0 and alive(apart, i.first) > floor}
    items = [i if i.first in tight else a for i, a in zip(items, apart, strict=True)]
    best: tuple[int, list[int]] | None = None
    meets = _meets(items)
    for order in _orders(items):
        for fit in (_first_fit, _best_fit):
            offsets, total = _place(items, meets, order, fit)
            if best is None or total < best[0]:
                best = total, offsets
            if total <= floor:
                return offsets, total
    assert best is not None
    order = _upward(items, sorted(range(len(items)), key=lambda i: -items[i].bytes))
    best = _repaired(items, meets, order, best, floor)
    return best[1], best[0]


def _orders(items: Sequence[Item]) -> Iterable[list[int]]:
    keys: tuple[Callable[[Item], tuple[int, ...]], ...] = (
        lambda i: (-i.bytes, i.first),
        lambda i: (i.first - i.last, -i.bytes),
        lambda i: (-i.bytes * (i.last - i.first + 1), i.first),
        lambda i: (i.first, -i.bytes),
        lambda i: (-i.last, -i.bytes),
    )
    for key in keys:
        order = sorted(range(len(items)), key=lambda k: (key(items[k]), k))
        yield order
        if any(i.over >= 0 for i in items):
            yield _upward(items, order)


def _upward(items: Sequence[Item], order: Sequence[int]) -> list[int]:
    """An order in which an item comes after the one that runs over it, which lies below it."""
    above = {i.over: k for k, i in enumerate(items) if i.over >= 0}
    found: dict[int, None] = {}
    for k in order:
        chain = [k]
        while (below := above.get(chain[-1])) is not None and below not in found:
            chain.append(below)
        found |= dict.fromkeys(reversed(chain))
    return list(found)


def _meets(items: Sequence[Item]) -> list[list[int]]:
    """The others that are alive together with each item; those of no bytes are left out."""
    found: list[list[int]] = [[] for _ in items]
    order = sorted((i for i, x in enumerate(items) if x.bytes), key=lambda i: items[i].first)
    now: list[int] = []
    for i in order:
        now = [k for k in now if items[k].last >= items[i].first]
        for k in now:
            found[i].append(k)
            found[k].append(i)
        now.append(i)
    return found


def _repaired(
    items: Sequence[Item],
    meets: Sequence[Sequence[int]],
    order: list[int],
    best: tuple[int, list[int]],
    floor: int,
) -> tuple[int, list[int]]:
    """Move the item that reaches highest to the front of the order, again and again."""
    seen: set[tuple[int, ...]] = set()
    for _ in range(4 * len(items)):
        offsets, total = _place(items, meets, order, _first_fit)
        if total < best[0]:
            best = total, offsets
        if total <= floor or tuple(order) in seen:
            break
        seen.add(tuple(order))
        top = max(range(len(items)), key=lambda i: (offsets[i] + items[i].bytes, i))
        order = _upward(items, [top, *(i for i in order if i != top)])
    return best


Fit = Callable[[list[tuple[int, int]], int], int]


def _first_fit(taken: list[tuple[int, int]], size: int) -> int:
    """Lowest gap of ``size`` bytes between sorted (start, end) ranges."""
    at = 0
    for start, end in taken:
        if at + size <= start:
            break
        at = max(at, aligned(end))
    return at


def _best_fit(taken: list[tuple[int, int]], size: int) -> int:
    """Smallest gap that is large enough; the end when there is none."""
    at, best = 0, None
    for start, end in taken:
        room = start - at
        if size <= room and (best is None or room < best[0]):
            best = room, at
        at = max(at, aligned(end))
    return at if best is None else best[1]


def _place(
    items: Sequence[Item], meets: Sequence[Sequence[int]], order: Sequence[int], fit: Fit
) -> tuple[list[int], int]:
    offsets = [-1] * len(items)
    total = 0
    for i in order:
        x = items[i]
        if x.bytes == 0:
            continue
        taken = sorted(_taken(items, i, k, offsets[k]) for k in meets[i] if offsets[k] >= 0)
        offsets[i] = fit(taken, x.bytes)
        total = max(total, offsets[i] + x.bytes)
    return [max(at, 0) for at in offsets], total


def _taken(items: Sequence[Item], i: int, k: int, at: int) -> tuple[int, int]:
    """The range that item ``k`` at ``at`` keeps from item ``i``, which ends before it or begins
    behind it; its start may lie behind its end.
    """
    start, end = at, at + items[k].bytes
    if items[i].over == k:
        # what `i` writes beyond its lead may lie on `k`
        start += items[i].bytes - items[i].lead
    elif items[k].over == i:
        end = at + items[k].lead
    return start, end
