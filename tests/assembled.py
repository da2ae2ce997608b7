"""Functions written in assembly, as a target's toolchain makes them."""

from __future__ import annotations

from collections.abc import Mapping

from sparrow.device.build import Unit, find_toolchain
from sparrow.device.elf import Elf
from sparrow.device.firmware import link_alone
from sparrow.targets import target

ROOTS = ("model_run", "model_info", "model_reset")


def assembled(row: str, functions: Mapping[str, str]) -> Elf:
    """The functions by name: linked where the target is bare or Armv7, else an object."""
    machine = target(row).machine
    syntax = ".syntax unified\\n.thumb\\n" if row.startswith("cortex") else ""
    text = "".join(
        f".global {name}\\n.type {name},%function\\n{name}:\\n{body}\\n.size {name}, . - {name}\\n"
        for name, body in functions.items()
    )
    unit = Unit("frames.c", f'__asm__("{syntax}.text\\n{text}");')
    objects = find_toolchain().compile_objects([unit], machine)
    linked = machine.bare or machine.arch == "arm"
    return Elf((link_alone(objects, machine) if linked else objects[0]).read_bytes())


def firmware(row: str, functions: Mapping[str, tuple[str, int | None]], ret: str) -> Elf:
    """Functions, given with the bytes that they take, in an image of entries that only `ret`."""
    bodies = {name: body for name, (body, _) in functions.items()}
    return assembled(row, {**bodies, **dict.fromkeys(ROOTS, ret)})
