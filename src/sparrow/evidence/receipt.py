"""The JSON files of a bundle as typed records: ``plan.json`` and ``receipt.json``, schema 1."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparrow.errors import BadBundle, BadInput
from sparrow.importers.file import read_file

SCHEMA = 1


# A page divides by these and formats them.
Count: TypeAlias = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Real: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]


class Record(BaseModel):
    """Base of all records: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __getitem__(self, field: str) -> Any:
        """A field by name, so that a record reads like its JSON."""
        if field not in type(self).model_fields:
            raise KeyError(field)
        return getattr(self, field)


class ValueRecord(Record):
    """A value in memory: element (i, j, ..) is ``element_bytes * sum(i * stride)`` from ``offset``.

    ``place`` is arena, weights, state, or the caller's input or output number ``index``; strides
    count elements. ``bytes`` is what the elements span.
    """

    name: str
    dtype: str
    shape: tuple[Count, ...]
    strides: tuple[Count, ...]
    place: str
    index: Count
    offset: Count
    bytes: Count


class Rejected(Record):
    """A kernel row that was not taken, and why."""

    kernel: str
    reason: str


class StepRecord(Record):
    """One step of an entry point."""

    index: Count
    op: str
    origin: str
    kernel: str
    rejected: tuple[Rejected, ...]
    inputs: tuple[ValueRecord | None, ...]
    outputs: Annotated[tuple[ValueRecord, ...], Field(min_length=1)]
    packed: tuple[Count, ...]
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
    values: tuple[str, ...]


class TensorRecord(Record):
    """An input, output or state."""

    name: str
    dtype: str
    shape: tuple[Count, ...]


class EntryRecord(Record):
    """An entry point."""

    name: str
    model: str
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    arena_bytes: Count
    steps: tuple[StepRecord, ...]
    buffers: tuple[BufferRecord, ...]


class WeightRecord(Record):
    """A range of ``weights.bin`` and the steps that read it."""

    offset: Count
    bytes: Count
    dtype: str
    shape: tuple[Count, ...]
    users: tuple[str, ...]


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

    schema_version: Literal[1]
    target: TargetRecord
    threads: Count
    parts: Count
    arena_bytes: Count
    state_bytes: Count
    weights_bytes: Count
    states: tuple[TensorRecord, ...]
    entries: tuple[EntryRecord, ...]
    weights: tuple[WeightRecord, ...]


class NodeRecord(Record):
    """What became of a source node."""

    name: str
    op: str
    verdict: str
    parts: tuple[str, ...]
    reason: str


class SourceRecord(Record):
    """A model that was compiled, under the name it gives itself; no path, only content."""

    entry: str
    model: str
    sha256: str
    bytes: Count
    opset: Count
    frozen: tuple[str, ...]
    nodes: tuple[NodeRecord, ...]


class RemarkRecord(Record):
    """A pass applied, or nearly applied, at a node."""

    rule: str
    node: str
    text: str
    applied: bool


class SamplesRecord(Record):
    """The golden calls: where their inputs come from and the SHA-256 of each call's inputs."""

    source: Literal["random", "calibration"]
    seed: Count
    ids: tuple[str, ...]
    layers: str


class DifferenceRecord(Record):
    """Largest and mean difference of an output over all calls; ``scale`` its largest magnitude."""

    entry: str
    output: str
    max: Real
    mean: Real
    scale: Real


class AgainstRecord(Record):
    """Differences to an implementation; ``note`` says why there are none."""

    what: str
    differences: tuple[DifferenceRecord, ...]
    note: str = ""


class LayerRecord(Record):
    """Error of one step.

    ``own``: difference to the reference fed the native inputs, at the element nearest to its bound;
    ``bound`` what is allowed there; ``inherited``: largest difference to the reference run from the
    inputs of the network.
    """

    entry: str
    step: Count
    op: str
    origin: str
    own: Real
    bound: Real
    inherited: Real
    scale: Real
    ok: bool


class GateRecord(Record):
    """A check and its outcome."""

    name: str
    expected: str
    found: str
    ok: bool


class MemoryRecord(Record):
    """What the artifact takes: flash is code plus weights, RAM is arena plus state.

    ``stack_bytes`` is the most stack that a call takes, proved from the objects (`device.stack`);
    None where the compiler does not tell. It is the shipped library's own, so that verifying with
    another compiler has nothing to compare it with.
    """

    code_bytes: Count
    weights_bytes: Count
    arena_bytes: Count
    state_bytes: Count
    stack_bytes: Count | None = None


class BudgetRecord(Record):
    """Limits given to the build; None is no limit."""

    drop: Real | None
    latency_ns: Real | None
    size_bytes: Count | None
    ram_bytes: Count | None


class QuantizationRecord(Record):
    """How a quantized bundle was calibrated and what each layer became.

    ``recipe`` holds the fields of the recipe as text; ``calibrated`` and ``held`` the SHA-256 of
    samples; ``layers`` the precision of every product by its name in the source model.
    """

    recipe: dict[str, str]
    calibrated: tuple[str, ...]
    held: tuple[str, ...]
    notes: tuple[str, ...]
    layers: dict[str, str]


class ChoiceRecord(Record):
    """A layer in a search over precisions: its choices, by precision, and the one it got.

    ``ns`` is its time, ``bytes`` its weights and code, ``db`` the power of the outputs over that of
    their error when it alone is quantized (999 without error).
    """

    name: str
    op: str
    precision: str
    pinned: bool
    ns: dict[str, Real]
    bytes: dict[str, Real]
    db: dict[str, Real]


class MixRecord(Record):
    """A precision for every layer as the tables predict it; ``drop`` where it was tried."""

    ns: Real
    bytes: Real
    ram: Real
    db: Real
    drop: Real | None
    counts: dict[str, Count]
    chosen: bool


class PriceRecord(Record):
    """What a pin costs in time, bytes and error, against the same mix without it."""

    pin: str
    layers: Count
    ms: Real
    kb: Real
    db: Real


class SearchRecord(Record):
    """How the precision of every layer was found.

    ``times`` and ``sensitivity`` say where the tables come from, ``least`` what was minimised
    within ``goals``, ``binds`` which goal keeps the result from being better; ``predicted`` and
    ``built`` are the chosen mix by the tables and as measured. ``mixes`` were considered.
    """

    times: str
    sensitivity: str
    least: str
    goals: dict[str, Real]
    binds: str
    predicted: MixRecord
    built: dict[str, Real]
    layers: tuple[ChoiceRecord, ...]
    mixes: tuple[MixRecord, ...]
    pins: tuple[PriceRecord, ...]


class ReceiptRecord(Record):
    """``receipt.json``: how a bundle came to be and what was proved."""

    schema_version: Literal[1]
    verdict: str
    ok: bool
    name: str
    target: str
    precision: str
    threads: Count
    versions: dict[str, str]
    sources: Annotated[tuple[SourceRecord, ...], Field(min_length=1)]
    samples: SamplesRecord
    accuracy: tuple[AgainstRecord, ...]
    drop: Real | None
    drop_meaning: str
    memory: MemoryRecord
    budget: BudgetRecord
    gates: tuple[GateRecord, ...]
    layers: tuple[LayerRecord, ...]
    tolerances: dict[str, str]
    passes: tuple[RemarkRecord, ...]
    quantization: QuantizationRecord | None
    search: SearchRecord | None = None
    files: dict[str, str]


class Measured(BaseModel):
    """Base of what was measured: rows may say more than a reader asks for."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class LatencyRecord(Measured):
    """Time of a call."""

    entry: str
    threads: Count
    runs: Count
    cpu: str
    median_ns: Real
    low_ns: Real
    high_ns: Real


class StepTimeRecord(Measured):
    """Time of a step."""

    ns: Real
    share: Real
    gflops: Real


class ProfileRecord(Measured):
    """Times of all steps of an entry point."""

    entry: str
    steps: tuple[StepTimeRecord, ...]


class ComparisonRecord(Measured):
    """An A/B run against another engine."""

    entry: str
    against: str
    version: str
    threads: Count
    ours_ns: Real
    theirs_ns: Real
    verdict: str


class MeasurementsRecord(Measured):
    """``measurements.json``, as the report reads it."""

    schema_version: Literal[1]
    latencies: tuple[LatencyRecord, ...] = ()
    profiles: tuple[ProfileRecord, ...] = ()
    comparisons: tuple[ComparisonRecord, ...] = ()


def dump(record: Record) -> bytes:
    """Canonical JSON of a record: fixed order, one trailing newline, no infinity or NaN."""
    plain = record.model_dump(mode="json")
    return (json.dumps(_finite(plain), indent=1, ensure_ascii=True) + "\n").encode()


def _finite(v: Any) -> Any:
    if isinstance(v, float) and not (-1e308 < v < 1e308):
        return 1e308 if v > 0 else -1e308 if v < 0 else 0.0
    if isinstance(v, dict):
        return {k: _finite(x) for k, x in v.items()}
    return [_finite(x) for x in v] if isinstance(v, (list, tuple)) else v


R = TypeVar("R", bound=BaseModel)


def load(kind: type[R], path: Path) -> R:
    """Read a record.

    Raises:
        BadBundle: The file is missing, no JSON, or of another schema.
    """
    try:
        return kind.model_validate_json(read_file(path))
    except BadInput as e:
        raise BadBundle(e.message, hint="is this a bundle folder?") from None
    except RecursionError:
        raise BadBundle(f"{path}: nests too deeply") from None
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadBundle(
            f"{path}: {where}: {first['msg']}", hint="build the model again with this version"
        ) from None


def sha256(path: Path) -> str:
    """SHA-256 of a file as hex digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
