"""The race against float32: what its times decide. Every time is given, none is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

import small_models
import sparrow
from sparrow import cli
from sparrow.errors import GateFailed
from sparrow.request import Budget
from sparrow.timing.measure import Comparison, Samples
from sparrow.timing.race import MOST_RACE_S, MOST_ROUNDS, RACE_ROUNDS, TIE
from sparrow.timing.remembered import Remembered

# Speeds of a build over that of float32, a round each: of every build that is raced in turn.
Races: TypeAlias = Callable[..., list[int]]
SHAPE = (1, 32, 8, 8)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Two convolutions."""
    rng = np.random.default_rng(3)
    weights = {f"w{i}": rng.standard_normal((32, 32, 3, 3), np.float32) / 17 for i in range(2)}
    nodes = [
        helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], f"c{i}", pads=[1, 1, 1, 1])
        for i in range(2)
    ]
    ends = [small_models.value(f"x{i}", SHAPE) for i in (0, 2)]
    return small_models.model(nodes, [ends[0]], [ends[1]], weights)


@pytest.fixture(scope="module")
def calls() -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(4)
    return [rng.standard_normal(SHAPE, np.float32) for _ in range(10)]


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> Races:
    """Gives races their speeds; returns the rounds of each time that clocks were asked."""

    def given(*races: Iterable[float]) -> list[int]:
        speeds = iter([iter(r) for r in races])
        asked: list[int] = []
        now: list[Mapping[str, object]] = []
        current: list[Iterable[float]] = []

        def compare(runs: Mapping[str, object], rounds: int, _: float) -> Comparison:
            if not now or now[-1] is not runs:
                now.append(runs)
                current.append(next(speeds))
            asked.append(rounds)
            ratios = np.array([next(iter(current[-1])) for _ in range(rounds)])
            ns = {"this": np.full(rounds, 1e3), "float32": 1e3 * ratios}
            samples = {k: Samples(v, rounds, 0.5) for k, v in ns.items()}
            return Comparison(samples, dict.fromkeys(ns, 1e3))

        monkeypatch.setattr("sparrow.timing.race.compare", compare)
        monkeypatch.setattr(Remembered, "recall", lambda _: None)
        monkeypatch.setattr(Remembered, "remember", lambda _, value: value)
        monkeypatch.setattr("sparrow.timing.race.time.monotonic", lambda: 0.0)
        return asked

    return given


def around(speed: float, spread: float) -> Iterable[float]:
    """Speeds for ever."""
    rng = np.random.default_rng(1)
    while True:
        yield speed * float(np.exp(spread * rng.standard_normal()))


def either(*speeds: float) -> Iterable[float]:
    """Now one, now another: no number of rounds narrows that."""
    rng = np.random.default_rng(2)
    while True:
        yield float(rng.choice(speeds))


def test_a_narrow_interval_decides_at_once(
    model: onnx.ModelProto, calls: list[NDArray[np.float32]], races: Races
) -> None:
    asked = races(around(1.5, 0.02))
    done = sparrow.build(model, calib=calls, precision="int8")
    assert asked == [RACE_ROUNDS]
    row = done.measurements["against_float32"]
    assert row["rounds"] == RACE_ROUNDS and row["low"] > 1.4


@pytest.mark.parametrize("speed", [1.0, 1.0 - TIE / 3])
def test_as_fast_as_float32_is_not_slower(
    model: onnx.ModelProto, calls: list[NDArray[np.float32]], races: Races, speed: float
) -> None:
    asked = races(around(speed, 0.1))
    done = sparrow.build(model, calib=calls, precision="int8")
    assert len(asked) > 1 and asked[:2] == [RACE_ROUNDS, RACE_ROUNDS]
    assert done.measurements["against_float32"]["rounds"] == sum(asked)


def test_rounds_are_added_until_a_slower_build_is_told(
    model: onnx.ModelProto, calls: list[NDArray[np.float32]], races: Races
) -> None:
    asked = races(around(0.9, 0.3))
    with pytest.raises(GateFailed, match=r"^budget not slower than float32: .*found 0\.9") as e:
        sparrow.build(model, calib=calls, precision="int8")
    assert len(asked) > 1 and e.value.gate == "not slower than float32"


def test_what_does_not_decide_is_refused_in_one_line(
    model: onnx.ModelProto,
    calls: list[NDArray[np.float32]],
    races: Races,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An interval of [0.37, 1.008] was once taken for a build that is not slower."""
    onnx.save(model, tmp_path / "m.onnx")
    np.save(tmp_path / "c.npy", np.stack(calls))
    asked = races(either(0.37, 1.008))
    words = [*("build", str(tmp_path / "m.onnx"), "--calib", str(tmp_path / "c.npy"))]
    with pytest.raises(SystemExit) as done:
        cli.main([*words, "--precision", "int8", "-o", str(tmp_path / "out")])
    assert done.value.code == 1 and not (tmp_path / "out").exists()
    assert sum(asked) == MOST_ROUNDS
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "not slower than float32 (undecided): " in line
    assert "[0.37, 1.00], which 240 rounds do not decide" in line
    assert "other processes took 50% of the machine" in line
    assert "a machine with nothing else to do decides" in line


def test_a_race_ends_in_time(
    model: onnx.ModelProto,
    calls: list[NDArray[np.float32]],
    races: Races,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = races(either(0.37, 1.008))
    clock = iter(np.arange(0.0, 9 * MOST_RACE_S, MOST_RACE_S / 3).tolist())
    monkeypatch.setattr("sparrow.timing.race.time.monotonic", lambda: next(clock))
    with pytest.raises(GateFailed, match="which 30 rounds do not decide"):
        sparrow.build(model, calib=calls, precision="int8")
    assert asked == [RACE_ROUNDS, RACE_ROUNDS]


@pytest.mark.parametrize("budget", [None, Budget(drop=0.5)])
@pytest.mark.parametrize("times", [(1.0, 0.02), None], ids=["tie", "undecided"])
def test_a_mix_that_is_not_shown_to_be_faster_yields_to_float32(
    model: onnx.ModelProto,
    calls: list[NDArray[np.float32]],
    races: Races,
    budget: Budget | None,
    times: tuple[float, float] | None,
) -> None:
    races(*((around(*times) if times else either(0.6, 1.4)) for _ in range(9)))
    done = sparrow.build(model, calib=calls, budget=budget).receipt
    assert done.precision == "float32" and done.search is not None
    assert {x.precision for x in done.search.layers} == {"float32"}
    if not min(done.search.mixes, key=lambda m: m.ns).chosen:
        told = "faster than float32" + (": " if times else " (undecided): ")
        assert told in done.search.binds


def test_a_mix_that_a_goal_needs_is_taken_though_it_gains_no_time(
    model: onnx.ModelProto, calls: list[NDArray[np.float32]], races: Races
) -> None:
    plain = sparrow.build(model, precision="float32").receipt.memory
    size = plain.code_bytes + plain.weights_bytes
    races(*(around(1.0, 0.02) for _ in range(9)))
    done = sparrow.build(model, calib=calls, budget=Budget(drop=0.5, size=size - 1)).receipt
    assert done.precision != "float32"
    assert done.memory.code_bytes + done.memory.weights_bytes < size
