"""What a build takes on this machine: time of its calls and steps, and the race against float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
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
from sparrow.timing.measure import compare
from sparrow.timing.profiling import call_inputs, machine, profile_session
from sparrow.timing.remembered import Remembered

MEASURE_S = 0.1
# Gates of time, which no hash and no second run can repeat.
RIVAL = "not slower than float32"
TIMED = ("latency", RIVAL)
# Rounds and block length of the race against the float32 build.
RACE_ROUNDS = 15
RACE_BLOCK_MS = 4.0


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
) -> tuple[Gate, dict[str, Any]]:
    """Interleaved times of this build and the float32 one of the same network.

    Every entry point runs; the one that gains least decides. A race that was not lost is not run
    again for the same code on the same machine.
    """
    files, target = rival.artifact.files, rival.plan.target.machine
    if files["model.c"] == compiled.artifact.files["model.c"]:
        return Gate(RIVAL, "an interval that reaches 1", "the same code", True), {}
    key = Remembered(
        "race of entries", [files["model.c"], compiled.artifact.files["model.c"]], threads
    )
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
            done = compare(runs, RACE_ROUNDS, RACE_BLOCK_MS)
            r = done.ratio("float32", "this")
            row = {"entry": g.name, "ratio": r.median, "low": r.low, "high": r.high}
            rows.append({**row, **done.median_ns})
        found = min(rows, key=lambda row: row["high"])
        if found["high"] >= 1.0:
            found = key.remember(found)
    # rounded down: what falls short of 1 is not shown as 1
    high = floor(100 * found["high"]) / 100
    text = f"{found['ratio']:.2f}x its speed [{found['low']:.2f}, {high:.2f}]"
    text += f" (entry point {found['entry']})" if len(graphs) > 1 else ""
    return Gate(RIVAL, "an interval that reaches 1", text, found["high"] >= 1.0), found


__all__ = ["TIMED", "measure_build", "race"]
