"""How much stack code of Armv7 in 32-bit instructions takes whose compiler noted no frames.

The compiler's library, which divides integers of 64 bits and makes floats of them, is such code.
All that a function pushes and subtracts anywhere in it is its frame. A frame
pointer that was set above the stack pointer may bring it back to where that was. A stack pointer
computed otherwise, and a jump through a register, have no bound.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

from sparrow.device.frames import Function, signed

_SP, _LR, _PC = 13, 14, 15
_SUB, _ADD = 2, 4


def read(data: bytes, start: int, starts: Collection[int]) -> Function | None:
    """What the instructions of a function say of it; None where it has no bound."""
    frame, calls, above = 0, set[int](), dict[int, int]()
    for at in range(0, len(data) - 3, 4):
        (w,) = struct.unpack_from("<I", data, at)
        rn, rd = w >> 16 & 15, w >> 12 & 15
        if w >> 25 & 7 == 5 and w >> 28 < 15:  # b, bl
            to = start + at + 8 + signed(w & 0xFFFFFF, 24) * 4
            if w >> 24 & 1 == 0 and start <= to < start + len(data):
                continue
            if to not in starts:
                return None
            calls.add(to)
        elif w >> 25 & 7 == 1 and w >> 21 & 15 in (_SUB, _ADD) and _SP in (rn, rd):
            size = _immediate(w)
            if w >> 21 & 15 == _ADD and rn == _SP:
                above[rd] = min(size, above.get(rd, size))
            elif rd == _SP and rn == _SP:
                frame += size
            elif rd == _SP and (w >> 21 & 15 != _SUB or size > above.get(rn, -1)):
                return None
        else:
            taken = _taken(w, rn, rd)
            if taken is None:
                return None
            frame += taken
    return Function(frame, dict.fromkeys(calls, frame))


def _immediate(w: int) -> int:
    value, turned = w & 0xFF, 2 * (w >> 8 & 15)
    return (value >> turned | value << (32 - turned)) & 0xFFFFFFFF


def _taken(w: int, rn: int, rd: int) -> int | None:
    """Bytes that an instruction takes of the stack; None where it leaves it, or goes, unknown."""
    if w >> 28 == 15:  # calls of Thumb, and of vectors what has no register to write
        return None if w >> 25 & 7 == 5 else 0
    if w & 0x0FFF0000 == 0x092D0000:  # push
        return 4 * (w & 0xFFFF).bit_count()
    if w & 0x0FFF0000 == 0x052D0000:  # str register, [sp, #-n]!
        return w & 0xFFF
    if w & 0x0FBF0E00 == 0x0D2D0A00:  # vpush
        return 4 * (w & 0xFF)
    if w & 0x0FFFFFD0 == 0x012FFF10 and w & 15 != _LR:  # bx, blx
        return None
    if w & 0x0FFFFFF0 == 0x012FFF30:  # blx lr
        return None
    kind = w >> 25 & 7
    if kind < 2 and w & 0x0F900000 != 0x01000000 and not (kind == 0 and w & 0x90 == 0x90):
        # data processing but for comparisons
        compares = w >> 23 & 3 == 2 and w >> 20 & 1
        returns = w & 0x0FFFFFFF == 0x01A0F00E
        return None if not compares and rd in (_SP, _PC) and not returns else 0
    if kind in (2, 3) and w >> 20 & 1 and rd in (_SP, _PC) and not (kind == 3 and w >> 4 & 1):
        # ldr; pop {pc} is one
        return 0 if rd == _PC and rn == _SP and not w >> 24 & 1 else None
    if kind in (2, 3) and rn == _SP and (w >> 21 & 1 or not w >> 24 & 1):
        # moves sp elsewhere than by a push or a pop
        return 0 if w >> 20 & 1 and w >> 23 & 1 else None
    if kind == 4 and rn == _SP and w >> 21 & 1:  # ldm; others than push
        return 0 if w >> 20 & 1 and w >> 23 & 1 and not w >> _SP & 1 else None
    return 0
