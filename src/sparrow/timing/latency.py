"""Time of whole calls, under which conditions, and what makes it doubtful."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sparrow.device.conditions import Conditions
from sparrow.device.host import Session
from sparrow.device.remote import RemoteSession
from sparrow.errors import BadInput
from sparrow.tensor import Array
from sparrow.timing.measure import Times, busy_note, interval, machine_busy_s

# Half of the calls further apart than this share of their median: noisy.
NOISY = 0.05
# The last quarter slower than the first by this share: the device slowed down, or was made to.
SLOWED = 0.05
# Fewer calls say nothing of either.
_FEWEST = 20


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one call of an entry point: median and bootstrap 95 % interval.

    Attributes:
        entry: Entry point.
        threads: Threads per call.
        runs: Calls measured.
        median_ns: Median.
        low_ns: Lower end of the interval.
        high_ns: Upper end.
        others: Share of this machine's processor time that other processes took.
        device: Where it ran, one of `DEVICES`.
        conditions: What the device said of itself at the end.
        remarks: What makes the figure doubtful.
    """

    entry: str
    threads: int
    runs: int
    median_ns: float
    low_ns: float
    high_ns: float
    others: float
    device: str = "host"
    conditions: Conditions = field(default_factory=Conditions)
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        spread = f"[{self.low_ns / 1e3:.1f}, {self.high_ns / 1e3:.1f}]"
        line = (
            f"{self.entry}: {self.median_ns / 1e3:.1f} us {spread}, "
            f"{self.threads} thread(s){busy_note(self.others)}"
        )
        where = [f"on {self.device}: {self.conditions}"] if str(self.conditions) else []
        return "\n".join([line, *where, *(f"note: {r}" for r in self.remarks)])


def call_times(
    session: Session | RemoteSession, entry: int, inputs: Sequence[Array], runs: int
) -> Times:
    """Nanoseconds of each of ``runs`` calls, on the clock of where they run.

    Raises:
        BadInput: Time there says nothing of the device, as in an emulator.
    """
    if isinstance(session, RemoteSession):
        return session.time_calls(entry, inputs, runs).astype(np.float64)
    info = session.library.info.entries[entry]
    out = [np.empty(t.shape, t.numpy) for t in info.outputs]
    times = np.zeros(runs)
    for i in range(runs):
        start = time.perf_counter_ns()
        session.run(entry, inputs, out)
        times[i] = time.perf_counter_ns() - start
    return times


def latency(
    session: Session | RemoteSession,
    entry: int,
    inputs: Sequence[Array],
    seconds: float,
    conditions: Callable[[], Conditions] = Conditions,
) -> Latency:
    """Median time of a call over about ``seconds``; ``conditions`` asks the device it runs on."""
    before = conditions()
    # the second call: the first one finds cold caches and, on a board, a line to open
    once = max(float(call_times(session, entry, inputs, 2)[1]), 100.0)
    runs = max(5, min(2000, int(seconds * 1e9 / once)))
    began, busy, own = time.perf_counter(), machine_busy_s(), time.process_time()
    times = call_times(session, entry, inputs, runs)
    available = (time.perf_counter() - began) * (os.cpu_count() or 1)
    used = machine_busy_s() - busy - (time.process_time() - own)
    here = isinstance(session, Session)
    share = max(0.0, used / available) if here and runs * once > 1e8 else 0.0
    # the bootstrap is slow on many samples: every k-th call will do
    some = times[:: -(-runs // 400)]
    low, high = interval(some)
    after = conditions()
    return Latency(
        session.library.info.entries[entry].name,
        session.pool.threads if isinstance(session, Session) and session.pool else 1,
        runs,
        float(np.median(some)),
        low,
        high,
        share,
        conditions=after,
        remarks=remarks(times, before, after),
    )


def remarks(times: Times, before: Conditions, after: Conditions) -> tuple[str, ...]:
    """What makes times doubtful: spread, slowing down, and limits that the device names.

    Args:
        times: Of calls, in order.
        before: Of the device before them.
        after: Of the device after them.
    """
    found = list(dict.fromkeys((*before.limits, *after.limits)))
    if after.throttles > before.throttles:
        found.append(f"the CPU throttled {after.throttles - before.throttles} times meanwhile")
    if len(times) < _FEWEST:
        return tuple(found)
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75))
    quarter = len(times) // 4
    first, last = np.median(times[:quarter]), np.median(times[-quarter:])
    if not middle or not first:  # calls that the clock does not notice
        return tuple(found)
    if high - low > NOISY * middle:
        found.append(f"noisy: half of the calls lie {(high - low) / middle:.0%} apart")
    slower = float(last / first) - 1
    if slower > SLOWED:
        found.append(f"throttled? the last calls are {slower:.0%} slower than the first")
    return tuple(found)


def check_threads(session: Session | RemoteSession, threads: int) -> None:
    """Check that a session is timed with the threads that were asked for.

    Raises:
        BadInput: It runs on another device, where there is one.
    """
    if threads > 1 and isinstance(session, RemoteSession):
        raise BadInput(f"--threads {threads}: calls on another device use one thread")
