"""Models on a microcontroller's board over a serial line, which an emulated UART stands for."""

from __future__ import annotations

import builtins
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparrow
from fake_adbd import free_port
from small_models import classifier
from sparrow.cli import main
from sparrow.device.runners import find_runner
from sparrow.device.serial import encode, parse_port
from sparrow.errors import BadBundle, BadInput, DeviceError
from sparrow.targets import target
from sparrow.timing.benchmark import bench_bundle
from uart_board import NoisyLine, board_on_a_terminal, running, serving_objects, uart_program

CORE = "cortex_m4f"
MACHINE = target(CORE).machine
SAMPLES = np.random.default_rng(1).standard_normal((8, 3, 12, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def mcu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "out"
    sparrow.build(classifier(), CORE, out, calib=SAMPLES, precision="int8")
    return out


@pytest.fixture(scope="module")
def firmware(mcu: Path) -> Path:
    return uart_program(mcu)


@pytest.fixture
def port(firmware: Path) -> Iterator[str]:
    with board_on_a_terminal(firmware, MACHINE) as (path, _):
        yield path
        gc.collect()


@pytest.mark.parametrize("core", ["cortex_m0", "cortex_m4f", "cortex_m55", "rv32imc"])
def test_the_server_compiles_without_warnings(core: str) -> None:
    assert serving_objects(target(core).machine)
    assert serving_objects(target(core).machine, "-DSPARROW_UART_FRAME=32")


def test_a_bundle_is_proved_on_the_board(
    port: str, mcu: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(mcu), "--device", f"serial:{port}@1000000"])
    assert ended.value.code == 0
    assert "every layer within its own bound: 7 of 7" in capsys.readouterr().out


def test_a_bundle_runs_and_is_timed_there(port: str, mcu: Path) -> None:
    there = sparrow.load_bundle(mcu, device=f"serial:{port}@1000000")
    want = sparrow.load_bundle(mcu).run(SAMPLES[:1])["y"]
    for _ in range(2):
        np.testing.assert_array_equal(there.run(SAMPLES[:1])["y"], want)
    # the board's clock moves by a microsecond at each look
    assert {s.ns for s in there.profile(runs=3).steps} == {1000.0}
    again = sparrow.load_bundle(mcu, device=f"serial:{port}@1000000")
    np.testing.assert_array_equal(again.run(SAMPLES[:1])["y"], want)
    np.testing.assert_array_equal(there.run(SAMPLES[:1])["y"], want)


def test_a_line_that_loses_and_invents_bytes_gives_the_same_answers(
    firmware: Path, mcu: Path
) -> None:
    listening = free_port()
    with running(firmware, MACHINE, f"tcp:127.0.0.1:{listening},server=on,wait=off"):
        line = connected(listening, 0.002)
        there = sparrow.load_bundle(mcu, device=f"serial:socket://127.0.0.1:{line.port}@1000000")
        want = sparrow.load_bundle(mcu)
        for x in SAMPLES[:3]:
            np.testing.assert_array_equal(there.run(x[None])["y"], want.run(x[None])["y"])
        # one in five hundred bytes; how many there are depends on what is asked again
        assert line.damaged > 5
        line.close()


def connected(port: int, share: float) -> NoisyLine:
    for _ in range(100):
        try:
            return NoisyLine(port, share)
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the emulated board does not listen")


def test_a_client_that_went_away_in_the_middle_does_no_harm(port: str, mcu: Path) -> None:
    device = f"serial:{port}@1000000"
    there = sparrow.load_bundle(mcu, device=device)
    want = there.run(SAMPLES[:1])["y"]
    wire: Any = there.session._wire  # type: ignore[attr-defined]
    # a run whose inputs never come, and one whose answer nobody reads
    wire.send(5, 0, 0, data=[b"abc"])
    again = sparrow.load_bundle(mcu, device=device)
    np.testing.assert_array_equal(again.run(SAMPLES[:1])["y"], want)
    wire = again.session._wire  # type: ignore[attr-defined]
    wire.send(5, 0, 1, data=[SAMPLES[:1].tobytes()])
    wire.read(8)
    once_more = sparrow.load_bundle(mcu, device=device)
    np.testing.assert_array_equal(once_more.run(SAMPLES[:1])["y"], want)


def test_a_board_with_another_model_is_refused(
    port: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sparrow.build(classifier(), CORE, tmp_path / "other")
    for command in ("run", "verify"):
        with pytest.raises(SystemExit) as ended:
            main([command, str(tmp_path / "other"), "--device", f"serial:{port}"])
        assert ended.value.code == 2
        assert "runs another model" in capsys.readouterr().err


def test_a_board_without_hooks_clock_or_memory_says_so(mcu: Path) -> None:
    plain = uart_program(mcu, hooks=False, clock="NULL")
    with board_on_a_terminal(plain, MACHINE) as (path, _):
        there = sparrow.load_bundle(mcu, device=f"serial:{path}")
        there.run(SAMPLES[:1])
        with pytest.raises(BadInput, match="SPARROW_HOOKS"):
            there.verify(f"serial:{path}")
        with pytest.raises(BadInput, match=r"has no clock; give sparrow_uart a now_ns"):
            bench_bundle(there, 0)
        del there
        gc.collect()
    small = uart_program(mcu, memory_bytes=2048)
    with (
        board_on_a_terminal(small, MACHINE) as (path, _),
        pytest.raises(BadBundle, match="too little memory for this model"),
    ):
        find_runner(MACHINE, f"serial:{path}")


def test_a_board_that_is_unplugged_is_one_line(firmware: Path, mcu: Path) -> None:
    with board_on_a_terminal(firmware, MACHINE) as (path, process):
        there = sparrow.load_bundle(mcu, device=f"serial:{path}")
        process.kill()
        process.wait()
        with pytest.raises(DeviceError, match=r"^serial:/dev/pts/\d+: the line is gone; see whe"):
            there.run(SAMPLES[:1])


def test_lines_that_cannot_be(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    assert parse_port("COM3") == ("COM3", 115200)
    assert parse_port("/dev/ttyUSB0@9600") == ("/dev/ttyUSB0", 9600)
    with pytest.raises(BadInput, match="baud rate 'fast'"):
        parse_port("/dev/ttyUSB0@fast")
    with pytest.raises(BadInput, match="needs a port"):
        find_runner(MACHINE, "serial")
    with pytest.raises(BadInput, match="is a microcontroller"):
        find_runner(target("aarch64").machine, f"serial:{port}")
    with pytest.raises(DeviceError, match=r"cannot be opened: .*whether it is plugged in"):
        find_runner(MACHINE, "serial:/dev/no-such-port")
    held = find_runner(MACHINE, f"serial:{port}")
    with pytest.raises(DeviceError, match="another program has it open"):
        find_runner(MACHINE, f"serial:{port}@9600")
    del held
    importing = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "serial":
            raise ImportError
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BadInput, match=r"pip install 'sparrow-ai\[serial\]'"):
        find_runner(MACHINE, "serial:/dev/ttyUSB7")


def test_a_silent_line_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os
    import pty

    ours, theirs = pty.openpty()
    monkeypatch.setattr("sparrow.device.serial.CONNECT_S", 0.5)
    with pytest.raises(DeviceError, match=r"no answer for .* s; is sparrow_serve_uart running"):
        find_runner(MACHINE, f"serial:{os.ttyname(theirs)}")
    os.close(ours)
    os.close(theirs)


def test_frames_escape_what_lines_take_for_control() -> None:
    body = bytes(range(256))
    frame = encode(body)
    assert frame[0] == frame[-1] == 0x7E
    assert not set(frame[1:-1]) & {0x7E, 0x11, 0x13}
