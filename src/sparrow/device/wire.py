"""A byte stream in both directions with a runner at its other end: two pipes of a process."""

from __future__ import annotations

import math
import subprocess
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from sparrow.errors import BadBundle, DeviceError, SparrowError

# A text of the protocol is a name; more means that something else is talking.
_LONGEST_TEXT = 1 << 20
# Longest wait for an answer of another machine: one inference, or the next part of an upload.
SILENCE_S = 120.0
_LAST_WORDS_S = 5.0
# A runner ends when its input does; one that is lost is not waited for.
_GOODBYE_S = 20.0


class Wire(ABC):
    """A byte stream in both directions, with a runner at its other end."""

    @abstractmethod
    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        """Write bytes."""

    @abstractmethod
    def read(self, size: int) -> bytes:
        """Read exactly so many bytes.

        Raises:
            BadBundle: The runner has ended.
            DeviceError: The way to it is lost, or it is silent for too long.
        """

    @abstractmethod
    def close(self) -> None:
        """Tell the runner to end, and wait for it."""

    def send(self, *numbers: int, data: Sequence[bytes | memoryview] = ()) -> None:
        """Write a request."""
        self.write([np.array(numbers, np.uint64).tobytes(), *data])

    def number(self) -> int:
        """Read a number."""
        return int.from_bytes(self.read(8), "little", signed=True)

    def text(self) -> str:
        """Read a text."""
        size = self.number()
        if not 0 <= size <= _LONGEST_TEXT:
            raise DeviceError("what answers there is no runner of Sparrow's")
        return self.read(size).decode("utf-8", "replace")


def ended(what: str) -> Callable[[int, str], SparrowError]:
    """What to raise when a program that runs ``what`` ends: from its code and what it said."""

    def failure(code: int, said: str) -> SparrowError:
        first = next((line for line in said.split("\n") if line.strip()), f"code {code}")
        return BadBundle(f"{what}: the program that runs it ended: {first}")

    return failure


class Pipes(Wire):
    """The two pipes of a runner process.

    Args:
        command: What to start.
        failure: What to raise when it ends too early: a function of its code and of what it wrote
            to standard error.
        silence_s: Longest wait for an answer; the process is killed after that.
    """

    def __init__(
        self,
        command: Sequence[str],
        failure: Callable[[int, str], SparrowError],
        silence_s: float = math.inf,
    ) -> None:
        self.failure = failure
        self.silence_s = silence_s
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as e:
            raise BadBundle(f"{command[0]} does not start: {e.strerror}") from None
        self._patience = _Patience(self.process, silence_s)
        weakref.finalize(self, _end, self.process)

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        """See `Wire.write`."""
        to = self.process.stdin
        assert to is not None
        try:
            with self._patience:
                for part in parts:
                    to.write(part)
                to.flush()
        except OSError:
            self._died()

    def read(self, size: int) -> bytes:
        """See `Wire.read`."""
        back = self.process.stdout
        assert back is not None
        with self._patience:
            found = back.read(size)
        if len(found) != size:
            self._died()
        return found

    def line(self) -> str:
        """Read up to the end of a line."""
        back = self.process.stdout
        assert back is not None
        with self._patience:
            found = back.readline(_LONGEST_TEXT)
        if not found.endswith(b"\n"):
            self._died()
        return found.decode("utf-8", "replace").rstrip("\r\n")

    def end_input(self) -> None:
        """Say that no more is written."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
        except OSError:
            self._died()
        self.process.stdin = None

    def close(self) -> None:
        """See `Wire.close`."""
        _end(self.process)

    def _died(self) -> None:
        try:
            # it is ending by itself, and has more to say
            _, said = self.process.communicate(timeout=_LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, said = self.process.communicate()
        if self._patience.over:
            raise DeviceError(
                f"no answer for {self.silence_s:.0f} s", hint="look at the device and try again"
            )
        raise self.failure(self.process.returncode, said.decode("utf-8", "replace"))


class _Patience:
    """Kills a process that keeps us waiting inside a ``with`` block for too long.

    Pipes cannot be waited for with a limit on every system: a thread watches instead.
    """

    def __init__(self, process: subprocess.Popen[bytes], limit_s: float) -> None:
        self.over = False
        self._process = process
        self._limit_s = limit_s
        self._deadline = math.inf
        if limit_s < math.inf:
            threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> None:
        self._deadline = time.monotonic() + self._limit_s

    def __exit__(self, *_: object) -> None:
        self._deadline = math.inf

    def _watch(self) -> None:
        while self._process.poll() is None:
            if time.monotonic() > self._deadline:
                self.over = True
                self._process.kill()
            time.sleep(0.25)


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None and not pipe.closed:
            try:
                pipe.close()
            except OSError:  # what was not flushed has no reader any more
                process.kill()
    try:
        process.wait(_GOODBYE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
