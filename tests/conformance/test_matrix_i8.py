"""Sums over codes by matrix registers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest

from cases_i8.case import Case
from cases_i8.compare import PORTABLE, compare
from cases_i8.convolutions import (
    conv_case,
    two_rows_case,
)
from cases_i8.products import matmul_case
from native_harness import needs_isa
from sparrow.kernels import (
    conv_i8,
    tiling_i8,
)
from sparrow.kernels.tiles_matrix import DENSE
from sparrow.ops.conv import Conv


@pytest.mark.parametrize(("threads", "dense"), [(1, DENSE), (1, 0.0), (3, 0.0)])
def test_matrix_registers_give_the_integers_of_the_reference(
    threads: int, dense: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling_i8, "DENSE", dense)
    makers = (conv_case, matmul_case, two_rows_case)
    cases = [make(1000 * k + s) for k, make in enumerate(makers) for s in range(12)]
    rows = [r for r in conv_i8.ROWS if r.name.endswith("_matrix")]
    used = compare(cases, "amx", (*rows, *PORTABLE), tmp_path, threads)
    assert used >= {r.name for r in rows}


def test_onnxruntime_keeps_its_matrix_registers_beside_ours(tmp_path: Path) -> None:
    # it takes registers of another shape for its own where half of it agrees: illegal instruction
    needs_isa("amx")
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (64, 256)).astype(np.uint8)
    b = rng.integers(-127, 128, (256, 64)).astype(np.int8)
    theirs = ort.InferenceSession(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 13]> g (uint8[64, 256] a, int8[256, 64] b) => '
            "(int32[64, 64] y) { y = MatMulInteger (a, b) }"
        ).SerializeToString()
    )
    want = a.astype(np.int32) @ b.astype(np.int32)
    rows = [r for r in conv_i8.ROWS if r.name.endswith("_matrix")]
    c = Case(0)
    x, _, zero = c.input((1, 1, 7, 64))
    op = Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, True, zero=zero)
    case = c.sum(op, x, c.weights((16, 64, 1, 1)), c.bias(16), 64, 16)
    np.testing.assert_array_equal(theirs.run(None, {"a": a, "b": b})[0], want)
    assert "conv2d_i8_matrix" in compare([case], "amx", (*rows, *PORTABLE), tmp_path)
    np.testing.assert_array_equal(theirs.run(None, {"a": a, "b": b})[0], want)
