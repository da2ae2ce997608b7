"""Quantized models as types: what is constant stays codes, products are exact, export is QDQ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparrow.export import to_onnx
from sparrow.graph import Graph
from sparrow.importers.onnx import import_onnx
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.ops.quantize import Dequantize, Quantize, affine, spread
from sparrow.reference import evaluate
from sparrow.tensor import I8, Affine, Array, DType
from sparrow.text import parse_graph, print_graph

RNG = np.random.default_rng(7)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Array],
    constants: Mapping[str, Array],
    output: int,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model of ``nodes`` with output ``y`` of an element type."""
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for k, v in inputs.items()
        ],
        [helper.make_tensor_value_info("y", output, None)],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(m: onnx.ModelProto, feeds: Mapping[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(m.SerializeToString(), options)
    return np.asarray(session.run(None, dict(feeds))[0])


def check(m: onnx.ModelProto, feeds: Mapping[str, Array], step: int = 0) -> Graph:
    """Reference and export agree with ONNX Runtime, codes by at most ``step``."""
    g = import_onnx(m).graph
    got = evaluate(g, feeds)["y"]
    wide = np.float64 if got.dtype.kind == "f" else np.int64
    for want in (run(m, feeds), run(to_onnx(g), feeds)):
        assert got.shape == want.shape and got.dtype == want.dtype
        if got.dtype.kind == "f":
            # terms of a sum cancel: what is left errs by their size, not its own
            largest = float(np.abs(want).max(initial=1))
            np.testing.assert_allclose(got, want, 1e-5, 1e-6 * largest)
        else:
            assert np.abs(got.astype(wide) - want.astype(wide)).max(initial=0) <= step
    text, arrays = print_graph(g)
    assert print_graph(parse_graph(text, arrays)) == (text, arrays)
    return g


def codes(dtype: Any, *shape: int) -> Array:
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, shape, dtype, endpoint=True)


def seven_bits(*shape: int) -> Array:
    """Weights that ONNX Runtime multiplies exactly without VNNI too: it adds twos in 16 bits."""
    return codes(np.int8, *shape) // 2


def f32(*values: float) -> Array:
    return np.array(values, np.float32)


def test_weights_stay_codes_with_their_scale() -> None:
    w = codes(np.int8, 4, 3, 3, 3)
    consts = {"w": w, "s": f32(0.1, 0.2, 0.3, 0.4), "z": np.zeros(4, np.int8)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["f"], axis=0),
        helper.make_node("Conv", ["x", "f"], ["y"]),
    ]
    x = RNG.standard_normal((1, 3, 6, 6)).astype(np.float32)
    g = check(model(nodes, {"x": x}, consts, TensorProto.FLOAT), {"x": x})
    (name,) = g.consts
    quant = g.types[name].quant
    assert g.types[name].dtype == I8 and isinstance(quant, Affine)
    assert quant.block == (1, -1, -1, -1) and quant.scale.shape == (4, 1, 1, 1)
    assert isinstance(g.producers()["f"].op, Dequantize)


def test_activation_types_survive_movement() -> None:
    consts = {"s": f32(0.05), "z": np.array([3], np.uint8), "to": np.array([2, 12], np.int64)}
    consts = {k: v.reshape(()) if k in "sz" else v for k, v in consts.items()}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("Transpose", ["q"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["t", "to"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]
    x = RNG.standard_normal((2, 3, 4)).astype(np.float32)
    g = check(model(nodes, {"x": x}, consts, TensorProto.FLOAT), {"x": x})
    assert isinstance(g.producers()["q"].op, Quantize)
    for name in ("q", "t", "r"):
        quant = g.types[name].quant
        assert isinstance(quant, Affine) and quant.per_tensor
        assert quant.scale.ndim == g.types[name].rank


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint16])
@pytest.mark.parametrize(("scale", "zero"), [((), 5), ((), 9), ((3,), 5)])
def test_codes_are_read_by_another_scale_than_they_were_made_with(
    dtype: type[np.integer[Any]], scale: tuple[int, ...], zero: int
) -> None:
    consts = {
        "s": np.array(0.1, np.float32), "z": np.array(5, dtype),
        "other": RNG.uniform(0.1, 0.3, scale).astype(np.float32), "zo": np.full(scale, zero, dtype),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "other", "zo"], ["y"]),
    ]
    x = (4 * RNG.standard_normal((2, 3, 7))).astype(np.float32)
    check(model(nodes, {"x": x}, consts, TensorProto.FLOAT), {"x": x})


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16])
@pytest.mark.parametrize("blocked", [False, True])
def test_round_trip_of_every_width(dtype: type[np.integer[Any]], blocked: bool) -> None:
    shape = (3, 2, 5) if blocked else (2,)
    s = RNG.uniform(0.01, 0.1, shape).astype(np.float32)
    attrs: dict[str, Any] = {"axis": 1, "block_size": 2} if blocked else {"axis": 1}
    x = (8 * RNG.standard_normal((3, 4 if blocked else 2, 5))).astype(np.float32)
    consts = {"s": s, "z": codes(dtype, *shape) // 4}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attrs),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attrs),
    ]
    check(model(nodes, {"x": x}, consts, TensorProto.FLOAT), {"x": x})


def test_quantize_rounds_to_even_and_saturates() -> None:
    op = Quantize(affine(f32(2.0), np.array([1]), (7,), 0, 0), I8)
    x = f32(1.0, 3.0, 5.0, -1.0, 1e9, -np.inf, np.nan)
    (y,) = op.eval(x)
    assert y.tolist() == [1, 3, 3, 1, 127, -128, 1]


def test_blocks_need_not_divide_the_axis() -> None:
    q = affine(f32(1, 2, 3), np.zeros(3), (5,), 0, 2)
    assert spread(q.scale, q.block, (5,)).tolist() == [1, 1, 2, 2, 3]


def multiplied_by(g: Graph) -> DType:
    """The type of the weights of the first product: int8 is what fast kernels take."""
    return g.types[next(n for n in g.nodes if isinstance(n.op, Conv | MatMul)).inputs[1]].dtype


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 2, 1]])
@pytest.mark.parametrize("zeros", ["", "x", "w", "xw", "xc"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_integer_convolution(
    group: int, pads: list[int], zeros: str, dtype: type[np.integer[Any]]
) -> None:
    x, w = codes(np.uint8, 2, 4, 5, 6), codes(dtype, 6, 4 // group, 3, 2)
    consts = {"w": w}
    names = ["x", "w", "", ""]
    if "x" in zeros:
        names[2], consts["zx"] = "zx", np.array(117, np.uint8)
    if "w" in zeros:
        names[3], consts["zw"] = "zw", np.array(-5).astype(dtype)
    if "c" in zeros:
        names[3], consts["zw"] = "zw", codes(dtype, 6)
    node = helper.make_node("ConvInteger", names, ["y"], group=group, pads=pads, strides=[1, 2])
    m = model([node], {"x": x}, consts, TensorProto.INT32)
    g = import_onnx(m).graph
    got = evaluate(g, {"x": x})["y"]
    assert multiplied_by(g) == I8
    if "c" in zeros:
        # ONNX Runtime takes one zero point only: the sum written out
        zx, zw = int(consts["zx"]), consts["zw"].astype(int)
        wide = np.pad(x.astype(int) - zx, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
        view = np.lib.stride_tricks.sliding_window_view(wide, (3, 2), (2, 3))[:, :, :, ::2]
        split = view.reshape(2, group, 4 // group, *view.shape[2:])
        weights = (w - zw[:, None, None, None]).reshape(group, 6 // group, *w.shape[1:])
        want = np.einsum("ngchwij,gmcij->ngmhw", split, weights)
        np.testing.assert_array_equal(got, want.reshape(got.shape))
    else:
        np.testing.assert_array_equal(got, run(m, {"x": x}))
    np.testing.assert_array_equal(got, run(to_onnx(g), {"x": x}))


@pytest.mark.parametrize("a", [np.uint8, np.int8])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("b", [np.int8, np.uint8])
def test_integer_product(
    a: type[np.integer[Any]], rows: bool, columns: bool, b: type[np.integer[Any]]
) -> None:
    x, w = codes(a, 2, 3, 7), codes(b, 7, 4)
    za = codes(a, 3) if rows else np.array(9, a)
    zb = codes(b, 4) if columns else np.array(-3).astype(b)
    node = helper.make_node("MatMulInteger", ["x", "w", "za", "zb"], ["y"])
    m = model([node], {"x": x}, {"w": w, "za": za, "zb": zb}, TensorProto.INT32)
    g = import_onnx(m).graph
    assert multiplied_by(g) == I8
    left = x.astype(int) - (za.astype(int)[:, None] if rows else int(za))
    want = left @ (w.astype(int) - zb.astype(int))
    got = evaluate(g, {"x": x})["y"]
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(run(to_onnx(g), {"x": x}), want)


def test_dynamically_quantized_linear_layer() -> None:
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "ws"], ["k"]),
        helper.make_node("Mul", ["f", "k"], ["y"]),
    ]
    consts = {"w": seven_bits(8, 5), "ws": np.array(0.02, np.float32)}
    check(model(nodes, {"x": x}, consts, TensorProto.FLOAT), {"x": x})
    zero = np.zeros_like(x)
    g = import_onnx(model(nodes, {"x": x}, consts, TensorProto.FLOAT)).graph
    assert not evaluate(g, {"x": zero})["y"].any()


@pytest.mark.parametrize("bias", [False, True])
def test_qlinear_conv(bias: bool) -> None:
    x, w = codes(np.uint8, 1, 4, 6, 6), seven_bits(5, 4, 3, 3)
    consts: dict[str, Array] = {
        "xs": np.array(0.03, np.float32), "xz": np.array(120, np.uint8),
        "w": w, "ws": RNG.uniform(0.01, 0.02, 5).astype(np.float32), "wz": np.zeros(5, np.int8),
        "ys": np.array(0.4, np.float32), "yz": np.array(100, np.uint8),
    }  # fmt: skip
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    if bias:
        names, consts["b"] = [*names, "b"], RNG.integers(-9000, 9000, 5).astype(np.int32)
    node = helper.make_node("QLinearConv", names, ["y"], pads=[1, 1, 1, 1])
    check(model([node], {"x": x}, consts, TensorProto.UINT8), {"x": x}, step=1)


MICROSOFT: dict[str, tuple[list[str], dict[str, Any]]] = {
    "QLinearAdd": (["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], {}),
    "QLinearMul": (["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], {}),
    "QLinearSigmoid": (["x", "xs", "xz", "ys", "yz"], {}),
    "QLinearLeakyRelu": (["x", "xs", "xz", "ys", "yz"], {"alpha": 0.1}),
    "QLinearGlobalAveragePool": (["x", "xs", "xz", "ys", "yz"], {"channels_last": 0}),
    "QLinearAveragePool": (["x", "xs", "xz", "ys", "yz"], {"kernel_shape": [2, 2]}),
    "QLinearConcat": (["ys", "yz", "x", "xs", "xz", "w", "ws", "wz"], {"axis": 1}),
    "QLinearSoftmax": (["x", "xs", "xz", "ys", "yz"], {"axis": -1, "opset": 13}),
    "QLinearWhere": (["c", "x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], {}),
}


@pytest.mark.parametrize("op", sorted(MICROSOFT))
def test_microsoft_operators(op: str) -> None:
    names, attrs = MICROSOFT[op]
    x = codes(np.uint8, 1, 3, 4, 4)
    scale = 1 / 256 if op in ("QLinearSigmoid", "QLinearSoftmax") else 0.07
    consts: dict[str, Array] = {
        "xs": np.array(0.03, np.float32), "xz": np.array(120, np.uint8),
        "w": codes(np.uint8, 1, 3, 4, 4), "ws": np.array(0.05, np.float32),
        "wz": np.array(90, np.uint8), "ys": np.array(scale, np.float32),
        "yz": np.array(0 if scale < 0.01 else 60, np.uint8),
        "c": RNG.integers(0, 2, (1, 3, 4, 4)).astype(bool),
    }  # fmt: skip
    node = helper.make_node(op, names, ["y"], domain="com.microsoft", **attrs)
    used = {k: v for k, v in consts.items() if k in names}
    m = model([node], {"x": x}, used, TensorProto.UINT8, ["com.microsoft"])
    check(m, {"x": x}, step=1)


@pytest.mark.parametrize("given", [False, True])
def test_qgemm(given: bool) -> None:
    x, w = codes(np.uint8, 3, 7), seven_bits(4, 7)
    consts: dict[str, Array] = {
        "xs": np.array(0.03, np.float32), "xz": np.array(120, np.uint8),
        "w": w, "ws": np.array(0.02, np.float32), "wz": np.array(0, np.int8),
        "c": RNG.integers(-900, 900, 4).astype(np.int32),
    }  # fmt: skip
    names = ["x", "xs", "xz", "w", "ws", "wz", "c"]
    if given:
        names += ["ys", "yz"]
        consts |= {"ys": np.array(0.5, np.float32), "yz": np.array(100, np.uint8)}
    node = helper.make_node("QGemm", names, ["y"], domain="com.microsoft", transB=1)
    out = TensorProto.UINT8 if given else TensorProto.FLOAT
    check(model([node], {"x": x}, consts, out, ["com.microsoft"]), {"x": x}, step=1)


# ONNX Runtime takes zero points between codes with 4 bits only
@pytest.mark.parametrize(
    ("bits", "zeros"), [(4, ""), (4, "codes"), (4, "floats"), (8, ""), (8, "codes")]
)
@pytest.mark.parametrize("depth", [32, 40])
def test_weights_of_few_bits(bits: int, zeros: str, depth: int) -> None:
    rows, block = 6, 16
    blocks = -(-depth // block)
    consts: dict[str, Array] = {
        "w": codes(np.uint8, rows, blocks, block * bits // 8),
        "s": RNG.uniform(0.01, 0.1, rows * blocks).astype(np.float32),
    }
    names = ["x", "w", "s"]
    if zeros:
        between = RNG.uniform(0, 1 << bits, rows * blocks).astype(np.float32)
        whole = codes(np.uint8, rows * -(-blocks * bits // 8))
        names, consts["z"] = [*names, "z"], between if zeros == "floats" else whole
    node = helper.make_node(
        "MatMulNBits", names, ["y"], domain="com.microsoft",
        K=depth, N=rows, bits=bits, block_size=block,
    )  # fmt: skip
    x = RNG.standard_normal((2, 3, depth)).astype(np.float32)
    g = check(model([node], {"x": x}, consts, TensorProto.FLOAT, ["com.microsoft"]), {"x": x})
    (held,) = g.consts
    # a zero point between codes leaves no codes
    assert g.types[held].dtype.bits == (32 if zeros == "floats" else bits)
    assert g.types[held].shape == (rows, depth)


@pytest.mark.parametrize(
    ("shape", "axis", "block"), [((), 1, 0), ((5,), 1, 0), ((3, 2), 1, 2), ((3,), 0, 0)]
)
def test_scale_at_run_time_gives_the_codes_of_a_constant_one(
    shape: tuple[int, ...], axis: int, block: int
) -> None:
    x = RNG.standard_normal((3, 3) if block else (3, 5)).astype(np.float32)
    scale = (RNG.random(shape) + 0.01).astype(np.float32)
    zero = RNG.integers(-9, 9, shape).astype(np.int8)
    attrs: dict[str, Any] = {"block_size": block} if block else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=axis, **attrs),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=axis, **attrs),
    ]
    given: dict[str, Array] = {"s": scale, "z": zero}
    fixed = import_onnx(model(nodes, {"x": x}, given, TensorProto.FLOAT)).graph
    free = import_onnx(model(nodes, {"x": x, **given}, {}, TensorProto.FLOAT)).graph
    want, got = evaluate(fixed, {"x": x})["y"], evaluate(free, {"x": x, **given})["y"]
    np.testing.assert_array_equal(got, want)
