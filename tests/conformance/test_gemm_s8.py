"""`sparrow.gemm_s8`: exact on every instruction set, at every size, packed or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import sparrow
from native_harness import BUILDS, ISAS, build, call
from sparrow import gemm
from sparrow.device.cpu import host_isas
from sparrow.device.here import host_machine
from sparrow.errors import BadInput

# sizes and vectors of chgemm's contract: symmetric codes, tails of 8, 4, 2 and 1
SIZES = (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 64, 65)


def codes(rng: np.random.Generator, *shape: int) -> NDArray[np.int8]:
    return rng.integers(-127, 128, shape).astype(np.int8)


def product(a: NDArray[np.int8], b: NDArray[np.int8]) -> NDArray[np.int64]:
    return a.astype(np.int64) @ b.astype(np.int64)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name not in host_isas():
        pytest.skip(f"this machine has {host_isas()[0]}")
    host_machine(name)
    monkeypatch.setattr(gemm, "_here", lambda: name)
    return name


def test_every_size_and_tail(isa: str) -> None:
    rng = np.random.default_rng(0)
    for m in SIZES:
        for n in SIZES:
            for k in SIZES:
                a, b = codes(rng, m, k), codes(rng, k, n)
                want = product(a, b)
                got = sparrow.gemm_s8(a, b)
                assert got.dtype == np.int32
                np.testing.assert_array_equal(got, want, err_msg=f"{m} {n} {k}")
                packed = sparrow.gemm_s8(sparrow.pack_a_s8(a), sparrow.pack_b_s8(b))
                np.testing.assert_array_equal(packed, want, err_msg=f"{m} {n} {k} packed")


def test_extreme_sums(isa: str) -> None:
    ones = np.full((5, 1024), 127, np.int8)
    assert (sparrow.gemm_s8(ones, -ones.T.copy()) == -16_516_096).all()
    for k in (gemm.K_MAX - 1, gemm.K_MAX):
        a = np.full((3, k), 127, np.int8)
        assert (sparrow.gemm_s8(a, -a.T) == -127 * 127 * k).all()
        assert (sparrow.gemm_s8(a, a.T) == 127 * 127 * k).all()


def test_threads_and_views_change_nothing(isa: str) -> None:
    rng = np.random.default_rng(1)
    for m, n, k in ((300, 65, 100), (1, 4100, 128), (2, 1, 131072), (129, 48, 512), (33, 260, 68)):
        wide, tall = codes(rng, m, 2 * k), codes(rng, n, k)
        a, b = wide[:, k:], tall.T
        want = product(a, b)
        for threads in (1, 2, 3):
            np.testing.assert_array_equal(sparrow.gemm_s8(a, b, threads=threads), want)


def test_a_bound_product_multiplies_what_its_operand_holds(isa: str) -> None:
    rng = np.random.default_rng(2)
    for threads, (m, n, k) in ((1, (5, 17, 9)), (2, (300, 65, 100))):
        a, b, out = codes(rng, m, k), codes(rng, k, n), np.zeros((m, n), np.int32)
        bound = sparrow.GemmS8(a, b, threads=threads, out=out)
        for _ in range(2):
            a[:] = codes(rng, m, k)
            assert bound() is out
            np.testing.assert_array_equal(out, product(a, b))


def test_the_lowest_code_of_a_is_a_code(isa: str) -> None:
    """Unless products of it leave int32: then it is refused, wherever it is."""
    rng = np.random.default_rng(4)
    for m, n, k in ((37, 5, 36), (70, 40, 9), (2, 3, gemm.K_FULL)):
        a, b = codes(rng, m, k), codes(rng, k, n)
        a[:, rng.random(k) < 0.3] = -128
        np.testing.assert_array_equal(sparrow.gemm_s8(a, b), product(a, b))
        np.testing.assert_array_equal(sparrow.gemm_s8(sparrow.pack_a_s8(a), b), product(a, b))
    most = np.full((2, gemm.K_FULL), -128, np.int8)
    ones = np.full((gemm.K_FULL, 1), 127, np.int8)
    for b in (ones, -ones):
        np.testing.assert_array_equal(sparrow.gemm_s8(most, b), product(most, b))
    k = gemm.K_FULL + 1
    a, b, out = codes(rng, 3, k), codes(rng, k, 2), np.full((3, 2), 7, np.int32)
    bound = sparrow.GemmS8(a, b, out=out)
    for i, j in ((0, 0), (1, k // 2), (2, k - 1)):
        kept, a[i, j] = a[i, j], -128
        for call_of_it in (bound, lambda: sparrow.pack_a_s8(a)):
            with pytest.raises(BadInput, match="a holds -128"):
                call_of_it()
        a[i, j] = kept
    assert (out == 7).all()
    np.testing.assert_array_equal(bound(), product(a, b))


def test_a_bound_product_reads_rows_where_they_lie() -> None:
    with pytest.raises(BadInput, match="elements of a row of a are not adjacent"):
        sparrow.GemmS8(np.ones((4, 8), np.int8)[:, ::2], EYE)


def test_nothing_to_multiply_is_zero() -> None:
    for m, n, k in ((0, 3, 4), (3, 0, 4), (3, 4, 0)):
        got = sparrow.gemm_s8(np.zeros((m, k), np.int8), np.zeros((k, n), np.int8))
        np.testing.assert_array_equal(got, np.zeros((m, n), np.int32))


_PRODUCT = """
#define SP_GEMM_MR 5
#define SP_GEMM_NV 2
#define SP_GEMM_TALL 6
#include "runtime/gemm_s8.h"
void product(const uint8_t *a, const int8_t *b, int32_t *c, int32_t *work, ptrdiff_t m, ptrdiff_t n,
             ptrdiff_t k);
void product(const uint8_t *a, const int8_t *b, int32_t *c, int32_t *work, ptrdiff_t m, ptrdiff_t n,
             ptrdiff_t k) {
  int8_t *packed = (int8_t *)(work + 128);
  const ptrdiff_t row = (k + 3) / 4 * 4;
  uint8_t *scratch = (uint8_t *)(packed + 128 * row);
  sparrow_gemm_s8 g = {m, n, k, k, 1, row, m, n, 7, 1, 0, 1,
                       a, packed, work, c, scratch, NULL, NULL};
  sparrow_gemm_s8_pack_b(b, n, k, n, packed, work);
  sparrow_gemm_s8_run(&g);
}
"""


@pytest.mark.parametrize("how", BUILDS)
def test_every_header_and_compiler(how: str, tmp_path: Path) -> None:
    name, _, compiler = how.partition(" ")
    library = build(_PRODUCT, name, tmp_path, compiler or "zig")
    rng = np.random.default_rng(2)
    for m, n, k in ((1, 1, 1), (13, 37, 10), (6, 64, 33), (20, 3, 4)):
        a, b, c = codes(rng, m, k), codes(rng, k, n), np.zeros((m, n), np.int32)
        # 128 sums, then 128 columns and 7 rows of whole quads
        work = np.zeros(128 + (128 + 7) * -(-k // 4), np.int32)
        call(library, "product", a, b, c, work, m, n, k)
        np.testing.assert_array_equal(c, product(a, b))


EYE = np.eye(4, dtype=np.int8)
BAD = {
    "a is float32 of shape (4, 4), expected an int8 matrix": (EYE.astype(np.float32), EYE),
    "b is int8 of shape (16,), expected an int8 matrix": (EYE, EYE.ravel()),
    "b is list": (EYE, [[1]]),
    "b holds -128": (EYE, EYE * np.int8(-128)),
    "a has 4 columns, b has 5 rows": (EYE, np.ones((5, 2), np.int8)),
    "133,145 products may leave int32": (np.ones((1, 133145), np.int8), EYE),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_multiplied(message: str) -> None:
    a, b = BAD[message]
    with pytest.raises(BadInput) as e:
        sparrow.gemm_s8(a, b)  # type: ignore[arg-type]
    assert message in str(e.value)


def test_matrix_registers_that_the_system_refuses() -> None:
    product = sparrow.GemmS8(EYE, EYE)
    product._run = lambda call: 2
    with pytest.raises(BadInput, match="does not let this process use matrix registers"):
        product()


def test_no_threads() -> None:
    with pytest.raises(BadInput, match="threads must be at least 1"):
        sparrow.gemm_s8(EYE, EYE, threads=0)
