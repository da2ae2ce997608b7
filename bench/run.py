"""Honest A/B of engines on whole networks.

    python bench/run.py --engines sparrow,onnxruntime --threads 1,2 [names ...]

Every round runs each engine for a short block, in random order, in one process, so that clock, heat
and neighbours fall on all alike; the ratio to the baseline is taken within the round. Printed are
medians and a bootstrap 95 % interval of the median ratio; no speed-up is named when the interval
contains 1. What the interval cannot see: two loads of one engine may differ by 2 % through where
their memory lies. Rows are appended to `bench/results/<target>.csv`. Exit code 1 if an engine
refused a network or its outputs differ from the baseline's.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np

from cases import REPO, Case, all_cases
from engines import ENGINES, Engine, RefusedError
from sparrow.measure import (
    Feeds,
    Outputs,
    Run,
    Samples,
    busy_note,
    comparison,
    cpu,
    cpuinfo,
    difference,
    interval,
    measure,
)

# Largest difference allowed between engines, as a share of the reference's largest magnitude: five
# times the worst seen (1.9e-5, detector_n) between ONNX Runtime with and without optimisation and
# OpenVINO, over all cases.
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the results file.

    `ratio` is baseline time / engine time, above 1 is faster; `others` is the share of the
    machine's processor time that other processes took while this was measured.
    """

    time: str
    commit: str
    cpu: str
    mhz: str
    engine: str
    version: str
    model: str
    threads: int
    median_ns: int
    mad_ns: int
    runs: int
    baseline: str
    ratio: float
    low: float
    high: float
    others: float


@cache
def commit() -> str:
    """The commit, with `-dirty` when src differs from it."""
    git = ("git", "-C", str(REPO))
    head = subprocess.run(
        [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
    )
    same = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "src"], check=False)
    return head.stdout.strip() + ("-dirty" if same.returncode else "")


def verdict(row: Row) -> str:
    """The ratio in words, see `comparison`."""
    if row.engine == row.baseline:
        return f"baseline{busy_note(row.others)}"
    return comparison(row.ratio, row.low, row.high, row.threads, row.others)


def admit(
    case: Case, engines: Sequence[Engine], threads: int
) -> tuple[dict[str, Run], list[Feeds], list[str]]:
    """Load the engines: the calls that agree with the first one, inputs, one line per failure."""
    model, inputs = case.model(), case.inputs()
    runs: dict[str, Run] = {}
    failures: list[str] = []
    reference: list[Outputs] = []
    for engine in engines:
        try:
            run = engine.load(model, threads)
        except RefusedError as error:
            failures.append(f"{case.name}: {engine.name} refused it: {error}")
            continue
        outputs = [run(feeds) for feeds in inputs]
        reference = reference or outputs
        worst = max(difference(got, want) for got, want in zip(outputs, reference, strict=True))
        if worst > TOLERANCE:
            failures.append(f"{case.name}: {engine.name} differs from the baseline by {worst:.1e}")
            continue
        runs[engine.name] = run
    return runs, list(inputs), failures


def summarise(
    case: Case, engines: Sequence[Engine], threads: int, samples: Mapping[str, Samples]
) -> list[Row]:
    """One row per engine; `engines[0]` is the baseline."""
    base = engines[0].name
    stamp, mhz = datetime.now(UTC).isoformat(timespec="seconds"), cpuinfo("cpu MHz")
    rows = []
    for engine in engines:
        if engine.name not in samples:
            continue
        own = samples[engine.name].ns
        ratios = samples[base].ns / own
        median = float(np.median(own))
        low, high = interval(ratios)
        rows.append(
            Row(
                time=stamp,
                commit=commit(),
                cpu=cpu(),
                mhz=mhz,
                engine=engine.name,
                version=engine.version(),
                model=case.name,
                threads=threads,
                median_ns=round(median),
                mad_ns=round(float(np.median(np.abs(own - median)))),
                runs=samples[engine.name].runs,
                baseline=base,
                ratio=round(float(np.median(ratios)), 4),
                low=round(low, 4),
                high=round(high, 4),
                others=round(samples[engine.name].others, 3),
            )
        )
    return rows


def append(path: Path, rows: Sequence[Row]) -> None:
    """Add rows to the results file, with a header where the file is new."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow([field.name for field in fields(Row)])
        writer.writerows(astuple(row) for row in rows)


def line_of(row: Row) -> str:
    spread = row.mad_ns / row.median_ns
    return (
        f"{row.model:42s} {row.threads:7d} {row.engine:12s} {row.median_ns / 1e3:11.1f} "
        f"{spread:7.1%}  {verdict(row)}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Interleaved benchmark of engines on networks.")
    known = {engine.name: engine for engine in ENGINES}
    parser.add_argument("--engines", default="sparrow,onnxruntime", help=f"of {', '.join(known)}")
    parser.add_argument("--against", default="onnxruntime", help="the baseline engine")
    parser.add_argument("--threads", default="1,2", help="thread counts, each measured by itself")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--block-ms", type=float, default=20)
    parser.add_argument("--target", default="host", help="names the results file")
    parser.add_argument("--no-save", action="store_true", help="print only")
    parser.add_argument("names", nargs="*", metavar="name", help="networks; default: all")
    options = parser.parse_args()
    names = dict.fromkeys([options.against, *options.engines.split(",")])
    if unknown := names.keys() - known.keys():
        parser.error(f"no engine {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    options.engines = [known[name] for name in names]
    cases = {case.name: case for case in all_cases()}
    if unknown := set(options.names) - cases.keys():
        parser.error(f"no network {', '.join(sorted(unknown))}; there are {', '.join(cases)}")
    options.cases = [cases[name] for name in options.names or cases]
    options.threads = [int(n) for n in options.threads.split(",")]
    return options


def main() -> int:
    options = arguments()
    results = REPO / "bench" / "results" / f"{options.target}.csv"
    print(f"{commit()}  {cpu()}, {cpuinfo('cpu MHz')} MHz, {options.rounds} rounds", flush=True)
    print(f"{'network':42s} {'threads':>7s} {'engine':12s} {'median us':>11s} {'MAD':>7s}")
    failures = []
    for case in options.cases:
        for threads in options.threads:
            runs, inputs, failed = admit(case, options.engines, threads)
            for line in failed:
                print(line, file=sys.stderr, flush=True)
            failures += failed
            if options.engines[0].name not in runs:
                continue
            samples = measure(runs, inputs, options.rounds, options.block_ms)
            rows = summarise(case, options.engines, threads, samples)
            for row in rows:
                print(line_of(row), flush=True)
            if not options.no_save:
                append(results, rows)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
