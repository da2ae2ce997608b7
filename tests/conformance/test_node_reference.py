"""Every ONNX node test is imported, interpreted and run by ONNX Runtime, or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as OrtLacksIt

from conformance.onnx_cases import (
    compare,
    cut,
    load,
    load_cases,
    load_suite,
    onnxruntime_boundary,
    refusal,
)
from conformance.refused import REFUSED
from sparrow.errors import SparrowError
from sparrow.export import to_onnx
from sparrow.graph import Graph
from sparrow.reference import evaluate
from sparrow.tensor import Array

Record = Callable[[str, object], None]
CASES = {c.name: c for c in load_cases()}


def run_onnxruntime(g: Graph, feeds: Mapping[str, Array]) -> list[Array] | None:
    """Outputs of the exported graph, None when ONNX Runtime lacks an operator for these types."""
    model = onnxruntime_boundary(to_onnx(g))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # constant folding would hide which kernels exist, fusions would change rounding
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    except OrtLacksIt:
        return None
    return [np.asarray(y) for y in session.run(None, dict(feeds))]


@pytest.mark.parametrize("name", sorted(CASES))
def test_node(name: str, record_property: Record) -> None:
    case = CASES[name]
    reason = refusal(case)
    if reason:
        with pytest.raises(SparrowError):
            load(case)
        record_property("node", f"refused: {reason}")
        return
    g = load(case)
    feeds = {k: v for k, v in case.inputs.items() if k in g.inputs}
    values = evaluate(g, feeds)
    # behind the model's outputs come counts of data-dependent extents
    for out, want in zip(g.outputs, case.outputs, strict=False):
        compare(cut(g, out, values), want, case, f"{out}, reference")
    found = run_onnxruntime(g, feeds)
    if found is None:
        record_property("node", "passed, not in ONNX Runtime")
        return
    for out, y in zip(g.outputs, found, strict=True):
        compare(y, values[out], case, f"{out}, ONNX Runtime")
    record_property("node", "passed")


def test_every_refusal_is_needed() -> None:
    names = [*CASES, *(c.name for c in load_suite("simple"))]
    idle = [
        p
        for patterns in REFUSED.values()
        for p in patterns
        if not any(fnmatchcase(name, p) for name in names)
    ]
    assert not idle
