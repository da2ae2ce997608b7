"""Honest A/B of engines on whole networks.

    python bench/run.py --engines sparrow,onnxruntime --threads 1,2 [names ...]
    python bench/run.py --engines all --precision int8
    python bench/run.py --engines all --no-save path/to/model.onnx    # fed by model.npz, if any

Every round runs each engine for a short block, in random order, in one process, so that clock, heat
and neighbours fall on all alike; the ratio to the baseline is taken within the round. Printed are
medians and a bootstrap 95 % interval of the median ratio; no speed-up is named when the interval
contains 1. The last lines of a network are our ratio to the best peer, float32 and bfloat16 against
its float32, int8 against its int8, and our share of this machine's peak, float32 or int8, which
peak.py measures in every round: the median of the shares. The very last lines are geometric means
over the networks. What the interval cannot see: two loads of one engine may differ by 2 % through
where their memory lies. Rows are appended to `bench/results/<target>.csv`. Exit code 1 if an engine
refused a network or its outputs differ from the baseline's by more than its precision allows.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import peak
from cases import REPO, named
from engines import CODED, ENGINES, PRECISIONS, TOLERANCE, Engine, coded_tolerance
from network import Network, RefusedError
from sparrow.importers.model import import_model
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.gru import GRU
from sparrow.ops.lstm import LSTM
from sparrow.ops.matmul import MatMul
from sparrow.timing.measure import (
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

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the results file.

    `ratio` is baseline time / engine time, above 1 is faster; `others` is the share of the
    machine's processor time that other processes took while this was measured; `share` is that of
    the peak of the cores used, of int8 for int8, of float32 for all else, as one of them reached it
    in the same round.
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
    share: float


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


def products(network: Network) -> int:
    """Convolutions, matrix products and recurrent layers of a network."""
    kinds = (Conv, ConvTranspose, MatMul, LSTM, GRU)
    return sum(isinstance(n.op, kinds) for n in import_model(network.model).graph.nodes)


def scatter(outputs: Sequence[Outputs], reference: Sequence[Outputs]) -> float:
    """Root of the mean squared difference of the worst output over its deviation, all calls taken
    together; infinite where shapes or non-finite places do not agree. Where there are floats,
    integers are not looked at: what ranks k-th changes between values that lie as near.
    """
    worst = 0.0
    floats = [name for name, value in reference[0].items() if value.dtype == np.float32]
    for name in floats or reference[0]:
        pairs = [(got[name], want[name]) for got, want in zip(outputs, reference, strict=True)]
        if any(a.shape != b.shape for a, b in pairs):
            return float("inf")
        columns = zip(*pairs, strict=True)
        got, want = (np.concatenate([v.ravel() for v in x]).astype(float) for x in columns)
        finite = np.isfinite(want)
        if not np.array_equal(finite, np.isfinite(got)):
            return float("inf")
        error = float(np.sqrt(np.mean((got - want)[finite] ** 2)))
        worst = max(worst, error / (float(want[finite].std()) or 1.0))
    return worst


def admit(
    name: str, network: Network, engines: Sequence[Engine], threads: int
) -> tuple[dict[str, Run], list[str]]:
    """Load the engines: the calls that agree with the first one, one line per failure."""
    runs: dict[str, Run] = {}
    failures: list[str] = []
    reference: list[Outputs] = []
    for engine in engines:
        try:
            run = engine.load(network, threads)
        except RefusedError as error:
            failures.append(f"{name}: {engine.name} refused it: {error}")
            continue
        outputs = [run(feeds) for feeds in network.inputs]
        reference = reference or outputs
        if engine.precision in CODED:
            worst, most = scatter(outputs, reference), coded_tolerance(products(network))
        else:
            worst = max(difference(got, want) for got, want in zip(outputs, reference, strict=True))
            most = TOLERANCE[engine.precision]
        if worst > most:
            apart = f"differs from the baseline by {worst:.1e}, at most {most:.1e} is expected"
            failures.append(f"{name}: {engine.name} {apart}")
            continue
        runs[engine.name] = run
    return runs, failures


def summarise(
    name: str,
    network: Network,
    engines: Sequence[Engine],
    threads: int,
    samples: Mapping[str, Samples],
) -> list[Row]:
    """One row per engine; `engines[0]` is the baseline."""
    base, peaks = engines[0].name, peaks_of(engines)
    operations = import_model(network.model).graph.flops()
    stamp, mhz = datetime.now(UTC).isoformat(timespec="seconds"), cpuinfo("cpu MHz")
    rows = []
    for engine in engines:
        if engine.name not in samples:
            continue
        own = samples[engine.name].ns
        ratios = samples[base].ns / own
        median = float(np.median(own))
        low, high = interval(ratios)
        kind = peak_of(engine)
        reached = samples[kind].ns / peaks[kind].operations * operations / (own * threads)
        rows.append(
            Row(
                time=stamp,
                commit=commit(),
                cpu=cpu(),
                mhz=mhz,
                engine=engine.name,
                version=engine.version(),
                model=name,
                threads=threads,
                median_ns=round(median),
                mad_ns=round(float(np.median(np.abs(own - median)))),
                runs=samples[engine.name].runs,
                baseline=base,
                ratio=round(float(np.median(ratios)), 4),
                low=round(low, 4),
                high=round(high, 4),
                others=round(samples[engine.name].others, 3),
                share=round(float(np.median(reached)), 4),
            )
        )
    return rows


def peak_of(engine: Engine) -> str:
    """Names the peak that an engine's time is a share of."""
    return f"peak {'int8' if RIVALS[engine.precision] == 'int8' else 'float32'}"


def peaks_of(engines: Sequence[Engine]) -> dict[str, peak.Peak]:
    """Those of the engines, to be run in turns with them."""
    names = {peak_of(e) for e in engines}
    return {name: peak.peak(peak.best_of(name.removeprefix("peak "))) for name in sorted(names)}


def timed(p: peak.Peak) -> Run:
    """As `measure` calls it."""

    def run(_: Feeds) -> Outputs:
        p.run()
        return {}

    return run


def append(path: Path, rows: Sequence[DataclassInstance]) -> None:
    """Add rows of one kind to a results file, with a header where the file is new."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow([field.name for field in fields(rows[0])])
        writer.writerows(astuple(row) for row in rows)


@contextmanager
def core_to_itself(threads: int = 1) -> Iterator[None]:
    """So many cores, the last ones, run this process's threads before anything else.

    All its threads, workers of engines too; by turns, so that one that spins cannot starve another
    for good.
    """
    cores = os.sched_getaffinity(0)
    own = [int(name) for name in os.listdir("/proc/self/task")] if threads > 1 else [0]
    for task in own:
        os.sched_setaffinity(task, set(sorted(cores)[-threads:]))
        os.sched_setscheduler(task, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        for task in own:
            with suppress(ProcessLookupError):  # an engine's worker may have ended since
                os.sched_setscheduler(task, os.SCHED_OTHER, os.sched_param(0))
                os.sched_setaffinity(task, cores)


def line_of(row: Row) -> str:
    spread = row.mad_ns / row.median_ns
    return (
        f"{row.model:42s} {row.threads:7d} {row.engine:16s} {row.median_ns / 1e3:11.1f} "
        f"{spread:7.1%}  {verdict(row)}"
    )


# The precision of the peers that each of ours is compared with.
RIVALS = {"float32": "float32", "bfloat16": "float32", "int8": "int8", "int16x8": "int8"}


@dataclass(frozen=True, slots=True)
class Against:
    """One of our rows beside the fastest peer of the precision it is compared with."""

    mine: Row
    peer: Row

    @property
    def ratio(self) -> float:
        return self.peer.median_ns / self.mine.median_ns


def best_of(rows: Sequence[Row], engines: Sequence[Engine]) -> list[Against]:
    """Each of our rows against the fastest peer; nothing for those that have no peer."""
    precision = {engine.name: engine.precision for engine in engines}
    found = []
    for mine in (row for row in rows if row.engine.startswith("sparrow")):
        peers = [
            row
            for row in rows
            if not row.engine.startswith("sparrow")
            and precision[row.engine] == RIVALS[precision[mine.engine]]
        ]
        if peers:
            found.append(Against(mine, min(peers, key=lambda row: row.median_ns)))
    return found


def means(found: Sequence[Against]) -> list[str]:
    """Geometric means over networks, by engine and number of threads."""
    groups: dict[tuple[str, int], list[float]] = {}
    for each in found:
        groups.setdefault((each.mine.engine, each.mine.threads), []).append(each.ratio)
    return [
        f"{engine}, {threads} threads: {np.exp(np.mean(np.log(ratios))):.2f}x the best peer over "
        f"{len(ratios)} networks, {min(ratios):.2f}x at worst"
        for (engine, threads), ratios in groups.items()
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Interleaved benchmark of engines on networks.")
    known = {engine.name: engine for engine in ENGINES}
    parser.add_argument(
        "--engines", default="sparrow,onnxruntime", help=f"all, or of {', '.join(known)}"
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="of all engines: only those of it")
    parser.add_argument("--against", default="onnxruntime", help="the baseline engine")
    parser.add_argument("--threads", default="1,2", help="thread counts, each measured by itself")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--block-ms", type=float, default=20)
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="measure on the last cores, before all other processes: needs the right",
    )
    parser.add_argument("--target", default="host", help="names the results file")
    parser.add_argument("--no-save", action="store_true", help="print only")
    parser.add_argument(
        "names", nargs="*", metavar="name", help="networks or files of them; default: all networks"
    )
    options = parser.parse_args()
    wished = options.engines.split(",")
    if options.engines == "all":
        wished = [e.name for e in ENGINES if options.precision in (None, e.precision)]
    names = dict.fromkeys([options.against, *wished])
    if unknown := names.keys() - known.keys():
        parser.error(f"no engine {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    options.engines = [known[name] for name in names]
    options.cases = named(options.names, parser)
    options.threads = [int(n) for n in options.threads.split(",")]
    return options


def main() -> int:
    options = arguments()
    results = REPO / "bench" / "results" / f"{options.target}.csv"
    print(f"{commit()}  {cpu()}, {cpuinfo('cpu MHz')} MHz, {options.rounds} rounds", flush=True)
    print(f"{'network':42s} {'threads':>7s} {'engine':16s} {'median us':>11s} {'MAD':>7s}")
    failures, compared = [], []
    for case in options.cases:
        network = Network(case.model(), list(case.inputs()), case.tflite)
        for threads in options.threads:
            runs, failed = admit(case.name, network, options.engines, threads)
            for line in failed:
                print(line, file=sys.stderr, flush=True)
            failures += failed
            if options.engines[0].name not in runs:
                continue
            with core_to_itself(threads) if options.realtime else nullcontext():
                peaks = {name: timed(p) for name, p in peaks_of(options.engines).items()}
                every = {**runs, **peaks}
                samples = measure(every, network.inputs, options.rounds, options.block_ms)
            rows = summarise(case.name, network, options.engines, threads, samples)
            for row in rows:
                print(line_of(row), flush=True)
            best = best_of(rows, options.engines)
            for each in best:
                print(
                    f"{'':50s} {each.mine.engine:16s} {each.ratio:.2f}x the best peer "
                    f"({each.peer.engine}), {each.mine.share:.0%} of the peak",
                    flush=True,
                )
            compared += best
            if not options.no_save:
                append(results, rows)
    print(*means(compared), sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
