"""Programs for other CPUs on this machine: qemu's user-mode emulator."""

from __future__ import annotations

import shutil

from sparrow.errors import BadInput
from sparrow.targets import Machine


def emulated_cpu(machine: Machine) -> str:
    """The emulator's name of a CPU with a machine's features and, where possible, no others.

    A program that uses an instruction beyond its target must fail under emulation too.
    """
    arch = machine.triple.split("-")[0]
    features = set(machine.cpu.split("+")[1:])
    if arch == "aarch64":
        return (
            "max"
            if "i8mm" in features
            else "cortex-a76"
            if "dotprod" in features
            else ("cortex-a53")
        )
    if arch == "arm":
        return "cortex-a9"
    if arch == "riscv64":
        return "rv64,v=true,vext_spec=v1.0,vlen=128" if "v" in features else "rv64"
    return "max"


def emulator_command(machine: Machine) -> list[str]:
    """The command that runs a program for a machine, up to the program.

    Raises:
        BadInput: The emulator is not installed, or there is none for this system.
    """
    arch = machine.triple.split("-")[0]
    name = f"qemu-{arch}"
    if machine.os != "linux":
        raise BadInput(f"programs for {machine.triple} cannot be emulated here")
    found = shutil.which(name) or shutil.which(f"{name}-static")
    if found is None:
        raise BadInput(f"emulator {name} is not installed", hint="install qemu-user")
    return [found, "-cpu", emulated_cpu(machine)]
