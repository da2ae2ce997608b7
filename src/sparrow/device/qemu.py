"""Run a model library for another CPU in qemu's user-mode emulator; count instructions.

An archive for a microcontroller is linked into a process there: its code asks nothing of a system.
Cores that only boards have, Cortex-M, are `device.firmware`'s.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.here import host_machine, host_toolchain
from sparrow.device.remote import RemoteLibrary, RemoteSession
from sparrow.errors import BadInput
from sparrow.targets import Machine
from sparrow.tensor import Array

# The runner defines memcpy and the like: a loop in it must not become a call of itself.
RUNNER_FLAGS = ("-std=gnu99", "-fno-builtin")


# CPUs that qemu 7.2 knows by zig's name, and what stands for generic ones of a level.
_NAMED = (
    "cortex_a7",
    "cortex_a9",
    "cortex_a15",
    "cortex_a35",
    "cortex_a53",
    "cortex_a57",
    "cortex_a72",
    "cortex_a76",
)
_RV32IMC = "lowrisc-ibex"


def emulated_cpu(machine: Machine, vector_bits: int = 128) -> str:
    """The emulator's name of a CPU with a machine's features and, where possible, no others.

    A program that uses an instruction beyond its target must fail under emulation too.

    Args:
        machine: What programs are built for.
        vector_bits: Of a vector register, where the processor decides that.
    """
    name, *features = machine.cpu.split("+")
    if name in _NAMED:
        return name.replace("_", "-")
    if machine.arch == "riscv32":
        return _RV32IMC if features == ["m", "c"] else "rv32"
    if machine.arch == "riscv64":
        vectors = f"rv64,v=true,vext_spec=v1.0,vlen={vector_bits}"
        return vectors if "v" in features else "rv64"
    if name == "generic" and "i8mm" not in features:
        if machine.arch == "aarch64":
            return "cortex-a76" if "dotprod" in features else "cortex-a53"
        if machine.arch == "arm":
            return "cortex-a9"
    return "max"


def emulator_command(machine: Machine, cpu: str = "") -> list[str]:
    """The command that runs a program for a machine, up to the program.

    Args:
        machine: What the program is built for.
        cpu: The emulator's name of another CPU than `emulated_cpu`.

    Raises:
        BadInput: The emulator is not installed, or has not this system or instruction set.
    """
    if machine.os not in ("linux", "freestanding"):
        raise BadInput(f"programs for {machine.triple} cannot be emulated here")
    if machine.isa.startswith("avx512") or machine.isa in ("avxvnni", "amx"):
        raise BadInput(f"qemu does not emulate {machine.isa}")
    name = f"qemu-{'i386' if machine.arch == 'x86' else machine.arch}"
    found = shutil.which(name) or shutil.which(f"{name}-static")
    if found is None:
        raise BadInput(f"{name} is not installed", hint="install qemu-user, which has it")
    return [found, "-cpu", cpu or emulated_cpu(machine)]


def runner_program(machine: Machine, archive: Path | None = None) -> Path:
    """The runner built for a machine, which loads a library; or that of an archive.

    Raises:
        CompileError: The compiler is missing, or the archive does not link.
    """
    tools = find_toolchain()
    unit = Unit.from_file(NATIVE / "runtime" / ("linked.c" if archive else "runner.c"))
    objects = tools.compile_objects([unit], machine, RUNNER_FLAGS)
    return tools.link_program((*objects, *([archive] if archive else ())), machine)


def emulated_library(path: Path, machine: Machine, cpu: str = "") -> RemoteLibrary:
    """A model library or archive in the emulator; ``cpu`` as for `emulator_command`.

    Raises:
        BadInput: The emulator is not installed, or there is none for this system.
        CompileError: The compiler is missing.
        BadBundle: The file is no model library for the machine.
    """
    program = [runner_program(machine, path)] if machine.bare else [runner_program(machine), path]
    command = (*emulator_command(machine, cpu), *map(str, program))
    return RemoteLibrary(path, command)


def count_marks(
    library: RemoteLibrary, weights: Array, entry: int, inputs: Sequence[Array]
) -> list[tuple[int, int, int]]:
    """Executed instructions at the begin and end of every step of one inference.

    Args:
        library: With hooks, in the emulator.
        weights: The blob.
        entry: Entry point.
        inputs: Its inputs.

    Returns:
        (step, whether it begins, instructions since the program's start), in order.

    Raises:
        BadInput: The library has no hooks.
        BadBundle: This emulator was built without plugins.
    """
    with tempfile.TemporaryDirectory(prefix="sparrow-") as folder:
        out = Path(folder) / "marks"
        mark = f",mark={library.mark}" if library.mark else ""
        wire = library.connect(("-plugin", f"{plugin('count')},out={out}{mark}"))
        session = RemoteSession(library, weights, wire=wire)
        session.mark(entry, inputs)
        session.close()
        rows = np.fromfile(out, np.uint64).reshape(-1, 3)
    return [(int(step), int(begin), int(count)) for step, begin, count in rows]


def plugin(name: str) -> Path:
    """One of our plugins of the emulator, ``runtime/<name>.c``, compiled for this machine."""
    tools, machine = host_toolchain(), host_machine("scalar")
    unit = Unit.from_file(NATIVE / "runtime" / f"{name}.c")
    return tools.link_shared(tools.compile_objects([unit], machine, ("-std=c99",)), machine)
