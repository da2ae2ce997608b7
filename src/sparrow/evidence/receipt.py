"""``receipt.json`` as typed records, schema 1."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import FailFast, Field

from sparrow.evidence.record import Count, Counts, Many, Real, Reals, Record, Some, Texts


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


# Stands for infinity, which a record does not hold.
FAR = 1e308


class DifferenceRecord(Record):
    """Largest and mean difference of an output over all calls; ``scale`` its largest magnitude.

    ``rms`` and ``level`` are the root mean squares of the difference and of the output.
    """

    entry: str
    output: str
    max: Real
    mean: Real
    scale: Real
    rms: Real
    level: Real

    @property
    def share(self) -> float:
        """The largest difference as a share of the largest magnitude."""
        return self.max / (self.scale or 1.0)

    @property
    def db(self) -> float:
        """Power of the output over that of the difference, in dB."""
        if not self.rms:
            return math.inf
        # a quotient of the two may lie below what a double holds
        return 20.0 * (math.log10(max(self.level, 1e-300)) - math.log10(self.rms))


class AgainstRecord(Record):
    """Differences to an implementation; ``note`` says why there are none."""

    what: str
    differences: Many[DifferenceRecord]
    note: str = ""

    @property
    def distance(self) -> str:
        """How far the outputs are from theirs, in words: of the worst one."""
        if overflown := [d.output for d in self.differences if d.max >= FAR]:
            return f"infinitely far away (output {overflown[0]!r} overflows in one of them)"
        if not self.share:
            return "no bit away"
        return f"{self.db:.1f} dB, at most {self.share:.1e} of the largest magnitude away"

    @property
    def share(self) -> float:
        """The largest difference of an output as a share of its largest magnitude."""
        return max((d.share for d in self.differences), default=0.0)

    @property
    def db(self) -> float:
        """Power over that of the difference, in dB, of the output where it is least."""
        return min((d.db for d in self.differences), default=math.inf)


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
    within ``goals``, ``binds`` which goal keeps the result from being better; ``predicted`` is the
    chosen mix by the tables, ``built`` what became of it but for times, which are measurements.
    ``mixes`` were considered.
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


# What a receipt calls layers of several precisions.
MIXED = "mixed"


class ReceiptRecord(Record):
    """``receipt.json``: how a bundle came to be and what was proved.

    ``precision`` is that of all its layers, or `MIXED`; ``precisions`` counts them.
    """

    schema_version: Literal[1]
    verdict: str
    ok: bool
    name: str
    target: str
    precision: str
    precisions: Counts = Field(default_factory=dict)
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

    @property
    def layers_text(self) -> str:
        """The precision of the layers in words: of several, how many have each."""
        if self.precision != MIXED:
            return self.precision
        return f"{MIXED} ({', '.join(f'{n} {p}' for p, n in self.precisions.items())})"


def sha256(path: Path) -> str:
    """SHA-256 of a file as hex digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
