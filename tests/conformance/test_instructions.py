"""Instructions per step, counted in the emulator: exact, repeatable, and about the right size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import native_harness as harness
import sparrow
from small_models import classifier
from sparrow.bundle import Bundle
from sparrow.cli import app, run_command
from sparrow.device.here import resolve_target
from sparrow.errors import BadInput
from sparrow.targets import target
from sparrow.timing.instructions import per_step


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    harness.emulator(target("aarch64").machine)
    return sparrow.build(classifier(), "aarch64", tmp_path_factory.mktemp("count") / "out")


def test_counts_are_the_same_every_time(built: Bundle) -> None:
    one, two = built.instructions(), built.instructions()
    assert one == two
    assert [s.step for s in one.steps] == [s.index for s in built.plan.entries[0].steps]
    assert one.total == sum(s.instructions for s in one.steps)
    rows = json.loads((built.folder / "measurements.json").read_bytes())["instructions"]
    assert rows[-1]["total"] == one.total


def test_a_step_takes_no_fewer_instructions_than_its_operations_need(built: Bundle) -> None:
    # 8: a fused multiply-add of four lanes
    for s in built.instructions().steps:
        assert 0 < s.flops_per_instruction <= 8, s


def test_the_command_counts_where_time_would_say_nothing(
    built: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["profile", str(built.folder)]
    assert run_command(lambda: app(words, prog_name="sparrow", standalone_mode=False)) == 0
    assert f"{built.instructions().total:,} instructions" in capsys.readouterr().out


def test_a_bundle_of_this_machine_can_be_counted_too(tmp_path: Path) -> None:
    machine = target("x86_64").machine
    harness.emulator(machine)
    if machine.arch != resolve_target("host").machine.arch:
        pytest.skip("another architecture")
    sparrow.build(classifier(), "x86_64", tmp_path / "out")
    bundle = sparrow.load_bundle(tmp_path / "out")
    with pytest.raises(BadInput, match="device qemu"):
        bundle.instructions()
    counted = sparrow.load_bundle(tmp_path / "out", device="qemu")
    assert counted.instructions().total > 1000
    assert counted.verify("qemu").ok


def test_a_step_that_runs_twice_counts_twice() -> None:
    marks = [(0, 1, 10), (0, 0, 15), (1, 1, 20), (1, 0, 21), (0, 1, 30), (0, 0, 32)]
    assert per_step(marks) == [7, 1]
