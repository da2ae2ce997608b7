"""Transposing copies of every width, odd extents and distances, per instruction set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from native_harness import BUILDS, before_guard, build, call

TYPES = {8: "uint8_t", 16: "uint16_t", 32: "float", 64: "uint64_t"}
SIGNATURE = (
    "void turn_%d(void *y, ptrdiff_t ldy, const void *x, ptrdiff_t ldx, ptrdiff_t n, ptrdiff_t m)"
)
C = '#include "kernels/transpose.h"\n' + "".join(
    f"{SIGNATURE % bits};\n{SIGNATURE % bits} {{\n"
    f"  sp_transpose_{bits}(({c} *)y, ldy, (const {c} *)x, ldx, n, m);\n}}\n"
    for bits, c in TYPES.items()
)
EXTENTS = ((1, 1), (8, 8), (3, 85), (85, 3), (64, 16), (17, 40), (7, 9), (100, 12))


@pytest.mark.parametrize("build_of", BUILDS)
def test_transpose(build_of: str, tmp_path: Path) -> None:
    isa, _, compiler = build_of.partition(" ")
    c = build(C, isa, tmp_path, compiler or "zig")
    rng = np.random.default_rng(3)
    for bits in TYPES:
        dtype = np.dtype(f"u{bits // 8}")
        for rows, cols in EXTENTS:
            ldx, ldy = rows + int(rng.integers(0, 9)), cols + int(rng.integers(0, 9))
            x = rng.integers(0, 255, (cols - 1) * ldx + rows).astype(dtype)
            y = rng.integers(0, 255, (rows - 1) * ldy + cols).astype(dtype)
            want = y.copy()
            for i in range(rows):
                want[i * ldy : i * ldy + cols] = x[i::ldx][:cols]
            source = before_guard(x) if x.nbytes <= 4096 else x
            call(c, f"turn_{bits}", y, ldy, source, ldx, rows, cols)
            np.testing.assert_array_equal(y, want)
