"""What a Resize is in ONNX: one node where runtimes have one, else moved to where they do."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from sparrow.builder import Builder
from sparrow.export import to_onnx
from sparrow.ops.resize import Axis, Mode, Resize
from sparrow.reference import evaluate
from sparrow.tensor import F32, TensorType


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    ("shape", "axes", "alone"),
    [
        ((1, 3, 4, 5), (2, 3), True),
        ((1, 4, 5, 3), (1, 2), False),  # channels last
        ((2, 3, 4, 5), (2, 3), False),  # several images are channels of one
        ((1, 3, 4), (2,), False),  # a signal is an image of one row
    ],
)
def test_an_image_is_resized_by_one_node(
    mode: Mode, shape: tuple[int, ...], axes: tuple[int, ...], alone: bool
) -> None:
    b = Builder("g")
    x = b.input("x", TensorType(shape, F32))
    sizes = tuple(Axis(a, 2 * shape[a], 2.0) for a in axes)
    g = b.finish({"y": b.add(Resize(sizes, mode), x)}, {})
    proto = to_onnx(g)
    assert ([n.op_type for n in proto.graph.node] == ["Resize"]) == alone
    feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    session = ort.InferenceSession(proto.SerializeToString())
    np.testing.assert_allclose(session.run(None, feeds)[0], evaluate(g, feeds)["y"], atol=1e-5)
