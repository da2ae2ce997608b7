"""Frames read from RISC-V instructions: the compiler noted none, or left vectors out."""

from __future__ import annotations

import functools

import pytest

from assembled import assembled, firmware
from sparrow.device.elf import Elf
from sparrow.device.frames import depths
from sparrow.device.riscv import Frame, accesses, frame, read

# name: instructions, bytes of stack of a call
FUNCTIONS: dict[str, tuple[str, int | None]] = {
    "leaf": ("ret", 0),
    "small": ("addi sp, sp, -16; sw ra, 12(sp); addi sp, sp, 16; ret", 16),
    "medium": ("addi sp, sp, -496; addi sp, sp, 496; ret", 496),
    "large": ("addi sp, sp, -2032; addi sp, sp, -176; addi sp, sp, 2032; ret", 2208),
    "huge": ("lui a0, 2; addi a0, a0, -16; sub sp, sp, a0; add sp, sp, a0; ret", 8176),
    "negative": ("lui a0, 0xffffe; add sp, sp, a0; sub sp, sp, a0; ret", 8192),
    "aligned": ("addi sp, sp, -64; andi sp, sp, -64; ret", 64 + 48),
    "calls": ("addi sp, sp, -16; call large; call medium; addi sp, sp, 16; ret", 16 + 2208),
    "jumps": ("tail calls", 16 + 2208),
    "short": ("jal calls; j small", 16 + 2208),
    "ends": ("addi sp, sp, -16; addi sp, sp, 16; tail large", 2208),
    "either": (
        "beqz a0, 1f; addi sp, sp, -16; addi sp, sp, 16; ret; 1: addi sp, sp, -48; "
        "addi sp, sp, 48; ret",
        48,
    ),
    "late": (
        "addi sp, sp, -16; beqz a0, 1f; addi sp, sp, -32; call medium; addi sp, sp, 32; 1: "
        "addi sp, sp, 16; ret",
        48 + 496,
    ),
    "grows": ("1: addi sp, sp, -16; j 1b", None),
    "shrinks": ("addi sp, sp, 16; ret", None),
    "outside": ("j large + 2", None),
    "saves": ("jal t0, large; ret", None),
    "loops": ("1: addi a0, a0, -1; bnez a0, 1b; beq a0, a1, 1b; ret", 0),
    "recurs": ("addi sp, sp, -16; call recurs; addi sp, sp, 16; ret", None),
    "indirect": ("jalr a0; ret", None),
    "through": ("jr a5", None),
    "computed": ("sub sp, sp, a0; add sp, sp, a0; ret", None),
    # what a register holds on one way is not what it holds on the other
    "merges": ("lui a0, 1; beqz a1, 1f; lui a0, 2; 1: sub sp, sp, a0; ret", None),
    "moves": ("mv sp, s0; ret", None),
    "loads": ("lw sp, 0(a0); ret", None),
    "loaded": ("lui a0, 1; lw a0, 0(a1); sub sp, sp, a0; ret", None),
    "spoiled": ("addi sp, sp, -16; call indirect; addi sp, sp, 16; ret", None),
    "remembers": ("addi sp, sp, -16; call memset; addi sp, sp, 16; ret", 16),
    "memset": ("addi sp, sp, -32; addi sp, sp, 32; ret", 0),
}


@functools.cache
def image() -> Elf:
    return firmware("rv32imc", FUNCTIONS, "ret")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_frame_is_what_the_instructions_take(name: str) -> None:
    want = FUNCTIONS[name][1]
    found = depths(image(), [name], {"memset"}, read)
    assert found == (None if want is None else {name: want})


def test_what_is_not_there_has_no_bound() -> None:
    assert depths(image(), ["leaf", "moon"], (), read) is None
    assert depths(image(), ["leaf", "calls"], (), read) == {"leaf": 0, "calls": 16 + 2208}


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ("addi sp, sp, -32; vsetivli a0, 4, e32, m1, ta, ma; vadd.vv v2, v2, v2", Frame(32, 0, 0)),
        ("csrr a0, vlenb; sub sp, sp, a0; csrr a0, vlenb; add sp, sp, a0", Frame(0, 0, 1)),
        ("csrr a6, vlenb; slli a6, a6, 2; sub sp, sp, a6", Frame(0, 0, 4)),
        (
            "csrr a1, vlenb; li a2, 28; mul a1, a1, a2; sd s0, (sp); sub sp, sp, a1",
            Frame(0, 0, 28),
        ),
        ("csrr t0, vlenb; slli t1, t0, 1; add t0, t1, t0; sub sp, sp, t0", Frame(0, 0, 3)),
        ("csrr t0, vlenb; slli t1, t0, 3; sub t0, t1, t0; sub sp, sp, t0", Frame(0, 0, 7)),
        ("addi sp, sp, -16; fcvt.s.w f2, a0; fadd.s f2, f2, f2", Frame(16, 0, 0)),
        ("csrr a0, vlenb; srli a0, a0, 1; sub sp, sp, a0", None),
        ("csrr a0, vlenb; vmv.x.s a0, v2; sub sp, sp, a0", None),
        ("csrr a0, vlenb; mul a0, a0, a0; sub sp, sp, a0", None),
    ],
)
def test_vectors_count_as_often_as_their_length_is_taken(body: str, want: Frame | None) -> None:
    found = assembled("riscv64_v", {"f": f"{body}; ret"})
    code = b"".join(found.sections[i].data for i in sorted(found.code))
    assert frame(code, found.wide) == want


def test_accesses_say_where_the_stack_pointer_is() -> None:
    body = (
        "addi sp, sp, -2032; sw ra, 2028(sp); sw s0, 12(sp); lw a0, 252(sp); lbu a1, 5(sp); "
        "sw a0, 4(s0); lw a1, 8(a0); sh a1, -2(sp); lw a2, 64(sp); sw a3, 196(sp); ret"
    )
    image = assembled("rv32imc", dict.fromkeys(("model_run", "model_info", "model_reset"), body))
    (run,) = (s for s in image.symbols if s.name == "model_run")
    code = image.sections[run.section]
    found = list(accesses(code.data[run.value - code.address :][: run.size]))
    assert [above for _, above, _ in found] == [2028, 12, 252, 5, -2, 64, 196]
    assert {taken for *_, taken in found} == {2032} and found[0][0] == 4
