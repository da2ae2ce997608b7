"""Frames that are read from Armv7's 32-bit instructions, where the compiler noted none."""

from __future__ import annotations

import functools

import pytest

from assembled import firmware
from sparrow.device.a32 import read
from sparrow.device.elf import Elf
from sparrow.device.frames import depths

# name: instructions, bytes of stack of a call
FUNCTIONS: dict[str, tuple[str, int | None]] = {
    "leaf": ("bx lr", 0),
    "returns": ("mov pc, lr", 0),
    "pushes": ("push {r4, fp, lr}; pop {r4, fp, pc}", 12),
    "many": ("push {r4-r11, lr}; sub sp, sp, #20; add sp, sp, #20; pop {r4-r11, pc}", 56),
    "large": ("sub sp, sp, #4096; add sp, sp, #4096; bx lr", 4096),
    "stores": ("str r8, [sp, #-4]!; ldr r8, [sp], #4; bx lr", 4),
    "floats": ("vpush {d8, d9}; vpop {d8, d9}; bx lr", 16),
    "returns_sp": (
        "push {fp, lr}; add fp, sp, #4; sub sp, sp, #8; sub sp, fp, #4; pop {fp, pc}",
        16,
    ),
    "lowers_sp": ("push {fp, lr}; add fp, sp, #4; sub sp, fp, #8; pop {fp, pc}", None),
    "calls": ("push {r7, lr}; bl many; bl pushes; pop {r7, pc}", 8 + 56),
    "jumps": ("b calls", 64),
    "loops": ("1: subs r0, r0, #1; bne 1b; bx lr", 0),
    "recurs": ("push {r7, lr}; bl recurs; pop {r7, pc}", None),
    "indirect": ("push {r7, lr}; blx r0; pop {r7, pc}", None),
    "through": ("bx r3", None),
    "table": ("ldr pc, [r0, r1, lsl #2]", None),
    "computed": ("sub sp, sp, r0; add sp, sp, r0; bx lr", None),
    "aligned": ("mov r4, sp; bic r4, r4, #15; mov sp, r4; bx lr", None),
    "spoiled": ("push {lr}; bl indirect; pop {pc}", None),
    "compares": ("cmp sp, r0; tst r0, #13; mul r0, r1, r2; umull r4, r5, r6, r7; bx lr", 0),
    "remembers": ("push {r7, lr}; bl memset; pop {r7, pc}", 8),
    "memset": ("push {r4-r7, lr}; pop {r4-r7, pc}", 0),
}


@functools.cache
def image() -> Elf:
    return firmware("armv7", FUNCTIONS, "bx lr")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_frame_is_what_the_instructions_take(name: str) -> None:
    want = FUNCTIONS[name][1]
    found = depths(image(), [name], {"memset"}, read)
    assert found == (None if want is None else {name: want})
