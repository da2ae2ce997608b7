"""Frames that are read from Thumb instructions, where the compiler noted none."""

from __future__ import annotations

import functools

import pytest

from assembled import assembled, firmware
from sparrow.device.elf import Elf
from sparrow.device.frames import depths
from sparrow.device.thumb import accesses, read

# name: instructions, bytes of stack of a call
FUNCTIONS: dict[str, tuple[str, int | None]] = {
    "leaf": ("bx lr", 0),
    "pushes": ("push {r4, r7, lr}; pop {r4, r7, pc}", 12),
    "many": ("push.w {r4-r11, lr}; sub sp, #20; add sp, #20; pop.w {r4-r11, pc}", 56),
    "large": ("sub.w sp, sp, #4096; add.w sp, sp, #4096; bx lr", 4096),
    "odd": ("subw sp, sp, #1028; addw sp, sp, #1028; bx lr", 1028),
    "stores": ("str r8, [sp, #-4]!; ldr r8, [sp], #4; bx lr", 4),
    "pairs": ("strd r4, r5, [sp, #-16]!; ldrd r4, r5, [sp], #16; bx lr", 16),
    "floats": ("vpush {d8, d9}; vpop {d8, d9}; bx lr", 16),
    "calls": ("push {r7, lr}; bl many; bl pushes; pop {r7, pc}", 8 + 56),
    "jumps": ("b.w calls", 64),
    "ends": ("push {r4, lr}; pop.w {r4, lr}; b.w many", 56),
    "either": ("cbz r0, 1f; push {r4}; pop {r4}; bx lr; 1: push {r4-r6}; pop {r4-r6}; bx lr", 12),
    "late": ("push {r4}; cmp r0, #0; beq 1f; push {r5, r6}; pop {r5, r6}; 1: pop {r4}; bx lr", 12),
    "maybe": ("push {r4, lr}; cmp r0, #0; it eq; popeq {r4, pc}; bl many; pop {r4, pc}", 64),
    "twice": ("cmp r0, #0; itt eq; pusheq {r4}; pusheq.w {r5, r6}; sub sp, #8; udf #0", 20),
    "grows": ("1: push {r4}; b 1b", None),
    "shrinks": ("pop {r4}; bx lr", None),
    "outside": ("b.w many + 2", None),
    "tabled": ("tbb [pc, r0]; .short 1; bx lr", None),
    "written": ("mov pc, r0", None),
    "loaded": ("ldr pc, [r0]", None),
    "words": ("push {r4}; ldr r0, 1f; pop {r4}; bx lr; .align 2; 1: .word 0xb4ffb4ff", 4),
    "dies": ("push {r4, lr}; bl leaf; udf #0", 8),
    "pre": ("ldr r0, [sp, #-8]!; add sp, #8; bx lr", 8),
    "loops": ("1: subs r0, #1; bne 1b; bx lr", 0),
    "recurs": ("push {r7, lr}; bl recurs; pop {r7, pc}", None),
    "indirect": ("push {r7, lr}; blx r0; pop {r7, pc}", None),
    "through": ("bx r3", None),
    "computed": ("sub sp, sp, r0; add sp, r0; bx lr", None),
    "aligned": ("mov r4, sp; bfc r4, #0, #4; mov sp, r4; bx lr", None),
    "spoiled": ("push {lr}; bl indirect; pop {pc}", None),
    "remembers": ("push {r7, lr}; bl memset; pop {r7, pc}", 8),
    "memset": ("push {r4-r7, lr}; pop {r4-r7, pc}", 0),
}


@functools.cache
def image() -> Elf:
    return firmware("cortex_m4f", FUNCTIONS, "bx lr")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_frame_is_what_the_instructions_take(name: str) -> None:
    want = FUNCTIONS[name][1]
    found = depths(image(), [name], {"memset"}, read)
    assert found == (None if want is None else {name: want})


def test_what_is_not_there_has_no_bound() -> None:
    assert depths(image(), ["leaf", "moon"], (), read) is None
    assert depths(image(), ["leaf", "calls"], (), read) == {"leaf": 0, "calls": 64}


@pytest.mark.parametrize(
    ("row", "body", "want"),
    [
        ("cortex_m0", "push {r4, lr}; sub sp, #8; str r0, [sp, #4]; add sp, #8; pop {r4, pc}", 4),
        ("cortex_m4f", "str r8, [sp, #-8]!; ldrb.w r8, [sp, #3]; ldr r8, [sp], #8; bx lr", 3),
        ("cortex_m4f", "push.w {r4-r11}; strd r4, r5, [sp, #16]; pop.w {r4-r11}; bx lr", 16),
        ("cortex_m4f", "strd r4, r5, [sp, #-8]!; vldr d9, [sp, #40]; bx lr", 40),
        ("cortex_m4f", "vpush {d8}; vstr s3, [sp, #4]; vpop {d8}; bx lr", 4),
        ("cortex_m55", "vpush {d8}; vldrh.u16 q1, [sp, #6]; vpop {d8}; bx lr", 6),
        ("cortex_m55", "vpush {d8}; vstrw.32 q7, [sp, #48]; vpop {d8}; bx lr", 48),
        # what is not at the stack pointer, and negative distances
        ("cortex_m4f", "push {r4}; ldr.w r0, [sp, r1]; ldr r0, [r1, #4]; str r0, [r7, #-4]", None),
    ],
)
def test_accesses_say_where_the_stack_pointer_is(row: str, body: str, want: int | None) -> None:
    image = assembled(row, {"model_run": body, "model_info": "bx lr", "model_reset": "bx lr"})
    (run,) = (s for s in image.symbols if s.name == "model_run")
    code = image.sections[run.section]
    found = list(accesses(code.data[(run.value & ~1) - code.address :][: run.size]))
    assert [above for _, above, _ in found[:2]] == ([0] if want is None else [0, want])
    taken = {"str r8": 8, "strd r4": 8, "push {r4}": 4, "vpush": 8, "push.w": 32}
    assert found[0][0] == 0 and found[0][2] == next(
        (n for start, n in taken.items() if body.startswith(start)), 8
    )
