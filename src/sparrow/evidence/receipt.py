"""The JSON files of a bundle as typed records: ``plan.json`` and ``receipt.json``, schema 1."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from sparrow.errors import BadBundle, BadInput, UnsupportedOp
from sparrow.importers.file import read_file

SCHEMA = 1
# Values cost more than bytes do: half a kilobyte and two microseconds for each that a file of
# nothing else holds. A step is described in some ninety, so that this is room for two thousand.
MAX_VALUES = 200_000
MAX_BYTES = 8 << 20


# A page divides by these and formats them.
Count: TypeAlias = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Real: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]

T = TypeVar("T")
# One error is enough: a list of them would take a thousand bytes for each byte of a hostile file.
Many: TypeAlias = Annotated[tuple[T, ...], FailFast()]
Some: TypeAlias = Annotated[tuple[T, ...], FailFast(), Field(min_length=1)]


def _each(kind: Any) -> Any:
    """Check that the values of a dictionary are of a kind; the first that is not is the error."""
    adapter = TypeAdapter(kind)

    def check(found: Any) -> Any:
        for name, value in found.items() if isinstance(found, dict) else ():
            try:
                adapter.validate_python(value)
            except ValidationError as e:
                raise ValueError(f"{name!r}: {e.errors()[0]['msg']}") from None
        return found

    return BeforeValidator(check)


Texts: TypeAlias = Annotated[dict[str, str], _each(str)]
Reals: TypeAlias = Annotated[dict[str, Real], _each(Real)]
Counts: TypeAlias = Annotated[dict[str, Count], _each(Count)]


class Record(BaseModel):
    """Base of all records: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, found: Any) -> Any:
        strange = [k for k in found if k not in cls.model_fields] if type(found) is dict else ()
        if strange:
            raise ValueError(f"a record has no {strange[0]!r}")
        return found

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


class NodeRecord(Record):
    """What became of a source node."""

    name: str
    op: str
    verdict: str
    parts: Many[str]
    reason: str


class SourceRecord(Record):
    """A model that was compiled, under the name it gives itself; no path, only content."""

    entry: str
    model: str
    sha256: str
    bytes: Count
    opset: Count
    frozen: Many[str]
    nodes: Many[NodeRecord]


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
    ids: Many[str]
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
    differences: Many[DifferenceRecord]
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
    """How an entry point was calibrated and what each of its layers became.

    ``recipe`` holds the fields of the recipe as text; ``calibrated`` and ``held`` the SHA-256 of
    samples; ``layers`` the precision of every product by its name in the source model.
    """

    entry: str
    recipe: Texts
    calibrated: Many[str]
    held: Many[str]
    notes: Many[str]
    layers: Texts


class ChoiceRecord(Record):
    """A layer in a search over precisions: its choices, by precision, and the one it got.

    ``ns`` is its time, ``bytes`` its weights and code, ``db`` the power of the outputs over that of
    their error when it alone is quantized (999 without error).
    """

    name: str
    op: str
    precision: str
    pinned: bool
    ns: Reals
    bytes: Reals
    db: Reals


class MixRecord(Record):
    """A precision for every layer as the tables predict it; ``drop`` where it was tried."""

    ns: Real
    bytes: Real
    ram: Real
    db: Real
    drop: Real | None
    counts: Counts
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
    goals: Reals
    binds: str
    predicted: MixRecord
    built: Reals
    layers: Many[ChoiceRecord]
    mixes: Many[MixRecord]
    pins: Many[PriceRecord]


class TunedRecord(Record):
    """A layer whose kernel and register tile measured times have chosen."""

    entry: str
    step: Count
    taken: str
    predicted: str


class TuningRecord(Record):
    """The times that decided: SHA-256 of ``tuning.json``, and the processor they are of.

    ``figures`` are those that go over the target row's.
    """

    sha256: str
    cpu: str
    figures: Reals
    layers: Many[TunedRecord]


class ReceiptRecord(Record):
    """``receipt.json``: how a bundle came to be and what was proved."""

    schema_version: Literal[1]
    verdict: str
    ok: bool
    name: str
    target: str
    precision: str
    threads: Count
    versions: Texts
    sources: Some[SourceRecord]
    samples: SamplesRecord
    accuracy: Many[AgainstRecord]
    drop: Real | None
    drop_meaning: str
    memory: MemoryRecord
    budget: BudgetRecord
    gates: Many[GateRecord]
    layers: Many[LayerRecord]
    tolerances: Texts
    passes: Many[RemarkRecord]
    quantization: Annotated[tuple[QuantizationRecord, ...] | None, FailFast()]
    search: SearchRecord | None = None
    tuning: TuningRecord | None = None
    files: Texts


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
    steps: Many[StepTimeRecord]


class ComparisonRecord(Measured):
    """An A/B run against another engine."""

    entry: str
    against: str
    version: str
    threads: Count
    ours_ns: Real
    theirs_ns: Real
    verdict: str


class PointRecord(Measured):
    """A moment of a long run."""

    seconds: Real
    median_ns: Real
    mhz: Count
    celsius: Real | None


class SustainedRecord(Measured):
    """Time of a call while calls follow each other for minutes."""

    entry: str
    device: str
    cpu: str
    first_ns: Real
    last_ns: Real
    points: Some[PointRecord]
    remarks: Many[str] = ()


class MeasurementsRecord(Measured):
    """``measurements.json``, as the report reads it."""

    schema_version: Literal[1]
    latencies: Many[LatencyRecord] = ()
    profiles: Many[ProfileRecord] = ()
    comparisons: Many[ComparisonRecord] = ()
    sustained: Many[SustainedRecord] = ()


def dump(record: Record) -> bytes:
    """Canonical JSON of a record: fixed order, one trailing newline, no infinity or NaN.

    Raises:
        UnsupportedOp: `load` would not read it: the network has too many steps.
    """
    plain = record.model_dump(mode="json")
    # what describes every step is read by programs
    indent, separators = (None, (",", ":")) if isinstance(record, PlanRecord) else (1, None)
    text = json.dumps(_finite(plain), indent=indent, separators=separators, ensure_ascii=True)
    data = (text + "\n").encode()
    if too_large := _too_large(data):
        raise UnsupportedOp(
            f"the network has too many steps: to describe them takes {too_large}",
            hint="unroll fewer iterations, or split it into models of their own",
        )
    return data


def _too_large(data: bytes) -> str:
    """What of a record is beyond the limits; ``""`` when nothing is."""
    values = data.count(b",") + data.count(b"[") + data.count(b"{")
    rows = ((len(data), MAX_BYTES, "bytes"), (values, MAX_VALUES, "values"))
    return next((f"{n} {what}, at most {most} are read" for n, most, what in rows if n > most), "")


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
        BadBundle: The file is missing, too large, no JSON, or of another schema.
    """
    try:
        data = read_file(path, MAX_BYTES + 1)
        if too_large := _too_large(data):
            raise BadBundle(f"{path}: {too_large}")
        # errors of what is parsed here refer to it; those of JSON have a copy each
        return kind.model_validate(json.loads(data))
    except BadInput as e:
        raise BadBundle(e.message, hint="is this a bundle folder?") from None
    except RecursionError:
        raise BadBundle(f"{path}: nests too deeply") from None
    except ValidationError as e:
        first = e.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadBundle(
            f"{path}: {where}: {first['msg']}", hint="build the model again with this version"
        ) from None
    except ValueError as e:
        raise BadBundle(f"{path}: no JSON: {e}") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file as hex digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
