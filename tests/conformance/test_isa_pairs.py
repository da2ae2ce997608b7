"""Products of bfloat16 pairs and stores as bfloat16, composed or of one instruction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from native_harness import EMULATED, FIRMWARE, ISAS, build, call
from sparrow.tensor import round_bfloat16

C = """
#include "kernels/tile_f32.h"
void lanes(int32_t *out);
void lanes(int32_t *out) { out[0] = SP_LANES; }
void dot(float *out, const float *acc, const uint16_t *a, const uint16_t *b);
void dot(float *out, const float *acc, const uint16_t *a, const uint16_t *b) {
  sp_store_f32(out, sp_dot2_f32(sp_load_f32(acc), sp_loadq_i32(a), sp_loadq_i32(b)));
}
void put(uint16_t *out, const float *v, ptrdiff_t n);
void put(uint16_t *out, const float *v, ptrdiff_t n) {
  sp_put_out(1, out, 0, sp_load_f32(v), (int)n);
}
"""


@pytest.mark.parametrize("isa", [*ISAS, *EMULATED, *FIRMWARE])
def test_pairs(isa: str, tmp_path: Path) -> None:
    c = build(C, isa, tmp_path)
    found = np.zeros(1, np.int32)
    call(c, "lanes", found)
    lanes = int(found[0])
    rng = np.random.default_rng(7)
    for _ in range(20):
        wide = rng.standard_normal((2, lanes, 2)) * np.exp2(rng.integers(-20, 21, (2, lanes, 2)))
        a, b = round_bfloat16(wide.astype(np.float32))
        acc = rng.standard_normal(lanes).astype(np.float32)
        halves = [(v.view(np.uint32) >> 16).astype(np.uint16) for v in (a, b)]
        out = np.zeros(lanes, np.float32)
        call(c, "dot", out, acc, *halves)
        products = a.astype(np.float64) * b
        size = np.abs(acc) + np.abs(products).sum(1)
        # products are exact in float32; two sums round
        assert (np.abs(out - (acc + products.sum(1))) <= 2.001 * 2.0**-24 * size).all()
        values = rng.standard_normal(lanes).astype(np.float32)
        n = int(rng.integers(1, lanes + 1))
        stored = np.full(lanes, 0xABCD, np.uint16)
        call(c, "put", stored, values, n)
        want = (round_bfloat16(values).view(np.uint32) >> 16).astype(np.uint16)
        np.testing.assert_array_equal(stored[:n], want[:n])
        assert (stored[n:] == 0xABCD).all()
