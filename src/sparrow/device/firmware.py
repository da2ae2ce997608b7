"""Models for microcontrollers, linked: alone, to see what they take, or to be run in an emulator.

Nothing loads a library on a microcontroller. A bundle for one holds ``model.a``; a program for a
board that qemu emulates is linked around it, and speaks to `device.remote` over semihosting.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.elf import ALLOCATED, NO_BITS, Elf
from sparrow.device.remote import RemoteLibrary
from sparrow.device.wire import ended
from sparrow.errors import BadInput, CompileError, DeviceError, SparrowError
from sparrow.targets import Machine

# The runtime defines memcpy and the like: a loop in it must not become a call of itself.
_RUNTIME_FLAGS = ("-std=gnu99", "-fno-builtin")
# Painted before a run whose stack is measured; more than any model takes.
_STACK = 64 << 10


@dataclass(frozen=True, slots=True)
class Board:
    """A board of qemu's and where its memories are: (origin, bytes) each.

    Attributes:
        name: qemu's.
        cores: zig's names of the cores whose code it runs.
        code: Executable memory that starts with the vectors.
        weights: Memory that the emulator fills before the program starts.
        ram: Memory of everything else.
    """

    name: str
    cores: tuple[str, ...]
    code: tuple[int, int]
    weights: tuple[int, int]
    ram: tuple[int, int]


_MPS2_RAM = (0x2100_0000, 16 << 20)
# A Cortex-M3 runs what a Cortex-M0 does; qemu's own M0 has 16 kB of memory.
BOARDS = (
    Board(
        "mps2-an385",
        ("cortex_m3", "cortex_m0", "cortex_m0plus"),
        (0, 1 << 20),
        (1 << 20, 3 << 20),
        _MPS2_RAM,
    ),
    Board("mps2-an386", ("cortex_m4",), (0, 1 << 20), (1 << 20, 3 << 20), _MPS2_RAM),
    Board(
        "mps2-an500",
        ("cortex_m7",),
        (0, 1 << 20),
        (1 << 20, 3 << 20),
        (0x6000_0000, 16 << 20),
    ),
    Board(
        "mps2-an505",
        ("cortex_m33",),
        (0x1000_0000, 1 << 20),
        (0x1010_0000, 3 << 20),
        (0x8000_0000, 16 << 20),
    ),
    Board(
        "mps3-an547",
        ("cortex_m55",),
        (0, 512 << 10),
        (0x7000_0000, 16 << 20),
        (0x7100_0000, 16 << 20),
    ),
)

_SCRIPT = """\
MEMORY {{
  CODE (rx) : ORIGIN = {code[0]}, LENGTH = {code[1]}
  WEIGHTS (r) : ORIGIN = {weights[0]}, LENGTH = {weights[1]}
  RAM (rw) : ORIGIN = {ram[0]}, LENGTH = {ram[1]}
}}
ENTRY({entry})
SECTIONS {{
  .weights : {{ *(.rodata.*_weights) }} > WEIGHTS
  .text : {{ KEEP(*(.vectors)) *(.text .text.*) }} > CODE
  .rodata : {{ *(.rodata .rodata.*) }} > CODE
  .data : ALIGN(4) {{ _data = .; *(.data .data.*) . = ALIGN(4); _data_end = .; }} > RAM AT> CODE
  _data_from = LOADADDR(.data);
  .bss (NOLOAD) : ALIGN(4) {{ _bss = .; *(.bss .bss.* COMMON) . = ALIGN(4); _bss_end = .; }} > RAM
  _heap = .;
  _stack_top = ORIGIN(RAM) + LENGTH(RAM);
  _stack_limit = _stack_top - {stack};
  _heap_end = _stack_limit;
  /DISCARD/ : {{ *(.ARM.exidx* .ARM.extab* .stack_sizes .comment .debug* *.attributes) }}
}}
"""


def board_of(machine: Machine, name: str = "") -> Board:
    """The board that runs code for a machine, or the one of a name.

    Raises:
        BadInput: There is none.
    """
    core = machine.cpu.split("+")[0]
    fit = [b for b in BOARDS if core in b.cores]
    found = [b for b in BOARDS if b.name == name] if name else fit
    if not found:
        raise BadInput(
            f"no emulated board {name or f'runs code for {machine.cpu}'}",
            hint=f"boards: {', '.join(b.name for b in BOARDS)}",
        )
    return found[0]


def board_command(machine: Machine, name: str = "") -> list[str]:
    """The command that runs a program on the emulated board, up to the program.

    Raises:
        BadInput: The emulator is not installed, or has no board for the machine.
    """
    board = board_of(machine, name)
    found = shutil.which("qemu-system-arm")
    if found is None:
        raise BadInput(
            "qemu-system-arm is not installed", hint="install qemu-system-arm, which has it"
        )
    quiet = ("-display", "none", "-monitor", "none", "-serial", "none")
    files = ("-semihosting-config", "enable=on,target=native")
    return [found, "-M", board.name, *quiet, *files, "-kernel"]


def firmware_library(path: Path, machine: Machine, board: str = "") -> RemoteLibrary:
    """A model archive on an emulated board.

    Args:
        path: ``model.a``.
        machine: What it is built for.
        board: The emulator's name of another board than `board_of`.

    Raises:
        BadInput: The emulator is not installed, or has no board for the machine.
        CompileError: The compiler is missing, or the archive does not link.
        DeviceError: It is larger than the board.
        BadBundle: The program does not start.
    """
    command = board_command(machine, board)
    unit = Unit.from_file(NATIVE / "runtime" / "firmware.c")
    objects = find_toolchain().compile_objects([unit], machine, _RUNTIME_FLAGS)
    program = link_program((*objects, path), machine, board)
    (marked,) = (s for s in Elf(program.read_bytes()).symbols if s.name == "sys_marked")
    # bit 0 of a function's address says that it is Thumb code
    name = board_of(machine, board).name

    def failure(code: int, said: str) -> SparrowError:
        full = _RAM.match(said)
        return _full(name, "RAM", *map(int, full.groups())) if full else ended(name)(code, said)

    command = [*command, str(program)]
    return RemoteLibrary(path, command, mark=marked.value & ~1, failure=failure)


def link_program(objects: Sequence[Path], machine: Machine, board: str = "") -> Path:
    """Objects, one of which includes runtime/semihosting.h, linked for the emulated board.

    Raises:
        BadInput: The emulator has no board for the machine.
        DeviceError: They are larger than the board.
        CompileError: They do not link.
    """
    row = board_of(machine, board)
    script = _SCRIPT.format(
        code=row.code, weights=row.weights, ram=row.ram, stack=_STACK, entry="Reset_Handler"
    )
    try:
        return find_toolchain().link_program(objects, machine, script)
    except CompileError as e:
        over = _OVERFLOW.search(e.message)
        if over is None:
            raise
        there = {"WEIGHTS": row.weights, "CODE": row.code, "RAM": row.ram}[over[1]][1]
        raise _full(row.name, over[1], there + int(over[2]), there) from None


# What linkers and runtime/semihosting.h say of what is too large.
_OVERFLOW = re.compile(r"\b(WEIGHTS|CODE|RAM)\b.*overflowed by (\d+) bytes")
_RAM = re.compile(r"RAM: (\d+) bytes needed, (\d+) there")
_LESS = {
    "WEIGHTS": "int8 takes a quarter of float32, a network of fewer channels less",
    "CODE": "fewer different layers take less, int8 less than float32",
    "RAM": "int8 takes a quarter of float32, layers in strips of rows (--ram) less, smaller inputs "
    "less still",
}


def _full(board: str, section: str, needed: int, there: int) -> DeviceError:
    what = section if section == "RAM" else section.lower()
    return DeviceError(
        f"emulated board {board}: {what}: {needed:,} bytes needed, {there:,} there",
        hint=_LESS[section],
    )


def link_alone(objects: Sequence[Path], machine: Machine) -> Path:
    """A model's archive or objects, linked with what they need of the compiler's library alone.

    Raises:
        CompileError: Something that they need is nowhere.
    """
    far = 256 << 20
    script = _SCRIPT.format(
        code=(0, far), weights=(far, far), ram=(4 * far, far), stack=0, entry="model_run"
    )
    roots = [f"-Wl,-u,model_{name}" for name in ("run", "info", "reset")]
    return find_toolchain().link_program(objects, machine, script, roots)


def flash_bytes(path: Path, machine: Machine) -> int:
    """Bytes of flash that a model archive takes when linked, beside its weights."""
    sections = Elf(link_alone((path,), machine).read_bytes()).sections
    return sum(
        s.size
        for s in sections
        if s.flags & ALLOCATED and s.kind != NO_BITS and s.name != ".weights"
    )
