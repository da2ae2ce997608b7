"""How far the answers of a build are from the reference, from ONNX Runtime, and from the labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sparrow.bundle import Bundle
from sparrow.compiler import Source
from sparrow.errors import BadInput
from sparrow.evidence.golden import Golden
from sparrow.evidence.layers import gap
from sparrow.evidence.lossy import Lossy
from sparrow.evidence.oracle import Oracle, OracleRefused, oracle_outputs
from sparrow.evidence.receipt import FAR, AgainstRecord, DifferenceRecord
from sparrow.graph import Graph
from sparrow.request import Request
from sparrow.samples import Feeds
from sparrow.tensor import Array

ORACLE = "onnxruntime on the source model"
# Two float32 implementations of one network stay well inside this share of an output's largest
# magnitude; beyond it they do not compute the same function, or the network rounds somewhere.
ORACLE_SHARE = 1e-3


def accuracy_of(
    sources: Mapping[str, Source],
    graphs: Sequence[Graph],
    golden: Golden,
    outputs: Sequence[Mapping[str, Array]],
) -> tuple[tuple[AgainstRecord, ...], list[dict[str, Array]] | None]:
    reference = [dict(c.outputs) for c in golden.calls]
    rows = [_against("the NumPy reference", graphs, golden, outputs, reference)]
    theirs: list[dict[str, Array]] | None = None
    try:
        theirs = oracle_outputs(sources, graphs, golden)
        rows.append(_against(ORACLE, graphs, golden, outputs, theirs))
    except OracleRefused as e:
        rows.append(AgainstRecord(what=ORACLE, differences=(), note=str(e)))
    return tuple(rows), theirs


def _against(
    what: str,
    graphs: Sequence[Graph],
    golden: Golden,
    ours: Sequence[Mapping[str, Array]],
    theirs: Sequence[Mapping[str, Array]],
) -> AgainstRecord:
    rows: dict[tuple[int, str], list[tuple[Array, Array]]] = {}
    for call, a, b in zip(golden.calls, ours, theirs, strict=True):
        for name, y in b.items():
            x = a[name]
            if x.shape != y.shape:
                # of data-dependent length: the valid part lies dense at the start
                x = x.reshape(-1)[: y.size]
                y = y.reshape(-1)
            off = gap(x, y) if x.shape == y.shape else np.full(1, np.inf)
            size = np.abs(y.astype(np.float64)).reshape(-1)
            size = size[np.isfinite(size)]
            rows.setdefault((call.entry, name), []).append((off.reshape(-1), size))
    found = []
    for (entry, name), values in rows.items():
        off, size = (np.concatenate(x) for x in zip(*values, strict=True))
        found.append(
            DifferenceRecord(
                entry=graphs[entry].name,
                output=name,
                max=min(float(off.max(initial=0.0)), FAR),
                mean=min(float(off.sum()) / max(1, off.size), FAR),
                scale=float(size.max(initial=0.0)),
                rms=min(_rms(off), FAR),
                level=_rms(size),
            )
        )
    return AgainstRecord(what=what, differences=tuple(found))


def _rms(x: Array) -> float:
    """The root mean square of what is not negative; its squares do not overflow."""
    most = float(x.max(initial=0.0))
    if not 0.0 < most < math.inf:
        return most
    return most * float(np.sqrt(np.square(x / most).mean()))


def against_oracle(accuracy: Sequence[AgainstRecord], rounded: str) -> str:
    """What the verdict has to add about ONNX Runtime on the source model; empty when it agrees.

    ``rounded`` names what was done to the numbers of the network, if anything.
    """
    for row in accuracy:
        if row.what != ORACLE:
            continue
        if row.note:
            return f"; not compared with {ORACLE}: {row.note}"
        if rounded:
            return f"; {rounded}: {row.distance} from {ORACLE}"
        if not row.share <= ORACLE_SHARE:
            return f"; BUT {row.distance} from {ORACLE}"
    return ""


def drop_of(
    work: Path,
    request: Request,
    sources: Mapping[str, Source],
    graphs: Sequence[Graph],
    golden: Golden,
    ours: Sequence[Mapping[str, Array]],
    theirs: Sequence[Mapping[str, Array]] | None,
    lossy: Sequence[Lossy],
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
    if lossy and all(x.held for x in lossy) and theirs is not None:
        bundle = Bundle(work, request.threads)
        shares = {
            g.name: _apart(bundle, s, g, x.held) / len(x.held)
            for s, g, x in zip(sources.values(), graphs, lossy, strict=True)
        }
        counts = " and ".join(str(len(x.held)) for x in lossy)
        text = (
            f"share of {counts} held-out samples whose integers or largest floats differ "
            "from those of onnxruntime on the float model (no evaluate function was given)"
        )
        if len(shares) > 1:
            text += "; the largest of " + ", ".join(f"{k} {v:.1%}" for k, v in shares.items())
        return max(shares.values()), text
    reference = theirs if theirs is not None else [c.outputs for c in golden.calls]
    who = "onnxruntime" if theirs is not None else "the NumPy reference"
    apart = sum(disagree(a, b) for a, b in zip(ours, reference, strict=True))
    text = (
        f"share of {len(golden.calls)} sample calls whose integers or largest floats differ "
        f"from those of {who} on the float model (no evaluate function was given)"
    )
    return apart / len(golden.calls), text


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
        found = oracle.run({**source.constants, **states, **feeds})
        self.states.update((s.name, found[oracle.states[s.input]]) for s in g.states)
        return {n: found[n] for n in g.outputs if n in found}


def _held(source: Source, g: Graph) -> dict[str, Array]:
    """What a model in ONNX Runtime takes beside the inputs of a first call."""
    return {**source.constants, **{s.input: s.initial for s in g.states}}


def _apart(bundle: Bundle, source: Source, g: Graph, held: Sequence[Feeds]) -> int:
    """How many of some samples, each from the initial states, an entry point answers otherwise."""
    oracle = Oracle(source)
    initial = _held(source, g)
    apart = 0
    for feeds in held:
        bundle.reset()
        found = oracle.run({**initial, **feeds})
        want = {n: found[n] for n in g.outputs if n in found}
        apart += disagree(bundle.run(feeds, g.name), want)
    return apart


def disagree(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    for name, want in b.items():
        got = a[name]
        if got.shape != want.shape:
            return True
        if not want.size:
            continue
        if want.dtype.kind != "f":
            if not np.array_equal(got, want):
                return True
            continue
        at = int(np.argmax(got))
        top = float(want.reshape(-1).max())
        # two equal maxima are no disagreement
        if abs(float(want.reshape(-1)[at]) - top) > 1e-6 * max(abs(top), 1e-30):
            return True
    return False


__all__ = ["accuracy_of", "against_oracle", "disagree", "drop_of"]
