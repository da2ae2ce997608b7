"""Honest timing: interleaved blocks, waiting for other threads, bootstrap intervals."""

from __future__ import annotations

import itertools
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparrow.tensor import Array

Times: TypeAlias = NDArray[np.float64]
Feeds: TypeAlias = Mapping[str, Array]
Outputs: TypeAlias = dict[str, Array]
Run: TypeAlias = Callable[[Feeds], Outputs]

# Workers spin on after an engine's last call (ONNX Runtime's for 33 ms) and would take a core from
# the next engine: wait for a window in which the process burns nothing. Its clock ticks in 4 ms.
QUIET_WINDOW_S = 0.010
QUIET_CPU_S = 0.001
QUIET_LIMIT_S = 0.5
# Above this share of the machine, other processes make an engine that waits for its second thread
# two to four times slower; such rows say so.
BUSY_SHARE = 0.05
RESAMPLES = 2000
# A block is timed in so many parts, and their median taken: when another process takes the core, it
# falls into one of them.
PARTS = 5


@dataclass(frozen=True, slots=True)
class Samples:
    """Per round the ns per call of a block; `runs` counts the calls of all rounds.

    `others` is the share of the machine's processor time that other processes took meanwhile.
    """

    ns: Times
    runs: int
    others: float

    def joined(self, other: Samples) -> Samples:
        """These rounds and those of another run."""
        a, b = len(self.ns), len(other.ns)
        others = (a * self.others + b * other.others) / (a + b)
        return Samples(np.concatenate([self.ns, other.ns]), self.runs + other.runs, others)


def cpu() -> str:
    """The CPU's name and how many of it this machine has."""
    return f"{cpuinfo('model name') or platform.processor()} x{os.cpu_count()}"


def cpu_model() -> str:
    """What identifies the CPU's kind: its name and, where Linux tells, family, model, stepping."""
    name = cpuinfo("model name") or platform.processor() or platform.machine() or "unknown"
    known = [cpuinfo(key) for key in ("cpu family", "model\t", "stepping")]
    return f"{name} {'.'.join(known)}" if all(known) else name


def cpuinfo(key: str) -> str:
    """The first value of `key` in Linux's cpuinfo; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith(key)), "")


def difference(outputs: Outputs, reference: Outputs) -> float:
    """Largest difference over all outputs, relative to each reference's largest magnitude.

    Infinite where names, shapes or non-finite places do not agree.
    """
    if outputs.keys() != reference.keys():
        return float("inf")
    worst = 0.0
    for name, want in reference.items():
        got = outputs[name]
        if got.shape != want.shape:
            return float("inf")
        wide, exact = got.astype(np.float64), want.astype(np.float64)
        if not np.array_equal(np.isfinite(wide), np.isfinite(exact)):
            return float("inf")
        finite = np.isfinite(exact)
        if finite.any():
            scale = np.abs(exact[finite]).max() or 1.0
            worst = max(worst, float(np.abs(wide[finite] - exact[finite]).max() / scale))
    return worst


def machine_busy_s() -> float:
    """Processor seconds spent by all processes since boot (Linux, in 10 ms ticks); 0 elsewhere."""
    path = Path("/proc/stat")
    if sys.platform != "linux" or not path.exists():
        return 0.0
    user, nice, system = path.read_text(encoding="utf-8").split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def settle() -> None:
    """Wait until no thread of this process runs.

    Raises:
        RuntimeError: Some thread never stops, so that engines cannot be told apart.
    """
    limit = time.perf_counter() + QUIET_LIMIT_S
    while time.perf_counter() < limit:
        before = time.process_time()
        time.sleep(QUIET_WINDOW_S)
        if time.process_time() - before < QUIET_CPU_S:
            return
    raise RuntimeError("an engine's threads keep running after its last call")


def block(run: Run, inputs: Sequence[Feeds], calls: int) -> float:
    """Ns per call over `calls` calls with changing inputs, after a quarter as many untimed.

    The median over `PARTS` of them, each of the mean of its calls.
    """
    for i in range(max(1, calls // 4)):
        run(inputs[i % len(inputs)])
    ends = np.linspace(0, calls, min(calls, PARTS) + 1).astype(int)
    means = []
    for first, end in itertools.pairwise(ends.tolist()):
        start = time.perf_counter_ns()
        for i in range(first, end):
            run(inputs[i % len(inputs)])
        means.append((time.perf_counter_ns() - start) / (end - first))
    return float(np.median(means))


def measure(
    runs: Mapping[str, Run], inputs: Sequence[Feeds], rounds: int, block_ms: float
) -> dict[str, Samples]:
    """Interleaved blocks of about `block_ms`, each engine once a round, in random order."""
    calls = {}
    for name, run in runs.items():
        block(run, inputs, 2)
        # the least of several: an interrupted one would make all blocks of this engine too short,
        # so that it alone is timed with cold caches
        ns = min(block(run, inputs, 1) for _ in range(PARTS))
        calls[name] = max(1, round(block_ms * 1e6 / ns))
    times = {name: np.zeros(rounds) for name in runs}
    rng = np.random.default_rng()
    start, busy, own = time.perf_counter(), machine_busy_s(), time.process_time()
    for i in range(rounds):
        for name in rng.permutation(list(runs)):
            settle()
            times[name][i] = block(runs[name], inputs, calls[name])
    available = (time.perf_counter() - start) * (os.cpu_count() or 1)
    used = machine_busy_s() - busy - (time.process_time() - own)
    others = max(0.0, used / available)
    return {name: Samples(times[name], calls[name] * rounds, others) for name in runs}


def interval(values: Times) -> tuple[float, float]:
    """Bootstrap 95 % interval of the median."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(np.median(values[picks], axis=1), (0.025, 0.975))
    return float(low), float(high)


def comparison(ratio: float, low: float, high: float, threads: int, others: float) -> str:
    """A ratio of times (above 1 is faster) in words.

    No speed-up is named when the interval contains 1, or for several threads on a busy machine;
    with one thread the interleaving copes.
    """
    note = busy_note(others)
    spread = f"[{low:.3f}, {high:.3f}]{note}"
    if low <= 1 <= high:
        return f"no difference shown {spread}"
    if note and threads > 1:
        return f"not comparable x{ratio:.3f} {spread}"
    return f"{'faster' if ratio > 1 else 'SLOWER'} x{ratio:.3f} {spread}"


def busy_note(others: float) -> str:
    """A remark when other processes took more than BUSY_SHARE of the machine."""
    return f"  (other processes took {others:.0%} of the machine)" if others > BUSY_SHARE else ""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median of how many times as long one takes as the other, with its 95 % interval."""

    median: float
    low: float
    high: float
    others: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Interleaved timings of several calls that do the same.

    Attributes:
        samples: By name.
        median_ns: Median time of one call, by name.
    """

    samples: Mapping[str, Samples]
    median_ns: Mapping[str, float]

    @property
    def rounds(self) -> int:
        """How often each was timed."""
        return min(len(s.ns) for s in self.samples.values())

    def with_rounds_of(self, other: Comparison) -> Comparison:
        """The rounds of both, of the same calls."""
        return _comparison({k: s.joined(other.samples[k]) for k, s in self.samples.items()})

    def ratio(self, slow: str, fast: str) -> Ratio:
        """Time of ``slow`` over time of ``fast``, taken within each round."""
        a, b = self.samples[slow], self.samples[fast]
        ratios = a.ns / b.ns
        return Ratio(float(np.median(ratios)), *interval(ratios), max(a.others, b.others))


def compare(
    runs: Mapping[str, Callable[[], object]], rounds: int = 20, block_ms: float = 20
) -> Comparison:
    """Time calls against each other, interleaved in random order.

    Raises:
        RuntimeError: Some thread of a peer never stops.
    """

    def bound(call: Callable[[], object]) -> Run:
        def run(_: Feeds) -> Outputs:
            call()
            return {}

        return run

    return _comparison(measure({k: bound(c) for k, c in runs.items()}, [{}], rounds, block_ms))


def _comparison(samples: Mapping[str, Samples]) -> Comparison:
    return Comparison(samples, {k: float(np.median(s.ns)) for k, s in samples.items()})
