"""The QDQ twin of a quantized bundle beside its integers, layer by layer.

The twin is cut wherever it has codes: each piece is fed the codes that the integer graph gives it
and answers for its own rounding only. ONNX Runtime computes it node by node.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from sparrow.evidence.golden import Golden
from sparrow.evidence.proof import Gate
from sparrow.graph import Graph, retyped
from sparrow.importers.onnx import import_onnx
from sparrow.ops.quantize import Quantize
from sparrow.ort import first_line, open_session, refusals
from sparrow.passes import FRONT, optimize
from sparrow.passes.integer import integer
from sparrow.portable import to_portable_onnx
from sparrow.reference import evaluate, one_thread
from sparrow.tensor import Array, TensorType

NAME = "each layer of the QDQ twin within a step"
# Sums over 16-bit codes in float32 have no bits to spare: a sixteenth of a step of 8 bits.
STEPS = {8: 1, 16: 16}
# Of a layer's codes, over all calls: those whose sum falls on a rounding tie, and at least one.
SHARE = 1e-3
_AGAIN = "'"


def _cut(g: Graph, codes: Sequence[str]) -> Graph:
    """``g`` whose codes are inputs, and whose outputs are what it makes of them."""
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
        outputs=tuple(x + _AGAIN for x in codes),
        states=(),
        lengths=(),
    )
    return retyped(pieces, nodes, types=types)


def _integers(g: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The codes that the integer form of a QDQ graph computes, by the name of their Quantize."""
    wanted = {n.outputs[0] for n in g.nodes if isinstance(n.op, Quantize)}
    found: dict[str, Array] = {}
    with one_thread():
        evaluate(
            integer(g),
            feeds,
            None,
            lambda n, out: found.update(
                (y, a) for y, a in zip(n.outputs, out, strict=True) if y in wanted
            ),
        )
    return found


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
            codes = _integers(g, feeds)
            again = _run(_cut(g, list(codes)), {**{x: feeds[x] for x in g.inputs}, **codes})
            if isinstance(again, str):
                return (Gate(NAME, "compared", f"not compared: {again}", True),)
            for x, y in codes.items():
                off = np.abs(again[x + _AGAIN].astype(np.int64) - y)
                counts[entry, x].add(off, 8 * y.itemsize)
    if not counts:
        return ()
    elements = sum(c.elements for c in counts.values())
    apart = sum(c.apart for c in counts.values())
    wrong = [(x, c) for (_, x), c in counts.items() if not c.ok]
    found = f"{apart} of {elements} codes apart"
    if wrong:
        x, c = max(wrong, key=lambda item: (item[1].most, item[1].apart))
        found += f"; {x!r}: {c.apart} of {c.elements}, up to {c.most} steps"
    expected = f"{len(counts)} layers, at most {SHARE:.1%} of a layer's codes a step apart"
    return (Gate(NAME, expected, found, not wrong),)


@dataclass(slots=True)
class _Count:
    """Codes of a layer over all calls."""

    elements: int = 0
    apart: int = 0
    most: int = 0
    limit: int = 1

    def add(self, off: Array, bits: int) -> None:
        self.elements += off.size
        self.limit = STEPS[bits]
        self.apart += int(np.count_nonzero(off > self.limit - 1))
        self.most = max(self.most, int(off.max(initial=0)))

    @property
    def ok(self) -> bool:
        return self.most <= self.limit and self.apart <= max(1, SHARE * self.elements)


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
