"""Time per step, and honest comparison with ONNX Runtime."""

from __future__ import annotations

import html
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sparrow.bundle import Bundle
from sparrow.compiler import Source
from sparrow.device.conditions import Conditions
from sparrow.device.host import Session
from sparrow.device.remote import RemoteSession
from sparrow.device.session import from_native, to_native
from sparrow.errors import BadInput
from sparrow.evidence.golden import Golden
from sparrow.evidence.oracle import Oracle
from sparrow.evidence.plan_record import PlanRecord
from sparrow.folder import hooked_library, load_evidence, load_graphs, weights_of
from sparrow.graph import Graph
from sparrow.importers.model import facts
from sparrow.input_shapes import open_inputs
from sparrow.tensor import Array
from sparrow.timing.latency import check_threads, remarks
from sparrow.timing.measure import (
    Feeds,
    Outputs,
    comparison,
    cpu,
    difference,
    interval,
    measure,
    settle,
)

PROFILE_S = 0.5
# Largest difference to the peer, as a share of an output's largest magnitude.
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class StepTime:
    """Median time of a step.

    Attributes:
        step: Index in the entry point.
        op: Operator.
        origin: Source node.
        kernel: Kernel row.
        ns: Median.
        share: Of the sum over all steps.
        gflops: Operations per ns.
        bytes: Bytes that the step reads and writes.
    """

    step: int
    op: str
    origin: str
    kernel: str
    ns: float
    share: float
    gflops: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Time of every step of an entry point, from code with hooks.

    Attributes:
        entry: Entry point.
        threads: Threads per call.
        runs: Inferences measured.
        total_ns: Sum of the medians.
        steps: In order.
        device: Where it ran, one of `DEVICES`.
        conditions: What the device said of itself at the end.
        remarks: What makes the figures doubtful.
    """

    entry: str
    threads: int
    runs: int
    total_ns: float
    steps: tuple[StepTime, ...]
    device: str = "host"
    conditions: Conditions = field(default_factory=Conditions)
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = (
            f"{'step':>4} {'op':14} {'kernel':24} {'us':>10} {'share':>7} {'GFLOP/s':>8} "
            f"{'kB':>9}  node"
        )
        lines = [
            f"{s.step:4d} {s.op:14.14} {s.kernel:24.24} {s.ns / 1e3:10.2f} {s.share:7.1%} "
            f"{s.gflops:8.1f} {s.bytes / 1e3:9.1f}  {s.origin:.60}"
            for s in self.steps
        ]
        total = (
            f"{self.entry}: {self.total_ns / 1e3:.1f} us in {len(self.steps)} steps, "
            f"median of {self.runs} runs, {self.threads} thread(s)"
        )
        where = [f"on {self.device}: {self.conditions}"] if str(self.conditions) else []
        return "\n".join([head, *lines, total, *where, *(f"note: {r}" for r in self.remarks)])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{s.step}</td><td>{html.escape(s.op)}</td><td>{html.escape(s.origin[:80])}</td>"
            f"<td>{html.escape(s.kernel)}</td><td>{s.ns / 1e3:.2f}</td><td>{s.share:.1%}</td>"
            f"<td>{s.gflops:.1f}</td></tr>"
            for s in self.steps
        )
        head = "".join(
            f"<th>{h}</th>" for h in ("step", "op", "node", "kernel", "us", "share", "GFLOP/s")
        )
        return f"<table><tr>{head}</tr>{rows}</table>"

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``--json`` and ``measurements.json``."""
        return asdict(self)


def profile_session(
    session: Session | RemoteSession,
    plan: PlanRecord,
    entry: int,
    inputs: Sequence[Array],
    runs: int,
    seconds: float,
) -> Profile:
    """Median time of each step.

    Args:
        session: Of a library with hooks.
        plan: Record of the plan.
        entry: Entry point.
        inputs: One call's inputs.
        runs: Inferences; 0 takes as many as fit ``seconds``.
        seconds: See ``runs``.
    """
    session.run(entry, inputs)
    start = time.perf_counter()
    session.profile(entry, inputs, 1)
    once = max(time.perf_counter() - start, 1e-6)
    count = runs or max(3, min(1000, int(seconds / once)))
    all_ns = session.profile(entry, inputs, count)
    ns = np.median(all_ns, axis=0)
    total = float(ns.sum())
    record = plan.entries[entry]
    steps = tuple(
        StepTime(
            s.index,
            s.op,
            s.origin,
            s.kernel,
            float(t),
            float(t) / total if total else 0.0,
            s.flops / float(t) if t else 0.0,
            s.bytes,
        )
        for s, t in zip(record.steps, ns, strict=True)
    )
    pool = session.pool if isinstance(session, Session) else None
    threads = pool.threads if pool else 1
    doubts = remarks(all_ns.sum(axis=1).astype(np.float64), Conditions(), Conditions())
    return Profile(record.name, threads, count, total, steps, remarks=doubts)


def call_inputs(graphs: Sequence[Graph], golden: Golden, entry: int) -> list[Array]:
    """Native inputs of the first golden call of an entry point."""
    g = graphs[entry]
    feeds = next(c.feeds for c in golden.calls if c.entry == entry)
    return [to_native(feeds[n], g.types[n].dtype) for n in g.inputs]


def profile_bundle(bundle: Bundle, entry: int, runs: int = 0) -> Profile:
    """Profile an entry point of a bundle on its first golden inputs and record it there.

    Raises:
        BadBundle: Its evidence is incomplete or it is not for this machine.
    """
    graphs, golden = load_evidence(bundle.folder, bundle.plan)
    library = hooked_library(bundle.folder, bundle.plan, bundle.runner)
    session = library.open(weights_of(bundle.folder), bundle.threads)
    assert isinstance(session, Session | RemoteSession)
    check_threads(session, bundle.threads)
    inputs = call_inputs(graphs, golden, entry)
    before = bundle.runner.conditions()
    done = profile_session(session, bundle.plan, entry, inputs, runs, PROFILE_S)
    after = bundle.runner.conditions()
    done = replace(
        done,
        device=bundle.device,
        conditions=after,
        remarks=(*remarks(np.zeros(0), before, after), *done.remarks),
    )
    record(bundle.folder, "profiles", {**done.as_json(), **of_device(after)})
    return done


def check_sources_of(bundle: Bundle, sources: Mapping[str, Source]) -> None:
    """Check that models are those a bundle was built from.

    Raises:
        BadInput: Another number of models, or one of other content.
    """
    records = bundle.receipt.sources
    if len(records) != len(sources):
        raise BadInput(f"{len(sources)} source models, the bundle has {len(records)} entry points")
    for s, r in zip(sources.values(), records, strict=True):
        found = facts(s.model).sha256
        if found != r.sha256:
            raise BadInput(
                f"entry {r.entry!r} was built from a model of SHA-256 {r.sha256[:16]}.., "
                f"this one has {found[:16]}.."
            )


def as_built(bundle: Bundle, sources: Mapping[str, Source]) -> dict[str, Source]:
    """The models a bundle was built from, dynamic inputs having the shapes of its entry points."""
    graphs = load_graphs(bundle.folder, bundle.plan)
    found = {}
    for (name, s), g in zip(sources.items(), graphs, strict=True):
        shapes = {i: t.shape for i, t in g.types.items() if i in g.inputs}
        shapes |= {state.input: state.initial.shape for state in g.states}
        left_open = open_inputs(s.model)
        found[name] = replace(s, shapes={i: shapes[i] for i in left_open if i in shapes})
    return found


def machine() -> dict[str, Any]:
    """What was measured on."""
    return {"cpu": cpu(), "cores": os.cpu_count() or 1}


def of_device(now: Conditions) -> dict[str, Any]:
    """What was measured on where the device says so; goes over `machine` in a row."""
    return {"cpu": now.device, "cores": len(now.cores)} if now.device else {}


def record(folder: Path, kind: str, row: dict[str, Any]) -> None:
    """Append a row to a list of ``measurements.json``; a folder that cannot be written is left."""
    path = folder / "measurements.json"
    try:
        found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        stamped = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **machine(), **row}
        found.setdefault(kind, []).append(stamped)
        temporary = path.with_name(f".measurements-{os.getpid()}")
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except (OSError, ValueError, AttributeError, RecursionError):
        return


@dataclass(frozen=True, slots=True)
class Versus:
    """A bundle against another engine: ratio of its time to ours, above 1 is faster.

    ``low`` and ``high`` bound the median ratio with 95 % confidence.
    """

    entry: str
    against: str
    version: str
    threads: int
    rounds: int
    ours_ns: float
    theirs_ns: float
    ratio: float
    low: float
    high: float
    others: float

    @property
    def verdict(self) -> str:
        """The ratio in words; no speed-up when the interval contains 1."""
        return comparison(self.ratio, self.low, self.high, self.threads, self.others)

    def __str__(self) -> str:
        return (
            f"{self.entry}: sparrow {self.ours_ns / 1e3:.1f} us, {self.against} {self.version} "
            f"{self.theirs_ns / 1e3:.1f} us, {self.threads} thread(s), {self.rounds} rounds: "
            f"{self.verdict}"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``--json`` and ``measurements.json``."""
        return {**asdict(self), "verdict": self.verdict}


def against_onnxruntime(
    bundle: Bundle, source: Source, entry: int = 0, rounds: int = 20, block_ms: float = 20
) -> Versus:
    """Interleaved A/B of a bundle and ONNX Runtime on the golden inputs.

    Raises:
        BadInput: The outputs differ, or the machine is never quiet.
        SparrowError: ONNX Runtime does not take the model.
    """
    import onnxruntime

    graphs, golden = load_evidence(bundle.folder, bundle.plan)
    g = graphs[entry]
    feeds: list[Feeds] = [c.feeds for c in golden.calls if c.entry == entry]
    oracle = Oracle(source, bundle.threads, timed=True)
    session, info = bundle.session, bundle.session.library.info.entries[entry]
    dtypes = [g.types[n].dtype for n in g.inputs]
    initial = {s.input: s.initial for s in g.states}
    prepared = {
        id(f): [to_native(f[n], d) for n, d in zip(g.inputs, dtypes, strict=True)] for f in feeds
    }

    def ours(f: Feeds) -> Outputs:
        out = session.run(entry, prepared[id(f)])
        return {t.name: y for t, y in zip(info.outputs, out, strict=True)}

    def theirs(f: Feeds) -> Outputs:
        return oracle.run({**initial, **f})

    bundle.reset()
    got = {
        t.name: from_native(y, t.dtype)
        for t, y in zip(info.outputs, ours(feeds[0]).values(), strict=True)
    }
    found = Oracle(source).run({**initial, **feeds[0]})
    apart = difference(got, {n: found[n] for n in got})
    if apart > TOLERANCE:
        exact = bundle.receipt.precision == "float32"
        raise BadInput(
            f"entry {info.name!r}: outputs are {apart:.1e} from onnxruntime's; not comparable",
            hint="sparrow verify says which layer differs"
            if exact
            else f"{bundle.receipt.layers_text} rounds by choice: --against none times it alone",
        )
    try:
        samples = measure({"sparrow": ours, "onnxruntime": theirs}, feeds, rounds, block_ms)
        settle()
    except RuntimeError as e:
        raise BadInput(str(e)) from None
    a, b = samples["sparrow"], samples["onnxruntime"]
    ratios = b.ns / a.ns
    low, high = interval(ratios)
    done = Versus(
        info.name,
        "onnxruntime",
        str(onnxruntime.__version__),
        bundle.threads,
        rounds,
        float(np.median(a.ns)),
        float(np.median(b.ns)),
        float(np.median(ratios)),
        low,
        high,
        a.others,
    )
    record(bundle.folder, "comparisons", done.as_json())
    return done


__all__ = [
    "Profile",
    "StepTime",
    "Versus",
    "against_onnxruntime",
    "call_inputs",
    "machine",
    "profile_bundle",
    "profile_session",
]
