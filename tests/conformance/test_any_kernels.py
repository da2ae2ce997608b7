"""Convolutions and products of every type, rank, layout and stride against the interpreter.

Once with all kernels, and once with the portable rows alone, on every instruction set, compiled
with every warning an error. Half of the weights are known only at run time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drawn import Drawn, Made
from emitted import TARGETS, compiled, session
from native_harness import ISAS
from sparrow import lane
from sparrow.graph import Module
from sparrow.kernels import KERNELS, conv_any, loop, matmul_any, softmax
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.ops.softmax import Softmax
from sparrow.ops.transpose import Transpose
from sparrow.planner import plan
from sparrow.reference import evaluate
from sparrow.targets import target
from sparrow.tensor import F32, F64, I8, I32, I64, U8, U32, U64, Array, DType, TensorType

PORTABLE = (
    *loop.ROWS,
    *(r for r in conv_any.ROWS if r.name == "conv_any"),
    *matmul_any.ROWS,
    *softmax.ROWS,
)
TABLES = {"all": KERNELS, "portable": PORTABLE}


class _Case(Drawn):
    """A graph of one op over random operands."""

    def operand(self, shape: tuple[int, ...], dtype: DType, const: bool = False) -> str:
        """A dense or, seen through a transpose, strided operand."""
        if dtype.kind == "float":
            values = self.rng.standard_normal(shape).astype(dtype.numpy)
        else:
            low, high = dtype.limits
            values = self.rng.integers(max(low, -99), min(high, 99) + 1, shape).astype(dtype.numpy)
        if const:
            return self.b.const(values, dtype)
        perm = tuple(int(i) for i in self.rng.permutation(len(shape)))
        if self.flag():
            perm = tuple(range(len(shape)))
        stored = np.ascontiguousarray(values.transpose(np.argsort(perm)))
        name = f"in{len(self.feeds)}"
        self.feeds[name] = stored
        x = self.b.input(name, TensorType(stored.shape, dtype))
        return x if perm == tuple(range(len(shape))) else self.b.add(Transpose(perm), x)


def epilogue(c: _Case, shape: tuple[int, ...]) -> tuple[lane.Expr, str]:
    """relu(sum) + r and its operand, one value per element or per index of the last axis."""
    r = c.operand(shape if c.flag() else shape[-1:], F32)
    relu = lane.call("relu", lane.Arg(0, F32))
    return lane.call("add", relu, lane.Arg(1, F32)), r


def conv_case(seed: int) -> Made:
    c = _Case(seed)
    rank = 1 + seed % 3
    x_type, w_type = ((F32, F32), (F32, F32), (F64, F64), (I8, U8), (U8, I8))[c.n(0, 4)]
    group, ci, co = c.n(1, 2), c.n(1, 5), c.n(1, 9)
    kernel = tuple(c.n(1, 3) for _ in range(rank))
    dilations = tuple(c.n(1, 2) for _ in range(rank))
    strides = tuple(c.n(1, 2) for _ in range(rank))
    pads = tuple((c.n(0, 3), c.n(0, 2)) for _ in range(rank))
    spatial = tuple(c.n(5, 8) for _ in range(rank))
    last = c.flag()
    batch, channels, filters = c.n(1, 2), group * ci, group * co
    shape = (batch, *spatial, channels) if last else (batch, channels, *spatial)
    inputs = [
        c.operand(shape, x_type),
        c.operand((filters, ci, *kernel), w_type, c.flag()),
    ]
    acc = I32 if x_type in (I8, U8) else x_type
    if c.flag():
        inputs.append(c.operand((filters,), acc, c.flag()))
    op = Conv(strides, dilations, pads, group, last)
    if x_type == F32 and c.flag():
        y = op.infer(*(c.b.types[x] for x in inputs))[0].shape
        expr, r = epilogue(c, y)
        inputs = [*inputs, *[""] * (3 - len(inputs)), r]
        op = Conv(strides, dilations, pads, group, last, expr)
    return c.finish(c.b.add(op, *inputs))


def conv3d_case(seed: int) -> Made:
    """Depth taps that lie inside, outside and on the edge; channels beyond one vector."""
    c = _Case(seed)
    ci, co, group = c.n(4, 9), c.n(9, 21), 1 + seed % 2
    spatial = (c.n(1, 4), c.n(4, 7), c.n(4, 7))
    kernel = (c.n(1, 3), 3, c.n(1, 3))
    dilations, strides = (c.n(1, 2), 1, 1), (c.n(1, 2), 1, c.n(1, 2))
    pads = ((c.n(2, 4), c.n(2, 3)), (1, 1), (c.n(0, 1), 2))
    inputs = [
        c.operand((2, *spatial, ci * group), F32),
        c.operand((co * group, ci, *kernel), F32, const=True),
        c.operand((co * group,), F32, const=True),
    ]
    op = Conv(strides, dilations, pads, group, True)
    y = op.infer(*(c.b.types[x] for x in inputs))[0].shape
    expr, r = epilogue(c, y)
    op = Conv(strides, dilations, pads, group, True, expr)
    return c.finish(c.b.add(op, *inputs, r))


def matmul_case(seed: int) -> Made:
    c = _Case(seed)
    pairs = [(t, t) for t in (F32, F32, F64, I32, U32, I64, U64)] + [(I8, U8), (U8, U8), (I8, I8)]
    left, right = pairs[seed % len(pairs)]
    m, n, k = c.n(1, 7), c.n(1, 19), c.n(1, 9)
    batch = tuple(c.n(1, 3) for _ in range(c.n(0, 3)))
    trans_a, trans_b = c.flag(), c.flag()
    b_batch = tuple(1 if c.flag() else d for d in batch[c.n(0, len(batch)) :])
    inputs = [
        c.operand((*batch, k, m) if trans_a else (*batch, m, k), left),
        c.operand((*b_batch, n, k) if trans_b else (*b_batch, k, n), right, c.flag()),
    ]
    acc = I32 if left in (I8, U8) else left
    if c.flag():
        inputs.append(c.operand((n,), acc, c.flag()))
    op = MatMul(trans_a, trans_b)
    if left == F32 and c.flag():
        expr, r = epilogue(c, (*batch, m, n))
        inputs = [*inputs, *[""] * (3 - len(inputs)), r]
        op = MatMul(trans_a, trans_b, expr)
    return c.finish(c.b.add(op, *inputs))


def softmax_case(seed: int) -> Made:
    c = _Case(seed)
    shape = tuple(c.n(1, 7) for _ in range(3))
    x = c.operand(shape, (F32, F64)[seed % 2])
    return c.finish(c.b.add(Softmax(c.n(0, 2), c.flag()), x))


CASES = ((conv_case, 14), (conv3d_case, 4), (matmul_case, 20), (softmax_case, 4))


def close(got: Array, want: Array) -> None:
    if want.dtype.kind == "f":
        # sums of at most 300 products of values near 1
        bound = 1e-4 if want.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(got, want, rtol=bound, atol=bound)
    else:
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("isa", ISAS)
def test_against_the_interpreter(isa: str, table: str, tmp_path: Path) -> None:
    cases = [make(seed) for make, rounds in CASES for seed in range(rounds)]
    module = Module("m", tuple(g for g, _ in cases))
    p = plan(module, target(TARGETS[isa]), kernels=TABLES[table])
    s = session(p, compiled(p, tmp_path, parts=True, flags=("-O1",)))
    for i, (g, feeds) in enumerate(cases):
        (got,) = s.run(i, [feeds[v] for v in g.inputs])
        close(got, evaluate(g, feeds)["y"])
    used = {step.kernel for e in p.entries for step in e.steps}
    expected = {"conv_any", "matmul_any", "softmax"}
    assert used >= (expected if table == "portable" else {*expected, "conv3d_f32"})
