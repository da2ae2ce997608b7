"""ONNX models of a few nodes, for tests of everything around the kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sparrow.tensor import Array

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Mapping[str, Array] | None = None,
    name: str = "small",
) -> onnx.ModelProto:
    """A model of opset 17."""
    initializers = [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), name, list(inputs), list(outputs), initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def renamed(m: onnx.ModelProto, names: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """The model with other names for its values, new ones for all but inputs by default."""
    n = onnx.ModelProto()
    n.CopyFrom(m)
    made = [y for node in n.graph.node for y in node.output]
    names = {y: f"v{i}" for i, y in enumerate(made)} if names is None else names
    for node in n.graph.node:
        node.input[:] = [names.get(x, x) for x in node.input]
        node.output[:] = [names.get(y, y) for y in node.output]
    for v in (*n.graph.input, *n.graph.output, *n.graph.value_info):
        v.name = names.get(v.name, v.name)
    return n


def value(name: str, shape: Sequence[int | str], dtype: int = FLOAT) -> onnx.ValueInfoProto:
    """A typed value."""
    return helper.make_tensor_value_info(name, dtype, list(shape))


def classifier(
    prefix: str = "", seed: int = 0, shape: Sequence[int | str] = (1, 3, 12, 12)
) -> onnx.ModelProto:
    """conv1 - relu - pool - conv2 - relu - mean - fc - softmax; names start with ``prefix``."""
    rng = np.random.default_rng(seed)
    p = prefix
    constants = {
        f"{p}w1": rng.standard_normal((8, 3, 3, 3), np.float32),
        f"{p}b1": rng.standard_normal(8, np.float32),
        f"{p}w2": rng.standard_normal((16, 8, 3, 3), np.float32),
        f"{p}w3": rng.standard_normal((16, 5), np.float32),
    }
    nodes = [
        helper.make_node(
            "Conv", [f"{p}x", f"{p}w1", f"{p}b1"], [f"{p}a"], f"{p}conv1", pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", [f"{p}a"], [f"{p}b"], f"{p}relu1"),
        helper.make_node(
            "MaxPool", [f"{p}b"], [f"{p}c"], f"{p}pool1", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Conv", [f"{p}c", f"{p}w2"], [f"{p}d"], f"{p}conv2"),
        helper.make_node("Relu", [f"{p}d"], [f"{p}e"], f"{p}relu2"),
        helper.make_node("GlobalAveragePool", [f"{p}e"], [f"{p}f"], f"{p}mean"),
        helper.make_node("Flatten", [f"{p}f"], [f"{p}g"], f"{p}flat"),
        helper.make_node("MatMul", [f"{p}g", f"{p}w3"], [f"{p}h"], f"{p}fc"),
        helper.make_node("Softmax", [f"{p}h"], [f"{p}y"], f"{p}softmax"),
    ]
    return model(nodes, [value(f"{p}x", shape)], [value(f"{p}y", (1, 5))], constants)


def accumulator() -> onnx.ModelProto:
    """total_out = total + x, y = 2 * total_out: a state threaded by hand."""
    nodes = [
        helper.make_node("Add", ["total", "x"], ["total_out"], "add"),
        helper.make_node("Mul", ["total_out", "two"], ["y"], "double"),
    ]
    return model(
        nodes,
        [value("x", (4,)), value("total", (4,))],
        [value("y", (4,)), value("total_out", (4,))],
        {"two": np.full(1, 2, np.float32)},
    )


def recurrent(steps: int = 1) -> onnx.ModelProto:
    """h_out = tanh(h + x @ w) after ``steps`` rows of x, y = h_out @ v; names its products."""
    rng = np.random.default_rng(5)
    constants = {
        "w": rng.standard_normal((16, 32), np.float32) / 4,
        "v": rng.standard_normal((32, 8), np.float32) / 4,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "into"),
        helper.make_node("ReduceSum", ["a"], ["s"], "rows", keepdims=1),
        helper.make_node("Add", ["h", "s"], ["b"], "add"),
        helper.make_node("Tanh", ["b"], ["h_out"], "tanh"),
        helper.make_node("MatMul", ["h_out", "v"], ["y"], "outof"),
    ]
    nodes[1].input.append("axis")
    constants["axis"] = np.array([0], np.int64)
    return model(
        nodes,
        [value("x", (steps, 16)), value("h", (1, 32))],
        [value("y", (1, 8)), value("h_out", (1, 32))],
        constants,
    )


def embedding() -> onnx.ModelProto:
    """Y = table[ids], a table of 7 rows."""
    table = np.arange(21, dtype=np.float32).reshape(7, 3)
    node = helper.make_node("Gather", ["table", "ids"], ["y"], "lookup")
    return model([node], [value("ids", (5,), INT64)], [value("y", (5, 3))], {"table": table})


def strange() -> onnx.ModelProto:
    """Three nodes that nobody knows, in a model that is fine elsewhere."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "fine1"),
        helper.make_node("Frobnicate", ["a"], ["b"], "odd1", domain="org.example"),
        helper.make_node("Relu", ["b"], ["c"], "after"),
        helper.make_node("StringNormalizer", ["x"], ["d"], "odd2"),
        helper.make_node("Convv", ["x"], ["e"], "odd3"),
        helper.make_node("Sigmoid", ["x"], ["y"], "fine2"),
    ]
    made = model(nodes, [value("x", (1, 4))], [value(n, (1, 4)) for n in ("c", "y", "e")])
    made.opset_import.append(helper.make_opsetid("org.example", 1))
    return made
