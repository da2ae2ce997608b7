"""Where a bundle for a machine can run from here: in this process, an emulator, a device."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sparrow.device.adb import Adb
from sparrow.device.chromium import chromium_library, find_chromium
from sparrow.device.conditions import Conditions, conditions, read_here
from sparrow.device.cpu import host_isa, host_isas
from sparrow.device.firmware import board_command, firmware_library
from sparrow.device.here import host_machine
from sparrow.device.host import HostLibrary
from sparrow.device.node import find_node, node_library
from sparrow.device.qemu import emulated_library, emulator_command
from sparrow.device.serial import SerialLibrary, serial_line
from sparrow.device.session import ModelLibrary
from sparrow.device.shell import ShellDevice, check_shell_machine
from sparrow.device.ssh import Ssh
from sparrow.errors import BadBundle, BadInput
from sparrow.targets import Machine

DEVICES = ("auto", "host", "qemu", "node", "chromium", "ssh", "adb", "serial")
# Those that run WebAssembly modules, the first by itself.
ENGINES = ("node", "chromium")
# Those that take a name after a colon, and which names.
NAMED = {
    "qemu": "qemu:<cpu or board>",
    "ssh": "ssh:user@host",
    "adb": "adb:<serial>",
    "serial": "serial:<port>@<baud>",
}


@dataclass(frozen=True, slots=True)
class Runner:
    """A way to run libraries of one machine.

    Attributes:
        name: One of `DEVICES`, but ``auto``.
        load: Opens a library file.
        conditions: What the device says of itself now.
    """

    name: str
    load: Callable[[Path], ModelLibrary]
    conditions: Callable[[], Conditions] = Conditions


def find_runner(machine: Machine, device: str = "auto", cores: str = "") -> Runner:
    """The runner for a machine: this process where that can be, else the emulator or Node.js.

    Args:
        machine: What the libraries are built for.
        device: One of `DEVICES`, some with a name, see `NAMED`; an emulator's is that of a CPU, or
            for a microcontroller of a board.
        cores: Which cores of an ssh or adb device: ``big``, ``little`` or a list.

    Raises:
        BadInput: There is none; says why.
        DeviceError: The device cannot be used now; says why.
    """
    device, colon, name = device.partition(":")
    if device not in DEVICES or (colon and (device not in NAMED or not name)):
        others = [d for d in DEVICES if d not in NAMED]
        raise BadInput(
            f"device {device!r} is unknown",
            hint=f"use one of {', '.join((*others, *NAMED.values()))}",
        )
    if device in ("ssh", "adb"):
        check_shell_machine(device, machine)
        there = ShellDevice(Ssh(name) if device == "ssh" else Adb(name), machine, cores)
        return Runner(device, there.library, there.conditions)
    if cores:
        raise BadInput(f"--cores is for the devices ssh and adb, not {device}")
    if device == "serial":
        if not machine.bare:
            raise BadInput(f"the device serial is a microcontroller, the target {machine.triple}")
        if not name:
            raise BadInput("the device serial needs a port", hint="use serial:/dev/ttyACM0@115200")
        line = serial_line(name)
        return Runner("serial", lambda path: SerialLibrary(path, line))
    module = machine.arch == "wasm32"
    if (device in ENGINES) != module and device != "auto":
        raise BadInput(
            f"the device {device} runs no code for {machine.triple}",
            hint=f"use --device {' or '.join(ENGINES if module else ('host', 'qemu'))}",
        )
    if device == "chromium":
        find_chromium()
        return Runner("chromium", chromium_library, _here)
    if module:
        find_node()
        return Runner("node", node_library, _here)
    why = not_runnable(machine) if device != "qemu" else ""
    if device != "qemu" and not why:
        return Runner("host", load_library, _here)
    if device == "host":
        raise BadInput(f"the device host cannot run this: {why}", hint="use --device qemu")
    board = machine.arch == "thumb"
    try:
        if board:
            board_command(machine, name)
        else:
            emulator_command(machine)
    except BadInput as e:
        raise BadInput(f"{why}; {e.message}" if why else e.message, hint=e.hint) from None
    if board:
        return Runner("qemu", lambda path: firmware_library(path, machine, name))
    return Runner("qemu", lambda path: emulated_library(path, machine, name))


def _here() -> Conditions:
    return conditions(read_here())


def not_runnable(machine: Machine) -> str:
    """Why this process cannot run code for a machine; empty when it can."""
    here = host_machine("scalar")
    if here.triple != machine.triple:
        return f"this machine is {here.triple}, the target is {machine.triple}"
    if machine.isa not in host_isas():
        return f"this machine has {host_isa()}, the target needs {machine.isa}"
    return ""


def load_library(path: Path) -> HostLibrary:
    """Load a library into this process, from a copy under a name of its own.

    The loader knows libraries by name: a bundle built again at the same place would give the old
    code. A file that is replaced while mapped would crash the process.

    Raises:
        BadBundle: It cannot be read, or is no library for this machine.
    """
    folder = Path(tempfile.mkdtemp(prefix="sparrow-"))
    try:
        copy = folder / path.name
        try:
            shutil.copyfile(path, copy)
        except OSError as e:
            raise BadBundle(f"{path} cannot be read: {e.strerror}") from None
        library = HostLibrary(copy)
        library.path = path
        return library
    finally:
        shutil.rmtree(folder, ignore_errors=True)
