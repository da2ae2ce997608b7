"""Attention over codes: near the float op it stands for, and the same in ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

from sparrow import lane
from sparrow.builder import Builder
from sparrow.graph import Graph, retyped
from sparrow.ops.attention import Attention
from sparrow.ops.attention_codes import MASK, AttentionCodes, weight_bits
from sparrow.ops.exponential import LIMIT, halved
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.passes.integer import integer
from sparrow.passes.integer.attention import LEAST_UNIT, MOST_LOST, _shifts
from sparrow.portable import to_portable_onnx
from sparrow.reference import evaluate
from sparrow.tensor import F32, I8, I16, I32, U8, Affine, Array, DType, TensorType


def test_halved_is_a_power_of_two() -> None:
    t = np.arange(0, LIMIT + 1, 7, dtype=np.int32)
    got = lane.evaluate(halved(lane.Arg(0, I32)), (t,))
    exact = 2.0**15 * 2.0 ** (-t / 2.0**15)
    assert (np.abs(got - exact) <= 1.8e-4 * exact + 0.5).all()


def test_fewer_bits_where_sums_would_leave_int32() -> None:
    assert [weight_bits(n) for n in (1, 512, 1024, 4096)] == [14, 14, 13, 11]
    for n in (1, 513, 4000):
        assert n * 255 * ((1 << weight_bits(n)) - 1) < 2**31


def _graph(dtype: DType, to: DType, op: Attention, mask: bool) -> tuple[Graph, dict[str, Array]]:
    """Quantize(Attention(Dequantize(..))) over 2 sequences of 4 heads, 2 of keys."""
    rng = np.random.default_rng(3)
    b = Builder("a")
    low, high = dtype.limits
    ones = (1,) * 4
    wide = dtype == I16
    scale = np.full(ones, 1.5e-4 if wide else 0.04, np.float32)
    zero = np.full(ones, 0 if wide else (low + high) // 2 + 5, np.int32)
    feeds: dict[str, Array] = {}
    operands = []
    for name, shape in {"q": (2, 4, 9, 8), "k": (2, 2, 33, 8), "v": (2, 2, 33, 12)}.items():
        feeds[name] = rng.integers(low, high + 1, shape).astype(dtype.numpy)
        x = b.input(name, TensorType(shape, dtype))
        operands.append(b.add(Dequantize(Affine(scale, zero, (-1,) * 4)), x))
    if mask:
        values = np.where(rng.random((2, 1, 1, 33)) < 0.3, -np.inf, rng.standard_normal(33))
        feeds["mask"] = values.astype(np.float32)
        operands.append(b.input("mask", TensorType((2, 1, 1, 33), F32)))
    step = 0.02 if to != I16 else 1e-4
    made = Affine(np.full(ones, step, np.float32), np.zeros(ones, np.int32), (-1,) * 4)
    made = made if to != U8 else replace(made, zero_point=made.zero_point + 128)
    y = b.add(Quantize(made, to), b.add(op, *operands))
    return b.finish({"y": y}, {}), feeds


@pytest.mark.parametrize(
    ("dtype", "to", "op", "mask"),
    [
        (I8, I8, Attention(0.35), False),
        (U8, U8, Attention(0.35, causal=True, offset=4), True),
        (I8, I16, Attention(0.1, causal=True, offset=-3), False),
        (I16, I16, Attention(0.1, causal=True, offset=-3), True),
        (I16, I8, Attention(0.35, interleaved=(False, False, False, True)), False),
    ],
)
def test_it_is_near_the_float_op_and_the_same_in_onnx(
    dtype: DType, to: DType, op: Attention, mask: bool
) -> None:
    g, feeds = _graph(dtype, to, op, mask)
    codes = integer(g)
    assert any(isinstance(n.op, AttentionCodes) for n in codes.nodes)
    want = evaluate(g, feeds)["y"].astype(np.int64)
    got = evaluate(codes, feeds)["y"]
    # weights of 14 bits to values of at most 5.3; q and k of 16 bits lose two and three
    steps = 1 if to != I16 else 24 if dtype != I16 else 64
    assert np.abs(got - want).max() <= steps
    session = ort.InferenceSession(
        to_portable_onnx(codes).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (theirs,) = session.run(["y"], feeds)
    np.testing.assert_array_equal(theirs, got)


@pytest.mark.parametrize("features", [1, 7, 8, 64, 255, 2000])
@pytest.mark.parametrize("unit", [1e-9, 1e-4])
def test_scores_of_16_bits_stay_within_the_mask(features: int, unit: float) -> None:
    first, second = _shifts(features, unit)
    assert features << (30 - first - second) < MASK
    assert unit * 2 ** (first + second) >= LEAST_UNIT or first + second == MOST_LOST
    # the fewest that do
    assert unit == 1e-9 or features << (31 - first - second) >= MASK


def test_extreme_codes_of_16_bits_stay_in_int32() -> None:
    keys, d = 514, 64
    for low in (-(1 << 15), -(1 << 15) + 1):
        q, k, v = (np.full((1, 1, n, d), low, np.int16) for n in (2, keys, keys))
        k[:, :, ::2] = (1 << 15) - 1
        mask = np.where(np.arange(keys) % 3 == 0, -MASK, MASK).astype(np.int32)
        op = AttentionCodes(0, 0, 0, I16, 1e-3, 256.0, shifts=(4, 4))
        (y,) = op.eval(q, k, v, mask.reshape(1, 1, 1, keys))
        # all weights belong to keys of one value
        assert np.abs(y.astype(int) - low).max() <= 1


def test_operands_of_8_and_16_bits_stay_float() -> None:
    g, _ = _graph(I16, I16, Attention(0.35), False)
    mixed = [
        replace(
            n, op=replace(n.op, quant=replace(n.op.quant, zero_point=n.op.quant.zero_point + 3))
        )
        if isinstance(n.op, Dequantize) and n.inputs == ("k",)
        else n
        for n in g.nodes
    ]
    assert any(isinstance(n.op, Attention) for n in integer(retyped(g, mixed)).nodes)
