"""A bundle's calls on its device: their time, and how it changes over minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sparrow.bundle import Bundle
from sparrow.device.conditions import Conditions
from sparrow.device.host import Session
from sparrow.device.remote import RemoteSession
from sparrow.folder import load_evidence
from sparrow.tensor import Array
from sparrow.timing.latency import Latency, call_times, check_threads, latency, remarks
from sparrow.timing.measure import Times
from sparrow.timing.profiling import call_inputs, of_device, record

MEASURE_S = 1.0
# Points of a curve, and what one takes at least.
POINTS = 120
POINT_S = 0.5
# Calls of one request, whose times come back one by one.
_BATCH = 2000


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of a long run.

    Attributes:
        seconds: Since its begin.
        median_ns: Of the calls around it.
        mhz: Highest clock of the cores then; 0 where the device does not tell.
        celsius: Temperature then; None where the device does not tell.
    """

    seconds: float
    median_ns: float
    mhz: int
    celsius: float | None


@dataclass(frozen=True, slots=True)
class Sustained:
    """Time of a call while calls follow each other for minutes.

    Attributes:
        entry: Entry point.
        device: Where it ran.
        seconds: For how long.
        runs: Calls in all.
        points: The curve.
        conditions: What the device said of itself at the end.
        remarks: What makes the figures doubtful.
    """

    entry: str
    device: str
    seconds: float
    runs: int
    points: tuple[Point, ...]
    conditions: Conditions
    remarks: tuple[str, ...]

    @property
    def first_ns(self) -> float:
        """Of the first tenth."""
        return self._median(slice(None, max(1, len(self.points) // 10)))

    @property
    def last_ns(self) -> float:
        """Of the last third: what stays."""
        return self._median(slice(-max(1, len(self.points) // 3), None))

    def _median(self, part: slice) -> float:
        return float(np.median([p.median_ns for p in self.points[part]]))

    def __str__(self) -> str:
        change = self.last_ns / self.first_ns - 1
        line = (
            f"{self.entry}: {self.first_ns / 1e3:.1f} us at first, {self.last_ns / 1e3:.1f} us "
            f"sustained ({change:+.1%}), {self.runs} calls in {self.seconds:.0f} s"
        )
        where = [f"on {self.device}: {self.conditions}"] if str(self.conditions) else []
        return "\n".join([line, *where, *(f"note: {r}" for r in self.remarks)])

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``--json`` and ``measurements.json``."""
        return {**asdict(self), "first_ns": self.first_ns, "last_ns": self.last_ns}


@contextmanager
def _timed(bundle: Bundle, entry: int) -> Iterator[tuple[Session | RemoteSession, list[Array]]]:
    session = bundle.session
    assert isinstance(session, Session | RemoteSession)
    check_threads(session, bundle.threads)
    graphs, golden = load_evidence(bundle.folder, bundle.plan)
    session.reset()
    yield session, call_inputs(graphs, golden, entry)
    session.reset()


def _times_for(
    session: Session | RemoteSession, entry: int, inputs: Sequence[Array], seconds: float
) -> Times:
    """Times of calls that follow each other for ``seconds``, at least one."""
    end = time.monotonic() + seconds
    found = [call_times(session, entry, inputs, 1)]
    while (left := end - time.monotonic()) > 0:
        count = int(left * 1e9 / max(float(found[-1][-1]), 100.0))
        found.append(call_times(session, entry, inputs, min(_BATCH, max(1, count))))
    return np.concatenate(found)


def bench_bundle(bundle: Bundle, entry: int, seconds: float = MEASURE_S) -> Latency:
    """Time calls of an entry point on its first golden inputs, and record it in the bundle.

    Raises:
        BadInput: Time where it runs says nothing of the device.
        DeviceError: The device was lost.
    """
    with _timed(bundle, entry) as (session, inputs):
        found = latency(session, entry, inputs, seconds, bundle.runner.conditions)
    done = replace(found, device=bundle.device)
    record(bundle.folder, "latencies", {**asdict(done), **of_device(done.conditions)})
    return done


def sustain_bundle(
    bundle: Bundle, entry: int, seconds: float, progress: Callable[[str], None] = lambda _: None
) -> Sustained:
    """Call an entry point for ``seconds`` without a break, and record the curve in the bundle.

    Raises:
        BadInput: Time where it runs says nothing of the device.
        DeviceError: The device was lost.
    """
    every_s = max(POINT_S, seconds / POINTS)
    points: list[Point] = []
    medians: list[float] = []
    runs = 0
    with _timed(bundle, entry) as (session, inputs):
        before = after = bundle.runner.conditions()
        start = time.monotonic()
        while (now := time.monotonic() - start) < seconds or not points:
            times = _times_for(session, entry, inputs, min(every_s, seconds))
            runs += len(times)
            medians.append(float(np.median(times)))
            after = bundle.runner.conditions()
            clock = max(after.mhz, default=0)
            points.append(Point(round(now, 2), medians[-1], clock, after.celsius))
            progress(f"{now:.0f} of {seconds:.0f} s, {medians[-1] / 1e3:.1f} us a call")
    done = Sustained(
        bundle.plan.entries[entry].name,
        bundle.device,
        seconds,
        runs,
        tuple(points),
        after,
        remarks(np.array(medians), before, after),
    )
    record(bundle.folder, "sustained", {**done.as_json(), **of_device(after)})
    return done


__all__ = ["Point", "Sustained", "bench_bundle", "sustain_bundle"]
