"""Sums over bfloat16 kept in float32: every row on every instruction set, within their bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drawn import Drawn, Made
from emitted import TARGETS, compiled, run
from native_harness import needs_isa
from sparrow import lane
from sparrow.device.session import from_native
from sparrow.evidence.tolerances import tolerance_of
from sparrow.graph import Module, Op
from sparrow.kernels import tiling_i8
from sparrow.ops.attention import Attention
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.planner import plan
from sparrow.targets import target
from sparrow.tensor import BF16, F32, Array, TensorType, round_bfloat16

ROUNDS = 10
# Those between compose the product as avx2 does.
ORDER = ("scalar", "avx2", "avx512bf16", "amx")


class _Case(Drawn):
    """A graph of one sum over random bfloat16 numbers of all sizes."""

    def numbers(self, *shape: int) -> Array:
        wide = self.rng.standard_normal(shape) * np.exp2(self.rng.integers(-6, 7, shape))
        return round_bfloat16(wide.astype(np.float32))

    def input(self, t: TensorType) -> str:
        name = f"in{len(self.feeds)}"
        self.feeds[name] = self.numbers(*t.shape)
        return self.b.input(name, t)

    def bias(self, n: int) -> str:
        return self.b.const(self.rng.standard_normal(n).astype(np.float32)) if self.n(0, 1) else ""

    def epilogue(self, shape: tuple[int, ...]) -> tuple[lane.Expr | None, list[str]]:
        """Perhaps a residual of either type, an activation, rounding to bfloat16."""
        e: lane.Expr = lane.Arg(0, F32)
        extras = []
        if self.n(0, 1):
            dtype = (F32, BF16)[self.n(0, 1)]
            extras.append(self.input(TensorType(shape, dtype)))
            other: lane.Expr = lane.Arg(1, dtype)
            e = lane.call("add", e, other if dtype == F32 else lane.cast(other, F32))
        if self.n(0, 1):
            e = lane.call("relu", e)
        if self.n(0, 2):
            e = lane.cast(e, BF16)
        return (None if e == lane.Arg(0, F32) else e), extras

    def done(self, op: Conv | MatMul, x: str, w: str, bias: str, extras: list[str]) -> Made:
        inputs = [x, w, bias, *extras] if bias or extras else [x, w]
        return self.finished(op, inputs)

    def finished(self, op: Op, inputs: list[str]) -> Made:
        return self.finish(self.b.add(op, *inputs))


def conv(seed: int) -> Made:
    c = _Case(seed)
    groups = c.n(1, 2)
    ci, co = 2 * c.n(1, 20) * groups, c.n(1, 40) * groups
    kernel = (c.n(1, 3), c.n(1, 3))
    size = (kernel[0] + c.n(0, 6), kernel[1] + c.n(0, 14))
    pads = tuple((c.n(0, k - 1), c.n(0, k - 1)) for k in kernel)
    strides = (c.n(1, 2), c.n(1, 2))
    out = tuple(
        (i + sum(p) - k) // s + 1 for i, p, k, s in zip(size, pads, kernel, strides, strict=True)
    )
    x = c.input(TensorType((1, *size, ci), BF16, "NHWC"))
    w = c.b.const(c.numbers(co, ci // groups, *kernel), BF16)
    e, extras = c.epilogue((1, *out, co))
    op = Conv(strides, (1, 1), pads, groups, True, e, accumulate=F32)
    return c.done(op, x, w, c.bias(co), extras)


def depthwise(seed: int) -> Made:
    c = _Case(seed)
    channels, k, stride = c.n(1, 40), (3, 5)[c.n(0, 1)], c.n(1, 2)
    size = (c.n(5, 9), c.n(5, 19))
    out = tuple((i - 1) // stride + 1 for i in size)
    x = c.input(TensorType((1, *size, channels), BF16, "NHWC"))
    w = c.b.const(c.numbers(channels, 1, k, k), BF16)
    e, extras = c.epilogue((1, *out, channels))
    pads = ((k // 2, k // 2),) * 2
    op = Conv((stride, stride), (1, 1), pads, channels, True, e, accumulate=F32)
    return c.done(op, x, w, c.bias(channels), extras)


def gemm(seed: int) -> Made:
    c = _Case(seed)
    batch, m, k, n = c.n(1, 2), c.n(1, 33), 2 * c.n(1, 40), c.n(1, 70)
    if seed % 5 == 4:  # weights that the level-1 cache does not hold pass by each tile of rows
        m, k, n = c.n(120, 150), 2 * c.n(60, 70), c.n(150, 200)
    trans = bool(c.n(0, 1))
    a = c.input(TensorType((batch, m, k), BF16))
    b = c.b.const(c.numbers(*((n, k) if trans else (k, n))), BF16)
    e, extras = c.epilogue((batch, m, n))
    return c.done(MatMul(False, trans, e, accumulate=F32), a, b, c.bias(n), extras)


def attention(seed: int) -> Made:
    """Rows of several blocks, keys of several steps, masked, causal, capped, of shared heads."""
    c = _Case(seed)
    batch, groups, repeat, rows = c.n(1, 2), c.n(1, 2), c.n(1, 2), c.n(4, 70)
    keys, d, e = c.n(1, 90), 2 * c.n(1, 36), c.n(1, 70)
    inside = tuple(bool(c.n(0, 1)) for _ in range(4))
    inputs = []
    sizes = ((groups * repeat, rows, d), (groups, keys, d), (groups, keys, e))
    for (h, n, w), swap in zip(sizes, inside, strict=False):
        inputs.append(c.input(TensorType((batch, n, h, w) if swap else (batch, h, n, w), BF16)))
    if c.n(0, 1):
        mask = c.rng.standard_normal((batch, 1, rows, keys)).astype(np.float32)
        mask[c.rng.random(mask.shape) < 0.3] = -np.inf
        inputs.append(c.b.input("mask", TensorType(mask.shape, F32)))
        c.feeds["mask"] = mask
    scale, cap = 2.0 ** c.n(-10, 0), (0.0, 3.0)[c.n(0, 1)]
    causal, blind = bool(c.n(0, 1)), bool(c.n(0, 1))
    dtype = (None, BF16)[c.n(0, 1)]
    offset = c.n(-3, keys)
    op = Attention(scale, cap, causal, offset, inside, blind, F32, dtype)  # type: ignore[arg-type]
    return c.finished(op, inputs)


@pytest.mark.parametrize(
    ("make", "isa"),
    [
        *((make, isa) for make in (conv, depthwise, gemm) for isa in ORDER),
        *((attention, isa) for isa in ("avx512bf16", "amx")),
    ],
)
def test_sums_of_bfloat16_are_within_their_bounds(make: object, isa: str, tmp_path: Path) -> None:
    assert callable(make)
    needs_isa(isa)
    made = [make(seed) for seed in range(ROUNDS)]
    p = plan(Module("m", tuple(g for g, _ in made)), target(TARGETS[isa]))
    library = compiled(p, tmp_path, parts=True, flags=("-O1",))
    for i, (g, feeds) in enumerate(made):
        (node,), (step,) = g.nodes, p.entries[i].steps
        rows = ("conv2d_bf16", "depthwise_f32", "gemm_bf16", "attention_bf16")
        assert step.kernel.removesuffix("_matrix") in rows
        (got,) = run(p, library, feeds, entry=i)
        operands = [{**g.consts, **feeds}[x] if x else None for x in node.inputs]
        judged = tolerance_of(node.op).judge(node.op, operands, g.in_types(node), g.out_types(node))
        value = from_native(got, g.types[node.outputs[0]].dtype)
        want = judged.outputs[0]
        off = np.abs(value.astype(np.float64) - want)
        same = np.isnan(value) & np.isnan(want)
        assert (same | (off <= judged.bounds[0])).all(), (
            i,
            node.op,
            float((off - judged.bounds[0]).max()),
        )


@pytest.mark.parametrize("make", [conv, gemm])
def test_epilogues_between_the_products_of_the_next_tile(
    make: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling_i8, "DENSE", 0.0)
    test_sums_of_bfloat16_are_within_their_bounds(make, "amx", tmp_path)
