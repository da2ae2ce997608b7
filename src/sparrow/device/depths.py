"""How much stack functions of a linked image take whose compiler noted no frames.

Their instructions are read (`device.thumb`, `device.riscv`), and those of all that they call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from sparrow.device.elf import FUNCTION, Elf


@dataclass(frozen=True, slots=True)
class Function:
    """What instructions say of a function.

    Attributes:
        frame: Bytes of stack that it takes, over all ways through it.
        calls: Where else it goes.
    """

    frame: int
    calls: frozenset[int]


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
                known[start] = f.frame + max((x for x in inner if x is not None), default=0)
        return known[start]

    found = {n: deepest(at[n]) if n in at else None for n in names}
    bounds = {n: d for n, d in found.items() if d is not None}
    return bounds if len(bounds) == len(found) else None


def signed(value: int, bits: int) -> int:
    """A field of an instruction as a number of two's complement."""
    return value - (value >> (bits - 1) << bits)
