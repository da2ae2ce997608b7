"""Offsets of buffers in one block of memory, by liveness."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

ALIGN = 64


@dataclass(frozen=True, slots=True)
class Item:
    """A buffer to be placed: its size and the first and last step it is alive at."""

    bytes: int
    first: int
    last: int


def aligned(size: int) -> int:
    """``size`` rounded up to ALIGN."""
    return -(-size // ALIGN) * ALIGN


def lower_bound(items: Sequence[Item]) -> int:
    """The most bytes alive at one step, each item aligned but the last one counted exactly."""
    steps = {i.first for i in items}
    most = 0
    for step in steps:
        alive = [i.bytes for i in items if i.first <= step <= i.last]
        slack = max((aligned(b) - b for b in alive), default=0)
        most = max(most, sum(map(aligned, alive)) - slack)
    return most


def pack(items: Sequence[Item]) -> tuple[list[int], int]:
    """Byte offset of every item, multiples of ALIGN, and the bytes needed in all.

    Items are placed one by one, each in the gap chosen by best or first fit, in several orders; the
    smallest result is taken, the first among equals.
    """
    floor = lower_bound(items)
    best: tuple[int, list[int]] | None = None
    for order in _orders(items):
        for fit in (_first_fit, _best_fit):
            offsets, total = _place(items, order, fit)
            if best is None or total < best[0]:
                best = total, offsets
            if total <= floor:
                return offsets, total
    assert best is not None
    order = sorted(range(len(items)), key=lambda i: -items[i].bytes)
    best = _repaired(items, order, best, floor)
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
        yield sorted(range(len(items)), key=lambda k: (key(items[k]), k))


def _repaired(
    items: Sequence[Item], order: list[int], best: tuple[int, list[int]], floor: int
) -> tuple[int, list[int]]:
    """Move the item that reaches highest to the front of the order, again and again."""
    seen: set[tuple[int, ...]] = set()
    for _ in range(4 * len(items)):
        offsets, total = _place(items, order, _first_fit)
        if total < best[0]:
            best = total, offsets
        if total <= floor or tuple(order) in seen:
            break
        seen.add(tuple(order))
        top = max(range(len(items)), key=lambda i: (offsets[i] + items[i].bytes, i))
        order = [top, *(i for i in order if i != top)]
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


def _place(items: Sequence[Item], order: Sequence[int], fit: Fit) -> tuple[list[int], int]:
    offsets = [0] * len(items)
    done: list[int] = []
    total = 0
    for i in order:
        x = items[i]
        if x.bytes == 0:
            continue
        near = (k for k in done if items[k].first <= x.last and x.first <= items[k].last)
        taken = sorted((offsets[k], offsets[k] + items[k].bytes) for k in near)
        offsets[i] = fit(taken, x.bytes)
        total = max(total, offsets[i] + x.bytes)
        done.append(i)
    return offsets, total
