"""What a model takes on a target before there is a board: flash, RAM, stack, time, and why.

Flash is that of the linked image, RAM what the plan and the proved stack say: what a run in the
emulator then takes, to the byte (`device.depth` looks at the stack of one).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sparrow.compiler import Compiled
from sparrow.device.elf import Elf
from sparrow.device.firmware import link_alone
from sparrow.device.library import code_bytes_of, compile_library, compile_objects
from sparrow.device.stack import read_frames, stack_bytes
from sparrow.evidence.describe import buffers, live_bytes
from sparrow.evidence.plan_record import BufferRecord
from sparrow.plan import Entry, Plan
from sparrow.targets import Figure
from sparrow.timing.forecast import seen_stack, timed

# Above this share of the peak a buffer is worth a word.
_LARGE = 0.1


@dataclass(frozen=True, slots=True)
class Layer:
    """What one step takes.

    Attributes:
        step: Index in the first entry point.
        op: Operator.
        origin: Source node.
        code_bytes: Of its functions; one that n steps share counts 1/n. -1 where not linked here.
        weights_bytes: Of its packed weights.
        live_bytes: Arena memory that is held while it runs.
        instructions: That it executes; -1 where nothing here counts them.
    """

    step: int
    op: str
    origin: str
    code_bytes: int
    weights_bytes: int
    live_bytes: int
    instructions: int


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a model fits a target.

    Attributes:
        model: Its name.
        target: The row.
        precision: What it was compiled in.
        note: What to know of the figures; may be empty.
        strips: What it lowered and cost to compute layers in strips of rows; empty where none are.
        code_bytes: Flash of code and constants.
        weights_bytes: Flash of the weights.
        flash_limit: Flash of the device, or 0 if unknown.
        arena_bytes: RAM of intermediate values.
        state_bytes: RAM kept between calls.
        io_bytes: RAM of inputs and outputs.
        stack_bytes: Proved bound, or None where the code calls a library whose frames are unknown.
        stack_seen: Stack that a run in the emulator took; None where nothing here shows it.
        ram_limit: RAM of the device, or 0 if unknown.
        live_bytes: Least arena that any placement needs.
        layers: Every step of the first entry point.
        peaks: Steps at which the arena is fullest.
        advice: What sets the peak and what would lower it.
        time_ns: Time of an inference.
        time_source: Where the time comes from.
    """

    model: str
    target: str
    precision: str
    note: str
    strips: str
    code_bytes: int
    weights_bytes: int
    flash_limit: int
    arena_bytes: int
    state_bytes: int
    io_bytes: int
    stack_bytes: int | None
    stack_seen: int | None
    ram_limit: int
    live_bytes: int
    layers: tuple[Layer, ...]
    peaks: tuple[int, ...]
    advice: tuple[str, ...]
    time_ns: float
    time_source: str

    @property
    def flash_bytes(self) -> int:
        """Code, constants and weights."""
        return self.code_bytes + self.weights_bytes

    @property
    def ram_bytes(self) -> int:
        """Arena, state, inputs, outputs, and the stack where it is proved."""
        return self.arena_bytes + self.state_bytes + self.io_bytes + (self.stack_bytes or 0)

    @property
    def ok(self) -> bool:
        """Whether it fits; what is not known is no obstacle."""
        return not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it does not fit; empty when it does."""
        rows = (
            ("flash", self.flash_bytes, self.flash_limit),
            ("RAM", self.ram_bytes, self.ram_limit),
        )
        return tuple(
            f"{name}: {need:,} bytes needed, {limit:,} there, {need - limit:,} too many"
            for name, need, limit in rows
            if limit and need > limit
        )

    def __str__(self) -> str:
        stack = "not proved" if self.stack_bytes is None else f"{self.stack_bytes:,}"
        if self.stack_seen is not None:
            less = "" if self.stack_seen == self.stack_bytes else f" {self.stack_seen:,} of it"
            stack += f" (a run in the emulator took{less or ' as much'})"
        note = f" ({self.note})" if self.note else ""
        lines = [
            f"{self.model} on {self.target}, {self.precision}{note}",
            f"flash {_of(self.flash_bytes, self.flash_limit)}: code {self.code_bytes:,}, "
            f"weights {self.weights_bytes:,}",
            f"RAM   {_of(self.ram_bytes, self.ram_limit)}: arena {self.arena_bytes:,} (at least "
            f"{self.live_bytes:,}), inputs and outputs {self.io_bytes:,}, "
            f"state {self.state_bytes:,}, stack {stack}",
            f"time  {self.time_ns / 1e6:,.3f} ms: {self.time_source}",
            f"{'step':>4} {'op':12} {'code':>8} {'weights':>9} {'arena':>9}",
        ]
        top = max((x.live_bytes for x in self.layers), default=1) or 1
        for x in self.layers:
            mark = "<" if x.step in self.peaks else ""
            code = f"{x.code_bytes:,}" if x.code_bytes >= 0 else "-"
            lines.append(
                f"{x.step:4d} {x.op:12.12} {code:>8} {x.weights_bytes:9,} {x.live_bytes:9,} "
                f"{'#' * round(24 * x.live_bytes / top)}{mark}"
            )
        lines += [f"strips: {self.strips}"] * bool(self.strips)
        lines += [f"peak: {a}" for a in self.advice]
        verdict = "fits" if self.ok else f"does NOT fit: {'; '.join(self.reasons)}"
        return "\n".join([*lines, f"verdict: {verdict}"])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        totals = {"flash_bytes": self.flash_bytes, "ram_bytes": self.ram_bytes}
        return {"ok": self.ok, "reasons": list(self.reasons), **totals, **asdict(self)}


def _of(need: int, limit: int) -> str:
    return f"{need:,} of {limit:,} bytes ({need / limit:.0%})" if limit else f"{need:,} bytes"


@dataclass(frozen=True, slots=True)
class Refused:
    """One of several models that is not compiled for a target, and why."""

    model: str
    target: str
    error: str
    ok: bool = False

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return asdict(self)


def table(fits: Sequence[Fit | Refused]) -> str:
    """A line for each of several."""
    lines = [f"{'model':28} {'target':14} {'flash':>10} {'RAM':>10} {'time ms':>10}  verdict"]
    for f in fits:
        if isinstance(f, Refused):
            none = f"{'-':>10} {'-':>10} {'-':>10}"
            lines.append(f"{f.model:28.28} {f.target:14.14} {none}  not compiled: {f.error}")
            continue
        time = f"{f.time_ns / 1e6:,.2f}"
        verdict = "fits" if f.ok else "; ".join(f.reasons)
        lines.append(
            f"{f.model:28.28} {f.target:14.14} {f.flash_bytes:10,} {f.ram_bytes:10,} {time:>10}  "
            f"{verdict}"
        )
    return "\n".join(lines)


def fit(
    compiled: Compiled,
    model: str,
    precision: str,
    figures: Mapping[str, Figure],
    *,
    flash: int | None = None,
    ram: int | None = None,
    note: str = "",
) -> Fit:
    """Compile, link and count a plan.

    Args:
        compiled: The way down to C.
        model: Name to report.
        precision: Likewise.
        figures: Of the device's row.
        flash: Limit in bytes instead of the row's.
        ram: Likewise.
        note: What to know of the figures.

    Raises:
        CompileError: The compiler is missing.
    """
    p, files, parts = compiled.plan, compiled.artifact.files, compiled.artifact.parts
    machine = p.target.machine
    library = compile_library(files, machine, parts)
    objects = compile_objects(files, machine, parts)
    first = p.entries[0]
    held = buffers(first)
    code = _code_of_steps(first, objects, library, p) if machine.bare else {}
    counts, time, source = timed(compiled, library)
    seen = seen_stack(p, library) if machine.bare and counts else None
    live = [live_bytes(held, i) for i in range(len(first.steps))]
    layers = tuple(
        Layer(
            *(i, type(s.node.op).__name__, s.node.origin, code.get(i, -1)),
            sum(a.nbytes for a in s.lowered.packed),
            live[i],
            counts[i] if counts else -1,
        )
        for i, s in enumerate(first.steps)
    )
    top = max(live, default=0)
    peaks = tuple(i for i, n in enumerate(live) if n == top and n)
    device_ram = figures.get("sram_bytes") or figures.get("ram_bytes")
    device_flash = figures.get("flash_bytes")
    return Fit(
        model=model,
        target=p.target.name,
        precision=precision,
        note=note,
        strips="",
        code_bytes=code_bytes_of(library, machine),
        weights_bytes=len(p.weights),
        flash_limit=flash if flash is not None else int(device_flash.value) if device_flash else 0,
        arena_bytes=p.arena_bytes,
        state_bytes=p.state_bytes,
        io_bytes=p.io_bytes,
        stack_bytes=stack_bytes(objects, machine),
        stack_seen=seen,
        ram_limit=ram if ram is not None else int(device_ram.value) if device_ram else 0,
        live_bytes=max(e.live_bytes for e in p.entries),
        layers=layers,
        peaks=peaks,
        advice=_advice(first, held, peaks, top, floats=precision == "float32"),
        time_ns=time,
        time_source=source,
    )


def in_strips(whole: Fit, less: Fit) -> Fit:
    """A fit whose layers were to be computed in strips of rows, beside that of the whole layers."""
    if less.arena_bytes >= whole.arena_bytes:
        return whole
    counted = sum(x.instructions for x in whole.layers), sum(x.instructions for x in less.layers)
    cost = f"code {whole.code_bytes:,} -> {less.code_bytes:,} bytes"
    if min(counted) > 0:
        share = counted[1] / counted[0] - 1
        cost += f", instructions {counted[0]:,} -> {counted[1]:,} ({share:+.1%})"
    lowered = f"arena {whole.arena_bytes:,} -> {less.arena_bytes:,} bytes"
    steps = f"{len(whole.layers)} -> {len(less.layers)} steps"
    least = "" if less.ram_bytes <= less.ram_limit else ", which is the least"
    return replace(less, strips=f"{lowered}{least}; {steps}, {cost}")


def _code_of_steps(e: Entry, objects: Sequence[Path], library: Path, p: Plan) -> dict[int, int]:
    """Bytes of code of every step, from the symbols of the linked image."""
    frames = read_frames(objects)
    if frames is None:
        return {}
    image = Elf(link_alone((library,), p.target.machine).read_bytes())
    sizes = {s.name: s.size for s in image.symbols if s.size}
    name_of = {place: name for name, place in frames.names.items()}
    uses: dict[int, set[str]] = {}
    for i in range(len(e.steps)):
        todo, seen = [f"model_e0_s{i}"], set[str]()
        while todo:
            name = todo.pop()
            if name in seen or name not in frames.names:
                continue
            seen.add(name)
            todo += [name_of[c] for c in frames.calls.get(frames.names[name], ()) if c in name_of]
        uses[i] = seen
    users: dict[str, int] = {}
    for names in uses.values():
        for name in names:
            users[name] = users.get(name, 0) + 1
    return {i: sum(sizes.get(n, 0) // users[n] for n in names) for i, names in uses.items()}


def _advice(
    e: Entry, held: Sequence[BufferRecord], peaks: Sequence[int], top: int, *, floats: bool
) -> tuple[str, ...]:
    """What lies in the arena at its fullest, and what would lower that."""
    if not peaks:
        return ()
    at = peaks[0]
    s = e.steps[at]
    named = f"step {at} ({type(s.node.op).__name__} {s.node.origin[:40]})"
    found = [f"{top:,} bytes at {named}{f' and {len(peaks) - 1} more' if len(peaks) > 1 else ''}"]
    used = {*s.node.inputs, *s.node.outputs}
    wide = 0
    for b in sorted(held, key=lambda b: -b.bytes):
        if not b.first <= at <= b.last or b.bytes < _LARGE * top:
            continue
        types = [e.graph.types[v] for v in b.values if v in e.graph.types]
        wide += b.bytes if any(t.dtype.name == "float32" for t in types) else 0
        if not types:
            found.append(f"{b.bytes:,} bytes of scratch: smaller blocks of rows would do with less")
        elif not used & set(b.values):
            found.append(
                f"{b.bytes:,} bytes made at step {b.first} wait for step {b.last}: computing them "
                "later, or again, would free them"
            )
        else:
            shape = "x".join(map(str, types[0].shape))
            found.append(f"{b.bytes:,} bytes of {types[0].dtype} {shape}, read or written there")
    if floats and wide * 2 > top:
        found.append("int8 would take a quarter of the float32 buffers (--precision int8)")
    images = any(e.graph.types[x].rank > 3 for x in e.graph.inputs)
    if images and at * 4 <= len(e.steps) and len(e.steps) > 4:
        found.append(
            "it is among the first layers, where images are largest: half the input side takes a "
            "quarter of it"
        )
    return tuple(found)


__all__ = ["Fit", "Layer", "fit", "in_strips", "table"]
