"""The receipt of a build: how it came to be, and what was proved."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from sparrow.bfloat16 import halved
from sparrow.compiler import Compiled, Source
from sparrow.device import build as toolchain
from sparrow.evidence.accuracy import against_oracle
from sparrow.evidence.gate import Gate
from sparrow.evidence.golden import SEED, Golden
from sparrow.evidence.held_out import Lossy, coded
from sparrow.evidence.proof import Proof
from sparrow.evidence.receipt import (
    MIXED,
    AgainstRecord,
    BudgetRecord,
    GateRecord,
    LayerRecord,
    MemoryRecord,
    NodeRecord,
    QuantizationRecord,
    ReceiptRecord,
    RemarkRecord,
    SamplesRecord,
    SearchRecord,
    SourceRecord,
    TunedRecord,
    TuningRecord,
)
from sparrow.evidence.tolerances import tolerance_of
from sparrow.graph import Graph, Node
from sparrow.importers.model import facts
from sparrow.ops.recurrent_codes import RecurrentCodes
from sparrow.ops.rnn import RNN
from sparrow.ops.sums import over_codes as multiplies_codes
from sparrow.quant import digest
from sparrow.quant.kinds import LAYERS
from sparrow.request import Request
from sparrow.tensor import I16
from sparrow.tuning import TUNING


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What running a build showed.

    Attributes:
        proof: Of every layer.
        accuracy: Against other engines, and on what was held out.
        drop: Loss of accuracy, None where none was measured.
        meaning: What ``drop`` is of, or why there is none.
        foreign: Why nothing here runs the build; empty where something did.
        where: What the verdict says of where it ran.
    """

    proof: Proof
    accuracy: tuple[AgainstRecord, ...]
    drop: float | None
    meaning: str
    foreign: str = ""
    where: str = ""


def not_run(why: str) -> Findings:
    """Of a build that nothing here runs."""
    return Findings(Proof((), ()), (), None, f"not measured: {why}", foreign=why)


def certify(
    compiled: Compiled,
    sources: Mapping[str, Source],
    request: Request,
    golden: Golden,
    found: Findings,
    memory: MemoryRecord,
    lossy: Sequence[Lossy],
    search: SearchRecord | None,
    gates: Sequence[Gate],
    files: dict[str, str],
) -> ReceiptRecord:
    """The receipt of a build.

    Args:
        compiled: What was built.
        sources: The models it was compiled from, by entry name.
        request: What was asked for.
        golden: Sample calls.
        found: What running it showed.
        memory: Bytes that it takes.
        lossy: The quantizations it came from, one of each entry point.
        search: How the precision of its layers was found.
        gates: Beside those of the proof; none of times, which no receipt holds.
        files: Name -> SHA-256 of every file of the bundle.
    """
    counts = _precisions(compiled, lossy)
    over_codes, over_halves = coded(compiled.module.entries), "bfloat16" in counts
    rounded = "quantized" if over_codes else "bfloat16" if over_halves else ""
    proof = found.proof
    verdict = f"built, not proved: {found.foreign}"
    if not found.foreign:
        verdict = (
            f"proved{found.where}: {len(proof.layers)} layers within their bounds, "
            f"{len(golden.calls)} sample calls{against_oracle(found.accuracy, rounded)}"
        )
    used = {type(n.op).__name__: tolerance_of(n.op) for g in compiled.module for n in g.nodes}
    for step in (s for e in compiled.plan.entries for s in e.steps):
        op, own = step.node.op, tolerance_of(step.node.op, step.kernel)
        if own is not tolerance_of(op):
            used[f"{type(op).__name__} by {step.kernel}"] = own
    return ReceiptRecord(
        schema_version=1,
        verdict=verdict,
        ok=not found.foreign,
        name=compiled.module.name,
        target=compiled.plan.target.name,
        precision=MIXED if len(counts) > 1 else next(iter(counts), "float32"),
        precisions=counts,
        threads=request.threads,
        versions=_versions(),
        sources=tuple(
            _source(name, s, done)
            for (name, s), done in zip(sources.items(), compiled.imported, strict=True)
        ),
        samples=SamplesRecord(
            source="random" if request.calib is None and not lossy else "calibration",
            seed=SEED,
            ids=tuple(c.digest for c in golden.calls),
            layers=golden.layers_text,
        ),
        accuracy=found.accuracy,
        drop=found.drop,
        drop_meaning=found.meaning,
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
        quantization=tuple(map(_quantization, lossy)) or None,
        search=search,
        tuning=_tuning(compiled, files),
        files=files,
    )


def _precisions(compiled: Compiled, lossy: Sequence[Lossy]) -> dict[str, int]:
    """How many layers have each precision, the most frequent first.

    A layer is what is a product in the source model, however many it was parted into.
    """
    halves = halved(compiled.module.entries)
    chosen = {x.name: x.precision for q in lossy for x in q.quantized.layers}

    def precision(g: Graph, n: Node, name: str) -> str:
        if name in halves:
            return "bfloat16"
        # recurrent layers whose products with the weights come before have none
        x, w, *_ = (g.types[v].dtype for v in n.inputs if v)
        if isinstance(n.op, RecurrentCodes) or multiplies_codes(x, w):
            return chosen.get(name, "int16x8" if x == I16 else "int8")
        return x.name

    found: list[str] = []
    for source, g in zip(compiled.imported, compiled.module.entries, strict=True):
        names = {n.origin for n in source.graph.nodes if isinstance(n.op, (*LAYERS, RNN))}
        layers: dict[str, str] = {}
        for n in g.nodes:
            if n.origin in names and isinstance(n.op, (*LAYERS, RNN, RecurrentCodes)):
                p = precision(g, n, n.origin)
                # beside its codes, a layer may multiply floats that are none of its product
                if p != "float32" or n.origin not in layers:
                    layers[n.origin] = p
        found += layers.values()
    return dict(Counter(found).most_common())


def _tuning(compiled: Compiled, files: Mapping[str, str]) -> TuningRecord | None:
    known = compiled.tuning
    if known is None or TUNING not in files:
        return None
    layers = []
    for e in compiled.plan.entries:
        for i, s in enumerate(e.steps):
            if any(o.work in known.times for o in s.options):
                best = min(s.options, key=lambda o: o.cycles)
                layers.append(
                    TunedRecord(
                        entry=e.graph.name,
                        step=i,
                        taken=f"{s.kernel} {s.lowered.tile}",
                        predicted=f"{best.work.kernel} {best.tiles[0]}",
                    )
                )
    return TuningRecord(
        sha256=files[TUNING], cpu=known.cpu, figures=dict(known.figures), layers=tuple(layers)
    )


def _quantization(lossy: Lossy) -> QuantizationRecord:
    q = lossy.quantized
    return QuantizationRecord(
        entry=q.graph.name,
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


__all__ = ["certify"]
