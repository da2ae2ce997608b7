"""Run model libraries on a Linux device whose shell takes our commands: over ssh, over adb.

Everything goes through commands of the device's own shell, whose standard input and output are
clean byte streams. The first one makes a temporary folder there and stays: when its input ends,
because we are done, or were killed, or the line broke, it removes the folder.
"""

from __future__ import annotations

import re
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from sparrow.device.conditions import FILES, Conditions, choose_cores, conditions
from sparrow.device.qemu import runner_program
from sparrow.device.remote import RemoteLibrary
from sparrow.device.wire import SILENCE_S, Pipes, Wire
from sparrow.errors import BadInput, DeviceError, SparrowError
from sparrow.targets import Machine

# What a command writes before its own output: shells' start-up files may print something.
_START = "=sparrow="
_GREETING_LINES = 200
# What `uname -m` says where code of an architecture runs.
_NAMES = {
    "x86_64": ("x86_64", "amd64"),
    "x86": ("i386", "i486", "i586", "i686", "x86_64", "amd64"),
    "aarch64": ("aarch64", "arm64"),
    "arm": ("armv7l", "armv8l", "aarch64"),
    "riscv64": ("riscv64",),
}
# PIPE too: a shell that writes to a line that is gone must still clean up.
_SIGNALS = "HUP INT TERM PIPE"


class Shell(ABC):
    """How to run commands on one device.

    Attributes:
        name: As the user wrote it, such as ``ssh:pi@rpi4``.
        roots: Folders for a temporary one, in words of the device's shell; the first that can
            be written to and run from is taken.
        ask: Commands that remember what ``end`` needs, and change nothing.
        begin: Commands that come first, once.
        end: Commands that undo them; run whatever happens.
        title: A command that prints the device's name.
    """

    name: str
    roots: str
    ask: str = ""
    begin: str = ""
    end: str = ""
    title: str

    @abstractmethod
    def command(self, script: str) -> list[str]:
        """The local command that runs a script of POSIX sh there, which holds no newline."""

    @abstractmethod
    def lost(self, code: int, said: str) -> SparrowError | None:
        """What to raise when the transport ended the command; None when the device's shell did."""


class ShellDevice:
    """A device with a temporary folder of ours, which goes when this object does.

    Args:
        shell: How to run commands there.
        machine: What is run there.
        cores: ``big``, ``little``, a list of cores, or empty for all.

    Raises:
        DeviceError: It cannot be reached, has no room, or runs no such code.
        BadInput: It has no such cores.
    """

    def __init__(self, shell: Shell, machine: Machine, cores: str = "") -> None:
        self.shell = shell
        self._count = 0
        self._wires: weakref.WeakSet[Pipes] = weakref.WeakSet()
        self._keeper = self._start(_keep(shell))
        self.folder, system, self.title = (self._keeper.line() for _ in range(3))
        weakref.finalize(self, _leave, self._keeper, self._wires)
        if system not in _NAMES[machine.arch]:
            raise DeviceError(
                f"{shell.name} is {system}, the bundle is for {machine.arch}",
                hint="build it for that device; `sparrow targets` lists the rows",
            )
        self.cores = choose_cores(cores, self._files()) if cores else None
        self._runner = self.push(runner_program(machine))

    def push(self, path: Path) -> str:
        """Copy a file into the folder; returns its path there.

        Raises:
            DeviceError: There is no room, or the device is lost.
        """
        data = path.read_bytes()
        there = f"{self.folder}/{self._count}{path.suffix}"
        self._count += 1
        text = f'cat >"{there}" && chmod 700 "{there}" && wc -c <"{there}"'
        wire = self._start(text, f"{self.shell.name}: {len(data)} bytes do not go to {there}")
        wire.write([data])
        wire.end_input()
        got = wire.line().strip()
        wire.close()
        if got != str(len(data)):
            raise DeviceError(f"{self.shell.name}: {got} of {len(data)} bytes are in {there}")
        return there

    def conditions(self) -> Conditions:
        """What the device says of itself now.

        Raises:
            DeviceError: It is lost.
        """
        return conditions(self._files(), self.title, self.cores)

    def library(self, path: Path) -> RemoteLibrary:
        """A model library there.

        Raises:
            BadBundle: It is of another ABI version.
            DeviceError: It cannot be loaded, or the device has no room or is lost.
        """
        return _ShellLibrary(self, path)

    def run(self, library: str, what: Path) -> Wire:
        """Start the runner there with a library that was pushed."""
        mask = f" {sum(1 << c for c in self.cores)}" if self.cores else ""
        # not exec: of a program that a signal ends it is the shell that says so
        return self._start(f'"{self._runner}" "{library}"{mask}; exit $?', str(what))

    def _files(self) -> dict[str, str]:
        # grep prints the path of every line, in one process for hundreds of files
        wire = self._start(f'grep -s "" {" ".join(FILES)} /dev/null; echo {_START}')
        found = {}
        while (line := wire.line()) != _START:
            path, _, value = line.partition(":")
            # the path of a Raspberry Pi's firmware has a colon
            if value.startswith("firmware/"):
                rest, _, value = value.partition(":")
                path = f"{path}:{rest}"
            found[path] = value.strip()
        wire.close()
        return found

    def _start(self, script: str, what: str = "") -> Pipes:
        """Start a script there and skip what the device's shell prints before it."""
        command = self.shell.command(f"echo {_START}; {script}")
        wire = Pipes(command, self._failure(what), SILENCE_S)
        self._wires.add(wire)
        for _ in range(_GREETING_LINES):
            if wire.line() == _START:
                return wire
        wire.close()
        raise DeviceError(f"{self.shell.name}: its shell prints hundreds of lines at every start")

    def _failure(self, what: str) -> Callable[[int, str], SparrowError]:
        # not bound to this object: a wire must not keep the folder alive
        shell, prefix = self.shell, what or self.shell.name

        def failure(code: int, said: str) -> SparrowError:
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            last = lines[-1] if lines else f"code {code}"
            gone = shell.lost(code, said)
            if gone is not None:
                return gone
            return DeviceError(f"{prefix}: {last}", hint=_hint(last))

        return failure


def _leave(keeper: Pipes, wires: weakref.WeakSet[Pipes]) -> None:
    # the keeper last: a shared connection ends when all that share it have
    for wire in (*(w for w in wires if w is not keeper), keeper):
        wire.close()


class _ShellLibrary(RemoteLibrary):
    def __init__(self, device: ShellDevice, path: Path) -> None:
        self.device = device
        self._there = device.push(path)
        super().__init__(path, (), timed=True)

    def connect(self, before: Sequence[str] = ()) -> Wire:
        return self.device.run(self._there, self.path)


def _keep(shell: Shell) -> str:
    """The script that makes the folder, says where it is, and removes it when its input ends."""
    return (
        f"umask 077; d=; {shell.ask} "
        f'trap "{_quoted(shell.end)} [ \\"\\$d\\" ] && rm -rf \\"\\$d\\"" EXIT; '
        f'trap "exit 1" {_SIGNALS}; {shell.begin} '
        f"for r in {shell.roots}; do "
        'd=$(mktemp -d "$r/sparrow-XXXXXX" 2>/dev/null) || { d=; continue; }; '
        # an empty file is a script that does nothing, where programs may be run at all
        'true >"$d/x" && chmod 700 "$d/x" && "$d/x" 2>/dev/null && break; rm -rf "$d"; d=; done; '
        f'[ "$d" ] || {{ echo "no folder to run programs from in {_quoted(shell.roots)}" >&2; '
        f'exit 73; }}; echo "$d"; uname -m; {shell.title}; cat >/dev/null'
    )


def _quoted(text: str) -> str:
    """A script inside double quotes, to be expanded later."""
    return re.sub(r'(["\\$`])', r"\\\1", text)


def _hint(said: str) -> str:
    if "No space left" in said or "Disk quota" in said:
        return "free some space there"
    if "Permission denied" in said or "Read-only" in said:
        return "see who may write and run programs there"
    if "llegal instruction" in said:
        return "its CPU lacks instructions of the bundle's target: build for the device's own"
    return ""


def check_shell_machine(device: str, machine: Machine) -> None:
    """Check that there is a runner for a machine.

    Raises:
        BadInput: There is none.
    """
    if machine.os != "linux" or machine.arch not in _NAMES:
        raise BadInput(
            f"the device {device} runs programs for Linux and Android, the target is "
            f"{machine.triple}"
        )
