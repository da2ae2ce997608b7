"""Bundles on another machine over ssh: a server of our own on this one stands for it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import sparrow
from axpy import MODEL, axpy_weights, random_inputs
from loopback_sshd import HOST, Server, loopback_sshd
from sparrow.cli import main
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.cpu import host_isa
from sparrow.device.here import host_machine
from sparrow.device.runners import find_runner
from sparrow.errors import BadInput, DeviceError
from sparrow.targets import target

DEVICE = f"ssh:{HOST}"
HERE = host_machine(host_isa())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with loopback_sshd(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture
def board(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, known to the client; afterwards nothing must be left on it."""
    monkeypatch.setenv("PATH", f"{server.folder / 'bin'}:{os.environ['PATH']}")
    server.configure()
    server.trust("host")
    yield server
    gc.collect()
    assert server.left() == []


def inputs() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((1, 3, 12, 12), np.float32)


def test_a_bundle_runs_and_is_timed_there(board: Server, folder: Path) -> None:
    there = sparrow.load_bundle(folder, device=DEVICE)
    x = inputs()
    np.testing.assert_array_equal(there.run(x)["y"], sparrow.load_bundle(folder).run(x)["y"])
    (work,) = board.scratch.iterdir()
    assert work.stat().st_mode & 0o077 == 0
    profile = there.profile(runs=5)
    assert len(profile.steps) == len(there.plan.entries[0].steps)
    assert all(s.ns > 0 for s in profile.steps)
    assert there.runner.conditions().cores


def test_a_bundle_is_proved_there(
    board: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(folder), "--device", DEVICE])
    assert ended.value.code == 0
    assert "every layer within its own bound: 6 of 6" in capsys.readouterr().out


def test_a_program_stays_on_the_cores_it_is_given(board: Server, folder: Path) -> None:
    last = max(os.sched_getaffinity(0))
    there = sparrow.load_bundle(folder, device=DEVICE, cores=f"{last}")
    assert there.runner.conditions().cores == (last,)
    running = board.programs()
    assert running
    assert {frozenset(os.sched_getaffinity(pid)) for pid in running} == {frozenset({last})}
    with pytest.raises(BadInput, match="--cores 0-63: the device has"):
        find_runner(HERE, DEVICE, "0-63")
    with pytest.raises(BadInput, match="use big, little, or a list"):
        find_runner(HERE, DEVICE, "many")
    with pytest.raises(BadInput, match="not host"):
        find_runner(HERE, "host", "0")


def test_what_the_shell_prints_at_its_start_is_skipped(board: Server, folder: Path) -> None:
    keys = board.folder / "authorized"
    plain = keys.read_text()
    keys.write_text(f'command="echo welcome; eval \\"$SSH_ORIGINAL_COMMAND\\"" {plain}')
    try:
        sparrow.load_bundle(folder, device=DEVICE).run(inputs())
    finally:
        keys.write_text(plain)


@pytest.mark.parametrize(
    ("trusted", "options", "said"),
    [
        ((), {}, "host key is not known yet: connect once with `ssh board`"),
        (("other",), {}, "find out why, then remove the old one with ssh-keygen -R"),
        (("host",), {"IdentityFile": "/nowhere"}, "ssh-copy-id board"),
        (("host",), {"Port": "1"}, "see whether the device is on and sshd runs"),
        (("host",), {"HostName": "no.such.host.invalid"}, "whether the name is right"),
    ],
)
def test_a_machine_that_lets_nobody_in_is_one_line(
    trusted: tuple[str, ...],
    options: dict[str, str],
    said: str,
    board: Server,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    board.trust(*trusted)
    board.configure(**options)
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(folder), "--device", DEVICE])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {DEVICE}: ") and said in error and error.count("\n") == 1


def test_devices_that_cannot_be(board: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ssh", "ssh:", "ssh:-oProxyCommand=x"):
        with pytest.raises(BadInput, match="ssh:user@host"):
            find_runner(HERE, name)
    with pytest.raises(DeviceError, match="is x86_64, the bundle is for riscv64"):
        find_runner(target("riscv64").machine, DEVICE)
    for name in ("aarch64_macos", "cortex_m4f"):
        with pytest.raises(BadInput, match="runs programs for Linux"):
            find_runner(target(name).machine, DEVICE)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadInput, match="install the OpenSSH client"):
        find_runner(HERE, DEVICE)


def test_instructions_that_the_cpu_lacks_are_one_line(board: Server, tmp_path: Path) -> None:
    text = MODEL.read_text(encoding="utf-8").replace(
        "model_run(const sparrow_call *call) {",
        'model_run(const sparrow_call *call) {\n  __asm__ volatile("ud2");',
    )
    tools = find_toolchain()
    path = tools.link_shared(
        tools.compile_objects([Unit("dies.c", text, (NATIVE,))], HERE), HERE, tmp_path / "dies.so"
    )
    session = find_runner(HERE, DEVICE).load(path).open(axpy_weights(1))
    with pytest.raises(DeviceError, match=r"dies\.so: Illegal instruction.*lacks instructions"):
        session.run(0, list(random_inputs()))


def test_a_line_that_breaks_is_one_line(board: Server, folder: Path) -> None:
    there = sparrow.load_bundle(folder, device=DEVICE)
    there.run(inputs())
    for pid in board.sessions():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(DeviceError, match=r"ssh:board: .*(lost|closed|Broken|ended|reset)"):
        for _ in range(100):
            there.run(inputs())
            time.sleep(0.05)
    assert board.left() == []


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_killed_run_leaves_nothing_there(board: Server, folder: Path, how: int) -> None:
    text = (
        "import sparrow, sys, time\n"
        f"b = sparrow.load_bundle({str(folder)!r}, device={DEVICE!r})\n"
        "print('ready', flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    assert list(board.scratch.iterdir())
    process.send_signal(how)
    process.wait()
    process.stdout.close()
    assert board.left() == []
