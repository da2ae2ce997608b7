"""Compact rows: one function for layers of all sizes, weights without padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cases_i8.case import Case
from cases_i8.compare import FOREIGN, compare
from cases_i8.convolutions import (
    conv_case,
    signal_case,
)
from cases_i8.depthwise import depthwise_case, rows_case, wide_case
from cases_i8.products import matmul_case
from emitted import TARGETS
from native_harness import EMULATED, emulator, engine, node
from sparrow import lane
from sparrow.emit.c import emit
from sparrow.graph import Module
from sparrow.kernels import (
    COMPACT,
    KERNELS,
    compact_i8,
)
from sparrow.ops.conv import Conv
from sparrow.passes.requantize import Constants, Grid, scaled
from sparrow.planner import plan
from sparrow.targets import target
from sparrow.tensor import I8, I32, TensorType

# (instruction set, threads): tasks are cut alike on all of them
COMPACTED = (
    *(("scalar", 1), ("avx2", 1), ("avx512vnni", 1), ("avx512vnni", 2)),
    *(("neon_dot", 1), ("neon_i8mm", 1)),
)


@pytest.mark.parametrize(("isa", "threads"), COMPACTED)
def test_compact_rows_give_the_integers_of_the_reference(
    isa: str, threads: int, tmp_path: Path
) -> None:
    if isa in FOREIGN:
        emulator(target(EMULATED[isa]).machine)
    makers = (conv_case, depthwise_case, matmul_case, wide_case)
    cases = [make(1000 * k + s) for k, make in enumerate(makers) for s in range(8)]
    used = compare(cases, isa, COMPACT, tmp_path, threads)
    rows = {r.name for r in compact_i8.ROWS}
    # on one lane the portable depthwise row costs less
    assert used >= (rows - {"depthwise_compact_i8"} if isa == "scalar" else rows)


@pytest.mark.parametrize("isa", ["wasm_simd", "wasm_usdot"])
def test_rows_for_engines_share_their_panels_among_threads(isa: str, tmp_path: Path) -> None:
    engine(isa)
    makers = (conv_case, depthwise_case, matmul_case)
    cases = [make(1000 * k + s) for k, make in enumerate(makers) for s in range(8)]
    assert compare(cases, isa, KERNELS, tmp_path, threads=4) >= {r.name for r in compact_i8.ENGINES}


@pytest.mark.parametrize(
    ("isa", "threads"),
    [("scalar", 1), ("wasm_simd", 1), ("wasm_usdot", 1), ("wasm_usdot", 3), ("wasm_maddubs", 1)],
)
def test_windows_of_a_signal_take_no_portable_row(isa: str, threads: int, tmp_path: Path) -> None:
    if isa.startswith("wasm"):
        engine(isa)
    kernels = COMPACT if isa == "scalar" else KERNELS
    used = compare([signal_case(s) for s in range(16)], isa, kernels, tmp_path, threads)
    assert used & {"conv2d_compact_i8", "conv2d_maddubs_i8"} and "conv_any" not in used


@pytest.mark.parametrize("threads", [1, 3])
def test_pairs_of_rows_serve_two_rows(threads: int, tmp_path: Path) -> None:
    node()
    used = compare([rows_case(s) for s in range(24)], "wasm_simd", KERNELS, tmp_path, threads)
    assert "depthwise_compact_i8" in used


def test_compact_weights_are_not_padded_to_vectors() -> None:
    made = (make(s)[0] for make in (conv_case, depthwise_case) for s in range(8))
    module = Module("m", tuple(made))
    row = target(TARGETS["avx512vnni"])
    small, fast = (plan(module, row, kernels=k).weights for k in (COMPACT, KERNELS))
    assert len(small) < 0.75 * len(fast)


def test_compact_weights_hold_no_zeros_for_other_groups() -> None:
    c = Case(0)
    x, _, zero = c.input((1, 5, 5, 64))
    op = Conv((1, 1), (1, 1), ((1, 1), (1, 1)), 16, True, zero=zero)
    made = c.sum(op, x, c.weights((64, 4, 3, 3)), c.bias(64), 36, 64)
    module = Module("m", (made[0],))
    row = target(TARGETS["avx2"])
    small, fast = (len(plan(module, row, kernels=k).weights) for k in (COMPACT, KERNELS))
    assert 64 * 36 <= small < 64 * 36 + 1024 < fast


def test_compact_layers_of_other_zero_points_share_a_function() -> None:
    c = Case(0)
    x = c.b.input("x", TensorType((1, 9, 9, 8), I8))
    w = c.weights((8, 8, 1, 1))
    for zero in (-9, 30, 77):
        constants = Constants(1)
        ratio = np.full(8, 1e-3)
        made = scaled("f32", lane.Arg(0, I32), ratio, Grid(zero, -128, 127, I8), constants)
        assert not hasattr(made, "reason")
        op = Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, True, made, zero)
        x = c.b.add(op, x, w, "", *(c.b.const(a) for a in constants.arrays))
    module = Module("m", (c.finish(x)[0],))
    text = emit(plan(module, target(TARGETS["avx2"]), kernels=COMPACT)).files["model.c"].decode()
    assert text.count("sp_conv2d_compact_i8(p0") == 1
