"""The source model in ONNX Runtime: an implementation we did not write, to compare with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from sparrow.compiler import Source
from sparrow.device.cpu import adds_in_16_bits
from sparrow.errors import BadInput, SparrowError
from sparrow.evidence.golden import Golden
from sparrow.graph import Graph
from sparrow.importers.model import as_onnx, is_tflite, operators
from sparrow.ort import first_line, open_session, refusals
from sparrow.tensor import Array


class OracleRefused(SparrowError):
    """ONNX Runtime does not take the model; the text says why."""


class Oracle:
    """A source model in ONNX Runtime, one thread; what is no ONNX file as exported after import.

    Args:
        source: The model.
        threads: Threads of a session.
        timed: Quantized networks may be rewritten for speed. Fused integer kernels round elsewhere,
            on x86 without VNNI their sums saturate, and some of our exports are refused: what is
            compared is computed node by node.

    Attributes:
        states: Model input -> the output that is its value in the next call.
        fixed: Inputs that always hold the same, which `run` adds.

    Raises:
        OracleRefused: ONNX Runtime does not load it.
    """

    def __init__(self, source: Source, threads: int = 1, *, timed: bool = False) -> None:
        model, self.states, self.fixed = as_onnx(
            source.model, source.shapes, source.constants, source.states
        )
        content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
        quantized = is_tflite(source.model) or "DequantizeLinear" in operators(source.model)
        try:
            self.session = open_session(content, optimized=timed or not quantized, threads=threads)
        except refusals() as e:
            raise OracleRefused(f"onnxruntime refuses the model: {first_line(e)}") from None
        self.source = source
        self.inputs = [i.name for i in self.session.get_inputs()]
        self.outputs = [o.name for o in self.session.get_outputs()]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs of one call.

        Raises:
            BadInput: An input is neither fed nor fixed.
            OracleRefused: ONNX Runtime fails on these inputs.
        """
        given = {**self.fixed, **feeds}
        if missing := [n for n in self.inputs if n not in given]:
            raise BadInput(
                f"nothing is known of input {missing[0]!r} of the source model",
                hint=f"--constant {missing[0]}=.. where the bundle was built with one",
            )
        try:
            found = self.session.run(self.outputs, {n: given[n] for n in self.inputs})
        except refusals() as e:
            raise OracleRefused(f"onnxruntime fails: {first_line(e)}") from None
        return dict(zip(self.outputs, found, strict=True))


def oracle_outputs(
    sources: Mapping[str, Source], graphs: Sequence[Graph], golden: Golden
) -> list[dict[str, Array]]:
    """Outputs of the source models over the golden calls, states carried by hand.

    Raises:
        OracleRefused: ONNX Runtime does not take a model or a call.
    """
    items = list(sources.values())
    oracles = [Oracle(s) for s in items]
    integer = {x for s in items for x in operators(s.model) if x.startswith(("QLinear", "QGemm"))}
    if integer and adds_in_16_bits():
        warnings.warn(
            f"this processor has no VNNI: onnxruntime's {min(integer)} adds two products in 16 bits"
            " here, which saturate; what is compared with it may differ by that",
            RuntimeWarning,
            stacklevel=2,
        )
    states: dict[str, Array] = {}
    results = []
    for call in golden.calls:
        g = graphs[call.entry]
        oracle = oracles[call.entry]
        feeds: dict[str, Any] = dict(call.feeds)
        for state in g.states:
            feeds[state.input] = states.get(state.name, state.initial)
        if any(g.types[n].dtype.name == "bfloat16" for n in g.inputs):
            raise OracleRefused("onnxruntime takes no bfloat16 arrays from NumPy")
        out = oracle.run(feeds)
        for state in g.states:
            states[state.name] = out[oracle.states[state.input]]
        # the counts of data-dependent lengths are outputs of ours alone
        results.append({n: np.asarray(out[n]) for n in g.outputs if n in out})
    return results


__all__ = ["Oracle", "OracleRefused", "oracle_outputs"]
