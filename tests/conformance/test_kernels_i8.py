"""Sums over 8-bit codes with requantizing epilogues: every row, instruction set and scheme, bit for
bit the interpreter's integers. Files beside this one (`test_*_i8.py`) hold what is of one family.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cases_i8 import MAKERS
from cases_i8.compare import ENGINES, FOREIGN, PORTABLE, TWOS, compare
from cases_i8.convolutions import (
    conv_case,
)
from cases_i8.depthwise import depthwise_case
from cases_i8.products import matmul_case
from native_harness import BYTES, EMULATED, emulator, engine
from sparrow import lane
from sparrow.builder import Builder
from sparrow.graph import Scheme
from sparrow.kernels import (
    COMPACT,
    KERNELS,
    attention_i8,
    compact_i8,
    conv_i8,
    conv_i16,
    depthwise_pairs_i8,
    lookup,
    loop,
    matmul_i8,
    pool_i8,
    recurrent_i8,
    softmax_i8,
)
from sparrow.kernels.case import Kernel
from sparrow.ops.conv import Conv
from sparrow.passes.requantize import Constants, Grid, scaled
from sparrow.targets import target
from sparrow.tensor import F32, I8, I32, TensorType

ROUNDS = 16


_OWN = (
    *depthwise_pairs_i8.ROWS,
    *matmul_i8.ROWS,
    *lookup.ROWS,
    *pool_i8.ROWS,
    *softmax_i8.ROWS,
    *attention_i8.ROWS,
    *recurrent_i8.ROWS,
)


@pytest.mark.parametrize("isa", [*BYTES, *ENGINES, *FOREIGN])
def test_fast_rows_give_the_integers_of_the_reference(isa: str, tmp_path: Path) -> None:
    if isa.startswith("wasm"):
        engine(isa)
    if isa in FOREIGN:
        emulator(target(EMULATED[isa]).machine)
    rounds = 4 if isa in FOREIGN else ROUNDS
    cases = [make(1000 * k + s) for k, make in enumerate(MAKERS) for s in range(rounds)]
    used = compare(cases, isa, KERNELS, tmp_path)
    if isa == "amx":
        # small products are predicted cheaper without its matrix registers
        few = tuple(k for k in KERNELS if k.name not in ("conv2d_i8", "gemm_i8"))
        used |= compare(cases, isa, few, tmp_path)
    sums = compact_i8.ENGINES if isa.startswith("wasm") else conv_i8.ROWS
    if isa in TWOS and isa != "wasm_maddubs":
        sums = (*TWOS[isa], *(r for r in sums if r.op is Conv and "depthwise" in r.name))
    assert used >= {r.name for r in (*sums, *_OWN) if not r.isas or isa in r.isas}
    assert "resize" in used


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "isa", ["avx2", "avx512", "wasm", "wasm_simd", "wasm_relaxed", "wasm_maddubs"]
)
@pytest.mark.parametrize("table", [KERNELS, COMPACT])
def test_codes_of_16_bits_give_the_integers_of_the_reference(
    isa: str, threads: int, table: tuple[Kernel, ...], tmp_path: Path
) -> None:
    if isa.startswith("wasm"):
        engine(isa)
    makers = (conv_case, depthwise_case, matmul_case)
    cases = [make(1000 * k + s, wide=True) for k, make in enumerate(makers) for s in range(12)]
    used = compare(cases, isa, table, tmp_path, threads)
    rows = (*conv_i16.ROWS, *depthwise_pairs_i8.ROWS_I16, *compact_i8.ROWS_I16)
    assert used >= {r.name for r in rows if isa in r.isas and r in table}


def test_portable_rows_give_the_integers_of_the_reference(tmp_path: Path) -> None:
    cases = [make(1000 * k + s) for k, make in enumerate(MAKERS) for s in range(10)]
    assert compare(cases, "scalar", PORTABLE, tmp_path) >= {
        *("conv_any", "matmul_any", "lookup", "pool"),
    }


@pytest.mark.parametrize("isa", ["scalar", "avx2", "wasm_simd", "wasm"])
def test_floats_become_codes(isa: str, tmp_path: Path) -> None:
    if isa.startswith("wasm"):
        engine(isa)
    ties = np.arange(-140.5, 140.0, 0.25)
    x = np.concatenate([ties, [np.nan, np.inf, -np.inf, 3e9, -3e9, -0.0]]).astype(np.float32)
    b = Builder("codes")
    steps = lane.call("div", lane.Arg(0, F32), lane.Imm(0.5, F32))
    clipped = lane.clip(lane.call("round", steps), lane.Imm(-121.0, F32), lane.Imm(134.0, F32))
    whole = lane.call("add", lane.cast(clipped, I32), lane.Imm(-7, I32))
    y = b.lane(lane.cast(whole, I8), b.input("x", TensorType((1, x.size), F32)))
    compare([(b.finish({"y": y}, {}), {"x": x[None]})], isa, loop.ROWS, tmp_path)


@pytest.mark.parametrize("scheme", ["f32", "fixed31"])
def test_schemes_round_to_nearest(scheme: Scheme) -> None:
    rng = np.random.default_rng(5)
    value = rng.integers(-(1 << 30), 1 << 30, 4096).astype(np.int32)
    ratio = 10.0 ** rng.uniform(-9, -6, 4096)
    constants = Constants(1)
    e = scaled(scheme, lane.Arg(0, I32), ratio, Grid(3, -128, 127, I8), constants)
    assert not hasattr(e, "reason")
    got = lane.evaluate(e, (value, *constants.arrays))
    exact = np.clip(value * ratio + 3, -128, 127)
    # float32 keeps 24 bits of the product, fixed31 30: ties may fall either way near them
    assert (np.abs(got - exact) <= 0.5 + 128 * 2.0**-22).all()
