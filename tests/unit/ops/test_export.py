"""What has an operator in ONNX is written as one, for the runtimes and devices that know it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

from sparrow import lane
from sparrow.builder import Builder
from sparrow.export import to_onnx
from sparrow.graph import Op
from sparrow.ops.pad import Pad
from sparrow.ops.pool import Pool
from sparrow.ops.reduce import Reduce
from sparrow.ops.resize import Axis, Mode, Resize
from sparrow.reference import evaluate
from sparrow.tensor import F32, I16, I64, U16, DType, TensorType


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


def test_a_slope_below_zero_is_one_node() -> None:
    b = Builder("g")
    x = b.input("x", TensorType((3, 7), F32))
    arg, zero = lane.Arg(0, F32), lane.Imm(0.0, F32)

    def sloped(below: lane.Expr, bound: lane.Expr) -> str:
        return b.lane(lane.call("where", lane.call("lt", arg, bound), below, arg), x)

    tenth = lane.Imm(0.1, F32)
    g = b.finish(
        {
            "y": sloped(lane.call("mul", tenth, arg), zero),
            "bent": sloped(lane.call("mul", tenth, arg), tenth),
            "square": sloped(lane.call("mul", arg, arg), zero),
        },
        {},
    )
    proto = to_onnx(g)
    kinds = [n.op_type for n in proto.graph.node]
    assert (kinds.count("LeakyRelu"), kinds.count("Where")) == (1, 2)
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)}
    feeds["x"][0, :3] = np.nan, np.inf, -np.inf
    want = evaluate(g, feeds)
    session = ort.InferenceSession(proto.SerializeToString())
    for name, y in zip(g.outputs, session.run(None, feeds), strict=True):
        np.testing.assert_array_equal(y, want[name])


def test_integers_without_a_relu_of_onnxruntime_take_another_operator() -> None:
    b = Builder("g")
    x = b.input("x", TensorType((5,), I64))
    g = b.finish({"y": b.lane(lane.call("relu", lane.Arg(0, I64)), x)}, {})
    session = ort.InferenceSession(to_onnx(g).SerializeToString())
    feeds = {"x": np.array([-(2**40), -1, 0, 1, 2**40])}
    np.testing.assert_array_equal(session.run(None, feeds)[0], [0, 0, 0, 1, 2**40])


CODES_OF_16_BITS = [
    Pad(((0, 0), (0, 0), (1, 2), (0, 1))),
    Pad(((0, 0), (0, 0), (1, 2), (0, 1)), "reflect"),
    Pool("max", (2, 3), (1, 2), (1, 1), ((0, 1), (1, 0))),
    Pool("max", (2, 3), (1, 2), (1, 1), ((0, 1), (1, 0)), channels_last=True),
    Reduce("max", (2, 3)),
    Reduce("min", (1,)),
]


@pytest.mark.parametrize("dtype", [I16, U16], ids=str)
@pytest.mark.parametrize("op", CODES_OF_16_BITS, ids=lambda o: type(o).__name__)
def test_onnxruntime_moves_codes_of_16_bits(op: Op, dtype: DType) -> None:
    """ONNX has no MaxPool and ReduceMax of them, ONNX Runtime no Pad."""
    op = replace(op, value=dtype.limits[0]) if isinstance(op, Pad) else op
    b = Builder("g")
    x = b.input("x", TensorType((2, 3, 6, 5), dtype))
    g = b.finish({"y": b.add(op, x)}, {})
    low, high = dtype.limits
    feeds = {"x": np.random.default_rng(0).integers(low, high + 1, (2, 3, 6, 5), dtype.numpy)}
    session = ort.InferenceSession(to_onnx(g).SerializeToString())
    (y,) = session.run(None, feeds)
    np.testing.assert_array_equal(y, evaluate(g, feeds)["y"], strict=True)


def test_a_ramp_is_one_node() -> None:
    b = Builder("g")
    x = b.input("x", TensorType((3, 7), F32))
    arg = lane.Arg(0, F32)

    def ramp(high: float) -> lane.Expr:
        line = lane.call("add", lane.call("mul", arg, lane.Imm(0.2, F32)), lane.Imm(0.5, F32))
        return lane.clip(line, lane.Imm(0.0, F32), lane.Imm(high, F32))

    g = b.finish(
        {
            "sigmoid": b.lane(ramp(1.0), x),
            "higher": b.lane(ramp(2.0), x),
            "swish": b.lane(lane.call("hardswish", arg), x),
        },
        {},
    )
    proto = to_onnx(g)
    kinds = [n.op_type for n in proto.graph.node]
    assert (kinds.count("HardSigmoid"), kinds.count("Min"), kinds.count("Mul")) == (2, 1, 2)
    feeds = {"x": np.random.default_rng(0).uniform(-5, 5, (3, 7)).astype(np.float32)}
    feeds["x"][0, :2] = np.inf, -10
    want = evaluate(g, feeds)
    session = ort.InferenceSession(proto.SerializeToString())
    for name, y in zip(g.outputs, session.run(None, feeds), strict=True):
        np.testing.assert_allclose(y, want[name], rtol=1e-6, atol=1e-6)
