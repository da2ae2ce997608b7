"""``report.html``: one self-contained page about a bundle; no network, names escaped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import jinja2

from sparrow.errors import BadBundle, printable
from sparrow.evidence.measurements import SustainedRecord
from sparrow.evidence.plan_record import EntryRecord, PlanRecord
from sparrow.evidence.receipt import LayerRecord, ReceiptRecord
from sparrow.rendering.curve import HEIGHT as CURVE_HEIGHT
from sparrow.rendering.curve import WIDTH as CURVE_WIDTH
from sparrow.rendering.curve import curves
from sparrow.rendering.pareto import HEIGHT as CHART_HEIGHT
from sparrow.rendering.pareto import WIDTH as CHART_WIDTH
from sparrow.rendering.pareto import charts

NAME_LENGTH = 64
PALETTE = 8
WIDTH, HEIGHT = 1000, 260
_LEFT, _TOP, _BOTTOM = 64, 10, 26


@dataclass(frozen=True, slots=True)
class OpRow:
    """A line of the operator table; shares are in percent, ``None`` where nothing was measured."""

    step: int
    op: str
    color: int
    node: str
    kernel: str
    why: str
    shape: str
    us: float | None
    share: float | None
    bar: float
    gflops: float | None
    kb: float
    own: float
    bound: float
    of_bound: float
    inherited: float


@dataclass(frozen=True, slots=True)
class Box:
    """A buffer in the arena drawing, in SVG units."""

    x: float
    y: float
    width: float
    height: float
    color: int
    title: str


@dataclass(frozen=True, slots=True)
class Part:
    """Time of all steps of one kernel."""

    kernel: str
    color: int
    count: int
    us: float
    share: float


@dataclass(frozen=True, slots=True)
class EntryView:
    """An entry point on the page."""

    name: str
    inputs: str
    outputs: str
    rows: tuple[OpRow, ...]
    parts: tuple[Part, ...]
    boxes: tuple[Box, ...]
    ticks: tuple[tuple[float, str], ...]
    levels: tuple[tuple[float, str], ...]
    arena_bytes: int
    latency: str
    runs: str


def short(text: str, length: int = NAME_LENGTH) -> str:
    """A name on one line without control or direction characters, cut in the middle."""
    shown = printable(text) if len(text) <= 4096 else printable(text[:2048] + text[-2048:])
    if len(shown) <= length:
        return shown
    half = (length - 1) // 2
    return f"{shown[:half]}…{shown[-half:]}"


def size(n: float) -> str:
    """Bytes for people."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= scale:
            return f"{n / scale:.3g} {unit}" if n < 1e3 * scale else f"{n / scale:,.0f} {unit}"
    return f"{n:.0f} bytes"


def duration(ns: float) -> str:
    """Nanoseconds for people."""
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= scale:
            return f"{ns / scale:.3g} {unit}"
    return f"{ns:.0f} ns"


def _threads(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"


def number(v: float) -> str:
    """A small number in few characters."""
    return "0" if v == 0 else f"{v:.2g}"


def ratio(db: float) -> str:
    """A ratio of powers."""
    return "equal" if db == math.inf else f"{db:.1f} dB"


def _colors(plan: PlanRecord) -> dict[str, int]:
    """A palette index per kernel: those that compute most come first."""
    work: dict[str, int] = {}
    for e in plan.entries:
        for s in e.steps:
            work[s.kernel] = work.get(s.kernel, 0) + s.flops + s.bytes
    ordered = sorted(work, key=lambda kernel: -work[kernel])
    return {kernel: min(i, PALETTE - 1) for i, kernel in enumerate(ordered)}


def _rows(
    e: EntryRecord,
    layers: Mapping[tuple[str, int], LayerRecord],
    times: Sequence[Mapping[str, Any]],
    colors: Mapping[str, int],
) -> tuple[OpRow, ...]:
    slowest = max((float(t["share"]) for t in times), default=0.0) or 1.0
    rows = []
    for i, s in enumerate(e.steps):
        t = times[i] if i < len(times) else None
        layer = layers.get((e.name, s.index))
        own, bound = (layer.own, layer.bound) if layer else (0.0, 0.0)
        first = s.outputs[0]
        rows.append(
            OpRow(
                step=s.index,
                op=s.op,
                color=colors[s.kernel],
                node=short(s.origin),
                kernel=s.kernel,
                why="; ".join(f"{r.kernel}: {r.reason}" for r in s.rejected),
                shape=f"{first.dtype} {'×'.join(map(str, first.shape)) or 'scalar'}",
                us=float(t["ns"]) / 1e3 if t else None,
                share=100 * float(t["share"]) if t else None,
                bar=100 * float(t["share"]) / slowest if t else 0.0,
                gflops=float(t["gflops"]) if t and s.flops else None,
                kb=s.bytes / 1e3,
                own=own,
                bound=bound,
                of_bound=min(100.0, 100 * own / bound) if bound > 0 else (100.0 if own else 0.0),
                inherited=layer.inherited if layer else 0.0,
            )
        )
    return tuple(rows)


def _parts(rows: Sequence[OpRow]) -> tuple[Part, ...]:
    total = sum(r.us or 0.0 for r in rows)
    kernels: dict[str, list[OpRow]] = {}
    for r in rows:
        kernels.setdefault(r.kernel, []).append(r)
    found = [
        Part(name, rs[0].color, len(rs), us := sum(r.us or 0.0 for r in rs), 100 * us / total)
        for name, rs in kernels.items()
        if total
    ]
    return tuple(sorted(found, key=lambda p: -p.us))


def _timeline(
    e: EntryRecord, colors: Mapping[str, int]
) -> tuple[tuple[Box, ...], tuple[tuple[float, str], ...], tuple[tuple[float, str], ...]]:
    """Boxes, step ticks and byte levels of the arena drawing."""
    steps, top = max(len(e.steps), 1), max(e.arena_bytes, 1)
    width, height = WIDTH - _LEFT - 4, HEIGHT - _TOP - _BOTTOM
    maker = {v.name: s.kernel for s in e.steps for v in s.outputs}
    boxes = []
    for b in e.buffers:
        kernel = next((maker[v] for v in b.values if v in maker), "")
        names = ", ".join(short(v, 40) for v in b.values[:4])
        more = f" and {len(b.values) - 4} more" if len(b.values) > 4 else ""
        boxes.append(
            Box(
                x=round(_LEFT + width * b.first / steps, 2),
                y=round(_TOP + height * (1 - (b.offset + b.bytes) / top), 2),
                width=round(max(width * (b.last - b.first + 1) / steps - 1, 1), 2),
                height=round(max(height * b.bytes / top - 0.6, 0.8), 2),
                color=colors.get(kernel, PALETTE - 1),
                title=f"{names}{more}: {size(b.bytes)} at {b.offset:,}, "
                f"steps {b.first} to {b.last}",
            )
        )
    stride = max(1, -(-steps // 12))
    ticks = tuple(
        (round(_LEFT + width * (i + 0.5) / steps, 2), str(i)) for i in range(0, steps, stride)
    )
    levels = tuple((round(_TOP + height * (1 - k / 4), 2), size(top * k / 4)) for k in range(5))
    return tuple(boxes), ticks, levels


def _entry(
    e: EntryRecord,
    receipt: ReceiptRecord,
    measurements: Mapping[str, Any],
    colors: Mapping[str, int],
) -> EntryView:
    layers = {(c.entry, c.step): c for c in receipt.layers}
    profile = next((p for p in measurements.get("profiles", ()) if p["entry"] == e.name), None)
    found = next((r for r in measurements.get("latencies", ()) if r["entry"] == e.name), None)
    rows = _rows(e, layers, profile["steps"] if profile else (), colors)
    boxes, ticks, levels = _timeline(e, colors)
    latency = runs = ""
    if found:
        latency = duration(found["median_ns"])
        spread = f"{duration(found['low_ns'])} to {duration(found['high_ns'])}"
        runs = (
            f"median of {found['runs']} calls, 95 % interval {spread}, "
            f"{_threads(found['threads'])}, {found['cpu']}"
        )
    return EntryView(
        name=short(e.name),
        inputs=", ".join(f"{short(t.name, 40)} {t.dtype}{list(t.shape)}" for t in e.inputs),
        outputs=", ".join(f"{short(t.name, 40)} {t.dtype}{list(t.shape)}" for t in e.outputs),
        rows=rows,
        parts=_parts(rows),
        boxes=boxes,
        ticks=ticks,
        levels=levels,
        arena_bytes=e.arena_bytes,
        latency=latency,
        runs=runs,
    )


@cache
def _template() -> jinja2.Template:
    source = resources.files("sparrow") / "templates" / "report.html.j2"
    env = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters.update(name=short, size=size, duration=duration, number=number, ratio=ratio)
    return env.from_string(source.read_text(encoding="utf-8"))


def render(receipt: ReceiptRecord, plan: PlanRecord, measurements: Mapping[str, Any]) -> str:
    """The page.

    Args:
        receipt: What was built and proved.
        plan: Steps and memory.
        measurements: Content of ``measurements.json``; its first rows are those of the build.

    Raises:
        BadBundle: The receipt is of another plan.
    """
    colors = _colors(plan)
    counts: dict[str, int] = {}
    if [s.entry for s in receipt.sources] != [e.name for e in plan.entries]:
        raise BadBundle(
            "receipt.json and plan.json are of different entry points", hint="build the model again"
        )
    for s in receipt.sources:
        for n in s.nodes:
            counts[n.verdict] = counts.get(n.verdict, 0) + 1
    passes: dict[str, int] = {}
    for r in receipt.passes:
        if r.applied:
            passes[r.rule] = passes.get(r.rule, 0) + 1
    oracles = [a for a in receipt.accuracy if a.differences and "onnxruntime" in a.what]
    return _template().render(
        r=receipt,
        title=receipt.sources[0].model or receipt.name,
        plan=plan,
        entries=[_entry(e, receipt, measurements, colors) for e in plan.entries],
        counts=counts,
        passes=passes,
        refusals=[p for p in receipt.passes if not p.applied][:200],
        # the last is of samples that were held out, where some were
        oracle=oracles[-1] if oracles else None,
        precisions=lambda q: Counter(q.layers.values()),
        comparisons=measurements.get("comparisons", ()),
        charts=charts(receipt.search) if receipt.search else (),
        chart=(CHART_WIDTH, CHART_HEIGHT),
        sustained=[
            (s, curves(s))
            for s in map(SustainedRecord.model_validate, measurements.get("sustained", ()))
        ],
        curve=(CURVE_WIDTH, CURVE_HEIGHT),
        view=(WIDTH, HEIGHT, _LEFT, _TOP, HEIGHT - _BOTTOM),
    )


__all__ = ["render", "short"]
