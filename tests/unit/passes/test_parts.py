"""Heads of detectors as products in parts."""

from __future__ import annotations

import numpy as np
import pytest

from sparrow import lane
from sparrow.graph import Graph, Module
from sparrow.kernels import COMPACT, KERNELS, parts_of
from sparrow.kernels.case import Kernel
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.passes import back, optimize
from sparrow.passes.parts import part_heads
from sparrow.passes.sinking import moved_elements
from sparrow.planner import plan
from sparrow.targets import target
from sparrow.tensor import F32, I8, I32
from unit.passes.check import Net, assert_same, feeds, kinds

PARTS, COLUMNS, ROWS, SIZE, DEPTH = 3, 6, 4, 5, 8
CODE = lane.cast(lane.Arg(0, I32), F32)
SCALED = lane.call("mul", CODE, lane.Arg(1, F32))
TWICE = lane.call("mul", lane.Arg(0, F32), lane.Imm(2.0, F32))


def head(
    *,
    kernel: int = 1,
    bias: bool = True,
    turned: bool = True,
    batch: int = 1,
    columns: int = COLUMNS,
) -> Graph:
    """[1, H, W, p c] as [1, p, H, W, c], boxes decoded."""
    n = Net()
    channels = PARTS * columns
    codes = n.rng.integers(-127, 128, (channels, DEPTH, kernel, kernel)).astype(np.int8)
    b = n.const(n.rng.integers(-99, 99, channels).astype(np.int32), I32) if bias else ""
    op = Conv(*((1, 1),) * 2, ((kernel // 2,) * 2,) * 2, 1, True, SCALED, zero=3)
    x = n.x(batch, ROWS, SIZE, DEPTH, dtype=I8)
    y = n.add(op, x, n.const(codes, I8), b, n.w(channels))
    y = n.add(Reshape((batch, ROWS, SIZE, PARTS, columns)), y)
    whole = (batch, ROWS, SIZE, PARTS)
    box = n.add(Slice((0,) * 5, (*whole, 2), (1,) * 5), y)
    rest = n.add(Slice((0, 0, 0, 0, 2), (*whole, columns - 2), (1,) * 5), y)
    y = n.add(Concat(4), n.lane(TWICE, box), rest)
    return n.done(n.add(Transpose((0, 3, 1, 2, 4)), y) if turned else y)


@pytest.mark.parametrize("bias", [True, False])
def test_the_transpose_of_a_head_vanishes_in_its_product(bias: bool) -> None:
    g = head(bias=bias)
    after = part_heads(g, None)
    assert_same(g, after, {"x": feeds(g)["x"] - 5})
    assert "MatMul" in kinds(after) and "Conv" not in kinds(after)
    assert moved_elements(g) > moved_elements(after) == 0
    (product,) = (k for k in after.nodes if isinstance(k.op, MatMul))
    assert after.types[product.outputs[0]].shape == (1, PARTS, ROWS * SIZE, COLUMNS)


@pytest.mark.parametrize("g", [head(kernel=3), head(turned=False), head(batch=2)])
def test_other_heads_stay(g: Graph) -> None:
    assert part_heads(g, None) is g


@pytest.mark.parametrize("table", [KERNELS, COMPACT], ids=["fast", "compact"])
@pytest.mark.parametrize(
    "cpu",
    [
        *("wasm32", "wasm32_simd", "wasm32_usdot", "wasm32_maddubs", "cortex_m0", "cortex_m55"),
        *("x86_64", "x86_64_v3", "x86_64_v4_amx", "aarch64_dotprod", "riscv64_v"),
    ],
)
def test_heads_have_a_kernel_everywhere(cpu: str, table: tuple[Kernel, ...]) -> None:
    row = target(cpu)
    least = parts_of(table, row.isa)
    assert (least is None) == (table is COMPACT or row.isa.engine)
    for columns in (COLUMNS, 40):
        passes = back(unsigned=row.isa.codes_unsigned, parts=least)
        g = optimize(head(columns=columns), passes)
        assert ("MatMul" in kinds(g)) == (least is not None and columns >= least)
        steps = plan(Module("m", (g,)), row, kernels=table).entries[0].steps
        assert not any(s.kernel.endswith("_any") for s in steps)
