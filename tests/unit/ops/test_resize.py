"""Resize as exporters write it, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparrow.importers.model import import_model
from sparrow.reference import evaluate


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("outside", [0, 1])
@pytest.mark.parametrize("size", [(4, 3), (20, 13), (4, 13), (1, 7)])
def test_antialiasing_reads_or_leaves_out_what_lies_outside(
    mode: str, outside: int, size: tuple[int, int]
) -> None:
    # torch.onnx.export writes bilinear interpolation with antialias=True with exclude_outside
    node = helper.make_node(
        "Resize",
        ["x", "", "", "sizes"],
        ["y"],
        mode=mode,
        antialias=1,
        exclude_outside=outside,
        coordinate_transformation_mode="half_pixel",
    )
    shape = (1, 2, 9, 7)
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 2, *size))],
        [numpy_helper.from_array(np.array([1, 2, *size]), "sizes")],
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (want,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    got = evaluate(import_model(model).graph, {"x": x})["y"]
    # it computes weights in float32
    np.testing.assert_allclose(got, want, atol=1e-5)
