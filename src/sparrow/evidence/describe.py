"""Plan -> the record that ``plan.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparrow.evidence.plan_record import (
    BufferRecord,
    EntryRecord,
    PlanRecord,
    Rejected,
    StepRecord,
    TargetRecord,
    TensorRecord,
    ValueRecord,
    WeightRecord,
)
from sparrow.plan import Entry, Plan, Step, View
from sparrow.tensor import TensorType


def _value(name: str, v: View) -> ValueRecord:
    low, high = v.span
    return ValueRecord(
        name=name,
        dtype=v.type.dtype.name,
        shape=v.type.shape,
        strides=v.strides,
        place=v.place.kind,
        index=v.place.index,
        offset=v.place.offset + v.offset,
        bytes=high - low,
    )


def _tensor(name: str, t: TensorType) -> TensorRecord:
    return TensorRecord(name=name, dtype=t.dtype.name, shape=t.shape)


def _step(e: Entry, index: int, s: Step) -> StepRecord:
    g, low = e.graph, s.lowered
    moved = sum(v.type.bytes for v in (*s.inputs, *s.outputs) if v is not None)
    moved += sum(p.nbytes for p in low.packed)
    return StepRecord(
        index=index,
        op=type(s.node.op).__name__,
        origin=s.node.origin,
        kernel=s.kernel,
        tile=str(low.tile or ""),
        rejected=tuple(Rejected(kernel=k, reason=why) for k, why in s.rejected),
        inputs=tuple(
            None if v is None else _value(x, v)
            for x, v in zip(s.node.inputs, s.inputs, strict=True)
        ),
        outputs=tuple(_value(y, v) for y, v in zip(s.node.outputs, s.outputs, strict=True)),
        packed=s.packed,
        flops=s.node.op.flops(g.in_types(s.node), g.out_types(s.node)),
        bytes=moved,
        tasks=low.tasks,
        scratch_offset=s.scratch.offset if s.scratch else 0,
        scratch_bytes=low.scratch_bytes if s.scratch else 0,
    )


def buffers(e: Entry) -> tuple[BufferRecord, ...]:
    """Arena buffers over the steps of an entry, scratch memory included.

    Values that share a place (views, results written in place) are one buffer; one that another
    runs over is still its own.
    """
    g = e.graph
    step_of = {y: i for i, s in enumerate(e.steps) for y in s.node.outputs}
    position: list[int] = []
    done = 0
    for n in g.nodes:
        done = max(done, step_of.get(n.outputs[0], done))
        position.append(done)
    life: dict[str, tuple[int, int]] = {}
    for at, n in zip(position, g.nodes, strict=True):
        for v in (*n.inputs, *n.outputs):
            if v:
                first, last = life.get(v, (at, at))
                life[v] = (min(first, at), max(last, at))
    end = max(len(e.steps) - 1, 0)
    for v in g.live_out():
        if v in life:
            life[v] = (life[v][0], end)
    # the planner makes one Place for each buffer
    shared: dict[int, list[str]] = {}
    for name, y in e.views.items():
        if y.place.kind == "arena" and name in life:
            shared.setdefault(id(y.place), []).append(name)
    found: list[tuple[int, int, int, int, list[str]]] = []
    for names in shared.values():
        names.sort(key=lambda name: life[name])
        views = [e.views[name] for name in names]
        first, last = min(life[v][0] for v in names), max(life[v][1] for v in names)
        found.append((views[0].place.offset, max(v.span[1] for v in views), first, last, names))
    for i, s in enumerate(e.steps):
        if s.scratch is not None:
            found.append(
                (s.scratch.offset, s.lowered.scratch_bytes, i, i, [f"scratch of step {i}"])
            )
    return tuple(
        BufferRecord(offset=o, bytes=b, first=f, last=last, values=tuple(names))
        for o, b, f, last, names in sorted(found, key=lambda t: (t[2], t[0]))
    )


def live_bytes(held: Sequence[BufferRecord], step: int) -> int:
    """Bytes of the arena that the buffers alive at a step cover."""
    total = end = 0
    for b in sorted((b for b in held if b.first <= step <= b.last), key=lambda b: b.offset):
        total += max(0, b.offset + b.bytes - max(end, b.offset))
        end = max(end, b.offset + b.bytes)
    return total


def _weights(plan: Plan) -> tuple[WeightRecord, ...]:
    rows: dict[int, tuple[int, str, tuple[int, ...], list[str]]] = {}

    def add(offset: int, size: int, dtype: str, shape: tuple[int, ...], user: str) -> None:
        rows.setdefault(offset, (size, dtype, shape, []))[3].append(user)

    for k, e in enumerate(plan.entries):
        for i, s in enumerate(e.steps):
            user = f"{k}.{i}"
            for at, array in zip(s.packed, s.lowered.packed, strict=True):
                add(at, array.nbytes, array.dtype.name, array.shape, user)
            for v in s.inputs:
                if v is not None and v.place.kind == "weights":
                    add(v.place.offset, v.type.bytes, v.type.dtype.name, v.type.shape, user)
    for slot in plan.states:
        if slot.initial >= 0:
            add(
                slot.initial,
                slot.type.bytes,
                slot.type.dtype.name,
                slot.type.shape,
                f"state {slot.name}",
            )
    return tuple(
        WeightRecord(offset=o, bytes=b, dtype=d, shape=s, users=tuple(dict.fromkeys(u)))
        for o, (b, d, s, u) in sorted(rows.items())
    )


def describe(plan: Plan, *, parts: int, threads: int, models: Sequence[str]) -> PlanRecord:
    """The record of a plan.

    Args:
        plan: What was emitted.
        parts: Translation units of ``model.c``.
        threads: Threads that tasks were cut for.
        models: File name of each entry's ONNX twin.
    """
    t = plan.target
    entries = []
    for e, model in zip(plan.entries, models, strict=True):
        types: Mapping[str, TensorType] = e.graph.types
        entries.append(
            EntryRecord(
                name=e.graph.name,
                model=model,
                inputs=tuple(_tensor(n, types[n]) for n in e.graph.inputs),
                outputs=tuple(_tensor(n, types[n]) for n in e.graph.outputs),
                arena_bytes=e.arena_bytes,
                steps=tuple(_step(e, i, s) for i, s in enumerate(e.steps)),
                buffers=buffers(e),
            )
        )
    return PlanRecord(
        schema_version=1,
        target=TargetRecord(
            name=t.name,
            triple=t.triple,
            cpu=t.cpu,
            isa=t.isa.name,
            cores=t.cores,
            ghz=t.ghz,
            bandwidth_gbs=t.bandwidth_gbs,
            flops_per_cycle=t.isa.flops_per_cycle,
            source=t.source,
        ),
        threads=threads,
        parts=parts,
        arena_bytes=plan.arena_bytes,
        state_bytes=plan.state_bytes,
        weights_bytes=len(plan.weights),
        states=tuple(_tensor(s.name, s.type) for s in plan.states),
        entries=tuple(entries),
        weights=_weights(plan),
    )


__all__ = ["buffers", "describe", "live_bytes"]
