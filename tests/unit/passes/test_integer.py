"""What the integer rules make of float ops between codes: the same within a step, no float left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import onnxruntime
import pytest
from scipy.special import erf

from sparrow import lane
from sparrow.builder import Builder
from sparrow.graph import Graph, Scheme
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.gather import Gather
from sparrow.ops.lane import Lane
from sparrow.ops.lookup import Lookup
from sparrow.ops.matmul import MatMul
from sparrow.ops.normalize import Normalize
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.reshape import Reshape
from sparrow.ops.resize import Axis, Resize
from sparrow.ops.softmax import Softmax
from sparrow.passes import optimize
from sparrow.passes.integer import integer
from sparrow.passes.integer.tables import in_float32
from sparrow.portable import to_portable_onnx
from sparrow.quant.affine import per_tensor
from sparrow.reference import evaluate
from sparrow.tensor import F32, F64, I4, I8, I16, I64, U4, U8, Affine, Array, DType, TensorType

SCHEMES: tuple[Scheme, ...] = ("f32", "fixed31")


def affine(low: float, high: float, dtype: DType, rank: int) -> Affine:
    """The quantization whose codes cover a range."""
    return per_tensor((low, high), dtype, rank)


def codes(seed: int, shape: tuple[int, ...], dtype: DType) -> Array:
    low, high = dtype.limits
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(dtype.numpy)


def between_codes(
    x: Array,
    dtypes: tuple[DType, DType],
    ranges: tuple[tuple[float, float], tuple[float, float]],
    op: Callable[[Builder, str], str],
    scheme: Scheme = "f32",
) -> tuple[Graph, Mapping[str, Array]]:
    """(graph, feeds) of Quantize(op(Dequantize(x)))."""
    b = Builder("g")
    codes = b.input("x", TensorType(x.shape, dtypes[0]))
    real = b.add(Dequantize(affine(*ranges[0], dtypes[0], x.ndim)), codes)
    y = op(b, real)
    quant = affine(*ranges[1], dtypes[1], len(b.shape(y)))
    return replace(b.finish({"y": b.add(Quantize(quant, dtypes[1]), y)}, {}), scheme=scheme), {
        "x": x
    }


def check(g: Graph, feeds: Mapping[str, Array], steps: int = 1) -> Graph:
    """The integer form is within ``steps`` of the float one, and ONNX Runtime computes the same."""
    whole = integer(g)
    assert not any(isinstance(n.op, (Dequantize, Quantize)) for n in whole.nodes)
    got, want = evaluate(whole, feeds)["y"], evaluate(g, feeds)["y"]
    assert got.dtype == want.dtype
    off = np.abs(got.astype(np.int64) - want)
    assert off.max(initial=0) <= steps, (off.max(), np.count_nonzero(off > steps))
    assert len(np.unique(got)) > 4
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # it makes c / x of 1 / x * c, which is rounded once less
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = to_portable_onnx(whole).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, dict(feeds))[0], got)
    return whole


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("to", [I8, U8], ids=str)
@pytest.mark.parametrize("dtype", [I8, U8], ids=str)
@pytest.mark.parametrize("axis", [0, 2])
def test_softmax(axis: int, dtype: DType, to: DType, scheme: Scheme) -> None:
    x = codes(axis, (3, 4, 50), dtype)
    spread = 4.0 * (axis + 1)
    g, feeds = between_codes(
        x,
        (dtype, to),
        ((-spread, spread), (0.0, 0.5)),
        lambda b, v: b.add(Softmax(axis), v),
        scheme,
    )
    check(g, feeds)


def constant(b: Builder, codes: Array, scale: Array, axis: int | None) -> str:
    """The numbers that constant int8 or int32 codes mean."""
    shape = tuple(scale.size if i == axis else 1 for i in range(codes.ndim))
    block = tuple(1 if i == axis else -1 for i in range(codes.ndim))
    quant = Affine(scale.astype(np.float32).reshape(shape), np.zeros(shape, np.int32), block)
    return b.add(Dequantize(quant), b.const(codes))


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize(
    ("extents", "kernel", "strides", "pads"),
    [
        ((9,), (4,), (2,), ((1, 1),)),
        ((7,), (3,), (3,), ((0, -2),)),
        ((5, 6), (3, 3), (2, 2), ((1, 0), (1, 0))),
        ((4, 7), (1, 5), (1, 2), ((0, 0), (2, 2))),
        ((3, 3), (2, 2), (4, 3), ((0, 0), (0, -1))),
        ((4, 5), (5, 4), (1, 3), ((2, 3), (3, 2))),
        ((9, 6), (3, 3), (1, 2), ((2, 1), (1, 1))),
    ],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_transposed_convolution(
    extents: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    clipped: bool,
    group: int,
    scheme: Scheme,
) -> None:
    rng = np.random.default_rng(len(extents))
    c, m = 6, 4
    w = rng.integers(-127, 128, (c, m // group, *kernel)).astype(np.int8)
    scale = rng.uniform(0.002, 0.02, m // group)
    steps = np.tile(scale, group) * affine(-3, 3, I8, 1).scale.item()
    bias = rng.integers(-3000, 3000, m).astype(np.int32)
    relu = lane.call("relu", lane.Arg(0, F32))

    def op(b: Builder, x: str) -> str:
        weights = constant(b, w, scale, 1)
        # only axes without a stride
        dilations = tuple(2 if s == 1 else 1 for s in strides)
        deconv = ConvTranspose(strides, dilations, pads, group)
        y = b.add(deconv, x, weights, constant(b, bias, steps, 0))
        return b.lane(relu, y) if clipped else y

    x = codes(3, (2, c, *extents), I8)
    g, feeds = between_codes(x, (I8, I8), ((-3, 3), (-9, 9)), op, scheme)
    check(g, feeds)


@pytest.mark.parametrize(("given", "to"), [(I8, I8), (I16, I16), (I16, I8), (I8, I16)], ids=str)
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("affine_part", [True, False])
@pytest.mark.parametrize("axes", [(2,), (1, 2)])
def test_normalization(
    axes: tuple[int, ...], affine_part: bool, center: bool, given: DType, to: DType
) -> None:
    rng = np.random.default_rng(5)
    shape = (3, 5, 48)
    gain, bias = (rng.uniform(0.2, 2, 48).astype(np.float32) for _ in range(2))

    def op(b: Builder, x: str) -> str:
        operands = (b.const(gain), b.const(bias)) if affine_part else ()
        return b.add(Normalize(axes, 1e-5, center), x, *operands)

    x = codes(6, shape, given)
    x[1] //= 40
    low = -2 if given == I8 else -5  # codes of 16 bits have no zero point
    g, feeds = between_codes(x, (given, to), ((low, 5), (-6, 6)), op)
    check(g, feeds)


@pytest.mark.parametrize("to", [I8, I16], ids=str)
def test_constants_that_are_joined_or_picked_from_are_codes(to: DType) -> None:
    rng = np.random.default_rng(2)
    token, table = (rng.uniform(-9, 9, (n, 16)).astype(np.float32) for n in (1, 20))

    def op(b: Builder, x: str) -> str:
        return b.add(Concat(0), b.const(token), x)

    # values beyond the range are clipped
    g, feeds = between_codes(codes(6, (3, 16), I8), (I8, to), ((-4, 4), (-6, 6)), op)
    check(g, feeds)
    b = Builder("g")
    rows = b.add(Gather(0), b.const(table), b.input("x", TensorType((5, 2), I64)))
    grid = affine(-6, 6, to, 3)
    real = b.add(Dequantize(grid), b.add(Quantize(grid, to), rows))
    g = b.finish({"y": real}, {})
    whole, feeds = integer(g), {"x": rng.integers(0, 20, (5, 2))}
    assert [type(n.op) for n in whole.nodes] == [Gather, Dequantize]
    np.testing.assert_array_equal(evaluate(whole, feeds)["y"], evaluate(g, feeds)["y"])


@pytest.mark.parametrize("center", [True, False])
def test_squares_of_16_bits_beyond_int32(center: bool) -> None:
    # rows of the extremes, of which half make the largest spread
    rows = np.full((3, 1 << 14), -(1 << 15), np.int16)
    rows[1, ::2] = rows[2, ::3] = (1 << 15) - 1
    norm = Normalize((1,), 1e-5, center)
    g, feeds = between_codes(rows, (I16, I16), ((-4, 4), (-2, 2)), lambda b, x: b.add(norm, x))
    got, want = (evaluate(h, feeds)["y"].astype(np.int64) for h in (integer(g), g))
    # float32 is a little off the mean of a constant row
    assert np.abs(got - want)[center:].max() <= 1
    assert not center or not got[0].any()


def test_16_bits_with_a_zero_point_are_normalized_as_floats() -> None:
    norm = Normalize((1,), 1e-5, True)
    x = codes(6, (3, 48), I16)
    g, _ = between_codes(x, (I16, I16), ((-2, 5), (-6, 6)), lambda b, v: b.add(norm, v))
    assert any(isinstance(n.op, Normalize) for n in integer(g).nodes)


def apart(g: Graph, feeds: Mapping[str, Array]) -> float:
    """Share of the codes of ``y`` in which the integer form differs from the float one."""
    whole = integer(g)
    assert not any(isinstance(n.op, (Dequantize, Quantize)) for n in whole.nodes)
    got, want = (evaluate(h, feeds)["y"] for h in (whole, g))
    return float(np.mean(got != want))


def test_a_normalization_rounds_once() -> None:
    rng = np.random.default_rng(5)
    gain, bias = (rng.uniform(0.2, 2, 64).astype(np.float32) for _ in range(2))

    def op(b: Builder, x: str) -> str:
        return b.add(Normalize((2,), 1e-5, True), x, b.const(gain), b.const(bias))

    g, feeds = between_codes(codes(6, (40, 64, 64), I8), (I8, I8), ((-2, 5), (-6, 6)), op)
    assert apart(g, feeds) < 2e-4


@pytest.mark.parametrize("dtype", [I8, U8, I16], ids=str)
def test_constants_per_channel_are_lines(dtype: DType) -> None:
    rng = np.random.default_rng(3)
    gain, bias = (rng.uniform(-2, 2, (1, 16, 1, 1)).astype(np.float32) for _ in range(2))
    product = lane.call("mul", lane.Arg(0, F32), lane.Arg(1, F32))
    e = lane.call("relu", lane.call("add", product, lane.Arg(2, F32)))

    def op(b: Builder, x: str) -> str:
        return b.lane(e, x, b.const(gain), b.const(bias))

    x = codes(9, (1, 16, 40, 40), dtype)
    g, feeds = between_codes(x, (dtype, I8), ((-3, 3), (-4, 4)), op)
    assert apart(g, feeds) < 1e-3
    check(g, feeds)


def test_a_constant_tensor_is_added_and_what_is_no_line_stays_float() -> None:
    rng = np.random.default_rng(3)
    places = rng.uniform(-1, 1, (1, 9, 32)).astype(np.float32)
    x = codes(9, (2, 9, 32), I8)
    total = lane.call("add", lane.Arg(0, F32), lane.Arg(1, F32))
    g, feeds = between_codes(
        x, (I8, I8), ((-3, 3), (-4, 4)), lambda b, v: b.lane(total, v, b.const(places))
    )
    check(g, feeds)
    bent = lane.call("mul", lane.call("tanh", lane.Arg(0, F32)), lane.Arg(1, F32))
    g, _ = between_codes(
        x, (I8, I8), ((-3, 3), (-4, 4)), lambda b, v: b.lane(bent, v, b.const(places))
    )
    assert any(isinstance(n.op, Quantize) for n in integer(g).nodes)


def test_a_value_of_16_bits_is_added_to_bytes_exactly() -> None:
    b = Builder("g")
    feeds: dict[str, Array] = {}
    reals = []
    for name, dtype, reach in (("a", I8, 6.0), ("b", I16, 1.3)):
        feeds[name] = codes(8, (1, 8, 128, 128), dtype)
        x = b.input(name, TensorType(feeds[name].shape, dtype))
        reals.append(b.add(Dequantize(affine(-reach, reach, dtype, 4)), x))
    total = b.lane(lane.call("add", lane.Arg(0, F32), lane.Arg(1, F32)), *reals)
    y = b.add(Quantize(affine(-6.1, 6.1, I8, 4), I8), total)
    assert apart(b.finish({"y": y}, {}), feeds) < 1e-4


@pytest.mark.parametrize(("low", "float_left"), [(-1.3, False), (-0.1, True)])
def test_products_of_values_of_16_bits_stay_in_int32(low: float, float_left: bool) -> None:
    b = Builder("g")
    feeds = {name: codes(seed, (1, 8, 12, 12), I16) for seed, name in enumerate("ab")}
    reals = [
        b.add(Dequantize(affine(low, 1.3, I16, 4)), b.input(name, TensorType(v.shape, I16)))
        for name, v in feeds.items()
    ]
    product = b.lane(lane.call("mul", lane.Arg(0, F32), lane.Arg(1, F32)), *reals)
    g = b.finish({"y": b.add(Quantize(affine(-1.7, 1.7, I16, 4), I16), product)}, {})
    whole = integer(g)
    assert any(isinstance(n.op, Quantize) for n in whole.nodes) == float_left
    off = evaluate(whole, feeds)["y"].astype(np.int64) - evaluate(g, feeds)["y"]
    assert np.abs(off).max() <= 1


@pytest.mark.parametrize("fn", ["gelu", "gelu_tanh", "sigmoid", "tanh", "silu", "hardswish", "erf"])
def test_functions_of_one_value_are_tables(fn: str) -> None:
    e = lane.call(fn, lane.Arg(0, F32))
    x = codes(1, (5, 60), I8)
    g, feeds = between_codes(x, (I8, U8), ((-4, 4), (-1, 4)), lambda b, v: b.lane(e, v))
    whole = check(g, feeds)
    assert [type(n.op) for n in whole.nodes] == [Lookup]


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("to", [(-2.0, 3.0), (-2.5, 3.5)])
@pytest.mark.parametrize("dtype", [I8, U8], ids=str)
def test_resizing(dtype: DType, to: tuple[float, float], mode: Literal["linear", "cubic"]) -> None:
    rows = (Axis(2, 11, 11 / 7), Axis(3, 16, 2.0))
    x = codes(2, (1, 3, 7, 8), dtype)
    g, feeds = between_codes(
        x, (dtype, dtype), ((-2.0, 3.0), to), lambda b, v: b.add(Resize(rows, mode), v)
    )
    check(g, feeds, 1 if to == (-2.0, 3.0) else 2)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("to", [I8, I16], ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_activations_of_16_bits(scheme: Scheme, to: DType, biased: bool) -> None:
    rng = np.random.default_rng(8)
    # the widest channel's sums need int64
    w = rng.integers(-127, 128, (4, 6, 3, 9)).astype(np.int8)
    w[2] = 127
    scale = rng.uniform(0.0001, 0.001, 4)
    bias = rng.integers(-(1 << 24), 1 << 24, 4).astype(np.int32)
    x = codes(4, (1, 6, 8, 12), I16)
    quant = per_tensor((-5, 5), I16, 4, True)

    def op(b: Builder, v: str) -> str:
        operands = (constant(b, bias, scale * quant.scale.item(), 0),) if biased else ()
        conv = Conv((1, 2), (1, 1), ((1, 1), (0, 2)), 1)
        return b.add(conv, v, constant(b, w, scale, 0), *operands)

    b = Builder("g")
    real = b.add(Dequantize(quant), b.input("x", TensorType(x.shape, I16)))
    made = per_tensor((-20, 20), to, 4, to == I16)
    y = b.add(Quantize(made, to), op(b, real))
    g = replace(b.finish({"y": y}, {}), scheme=scheme)
    check(g, {"x": x}, 1 if to == I8 else 3)


def test_layers_of_16_bits_hand_on_what_vectors_read() -> None:
    rng = np.random.default_rng(9)
    quant = per_tensor((-2, 2), I16, 2, True)
    b = Builder("g")
    x = codes(9, (5, 20), I16)
    v = b.add(Dequantize(quant), b.input("x", TensorType(x.shape, I16)))
    for _ in range(2):
        w = constant(b, rng.integers(-127, 128, (20, 20)).astype(np.int8), np.full(20, 0.002), 1)
        code = b.add(Quantize(quant, I16), b.add(MatMul(), v, w))
        v = b.add(Dequantize(quant), code)
    whole = check(b.finish({"y": code}, {}), {"x": x}, 8)
    want = evaluate(whole, {"x": x})["y"]
    whole = optimize(whole)
    # only the model's input and output are int16
    made = whole.producers()
    assert [y for y, t in whole.types.items() if t.dtype == I16 and y in made] == ["y"]
    np.testing.assert_array_equal(evaluate(whole, {"x": x})["y"], want)


def test_a_sum_reads_reshaped_codes_that_others_read_as_floats() -> None:
    # FULLY_CONNECTED over three axes, beside the residual sum of its operand
    rng = np.random.default_rng(4)

    def residual(b: Builder, x: str) -> str:
        w = constant(b, rng.integers(-127, 128, (20, 20)).astype(np.int8), np.full(20, 0.002), 1)
        rows = b.add(MatMul(), b.add(Reshape((6, 20)), x), w)
        quant = affine(-3, 3, I8, 2)
        near = b.add(Dequantize(quant), b.add(Quantize(quant, I8), rows))
        a, c = lane.Arg(0, F32), lane.Arg(1, F32)
        return b.lane(lane.call("add", a, c), b.add(Reshape((1, 6, 20)), near), x)

    ranges = ((-2.0, 2.0), (-4.0, 4.0))
    check(*between_codes(codes(4, (1, 6, 20), I8), (I8, I8), ranges, residual))


@pytest.mark.parametrize("group", [1, 3])
def test_transposed_convolution_of_stride_1_is_a_convolution(group: int) -> None:
    rng = np.random.default_rng(1)
    b = Builder("g")
    x = b.input("x", TensorType((2, 6, 9, 8), F32))
    w = b.const(rng.standard_normal((6, 4, 3, 2)).astype(np.float32))
    bias = b.const(rng.standard_normal(4 * group).astype(np.float32))
    deconv = ConvTranspose((1, 1), (2, 1), ((1, 4), (0, 1)), group)
    g = b.finish({"y": b.add(deconv, x, w, bias)}, {})
    feeds = {"x": rng.standard_normal((2, 6, 9, 8)).astype(np.float32)}
    plain = optimize(g)
    assert any(isinstance(n.op, Conv) for n in plain.nodes)
    assert not any(isinstance(n.op, ConvTranspose) for n in plain.nodes)
    np.testing.assert_allclose(evaluate(plain, feeds)["y"], evaluate(g, feeds)["y"], atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "kernel", "strides", "dilations", "pads"),
    [
        (1, (4, 4), (2, 2), (1, 1), ((1, 1), (1, 1))),
        (3, (3, 3), (2, 2), (1, 1), ((1, 0), (1, 0))),
        (8, (5, 3), (1, 2), (2, 1), ((0, 0), (2, -1))),
        (2, (2, 2), (4, 3), (1, 1), ((0, 0), (0, -1))),
        (2, (7,), (3,), (1,), ((2, 1),)),
    ],
)
def test_few_channels_are_phases_of_a_convolution(
    channels: int,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
) -> None:
    rng = np.random.default_rng(1)
    shape = (2, 6, 9, 8)[: 2 + len(kernel)]
    b = Builder("g")
    x = b.input("x", TensorType(shape, F32))
    w = b.const(rng.standard_normal((6, channels, *kernel)).astype(np.float32))
    bias = b.const(rng.standard_normal(channels).astype(np.float32))
    y = b.add(ConvTranspose(strides, dilations, pads), x, w, bias)
    g = b.finish({"y": b.call("tanh", y)}, {})
    feeds = {"x": rng.standard_normal(shape).astype(np.float32)}
    plain = optimize(g)
    assert not any(isinstance(n.op, ConvTranspose) for n in plain.nodes)
    np.testing.assert_allclose(evaluate(plain, feeds)["y"], evaluate(g, feeds)["y"], atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "strides", "dilations", "pads"),
    [
        ((3, 3), (2, 2), (1, 1), ((0, 0), (0, 0))),
        ((4, 5), (2, 3), (1, 1), ((1, 0), (0, -1))),
        ((3, 2), (1, 2), (2, 1), ((0, 0), (1, 0))),
        ((3,), (1,), (1,), ((1, 1),)),
        ((2, 2, 2), (2, 2, 2), (1, 1, 1), ((0, 0),) * 3),
    ],
)
def test_computed_weights_of_a_transposed_convolution_are_moved(
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
) -> None:
    rng = np.random.default_rng(1)
    shapes = {"x": (2, 6, 5, 4, 3)[: 2 + len(kernel)], "w": (6, 11, *kernel)}
    b = Builder("g")
    x, w = (b.input(name, TensorType(shape, F32)) for name, shape in shapes.items())
    bias = b.const(rng.standard_normal(11).astype(np.float32))
    g = b.finish({"y": b.add(ConvTranspose(strides, dilations, pads), x, w, bias)}, {})
    feeds = {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}
    plain = optimize(g)
    # of three axes there is a portable kernel either way
    assert any(isinstance(n.op, ConvTranspose) for n in plain.nodes) == (len(kernel) > 2)
    np.testing.assert_allclose(evaluate(plain, feeds)["y"], evaluate(g, feeds)["y"], atol=1e-5)


def test_strides_far_beyond_the_kernel_have_no_phases() -> None:
    # one phase for each of a million elements, of which three meet a tap
    b = Builder("g")
    x = b.input("x", TensorType((1, 2, 2), F32))
    w = b.const(np.ones((2, 1, 3), np.float32))
    g = b.finish({"y": b.add(ConvTranspose((1 << 20,), (1,), ((0, 0),)), x, w)}, {})
    assert any(isinstance(n.op, ConvTranspose) for n in optimize(g).nodes)


def _leaky(x: lane.Expr) -> lane.Expr:
    below = lane.call("lt", x, lane.Imm(0.0, F32))
    return lane.call("where", below, lane.call("mul", x, lane.Imm(0.25, F32)), x)


def _hard_sigmoid(x: lane.Expr) -> lane.Expr:
    line = lane.call("add", lane.call("mul", lane.Imm(0.2, F32), x), lane.Imm(0.5, F32))
    return lane.clip(line, lane.Imm(0.0, F32), lane.Imm(1.0, F32))


def _of_a_sum(fn: Callable[[lane.Expr], lane.Expr], to: DType, high: float) -> tuple[Graph, Array]:
    rng = np.random.default_rng(12)
    w = rng.integers(-127, 128, (8, 6, 1, 1)).astype(np.int8)
    scale = rng.uniform(1e-3, 2e-2, 8)

    def op(b: Builder, x: str) -> str:
        y = b.add(Conv((1, 1), (1, 1), ((0, 0), (0, 0))), x, constant(b, w, scale, 0))
        return b.lane(fn(lane.Arg(0, F32)), y)

    x = codes(4, (1, 6, 30, 30), U8)
    g, feeds = between_codes(x, (U8, to), ((-3, 3), (-0.4, high)), op)
    return check(g, feeds), evaluate(integer(g), feeds)["y"].astype(np.int64) - evaluate(g, feeds)[
        "y"
    ]


@pytest.mark.parametrize("to", [I8, U8, I16], ids=str)
@pytest.mark.parametrize(
    ("fn", "high"),
    [
        (lambda x: lane.call("hardswish", x), 5.0),
        (_leaky, 4.0),
        (_hard_sigmoid, 1.2),
        (lambda x: lane.call("mul", lane.call("abs", x), x), 9.0),
    ],
    ids=["hardswish", "leaky", "hard_sigmoid", "square"],
)
def test_a_function_of_a_sum_takes_the_step_into_its_numbers(
    fn: Callable[[lane.Expr], lane.Expr], high: float, to: DType
) -> None:
    whole, off = _of_a_sum(fn, to, high)
    assert np.count_nonzero(off) <= off.size // 200  # ties alone
    calls = [e for n in whole.nodes if isinstance(n.op, Lane) for e in lane.walk(n.op.expr)]
    assert not any(isinstance(e, lane.Call) and e.fn == "div" for e in calls)


def test_a_step_whose_reciprocal_is_no_float_divides() -> None:
    b = Builder("g")
    x = b.input("x", TensorType((1, 2, 3, 3), I8))
    real = b.add(Dequantize(affine(-1, 1, I8, 4)), x)
    w = constant(b, np.full((2, 2, 1, 1), 3, np.int8), np.full(2, 1e-3), 0)
    s = b.add(Conv((1, 1), (1, 1), ((0, 0), (0, 0))), real, w)
    tiny = Affine(np.full((1,) * 4, 1e-39, np.float32), np.zeros((1,) * 4, np.int32), (-1,) * 4)
    y = b.add(Quantize(tiny, I8), b.lane(lane.call("hardswish", lane.Arg(0, F32)), s))
    g = integer(b.finish({"y": y}, {}))
    assert any(isinstance(n.op, Quantize) for n in g.nodes)


@pytest.mark.parametrize(
    ("dtype", "zero"), [(I8, 0), (I8, -97), (I8, 127), (U8, 250), (I4, 0), (I4, -8), (U4, 8)]
)
@pytest.mark.parametrize("group", [1, 4])
def test_weights_of_every_form(dtype: DType, zero: int, group: int) -> None:
    w = codes(8, (8, 4 // group, 3, 2), dtype)
    step = np.full((1,) * 4, 0.05 if dtype.bits == 4 else 0.004, np.float32)
    quant = Affine(step, np.full((1,) * 4, zero, np.int32), (-1,) * 4)

    def product(b: Builder, v: str) -> str:
        weights = b.add(Dequantize(quant), b.const(w, dtype))
        return b.add(Conv((1, 1), (1, 1), ((1, 0), (1, 1)), group), v, weights)

    x = codes(9, (2, 4, 6, 5), U8)
    g, feeds = between_codes(x, (U8, I8), ((-1, 3), (-6, 5)), product)
    check(g, feeds)


@pytest.mark.parametrize("dtype", [I4, I8], ids=str)
def test_weights_per_group_of_every_width(dtype: DType) -> None:
    w, unit = codes(8, (24, 5), dtype), 0.05 if dtype == I4 else 0.004
    scale = (unit / 64 * np.random.default_rng(3).integers(1, 64, (3, 5))).astype(np.float32)
    scale[0] = unit
    quant = Affine(scale, np.zeros((3, 5), np.int32), (8, 1))

    def product(b: Builder, v: str) -> str:
        return b.add(MatMul(), v, b.add(Dequantize(quant), b.const(w, dtype)))

    g, feeds = between_codes(codes(9, (7, 24), U8), (U8, I8), ((-1, 3), (-6, 5)), product)
    check(g, feeds)


@pytest.mark.parametrize("fn", ["exp", "tanh", "sigmoid", "gelu"])
def test_tables_in_float32_are_the_same_on_every_processor(fn: str) -> None:
    """NumPy's functions of float32 are not: each is that of float64, rounded."""
    x = np.linspace(-9, 9, 4001, dtype=np.float32)

    def rounded(f: Callable[[Array], Array], v: Array) -> Array:
        return f(v.astype(np.float64)).astype(np.float32)

    one = np.float32(1)
    want = {
        "exp": rounded(np.exp, x),
        "tanh": rounded(np.tanh, x),
        "sigmoid": one / (one + rounded(np.exp, -x)),
        "gelu": np.float32(0.5) * x * (one + rounded(erf, x * np.float32(0.5**0.5))),
    }[fn]
    made = lane.call(fn, lane.Arg(0, F32))
    np.testing.assert_array_equal(in_float32(made, (x,), {}), want)
    # below a conversion as well
    np.testing.assert_array_equal(in_float32(lane.cast(made, F64), (x,), {}), want)
