"""Compiled model -> a bundle folder with its proof, receipt and report, put in place at once."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from sparrow.audit import audit
from sparrow.bundle import (
    UNHASHED,
    Bundle,
    compile_library,
    compile_objects,
    step_values,
)
from sparrow.compiler import Compiled, Source
from sparrow.describe import describe
from sparrow.device import build as toolchain
from sparrow.device.cache import FileCache, cache_folder
from sparrow.device.elf import code_bytes
from sparrow.device.host import HostLibrary, Session
from sparrow.device.runners import find_runner
from sparrow.device.stack import stack_bytes
from sparrow.errors import BadInput, GateFailed
from sparrow.export import to_onnx
from sparrow.golden import SEED, Golden, dump_golden, make_golden
from sparrow.graph import Graph
from sparrow.importers.model import facts
from sparrow.lossy import Lossy, coded
from sparrow.measure import compare
from sparrow.oracle import Oracle, OracleRefused, oracle_outputs
from sparrow.portable import to_portable_onnx
from sparrow.profiling import call_inputs, latency, machine, profile_session
from sparrow.proof import AUDITED, Gate, Proof, gap, prove, run_calls
from sparrow.publish import check_place, publish
from sparrow.quant import digest, to_npz
from sparrow.receipt import (
    AgainstRecord,
    BudgetRecord,
    DifferenceRecord,
    GateRecord,
    LayerRecord,
    MemoryRecord,
    NodeRecord,
    PlanRecord,
    QuantizationRecord,
    ReceiptRecord,
    RemarkRecord,
    SamplesRecord,
    SourceRecord,
    dump,
)
from sparrow.report import render
from sparrow.request import Budget, Request
from sparrow.tensor import Array
from sparrow.text import array_key, print_graph
from sparrow.tolerances import tolerance_of

MEASURE_S = 0.1


def file_names(entries: Sequence[str]) -> list[str]:
    """A file name for each entry's ONNX twin, made of letters and digits only, no two alike."""
    if len(entries) == 1:
        return ["model.onnx"]
    names: list[str] = []
    for i, entry in enumerate(entries):
        clean = re.sub(r"[^a-z0-9]+", "_", entry.lower()).strip("_")[:32] or f"entry{i}"
        clean = clean if f"{clean}.onnx" not in names else f"{clean}_{i}"
        names.append(f"{clean}.onnx")
    return names


def write_bundle(
    compiled: Compiled,
    sources: Mapping[str, Source],
    out: Path | None,
    request: Request,
    lossy: Lossy | None = None,
) -> Bundle:
    """Write, build and prove a bundle, then move it into place in one step.

    Args:
        compiled: What to build.
        sources: The models it was compiled from, by entry name.
        out: Bundle folder; a temporary one that lives as long as the Bundle when None.
        request: How.
        lossy: The quantization it came from.

    Raises:
        GateFailed: The proof or a budget does not hold; nothing is written.
        BadInput: ``out`` cannot be written or holds something else.
        CompileError: The compiler is missing or refuses the code.
    """
    if out is not None:
        check_place(out)
    with FileCache(cache_folder()).scratch() as work:
        try:
            _fill(work, compiled, sources, request, lossy)
        except OSError as e:
            raise BadInput(
                f"{e.filename or work} cannot be written: {e.strerror}",
                hint="free space, or set SPARROW_CACHE to another disk",
            ) from None
        if out is not None:
            request.progress("writing the bundle")
            publish({p.name: p for p in sorted(work.iterdir())}, out)
            return Bundle(out, request.threads)
        folder = Path(tempfile.mkdtemp(prefix="sparrow-"))
        try:
            for p in work.iterdir():
                shutil.copyfile(p, folder / p.name)
            bundle = Bundle(folder, request.threads)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(bundle, shutil.rmtree, folder, ignore_errors=True)
        return bundle


def _fill(
    work: Path,
    compiled: Compiled,
    sources: Mapping[str, Source],
    request: Request,
    lossy: Lossy | None,
) -> None:
    graphs = compiled.module.entries
    models = file_names([g.name for g in graphs])
    plan = describe(
        compiled.plan, parts=compiled.artifact.parts, threads=request.threads, models=models
    )
    steps = step_values(plan)
    for name, data in compiled.artifact.files.items():
        (work / name).write_bytes(data)
    (work / "plan.json").write_bytes(dump(plan))
    request.progress("compiling")
    row = compiled.plan.target
    target = row.machine
    library = compile_library(compiled.artifact.files, target, plan.parts, work)
    foreign, runner = "", None
    try:
        runner = find_runner(target)
    except BadInput as e:
        foreign = str(e)
    request.progress("running the reference")
    golden = make_golden(graphs, steps, lossy.first if lossy else request.calib)
    golden = _write_graphs(work, graphs, models, golden, lossy)
    if lossy:
        (work / "calibration.npz").write_bytes(to_npz(lossy.quantized.calibration))
    (work / "golden.npz").write_bytes(dump_golden(golden, graphs, steps))
    memory = MemoryRecord(
        code_bytes=code_bytes(library),
        weights_bytes=len(compiled.plan.weights),
        arena_bytes=compiled.plan.arena_bytes,
        state_bytes=compiled.plan.state_bytes,
        stack_bytes=stack_bytes(compile_objects(compiled.artifact.files, target, plan.parts)),
    )
    measurements: dict[str, Any] = {"schema_version": 1}
    blob = np.frombuffer(compiled.plan.weights, np.uint8) if compiled.plan.weights else None
    proof = Proof((), ())
    accuracy: tuple[AgainstRecord, ...] = ()
    drop, meaning = None, f"not measured: {foreign}"
    faults = audit(compiled.plan)
    assert not faults, faults
    gates = [Gate(AUDITED, "no fault", "no fault", True)]
    if runner is not None:
        request.progress("proving every layer")
        shipped = runner.load(library)
        hooked = runner.load(
            compile_library(compiled.artifact.files, target, plan.parts, hooks=True)
        )
        proof = prove(graphs, plan, golden, shipped, hooked, blob)
        if not proof.ok:
            raise GateFailed(proof.failure, hint="no bundle was written")
        outputs = run_calls(shipped.open(blob), graphs, golden)
        request.progress("comparing with onnxruntime")
        accuracy, theirs = _accuracy(sources, graphs, golden, outputs)
        drop, meaning = _drop(work, request, sources, graphs, golden, outputs, theirs, lossy)
        if isinstance(shipped, HostLibrary) and isinstance(hooked, HostLibrary):
            request.progress("measuring")
            measurements |= _measure(shipped, hooked, plan, graphs, golden, request.threads, blob)
            if lossy and lossy.rival:
                request.progress("racing the float32 build")
                speed, race = _race(lossy.rival, shipped, graphs, golden, request.threads, blob)
                measurements["against_float32"] = race
                gates.append(speed)
    gates += _budget_gates(request.budget, memory, drop, measurements)
    for g in gates:
        if not g.ok:
            raise GateFailed(
                f"budget {g.name}: expected {g.expected}, found {g.found}",
                hint="no bundle was written",
            )
    (work / "measurements.json").write_text(json.dumps(measurements, indent=1) + "\n")
    receipt = _receipt(
        *(compiled, sources, request, golden, proof, accuracy, drop, meaning, memory, lossy),
        [g for g in gates if g.name not in TIMED],
        foreign,
        "" if runner is None or runner.name == "host" else f" in the emulator {runner.name}",
        {p.name: _sha(p) for p in sorted(work.iterdir()) if p.name not in UNHASHED},
    )
    (work / "receipt.json").write_bytes(dump(receipt))
    (work / "report.html").write_text(render(receipt, plan, measurements), encoding="utf-8")


def _write_graphs(
    work: Path,
    graphs: Sequence[Graph],
    models: Sequence[str],
    golden: Golden,
    lossy: Lossy | None,
) -> Golden:
    """Write ``graph.txt`` and the ONNX twins; arrays that no twin holds go to the golden file."""
    texts: list[str] = []
    held: set[str] = set()
    needed: dict[str, Array] = {}
    for g, name in zip(graphs, models, strict=True):
        # of a quantized graph the twin says in QDQ form what the integers mean
        shown = lossy.quantized.graph if lossy else g
        twin = to_portable_onnx(shown) if lossy else to_onnx(shown)
        (work / name).write_bytes(twin.SerializeToString(deterministic=True))
        held |= {array_key(a) for a in _stored(twin)}
        text, arrays = print_graph(g)
        texts.append(text)
        needed |= arrays
    (work / "graph.txt").write_text("".join(texts), encoding="utf-8", newline="\n")
    rest = {k: a for k, a in sorted(needed.items()) if k not in held}
    return Golden(golden.calls, golden.cap, rest)


def _stored(twin: onnx.ModelProto) -> Iterator[Array]:
    """The initializers of a twin, where its bundle looks for the arrays of ``graph.txt``."""
    for t in twin.graph.initializer:
        yield numpy_helper.to_array(t)


ORACLE = "onnxruntime on the source model"
# Gates of time, which no hash and no second run can repeat.
TIMED = ("latency", "not slower than float32")


def _accuracy(
    sources: Mapping[str, Source],
    graphs: Sequence[Graph],
    golden: Golden,
    outputs: Sequence[Mapping[str, Array]],
) -> tuple[tuple[AgainstRecord, ...], list[dict[str, Array]] | None]:
    reference = [dict(c.outputs) for c in golden.calls]
    rows = [_against("the NumPy reference", graphs, golden, outputs, reference)]
    theirs: list[dict[str, Array]] | None = None
    try:
        theirs = oracle_outputs(sources, graphs, golden)
        rows.append(_against(ORACLE, graphs, golden, outputs, theirs))
    except OracleRefused as e:
        rows.append(AgainstRecord(what=ORACLE, differences=(), note=str(e)))
    return tuple(rows), theirs


def _against(
    what: str,
    graphs: Sequence[Graph],
    golden: Golden,
    ours: Sequence[Mapping[str, Array]],
    theirs: Sequence[Mapping[str, Array]],
) -> AgainstRecord:
    rows: dict[tuple[int, str], list[tuple[float, float, int, float]]] = {}
    for call, a, b in zip(golden.calls, ours, theirs, strict=True):
        for name, y in b.items():
            x = a[name]
            if x.shape != y.shape:
                # of data-dependent length: the valid part lies dense at the start
                x = x.reshape(-1)[: y.size]
                y = y.reshape(-1)
            off = gap(x, y) if x.shape == y.shape else np.full(1, np.inf)
            size = np.abs(y.astype(np.float64))
            scale = float(size[np.isfinite(size)].max(initial=0.0))
            row = (float(off.max(initial=0.0)), float(off.sum()), off.size, scale)
            rows.setdefault((call.entry, name), []).append(row)
    found = []
    for (entry, name), values in rows.items():
        count = sum(n for _, _, n, _ in values)
        found.append(
            DifferenceRecord(
                entry=graphs[entry].name,
                output=name,
                max=max(m for m, _, _, _ in values),
                mean=sum(s for _, s, _, _ in values) / count if count else 0.0,
                scale=max(s for _, _, _, s in values),
            )
        )
    return AgainstRecord(what=what, differences=tuple(found))


# Two float32 implementations of one network stay well inside this share of an output's largest
# magnitude; beyond it they do not compute the same function, or the network rounds somewhere.
ORACLE_SHARE = 1e-3


def _against_oracle(accuracy: Sequence[AgainstRecord], over_codes: bool) -> str:
    """What the verdict has to add about ONNX Runtime on the source model; empty when it agrees."""
    for row in accuracy:
        if row.what != ORACLE:
            continue
        if row.note:
            return f"; not compared with {ORACLE}: {row.note}"
        worst = max((d.max / (d.scale or 1.0) for d in row.differences), default=0.0)
        if over_codes:
            return f"; quantized: {worst:.1%} of the largest magnitude away from {ORACLE}"
        if not worst <= ORACLE_SHARE:
            return f"; BUT {worst:.1e} of the largest magnitude away from {ORACLE}"
    return ""


def _drop(
    work: Path,
    request: Request,
    sources: Mapping[str, Source],
    graphs: Sequence[Graph],
    golden: Golden,
    ours: Sequence[Mapping[str, Array]],
    theirs: Sequence[Mapping[str, Array]] | None,
    lossy: Lossy | None,
) -> tuple[float | None, str]:
    """Loss of accuracy against the float model, and what the number means."""
    if request.evaluate is not None:
        oracle = Oracle(next(iter(sources.values())))
        bundle = Bundle(work, request.threads)
        names = graphs[0].outputs

        def source(feeds: Mapping[str, Array]) -> dict[str, Array]:
            found = oracle.run(feeds)
            return {n: found[n] for n in names}

        scores = request.evaluate(source), request.evaluate(bundle.run)
        try:
            before, after = (float(v) for v in scores)
        except (TypeError, ValueError):
            raise BadInput(
                f"evaluate returned {str(scores[0])[:40]!r}, expected a number"
            ) from None
        return before - after, f"evaluate: {before:.6g} in onnxruntime, {after:.6g} here"
    if lossy and lossy.held and theirs is not None:
        oracle = Oracle(next(iter(sources.values())))
        bundle = Bundle(work, request.threads)
        apart = 0
        for feeds in lossy.held:
            bundle.reset()
            found = oracle.run(feeds)
            apart += _disagree(bundle.run(feeds), {n: found[n] for n in graphs[0].outputs})
        text = (
            f"share of {len(lossy.held)} held-out samples whose integers or largest floats differ "
            "from those of onnxruntime on the float model (no evaluate function was given)"
        )
        return apart / len(lossy.held), text
    reference = theirs if theirs is not None else [c.outputs for c in golden.calls]
    who = "onnxruntime" if theirs is not None else "the NumPy reference"
    apart = sum(_disagree(a, b) for a, b in zip(ours, reference, strict=True))
    text = (
        f"share of {len(golden.calls)} sample calls whose integers or largest floats differ "
        f"from those of {who} on the float model (no evaluate function was given)"
    )
    return apart / len(golden.calls), text


def _disagree(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    for name, want in b.items():
        got = a[name]
        if got.shape != want.shape:
            return True
        if not want.size:
            continue
        if want.dtype.kind != "f":
            if not np.array_equal(got, want):
                return True
            continue
        at = int(np.argmax(got))
        top = float(want.reshape(-1).max())
        # two equal maxima are no disagreement
        if abs(float(want.reshape(-1)[at]) - top) > 1e-6 * max(abs(top), 1e-30):
            return True
    return False


def _measure(
    shipped: HostLibrary,
    hooked: HostLibrary,
    plan: PlanRecord,
    graphs: Sequence[Graph],
    golden: Golden,
    threads: int,
    blob: Array | None,
) -> dict[str, Any]:
    times, profiles = [], []
    plain = Session(shipped, blob, threads=threads)
    tapped = Session(hooked, blob, threads=threads)
    for e in range(len(graphs)):
        inputs = call_inputs(graphs, golden, e)
        times.append({**machine(), **asdict(latency(plain, e, inputs, MEASURE_S))})
        done = profile_session(tapped, plan, e, inputs, 0, MEASURE_S)
        profiles.append({**machine(), **done.as_json()})
    return {"latencies": times, "profiles": profiles}


# Rounds and block length of the race against the float32 build.
RACE_ROUNDS = 15
RACE_BLOCK_MS = 4.0


def _race(
    rival: Compiled,
    shipped: HostLibrary,
    graphs: Sequence[Graph],
    golden: Golden,
    threads: int,
    blob: Array | None,
) -> tuple[Gate, dict[str, Any]]:
    """Interleaved times of this build and the float32 one of the same network."""
    files, target = rival.artifact.files, rival.plan.target.machine
    weights = np.frombuffer(rival.plan.weights, np.uint8) if rival.plan.weights else None
    other = HostLibrary(compile_library(files, target, rival.artifact.parts))
    runs = {}
    for name, library, w in (("this", shipped, blob), ("float32", other, weights)):
        session = Session(library, w, threads=threads)
        inputs = call_inputs(graphs, golden, 0)
        runs[name] = partial(session.run, 0, inputs)
    done = compare(runs, RACE_ROUNDS, RACE_BLOCK_MS)
    r = done.ratio("float32", "this")
    found = f"{r.median:.2f}x its speed [{r.low:.2f}, {r.high:.2f}]"
    gate = Gate(TIMED[1], "an interval that reaches 1", found, r.high >= 1.0)
    return gate, {"ratio": r.median, "low": r.low, "high": r.high, **done.median_ns}


def _budget_gates(
    budget: Budget, memory: MemoryRecord, drop: float | None, measurements: Mapping[str, Any]
) -> list[Gate]:
    gates: list[Gate] = []

    def limit(name: str, most: float | None, found: float | None, unit: str) -> None:
        if most is None:
            return
        if found is None:
            raise BadInput(
                f"budget {name} cannot be measured for this target on this machine",
                hint="build without it",
            )
        ok = found <= most
        gates.append(Gate(name, f"at most {most:g}{unit}", f"{found:.6g}{unit}", ok))

    limit("drop", budget.drop, drop, "")
    limit("size", budget.size, memory.code_bytes + memory.weights_bytes, " bytes")
    limit("ram", budget.ram, memory.arena_bytes + memory.state_bytes, " bytes")
    slowest = max((r["median_ns"] for r in measurements.get("latencies", ())), default=None)
    limit("latency", budget.latency, slowest, " ns")
    return gates


def _receipt(
    compiled: Compiled,
    sources: Mapping[str, Source],
    request: Request,
    golden: Golden,
    proof: Proof,
    accuracy: tuple[AgainstRecord, ...],
    drop: float | None,
    meaning: str,
    memory: MemoryRecord,
    lossy: Lossy | None,
    gates: Sequence[Gate],
    foreign: str,
    where: str,
    files: dict[str, str],
) -> ReceiptRecord:
    over_codes = coded(compiled.module.entries)
    verdict = f"built, not proved: {foreign}"
    if not foreign:
        verdict = (
            f"proved{where}: {len(proof.layers)} layers within their bounds, "
            f"{len(golden.calls)} sample calls{_against_oracle(accuracy, over_codes)}"
        )
    used = {type(n.op).__name__: tolerance_of(n.op) for g in compiled.module for n in g.nodes}
    return ReceiptRecord(
        schema_version=1,
        verdict=verdict,
        ok=not foreign,
        name=compiled.module.name,
        target=compiled.plan.target.name,
        precision="int8" if over_codes else "float32",
        threads=request.threads,
        versions=_versions(),
        sources=tuple(
            _source(name, s, done)
            for (name, s), done in zip(sources.items(), compiled.imported, strict=True)
        ),
        samples=SamplesRecord(
            source="random" if request.calib is None and lossy is None else "calibration",
            seed=SEED,
            ids=tuple(c.digest for c in golden.calls),
            layers=golden.layers_text,
        ),
        accuracy=accuracy,
        drop=drop,
        drop_meaning=meaning,
        memory=memory,
        budget=BudgetRecord(
            drop=request.budget.drop,
            latency_ns=request.budget.latency,
            size_bytes=request.budget.size,
            ram_bytes=request.budget.ram,
        ),
        gates=tuple(
            GateRecord(name=g.name, expected=g.expected, found=g.found, ok=g.ok)
            for g in (*proof.gates, *gates)
        ),
        layers=tuple(
            LayerRecord(
                entry=c.entry,
                step=c.step,
                op=c.op,
                origin=c.origin,
                own=c.own,
                bound=c.bound,
                inherited=c.inherited,
                scale=c.scale,
                ok=c.ok,
            )
            for c in proof.layers
        ),
        tolerances={op: used[op].reason for op in sorted(used)},
        passes=tuple(
            RemarkRecord(rule=r.rule, node=r.node, text=r.text, applied=r.applied)
            for r in compiled.remarks
        ),
        quantization=_quantization(lossy) if lossy else None,
        files=files,
    )


def _quantization(lossy: Lossy) -> QuantizationRecord:
    q = lossy.quantized
    return QuantizationRecord(
        recipe={k: str(v) for k, v in asdict(q.recipe).items()},
        calibrated=tuple(q.calibration.digests),
        held=tuple(digest(f) for f in lossy.held),
        notes=tuple(q.calibration.health.notes),
        layers={x.name: x.precision for x in q.layers},
    )


def _source(name: str, source: Source, done: Any) -> SourceRecord:
    found = facts(source.model)
    return SourceRecord(
        entry=name,
        model=found.name,
        sha256=found.sha256,
        bytes=found.bytes,
        opset=found.opset,
        frozen=done.frozen,
        nodes=tuple(
            NodeRecord(name=v.name, op=v.op, verdict=v.verdict, parts=v.parts, reason=v.reason)
            for v in done.verdicts
        ),
    )


def _versions() -> dict[str, str]:
    import onnxruntime

    from sparrow import __version__

    tools = toolchain.find_toolchain()
    compiler = tools.identity
    if not compiler.startswith("ziglang "):
        # the identity of a user's compiler holds paths of this machine
        compiler = f"SPARROW_CC {hashlib.sha256(compiler.encode()).hexdigest()[:16]}"
    return {
        "sparrow": __version__,
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "compiler": compiler,
    }


def _sha(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


__all__ = ["file_names", "write_bundle"]
