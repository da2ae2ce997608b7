"""Times of calls where they run: under which conditions, what makes them doubtful, over minutes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import native_harness as harness
import sparrow
from fake_adbd import Phone
from small_models import classifier
from sparrow.cli import main
from sparrow.device.conditions import (
    Conditions,
    choose_cores,
    conditions,
    parse_spans,
    read_here,
    spans,
)
from sparrow.errors import BadInput
from sparrow.targets import target
from sparrow.timing.benchmark import bench_bundle
from sparrow.timing.latency import remarks

CPU = "/sys/devices/system/cpu"
EVEN = np.full(100, 1000.0)


@pytest.fixture
def mine(folder: Path, tmp_path: Path) -> Path:
    """A copy of the bundle to write to."""
    return Path(shutil.copytree(folder, tmp_path / "mine"))


def bench(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *words])
    found = capsys.readouterr()
    assert ended.value.code == 0, found.err
    return found.out


def test_a_phone_is_timed_with_what_it_says_of_itself(
    phone: Phone, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = bench(capsys, str(mine), "--device", "adb", "--cores", "0", "--json")
    (row,) = json.loads(out)
    assert row["device"] == "adb" and row["runs"] >= 5
    assert 0 < row["low_ns"] <= row["median_ns"] <= row["high_ns"]
    said = row["conditions"]
    assert said["cores"] == [0] and said["governor"] == "schedutil" and said["celsius"] == 61.5
    assert said["mhz"] == [1800] and said["full_mhz"] == [1800]
    kept = json.loads((mine / "measurements.json").read_bytes())["latencies"][-1]
    # of the phone, not of this machine
    assert (kept["cpu"], kept["cores"], kept["conditions"]) == ("Pixel Tensor G9", 1, said)
    shown = bench(capsys, str(mine), "--device", "adb")
    assert "on adb: Pixel Tensor G9, cores 0-7, 1800-2100 MHz of 1800-2800" in shown
    assert "note: core 4 is capped at 2100 of 2800 MHz" in shown


def test_a_long_run_is_drawn_in_the_report(
    phone: Phone, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = bench(capsys, str(mine), "--device", "adb", "--sustained", "2s")
    assert "us sustained (" in out and f"curve: {mine / 'report.html'}" in out
    page = (mine / "report.html").read_text(encoding="utf-8")
    for label in ("time of a call, us", "clock, MHz", "temperature, degrees Celsius"):
        assert f'aria-label="{label}"' in page
    (row,) = json.loads((mine / "measurements.json").read_bytes())["sustained"]
    assert len(row["points"]) >= 2 and all(p["mhz"] == 2100 for p in row["points"])
    assert row["cpu"] == "Pixel Tensor G9"
    sparrow.load_bundle(mine).verify()


def test_this_machine_is_timed_too(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "1 thread(s)" in bench(capsys, str(mine), "--against", "none")
    with pytest.raises(SystemExit):
        main(["profile", str(mine), "--sustained", "1s"])
    assert "us at first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--against", "tensorflow"), "there are onnxruntime and none"),
        (("--sustained", "10"), "write a number with one of"),
        (("--sustained", "1ms"), "from 1s to 24h"),
        (("--device", "adb", "--threads", "2"), "one thread"),
        (("--cores", "big", "--against", "none"), "--cores is for the devices ssh and adb"),
    ],
)
def test_what_cannot_be_timed_is_one_line(
    words: tuple[str, ...],
    said: str,
    phone: Phone,
    mine: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", str(mine), *words])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_an_emulator_is_not_timed_and_an_engine_is(tmp_path: Path) -> None:
    harness.node()
    there = sparrow.build(classifier(), "wasm32_simd", tmp_path / "web")
    assert bench_bundle(there, 0, 0.05).median_ns > 0
    harness.emulator(target("aarch64").machine)
    emulated = sparrow.build(classifier(), "aarch64", tmp_path / "arm")
    with pytest.raises(BadInput, match="time in an emulator"):
        bench_bundle(emulated, 0)


def test_remarks_name_what_makes_times_doubtful() -> None:
    calm = Conditions()
    assert remarks(EVEN, calm, calm) == ()
    spread = np.where(np.arange(100) % 2, 1000.0, 1200.0)
    (noisy,) = remarks(spread, calm, calm)
    assert noisy.startswith("noisy: half of the calls lie 1")
    (slow,) = remarks(np.repeat((1000.0, 1000.0, 1000.0, 1100.0), 25), calm, calm)
    assert slow == "throttled? the last calls are 10% slower than the first"
    (told,) = remarks(EVEN, replace(calm, throttles=3), replace(calm, throttles=5))
    assert told == "the CPU throttled 2 times meanwhile"
    limited = replace(calm, limits=("under-voltage",))
    assert remarks(EVEN, limited, limited) == ("under-voltage",)
    assert remarks(spread[:5], calm, calm) == ()


def test_conditions_are_read_from_the_files_of_linux() -> None:
    files = {
        f"{CPU}/online": "0-1",
        **{f"{CPU}/cpu{c}/cpufreq/cpuinfo_max_freq": "1500000" for c in (0, 1)},
        **{f"{CPU}/cpu{c}/cpufreq/scaling_max_freq": "1500000" for c in (0, 1)},
        f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "600000",
        f"{CPU}/cpu1/cpufreq/scaling_cur_freq": "1500000",
        f"{CPU}/cpu0/cpufreq/scaling_governor": "ondemand",
        f"{CPU}/cpu1/cpufreq/scaling_governor": "performance",
        f"{CPU}/cpu1/thermal_throttle/core_throttle_count": "7",
        "/sys/class/thermal/thermal_zone0/type": "cpu-thermal",
        "/sys/class/thermal/thermal_zone0/temp": "61300",
        "/sys/devices/platform/soc/soc:firmware/get_throttled": "50005",
    }
    now = conditions(files, "Pi")
    assert now == Conditions(
        *("Pi", (0, 1), "ondemand, performance", (600, 1500), (1500, 1500)),
        *(("under-voltage", "throttled"), 61.3, 7),
    )
    assert str(now) == "Pi, cores 0-1, 600-1500 MHz of 1500, ondemand, performance, 61 C"
    assert conditions({}) == Conditions()
    with pytest.raises(BadInput, match="alike, or it does not say"):
        choose_cores("big", files)


def test_files_of_this_machine_are_read_below_a_root(tmp_path: Path) -> None:
    path = tmp_path / f"{CPU}/cpu3/cpufreq/scaling_governor".lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_text("powersave\n")
    assert read_here(root=tmp_path) == {f"{CPU}/cpu3/cpufreq/scaling_governor": "powersave"}


def test_spans_read_back() -> None:
    for cores in ((0,), (0, 1, 2, 3), (0, 2, 3, 6)):
        assert parse_spans(spans(cores)) == cores
    for text in ("", "a", "3-1", "-1", "1-", "0-99999"):
        with pytest.raises(ValueError):
            parse_spans(text)
