"""Pipes to a runner process: what it says, that it ends, that it says nothing."""

from __future__ import annotations

import sys

import pytest

from sparrow.device.wire import Pipes, ended
from sparrow.errors import BadBundle, DeviceError

ECHO = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read(5)); sys.stdout.flush()"


def pipes(text: str, silence_s: float = 60.0) -> Pipes:
    return Pipes([sys.executable, "-c", text], ended("model.so"), silence_s)


def test_bytes_go_there_and_back() -> None:
    wire = pipes(ECHO)
    wire.write([b"ab", memoryview(b"c\0\xff")])
    assert wire.read(5) == b"abc\0\xff"
    wire.close()
    assert wire.process.returncode == 0


def test_what_a_program_says_at_its_end_is_the_error() -> None:
    wire = pipes("import sys; sys.exit('no such cores')")
    with pytest.raises(BadBundle, match=r"model\.so: .* ended: no such cores"):
        wire.read(1)
    with pytest.raises(BadBundle, match="ended: code 7"):
        pipes("import sys; sys.exit(7)").line()


@pytest.mark.parametrize("reads", [True, False])
def test_a_silent_program_is_given_up_and_killed(reads: bool) -> None:
    wire = pipes("import time; time.sleep(600)", silence_s=0.5)
    with pytest.raises(DeviceError, match="no answer for 0 s; look at the device"):
        if reads:
            wire.read(8)
        else:
            wire.write([bytes(1 << 20)] * 64)
    assert wire.process.poll() is not None


def test_patience_is_for_one_answer() -> None:
    text = "import sys, time\nfor _ in range(4): time.sleep(0.4); print('x', flush=True)"
    wire = pipes(text, silence_s=10.0)
    assert [wire.line() for _ in range(4)] == ["x"] * 4


def test_nonsense_is_no_text() -> None:
    wire = pipes("import sys; sys.stdout.buffer.write(b'\\xff' * 8); sys.stdin.read()")
    with pytest.raises(DeviceError, match="no runner of Sparrow's"):
        wire.text()
    wire.close()
