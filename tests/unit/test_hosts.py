"""What differs on hosts that are not Linux, as far as it can be had here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sparrow
from sparrow.device.build import find_toolchain
from sparrow.timing.measure import machine_busy_s


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_what_a_terminal_cannot_show_is_escaped(tmp_path: Path, encoding: str) -> None:
    row = (Path(sparrow.__file__).parent / "targets" / "board" / "rpi4.toml").read_text("utf-8")
    path = tmp_path / "pi.toml"
    path.write_text(re.sub("(?m)^title = .*", 'title = "树莓派"', row), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sparrow", "targets", "show", str(path)],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u6811\\u8393\\u6d3e" in done.stdout


@pytest.mark.parametrize(
    ("override", "command"),
    [
        (r"C:\llvm\bin\clang.exe -m64", (r"C:\llvm\bin\clang.exe", "-m64")),
        (r'"C:\Program Files\llvm\clang.exe"', (r"C:\Program Files\llvm\clang.exe",)),
    ],
)
def test_a_compiler_of_windows_keeps_its_backslashes(
    override: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("sparrow.device.build._identify", repr)
    monkeypatch.setenv("SPARROW_CC", override)
    assert find_toolchain().command == command


def test_what_only_linux_tells_is_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_busy_s() > 0
    monkeypatch.setattr("sys.platform", "darwin")
    assert machine_busy_s() == 0
