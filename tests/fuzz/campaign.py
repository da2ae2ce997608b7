"""Runs cases in worker processes, counts them, and keeps what breaks the contract."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Most cases per worker process: a leak shows as memory above the baseline well before its end.
BATCH = 20_000
# Wall time without progress after which a worker counts as hung; the machine may be busy.
HUNG_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Violation:
    """A case that broke the contract; ``target``, ``seed`` and ``index`` make it again."""

    target: str
    seed: int
    index: int
    kind: str
    detail: str


@dataclass(slots=True)
class Tally:
    """What a range of cases came to."""

    target: str
    seed: int
    start: int
    cases: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    violations: list[Violation] = field(default_factory=list)


def _scratch() -> Path:
    """A new folder, in memory where the system has such a place."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir=shared if shared.is_dir() else None))


def worker(target_name: str, seed: int, start: int, stop: int, out: Path) -> None:
    """Run cases ``start`` to ``stop`` and write a Tally; `out` also holds the current index.

    Ends early after a case that may have left something behind (memory, a hung call).
    """
    from fuzz.guard import Guard, left_behind
    from fuzz.targets import BY_NAME, case, prepare

    target = BY_NAME[target_name]
    seeds = target.seeds()
    made = target.made()
    folder = (out / "case").resolve()
    prepare(folder)
    _warm(target_name, folder)
    guard = Guard(folder)
    guard.install()
    tally = Tally(target_name, seed, start)
    with (out / "at").open("r+b") as f, mmap.mmap(f.fileno(), 8) as at:
        for index in range(start, stop):
            at[:8] = index.to_bytes(8, "little")
            data = case(target, seed, index, seeds, made)
            if target.file:
                (folder / target.file).write_bytes(data)
            found = guard.run(target.run, data, may_write=target.may_write, heavy=target.heavy)
            if target.may_write and left_behind(folder):
                prepare(folder)
            tally.cases += 1
            tally.seconds += found.seconds
            tally.slowest = max(tally.slowest, found.seconds)
            if found.broken:
                detail = found.detail[:400]
                tally.violations.append(Violation(target_name, seed, index, found.kind, detail))
                if found.kind in ("memory", "slow", "write") or found.detail.startswith(
                    "MemoryError"
                ):
                    break
            elif found.kind == "accepted":
                tally.accepted += 1
            else:
                tally.refused += 1
            (out / "tally").write_text(json.dumps(asdict(tally))) if index % 500 == 499 else None
    (out / "tally").write_text(json.dumps(asdict(tally)))


def _warm(target_name: str, folder: Path) -> None:
    """Import what is imported on first use: the contract speaks of cost above an idle import."""
    from fuzz.targets import BY_NAME
    from sparrow.errors import SparrowError

    target = BY_NAME[target_name]
    for data in target.seeds()[:20]:
        if target.file:
            (folder / target.file).write_bytes(data)
        with contextlib.suppress(SparrowError):
            target.run(data, folder)


def _start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, "-m", "fuzz", "--worker", *arguments],
        env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
    )


def run_range(target: str, seed: int, start: int, stop: int) -> Iterator[Tally]:
    """Run a range in as many worker processes as it takes; a death is a violation."""
    import shutil

    while start < stop:
        out = _scratch()
        try:
            (out / "at").write_bytes(start.to_bytes(8, "little"))
            p = _start([target, str(seed), str(start), str(stop), str(out)])
            at, since, hung = start, time.monotonic(), False
            while p.poll() is None:
                time.sleep(0.05)
                now = int.from_bytes((out / "at").read_bytes(), "little")
                if now != at:
                    at, since = now, time.monotonic()
                elif time.monotonic() - since > HUNG_SECONDS:
                    hung = True
                    p.send_signal(signal.SIGKILL)
                    p.wait()
            at = int.from_bytes((out / "at").read_bytes(), "little")
            saved = out / "tally"
            tally = _tally(saved.read_text()) if saved.is_file() else Tally(target, seed, start)
            if p.returncode != 0:
                kind = "hang" if hung else "crash"
                detail = f"worker ended with {p.returncode}"
                tally.cases = at + 1 - start
                tally.violations.append(Violation(target, seed, at, kind, detail))
            yield tally
            start = at + 1
        finally:
            shutil.rmtree(out, ignore_errors=True)


def _tally(text: str) -> Tally:
    raw = json.loads(text)
    raw["violations"] = [Violation(**v) for v in raw["violations"]]
    return Tally(**raw)


def done(log: Path) -> dict[tuple[str, int], int]:
    """Cases that a log has of each target and seed."""
    found: Counter[tuple[str, int]] = Counter()
    for row in rows(log):
        key = (row["target"], row["seed"])
        found[key] = max(found[key], row["start"] + row["cases"])
    return found


def rows(log: Path) -> list[dict[str, Any]]:
    """The tallies of a log."""
    if not log.is_file():
        return []
    return [json.loads(line) for line in log.read_text().splitlines()]


def campaign(
    targets: Iterable[tuple[str, int]], seed: int, cases: int, log: Path | None, commit: str
) -> list[Violation]:
    """Run ``cases`` cases over targets by share, after those the log has; returns violations."""
    shares = dict(targets)
    before = done(log) if log else {}
    position = {name: before.get((name, seed), 0) for name in shares}
    left, broken = cases, []
    total = sum(shares.values())
    # one turn over all targets, in which the largest share takes a whole batch
    turn = min(cases, BATCH * total // max(shares.values()))
    while left > 0:
        for name, share in shares.items():
            count = min(left, max(1, turn * share // total))
            start = position[name]
            for tally in run_range(name, seed, start, start + count):
                broken += tally.violations
                for v in tally.violations:
                    print(f"{v.target}:{v.seed}:{v.index} {v.kind}: {v.detail}", flush=True)
                if log:
                    with log.open("a") as f:
                        f.write(json.dumps({**asdict(tally), "commit": commit}) + "\n")
            position[name] = start + count
            left -= count
            if left <= 0:
                break
    return broken
