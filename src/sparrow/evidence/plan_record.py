"""``plan.json`` as typed records, schema 1."""

from __future__ import annotations

from typing import ClassVar, Literal

from sparrow.evidence.record import Count, Many, Real, Record, Some


class ValueRecord(Record):
    """A value in memory: element (i, j, ..) is ``element_bytes * sum(i * stride)`` from ``offset``.

    ``place`` is arena, weights, state, or the caller's input or output number ``index``; strides
    count elements. ``bytes`` is what the elements span.
    """

    name: str
    dtype: str
    shape: Many[Count]
    strides: Many[Count]
    place: str
    index: Count
    offset: Count
    bytes: Count


class Rejected(Record):
    """A kernel row that was not taken, and why."""

    kernel: str
    reason: str


class StepRecord(Record):
    """One step of an entry point; ``tile`` is its register tile, where it has one to choose."""

    index: Count
    op: str
    origin: str
    kernel: str
    tile: str = ""
    rejected: Many[Rejected]
    inputs: Many[ValueRecord | None]
    outputs: Some[ValueRecord]
    packed: Many[Count]
    flops: Count
    bytes: Count
    tasks: Count
    scratch_offset: Count
    scratch_bytes: Count


class BufferRecord(Record):
    """Arena memory that is held from step ``first`` to step ``last``."""

    offset: Count
    bytes: Count
    first: Count
    last: Count
    values: Many[str]


class TensorRecord(Record):
    """An input, output or state."""

    name: str
    dtype: str
    shape: Many[Count]


class EntryRecord(Record):
    """An entry point."""

    name: str
    model: str
    inputs: Many[TensorRecord]
    outputs: Many[TensorRecord]
    arena_bytes: Count
    steps: Many[StepRecord]
    buffers: Many[BufferRecord]


class WeightRecord(Record):
    """A range of ``weights.bin`` and the steps that read it."""

    offset: Count
    bytes: Count
    dtype: str
    shape: Many[Count]
    users: Many[str]


class TargetRecord(Record):
    """The device of a plan."""

    name: str
    triple: str
    cpu: str
    isa: str
    cores: Count
    ghz: Real
    bandwidth_gbs: Real
    flops_per_cycle: Count
    source: str


class PlanRecord(Record):
    """``plan.json``: what runs, in which memory, and why so."""

    # what describes every step is read by programs
    compact: ClassVar[bool] = True

    schema_version: Literal[1]
    target: TargetRecord
    threads: Count
    parts: Count
    arena_bytes: Count
    state_bytes: Count
    weights_bytes: Count
    states: Many[TensorRecord]
    entries: Many[EntryRecord]
    weights: Many[WeightRecord]
