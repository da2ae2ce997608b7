"""Files for other runtimes: the lowest opset that can say a graph, and the same answers."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from small_models import classifier, model, value
from sparrow.importers.onnx import import_onnx
from sparrow.passes import FRONT, optimize
from sparrow.portable import to_portable_onnx
from sparrow.reference import evaluate
from sparrow.samples import draw


def one(op: str, shape: tuple[int, ...] = (1, 4, 6), **attrs: int | list[int]) -> onnx.ModelProto:
    node = helper.make_node(op, ["x"], ["y"], **attrs)  # type: ignore[arg-type]
    return model([node], [value("x", shape)], [value("y", shape)])


@pytest.mark.parametrize(
    ("proto", "opset"),
    [
        (one("Relu"), 13),
        (one("Sigmoid"), 13),
        (one("Softmax", axis=-1), 13),
        # a reshape says what an extent of 0 means since 14
        (classifier(), 14),
        # the reduction takes its axes as an operand since 18
        (one("ReduceMean", axes=[1], keepdims=1), 18),
    ],
)
def test_the_lowest_opset_that_can_say_it(proto: onnx.ModelProto, opset: int) -> None:
    g = optimize(import_onnx(proto).graph, FRONT)
    m = to_portable_onnx(g)
    onnx.checker.check_model(m, full_check=True)
    assert m.opset_import[0].version == opset
    assert m.ir_version <= 8
    feeds = draw(g, (0,))
    (y,) = ort.InferenceSession(m.SerializeToString()).run(None, feeds)
    np.testing.assert_allclose(y, evaluate(g, feeds)[g.outputs[0]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_integers_above_zero_are_said_so_that_onnxruntime_runs_them(dtype: type) -> None:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    wide = [helper.make_node("Cast", ["x"], ["a"], to=element)]
    wide += [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Cast", ["b"], ["y"], to=1)]
    g = optimize(import_onnx(model(wide, [value("x", (2, 3))], [value("y", (2, 3))])).graph, FRONT)
    m = to_portable_onnx(g)
    feeds = {"x": np.array([[-3, -1, 0], [1, 2, 100]], np.float32)}
    (y,) = ort.InferenceSession(m.SerializeToString()).run(None, feeds)
    np.testing.assert_array_equal(y, np.maximum(feeds["x"], 0))


def test_idle_nodes_are_left_out_and_names_kept() -> None:
    g = optimize(import_onnx(classifier()).graph, FRONT)
    m = to_portable_onnx(g)
    assert not any(n.op_type == "Identity" for n in m.graph.node)
    assert [o.name for o in m.graph.output] == list(g.outputs)
    assert [i.name for i in m.graph.input] == list(g.inputs)


def test_an_output_that_is_an_input_stays_a_copy() -> None:
    m = to_portable_onnx(import_onnx(one("Identity")).graph)
    assert [n.op_type for n in m.graph.node] == ["Identity"]


def clipped(low: float, high: float) -> onnx.ModelProto:
    """Y = min(max(x, low), high), which every pass sees as one clamp."""
    nodes = [
        helper.make_node("Max", ["x", "low"], ["a"]),
        helper.make_node("Min", ["a", "high"], ["y"]),
    ]
    limits = {"low": np.float32(low), "high": np.float32(high)}
    constants = {k: np.asarray(v) for k, v in limits.items()}
    return model(nodes, [value("x", (2, 9))], [value("y", (2, 9))], constants)


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.75), (0.0, 1.0)])
def test_a_clamp_is_one_clip(low: float, high: float) -> None:
    g = optimize(import_onnx(clipped(low, high)).graph, FRONT)
    m = to_portable_onnx(g)
    assert [n.op_type for n in m.graph.node] == ["Clip"]
    x = np.linspace(-2, 2, 18, dtype=np.float32).reshape(2, 9)
    (y,) = ort.InferenceSession(m.SerializeToString()).run(None, {"x": x})
    np.testing.assert_array_equal(y, np.clip(x, np.float32(low), np.float32(high)))


def test_a_value_inside_a_clamp_that_others_read_stays() -> None:
    proto = clipped(-0.5, 0.75)
    proto.graph.output.append(value("a", (2, 9)))
    m = to_portable_onnx(import_onnx(proto).graph)
    assert [n.op_type for n in m.graph.node] == ["Max", "Min"]


@pytest.mark.parametrize("trans_b", [0, 1])
def test_a_fully_connected_layer_is_one_gemm(trans_b: int) -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((7, 5) if trans_b else (5, 7)).astype(np.float32)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=trans_b)
    constants = {"w": w, "b": rng.standard_normal(7).astype(np.float32)}
    proto = model([node], [value("x", (3, 5))], [value("y", (3, 7))], constants)
    g = optimize(import_onnx(proto).graph, FRONT)
    m = to_portable_onnx(g)
    assert [n.op_type for n in m.graph.node] == ["Gemm"]
    feeds = draw(g, (0,))
    (y,) = ort.InferenceSession(m.SerializeToString()).run(None, feeds)
    np.testing.assert_allclose(y, evaluate(g, feeds)[g.outputs[0]], rtol=1e-5, atol=1e-5)


def codes_of_16_bits_beside(nodes: list[onnx.NodeProto], shape: tuple[int, ...]) -> onnx.ModelProto:
    """``nodes`` from the dequantized ``a`` of 8 bits to ``y``, in a file that needs opset 21."""
    rng = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {
        "s": np.float32(0.02),  # type: ignore[dict-item]
        "z": np.int8(-3),  # type: ignore[dict-item]
        "z16": np.int16(0),  # type: ignore[dict-item]
        "flat": np.array([1, -1]),
        "ws": np.full(5, 0.01, np.float32),
        # of seven bits: ONNX Runtime adds two products in 16 bits where there is no VNNI
        "w": rng.integers(-63, 64, (4, 5)).astype(np.int8),
        "b": rng.integers(-999, 999, 5).astype(np.int32),
    }
    make = helper.make_node
    first = [
        make("QuantizeLinear", ["x", "s", "z16"], ["x16"]),
        make("DequantizeLinear", ["x16", "s", "z16"], ["f"]),
        make("QuantizeLinear", ["f", "s", "z"], ["q"]),
        make("DequantizeLinear", ["q", "s", "z"], ["a"]),
    ]
    names = {name for n in nodes for name in n.input} | {name for n in first for name in n.input}
    used = {k: np.asarray(v) for k, v in constants.items() if k in names}
    proto = model([*first, *nodes], [value("x", shape)], [value("y", ())], used)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    proto.opset_import[0].version = 21
    proto.ir_version = 10
    return proto


MAKE = helper.make_node
MOVED = {
    "reshape": [MAKE("Reshape", ["a", "flat"], ["m"]), MAKE("Sigmoid", ["m"], ["y"])],
    "to an output": [MAKE("Transpose", ["a"], ["y"], perm=[2, 0, 1])],
    "twice": [
        MAKE("Transpose", ["a"], ["t"], perm=[1, 0, 2]),
        MAKE("Reshape", ["t", "flat"], ["m"]),
        MAKE("Sigmoid", ["m"], ["u"]),
        MAKE("Neg", ["t"], ["v"]),
        MAKE("Reshape", ["v", "flat"], ["r"]),
        MAKE("Add", ["u", "r"], ["y"]),
    ],
    "product and bias": [
        MAKE("DequantizeLinear", ["w", "ws"], ["W"], axis=1),
        MAKE("DequantizeLinear", ["b", "ws"], ["B"], axis=0),
        MAKE("MatMul", ["a", "W"], ["m"]),
        MAKE("Add", ["m", "B"], ["y"]),
    ],
}


@pytest.mark.parametrize("nodes", MOVED.values(), ids=MOVED)
def test_codes_of_16_bits_load_where_onnxruntime_carries_codes_over_movement(
    nodes: list[onnx.NodeProto],
) -> None:
    g = import_onnx(codes_of_16_bits_beside(nodes, (2, 3, 4))).graph
    m = to_portable_onnx(g)
    onnx.checker.check_model(m, full_check=True)
    assert m.opset_import[0].version == 21
    feeds = draw(g, (0,))
    (y,) = ort.InferenceSession(m.SerializeToString()).run(None, feeds)
    np.testing.assert_allclose(y, evaluate(g, feeds)[g.outputs[0]], rtol=1e-5, atol=1e-5)
