"""The functions of the vocabulary over four bytes a lane mean on every instruction set the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from native_harness import (
    BYTES_ONLY,
    COMMON,
    EMULATED,
    FIRMWARE,
    ISAS,
    NATIVE_BYTES_ONLY,
    Emulated,
    build,
    call,
    engine,
    zig_target,
)
from sparrow.targets import target

LEVELS = [*ISAS, *EMULATED, *FIRMWARE, *BYTES_ONLY, *NATIVE_BYTES_ONLY]

C = """
#include "kernels/tile_i8.h"
void lanes(int32_t *out);
void lanes(int32_t *out) {
  out[0] = SP_LANES;
  out[1] = SP_DOT_UNSIGNED;
}
void dot(int32_t *out, const uint8_t *a, const uint8_t *b, const int32_t *acc);
void dot(int32_t *out, const uint8_t *a, const uint8_t *b, const int32_t *acc) {
  sp_store_i32(out, sp_dot4_i32(sp_load_i32(acc), sp_loadq_i32(a), sp_loadq_i32(b)));
}
void tame(int32_t *out, const uint8_t *a, const uint8_t *b, const int32_t *acc);
void tame(int32_t *out, const uint8_t *a, const uint8_t *b, const int32_t *acc) {
  sp_store_i32(out, sp_dot4_tame_i32(sp_load_i32(acc), sp_loadq_i32(a), sp_loadq_i32(b)));
}
void flip(uint8_t *out, const uint8_t *a);
void flip(uint8_t *out, const uint8_t *a) { sp_storeq_i32(out, sp_flip_i32(sp_loadq_i32(a))); }
void turned(uint8_t *out, const uint8_t *a);
void turned(uint8_t *out, const uint8_t *a) { sp_storeq_i32(out, sp_set1_turned_quad(a)); }
void quad(uint8_t *out, const uint8_t *a);
void quad(uint8_t *out, const uint8_t *a) { sp_storeq_i32(out, sp_set1_quad(a)); }
void zip(uint8_t *out, const uint8_t *a, ptrdiff_t n);
void zip(uint8_t *out, const uint8_t *a, ptrdiff_t n) {
  sp_storeq_i32(out, sp_zip4_i8(a, a + 64, a + 128, a + 192, (int)n));
}
void dot2(int32_t *out, const uint8_t *a, const uint8_t *b, const int32_t *acc);
void dot2(int32_t *out, const uint8_t *a, const uint8_t *b, const int32_t *acc) {
  sp_store_i32(out, sp_dot2_i32(sp_load_i32(acc), sp_loadp_i32(a), sp_loadp_i32(b)));
}
void pairs(int16_t *out, const uint8_t *a);
void pairs(int16_t *out, const uint8_t *a) { sp_storeq_i32(out, sp_loadp_i32(a)); }
void add2(int16_t *out, const uint8_t *a, const uint8_t *b);
void add2(int16_t *out, const uint8_t *a, const uint8_t *b) {
  sp_storeq_i32(out, sp_addp_i32(sp_loadq_i32(a), sp_loadq_i32(b)));
}
void sub2(int16_t *out, const uint8_t *a, const uint8_t *b);
void sub2(int16_t *out, const uint8_t *a, const uint8_t *b) {
  sp_storeq_i32(out, sp_subp_i32(sp_loadq_i32(a), sp_loadq_i32(b)));
}
void zip2(int16_t *out, const uint8_t *a, ptrdiff_t n);
void zip2(int16_t *out, const uint8_t *a, ptrdiff_t n) {
  sp_storeq_i32(out, sp_zip2_i8(a, a + 64, (int)n));
}
void lookup(uint8_t *out, const uint8_t *table, const uint8_t *x, ptrdiff_t n, ptrdiff_t offset);
void lookup(uint8_t *out, const uint8_t *table, const uint8_t *x, ptrdiff_t n, ptrdiff_t offset) {
  sp_lookup_bytes(table, x, out, n, (int)offset);
}
"""

# what a store keeps of a sum; (z, lo, hi, fits) of codes, the limits of int32 where the store clips
CODES = tuple(
    (*code, fits)
    for code in ((0, -128, 127), (-128, -128, 127), (5, -7, 100), (128, 0, 255), (3, 3, 255))
    for fits in (0, 1, 2, 3)
)
SHIFTS = tuple(
    (n, z, fits) for n in (17, 20, 23) for z in (-128, 0, 5, 127, 255) for fits in (0, 1)
)
EPILOGUE = """
#include "kernels/epilogue.h"
#define CODES(at, z, lo, hi, fits)                                                \\
  void code##at(int32_t *out, const float *v);                                    \\
  void code##at(int32_t *out, const float *v) {                                   \\
    sp_store_i32(out, sp_code_f32_i32(sp_load_f32(v), z, lo, hi, fits));          \\
  }
#define SHIFTS(at, n, z, fits)                                                    \\
  void shift##at(int32_t *out, const int32_t *v);                                 \\
  void shift##at(int32_t *out, const int32_t *v) {                                \\
    sp_store_i32(out, sp_code_rshr_i32(sp_load_i32(v), n, z, fits));              \\
  }
#define BLOCKS(from)                                                              \\
  void block##from(int32_t *out, const int8_t *row, ptrdiff_t col, ptrdiff_t n);  \\
  void block##from(int32_t *out, const int8_t *row, ptrdiff_t col, ptrdiff_t n) { \\
    SP_UNROLL                                                                     \\
    for (int v = 0; v < 16; v += SP_LANES)                                        \\
      sp_store_i32(out + v, sp_load_block_i8(row, 16 * col + from + v, SP_LANES)); \\
    sp_store_i32(out + 16, sp_load_block_i8(row, 16 * col + from, (int)n));       \\
  }
#define PUTS(nv, put, name)                                                       \\
  void name##nv(int8_t *out, const int32_t *in, ptrdiff_t n);                     \\
  void name##nv(int8_t *out, const int32_t *in, ptrdiff_t n) {                    \\
    sp_i32 v[nv];                                                                 \\
    for (int i = 0; i < nv; ++i) v[i] = sp_load_i32(in + i * SP_LANES);           \\
    if (n == SP_LANES)                                                            \\
      sp_put_sums(put, out, 0, v, nv, SP_LANES);                                  \\
    else                                                                          \\
      sp_put_sums(put, out, 0, v, nv, (int)n);                                    \\
  }
#define APART(pixels, put, name)                                                  \\
  void name##pixels(int8_t *out, const int32_t *in, ptrdiff_t ld);                \\
  void name##pixels(int8_t *out, const int32_t *in, ptrdiff_t ld) {               \\
    sp_i32 v[pixels];                                                             \\
    for (int i = 0; i < pixels; ++i) v[i] = sp_load_i32(in + i * SP_LANES);       \\
    sp_put_pixels(put, out, 0, ld, v, pixels, SP_LANES);                          \\
  }
#define EACH(nv)                 \\
  APART(nv, SP_PUT_I8, apart_i8_) \\
  APART(nv, SP_PUT_U8, apart_u8_) \\
  APART(nv, SP_PUT_32, apart_i32_) \\
  APART(nv, SP_PUT_I16, apart_i16_) \\
  PUTS(nv, SP_PUT_I8, put_i8_) \\
  PUTS(nv, SP_PUT_U8, put_u8_) \\
  PUTS(nv, SP_PUT_32, put_i32_) \\
  PUTS(nv, SP_PUT_I16, put_i16_)
BLOCKS(0) BLOCKS(4) BLOCKS(8) BLOCKS(12) BLOCKS(2)
EACH(1) EACH(2) EACH(3) EACH(4) EACH(5) EACH(6) EACH(8) EACH(9)
"""


@pytest.mark.parametrize("isa", LEVELS)
def test_stores_of_sums(isa: str, tmp_path: Path) -> None:
    limits = {-128: "INT32_MIN", 127: "INT32_MAX", 0: "INT32_MIN", 255: "INT32_MAX"}
    texts = (f"CODES({i}, {z}, {limits.get(lo, lo)}, {limits.get(hi, hi)}, {fits})\n"
             for i, (z, lo, hi, fits) in enumerate(CODES))  # fmt: skip
    shifts = (f"SHIFTS({i}, {n}, {z}, {fits})\n" for i, (n, z, fits) in enumerate(SHIFTS))
    c = build(C + EPILOGUE + "".join([*texts, *shifts]), isa, tmp_path)
    lanes = np.zeros(2, np.int32)
    call(c, "lanes", lanes)
    width = int(lanes[0])
    rng = np.random.default_rng(4)
    for i, (n, z, fits) in enumerate(SHIFTS):
        top = (1 << 31) - 1 - (((abs(2 * z) + 1) << (n - 1)) if fits else 1 << (n - 1))
        near = (np.arange(-300, 300) << n) + rng.integers(-2, 2, 600)
        sums = np.concatenate([rng.integers(-top, top, 64), near, near + (1 << (n - 1))])
        sums = np.concatenate([np.clip(sums, -top, top), [-top, top]])
        low, high = (0, 255) if z > 127 else (-128, 127)
        for sum_ in np.resize(sums, (-(-sums.size // width), width)):
            out = np.zeros(width, np.int32)
            call(c, f"shift{i}", out, sum_.astype(np.int32))
            want = z + ((sum_ + (1 << (n - 1))) >> n)
            got = np.clip(out, low, high)
            np.testing.assert_array_equal(got, np.clip(want, low, high))
    row = rng.integers(-128, 128, 48).astype(np.int8)
    for start in (0, 4, 8, 12, 2):
        for col in range(2):
            first, n = 16 * col + start, max(1, width - 1)
            out = np.zeros(32, np.int32)
            call(c, f"block{start}", out, row, col, n)
            np.testing.assert_array_equal(out[:16], row[first : first + 16])
            np.testing.assert_array_equal(out[16 : 16 + n], row[first : first + n])
    v = np.concatenate(
        [rng.uniform(-300, 300, 64), np.arange(-40, 40) + 0.5, [3e9, -3e9, 1e20, -np.inf]]
    )
    for i, (z, lo, hi, fits) in enumerate(CODES):
        kind = np.uint8 if hi == 255 else np.int8
        for block in np.resize(v, (-(-v.size // width), width)).astype(np.float32):
            out = np.zeros(width, np.int32)
            if fits:
                most = (2.0**29, 2.0**22, 32_766.0 - abs(z))[fits - 1]
                block = np.clip(block, -most, most)
            call(c, f"code{i}", out, block)
            least, most = np.iinfo(kind).min, np.iinfo(kind).max
            want = np.clip(z + np.rint(block.astype(np.float64)), lo, hi)
            np.testing.assert_array_equal(np.clip(out, least, most), want)
    for name, dtype in (("i8", np.int8), ("u8", np.uint8), ("i16", np.int16), ("i32", np.int32)):
        for nv in range(1, 7):
            for n in {1, width - 1, width} - {0}:
                values = rng.integers(-40000, 40000, nv * width).astype(np.int32)
                values[::3] <<= 15
                got = np.full(nv * width, 77, dtype)
                call(c, f"put_{name}_{nv}", got, values, n)
                want = np.full(nv * width, 77, dtype)
                count = (nv - 1) * width + n
                info = np.iinfo(dtype)
                want[:count] = np.clip(values[:count], info.min, info.max)
                np.testing.assert_array_equal(got, want, err_msg=f"{name} {nv} {n}")
        for pixels in (1, 2, 3, 4, 5, 6, 8, 9):
            ld = width + int(rng.integers(0, 70))
            values = rng.integers(-40000, 40000, (pixels, width)).astype(np.int32)
            values.reshape(-1)[::3] <<= 15
            got, want = (np.full((pixels, ld), 77, dtype) for _ in range(2))
            call(c, f"apart_{name}_{pixels}", got, values, ld)
            info = np.iinfo(dtype)
            want[:, :width] = np.clip(values, info.min, info.max)
            np.testing.assert_array_equal(got, want, err_msg=f"{name} {pixels} {ld}")


@pytest.mark.parametrize("isa", LEVELS)
def test_bytes(isa: str, tmp_path: Path) -> None:
    c = build(C, isa, tmp_path)
    found = np.zeros(2, np.int32)
    call(c, "lanes", found)
    lanes, unsigned = (int(v) for v in found)
    rng = np.random.default_rng(3)
    a, b = (rng.integers(0, 256, 256, dtype=np.uint8) for _ in range(2))
    # an engine may add two products of signed bytes in 16 bits
    a[:8], b[:8] = 128, 129 if isa == "wasm_sdot" else 128
    acc = rng.integers(-(1 << 31), 1 << 31, lanes).astype(np.int32)
    sums = np.zeros(lanes, np.int32)
    first = a if unsigned else a.view(np.int8)
    for name, second in (("dot", b), ("tame", np.where(b == 128, np.uint8(129), b))):
        call(c, name, sums, a, second, acc)
        products = first[: 4 * lanes].astype(np.int64) * second.view(np.int8)[: 4 * lanes]
        want = acc + products.reshape(lanes, 4).sum(1)
        np.testing.assert_array_equal(sums, want.astype(np.uint64).astype(np.uint32).view(np.int32))
    out = np.zeros(4 * lanes, np.uint8)
    call(c, "flip", out, a)
    np.testing.assert_array_equal(out, a[: 4 * lanes] ^ 128)
    call(c, "quad", out, a[5:])
    np.testing.assert_array_equal(out, np.tile(a[5:9], lanes))
    call(c, "turned", out, a[5:])
    np.testing.assert_array_equal(out, np.tile(a[5:9] ^ 128, lanes))
    for n in {1, lanes - 1, lanes} - {0}:
        call(c, "zip", out, a, n)
        columns = a.reshape(4, 64)[:, :n].T
        np.testing.assert_array_equal(out.reshape(lanes, 4)[:n], columns)
        assert not out.reshape(lanes, 4)[n:].any()
    x, w = a.view(np.int8), b.view(np.int8)
    halves = np.zeros(2 * lanes, np.int16)
    call(c, "pairs", halves, a)
    np.testing.assert_array_equal(halves, x[: 2 * lanes])
    left, right = a.view(np.int16)[: 2 * lanes], b.view(np.int16)[: 2 * lanes]
    call(c, "add2", halves, a, b)
    np.testing.assert_array_equal(halves, left + right)
    call(c, "sub2", halves, a, b)
    np.testing.assert_array_equal(halves, left - right)
    for n in {1, lanes - 1, lanes} - {0}:
        call(c, "zip2", halves, a, n)
        rows = x.reshape(4, 64)[:2, :n]
        np.testing.assert_array_equal(halves.reshape(lanes, 2)[:n], rows.T)
        assert not halves.reshape(lanes, 2)[n:].any()
    call(c, "dot2", sums, a, b, acc)
    products = x[: 2 * lanes].astype(np.int64) * w[: 2 * lanes]
    want = acc + products.reshape(lanes, 2).sum(1)
    np.testing.assert_array_equal(sums, want.astype(np.uint64).astype(np.uint32).view(np.int32))
    codes = rng.permutation(256).astype(np.uint8)
    for n, offset in ((0, 0), (63, 128), (64, 0), (97, 128), (255, 0), (256, 128), (256, 0)):
        y = np.zeros(257, np.uint8)
        call(c, "lookup", y, b, codes, n, offset)
        np.testing.assert_array_equal(y[:n], b[(codes[:n].astype(int) + offset) & 255])
        assert not y[n:].any()


PAST = """
void past(int32_t *out, const int32_t *in, ptrdiff_t at);
void past(int32_t *out, const int32_t *in, ptrdiff_t at) {
  sp_store_i32(out, sp_load_i32(in + at));
}
"""


@pytest.mark.parametrize("isa", ["neon", "mve"])
def test_emulated_arrays_end_where_access_ends(isa: str, tmp_path: Path) -> None:
    """Else the tests of partial loads would prove nothing."""
    c = build(PAST, isa, tmp_path)
    assert isinstance(c, Emulated)
    out, values = np.zeros(4, np.int32), np.arange(4, dtype=np.int32)
    call(c, "past", out, values, 0)
    np.testing.assert_array_equal(out, values)
    with pytest.raises(AssertionError, match="ended"):
        call(c, "past", out, values, 1)


RUNS = """
void run(int32_t *acc, const uint8_t *a, const int8_t *b, ptrdiff_t kq);
void run(int32_t *acc, const uint8_t *a, const int8_t *b, ptrdiff_t kq) {
  sp_store_i32(acc, sp_dot_run_i32(sp_load_i32(acc), a, b, (int)kq, 0, 0));
  sp_store_i32(acc + SP_LANES, sp_dot_run_i32(sp_load_i32(acc + SP_LANES), a, b, (int)kq, 1, 0));
}
void halves(int32_t *acc, const int16_t *a, const int8_t *b, ptrdiff_t kq);
void halves(int32_t *acc, const int16_t *a, const int8_t *b, ptrdiff_t kq) {
  sp_store_i32(acc, sp_dot_run_i32(sp_load_i32(acc), (const uint8_t *)a, b, (int)kq, 0, 1));
}
#define SHORT(kq)                                                                            \\
  void short##kq(int32_t *acc, const uint8_t *a, const int8_t *b, ptrdiff_t next,            \\
                 ptrdiff_t runs);                                                            \\
  void short##kq(int32_t *acc, const uint8_t *a, const int8_t *b, ptrdiff_t next,            \\
                 ptrdiff_t runs) {                                                           \\
    const sp_i32 v = sp_load_i32(acc), f = sp_load_i32(acc + SP_LANES);                      \\
    sp_store_i32(acc, sp_dot_short_runs_i32(v, a, next, (int)runs, b, kq, 0));               \\
    sp_store_i32(acc + SP_LANES, sp_dot_short_runs_i32(f, a, next, (int)runs, b, kq, 1));    \\
  }
SHORT(1) SHORT(2)
"""


def test_sums_across_a_vector(tmp_path: Path) -> None:
    """Any length of a run, and short runs of any number and distance; read to their end alone."""
    c = build(RUNS, "mve", tmp_path)
    rng = np.random.default_rng(6)

    def check(name: str, bytes_: np.ndarray, rows: np.ndarray, *numbers: int) -> None:
        quads = rows.size // 4
        w = rng.integers(-128, 128, (quads, 4, 4)).astype(np.int8)  # quad, lane, byte
        acc = rng.integers(-(1 << 31), 1 << 31, 8).astype(np.int32)
        want = []
        for x in (rows.view(np.int8), (rows ^ 128).view(np.int8)):
            want.append(np.einsum("qlb,qb->l", w.astype(np.int64), x.reshape(quads, 4)))
        total = acc + np.concatenate(want)
        call(c, name, acc, bytes_, w, *numbers)
        np.testing.assert_array_equal(acc, total.astype(np.uint64).astype(np.uint32).view(np.int32))

    for kq in (1, 2, 3, 4, 5, 8, 11, 15):
        a = rng.integers(0, 256, 4 * kq, dtype=np.uint8)
        check("run", a, a, kq)
        pairs = rng.integers(-(1 << 15), 1 << 15, 2 * kq).astype(np.int16)
        w = rng.integers(-(1 << 15), 1 << 15, (kq, 4, 2)).astype(np.int16)  # pair, lane, half
        acc = rng.integers(-(1 << 31), 1 << 31, 4).astype(np.int32)
        total = acc + np.einsum("qlh,qh->l", w.astype(np.int64), pairs.reshape(kq, 2))
        call(c, "halves", acc, pairs, w.view(np.int8), kq)
        np.testing.assert_array_equal(acc, total.astype(np.uint64).astype(np.uint32).view(np.int32))
    for kq in (1, 2):
        for runs in range(1, 11):
            for apart in (4 * kq, 4 * kq + 5, 64):
                a = rng.integers(0, 256, (runs - 1) * apart + 4 * kq, dtype=np.uint8)
                rows = np.stack([a[i * apart : i * apart + 4 * kq] for i in range(runs)])
                check(f"short{kq}", a, rows, apart, runs)


def test_avx_vnni_row_has_its_own_encoding(tmp_path: Path) -> None:
    """What runs here is the form of AVX-512; the row of CPUs with AVX-VNNI must not need that."""
    source, listing = tmp_path / "dot.c", tmp_path / "dot.s"
    source.write_text(f'#include "isa/avxvnni.h"\n{C}')
    compiler = [sys.executable, "-m", "ziglang", "cc"]
    machine = target("x86_64_v3_vnni").machine
    quiet = "-Wno-unused-command-line-argument"  # zig adds a -c
    flags = [*zig_target(machine), *COMMON, quiet, "-S", str(source), "-o", str(listing)]
    subprocess.run([*compiler, *flags], check=True)
    text = listing.read_text()
    assert "{vex}" in text and "vpdpbusd" in text
    assert "zmm" not in text and "%k" not in text and "{%" not in text


TWOS = """
void twos(int16_t *out, const int8_t *a, const uint8_t *x);
void twos(int16_t *out, const int8_t *a, const uint8_t *x) {
  sp_storeq_i32(out, sp_maddubs_i32(sp_loadq_i32(a), sp_loadq_i32(x)));
}
"""


@pytest.mark.parametrize("isa", ["wasm_maddubs", "avx2"])
def test_products_of_signed_and_unsigned_bytes_by_twos(isa: str, tmp_path: Path) -> None:
    if isa == "wasm_maddubs":
        engine(isa)
    library = build(TWOS, isa, tmp_path)
    rng, n = np.random.default_rng(0), 16 if isa == "avx2" else 8
    for _ in range(64):
        a, x = rng.integers(-128, 128, (n, 2)), rng.choice([0, 1, 127, 128, 254, 255], (n, 2))
        # where they fit, whatever the bytes are
        fits = (np.maximum(a, 0).sum(1) <= 128) & (np.maximum(-a, 0).sum(1) <= 128)
        out = np.empty(n, np.int16)
        call(library, "twos", out, a.astype(np.int8).ravel(), x.astype(np.uint8).ravel())
        np.testing.assert_array_equal(out[fits], (a * x).sum(1)[fits])
