"""The QDQ twin of a quantized bundle beside its integers, layer by layer.

The twin is cut wherever it has codes: each piece is fed the codes that the integer graph gives it
and answers for its own rounding only; so does each step of a recurrent layer (`recurrence`). It is
cut as well where floats choose elements by their order, of which the rounding of sums may prefer
either of two that are as large. ONNX Runtime computes it node by node.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from sparrow.evidence.gate import Gate
from sparrow.evidence.golden import Golden
from sparrow.evidence.recurrence import Trace, single_steps
from sparrow.graph import Graph, Op, retyped
from sparrow.importers.onnx import import_onnx
from sparrow.ops.attention_codes import AttentionCodes
from sparrow.ops.gru_codes import GRUCodes
from sparrow.ops.lane import Lane
from sparrow.ops.lookup_linear import LookupLinear
from sparrow.ops.lstm_codes import LSTMCodes
from sparrow.ops.quantize import Quantize, spread
from sparrow.ops.recurrent_codes import RecurrentCodes
from sparrow.ops.reduce import ArgReduce, Reduce
from sparrow.ops.resize import Resize
from sparrow.ops.topk import TopK
from sparrow.ort import first_line, open_session, refusals
from sparrow.passes import FRONT, optimize
from sparrow.passes.integer import integer
from sparrow.passes.integer.litert_functions import rounds_twice
from sparrow.portable import to_portable_onnx
from sparrow.reference import evaluate, one_thread
from sparrow.tensor import Array, TensorType

NAME = "each layer of the QDQ twin within a step"
# Sums over 16-bit codes in float32 have no bits to spare: a sixteenth of a step of 8 bits.
STEPS = {8: 1, 16: 16}
# Attention over 16 bits takes 12 or so of queries and keys, which moves weights by a hundredth
# where scores are tens: two steps of 8 bits. Measured: 324 (stories260K), 33 (a random ViT).
SHORTENED_STEPS = {8: 2, 16: 512}
# Of a layer's codes, over all calls: those whose sum falls on a rounding tie, and at least one.
SHARE = 1e-3
# Sums that lie anywhere within a step fall so near to a tie that often. Of sums that do not, as
# where half a bin is added to half another one, every second may be a tie: what lies so near is
# not counted. Sums in float32 of the size of the codes are off by some 1e-4 of a step.
TIE = SHARE / 2
# Under ``tflite`` a sum is rounded twice, first to multiples of 2^-S: each 2^S-th is a tie then,
# and half of those fall the other way. A product of bytes has S >= 7, that is, up to 0.4 %, of
# which small layers may have a few more.
TWICE_ROUNDED_SHARE = 1e-2
TWICE_ROUNDED_LEAST = 4
# Of codes that functions in fixed point make: exponentials within 1.8e-4, gates within 2^-12 and
# lines between the entries of a table move a result by up to a fortieth of a step, either way.
FIXED_POINT_SHARE = 0.05
# The gates' errors are of a unit of their own: of layers that use little of [-1, 1], whose steps
# are finer, more codes meet one. Measured with steps of 2^-10: 10 %.
GATE_SHARE = 0.02 * 2.0**-7
# What is chosen among floats may be exchanged for what is as large but for the rounding of sums, as
# outputs may differ: of the largest magnitude.
AS_LARGE = 1e-4
# LiteRT rounds means, hard-swish, leaky relu and abs twice with few bits in between, or none.
COARSE_SHARE = 1.0
FIXED_POINT = (AttentionCodes, LookupLinear, RecurrentCodes)
_AGAIN = "'"


def _cut(g: Graph, codes: Sequence[str], values: Collection[str]) -> Graph:
    """``g`` whose codes are inputs, and whose outputs are what it makes of them, and ``values``.

    Indices that were chosen are like codes.
    """
    nodes = [
        replace(n, outputs=tuple(y + _AGAIN if y in codes else y for y in n.outputs))
        for n in g.nodes
    ]
    types = dict(g.types)
    for x in codes:
        types[x + _AGAIN] = g.types[x]
        types[x] = TensorType(g.types[x].shape, g.types[x].dtype)
    pieces = replace(
        g,
        inputs=(*g.inputs, *codes),
        outputs=(*(x + _AGAIN for x in codes), *values),
        states=(),
        lengths=(),
    )
    return retyped(pieces, nodes, types=types)


@dataclass(frozen=True, slots=True, eq=False)
class _Integers:
    """What the integer form of a QDQ graph computes.

    Attributes:
        codes: By the name of their Quantize.
        chosen: Indices of what is largest or smallest among floats, by name.
        traces: The recurrent layers among those who make them.
        fixed_point: Codes made by one of `FIXED_POINT`.
        shortened: Codes made by attention whose queries and keys lose bits.
        resized: What the sum behind a code that was resized may be off, in steps.
    """

    codes: Mapping[str, Array]
    chosen: Mapping[str, Array]
    traces: Mapping[str, Trace]
    fixed_point: frozenset[str]
    shortened: frozenset[str]
    resized: Mapping[str, float]


def _integers(g: Graph, feeds: Mapping[str, Array]) -> _Integers:
    wanted = {n.outputs[0] for n in g.nodes if isinstance(n.op, Quantize)}
    choices = _choices(g)
    form = integer(g)
    layers = [n for n in form.nodes if isinstance(n.op, FIXED_POINT)]
    read = {x for n in layers if isinstance(n.op, RecurrentCodes) for x in n.inputs}
    asked = wanted | read | choices.keys()
    kept: dict[str, Array] = {**feeds, **form.consts}
    with one_thread():
        evaluate(
            form,
            feeds,
            None,
            lambda n, out: kept.update(
                (y, a) for y, a in zip(n.outputs, out, strict=True) if y in asked
            ),
        )
    users = form.users()
    traces: dict[str, Trace] = {}
    fixed: set[str] = set()
    for n in layers:
        # a GRU's final state becomes codes one node later
        after = (y for x in n.outputs for u in users.get(x, ()) for y in u.outputs)
        made = wanted & {*n.outputs, *(after if isinstance(n.op, GRUCodes) else ())}
        fixed |= made
        if isinstance(n.op, LSTMCodes | GRUCodes):
            trace = Trace(n.op, tuple(kept[x] if x else None for x in n.inputs))
            traces |= dict.fromkeys(made, trace)
    codes = {x: kept[x] for x in wanted if x in kept}
    chosen = {x: kept[x] for x in choices if x in kept}
    resized = {
        n.outputs[0]: n.op.code_error(form.types[n.inputs[0]].shape)
        for n in form.nodes
        if isinstance(n.op, Resize) and n.op.rounded and n.outputs[0] in codes
    }
    heads = (n for n in layers if isinstance(n.op, AttentionCodes) and any(n.op.shifts))
    shortened = frozenset(y for n in heads for y in n.outputs)
    return _Integers(codes, chosen, traces, frozenset(fixed), shortened, resized)


def _choices(g: Graph) -> dict[str, tuple[str, int]]:
    """(the floats, the axis) by the name of the indices that their order chooses."""
    return {
        n.outputs[-1]: (n.inputs[0], n.op.axis)
        for n in g.nodes
        if isinstance(n.op, TopK | ArgReduce) and g.types[n.inputs[0]].dtype.kind == "float"
    }


def twin_gates(
    twins: Sequence[onnx.ModelProto], graphs: Sequence[Graph], golden: Golden
) -> tuple[Gate, ...]:
    """The gate of a quantized bundle, over the golden calls of each entry point.

    Args:
        twins: ``model.onnx`` of each entry point; what is in no QDQ form has no gate.
        graphs: The compiled graphs: their scheme and states.
        golden: Calls of the bundle.
    """
    counts: defaultdict[tuple[int, str], _Count] = defaultdict(_Count)
    for entry, (twin, compiled) in enumerate(zip(twins, graphs, strict=True)):
        kinds = {n.op_type for n in twin.graph.node}
        if not kinds >= {"QuantizeLinear", "DequantizeLinear"}:
            continue
        # attention is spelled out in the file
        g = optimize(replace(import_onnx(twin).graph, scheme=compiled.scheme), FRONT)
        initial = {s.input: s.initial for s in compiled.states}
        for call in (c for c in golden.calls if c.entry == entry):
            # every call starts anew: what a layer makes of its inputs does not ask where from
            feeds = {**initial, **call.feeds}
            done = _integers(g, feeds)
            compared = _each(g, {x: feeds[x] for x in g.inputs}, done)
            if isinstance(compared, str):
                return (Gate(NAME, "compared", f"not compared: {compared}", True),)
            again, choices = compared
            for x, off in choices.items():
                counts[entry, x].add(off, 1)
            for x, y in done.codes.items():
                off = again[x].steps_from(y, done.resized.get(x, 0.0))
                limits = SHORTENED_STEPS if x in done.shortened else STEPS
                counts[entry, x].add(off, limits[8 * y.itemsize])
                if g.scheme == "tflite":
                    counts[entry, x].share = TWICE_ROUNDED_SHARE
                    counts[entry, x].least = TWICE_ROUNDED_LEAST
                    if again[x].coarse:
                        counts[entry, x].share = COARSE_SHARE
                if x in done.fixed_point:
                    counts[entry, x].share = FIXED_POINT_SHARE
                if x in done.traces:
                    least = float(again[x].op.quant.scale.min())
                    counts[entry, x].share = max(FIXED_POINT_SHARE, GATE_SHARE / least)
    if not counts:
        return ()
    elements = sum(c.elements for c in counts.values())
    apart = sum(c.apart for c in counts.values())
    wrong = [(x, c) for (_, x), c in counts.items() if not c.ok]
    found = f"{apart} of {elements} codes apart"
    if wrong:
        x, c = max(wrong, key=lambda item: (item[1].most, item[1].apart))
        found += f"; {x!r}: {c.apart} of {c.elements}, up to {c.most} steps"
    share = min(c.share for c in counts.values())
    expected = f"{len(counts)} layers, at most {share:.1%} of a layer's codes a step apart"
    if any(c.share > share for c in counts.values()):
        expected += f" ({FIXED_POINT_SHARE:.0%} of attention, recurrent layers and tables"
        coarse = any(c.share == COARSE_SHARE for c in counts.values())
        expected += ", all of LiteRT's means and own functions)" if coarse else ")"
    return (Gate(NAME, expected, found, not wrong),)


@dataclass(slots=True)
class _Count:
    """Codes of a layer over all calls."""

    elements: int = 0
    apart: int = 0
    most: int = 0
    limit: int = 1
    share: float = SHARE
    least: int = 1

    def add(self, off: Array, limit: int) -> None:
        self.elements += off.size
        self.limit = limit
        self.apart += int(np.count_nonzero(off > self.limit - 1))
        self.most = max(self.most, int(off.max(initial=0)))

    @property
    def ok(self) -> bool:
        return self.most <= self.limit and self.apart <= max(self.least, self.share * self.elements)


@dataclass(frozen=True, slots=True, eq=False)
class _Rounded:
    """What a piece of the twin makes of the codes before it.

    Attributes:
        op: Rounds ``value``.
        value: The float it makes.
        codes: What ONNX Runtime rounds it to.
        coarse: Whether ``tflite`` makes the codes in another way than rounding the value.
    """

    op: Quantize
    value: Array
    codes: Array
    coarse: bool = False

    def steps_from(self, y: Array, error: float) -> Array:
        """How far codes are from these, none where ``value`` lies on the tie between them.

        Args:
            y: The codes.
            error: What the sums behind them may be off beside float32, in steps.
        """
        off = np.abs(self.codes.astype(np.int64) - y)
        apart = np.nonzero(off)
        if not apart[0].size:
            return off
        quant = self.op.quant
        scale, zero = (
            np.broadcast_to(spread(a, quant.block, y.shape), y.shape)[apart].astype(np.float64)
            for a in (quant.scale, quant.zero_point)
        )
        v = np.clip(self.value[apart] / scale + zero, *self.op.dtype.limits)
        furthest = np.maximum(np.abs(v - self.codes[apart]), np.abs(v - y[apart]))
        off[apart] *= furthest > 0.5 + TIE + error
        return off


def exchanged(x: Array, axis: int, one: Array, other: Array) -> Array:
    """How often `AS_LARGE` floats differ that two choices prefer, up to 127; 0 where they do not.

    Args:
        x: The floats.
        axis: Along which was chosen.
        one: Indices.
        other: Indices.
    """
    a, b = (np.take_along_axis(x, i, axis).astype(np.float64) for i in (one, other))
    near = AS_LARGE * np.abs(x, where=np.isfinite(x), out=np.zeros(x.shape)).max(initial=1e-30)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        off = np.where(same, 0.0, np.nan_to_num(np.abs(a - b) / near, nan=np.inf))
    found: Array = np.clip(np.ceil(off) - 1, 0, 127).astype(np.int64)
    return found


def _each(
    g: Graph, feeds: Mapping[str, Array], done: _Integers
) -> tuple[dict[str, _Rounded], dict[str, Array]] | str:
    """What each piece of a QDQ graph makes of the codes before it, and how far choices are off."""
    steps, states = single_steps(g, done.traces)
    given = {**feeds, **states}
    made = {n.outputs[0]: n for n in steps.nodes if n.outputs[0] in done.codes}
    choices = {x: c for x, c in _choices(steps).items() if x in done.chosen}
    floats = (*(n.inputs[0] for n in made.values()), *(x for x, _ in choices.values()))
    values = dict.fromkeys(x for x in floats if x not in given)
    cut = _cut(steps, [*made, *choices], values)
    found = _run(cut, {**given, **done.codes, **done.chosen})
    if isinstance(found, str):
        return found
    found |= given
    rounded, before = {}, g.producers()
    for x, n in made.items():
        assert isinstance(n.op, Quantize)
        source = before.get(n.inputs[0])
        coarse = source is not None and _coarse(source.op)
        rounded[x] = _Rounded(n.op, found[n.inputs[0]], found[x + _AGAIN], coarse)
    exchanges = {
        y: exchanged(found[x], axis, found[y + _AGAIN], done.chosen[y])
        for y, (x, axis) in choices.items()
    }
    return rounded, exchanges


def _coarse(op: Op) -> bool:
    """Whether LiteRT's integers of an operator keep few bits between two roundings."""
    if isinstance(op, Reduce):
        return op.kind == "mean"
    return isinstance(op, Lane) and rounds_twice(op.expr)


def _run(g: Graph, feeds: Mapping[str, Array]) -> dict[str, Array] | str:
    """Outputs in ONNX Runtime, or why it does not take the graph."""
    model = to_portable_onnx(g).SerializeToString()
    try:
        session = open_session(model, optimized=False)
        given = {i.name: feeds[i.name] for i in session.get_inputs()}
        return dict(zip(g.outputs, session.run(list(g.outputs), given), strict=True))
    except refusals() as e:
        return f"onnxruntime refuses it: {first_line(e)}"


__all__ = ["NAME", "twin_gates"]
