"""The QDQ twin of a quantized bundle beside its integers, layer by layer.

The twin is cut wherever it has codes: each piece is fed the codes that the integer graph gives it
and answers for its own rounding only. ONNX Runtime computes it node by node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from sparrow.evidence.golden import Golden
from sparrow.evidence.proof import Gate
from sparrow.graph import Graph, retyped
from sparrow.importers.onnx import import_onnx
from sparrow.ops.quantize import Quantize
from sparrow.passes import FRONT, optimize
from sparrow.passes.integer import integer
from sparrow.portable import to_portable_onnx
from sparrow.reference import evaluate, one_thread
from sparrow.tensor import Array, TensorType

NAME = "each layer of the QDQ twin within a step"
# Sums over 16-bit codes in float32 have no bits to spare: a sixteenth of a step of 8 bits.
STEPS = {8: 1, 16: 16}
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
    """The gate of a quantized bundle, over the first golden call of each entry point.

    Args:
        twins: ``model.onnx`` of each entry point; what is in no QDQ form has no gate.
        graphs: The compiled graphs: their scheme and states.
        golden: Calls of the bundle.
    """
    layers = far = elements = apart = 0
    where = ""
    for entry, (twin, compiled) in enumerate(zip(twins, graphs, strict=True)):
        kinds = {n.op_type for n in twin.graph.node}
        call = next((c for c in golden.calls if c.entry == entry), None)
        if call is None or not kinds >= {"QuantizeLinear", "DequantizeLinear"}:
            continue
        # attention is spelled out in the file
        g = optimize(replace(import_onnx(twin).graph, scheme=compiled.scheme), FRONT)
        feeds = {**{s.input: s.initial for s in compiled.states}, **call.feeds}
        codes = _integers(g, feeds)
        again = _run(_cut(g, list(codes)), {**{x: feeds[x] for x in g.inputs}, **codes})
        if isinstance(again, str):
            return (Gate(NAME, "compared", f"not compared: {again}", True),)
        for x, y in codes.items():
            off = np.abs(again[x + _AGAIN].astype(np.int64) - y)
            layers += 1
            elements += off.size
            apart += int(np.count_nonzero(off))
            beyond = int(np.count_nonzero(off > STEPS[8 * y.itemsize]))
            if beyond and not where:
                where = f" ({x!r}: {int(off.max())} steps)"
            far += beyond
    if not layers:
        return ()
    expected = f"{layers} layers, no code further"
    found = f"{apart} of {elements} codes apart, {far} further than a step{where}"
    return (Gate(NAME, expected, found, not far),)


def _run(g: Graph, feeds: Mapping[str, Array]) -> dict[str, Array] | str:
    """Outputs in ONNX Runtime, or why it does not take the graph."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        model = to_portable_onnx(g).SerializeToString()
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        given = {i.name: feeds[i.name] for i in session.get_inputs()}
        return dict(zip(g.outputs, session.run(list(g.outputs), given), strict=True))
    except Exception as e:  # its binding raises classes of its own with no public base
        return f"onnxruntime refuses it: {str(e).strip().splitlines()[0][:160]}"


__all__ = ["NAME", "twin_gates"]
