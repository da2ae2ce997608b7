"""Products of two matrices of codes known at run time: the float product of what they mean, the
same in ONNX Runtime, and integers throughout.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

from sparrow import lane
from sparrow.builder import Builder
from sparrow.errors import InvalidGraph
from sparrow.graph import Graph, Scheme
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.passes import PIPELINE, optimize
from sparrow.passes.integer import integer
from sparrow.portable import to_portable_onnx
from sparrow.reference import evaluate
from sparrow.rewrite import Remark
from sparrow.tensor import F32, I8, I16, I64, U8, Affine, Array, DType, TensorType

Shape = tuple[int, ...]


def _quant(scale: float, zero: int, rank: int) -> Affine:
    ones = (1,) * rank
    blocks = (-1,) * rank
    return Affine(np.full(ones, scale, np.float32), np.full(ones, zero, np.int32), blocks)


def _graph(
    op: MatMul,
    a: tuple[DType, Shape],
    b: tuple[DType, Shape],
    to: DType | None,
    *,
    bias: int = 0,
    relu: bool = False,
) -> tuple[Graph, dict[str, Array]]:
    """Quantize(relu(MatMul(Dequantize(a), Dequantize(b), bias))); float where ``to`` is None."""
    rng = np.random.default_rng(3)
    g = Builder("p")
    feeds: dict[str, Array] = {}
    operands = []
    for name, (dtype, shape) in {"a": a, "b": b}.items():
        low, high = dtype.limits
        feeds[name] = rng.integers(low, high + 1, shape).astype(dtype.numpy)
        x = g.input(name, TensorType(shape, dtype))
        scale, zero = (3e-5, 0) if dtype == I16 else (0.01, (low + high) // 2 + 9)
        operands.append(g.add(Dequantize(_quant(scale, zero, len(shape))), x))
    if bias:
        operands.append(g.const(rng.standard_normal(bias).astype(np.float32), F32))
    y = g.add(op, *operands)
    if relu:
        y = g.add(Lane(lane.call("relu", lane.Arg(0, F32))), y)
    if to is not None:
        scale, zero = (4e-4, 0) if to == I16 else (0.08, sum(to.limits) // 2 - 20)
        y = g.add(Quantize(_quant(scale, zero, g.type(y).rank), to), y)
    return g.finish({"y": y}, {}), feeds


def _floats(g: Graph) -> list[str]:
    """Products and quantization over float values."""
    kinds = (MatMul, Quantize, Dequantize)
    return [
        str(n.op) for n in g.nodes if isinstance(n.op, kinds) and g.types[n.inputs[0]].dtype == F32
    ]


CASES = {
    "codes": ((MatMul(), (I8, (5, 31)), (I8, (31, 9)), I8), {}),
    "unsigned": ((MatMul(), (U8, (5, 31)), (U8, (31, 9)), U8), {"bias": 9, "relu": True}),
    "unlike": ((MatMul(trans_b=True), (I8, (2, 3, 5, 7)), (U8, (3, 9, 7)), I8), {}),
    "float": ((MatMul(trans_a=True), (I8, (2, 7, 5)), (I8, (2, 7, 9)), None), {"bias": 9}),
    "16x8": ((MatMul(), (I16, (5, 31)), (I8, (31, 9)), I16), {}),
    "8x16": ((MatMul(), (U8, (5, 31)), (I16, (31, 9)), I8), {}),
    "16x16": ((MatMul(trans_b=True), (I16, (2, 5, 31)), (I16, (2, 9, 31)), I16), {"bias": 9}),
    "16x16 float": ((MatMul(), (I16, (5, 31)), (I16, (31, 9)), None), {}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scheme", ["f32", "fixed31"])
def test_it_is_the_product_of_what_codes_mean(name: str, scheme: Scheme) -> None:
    given, more = CASES[name]
    g, feeds = _graph(*given, **more)  # type: ignore[arg-type]
    codes = integer(replace(g, scheme=scheme))
    assert not _floats(codes)
    want, got = evaluate(g, feeds)["y"], evaluate(codes, feeds)["y"]
    if got.dtype == np.float32:
        # half a unit of the bias
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=6e-5)
    else:
        # a sum in float32 and the exact one may lie on both sides of a tie
        wide = got.astype(np.int64)
        assert np.abs(wide - want).max() <= 1 and np.ptp(wide) > 50
        assert (got != want).mean() <= 0.02
    session = ort.InferenceSession(
        to_portable_onnx(codes).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    np.testing.assert_array_equal(session.run(None, feeds)[0], got)


@pytest.mark.parametrize("k", [2, 31, 700, 5000])
@pytest.mark.parametrize("types", [(I16, I16), (I16, I8)])
def test_what_int32_does_not_hold_is_rounded_off(types: tuple[DType, DType], k: int) -> None:
    rng = np.random.default_rng(k)
    x = [rng.integers(*t.limits, (n, k), endpoint=True) for t, n in zip(types, (5, 7), strict=True)]
    # sums of all signs and near both ends
    x[0][0], x[1][0], x[1][1] = types[0].limits[0], types[1].limits[0], types[1].limits[1]
    exact = x[0] @ x[1].T
    spare = max(0, int(k * 32768 * -types[1].limits[0]).bit_length() - 31)
    for unit, step, rounded in ((1.0, 2.0**spare * 4096, True), (1.0, 2.0**spare * 2, False)):
        g = Builder("p")
        names = [g.input(n, TensorType(a.shape, t)) for n, a, t in zip("ab", x, types, strict=True)]
        reals = [g.add(Dequantize(_quant(unit, 0, 2)), n) for n in names]
        y = g.add(Quantize(_quant(step, 0, 2), I16), g.add(MatMul(trans_b=True), *reals))
        codes = integer(g.finish({"y": y}, {}))
        wide = any(t.dtype == I64 for t in codes.types.values()) or any(
            isinstance(n.op, Lane) and any(e.dtype == I64 for e in lane.walk(n.op.expr))
            for n in codes.nodes
        )
        assert wide == (spare > 0 and not rounded)
        total = (exact + (1 << spare >> 1)) >> spare if rounded else exact
        ratio = np.float32(2.0**spare / step if rounded else 1 / step)
        want = np.clip(np.rint(total.astype(np.float32) * ratio), -32768, 32767)
        feeds = {n: a.astype(t.numpy) for n, a, t in zip("ab", x, types, strict=True)}
        np.testing.assert_array_equal(evaluate(codes, feeds)["y"], want)


def test_nothing_of_it_is_float_after_all_passes() -> None:
    g, feeds = _graph(*CASES["unlike"][0])
    done = optimize(g, PIPELINE)
    assert len(done.nodes) == 1 and done.nodes[0].op.zero_b  # type: ignore[attr-defined]
    np.testing.assert_array_equal(evaluate(done, feeds)["y"], evaluate(integer(g), feeds)["y"])


def test_sums_that_may_leave_int32_stay_float() -> None:
    g, _ = _graph(MatMul(), (I8, (1, 33026)), (I8, (33026, 1)), I8)
    remarks: list[Remark] = []
    assert any(isinstance(n.op, Dequantize) for n in integer(g, remarks).nodes)
    assert any("sums of 33026 products may leave int32" in r.text for r in remarks)
    assert not _floats(integer(_graph(MatMul(), (I8, (1, 33025)), (I8, (33025, 1)), I8)[0]))


def test_a_zero_point_is_a_code() -> None:
    i8 = TensorType((3, 3), I8)
    assert MatMul(zero_b=-128).infer(i8, i8)
    with pytest.raises(InvalidGraph, match="zero point 128 of int8"):
        MatMul(zero_b=128).infer(i8, i8)
