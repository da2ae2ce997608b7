"""Compiled model -> a bundle folder with its proof, receipt and report, put in place at once."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from sparrow.bundle import Bundle
from sparrow.compiler import Compiled, Source
from sparrow.device.cache import FileCache, cache_folder
from sparrow.device.host import HostLibrary
from sparrow.device.library import code_bytes_of, compile_library, compile_objects
from sparrow.device.runners import find_runner
from sparrow.device.stack import stack_bytes
from sparrow.errors import BadInput, GateFailed
from sparrow.evidence.accuracy import accuracy_of, drop_of, on_held_out
from sparrow.evidence.certify import Findings, certify, not_run
from sparrow.evidence.describe import describe
from sparrow.evidence.gate import AUDITED, Gate
from sparrow.evidence.golden import Golden, dump_golden, make_golden
from sparrow.evidence.held_out import Lossy, first_samples
from sparrow.evidence.outputs import run_calls
from sparrow.evidence.proof import prove
from sparrow.evidence.receipt import MemoryRecord, SearchRecord
from sparrow.evidence.record import dump
from sparrow.evidence.twin import twin_gates
from sparrow.export import to_onnx
from sparrow.folder import UNHASHED, step_values
from sparrow.graph import Graph
from sparrow.memory.audit import audit
from sparrow.portable import to_portable_onnx
from sparrow.publish import check_place, publish
from sparrow.quant import to_npz
from sparrow.quant.recipe import to_json
from sparrow.rendering.page import page_gates, write_page
from sparrow.rendering.report import render
from sparrow.request import Budget, Request
from sparrow.tensor import Array
from sparrow.text import array_key, print_graph
from sparrow.timing.race import NOT_SLOWER, TIMED, UNDECIDED, Bar, measure_build, race
from sparrow.tuning import TUNING
from sparrow.tuning import to_json as tuning_to_json

# Runner -> what the verdict adds.
WHERE = {"host": "", "qemu": " in the emulator qemu", "node": " in Node.js"}


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
    lossy: Sequence[Lossy] = (),
    rival: Compiled | None = None,
    search: SearchRecord | None = None,
    bar: Bar = NOT_SLOWER,
) -> Bundle:
    """Write, build and prove a bundle, then move it into place in one step.

    Args:
        compiled: What to build.
        sources: The models it was compiled from, by entry name.
        out: Bundle folder; a temporary one that lives as long as the Bundle when None.
        request: How.
        lossy: The quantizations it came from, one of each entry point.
        rival: The float32 build, which this one races.
        search: How the precision of its layers was found.
        bar: What the race has to show.

    Raises:
        GateFailed: The proof or a budget does not hold; nothing is written.
        BadInput: ``out`` cannot be written or holds something else.
        CompileError: The compiler is missing or refuses the code.
    """
    if out is not None:
        check_place(out)
    with FileCache(cache_folder()).scratch() as work:
        try:
            _fill(work, compiled, sources, request, lossy, rival, search, bar)
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
    lossy: Sequence[Lossy],
    rival: Compiled | None,
    search: SearchRecord | None,
    bar: Bar,
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
    if row.builds:
        write_page(work, compiled)
    request.progress("running the reference")
    calib = first_samples(lossy) if lossy else request.calib
    golden = make_golden(graphs, steps, calib, request.pixels)
    shown = [x.quantized.graph for x in lossy] or compiled.whole
    golden = _write_graphs(work, graphs, shown, models, golden, quantized=bool(lossy))
    if lossy:
        _write_quantizations(work, lossy, models)
    if compiled.tuning is not None and (compiled.tuning.times or compiled.tuning.figures):
        (work / TUNING).write_bytes(tuning_to_json(compiled.tuning))
    (work / "golden.npz").write_bytes(dump_golden(golden, graphs, steps))
    memory = _memory(compiled, library)
    measurements: dict[str, Any] = {"schema_version": 1}
    blob = np.frombuffer(compiled.plan.weights, np.uint8) if compiled.plan.weights else None
    found = not_run(foreign)
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
        twins = [onnx.load(work / name) for name in models]
        further = (
            *page_gates(work, graphs, golden, runner),
            *twin_gates(twins, graphs, golden),
        )
        proof = replace(proof, gates=(*proof.gates, *further))
        if not proof.ok:
            hint = "no bundle was written"
            if not lossy and request.calib is None:
                hint += (
                    "; inputs were drawn from [-1, 1): give samples where the model wants others"
                )
            raise GateFailed(proof.failure, hint=hint)
        outputs = run_calls(shipped.open(blob), graphs, golden)
        request.progress("comparing with onnxruntime")
        accuracy, theirs = accuracy_of(sources, graphs, golden, outputs)
        held = None
        if lossy and all(x.held for x in lossy) and theirs is not None:
            held = on_held_out(Bundle(work, request.threads), sources, graphs, lossy)
            accuracy = (*accuracy, held.accuracy)
        drop, meaning = drop_of(work, request, sources, graphs, golden, outputs, theirs, held)
        found = Findings(proof, accuracy, drop, meaning, where=WHERE[runner.name])
        if isinstance(shipped, HostLibrary) and isinstance(hooked, HostLibrary):
            request.progress("measuring")
            measurements |= measure_build(
                shipped, hooked, plan, graphs, golden, request.threads, blob
            )
            if rival:
                request.progress("racing the float32 build")
                speed, times = race(
                    *(rival, compiled, shipped, graphs, golden, request.threads, blob, bar)
                )
                measurements["against_float32"] = times
                gates.append(speed)
    gates += _budget_gates(request.budget, memory, found.drop, measurements)
    for g in gates:
        if not g.ok:
            raise _refusal(g, compiled, request)
    (work / "measurements.json").write_text(json.dumps(measurements, indent=1) + "\n")
    receipt = certify(
        compiled,
        sources,
        request,
        golden,
        found,
        memory,
        lossy,
        search,
        [g for g in gates if g.name not in TIMED],
        {p.name: _sha(p) for p in sorted(work.iterdir()) if p.name not in UNHASHED},
    )
    (work / "receipt.json").write_bytes(dump(receipt))
    (work / "report.html").write_text(render(receipt, plan, measurements), encoding="utf-8")


def _memory(compiled: Compiled, library: Path) -> MemoryRecord:
    """Bytes that a build takes."""
    p, machine = compiled.plan, compiled.plan.target.machine
    objects = compile_objects(compiled.artifact.files, machine, compiled.artifact.parts)
    return MemoryRecord(
        code_bytes=code_bytes_of(library, machine),
        weights_bytes=len(p.weights),
        arena_bytes=p.arena_bytes,
        state_bytes=p.state_bytes,
        stack_bytes=stack_bytes(objects, machine),
    )


def _refusal(g: Gate, compiled: Compiled, request: Request) -> GateFailed:
    """What a build that fails a gate is refused with, and what would help."""
    hint = "no bundle was written"
    if g.name == "ram":
        # what cannot be kept was brought as low as it goes
        top = max(compiled.plan.entries, key=lambda e: e.arena_bytes)
        hint += f"; less than {top.live_bytes} bytes of arena are not enough for {top.fullest}"
    if g.name.endswith(UNDECIDED):
        hint += "; a machine with nothing else to do decides"
    slower = g.name.startswith(NOT_SLOWER.name)
    if slower and request.precision == "auto" and request.budget.size:
        hint += "; a larger size leaves room for faster code"
    elif slower and request.precision != "auto" and len(compiled.module.entries) == 1:
        hint += "; with samples `sparrow build --precision auto --drop 1%` looks for a faster mix"
    return GateFailed(
        f"budget {g.name}: expected {g.expected}, found {g.found}", hint=hint, gate=g.name
    )


def _write_quantizations(work: Path, lossy: Sequence[Lossy], models: Sequence[str]) -> None:
    """Write the statistics of each entry point, and the recipe that all have in common."""
    for x, name in zip(lossy, models, strict=True):
        of_entry = "" if len(lossy) == 1 else f"_{Path(name).stem}"
        (work / f"calibration{of_entry}.npz").write_bytes(to_npz(x.quantized.calibration))
    (work / "recipe.json").write_bytes(to_json(lossy[0].quantized.recipe))


def _write_graphs(
    work: Path,
    graphs: Sequence[Graph],
    shown: Sequence[Graph],
    models: Sequence[str],
    golden: Golden,
    *,
    quantized: bool,
) -> Golden:
    """Write ``graph.txt``, and the ONNX twins of what is ``shown`` of each entry point.

    Arrays that no twin holds go to the golden file.
    """
    texts: list[str] = []
    held: set[str] = set()
    needed: dict[str, Array] = {}
    for g, source, name in zip(graphs, shown, models, strict=True):
        # of a quantized graph the twin says in QDQ form what the integers mean
        twin = to_portable_onnx(source) if quantized else to_onnx(source)
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


def _sha(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


__all__ = ["file_names", "write_bundle"]
