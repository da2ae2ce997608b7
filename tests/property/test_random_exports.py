"""ONNX Runtime gives the interpreter's answers for every random graph written as ONNX."""

from __future__ import annotations

import numpy as np
import onnxruntime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparrow.export import to_onnx
from sparrow.graph import Graph
from sparrow.reference import evaluate
from strategies import feeds, graphs


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.integers(0, 9))
def test_onnxruntime_agrees_with_the_reference(g: Graph, seed: int) -> None:
    given_ = feeds(g, seed)
    wanted = evaluate(g, given_)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    # what is proved is the file, not what the optimizer makes of it
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(to_onnx(g).SerializeToString(), options)
    found = session.run(None, given_)
    for name, y in zip(g.outputs, found, strict=True):
        want = wanted[name]
        assert want.shape == y.shape
        # a chain of sums errs by its largest term: float32 eps times a few hundred
        scale = max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0)))
        np.testing.assert_allclose(y, want, rtol=2e-4, atol=2e-5 * scale)
