"""Rows that multiply codes by twos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cases_i8.case import Case
from cases_i8.compare import PORTABLE, TWOS, compare
from cases_i8.convolutions import (
    conv_case,
    extreme_case,
    signal_case,
    upright_case,
)
from cases_i8.depthwise import wide_case
from cases_i8.products import matmul_case
from native_harness import engine
from sparrow.graph import Module
from sparrow.ops.conv import Conv
from sparrow.planner import plan
from sparrow.targets import target
from sparrow.tensor import I8, TensorType


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("isa", TWOS)
def test_products_by_twos_give_the_integers_of_the_reference(
    isa: str, threads: int, tmp_path: Path
) -> None:
    if isa.startswith("wasm"):
        engine(isa)
    makers = (conv_case, matmul_case, upright_case, wide_case, signal_case)
    cases = [make(1000 * k + s) for k, make in enumerate(makers) for s in range(16)]
    rows = (*TWOS[isa], *PORTABLE)
    assert compare(cases, isa, rows, tmp_path, threads) >= {row.name for row in TWOS[isa]}


@pytest.mark.parametrize("isa", TWOS)
def test_products_by_twos_are_exact_for_the_largest_codes(isa: str, tmp_path: Path) -> None:
    if isa.startswith("wasm"):
        engine(isa)
    cases = [extreme_case(ci, seed) for ci in (3, 4, 224) for seed in range(3)]
    assert compare(cases, isa, TWOS[isa], tmp_path) == {TWOS[isa][0].name}


@pytest.mark.parametrize(
    ("name", "least", "taken"),
    [
        ("wasm32_maddubs", -127, "conv2d_maddubs_i8"),
        ("wasm32_maddubs", -128, "conv2d_compact_i8"),
        ("x86_64_v3", -127, "conv2d_twos_i8"),
        ("x86_64_v3", -128, "conv2d_i8"),
    ],
)
def test_products_by_twos_have_no_weight_that_cannot_be_negated(
    name: str, least: int, taken: str
) -> None:
    c = Case(0)
    x = c.b.input("x", TensorType((1, 20, 20, 64), I8))
    w = c.rng.normal(0, 30, (64, 64, 1, 1)).round().clip(-127, 127)
    w[0] = least
    op = Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, True)
    module = Module("m", (c.finish(c.b.add(op, x, c.b.const(w.astype(np.int8), I8)))[0],))
    steps = plan(module, target(name)).entries[0].steps
    assert {s.kernel for s in steps} == {taken}
