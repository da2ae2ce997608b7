"""How much stack Thumb code takes whose compiler noted no frames: read from its instructions.

The compiler's library, which computes floats where there is no FPU, is such code. Every way through
a function is followed, with what it has taken of the stack. A stack pointer computed otherwise, and
a jump through a register, have no bound.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator

from sparrow.device.frames import Function, Step, follow, signed

_SP, _PC = 13, 15


def read(data: bytes, start: int, starts: Collection[int]) -> Function | None:
    """What the instructions of a function say of it; None where it has no bound."""
    conditional = set[int]()  # behind `it`: each may be passed over

    def step(at: int) -> Step | None:
        h = _halfwords(data, at - start)
        if not h:
            return None
        if len(h) == 1 and h[0] & 0xFF00 == 0xBF00 and h[0] & 0xF:
            behind = at + 2
            for _ in range(4 - ((h[0] & -h[0]).bit_length() - 1)):
                conditional.add(behind)
                behind += 2 * len(_halfwords(data, behind - start) or (0,))
        s = _narrow(h[0], at + 4) if len(h) == 1 else _wide(h[0], h[1], at + 4)
        if s is None or at not in conditional:
            return s
        # not carried out, it gives nothing back
        return s._replace(takes=max(0, s.takes), falls=True)

    return follow(start, len(data), starts, step)


def accesses(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Instructions that read or write memory at a known distance from the stack pointer.

    Not what gives some of it back: a pop shows nothing that a push did not.

    Yields:
        Where each is, how far above the stack pointer that it leaves, and the bytes of stack that
        the code before it and it have taken, were there no jumps.
    """
    at = taken = 0
    while h := _halfwords(data, at):
        s = _narrow(h[0], 0) if len(h) == 1 else _wide(h[0], h[1], 0)
        taken += s.takes if s is not None else 0
        above = _above(h)
        if above is not None:
            yield at, above, taken
        at += 2 * len(h)


def _above(h: tuple[int, ...]) -> int | None:
    """How far above the stack pointer an instruction reads or writes; None: somewhere else."""
    a, b = h[0], h[-1]
    if len(h) == 1:
        if a & 0xFE00 == 0xB400:  # push
            return 0
        return 4 * (a & 0xFF) if a & 0xF000 == 0x9000 else None  # str, ldr
    if a == 0xE92D or a & 0xFFBF == 0xED2D:  # push, vpush
        return 0
    if a & 0xFE8F == 0xF80D and b & 0x0F00 == 0x0D00:  # str, ldr [sp, #-n]!
        return 0
    if a & 0xFE8F == 0xF88D:  # str, ldr
        return b & 0xFFF
    if a & 0xFFEF == 0xE96D:  # strd, ldrd [sp, #-n]!
        return 0
    if a & 0xFFEF == 0xE9CD:  # strd, ldrd
        return 4 * (b & 0xFF)
    if a & 0xFFAF == 0xED8D and b & 0x0E00 == 0x0A00:  # vstr, vldr
        return 4 * (b & 0xFF)
    if a & 0xFFAF == 0xED8D and b & 0x1E00 == 0x1E00:  # of Helium
        return (b & 0x7F) << (b >> 7 & 3)
    return None


def _halfwords(data: bytes, at: int) -> tuple[int, ...]:
    """Those of an instruction; none behind the end of the code."""
    if not 0 <= at <= len(data) - 2:
        return ()
    (first,) = struct.unpack_from("<H", data, at)
    if first >> 11 not in (0b11101, 0b11110, 0b11111):
        return (first,)
    return struct.unpack_from("<HH", data, at) if at + 4 <= len(data) else ()


def _narrow(h: int, pc: int) -> Step | None:
    """A 16-bit instruction; None where it leaves the stack pointer, or goes, unknown."""
    if h & 0xFE00 == 0xB400:  # push
        return Step(2, 4 * (h & 0x1FF).bit_count())
    if h & 0xFE00 == 0xBC00:  # pop, with pc a return
        return Step(2, -4 * (h & 0x1FF).bit_count(), falls=not h & 0x100)
    if h & 0xFF00 == 0xB000:  # add sp, #; sub
        return Step(2, 4 * (h & 0x7F) * (1 if h & 0x80 else -1))
    if h & 0xFC00 == 0x4400 and h & 0x0300 != 0x0100:
        to = h >> 4 & 8 | h & 7
        if h & 0x0300 == 0x0300:  # bx, blx
            return Step(2, falls=False) if h == 0x4770 else None
        if to == _SP or (to == _PC and h != 0x46F7):  # add, mov
            return None
        return Step(2, falls=h != 0x46F7)
    if h & 0xF800 == 0xE000:  # b
        return Step(2, to=pc + signed(h & 0x7FF, 11) * 2, falls=False)
    if h & 0xF000 == 0xD000 and h & 0x0E00 != 0x0E00:  # b of a condition
        return Step(2, to=pc + signed(h & 0xFF, 8) * 2)
    if h & 0xF500 == 0xB100:  # cbz, cbnz
        return Step(2, to=pc + ((h >> 9 & 1) << 6 | (h >> 3 & 31) << 1))
    return Step(2, falls=h >> 8 != 0xDE)  # udf


def _wide(a: int, b: int, pc: int) -> Step | None:
    """The same of a 32-bit instruction."""
    if a == 0xE92D:  # push
        return Step(4, 4 * b.bit_count())
    if a == 0xE8BD:  # pop
        return Step(4, -4 * b.bit_count(), falls=not b >> _PC)
    if a & 0xFE8F == 0xF80D and b & 0x0B00 == 0x0900:  # str register, [sp, #-n]! and the like
        return Step(4, b & 0xFF)
    if a == 0xF85D and b & 0x0F00 == 0x0B00:  # ldr register, [sp], #n
        return Step(4, -(b & 0xFF), falls=b >> 12 != _PC)
    if a & 0xFEEF == 0xE86D:  # strd registers, [sp, #-n]! and the like
        return Step(4, 4 * (b & 0xFF))
    if a == 0xE8FD:  # ldrd registers, [sp], #n
        return Step(4, -4 * (b & 0xFF))
    if a & 0xFFBF == 0xED2D:  # vpush
        return Step(4, 4 * (b & 0xFF))
    if a & 0xFFBF == 0xECBD:  # vpop
        return Step(4, -4 * (b & 0xFF))
    number = (a >> 10 & 1) << 11 | (b >> 12 & 7) << 8 | b & 0xFF
    ends_in_sp = b & 0x8F00 == 0x0D00
    if a & 0xFB5F == 0xF20D and ends_in_sp:  # addw, subw sp, sp, #
        return Step(4, number if a & 0xA0 == 0xA0 else -number)
    if a & 0xFBEF in (0xF1AD, 0xF10D) and ends_in_sp:  # sub, add sp, sp, # of eight bits, turned
        turned = (0x80 | number & 0x7F) << (32 - (number >> 7)) if number >> 10 else number
        if 0xFF < number < 0x400:
            return None
        return Step(4, turned if a & 0xA0 == 0xA0 else -turned)
    if a & 0xFE00 in (0xEA00, 0xF000, 0xF200) and not b & 0x8000 and b >> 8 & 15 == _SP:
        # other arithmetic; comparisons have pc there
        return None
    if a & 0xFFF0 == 0xE8D0 and b & 0xFFE0 == 0xF000:  # tbb, tbh
        return None
    if a & 0xFF70 == 0xF850 and b >> 12 in (_SP, _PC):  # ldr
        return None
    if a & 0xFE2F == 0xE82D:  # ldm, stm of other ways
        return None
    if a & 0xF800 == 0xF000 and b & 0x8000:  # branches; bl is one
        if b & 0x5000 == 0:  # of a condition
            if a >> 7 & 7 == 7:  # barriers and special registers
                return Step(4)
            low = (a & 0x3F) << 11 | b & 0x7FF
            bits = signed((a >> 10 & 1) << 19 | (b >> 11 & 1) << 18 | (b >> 13 & 1) << 17 | low, 20)
            return Step(4, to=pc + bits * 2)
        if b & 0xD000 == 0xC000:  # loops of v8.1-M go nowhere but where falling goes
            return Step(4)
        sign = a >> 10 & 1
        one, two = (~(b >> 13 & 1) ^ sign) & 1, (~(b >> 11 & 1) ^ sign) & 1
        low = (a & 0x3FF) << 11 | b & 0x7FF
        to = pc + signed(sign << 23 | one << 22 | two << 21 | low, 24) * 2
        linked = bool(b & 0x4000)
        return Step(4, to=to, calls=linked, falls=linked)
    return Step(4)
