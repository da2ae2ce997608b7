"""What the shape-changing operators refuse, in one line each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from sparrow.errors import BadModel, SparrowError, UnsupportedOp
from sparrow.importers.onnx import import_onnx
from sparrow.reference import evaluate


def load(op: str, shapes: dict[str, tuple[int, ...]], opset: int = 18, **attrs: Any) -> None:
    """Import one node over float32 inputs, none of which is constant."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node(op, list(shapes), ["y"], **attrs)
    graph = helper.make_graph([node], "g", values, [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    import_onnx(model)


@pytest.mark.parametrize(
    ("op", "shapes", "attrs"),
    [
        ("MaxPool", {"x": (1, 1, 4)}, {"kernel_shape": [2, 2]}),
        ("AveragePool", {"x": (1, 1, 4, 4)}, {"kernel_shape": [2, 2], "strides": [0, 1]}),
        ("AveragePool", {"x": (1, 1, 4, 4)}, {"kernel_shape": [2, 2], "pads": [1]}),
        ("ArgMax", {"x": (2, 3)}, {"axis": 2}),
        ("ArgMax", {"x": (2, 0)}, {"axis": 1}),
        ("LpNormalization", {"x": (2, 3)}, {"p": 3}),
        ("DepthToSpace", {"x": (1, 6, 2, 2)}, {"blocksize": 2}),
        ("GridSample", {"x": (1, 1, 4, 4), "grid": (1, 2, 2, 3)}, {}),
        ("ConvTranspose", {"x": (1, 3, 4), "w": (2, 1, 3)}, {}),
        ("InstanceNormalization", {"x": (1, 3, 4), "s": (2,), "b": (3,)}, {}),
    ],
)
def test_malformed_nodes_are_named(
    op: str, shapes: dict[str, tuple[int, ...]], attrs: dict[str, Any]
) -> None:
    with pytest.raises(BadModel) as caught:
        load(op, shapes, **attrs)
    assert op in str(caught.value) or "y" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        ("Pad", {"x": (2, 3), "pads": (4,)}),
        ("Resize", {"x": (1, 1, 4, 4), "": (), "scales": (4,)}),
        ("Tile", {"x": (2, 3), "repeats": (2,)}),
        ("CumSum", {"x": (2, 3), "axis": ()}),
    ],
)
def test_operands_that_set_shapes_must_be_constant(
    op: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    given = {k: v for k, v in shapes.items() if k}
    with pytest.raises(SparrowError) as caught:
        if "" in shapes:
            node = helper.make_node(op, list(shapes), ["y"])
            values = [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in given.items()
            ]
            y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
            graph = helper.make_graph([node], "g", values, [y])
            opsets = [helper.make_opsetid("", 18)]
            import_onnx(helper.make_model(graph, opset_imports=opsets))
        else:
            load(op, given)
    assert isinstance(caught.value, UnsupportedOp)
    assert "constant" in str(caught.value)


def test_pads_beyond_the_tensor_are_refused() -> None:
    with pytest.raises(BadModel):
        load("Pad", {"x": (2, 3)}, opset=7, pads=[-2, 0, -1, 0])


def test_old_pad_attribute_crops_and_pads() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node("Pad", ["x"], ["y"], pads=[0, -1, 1, 2], value=5.0)
    graph = helper.make_graph([node], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 7)])
    feed = np.arange(6, dtype=np.float32).reshape(2, 3)
    got = evaluate(import_onnx(model).graph, {"x": feed})["y"]
    want = np.array([[1, 2, 5, 5], [4, 5, 5, 5], [5, 5, 5, 5]], np.float32)
    np.testing.assert_array_equal(got, want)
