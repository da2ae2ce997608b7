"""How much stack functions of a linked image take whose compiler noted no frames.

Their instructions are read (`device.thumb`, `device.riscv`), and those of all that they call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sparrow.device.elf import FUNCTION, Elf


@dataclass(frozen=True, slots=True)
class Function:
    """What instructions say of a function.

    Attributes:
        frame: Bytes of stack that it takes at most.
        calls: Where else it goes, and the most that it has taken there; a jump that ends it often
            has given all back.
    """

    frame: int
    calls: Mapping[int, int]


# The code of a function, its address, where functions begin; None: it has no bound
Read = Callable[[bytes, int, Collection[int]], Function | None]


def depths(
    image: Elf, names: Collection[str], free: Collection[str], read: Read
) -> Mapping[str, int] | None:
    """Bytes of stack that a call of each function takes at most, with all that it calls.

    Args:
        image: A linked program with its symbols.
        names: Functions in it.
        free: Functions that count nothing.
        read: What understands its instructions.

    Returns:
        None where one is not there, recurses, or has no bound.
    """
    starts: dict[int, int] = {}
    at: dict[str, int] = {}
    for s in image.symbols:
        if s.kind == FUNCTION and s.section and s.name:
            # of Thumb code bit 0 says that it is; other instructions lie at even addresses too
            at[s.name] = s.value & ~1
            starts[s.value & ~1] = max(s.size, starts.get(s.value & ~1, 0))
    code = {
        a: s.data[a - s.address : a - s.address + size]
        for a, size in starts.items()
        for s in (image.sections[i] for i in image.code)
        if s.address <= a < s.address + len(s.data)
    }
    known: dict[int, int | None] = {at[n]: 0 for n in free if n in at}

    def deepest(start: int) -> int | None:
        if start not in known:
            known[start] = None  # until it is known: a function that calls itself has no bound
            data = code.get(start, b"")
            f = read(data, start, starts.keys()) if data else None
            inner = [deepest(c) for c in f.calls] if f is not None else [None]
            if f is not None and None not in inner:
                below = zip(f.calls.values(), inner, strict=True)
                known[start] = max(f.frame, *(own + x for own, x in below if x is not None), 0)
        return known[start]

    found = {n: deepest(at[n]) if n in at else None for n in names}
    bounds = {n: d for n, d in found.items() if d is not None}
    return bounds if len(bounds) == len(found) else None


class Step(NamedTuple):
    """One instruction.

    Attributes:
        size: Bytes.
        takes: Bytes of stack; fewer than none where it gives some back.
        to: Where it may go besides; -1: nowhere.
        calls: Comes back from there.
        falls: May go on behind itself.
    """

    size: int
    takes: int = 0
    to: int = -1
    calls: bool = False
    falls: bool = True


# More than any function takes: a loop that takes some in every turn.
_ENDLESS = 1 << 20


def follow(
    start: int, size: int, starts: Collection[int], step: Callable[[int], Step | None]
) -> Function | None:
    """All ways through a function, from one instruction to those that may follow.

    Args:
        start: Its address.
        size: Bytes of its code.
        starts: Where functions begin.
        step: The instruction at an address; None where it leaves the stack pointer, or goes,
            unknown.

    Returns:
        None where a way is not known, or has no end of the stack that it takes.
    """
    deepest, calls = {start: 0}, dict[int, int]()
    todo = [start]
    while todo:
        at = todo.pop()
        s = step(at)
        if s is None:
            return None
        after = deepest[at] + s.takes
        if not 0 <= after < _ENDLESS:
            return None
        ways = [(at + s.size, s.falls), (s.to, s.to >= 0 and not s.calls)]
        if s.calls:
            if s.to not in starts:
                return None
            calls[s.to] = max(after, calls.get(s.to, 0))
        for to, taken in ways:
            if not taken:
                continue
            if start <= to < start + size:
                if after > deepest.get(to, -1):
                    deepest[to] = after
                    todo.append(to)
            elif to in starts:
                calls[to] = max(after, calls.get(to, 0))
            elif not s.calls:  # behind a call that is the last instruction nothing is
                return None
    return Function(max(deepest.values()), calls)


def signed(value: int, bits: int) -> int:
    """A field of an instruction as a number of two's complement."""
    return value - (value >> (bits - 1) << bits)
