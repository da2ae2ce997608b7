"""Scheme ``tflite``: the integer form of each operator gives LiteRT's very codes.

Scales are random, or powers of two apart so that sums fall on rounding ties.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparrow.graph import Graph
from sparrow.importers.tflite import import_tflite
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.passes.integer import integer
from sparrow.reference import evaluate
from sparrow.tensor import I8, I16, U8, Array, DType
from tflite_files import T, constant, litert, one

SEEDS = range(6)
CONV: dict[str, Any] = {
    "padding": 0,
    "stride_w": 1,
    "stride_h": 1,
    "dilation_w": 1,
    "dilation_h": 1,
}


class Draw:
    """Random tensors and quantizations of one seed; odd seeds draw powers of two."""

    def __init__(self, seed: int, dtype: DType) -> None:
        self.rng = np.random.default_rng(seed)
        self.exact, self.dtype = bool(seed % 2), dtype

    def scale(self, near: float) -> float:
        """A scale within a factor of two of ``near``."""
        exponent = float(np.log2(near)) + self.rng.uniform(-1, 1)
        return float(np.float32(2.0 ** (round(exponent) if self.exact else exponent)))

    def zero(self) -> int:
        """A zero point."""
        return int(self.rng.integers(-40, 40)) + (128 if self.dtype == U8 else 0)

    def codes(self, *shape: int) -> Array:
        """Codes of the type."""
        low, high = self.dtype.limits
        return self.rng.integers(low, high + 1, shape).astype(self.dtype.numpy)

    def activation(self) -> int:
        """None, relu or relu6."""
        return int(self.rng.choice([0, 0, 1, 3]))


def check(tmp_path: Path, data: bytes, feeds: Mapping[str, Array]) -> Graph:
    """The integer form of a file computes what LiteRT does; no float op is left."""
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    g = integer(import_tflite(path).graph)
    assert not any(isinstance(n.op, Quantize | Dequantize) for n in g.nodes)
    (wanted,) = litert(data, feeds)
    found = evaluate(g, feeds)["y"]
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)
    assert len(np.unique(found)) > 4
    return g


@pytest.mark.parametrize("dtype", [I8, U8], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("op", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_convolution(tmp_path: Path, op: str, seed: int, dtype: DType) -> None:
    d = Draw(seed, dtype)
    x = d.codes(1, 9, 8, 6)
    m = 6 if op[0] == "D" else 5
    shape = (1, 3, 3, 6) if op[0] == "D" else (5, 3, 3, 6)
    sx, zx = d.scale(0.05), d.zero()
    if dtype == I8:
        scales = [d.scale(0.01) for _ in range(m)]
        weights = d.rng.integers(-127, 128, shape).astype(np.int8)
        zeros = [0] * m
    else:
        scales, zeros, weights = [d.scale(0.01)], [int(d.rng.integers(90, 170))], d.codes(*shape)
    w = constant("w", weights, scale=scales, zero=zeros, axis=3 if op[0] == "D" else 0)
    bias = d.rng.integers(-3000, 3000, m).astype(np.int32)
    out = T(
        "y", (1, 9, 8, m), dtype, scale=[d.scale(0.6 if op[0] == "C" else 0.2)], zero=[d.zero()]
    )
    options = {**CONV, "activation": d.activation()}
    b = constant("b", bias, scale=[sx * s for s in scales])
    check(
        tmp_path,
        one(op, {"x": x}, options, out=out, consts=[w, b], quant={"x": (sx, zx)}),
        {"x": x},
    )


@pytest.mark.parametrize("dtype", [I8, U8, I16], ids=str)
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("seed", SEEDS)
def test_transposed_convolution(tmp_path: Path, seed: int, padding: int, dtype: DType) -> None:
    d = Draw(seed, dtype)
    # what is left of whole vectors of int8 channels is rounded otherwise there
    x, narrow, m = d.codes(1, 5, 6, 4), dtype.bits == 8, 16 if dtype == I8 else 3
    zeros = [d.zero(), d.zero()] if narrow else [0, 0]
    scales = [d.scale(0.01) for _ in range(1 if dtype == U8 else m)]
    codes = d.codes(m, 3, 3, 4) if dtype == U8 else d.rng.integers(-127, 128, (m, 3, 3, 4))
    w = constant(
        "w",
        codes.astype(np.uint8 if dtype == U8 else np.int8),
        scale=scales,
        zero=[120 if dtype == U8 else 0] * len(scales),
    )
    shape = (1, 11, 13, m) if padding == 1 else (1, 10, 12, m)
    out = T("y", shape, dtype, scale=[d.scale(0.5 if narrow else 2e-3)], zero=[zeros[1]])
    options = {"padding": padding, "stride_w": 2, "stride_h": 2, "activation": d.activation()}
    data = one(
        "TRANSPOSE_CONV",
        {"x": x},
        options,
        out=out,
        consts=[constant("s", np.array(shape, np.int32)), w],
        order=["s", "w", "x"],
        quant={"x": (d.scale(0.05 if narrow else 2e-4), zeros[0])},
    )
    check(tmp_path, data, {"x": x})


@pytest.mark.parametrize("dtype", [I8, U8], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_fully_connected(tmp_path: Path, seed: int, dtype: DType) -> None:
    d = Draw(seed, dtype)
    x, sx, sw = d.codes(7, 33), d.scale(0.05), d.scale(0.01)
    zw = 0 if dtype == I8 else int(d.rng.integers(90, 170))
    weights = (
        d.codes(12, 33) if dtype == U8 else d.rng.integers(-127, 128, (12, 33)).astype(np.int8)
    )
    w = constant("w", weights, scale=[sw], zero=[zw])
    b = constant("b", d.rng.integers(-3000, 3000, 12).astype(np.int32), scale=[sx * sw])
    out = T("y", (7, 12), dtype, scale=[d.scale(0.5)], zero=[d.zero()])
    options = {"activation": d.activation()}
    data = one(
        "FULLY_CONNECTED", {"x": x}, options, out=out, consts=[w, b], quant={"x": (sx, d.zero())}
    )
    check(tmp_path, data, {"x": x})


@pytest.mark.parametrize("dtype", [I8, I16], ids=str)
@pytest.mark.parametrize("kind", ["bias", "", "64 bits"])
@pytest.mark.parametrize("seed", SEEDS)
def test_fully_connected_with_a_scale_per_channel(
    tmp_path: Path, seed: int, kind: str, dtype: DType
) -> None:
    d, wide = Draw(seed, dtype), dtype == I16
    # of few channels sums of 32 bits and of 64 round alike
    x, sx, m = d.codes(200, 33), d.scale(2e-4 if wide else 0.05), 60
    scales, zero = [d.scale(0.01) for _ in range(m)], 0 if wide else d.zero()
    weights = d.rng.integers(-127, 128, (m, 33)).astype(np.int8)
    consts = [constant("w", weights, scale=scales, zero=[0] * m, axis=0)]
    if kind == "bias":
        bias = d.rng.integers(-3000, 3000, m).astype(np.int64 if wide else np.int32)
        consts.append(constant("b", bias, scale=[sx * s for s in scales]))
    out = T("y", (200, m), dtype, scale=[d.scale(2e-3 if wide else 0.5)], zero=[zero])
    options = {"activation": 0, "sum_type": 4 if kind == "64 bits" else 0}
    data = one(
        "FULLY_CONNECTED", {"x": x}, options, out=out, consts=consts, quant={"x": (sx, zero)}
    )
    check(tmp_path, data, {"x": x})


def test_one_hot_takes_codes_of_unlike_scales_as_they_are(tmp_path: Path) -> None:
    """Converters give each of both values a scale of its own."""
    x = np.array([3, 0, 8, 2, 5, 1], np.int32)
    values = [
        constant(k, np.array(v, np.int8), scale=[s])
        for k, v, s in (("on", 127, 0.02), ("off", -128, 0.01))
    ]
    out = T("y", (6, 9), I8, scale=[0.03], zero=[-7])
    consts = [constant("depth", np.array(9, np.int32)), *values]
    data = one("ONE_HOT", {"x": x}, {"axis": -1}, out=out, consts=consts)
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    found = evaluate(integer(import_tflite(path).graph), {"x": x})["y"]
    np.testing.assert_array_equal(found, litert(data, {"x": x})[0])


@pytest.mark.parametrize(
    ("scale", "zero"),
    [(0.09507104754447937, 14), (0.019339999184012413, 56), (0.057048648595809937, -118)],
)
def test_tables_are_computed_in_float32(tmp_path: Path, scale: float, zero: int) -> None:
    """Codes near a tie, which fall the other way in double precision."""
    every = np.arange(-128, 128).astype(np.int8)
    out = T("y", every.shape, I8, scale=[1 / 256], zero=[-128])
    check(
        tmp_path,
        one("LOGISTIC", {"x": every}, {}, out=out, quant={"x": (scale, zero)}),
        {"x": every},
    )


@pytest.mark.parametrize("dtype", [I8, U8], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL"])
def test_arithmetic(tmp_path: Path, op: str, seed: int, dtype: DType) -> None:
    d = Draw(seed, dtype)
    feeds = {"a": d.codes(3, 50, 9), "b": d.codes(3, 50, 9) if seed < 4 else d.codes(1, 1, 9)}
    quant = {k: (d.scale(0.05), d.zero()) for k in feeds}
    out = T("y", (3, 50, 9), dtype, scale=[d.scale(0.1)], zero=[d.zero()])
    data = one(op, feeds, {"activation": d.activation()}, out=out, quant=quant)
    check(tmp_path, data, feeds)


@pytest.mark.parametrize("dtype", [I8, U8, I16], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL"])
def test_arithmetic_with_a_constant_of_one_element(
    tmp_path: Path, op: str, shape: tuple[int, ...], seed: int, dtype: DType
) -> None:
    wide = dtype == I16
    d = Draw(2 * seed if wide else seed, dtype)  # of 16 bits powers of two are shifts
    feeds = {"a": d.codes(*((7, 11, 1) if seed == 2 else (3, 50, 9)))}
    near = 2e-4 if wide else 0.05
    c = d.codes(1).reshape(shape)
    zero = 0 if wide else d.zero()
    b = constant("b", c, scale=[d.scale(near)], zero=[zero])
    out_shape = (1,) * (len(shape) - 3) + feeds["a"].shape
    # what a product may reach depends on the constant
    spread = max(abs(int(c.reshape(-1)[0]) - zero), 8) * near if op == "MUL" else 2.0
    out = T("y", out_shape, dtype, scale=[d.scale(near * spread)], zero=[0 if wide else d.zero()])
    order = ("b", "a") if seed % 3 == 1 else ("a", "b")
    data = one(
        *(op, feeds, {"activation": d.activation()}),
        out=out,
        consts=[b],
        order=order,
        quant={"a": (d.scale(near), 0 if wide else d.zero())},
    )
    check(tmp_path, data, feeds)


@pytest.mark.parametrize("dtype", [I8, U8], ids=str)
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("op", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
def test_pooling(tmp_path: Path, op: str, padding: int, dtype: DType) -> None:
    d = Draw(padding, dtype)
    x, scale, zero = d.codes(1, 12, 13, 6), d.scale(0.05), d.zero()
    options = {"padding": padding, "stride_w": 2, "stride_h": 2, "filter_w": 4, "filter_h": 2}
    shape = (1, 6, 7, 6) if padding == 0 else (1, 6, 5, 6)
    out = T("y", shape, dtype, scale=[scale], zero=[zero])
    check(tmp_path, one(op, {"x": x}, options, out=out, quant={"x": (scale, zero)}), {"x": x})


@pytest.mark.parametrize("dtype", [I8, I16], ids=str)
@pytest.mark.parametrize("size", [(33, 65), (11, 13), (18, 34), (27, 51), (3, 5), (1, 1)], ids=str)
@pytest.mark.parametrize("how", [(True, False), (False, True), (False, False)], ids=str)
def test_bilinear_resizing(
    tmp_path: Path, how: tuple[bool, bool], size: tuple[int, int], dtype: DType
) -> None:
    x = Draw(0, dtype).codes(1, 9, 17, 5)
    zero = 7 if dtype == I8 else 0
    out = T("y", (1, *size, 5), dtype, scale=[0.05], zero=[zero])
    options = {"align_corners": how[0], "half_pixel": how[1]}
    to = constant("s", np.array(size, np.int32))
    quant = {"x": (0.05, zero)}
    data = one("RESIZE_BILINEAR", {"x": x}, options, out=out, consts=[to], quant=quant)
    check(tmp_path, data, {"x": x})


# 15 has a ratio of less than a half with ties, which the others have not
@pytest.mark.parametrize("seed", [*SEEDS, 15])
@pytest.mark.parametrize("to", [I8, U8], ids=str)
@pytest.mark.parametrize("dtype", [I8, U8], ids=str)
def test_requantization(tmp_path: Path, dtype: DType, to: DType, seed: int) -> None:
    d = Draw(seed, dtype)
    # whole vectors: LiteRT rounds what is left of them otherwise
    x = d.codes(512)
    e = Draw(seed + 10, to)
    out = T("y", (512,), to, scale=[d.scale(0.05)], zero=[e.zero()])
    quant = {"x": (d.scale(0.05), d.zero())}
    check(tmp_path, one("QUANTIZE", {"x": x}, out=out, quant=quant), {"x": x})


@pytest.mark.parametrize("size", [(33, 65), (11, 13)])
def test_bilinear_resizing_of_uint8(tmp_path: Path, size: tuple[int, int]) -> None:
    d = Draw(0, U8)
    x = d.codes(1, 9, 17, 3)
    out = T("y", (1, *size, 3), U8, scale=[0.05], zero=[7])
    options = {"align_corners": True, "half_pixel": False}
    to = constant("s", np.array(size, np.int32))
    data = one("RESIZE_BILINEAR", {"x": x}, options, out=out, consts=[to], quant={"x": (0.05, 7)})
    check(tmp_path, data, {"x": x})


@pytest.mark.parametrize("dtype", [I8, U8], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_softmax(tmp_path: Path, seed: int, dtype: DType) -> None:
    d = Draw(seed, dtype)
    x = d.codes(40, (10, 3, 60)[seed % 3])
    out = T("y", x.shape, dtype, scale=[1 / 256], zero=[dtype.limits[0]])
    # small steps, or few codes would be left
    quant = {"x": (d.scale(0.02), d.zero())}
    data = one("SOFTMAX", {"x": x}, {"beta": 1.0}, out=out, quant=quant)
    check(tmp_path, data, {"x": x})


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("op", "m", "biased"),
    [
        ("CONV_2D", 5, True),
        ("CONV_2D", 1, True),
        ("DEPTHWISE_CONV_2D", 6, True),
        ("DEPTHWISE_CONV_2D", 6, False),
        ("FULLY_CONNECTED", 5, True),
        ("FULLY_CONNECTED", 5, False),
        ("FULLY_CONNECTED", 1, True),
    ],
)
def test_sums_of_16_bits(tmp_path: Path, op: str, seed: int, m: int, biased: bool) -> None:
    d = Draw(seed, I16)
    product, depthwise = op[0] == "F", op[0] == "D"
    rows = 7 if m > 1 else 40
    x = d.codes(rows, 33) if product else d.codes(1, 9, 8, 6)
    shape = (m, 33) if product else (1, 3, 3, m) if depthwise else (m, 3, 3, 6)
    sx, scales = d.scale(2e-4), [d.scale(0.01) for _ in range(1 if product else m)]
    axis = 3 if depthwise else 0
    w = constant("w", d.rng.integers(-127, 128, shape).astype(np.int8), scale=scales, axis=axis)
    bias = d.rng.integers(-(1 << 20), 1 << 20, m)
    consts = [w, constant("b", bias, scale=[sx * s for s in scales])] if biased else [w]
    out = T("y", (rows, m) if product else (1, 9, 8, m), I16, scale=[d.scale(1e-3)], zero=[0])
    options = {"activation": d.activation() if m > 1 else 0} | ({} if product else CONV)
    order = ["x", "w"] if product and not biased else ()
    data = one(op, {"x": x}, options, out=out, consts=consts, quant={"x": (sx, 0)}, order=order)
    check(tmp_path, data, {"x": x})


@pytest.mark.parametrize("seed", SEEDS)
def test_sums_of_16_bits_whose_products_leave_64(tmp_path: Path, seed: int) -> None:
    d = Draw(seed, I16)
    x = d.rng.integers(0, 1 << 15, (3, 20000)).astype(np.int16)
    w = constant("w", d.rng.integers(0, 128, (2, 20000)).astype(np.int8), scale=[d.scale(0.01)])
    b = constant("b", np.array([-9, 9]), scale=[2e-4 * w.scale[0]])
    out = T("y", (3, 2), I16, scale=[d.scale(4.0)], zero=[0])
    data = one("FULLY_CONNECTED", {"x": x}, out=out, consts=[w, b], quant={"x": (2e-4, 0)})
    check(tmp_path, data, {"x": x})


def test_a_bias_of_32_bits_beside_16_bit_codes_stays_float(tmp_path: Path) -> None:
    d = Draw(0, I16)
    w = constant("w", d.rng.integers(-127, 128, (5, 33)).astype(np.int8), scale=[0.01])
    for dtype, floats in ((np.int32, True), (np.int64, False)):
        b = constant("b", np.arange(5, dtype=dtype), scale=[2e-6])
        out = T("y", (7, 5), I16, scale=[1e-3], zero=[0])
        feeds = {"x": d.codes(7, 33)}
        data = one("FULLY_CONNECTED", feeds, out=out, consts=[w, b], quant={"x": (2e-4, 0)})
        (tmp_path / "m.tflite").write_bytes(data)
        g = integer(import_tflite(tmp_path / "m.tflite").graph)
        assert any(isinstance(n.op, Quantize) for n in g.nodes) == floats
        near = evaluate(g, feeds)["y"].astype(np.int64) - litert(data, feeds)[0]
        assert np.abs(near).max() <= floats


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL"])
def test_arithmetic_of_16_bits(tmp_path: Path, op: str, seed: int) -> None:
    d = Draw(2 * seed, I16)
    feeds = {"a": d.codes(3, 50, 9), "b": d.codes(3, 50, 9) if seed < 4 else d.codes(1, 1, 9)}
    quant = {k: (d.scale(2e-4), 0) for k in feeds}
    near = 2e-4 if op == "MUL" else 4e-4
    out = T("y", (3, 50, 9), I16, scale=[d.scale(near)], zero=[0])
    data = one(op, feeds, {"activation": d.activation()}, out=out, quant=quant)
    check(tmp_path, data, feeds)


@pytest.mark.parametrize("activation", [0, 1, 3])
@pytest.mark.parametrize("shifts", [True, False])
@pytest.mark.parametrize("places", [(0, 0), (1, 0), (0, 3)], ids=str)
@pytest.mark.parametrize("op", ["ADD", "SUB"])
def test_arithmetic_of_16_bits_in_powers_of_two(
    tmp_path: Path, op: str, places: tuple[int, int], shifts: bool, activation: int
) -> None:
    d = Draw(activation, I16)
    feeds = {"a": d.codes(3, 50, 9), "b": d.codes(3, 50, 9)}
    quant = {k: (2.0 ** -(12 + p), 0) for k, p in zip(feeds, places, strict=True)}
    out = T("y", (3, 50, 9), I16, scale=[2.0**-12], zero=[0])
    options = {"activation": activation, "shifts": shifts}
    check(tmp_path, one(op, feeds, options, out=out, quant=quant), feeds)


@pytest.mark.parametrize("dtype", [I8, I16], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_products_of_two_activations(tmp_path: Path, seed: int, dtype: DType) -> None:
    d = Draw(seed, dtype)
    wide = dtype == I16
    feeds = {"a": d.codes(2, 5, 33), "b": d.codes(2, 7, 33) if seed < 3 else d.codes(2, 33, 7)}
    quant = {k: (d.scale(2e-4 if wide else 0.05), 0 if wide else d.zero()) for k in feeds}
    step = d.scale(1e-2 if wide else 3.0)
    out = T("y", (2, 5, 7), dtype, scale=[step], zero=[0 if wide else d.zero()])
    options = {"adj_x": False, "adj_y": seed < 3}
    check(tmp_path, one("BATCH_MATMUL", feeds, options, out=out, quant=quant), feeds)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("op", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
def test_pooling_of_16_bits(tmp_path: Path, op: str, padding: int) -> None:
    x, scale = Draw(padding, I16).codes(1, 12, 13, 6), 3e-4
    options = {"padding": padding, "stride_w": 2, "stride_h": 2, "filter_w": 4, "filter_h": 2}
    shape = (1, 6, 7, 6) if padding == 0 else (1, 6, 5, 6)
    out = T("y", shape, I16, scale=[scale], zero=[0])
    check(tmp_path, one(op, {"x": x}, options, out=out, quant={"x": (scale, 0)}), {"x": x})


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("dtype", "to"), [(I16, I16), (I16, I8), (I8, I16)], ids=str)
def test_requantization_of_16_bits(tmp_path: Path, dtype: DType, to: DType, seed: int) -> None:
    d, e = Draw(seed, dtype), Draw(seed + 10, to)
    x = d.codes(500)
    near = {I8: 0.05, I16: 2e-4}
    zeros = [0 if t == I16 else draw.zero() for t, draw in ((dtype, d), (to, e))]
    out = T("y", (500,), to, scale=[d.scale(near[to])], zero=[zeros[1]])
    data = one("QUANTIZE", {"x": x}, out=out, quant={"x": (d.scale(near[dtype]), zeros[0])})
    check(tmp_path, data, {"x": x})


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        *(("ABS", t) for t in (I8, I16)),
        *(("HARD_SWISH", t) for t in (I8, U8)),
        *(("LEAKY_RELU", t) for t in (I8, U8, I16)),
        *((f, I8) for f in ("EXP", "ELU")),
        *((f, t) for f in ("RELU", "RELU6") for t in (I8, U8, I16)),
        *(("RELU_N1_TO_1", t) for t in (I8, U8)),
        *(("GELU", t) for t in (I8, U8)),
    ],
    ids=str,
)
def test_functions(tmp_path: Path, op: str, dtype: DType, seed: int) -> None:
    d, low = Draw(seed, dtype), dtype.limits[0]
    every = np.arange(low, dtype.limits[1] + 1).astype(dtype.numpy)
    zeros = [0, 0] if dtype == I16 else [d.zero(), d.zero()]
    near = 2e-4 if dtype == I16 else 0.04
    out = T("y", every.shape, dtype, scale=[d.scale(near)], zero=[zeros[1]])
    options = {"alpha": 0.1 + 0.2 * (seed % 2)} if op == "LEAKY_RELU" else {}
    quant = {"x": (d.scale(near), zeros[0])}
    check(tmp_path, one(op, {"x": every}, options, out=out, quant=quant), {"x": every})


@pytest.mark.parametrize("dtype", [I8, U8], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("op", "unit"), [("LOGISTIC", 256), ("TANH", 128)])
def test_sigmoid_and_tanh(tmp_path: Path, op: str, unit: int, seed: int, dtype: DType) -> None:
    d, (low, high) = Draw(2 * seed, dtype), dtype.limits
    every = np.arange(low, high + 1).astype(dtype.numpy)
    zero = low + 128 * (op == "TANH")
    out = T("y", every.shape, dtype, scale=[1 / unit], zero=[zero])
    data = one(op, {"x": every}, out=out, quant={"x": (d.scale(0.04), d.zero())})
    check(tmp_path, data, {"x": every})


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("op", ["LOGISTIC", "TANH"])
def test_sigmoid_and_tanh_of_16_bits(tmp_path: Path, op: str, seed: int) -> None:
    every = np.arange(-(1 << 15), 1 << 15).astype(np.int16)
    scale = 2.0 ** -(16 - 3 * (seed // 2)) if seed % 2 else Draw(2 * seed, I16).scale(3e-4)
    out = T("y", every.shape, I16, scale=[2.0**-15], zero=[0])
    check(tmp_path, one(op, {"x": every}, out=out, quant={"x": (scale, 0)}), {"x": every})


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("op", ["EXP", "GELU"])
def test_lines_of_functions_are_within_a_step(tmp_path: Path, op: str, seed: int) -> None:
    """LiteRT fills these tables in float32: its exponential may make an end another code."""
    d, every = Draw(2 * seed, I16), np.arange(-(1 << 15), 1 << 15).astype(np.int16)
    out = T("y", every.shape, I16, scale=[d.scale(1e-4)], zero=[0])
    data = one(op, {"x": every}, out=out, quant={"x": (d.scale(1e-4), 0)})
    (tmp_path / "m.tflite").write_bytes(data)
    g = integer(import_tflite(tmp_path / "m.tflite").graph)
    assert not any(isinstance(n.op, Quantize | Dequantize) for n in g.nodes)
    off = np.abs(evaluate(g, {"x": every})["y"].astype(np.int64) - litert(data, {"x": every})[0])
    assert off.max() <= 1 and np.count_nonzero(off) <= 0.01 * off.size


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", [I8, U8, I16], ids=str)
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("axes", [(1, 2), (2, 3), (1,), (3,)], ids=str)
def test_means(tmp_path: Path, axes: tuple[int, ...], kept: bool, dtype: DType, seed: int) -> None:
    d = Draw(seed, dtype)
    x = d.codes(2, 5 + seed, 7, (16, 21)[seed % 2])
    near = 2e-4 if dtype == I16 else 0.05
    source = d.scale(near), 0 if dtype == I16 else d.zero()
    # sums that fall on ties where both scales are alike
    to = source if seed < 2 else (d.scale(near / 2), 0 if dtype == I16 else d.zero())
    extents = {i: 1 if i in axes else v for i, v in enumerate(x.shape)}
    shape = tuple(v for i, v in extents.items() if kept or i not in axes)
    out = T("y", shape, dtype, scale=[to[0]], zero=[to[1]])
    over = constant("a", np.array(axes, np.int32))
    options = {"keep_dims": kept}
    data = one("MEAN", {"x": x}, options, out=out, consts=[over], quant={"x": source})
    check(tmp_path, data, {"x": x})


@pytest.mark.parametrize("op", ["LOGISTIC", "TANH"])
def test_functions_of_16_bits_in_steps_of_another_kernel_stay_float(
    tmp_path: Path, op: str
) -> None:
    x = np.arange(-(1 << 15), 1 << 15, 64).astype(np.int16)
    out = T("y", x.shape, I16, scale=[2.0**-15], zero=[0])
    (tmp_path / "m.tflite").write_bytes(one(op, {"x": x}, out=out, quant={"x": (2.0**-12, 0)}))
    g = integer(import_tflite(tmp_path / "m.tflite").graph)
    assert any(isinstance(n.op, Quantize) for n in g.nodes)


@pytest.mark.parametrize("extent", [2, 5, 33, 300, 4000])
@pytest.mark.parametrize("scale", [1e-5, 2.0**-11, 3.1e-3])
def test_softmax_of_16_bits(tmp_path: Path, extent: int, scale: float) -> None:
    rng = np.random.default_rng(extent)
    spread = rng.uniform(0.1, 3, (40, 1)) / scale
    x = np.clip(rng.standard_normal((40, extent)) * spread, -32768, 32767).astype(np.int16)
    out = T("y", x.shape, I16, scale=[2.0**-15], zero=[0])
    data = one("SOFTMAX", {"x": x}, {"beta": 1.0}, out=out, quant={"x": (scale, 0)})
    check(tmp_path, data, {"x": x})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("to", [1e-45, 3e38])
@pytest.mark.parametrize("scale", [1e-45, 1.0, 3e38])
@pytest.mark.parametrize("dtype", [I8, I16], ids=str)
@pytest.mark.parametrize("op", ["ABS", "HARD_SWISH", "LEAKY_RELU", "GELU", "MEAN"])
def test_scales_at_the_ends_of_float32_are_no_accident(
    tmp_path: Path, op: str, dtype: DType, scale: float, to: float
) -> None:
    """What is out of range stays float, without a warning."""
    x, zero = np.arange(100, dtype=dtype.numpy).reshape(1, 5, 10, 2), 3 * (dtype == I8)
    mean = op == "MEAN"
    out = T("y", (1, 1, 1, 2) if mean else x.shape, dtype, scale=[to], zero=[zero])
    options = {"alpha": 0.1} if op == "LEAKY_RELU" else {"keep_dims": True} if mean else {}
    consts = [constant("a", np.array([1, 2], np.int32))] if mean else []
    data = one(op, {"x": x}, options, out=out, consts=consts, quant={"x": (scale, zero)})
    (tmp_path / "m.tflite").write_bytes(data)
    g = integer(import_tflite(tmp_path / "m.tflite").graph)
    assert g.types["y"].shape == out.shape
