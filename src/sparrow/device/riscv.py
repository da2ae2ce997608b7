"""How much stack RISC-V code takes, read from its instructions.

The compiler's library, which computes floats for RV32 without an FPU, notes no frames. What the
compiler does note of code for vectors leaves out the vectors: a frame of those is as many times
``vlenb`` (the bytes of a register, which the processor decides) as the code before its ``sub sp``
says. Registers are followed from one jump to the next; a stack pointer computed from what is not
known there, and a jump through such a register, have no bound. Of the library every way through a
function is followed, with what it has taken of the stack; of an object all that a function
subtracts anywhere in it counts, because where its jumps go is not linked yet.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sparrow.device.frames import Function, Step, follow, signed

_RA, _SP = 1, 2
# Calls keep the stack pointer a multiple of it.
_ALIGN = 16
_VLENB = 0xC22


@dataclass(frozen=True, slots=True)
class Frame:
    """What a function takes of the stack.

    Attributes:
        fixed: Bytes that are subtracted.
        lost: Bytes that rounding the stack pointer down may take besides.
        scaled: Vector registers' worth.
    """

    fixed: int
    lost: int
    scaled: int


class _Instruction(NamedTuple):
    """One instruction, compressed or not; ``write`` is any that sets ``rd`` to something else."""

    op: str
    rd: int = 0
    rs1: int = 0
    rs2: int = 0
    imm: int = 0


class _Value(NamedTuple):
    """A known register: a number and multiples of vlenb."""

    number: int
    scaled: int = 0


def read(data: bytes, start: int, starts: Collection[int]) -> Function | None:
    """What the instructions of a linked RV32 function say of it; None where it has no bound."""
    steps = dict[int, Step | None]()
    if _follow(data, start, False, steps) is None:
        return None
    return follow(start, len(data), starts, steps.get)


def accesses(data: bytes) -> Iterator[tuple[int, int, int]]:
    """RV32 instructions that read or write memory at a known distance from the stack pointer.

    Yields:
        Where each is, how far above the stack pointer, and the bytes of stack that the code before
        it has taken, were there no jumps.
    """
    taken = 0
    for at, i in _decode(data, 0, False):
        taken -= i.imm if (i.op, i.rd, i.rs1) == ("addi", _SP, _SP) else 0
        above = _above(data[at : at + 4])
        if above is not None:
            yield at, above, taken


def _above(code: bytes) -> int | None:
    """How far above the stack pointer an instruction reads or writes; None: somewhere else."""
    w = int.from_bytes(code, "little")
    if w & 3 == 3:
        if w >> 15 & 31 != _SP or w & 0x7F not in (0x03, 0x23):
            return None
        return signed(w >> 20 if w & 0x7F == 0x03 else w >> 25 << 5 | w >> 7 & 31, 12)
    if w & 0xE003 == 0x4002:  # c.lwsp
        return (w >> 4 & 7) << 2 | (w >> 12 & 1) << 5 | (w >> 2 & 3) << 6
    if w & 0xE003 == 0xC002:  # c.swsp
        return (w >> 9 & 15) << 2 | (w >> 7 & 3) << 6
    return None


def frame(data: bytes, wide: bool) -> Frame | None:
    """The frame of a function, linked or not, its callees apart; None where it is not understood.

    Args:
        data: Its code.
        wide: RV64, whose compressed instructions differ.
    """
    return _follow(data, 0, wide, {})


def _follow(data: bytes, start: int, wide: bool, steps: dict[int, Step | None]) -> Frame | None:
    """The frame; adds every instruction to ``steps``."""
    code = list(_decode(data, start, wide))
    meets = {at + i.imm for at, i in code if i.op in ("branch", "jal")}
    ends = [at for at, _ in code[1:]] + [start + len(data)]
    known: dict[int, _Value] = {}
    fixed = lost = scaled = 0
    for (at, i), end in zip(code, ends, strict=True):
        if at in meets:
            known = {}
        known[0] = _Value(0)
        value = _value(i, at, known)
        step: Step | None = Step(end - at)
        if i.rd == _SP:
            if i.op == "andi" and i.rs1 == _SP:
                rounded = max(0, -i.imm - _ALIGN)
                lost += rounded
                steps[at] = Step(end - at, rounded)
                continue
            taken = _taken(i, known)
            if taken is None:
                return None
            fixed += max(0, taken.number)
            scaled += max(0, taken.scaled)
            step = None if taken.scaled else Step(end - at, taken.number)
        elif i.op in ("jal", "jalr"):
            step = _goes(i, at, end, known)
            known = {}  # what a call leaves, or what another jump brings to the code behind one
        elif i.op == "branch":
            step = Step(end - at, to=at + i.imm)
        elif value is None:
            known.pop(i.rd, None)
        else:
            known[i.rd] = value
        steps[at] = step
    return Frame(fixed, lost, scaled)


def _goes(i: _Instruction, at: int, end: int, known: dict[int, _Value]) -> Step | None:
    """A call, a jump or a return; None where its target is not known."""
    linked = i.rd != 0
    if i.rd not in (0, _RA):
        return None
    if i.op == "jal":
        return Step(end - at, to=at + i.imm, calls=linked, falls=linked)
    if i.rs1 == _RA and not linked:
        return Step(end - at, falls=False)
    to = known.get(i.rs1)
    if to is None:
        return None
    return Step(end - at, to=to.number + i.imm & 0xFFFFFFFF, calls=linked, falls=linked)


def _value(i: _Instruction, at: int, known: dict[int, _Value]) -> _Value | None:
    """What an instruction sets its register to, if that is known."""
    a, b = known.get(i.rs1), known.get(i.rs2)
    if i.op == "vlenb":
        return _Value(0, 1)
    if i.op == "lui":
        return _Value(i.imm)
    if i.op == "auipc":
        return _Value(at + i.imm)
    if a is None:
        return None
    if i.op == "addi":
        return _Value(a.number + i.imm, a.scaled)
    if i.op == "slli":
        return _Value(a.number << i.imm, a.scaled << i.imm)
    if b is None:
        return None
    if i.op == "add":
        return _Value((a.number << i.imm) + b.number, (a.scaled << i.imm) + b.scaled)
    if i.op == "sub":
        return _Value(a.number - b.number, a.scaled - b.scaled)
    if i.op == "mul" and not (a.scaled and b.scaled):
        return _Value(a.number * b.number, a.number * b.scaled + a.scaled * b.number)
    return None


def _taken(i: _Instruction, known: dict[int, _Value]) -> _Value | None:
    """What an instruction that sets the stack pointer takes of the stack; None: it is not known."""
    if i.op == "addi" and i.rs1 == _SP:
        return _Value(-i.imm)
    if i.op == "sub" and i.rs1 == _SP:
        return known.get(i.rs2)
    if i.op == "add" and i.rs1 == _SP and not i.imm:
        back = known.get(i.rs2)
        return None if back is None else _Value(-back.number, -back.scaled)
    return None


def _decode(data: bytes, start: int, wide: bool) -> Iterator[tuple[int, _Instruction]]:
    """All instructions with their addresses."""
    at = 0
    while at + 2 <= len(data):
        (first,) = struct.unpack_from("<H", data, at)
        size = 4 if first & 3 == 3 else 2
        if at + size > len(data):
            return
        word = int.from_bytes(data[at : at + size], "little")
        yield start + at, _full(word) if size == 4 else _compressed(word, wide)
        at += size


_NONE = _Instruction("none")
_OPS = {(0, 0): "add", (0x20, 0): "sub", (1, 0): "mul"}


def _full(w: int) -> _Instruction:
    opcode, rd, rs1, rs2 = w & 0x7F, w >> 7 & 31, w >> 15 & 31, w >> 20 & 31
    f3, f7, imm = w >> 12 & 7, w >> 25, signed(w >> 20, 12)
    if opcode == 0x13 and f3 in (0, 7):
        return _Instruction("addi" if f3 == 0 else "andi", rd, rs1, 0, imm)
    if opcode == 0x13 and f3 == 1 and f7 >> 1 == 0:
        return _Instruction("slli", rd, rs1, 0, imm & 63)
    if opcode == 0x33 and (f7, f3) in _OPS:
        return _Instruction(_OPS[f7, f3], rd, rs1, rs2)
    if opcode == 0x33 and f7 == 0x10 and f3 in (2, 4, 6):  # shift by one to three and add
        return _Instruction("add", rd, rs1, rs2, f3 >> 1)
    if opcode in (0x37, 0x17):
        return _Instruction("lui" if opcode == 0x37 else "auipc", rd, imm=signed(w >> 12, 20) << 12)
    if opcode == 0x6F:
        low = (w >> 12 & 255) << 12 | (w >> 20 & 1) << 11 | (w >> 21 & 0x3FF) << 1
        return _Instruction("jal", rd, imm=signed(w >> 31 << 20 | low, 21))
    if opcode == 0x67:
        return _Instruction("jalr", rd, rs1, 0, imm)
    if opcode == 0x63:
        low = (w >> 7 & 1) << 11 | (w >> 25 & 63) << 5 | (w >> 8 & 15) << 1
        return _Instruction("branch", imm=signed(w >> 31 << 12 | low, 13))
    if opcode == 0x73 and f3 == 2 and rs1 == 0 and w >> 20 == _VLENB:
        return _Instruction("vlenb", rd)
    if opcode == 0x57:  # vectors: their length, and elements taken out
        integer = f3 == 7 or (f3 == 2 and f7 >> 1 == 0x10)
    elif opcode == 0x53:  # comparisons, conversions and bits of floats
        integer = f7 >> 2 in (0x14, 0x18, 0x1C)
    else:  # stores have a piece of their offset there; the rest are loads and products of floats
        integer = opcode not in (0x23, 0x27, 0x07, 0x43, 0x47, 0x4B, 0x4F)
    return _Instruction("write", rd) if integer else _NONE


def _compressed(h: int, wide: bool) -> _Instruction:
    quadrant, f3, rd, rs2 = h & 3, h >> 13, h >> 7 & 31, h >> 2 & 31
    near = 8 + (h >> 7 & 7)
    imm = signed((h >> 12 & 1) << 5 | rs2, 6)
    if quadrant == 0:
        # loads of integers and addresses in the stack; the rest are floats and stores
        return _Instruction("write", 8 + (h >> 2 & 7)) if f3 in (0, 2, 3, 4) else _NONE
    if quadrant == 1:
        if f3 in (0, 2):
            return _Instruction("addi", rd, rd if f3 == 0 else 0, 0, imm)
        if f3 == 3 and rd == _SP:
            low = (h >> 6 & 1) << 4 | (h >> 5 & 1) << 6 | (h >> 3 & 3) << 7 | (h >> 2 & 1) << 5
            return _Instruction("addi", rd, rd, 0, signed((h >> 12 & 1) << 9 | low, 10))
        if f3 == 3:
            return _Instruction("lui", rd, imm=imm << 12)
        if f3 == 4:
            return _Instruction("write", near)
        if f3 == 1 and wide:
            return _Instruction("write", rd)
        if f3 in (1, 5):
            return _Instruction("jal", _RA if f3 == 1 else 0, imm=_jump(h))
        low = (h >> 10 & 3) << 3 | (h >> 5 & 3) << 6 | (h >> 3 & 3) << 1 | (h >> 2 & 1) << 5
        return _Instruction("branch", imm=signed((h >> 12 & 1) << 8 | low, 9))
    if f3 == 0:
        return _Instruction("slli", rd, rd, 0, imm & 63)
    if f3 == 2 or (f3 == 3 and wide):
        return _Instruction("write", rd)
    if f3 != 4:
        return _NONE
    adds = h >> 12 & 1
    if rs2:
        return _Instruction("add", rd, rd if adds else 0, rs2)
    # ebreak is what is left
    return _Instruction("jalr", adds, rd) if rd else _NONE


def _jump(h: int) -> int:
    low = (h >> 11 & 1) << 4 | (h >> 9 & 3) << 8 | (h >> 8 & 1) << 10 | (h >> 7 & 1) << 6
    low |= (h >> 6 & 1) << 7 | (h >> 3 & 7) << 1 | (h >> 2 & 1) << 5
    return signed((h >> 12 & 1) << 11 | low, 12)
