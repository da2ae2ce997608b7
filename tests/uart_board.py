"""An emulated microcontroller that answers over its UART, and a line to it that loses bytes."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from data import missing
from emitted import STRICT
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.firmware import board_of, link_program
from sparrow.device.library import compile_library
from sparrow.evidence.plan_record import PlanRecord
from sparrow.evidence.record import load
from sparrow.folder import machine_of
from sparrow.packaging.serving import serve_bytes, serving
from sparrow.targets import Machine

BOARD = Path(__file__).resolve().parent / "native" / "uart_board.c"


def serving_objects(machine: Machine, *flags: str) -> tuple[Path, ...]:
    """The serial server, compiled for a machine."""
    unit = Unit.from_file(NATIVE / "runtime" / "serve_uart.c")
    return find_toolchain().compile_objects([unit], machine, ("-std=c99", *STRICT[1:], *flags))


def uart_program(
    bundle: Path, hooks: bool = True, memory_bytes: int | None = None, clock: str = "now_ns"
) -> Path:
    """A firmware for the emulated board around the model of a bundle, with a package's server."""
    if shutil.which("qemu-system-arm") is None:
        missing("qemu-system-arm is not installed")
    plan = load(PlanRecord, bundle / "plan.json")
    machine, tools = machine_of(plan), find_toolchain()
    files = {n: (bundle / n).read_bytes() for n in ("model.c", "sparrow.h", "weights.c")}
    model = compile_library(files, machine, plan.parts, hooks=hooks)
    board = Unit(BOARD.name, BOARD.read_text(encoding="utf-8"), (NATIVE,))
    size = serve_bytes(plan) if memory_bytes is None else memory_bytes
    flags = (
        "-std=gnu99",
        "-fno-builtin",
        "-Wno-unused",
        f"-DMEMORY_BYTES={size}",
        f"-DCLOCK={clock}",
    )
    objects = tools.compile_objects([board], machine, flags)
    server = serving(plan)
    text = server["serve_uart.c"].replace('#include "serve_uart.h"', server["serve_uart.h"])
    unit = Unit("serve_uart.c", text, (bundle,))
    objects += tools.compile_objects([unit], machine, ("-std=c99", *STRICT[1:]))
    return link_program((*objects, model), machine)


@contextlib.contextmanager
def running(program: Path, machine: Machine, serial: str) -> Iterator[subprocess.Popen[str]]:
    """The program on the board that qemu emulates, with the UART at a character device of its."""
    quiet = ("-display", "none", "-monitor", "none")
    files = ("-semihosting-config", "enable=on,target=native")
    where = ("-serial", serial, "-kernel", str(program))
    process = subprocess.Popen(
        ["qemu-system-arm", "-M", board_of(machine).name, *quiet, *files, *where],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextlib.contextmanager
def board_on_a_terminal(
    program: Path, machine: Machine
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A running board, and the path of the terminal that its UART is at."""
    with running(program, machine, "pty") as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r"redirected to (\S+)", said)
        assert found, said
        yield found[1], process


class NoisyLine:
    """A TCP port that passes bytes on to another one and back; some are lost, changed or added.

    Args:
        port: Where the board listens.
        share: Of bytes that something happens to.
    """

    def __init__(self, port: int, share: float) -> None:
        self._share = share
        self._rng = random.Random(7)
        self.damaged = 0
        self._board = socket.create_connection(("127.0.0.1", port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        for s in (self._listening, self._board):
            s.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                back = threading.Thread(target=self._pass, args=(self._board, client), daemon=True)
                back.start()
                self._pass(client, self._board)

    def _pass(self, source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                to.sendall(b"".join(map(self._one, data)))

    def _one(self, b: int) -> bytes:
        if self._rng.random() >= self._share:
            return bytes((b,))
        self.damaged += 1
        return self._rng.choice((b"", bytes((b ^ 1 << self._rng.randrange(8),)), bytes((b, b))))
