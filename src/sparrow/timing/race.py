"""What a build takes on this machine: time of its calls and steps, and the race against float32."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import floor
from typing import Any

import numpy as np

from sparrow.compiler import Compiled
from sparrow.device.host import HostLibrary, Session
from sparrow.device.library import compile_library
from sparrow.evidence.gate import Gate
from sparrow.evidence.golden import Golden
from sparrow.evidence.plan_record import PlanRecord
from sparrow.graph import Graph
from sparrow.tensor import Array
from sparrow.timing.latency import latency
from sparrow.timing.measure import Comparison, Ratio, busy_note, compare
from sparrow.timing.profiling import call_inputs, machine, profile_session
from sparrow.timing.remembered import Remembered

MEASURE_S = 0.1
# Rounds and block length of the race against the float32 build; rounds are added, as many as there
# are, while the interval does not decide, up to so many in so many seconds.
RACE_ROUNDS = 15
RACE_BLOCK_MS = 4.0
MOST_ROUNDS = 240
MOST_RACE_S = 10.0
# Speeds that differ by less are one: no interval becomes so narrow that two equal builds are told
# from one that is slower by nothing.
TIE = 0.03


@dataclass(frozen=True, slots=True)
class Bar:
    """What a build has to show against the float32 one.

    Attributes:
        name: Of the gate.
        speed: Of the float32 build's speed: an interval that does not reach it fails, one that
            begins at less than `TIE` below it passes, and another does not decide.
    """

    name: str
    speed: float

    @property
    def expected(self) -> str:
        """In words."""
        return f"an interval that reaches {self.speed:g} and begins at {self.speed - TIE:g}"

    def passed(self, low: float, high: float) -> bool | None:
        """Whether an interval passes; None where it does not decide."""
        if high < self.speed:
            return False
        return True if low >= self.speed - TIE else None


NOT_SLOWER = Bar("not slower than float32", 1.0)
# Of what is worth taking for its speed alone: what is as fast as float32 is less exact for nothing.
FASTER = Bar("faster than float32", 1.0 + TIE)
# Of a race that shows neither; what is not shown is not claimed.
UNDECIDED = " (undecided)"
# Gates of time, which no hash and no second run can repeat.
TIMED = ("latency", NOT_SLOWER.name, FASTER.name)


def measure_build(
    shipped: HostLibrary,
    hooked: HostLibrary,
    plan: PlanRecord,
    graphs: Sequence[Graph],
    golden: Golden,
    threads: int,
    blob: Array | None,
) -> dict[str, Any]:
    """Latencies of every entry point and, of the build with hooks, of each of its steps, as JSON.

    Args:
        shipped: The library of the bundle.
        hooked: The same with hooks.
        plan: What it says of the steps.
        graphs: Entry points.
        golden: Calls whose inputs are measured with.
        threads: Threads of a call.
        blob: Weights, bytes; None where there are none.
    """
    times, profiles = [], []
    plain = Session(shipped, blob, threads=threads)
    tapped = Session(hooked, blob, threads=threads)
    for e in range(len(graphs)):
        inputs = call_inputs(graphs, golden, e)
        times.append({**machine(), **asdict(latency(plain, e, inputs, MEASURE_S))})
        done = profile_session(tapped, plan, e, inputs, 0, MEASURE_S)
        profiles.append({**machine(), **done.as_json()})
    return {"latencies": times, "profiles": profiles}


def race(
    rival: Compiled,
    compiled: Compiled,
    shipped: HostLibrary,
    graphs: Sequence[Graph],
    golden: Golden,
    threads: int,
    blob: Array | None,
    bar: Bar = NOT_SLOWER,
) -> tuple[Gate, dict[str, Any]]:
    """Interleaved times of this build and the float32 one of the same network.

    Every entry point runs. The one that gains least decides whether the build is slower; where none
    is, the one that gains most whether it is faster. A race that was decided and not lost is not
    run again for the same code on the same machine.
    """
    files, target = rival.artifact.files, rival.plan.target.machine
    if files["model.c"] == compiled.artifact.files["model.c"]:
        return Gate(NOT_SLOWER.name, NOT_SLOWER.expected, "the same code", True), {}
    code = [files["model.c"], compiled.artifact.files["model.c"]]
    key = Remembered(f"race, {bar.name}", code, threads)
    found = key.recall()
    if found is None:
        weights = np.frombuffer(rival.plan.weights, np.uint8) if rival.plan.weights else None
        other = HostLibrary(compile_library(files, target, rival.artifact.parts))
        rows: list[dict[str, Any]] = []
        for e, g in enumerate(graphs):
            runs = {}
            for name, library, w in (("this", shipped, blob), ("float32", other, weights)):
                session = Session(library, w, threads=threads)
                runs[name] = partial(session.run, e, call_inputs(graphs, golden, e))
            done, r = _raced(runs, bar)
            row = {"entry": g.name, "ratio": r.median, "low": r.low, "high": r.high}
            row |= {"rounds": done.rounds, "others": r.others}
            rows.append({**row, **done.median_ns})
        found = min(rows, key=lambda row: (_not_slower(row), row["high"]))
        if bar is not NOT_SLOWER and _not_slower(found):
            found = max(rows, key=lambda row: row["low"])
        if _not_slower(found) and bar.passed(found["low"], found["high"]) is not None:
            found = key.remember(found)
    return _gate(found, bar, len(graphs) > 1), found


def _raced(runs: Mapping[str, Callable[[], object]], bar: Bar) -> tuple[Comparison, Ratio]:
    """Times of both builds, and their ratio: of as many rounds as decide it, within bounds."""
    start = time.monotonic()
    done = compare(runs, RACE_ROUNDS, RACE_BLOCK_MS)
    while True:
        r = done.ratio("float32", "this")
        spent = time.monotonic() - start
        more = 2 * done.rounds <= MOST_ROUNDS and 2 * spent <= MOST_RACE_S
        if bar.passed(r.low, r.high) is not None or not more:
            return done, r
        done = done.with_rounds_of(compare(runs, done.rounds, RACE_BLOCK_MS))


def _not_slower(row: Mapping[str, Any]) -> bool:
    return bool(NOT_SLOWER.passed(row["low"], row["high"]))


def _gate(found: Mapping[str, Any], bar: Bar, several: bool) -> Gate:
    """The outcome of a race; what is slower failed no more than that, whatever was asked of it."""
    low, high = found["low"], found["high"]
    passed = bar.passed(low, high)
    asked = NOT_SLOWER if NOT_SLOWER.passed(low, high) is False else bar
    # rounded down: what falls short of a bar is not shown as reaching it
    text = f"{found['ratio']:.2f}x its speed [{floor(100 * low) / 100:.2f}, "
    text += f"{floor(100 * high) / 100:.2f}]"
    text += f" (entry point {found['entry']})" if several else ""
    if passed is None:
        text += f", which {found['rounds']} rounds do not decide{busy_note(found['others'])}"
    return Gate(asked.name + UNDECIDED * (passed is None), asked.expected, text, bool(passed))


__all__ = ["FASTER", "NOT_SLOWER", "TIMED", "UNDECIDED", "Bar", "measure_build", "race"]
