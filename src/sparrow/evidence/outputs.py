"""End to end: what a library answers to the golden calls, and how near that is to the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sparrow.device.session import ModelSession, from_native, to_native
from sparrow.evidence.gate import Gate
from sparrow.evidence.golden import Golden
from sparrow.evidence.layers import gap
from sparrow.evidence.rounding import UNIT
from sparrow.graph import Graph
from sparrow.lane import Call, Expr, walk
from sparrow.ops.lane import Lane
from sparrow.ops.nms import NonMaxSuppression
from sparrow.ops.nonzero import NonZero
from sparrow.ops.quantize import Quantize
from sparrow.ops.reduce import ArgReduce
from sparrow.ops.topk import TopK
from sparrow.ops.unique import Unique
from sparrow.reference import evaluate, one_thread
from sparrow.tensor import BF16, F16, Array

# End to end, as a share of an output's largest magnitude: five times the most by which ONNX Runtime
# with and without optimisation and OpenVINO differ over the benchmark's networks.
OUTPUT_BOUND = 1e-4
# In some networks a float's last bit grows until it is seen: where one more rounding of the inputs
# moves an output, the roundings of the layers move it as well, this many times as far at most.
ROUNDINGS = 8
# Networks with half types: this many roundings of the coarsest of them, one may go the other way.
HALF_ROUNDINGS = 16
# Where a network rounds or picks, a difference in the last bit may move an element by a whole step.
TIPPED_SHARE = 1e-3
# Where a float that some op computed is rounded to 8-bit codes (or, in one expression, a sum with a
# product), one code may fall on the other side and move what follows by steps of 1/255 of a
# range: a dozen of them. Each layer is proved by its own bound all the same; a network on codes
# throughout keeps OUTPUT_BOUND.
CODED_BOUND = 0.05
# The same of codes of 16 bits, which are int32 between elementwise ops: steps of 1/65535, five
# dozen, because networks that need so many bits are deep and normalise what they carry.
FINELY_CODED_BOUND = 1e-3
# Operations that IEEE 754 rounds correctly, and choices.
_EXACT = (
    *("abs", "add", "cast", "ceil", "div", "eq", "floor", "ge", "gt", "le", "lt", "max", "min"),
    *("mul", "ne", "neg", "relu", "round", "sqrt", "sub", "trunc", "where"),
)
_TIPS = ("floor", "ceil", "round", "trunc", "sign", "eq", "lt", "le", "gt", "ge", "mod", "fmod")


def _expressions(graphs: Sequence[Graph]) -> Iterator[Expr]:
    """Every subexpression of every lane expression."""
    for g in graphs:
        for n in g.nodes:
            e = n.op.expr if isinstance(n.op, Lane) else getattr(n.op, "epilogue", None)
            if e is not None:
                yield from walk(e)


def may_tip(graphs: Sequence[Graph]) -> bool:
    """Whether some op turns a tiny difference into a whole step."""
    picks = (ArgReduce, NonMaxSuppression, NonZero, Quantize, TopK, Unique)
    if any(isinstance(n.op, picks) for g in graphs for n in g.nodes):
        return True
    return any(
        isinstance(e, Call)
        and (e.fn in _TIPS or (e.fn == "cast" and e.dtype.kind in ("int", "uint")))
        for e in _expressions(graphs)
    )


def _output_bound(graphs: Sequence[Graph]) -> float:
    """Allowed difference of outputs, as a share of their largest magnitude."""
    dtypes = {t.dtype for g in graphs for t in g.types.values()}
    dtypes |= {e.dtype for e in _expressions(graphs)}
    half = max((UNIT[d] for d in (F16, BF16) if d in dtypes), default=0.0)
    coded = max(map(_coded_bound, graphs), default=0.0)
    return max(OUTPUT_BOUND, HALF_ROUNDINGS * half, coded)


def _coded_bound(g: Graph) -> float:
    """What codes that some node makes of a float, which another node computed, may move."""
    made = g.producers()

    def inexact(x: str) -> bool:
        return x in made and g.types[x].dtype.kind == "float"

    bound = 0.0
    for n in g.nodes:
        dtype = g.types[n.outputs[0]].dtype
        e = n.op.expr if isinstance(n.op, Lane) else getattr(n.op, "epilogue", None)
        if dtype.kind not in ("int", "uint") or (e is None and not isinstance(n.op, Quantize)):
            continue
        within = e is not None and _rounds(e) and not _exact(e)
        given = isinstance(n.op, Lane | Quantize) and any(inexact(x) for x in n.inputs if x)
        if not within and not given:
            continue
        if dtype.bits <= 8:
            bound = max(bound, CODED_BOUND)
        elif e is None or _rounds(e):
            bound = max(bound, FINELY_CODED_BOUND)
    return bound


def _exact(e: Expr) -> bool:
    """Whether every machine computes the same: no function of its own, no product in a sum."""
    floats = [c for c in walk(e) if isinstance(c, Call) and c.args[-1].dtype.kind == "float"]
    fused = any(
        isinstance(a, Call) and a.fn == "mul"
        for c in floats
        if c.fn in ("add", "sub")
        for a in c.args
    )
    return not fused and all(c.fn in _EXACT for c in floats)


def _rounds(e: Expr) -> bool:
    return any(isinstance(x, Call) and x.fn == "round" for x in walk(e))


def _sensitivity(graphs: Sequence[Graph], golden: Golden) -> list[dict[str, float]]:
    """How far one more rounding of every float input moves the outputs of each call, as a share of
    their largest magnitude.
    """
    rng = np.random.default_rng(0)
    states: dict[str, Array] = {}
    shares = []
    for call in golden.calls:
        g = graphs[call.entry]
        feeds = {}
        for name, x in call.feeds.items():
            toward = np.where(rng.integers(0, 2, x.shape) == 1, np.inf, -np.inf)
            is_float = x.dtype.kind == "f"
            feeds[name] = np.nextafter(x, toward.astype(x.dtype)) if is_float else x
        with one_thread():
            moved = evaluate(g, feeds, states)
        states |= {s.name: moved[s.output] for s in g.states}
        shares.append({k: _share(gap(moved[k], v), v) for k, v in call.outputs.items()})
    return shares


def _scale(want: Array) -> float:
    finite = np.abs(want.astype(np.float64))
    return float(finite[np.isfinite(finite)].max(initial=0.0))


def _share(off: Array, want: Array) -> float:
    worst, scale = float(off.max(initial=0.0)), _scale(want)
    return worst / scale if scale else worst


def output_gate(
    graphs: Sequence[Graph], golden: Golden, outputs: Sequence[Mapping[str, Array]]
) -> Gate:
    """End to end: the shipped library's outputs against the golden ones."""
    bound = _output_bound(graphs)
    worst, where = 0.0, ""
    apart = []
    for k, (call, got) in enumerate(zip(golden.calls, outputs, strict=True)):
        for name, want in call.outputs.items():
            off = gap(got[name], want)
            apart.append((k, name, want, off))
            share = _share(off, want)
            if share > worst:
                worst, where = share, name
    total = sum(off.size for *_, off in apart)
    tips = may_tip(graphs)
    allowed = max(1, int(TIPPED_SHARE * total)) if tips else 0

    def count(moved: Sequence[Mapping[str, float]]) -> int:
        """How many elements lie beyond."""
        found = 0
        for k, name, want, off in apart:
            more = min(CODED_BOUND, ROUNDINGS * moved[k].get(name, 0.0)) if moved else 0.0
            limit = max(bound, more) * _scale(want) if want.dtype.kind == "f" else 0.0
            found += int(np.count_nonzero(off > limit))
        return found

    expected = f"within {bound:g} of the largest magnitude"
    beyond = count(())
    if beyond > allowed and bound < CODED_BOUND:
        beyond = count(_sensitivity(graphs, golden))
        expected += f", or {ROUNDINGS} times what one more rounding of the inputs moves it"
    expected += f"; {allowed} of {total} elements may tip" if tips else ""
    found = f"at most {worst:.2g} away" + (f" (output {where!r})" if where else "")
    found += f", {beyond} beyond" if beyond else ""
    return Gate("outputs equal the reference", expected, found, beyond <= allowed)


def run_calls(
    session: ModelSession, graphs: Sequence[Graph], golden: Golden
) -> list[dict[str, Array]]:
    """Outputs of every golden call in order, from the initial state, at their largest extent."""
    session.reset()
    results = []
    for call in golden.calls:
        g = graphs[call.entry]
        info = session.library.info.entries[call.entry]
        inputs = [to_native(call.feeds[n], g.types[n].dtype) for n in g.inputs]
        out = [np.zeros(t.shape, t.numpy) for t in info.outputs]
        session.run(call.entry, inputs, out)
        named = zip(info.outputs, out, strict=True)
        results.append({t.name: from_native(y, t.dtype) for t, y in named})
    return results
