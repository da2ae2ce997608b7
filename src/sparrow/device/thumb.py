"""How much stack Thumb code takes whose compiler noted no frames: read from its instructions.

The compiler's library, which computes floats where there is no FPU, is such code. What a function
pushes and subtracts anywhere in it is its frame, so that a frame laid out late, or twice on ways
that exclude each other, counts in full. A stack pointer computed otherwise, and a call through a
register, have no bound.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

from sparrow.device.depths import Function, signed


def read(data: bytes, start: int, starts: Collection[int]) -> Function | None:
    """What the instructions of a function say of it; None where it has no bound."""
    frame, calls, at = 0, set[int](), 0
    while at + 2 <= len(data):
        (first,) = struct.unpack_from("<H", data, at)
        pc = start + at + 4
        if first >> 11 in (0b11101, 0b11110, 0b11111) and at + 4 <= len(data):
            (second,) = struct.unpack_from("<H", data, at + 2)
            taken, to = _wide(first, second, pc)
            at += 4
        else:
            taken, to = _narrow(first, pc)
            at += 2
        if taken is None:
            return None
        frame += taken
        # a short jump to the beginning is a loop
        if to is not None and to in starts and (to != start or first >> 11 == 0b11110):
            calls.add(to)
    return Function(frame, frozenset(calls))


def _narrow(h: int, pc: int) -> tuple[int | None, int | None]:
    """(bytes that a 16-bit instruction takes of the stack, where it may go)."""
    if h & 0xFE00 == 0xB400:  # push
        return 4 * (h & 0x1FF).bit_count(), None
    if h & 0xFF80 == 0xB080:  # sub sp, #
        return 4 * (h & 0x7F), None
    if h & 0xFF87 in (0x4485, 0x4685, 0x4780):  # add sp, register; mov; blx register
        return None, None
    if h & 0xFF87 == 0x4700 and h != 0x4770:  # bx register, but for lr
        return None, None
    if h & 0xF800 == 0xE000:  # b
        return 0, pc + signed(h & 0x7FF, 11) * 2
    if h & 0xF000 == 0xD000 and h & 0x0E00 != 0x0E00:  # b of a condition
        return 0, pc + signed(h & 0xFF, 8) * 2
    return 0, None


def _wide(a: int, b: int, pc: int) -> tuple[int | None, int | None]:
    """The same of a 32-bit instruction."""
    if a == 0xE92D:  # push
        return 4 * b.bit_count(), None
    if a == 0xF84D and b & 0x0F00 == 0x0D00:  # str register, [sp, #-n]!
        return b & 0xFF, None
    if a == 0xE96D:  # strd registers, [sp, #-n]!
        return 4 * (b & 0xFF), None
    if a & 0xFFBF == 0xED2D:  # vpush
        return 4 * (b & 0xFF), None
    number = (a >> 10 & 1) << 11 | (b >> 12 & 7) << 8 | b & 0xFF
    if a & 0xFBFF == 0xF2AD and b & 0x8F00 == 0x0D00:  # subw sp, sp, #
        return number, None
    if a & 0xFBEF == 0xF1AD and b & 0x8F00 == 0x0D00:  # sub sp, sp, # of eight bits, turned
        turned = (0x80 | number & 0x7F) << (32 - (number >> 7)) if number >> 10 else number
        return (None if 0xFF < number < 0x400 else turned), None
    if a & 0xFFEF == 0xEBAD and b & 0x0F00 == 0x0D00:  # sub sp, sp, register
        return None, None
    if a & 0xF800 == 0xF000 and b & 0x8000:  # branches; bl is one
        if b & 0x5000 == 0:  # of a condition
            low = (a & 0x3F) << 11 | b & 0x7FF
            bits = signed((a >> 10 & 1) << 19 | (b >> 11 & 1) << 18 | (b >> 13 & 1) << 17 | low, 20)
            return 0, pc + bits * 2
        sign = a >> 10 & 1
        one, two = (~(b >> 13 & 1) ^ sign) & 1, (~(b >> 11 & 1) ^ sign) & 1
        low = (a & 0x3FF) << 11 | b & 0x7FF
        return 0, pc + signed(sign << 23 | one << 22 | two << 21 | low, 24) * 2
    return 0, None
