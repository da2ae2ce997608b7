"""How far the answers of a build are from the reference, from ONNX Runtime, and from the labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparrow.bundle import Bundle
from sparrow.compiler import Source
from sparrow.errors import BadInput
from sparrow.evidence.disagreement import Disagreement
from sparrow.evidence.golden import Golden
from sparrow.evidence.held_out import Lossy
from sparrow.evidence.layers import gap
from sparrow.evidence.oracle import Oracle, OracleRefused, oracle_outputs
from sparrow.evidence.receipt import FAR, AgainstRecord, DifferenceRecord
from sparrow.graph import Graph
from sparrow.request import Request
from sparrow.tensor import Array

ORACLE = "onnxruntime on the source model"
# Two float32 implementations of one network stay well inside this share of an output's largest
# magnitude; beyond it they do not compute the same function, or the network rounds somewhere.
ORACLE_SHARE = 1e-3
# Decibels by which a build is nearer on samples that calibrated from which on these say little.
UNSTEADY = 6.0
_UNJUDGED = "on the float model (no evaluate function was given)"


class Spread(NamedTuple):
    """Of numbers that are not negative.

    Attributes:
        size: How many.
        mean: Their mean.
        max: The largest; 0 of none.
        rms: Root of their mean square; squares do not overflow.
    """

    size: int
    mean: float
    max: float
    rms: float

    @staticmethod
    def of(x: NDArray[np.float64]) -> Spread:
        """That of an array."""
        most = float(x.max(initial=0.0))
        if not 0.0 < most < math.inf:
            return Spread(x.size, most, most, most)
        return Spread(
            x.size, float(x.mean()), most, most * float(np.sqrt(np.square(x / most).mean()))
        )

    @staticmethod
    def joined(parts: Sequence[Spread]) -> Spread:
        """That of all numbers of some parts."""
        size, most = sum(p.size for p in parts), max((p.max for p in parts), default=0.0)
        if not 0.0 < most < math.inf:
            return Spread(size, most, most, most)
        mean = sum(p.size * p.mean for p in parts) / size
        square = sum(p.size * (p.rms / most) ** 2 for p in parts) / size
        return Spread(size, mean, most, most * math.sqrt(square))


class _Differences:
    """How far outputs are from others', call by call; no array is kept."""

    def __init__(self) -> None:
        self.sizes: dict[tuple[str, str], list[tuple[Spread, Spread]]] = {}

    def add(self, entry: str, ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> None:
        """Take in what an entry point answered to a call."""
        for name, y in theirs.items():
            x = ours[name]
            if x.shape != y.shape:
                # of data-dependent length: the valid part lies dense at the start
                x = x.reshape(-1)[: y.size]
                y = y.reshape(-1)
            off = gap(x, y) if x.shape == y.shape else np.full(1, np.inf)
            size = np.abs(y.astype(np.float64))
            sizes = Spread.of(off), Spread.of(size[np.isfinite(size)])
            self.sizes.setdefault((entry, name), []).append(sizes)

    def record(self, what: str) -> AgainstRecord:
        """All of it, to an implementation."""
        found = []
        for (entry, name), sizes in self.sizes.items():
            off, level = (Spread.joined(parts) for parts in zip(*sizes, strict=True))
            found.append(
                DifferenceRecord(
                    entry=entry,
                    output=name,
                    max=min(off.max, FAR),
                    mean=min(off.mean, FAR),
                    scale=level.max,
                    rms=min(off.rms, FAR),
                    level=level.rms,
                )
            )
        return AgainstRecord(what=what, differences=tuple(found))


def accuracy_of(
    sources: Mapping[str, Source],
    graphs: Sequence[Graph],
    golden: Golden,
    outputs: Sequence[Mapping[str, Array]],
) -> tuple[tuple[AgainstRecord, ...], list[dict[str, Array]] | None]:
    """How far golden calls' ``outputs`` are from others', and what ONNX Runtime answered to them.

    None where it takes no model or no call.
    """

    def against(what: str, theirs: Sequence[Mapping[str, Array]]) -> AgainstRecord:
        apart = _Differences()
        for call, a, b in zip(golden.calls, outputs, theirs, strict=True):
            apart.add(graphs[call.entry].name, a, b)
        return apart.record(what)

    rows = [against("the NumPy reference", [c.outputs for c in golden.calls])]
    theirs: list[dict[str, Array]] | None = None
    try:
        theirs = oracle_outputs(sources, graphs, golden)
        rows.append(against(ORACLE, theirs))
    except OracleRefused as e:
        rows.append(AgainstRecord(what=ORACLE, differences=(), note=str(e)))
    return tuple(rows), theirs


class Held(NamedTuple):
    """What a build that rounds answers to samples that it was not made from.

    Attributes:
        counts: How many samples each entry point was given.
        lost: Entry point -> what its answers lost of those of ONNX Runtime on the float model.
        accuracy: How far all outputs are from those.
    """

    counts: tuple[int, ...]
    lost: Mapping[str, Disagreement]
    accuracy: AgainstRecord


def on_held_out(
    bundle: Bundle,
    sources: Mapping[str, Source],
    graphs: Sequence[Graph],
    lossy: Sequence[Lossy],
) -> Held:
    """Judge a build on what was held out, each sample from the initial states.

    Raises:
        OracleRefused: ONNX Runtime does not take a model or a sample.
    """
    distance = _Differences()
    lost = {}
    for source, g, x in zip(sources.values(), graphs, lossy, strict=True):
        oracle, lost[g.name] = Oracle(source), Disagreement(g.types[x].shape for x in g.inputs)
        initial = {s.input: s.initial for s in g.states}
        for feeds in x.held:
            bundle.reset()
            found = oracle.run({**initial, **feeds})
            want = {n: found[n] for n in g.outputs if n in found}
            ours = bundle.run(feeds, g.name)
            lost[g.name].add(ours, want)
            distance.add(g.name, ours, want)
    counts = tuple(len(x.held) for x in lossy)
    return Held(counts, lost, distance.record(f"{ORACLE} over {_in_words(counts)}"))


def _in_words(counts: Sequence[int]) -> str:
    return f"{' and '.join(map(str, counts))} held-out samples"


def against_oracle(accuracy: Sequence[AgainstRecord], rounded: str) -> str:
    """What the verdict has to add about ONNX Runtime on the source model; empty when it agrees.

    ``rounded`` names what was done to the numbers of the network, if anything.
    """
    rows = [row for row in accuracy if row.what.startswith(ORACLE)]
    if not rows:
        return ""
    *calibrating, row = rows
    if row.note:
        return f"; not compared with {ORACLE}: {row.note}"
    if rounded:
        text = f"; {rounded}: {row.distance} from {row.what}"
        for seen in calibrating:
            if seen.db - row.db > UNSTEADY:
                text += (
                    f" ({seen.db:.1f} dB over samples that calibrated: more of those, or pins to "
                    "int16x8, narrow the gap)"
                )
        return text
    return "" if row.share <= ORACLE_SHARE else f"; BUT {row.distance} from {ORACLE}"


def drop_of(
    work: Path,
    request: Request,
    sources: Mapping[str, Source],
    graphs: Sequence[Graph],
    golden: Golden,
    ours: Sequence[Mapping[str, Array]],
    theirs: Sequence[Mapping[str, Array]] | None,
    held: Held | None,
) -> tuple[float | None, str]:
    """Loss of accuracy against the float model, and what the number means."""
    if request.evaluate is not None:
        bundle, models = Bundle(work, request.threads), _Models(sources, graphs)
        scores = request.evaluate(models.run), request.evaluate(bundle.run)
        try:
            before, after = (float(v) for v in scores)
        except (TypeError, ValueError):
            raise BadInput(
                f"evaluate returned {str(scores[0])[:40]!r}, expected a number"
            ) from None
        judged = f" (entry point {', '.join(models.called)})" if len(graphs) > 1 else ""
        text = f"evaluate{judged}: {before:.6g} in onnxruntime, {after:.6g} here"
        return before - after, text
    if held is not None:
        shares = {name: loss.share for name, loss in held.lost.items()}
        worst = max(shares, key=lambda name: shares[name])
        text = held.lost[worst].meaning(_in_words(held.counts), f"onnxruntime {_UNJUDGED}")
        if len(shares) > 1:
            text += "; the largest of " + ", ".join(f"{k} {v:.1%}" for k, v in shares.items())
        return shares[worst], text
    reference = theirs if theirs is not None else [c.outputs for c in golden.calls]
    who = "onnxruntime" if theirs is not None else "the NumPy reference"
    loss = Disagreement()
    for a, b in zip(ours, reference, strict=True):
        loss.add(a, b)
    return loss.share, loss.meaning(f"{len(golden.calls)} sample calls", f"{who} {_UNJUDGED}")


class _Models:
    """The source models in ONNX Runtime as one predictor; states of one name are one state."""

    def __init__(self, sources: Mapping[str, Source], graphs: Sequence[Graph]) -> None:
        self.sources, self.graphs = sources, {g.name: g for g in graphs}
        self.states: dict[str, Array] = {}
        self.called: dict[str, Oracle] = {}

    def run(self, feeds: Mapping[str, Array], entry: str | None = None) -> dict[str, Array]:
        """Outputs of one call.

        Raises:
            BadInput: There is no such entry point.
            OracleRefused: ONNX Runtime does not take the model or the call.
        """
        name = next(iter(self.graphs)) if entry is None else entry
        if name not in self.graphs:
            raise BadInput(f"entry {name!r} is unknown", hint=f"entries: {', '.join(self.graphs)}")
        g, source = self.graphs[name], self.sources[name]
        if name not in self.called:
            self.called[name] = Oracle(source)
        oracle = self.called[name]
        states = {s.input: self.states.get(s.name, s.initial) for s in g.states}
        found = oracle.run({**states, **feeds})
        self.states.update((s.name, found[oracle.states[s.input]]) for s in g.states)
        return {n: found[n] for n in g.outputs if n in found}


__all__ = ["accuracy_of", "against_oracle", "drop_of"]
