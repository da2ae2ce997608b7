"""A model on a microcontroller's board, spoken to over a serial line.

The board runs a firmware that calls ``sparrow_serve_uart``; native/runtime/serve_uart.c says how
the two ends of the line speak, and why it does not matter that bytes get lost on it.
"""

from __future__ import annotations

import random
import time
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparrow.device.remote import RemoteLibrary
from sparrow.device.wire import SILENCE_S, Wire
from sparrow.errors import BadBundle, BadInput, DeviceError

if TYPE_CHECKING:
    import serial

BAUD = 115200
VERSION = 1
# A board that was reset by opening the line starts its firmware first.
CONNECT_S = 20.0
_END, _ESCAPE, _TURN = 0x7E, 0x7D, 0x20
_SPECIAL = (_END, _ESCAPE, 0x11, 0x13)
_HELLO, _DATA, _POLL, _ACK, _FAILED = b"HDPAF"
# Waits for an answer before a frame is sent again: at first, and at most.
_PATIENCE_S = (0.1, 1.0)
# Bits on the line for each byte.
_BITS = 10


def parse_port(text: str) -> tuple[str, int]:
    """Port and baud rate of ``/dev/ttyUSB0@115200``.

    Raises:
        BadInput: The rate is no number.
    """
    port, at, rate = text.rpartition("@")
    if not at:
        return text, BAUD
    if not rate.isdecimal() or not 300 <= int(rate) <= 20_000_000:
        raise BadInput(f"baud rate {rate!r}", hint=f"use serial:{port}@{BAUD}")
    return port, int(rate)


class Line:
    """A serial line with a board at its other end: frames that arrive, whatever happens to bytes.

    Args:
        port: A device such as ``/dev/ttyACM0`` or ``COM3``, or a URL of pyserial's.
        baud: Bits per second.

    Attributes:
        timed: The board has a clock.

    Raises:
        BadInput: pyserial is not installed.
        DeviceError: The port cannot be opened, or no board answers.
    """

    def __init__(self, port: str, baud: int) -> None:
        self.name = f"serial:{port}"
        self._port = _open(port, baud)
        weakref.finalize(self, self._port.close)
        self._byte_s = _BITS / baud
        self._number = random.randrange(256)
        self._frame = bytearray()
        self._escaped = False
        self._largest = 0
        self.timed = False
        self.hello(f"is sparrow_serve_uart running there, at {baud} baud?")

    def hello(self, hint: str = "") -> None:
        """Begin anew; the board forgets what it was asked before.

        Raises:
            DeviceError: It does not answer, or is of another version.
        """
        found = self._exchange(_HELLO, _HELLO, CONNECT_S, hint)
        if len(found) != 4 or found[0] != VERSION:
            raise DeviceError(
                f"{self.name}: the firmware's serve_uart.c is of another version",
                hint="package the bundle again and flash it",
            )
        self._largest = int.from_bytes(found[1:3], "little")
        self.timed = bool(found[3])

    def write(self, data: bytes) -> None:
        """Send data."""
        for i in range(0, len(data), self._largest):
            self._exchange(_DATA, _ACK, SILENCE_S, data=data[i : i + self._largest])

    def poll(self) -> bytes:
        """The next part of an answer, not empty."""
        return self._exchange(_POLL, _DATA, SILENCE_S)

    def _exchange(
        self, kind: int, expected: int, limit_s: float, hint: str = "", data: bytes = b""
    ) -> bytes:
        """Send a frame until its answer is there; returns the answer's data."""
        self._number = (self._number + 1) % 256
        frame = encode(bytes((kind, self._number)) + data)
        patience, most = _PATIENCE_S
        both_ways = (len(frame) + self._largest + 64) * self._byte_s
        start = time.monotonic()
        while time.monotonic() - start < limit_s:
            body = self._try(frame, both_ways + patience)
            patience = min(1.5 * patience, most)
            if not body:
                continue
            if body[0] == _FAILED:
                raise BadBundle(f"{self.name}: {body[2:].decode('utf-8', 'replace')}")
            if body[0] != expected:
                raise DeviceError(f"{self.name}: the board is out of step", hint="try again")
            return body[2:]
        raise DeviceError(f"{self.name}: no answer for {limit_s:.0f} s", hint=hint or _UNPLUGGED)

    def _try(self, frame: bytes, wait_s: float) -> bytes:
        """Send a frame once; the body that answers it, empty when none comes in time."""
        import serial

        deadline = time.monotonic() + wait_s
        try:
            self._port.write(frame)
            while time.monotonic() < deadline:
                for b in self._port.read(max(1, self._port.in_waiting)):
                    body = self._take(b)
                    if body and body[1] == self._number:
                        return body
        except (serial.SerialException, OSError) as e:
            # pyserial's text says which call of the system's failed, not why
            raise DeviceError(f"{self.name}: the line is gone", hint=_UNPLUGGED) from e
        return b""

    def _take(self, b: int) -> bytes:
        """A byte of the line; the body that it ends, if that is whole."""
        if b != _END:
            if b == _ESCAPE:
                self._escaped = True
            else:
                self._frame.append(b ^ _TURN if self._escaped else b)
                self._escaped = False
            return b""
        body, crc = bytes(self._frame[:-4]), bytes(self._frame[-4:])
        self._frame.clear()
        self._escaped = False
        whole = len(body) >= 2 and crc == zlib.crc32(body).to_bytes(4, "little")
        return body if whole else b""


_UNPLUGGED = "see whether the board is plugged in and runs"


def encode(body: bytes) -> bytes:
    """A body with its CRC as a frame."""
    out = bytearray((_END,))
    for b in body + zlib.crc32(body).to_bytes(4, "little"):
        out += bytes((_ESCAPE, b ^ _TURN)) if b in _SPECIAL else bytes((b,))
    out.append(_END)
    return bytes(out)


def _open(port: str, baud: int) -> serial.Serial:
    try:
        import serial
    except ImportError:
        raise BadInput(
            "pyserial is not installed", hint="pip install 'sparrow-ai[serial]'"
        ) from None
    try:
        found: serial.Serial = serial.serial_for_url(
            port, baudrate=baud, timeout=0.02, write_timeout=5, exclusive=True
        )
    except (serial.SerialException, OSError, ValueError) as e:
        text = str(e)
        busy = "lock" in text or "busy" in text or "Access is denied" in text
        hint = (
            "another program has it open: close that"
            if busy
            else "see whether it is plugged in, and whether you may open it (group dialout)"
        )
        raise DeviceError(f"serial:{port} cannot be opened: {text}", hint=hint) from None
    return found


class _Stream(Wire):
    """The one line of a board as one session's: sessions take turns, each begins with a reset."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._answers = bytearray()
        line.hello()

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        self._line.write(b"".join(parts))

    def read(self, size: int) -> bytes:
        while len(self._answers) < size:
            self._answers += self._line.poll()
        found = bytes(self._answers[:size])
        del self._answers[:size]
        return found

    def close(self) -> None:
        """The line stays open for the next one."""


class SerialLibrary(RemoteLibrary):
    """The model that a board's firmware holds.

    Args:
        path: The library that it was made of.
        line: To the board.
    """

    def __init__(self, path: Path, line: Line) -> None:
        self._line = line
        super().__init__(path, (), timed=line.timed)

    def connect(self, before: Sequence[str] = ()) -> Wire:
        """A stream to the board."""
        return _Stream(self._line)

    def untimed(self) -> BadInput:
        """See `RemoteLibrary.untimed`."""
        return BadInput(
            f"{self._line.name}: the board's firmware has no clock",
            hint="give sparrow_uart a now_ns, and flash it",
        )


# A port can be opened once, while several bundles may want the board one after the other.
_LINES: weakref.WeakValueDictionary[str, Line] = weakref.WeakValueDictionary()


def serial_line(text: str) -> Line:
    """The line that ``/dev/ttyUSB0@115200`` names, opened once.

    Raises:
        BadInput: pyserial is not installed, or the text is wrong.
        DeviceError: The port cannot be opened, or no board answers.
    """
    line = _LINES.get(text)
    if line is None:
        line = _LINES[text] = Line(*parse_port(text))
    return line
