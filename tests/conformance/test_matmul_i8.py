"""Products of matrices of codes: columns, transposed operands, parts, heads."""

from __future__ import annotations

from pathlib import Path

import pytest

from cases_i8.case import Case
from cases_i8.compare import FOREIGN, compare
from cases_i8.functions import attention_case
from cases_i8.products import column_case, parts_case
from native_harness import EMULATED, emulator, needs_isa
from sparrow.kernels import (
    KERNELS,
    attention_i8,
    column_i8,
)
from sparrow.ops.matmul import MatMul
from sparrow.targets import target


@pytest.mark.parametrize("isa", ["neon_dot", "neon_i8mm"])
def test_single_columns_are_added_up_along_rows(isa: str, tmp_path: Path) -> None:
    emulator(target(EMULATED[isa]).machine)
    used = compare([column_case(s) for s in range(24)], isa, KERNELS, tmp_path)
    assert used == {r.name for r in column_i8.ROWS}


@pytest.mark.parametrize("trans_b", [False, True])
def test_a_transposed_operand_meets_constant_weights(trans_b: bool, tmp_path: Path) -> None:
    """Channels-first images by a matrix, as attention over channels leaves them."""
    c = Case(0)
    x, _, zero = c.input((1, 37, 51))
    w = c.weights((19, 37) if trans_b else (37, 19))
    case = c.sum(MatMul(True, trans_b, zero=zero), x, w, c.bias(19), 37, 19)
    assert "matmul_i8" in compare([case], "avx2", KERNELS, tmp_path)


@pytest.mark.parametrize(
    ("isa", "threads"),
    [("scalar", 1), ("avx2", 1), ("avx512vnni", 1), ("avx512vnni", 3), ("neon_dot", 1)],
)
def test_products_in_parts_are_one_product(isa: str, threads: int, tmp_path: Path) -> None:
    if isa in FOREIGN:
        emulator(target(EMULATED[isa]).machine)
    cases = [parts_case(seed) for seed in range(24)]
    row = "gemm_twos_i8" if isa == "avx2" else "gemm_i8"
    assert row in compare(cases, isa, KERNELS, tmp_path, threads)


@pytest.mark.parametrize("isa", ["avx2", "avx512vnni"])
def test_rows_of_a_head_are_shared_among_threads(isa: str, tmp_path: Path) -> None:
    needs_isa(isa)
    cases = [attention_case(s) for s in range(12)]
    assert compare(cases, isa, attention_i8.ROWS, tmp_path, threads=3) >= {"attention_i8"}
