"""Sums over codes of 16 bits: two over their digits become one, where that is the same."""

from __future__ import annotations

import numpy as np
import pytest

from sparrow import lane
from sparrow.graph import Graph, Op
from sparrow.kernels.conv_i16 import takes_halves
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.passes import back, optimize
from sparrow.passes.halves import whole_codes
from sparrow.passes.integer.sums import HIGH, LOW
from sparrow.targets.instruction_sets import ISAS
from sparrow.tensor import F32, I8, I16, I32, I64, Array, DType, TensorType
from unit.passes.check import Net, assert_same, kinds, run

DENSE = Conv((1, 2), (1, 1), ((0, 1), (1, 0)), channels_last=True)
DEPTHWISE = Conv((1, 1), (1, 1), ((1, 1), (1, 1)), 6, channels_last=True)
WINDOW = Conv((1, 1), (1, 1), ((1, 1), (1, 1)), channels_last=True)
SHAPES: dict[Op, tuple[tuple[int, ...], tuple[int, ...]]] = {
    DENSE: ((2, 5, 7, 6), (4, 6, 3, 3)),
    DEPTHWISE: ((2, 5, 7, 6), (6, 1, 3, 3)),
    WINDOW: ((2, 5, 7, 6), (4, 6, 3, 3)),
    MatMul(): ((5, 9), (9, 4)),
    MatMul(trans_b=True): ((2, 5, 9), (4, 9)),
}


def _any(op: Op, w: TensorType) -> bool:
    return True


def _codes(shape: tuple[int, ...]) -> Array:
    """Of all places of the range, its ends first."""
    x = np.random.default_rng(3).integers(-(1 << 15), 1 << 15, shape).astype(np.int16)
    x.reshape(-1)[:2] = I16.limits
    return x


def _net(
    op: Op,
    *,
    dtype: DType = I32,
    factor: int = 256,
    bias: bool = True,
    other: str = "",
) -> Graph:
    """(float32)(factor op(high digits of x) + op(low ones) + b) / 3; ``other``: what is unusual."""
    n = Net()
    shape, weights = SHAPES[op]
    x = n.x(*shape, dtype=I16)
    w = n.const(n.rng.integers(-127, 128, weights).astype(np.int8), I8)
    columns = weights[0] if isinstance(op, Conv) or op == MatMul(trans_b=True) else weights[1]
    b = [n.const(n.rng.integers(-999, 999, columns).astype(np.int32), I32)] if bias else []
    low = n.add(op, n.lane(LOW, x), w, *b)
    of = n.x(*shape, name="z", dtype=I16) if other == "codes" else x
    again = n.const(n.rng.integers(-9, 9, weights).astype(np.int8), I8) if other == "weights" else w
    high = n.add(op, n.lane(HIGH, of), again)
    first, second = (lane.cast(lane.Arg(i, I32), dtype) for i in range(2))
    total = lane.call("add", first, lane.call("mul", second, lane.Imm(factor, dtype)))
    y = n.lane(lane.call("div", lane.cast(total, F32), lane.Imm(3.0, F32)), low, high)
    return n.done(*[y, low][: 1 + (other == "output")])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("op", SHAPES)
def test_sums_over_both_digits_are_one_over_the_codes(op: Op, bias: bool) -> None:
    g = _net(op, bias=bias)
    after, _ = run(g, whole_codes(_any))
    assert_same(g, after, {"x": _codes(SHAPES[op][0])})
    (total,) = (n for n in after.nodes if n.op == op)
    assert total.inputs[0] == "x" and after.types[total.outputs[0]].dtype == I32
    assert kinds(after) == [type(op).__name__, "Lane"]


@pytest.mark.parametrize(
    "g",
    [
        _net(DENSE, dtype=I64),
        _net(DENSE, factor=128),
        _net(DENSE, other="output"),
        _net(DENSE, other="weights"),
        _net(DENSE, other="codes"),
    ],
)
def test_what_is_not_the_same_keeps_its_digits(g: Graph) -> None:
    assert run(g, whole_codes(_any))[0] is g


@pytest.mark.parametrize(
    ("isa", "joined"),
    [
        ("avx2", {DENSE, DEPTHWISE, MatMul()}),  # Winograd takes the digits of windows
        ("wasm_simd", {DENSE, MatMul()}),  # no row takes a channel by itself
        ("avx512vnni", set()),  # products of bytes are as many
        ("dsp", set()),
    ],
)
def test_sums_are_joined_where_a_row_takes_them(isa: str, joined: set[Op]) -> None:
    takes = takes_halves(next(i for i in ISAS if i.name == isa))
    for op in (DENSE, DEPTHWISE, WINDOW, MatMul()):
        g = _net(op)
        after = optimize(g, back(unsigned=False, halves=takes))
        count = sum(isinstance(n.op, Conv | MatMul) for n in after.nodes)
        assert count == (1 if op in joined else 2), op
        assert_same(g, after, {"x": _codes(SHAPES[op][0])})


def test_sums_wrap_alike() -> None:
    """Of codes and weights that leave int32, which no quantizer gives."""
    n = Net()
    x = n.x(1, 2000, dtype=I16)
    w = n.const(np.full((2000, 1), -127, np.int8), I8)
    sums = [n.add(MatMul(), n.lane(e, x), w) for e in (LOW, HIGH)]
    total = lane.call(
        "add", lane.Arg(0, I32), lane.call("mul", lane.Arg(1, I32), lane.Imm(256, I32))
    )
    g = n.done(n.add(Lane(total), *sums))
    after, _ = run(g, whole_codes(_any))
    assert len(after.nodes) < len(g.nodes)
    feeds = {"x": np.full((1, 2000), -(1 << 15), np.int16)}
    assert_same(g, after, feeds)
