"""Every function of the vector vocabulary against its meaning in NumPy, per instruction set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import native_harness as harness

Array = NDArray[Any]

LIMIT32 = 1 << 31


def _wrap(f: Callable[..., Any]) -> Callable[..., Array]:
    def wrapped(*args: Array) -> Array:
        wide = f(*(a.astype(np.int64) for a in args))
        return np.asarray(wide & 0xFFFFFFFF).astype(np.uint32).view(np.int32)

    return wrapped


def _maxq(a: Array, b: Array) -> Array:
    return np.where(a > b, a, b)


def _minq(a: Array, b: Array) -> Array:
    return np.where(a < b, a, b)


# name, expression, arguments, meaning. Bits are compared, but any NaN equals any NaN.
F32: tuple[tuple[str, str, int, Callable[..., Any]], ...] = (
    ("add", "sp_add_f32(a, b)", 2, np.add),
    ("sub", "sp_sub_f32(a, b)", 2, np.subtract),
    ("mul", "sp_mul_f32(a, b)", 2, np.multiply),
    ("div", "sp_div_f32(a, b)", 2, np.divide),
    ("maxq", "sp_maxq_f32(a, b)", 2, _maxq),
    ("minq", "sp_minq_f32(a, b)", 2, _minq),
    ("sqrt", "sp_sqrt_f32(a)", 1, np.sqrt),
    ("neg", "sp_neg_f32(a)", 1, np.negative),
    ("abs", "sp_abs_f32(a)", 1, np.abs),
    ("copysign", "sp_copysign_f32(a, b)", 2, np.copysign),
    ("round", "sp_round_f32(a)", 1, np.rint),
    ("floor", "sp_floor_f32(a)", 1, np.floor),
    ("ceil", "sp_ceil_f32(a)", 1, np.ceil),
    ("trunc", "sp_trunc_f32(a)", 1, np.trunc),
    ("set1", "sp_set1_f32(1.5f)", 1, lambda a: np.full_like(a, 1.5)),
    ("zero", "sp_zero_f32()", 1, np.zeros_like),
    ("select", "sp_select_f32(sp_lt_f32(a, b), a, b)", 2, lambda a, b: np.where(a < b, a, b)),
)
COMPARE = (
    ("lt", "sp_lt_f32(a, b)", np.less),
    ("le", "sp_le_f32(a, b)", np.less_equal),
    ("gt", "sp_gt_f32(a, b)", np.greater),
    ("ge", "sp_ge_f32(a, b)", np.greater_equal),
    ("eq", "sp_eq_f32(a, b)", np.equal),
    ("ne", "sp_ne_f32(a, b)", np.not_equal),
    ("isnan", "sp_isnan_f32(a)", lambda a, b: np.isnan(a)),
    ("and", "sp_mask_and(sp_lt_f32(a, b), sp_gt_f32(a, sp_zero_f32()))",
     lambda a, b: (a < b) & (a > 0)),
    ("or", "sp_mask_or(sp_lt_f32(a, b), sp_gt_f32(a, sp_zero_f32()))",
     lambda a, b: (a < b) | (a > 0)),
    ("xor", "sp_mask_xor(sp_lt_f32(a, b), sp_gt_f32(a, sp_zero_f32()))",
     lambda a, b: (a < b) ^ (a > 0)),
    ("not", "sp_mask_not(sp_lt_f32(a, b))", lambda a, b: ~(a < b)),
)  # fmt: skip
I32: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("add", "sp_add_i32(a, b)", _wrap(np.add)),
    ("sub", "sp_sub_i32(a, b)", _wrap(np.subtract)),
    ("mul", "sp_mul_i32(a, b)", _wrap(np.multiply)),
    ("and", "sp_and_i32(a, b)", np.bitwise_and),
    ("or", "sp_or_i32(a, b)", np.bitwise_or),
    ("xor", "sp_xor_i32(a, b)", np.bitwise_xor),
    ("max", "sp_max_i32(a, b)", np.maximum),
    ("min", "sp_min_i32(a, b)", np.minimum),
    ("set1", "sp_set1_i32(-7)", lambda a, b: np.full_like(a, -7)),
    ("mulh31", "sp_mulh31_i32(a, b)", _wrap(lambda a, b: (a * b + (1 << 30)) >> 31)),
    ("mulh15", "sp_mulh15_i32(sp_shru_i32(a, 17), sp_shru_i32(b, 17))",
     _wrap(lambda a, b: ((a >> 17 & 32767) * (b >> 17 & 32767) + (1 << 14)) >> 15)),
    ("rshr", "sp_rshr_i32(sp_shr_i32(a, 1), sp_and_i32(b, sp_set1_i32(31)))",
     _wrap(lambda a, b: ((a >> 1) + ((1 << (b & 31)) >> 1)) >> (b & 31))),
    *(
        (f"rshr_n{n}", f"sp_rshr_n_i32(sp_shr_i32(a, 1), {n})",
         _wrap(lambda a, b, n=n: ((a >> 1) + (1 << n >> 1)) >> n))
        for n in (1, 7, 30)
    ),
    *(
        row
        for n in (0, 1, 7, 16, 31)
        for row in (
            (f"shl{n}", f"sp_shl_i32(a, {n})", _wrap(lambda a, b, n=n: a << n)),
            (f"shr{n}", f"sp_shr_i32(a, {n})", lambda a, b, n=n: a >> n),
            (f"shru{n}", f"sp_shru_i32(a, {n})",
             lambda a, b, n=n: (a.view(np.uint32) >> np.uint32(n)).view(np.int32)),
        )
    ),
    *(
        (name, f"sp_select_i32(sp_{name}_i32(a, b), a, sp_set1_i32(5))",
         lambda a, b, f=f: np.where(f(a, b), a, 5).astype(np.int32))
        for name, f in (("lt", np.less), ("gt", np.greater), ("eq", np.equal))
    ),
)  # fmt: skip

PLACES = (1, 5, 12, 16, 23, 31)  # behind a binary point

MEMORY = {"f32": "float", "i32": "int32_t", "f16": "uint16_t", "bf16": "uint16_t",
          "i8": "int8_t", "u8": "uint8_t", "i16": "int16_t"}  # fmt: skip
DTYPES: dict[str, Any] = {
    "float": np.float32,
    "int32_t": np.int32,
    "uint16_t": np.uint16,
    "int16_t": np.int16,
    "int8_t": np.int8,
    "uint8_t": np.uint8,
}


def lanes_of(kind: str) -> str:
    """Vector type that memory of this kind loads to."""
    return "f32" if kind in ("f32", "f16", "bf16") else "i32"


def source() -> str:
    text = ['#include "kernels/rounding.h"\n']
    text.append("int lanes(void);\nint lanes(void) { return SP_LANES; }\n")
    for name, expression, arity, _ in F32:
        text.append(harness.loop(f"f_{name}", expression, ("f32",) * arity, "f32"))
    for name in ("max", "min"):
        text.append(harness.loop(f"f_{name}", f"sp_{name}_f32(a, b)", ("f32",) * 2, "f32"))
    for name, expression, _ in COMPARE:
        as_int = f"sp_select_i32({expression}, sp_set1_i32(1), sp_set1_i32(0))"
        inputs = ("f32",) * (1 if name == "isnan" else 2)
        text.append(harness.loop(f"c_{name}", as_int, inputs, "i32"))
    for name, expression, _ in I32:
        text.append(harness.loop(f"i_{name}", expression, ("i32", "i32"), "i32"))
    text.append(harness.loop("f_fma", "sp_fma_f32(a, b, c)", ("f32",) * 3, "f32"))
    text.append(harness.loop("f_fnma", "sp_fnma_f32(a, b, c)", ("f32",) * 3, "f32"))
    text.append(harness.loop("to_f32", "sp_cvt_i32_f32(a)", ("i32",), "f32"))
    for places in PLACES:
        whole = f"sp_mul_f32(sp_cvt_i32_f32(a), sp_set1_f32(0x1p-{places}f))"
        text.append(harness.loop(f"to_f32_{places}", whole, ("i32",), "f32"))
        scaled = f"sp_trunc_f32_i32(sp_mul_f32(a, sp_set1_f32(0x1p+{places}f)))"
        text.append(harness.loop(f"to_i32_{places}", scaled, ("f32",), "i32"))
    text.append(harness.loop("rne", "sp_rne_f32_i32(a)", ("f32",), "i32"))
    text.append(harness.loop("rne_near", "sp_rne_near_f32_i32(a)", ("f32",), "i32"))
    text.append(harness.loop("steps", "sp_steps_f32_i32(a, -119, 136)", ("f32",), "i32"))
    text.append(harness.loop("far_steps", "sp_steps_f32_i32(a, -9000000, 7)", ("f32",), "i32"))
    text.append(harness.loop("to_i32", "sp_trunc_f32_i32(a)", ("f32",), "i32"))
    text.append(harness.loop("bits", "sp_bits_f32(a)", ("f32",), "i32"))
    text.append(harness.loop("from_bits", "sp_from_bits_f32(a)", ("i32",), "f32"))
    for kind, ctype in MEMORY.items():
        vector = lanes_of(kind)
        for n, how in (("", ""), ("n", ", n")):
            # one vector: loads n elements of memory, and stores them back elsewhere
            wide = MEMORY[vector]
            head = f"void load{n}_{kind}({wide} *out, const {ctype} *in, ptrdiff_t count)"
            body = f"sp_store_{vector}(out, sp_load{n}_{kind}(in{how}));"
            text.append(
                f"{head};\n{head} {{\n  const int n = (int)count;\n  (void)n;\n  {body}\n}}"
            )
            head = f"void store{n}_{kind}({ctype} *out, const {wide} *in, ptrdiff_t count)"
            body = f"sp_store{n}_{kind}(out, sp_load_{vector}(in){how});"
            text.append(
                f"{head};\n{head} {{\n  const int n = (int)count;\n  (void)n;\n  {body}\n}}"
            )
        # many vectors in one call, which an emulator makes dear
        for name, to, source, body in (
            ("loads", wide, ctype, f"sp_store_{vector}(out + i, sp_load_{kind}(in + i))"),
            ("stores", ctype, wide, f"sp_store_{kind}(out + i, sp_load_{vector}(in + i))"),
        ):
            head = f"void {name}_{kind}({to} *out, const {source} *in, ptrdiff_t count)"
            text.append(
                f"{head};\n{head} {{\n  ptrdiff_t i;\n"
                f"  for (i = 0; i < count; i += SP_LANES) {body};\n}}"
            )
    for name, vector, ctype in (
        ("sum_f32", "f32", "float"), ("hmax_f32", "f32", "float"), ("hmin_f32", "f32", "float"),
        ("sum_i32", "i32", "int32_t"),
    ):  # fmt: skip
        head = f"void {name}({ctype} *out, const {ctype} *in)"
        text.append(f"{head};\n{head} {{ *out = sp_{name}(sp_load_{vector}(in)); }}")
    text.append(
        "void misc(int32_t *out, const float *in);\n"
        "void misc(int32_t *out, const float *in) {\n"
        "  const sp_f32 v = sp_load_f32(in);\n"
        "  sp_prefetch(in);\n"
        "  sp_prefetch_l2(in);\n"
        "  sp_store_i32(out, sp_iota_i32());\n"
        "  out[SP_LANES] = sp_mask_any(sp_gt_f32(v, sp_zero_f32()));\n"
        "  out[SP_LANES + 1] = (int32_t)sizeof SP_ISA_NAME;\n}\n"
        "void gather(int32_t *out, const int32_t *table, const int32_t *at);\n"
        "void gather(int32_t *out, const int32_t *table, const int32_t *at) {\n"
        "  sp_i32 next;\n"
        "  sp_store_i32(out, sp_gather_pair_i32(table, sp_load_i32(at), &next));\n"
        "  sp_store_i32(out + SP_LANES, next);\n}\n"
        "void transpose(float *m);\n"
        "void transpose(float *m) {\n"
        "  sp_f32 v[SP_LANES];\n"
        "  int i;\n"
        "  for (i = 0; i < SP_LANES; ++i) v[i] = sp_load_f32(m + i * SP_LANES);\n"
        "  sp_transpose_f32(v);\n"
        "  for (i = 0; i < SP_LANES; ++i) sp_store_f32(m + i * SP_LANES, v[i]);\n}\n"
    )
    return "\n".join(text)


@pytest.fixture(scope="module", params=harness.BUILDS)
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> harness.Library:
    isa, _, compiler = str(request.param).partition(" ")
    folder: Path = tmp_path_factory.mktemp("isa")
    return harness.build(source(), isa, folder, compiler or "zig")


def floats() -> tuple[Array, Array]:
    """Pairs of every special value, ties, and random bit patterns; an odd number of them."""
    tiny = [1e-45, 1.1754942e-38, 1.17549435e-38, 2.0**-24, 2.0**-14, 6.1e-5, 65504, 65520]
    ties = [0.5, 1.5, 2.5, 3.5, 0.49999997, 8388607.5, 8388608.0, 4194303.5, 4194304.5, 2147483648]
    plain = np.array([0, 1, 3, np.inf, np.nan, 3.4028235e38, *tiny, *ties], np.float32)
    special = np.concatenate([plain, -plain])
    a, b = (x.ravel() for x in np.meshgrid(special, special))
    random = harness.every_exponent(np.float32, 20002)
    return np.append(a, random[:10001]), np.append(b, random[10001:])


def integers() -> tuple[Array, Array]:
    special = np.array([0, 1, -1, 2, 255, -128, LIMIT32 - 1, -LIMIT32, 65536, 46341], np.int32)
    a, b = (x.ravel() for x in np.meshgrid(special, special))
    rng = np.random.default_rng(21)
    random = rng.integers(-LIMIT32, LIMIT32, (2, 3001)).astype(np.int32)
    return np.append(a, random[0]), np.append(b, random[1])


def apply(library: harness.Library, name: str, dtype: Any, *args: Array) -> Array:
    out = np.full(args[0].size, 77, dtype)
    harness.call(library, name, out, *args, out.size)
    return out


def assert_same_bits(got: Array, want: Array, name: str) -> None:
    bits = {4: np.uint32, 2: np.uint16}[got.itemsize]
    same = got.view(bits) == want.view(bits)
    if got.dtype.kind == "f":
        same |= np.isnan(got) & np.isnan(want)
    at = int(np.argmin(same))
    assert same.all(), f"{name}: element {at}: {got[at]!r}, expected {want[at]!r}"


def test_float_functions(library: harness.Library) -> None:
    a, b = floats()
    for name, _, arity, meaning in F32:
        args = (a, b)[:arity]
        with np.errstate(all="ignore"):
            want = meaning(*args)
        got = apply(library, f"f_{name}", np.float32, *args)
        if harness.call(library, "flushes"):
            with np.errstate(all="ignore"):
                zeros = harness.flushed(meaning(*map(harness.flushed, args)))
            alike = (harness.flushed(got) == zeros) | (np.isnan(got) & np.isnan(zeros))
            want = np.where(alike, got, want)
        assert_same_bits(got, want, name)


def test_maximum_propagates_nan(library: harness.Library) -> None:
    a, b = floats()
    for name, meaning in (("max", np.maximum), ("min", np.minimum)):
        got = apply(library, f"f_{name}", np.float32, a, b)
        want = meaning(a, b)
        if harness.call(library, "flushes"):
            got, want = harness.flushed(got), harness.flushed(want)
        np.testing.assert_array_equal(got, want)


def test_fma_rounds_once_or_twice(library: harness.Library) -> None:
    rng = np.random.default_rng(22)
    a, b, c = rng.standard_normal((3, 4001)).astype(np.float32)
    for name, sign in (("fma", 1), ("fnma", -1)):
        got = apply(library, f"f_{name}", np.float32, a, b, c)
        product = sign * a.astype(np.float64) * b
        once = (product + c).astype(np.float32)
        twice = product.astype(np.float32) + c
        assert np.all((got == once) | (got == twice)), name


def test_comparisons(library: harness.Library) -> None:
    a, b = floats()
    for name, _, meaning in COMPARE:
        args = (a,) if name == "isnan" else (a, b)
        got = apply(library, f"c_{name}", np.int32, *args)
        want = meaning(a, b).astype(np.int32)
        if harness.call(library, "flushes"):
            # gcc compares in the unit that keeps subnormal floats
            flushed = meaning(harness.flushed(a), harness.flushed(b)).astype(np.int32)
            want = np.where(got == flushed, flushed, want)
        np.testing.assert_array_equal(got, want, err_msg=name)


def test_integer_functions(library: harness.Library) -> None:
    a, b = integers()
    both_least = (a == -LIMIT32) & (b == -LIMIT32)
    for name, _, meaning in I32:
        # the one product of halves that does not fit is left open
        x, y = (a[~both_least], b[~both_least]) if name == "mulh31" else (a, b)
        got = apply(library, f"i_{name}", np.int32, x, y)
        np.testing.assert_array_equal(got, meaning(x, y), err_msg=name)


def test_conversions(library: harness.Library) -> None:
    i, _ = integers()
    np.testing.assert_array_equal(apply(library, "to_f32", np.float32, i), i.astype(np.float32))
    f, _ = floats()
    np.testing.assert_array_equal(apply(library, "bits", np.int32, f), f.view(np.int32))
    assert_same_bits(apply(library, "from_bits", np.float32, i), i.view(np.float32), "from_bits")
    inside = f[np.abs(f) < LIMIT32]
    inside = np.append(inside, np.float32(-LIMIT32))
    got = apply(library, "rne", np.int32, inside)
    np.testing.assert_array_equal(got, np.rint(inside.astype(np.float64)).astype(np.int32))
    edges = np.array([-(1 << 22), 1 << 22, 2.5, -0.5], np.float32)
    near = np.append(inside[np.abs(inside) <= 1 << 22], edges)
    got = apply(library, "rne_near", np.int32, near)
    np.testing.assert_array_equal(got, np.rint(near.astype(np.float64)).astype(np.int32))
    number = f[~np.isnan(f)]
    for name, least, most in (("steps", -119, 136), ("far_steps", -9000000, 7)):
        want = np.clip(np.rint(number.astype(np.float64)), least, most).astype(np.int32)
        np.testing.assert_array_equal(apply(library, name, np.int32, number), want, err_msg=name)
    got = apply(library, "to_i32", np.int32, inside)
    np.testing.assert_array_equal(got, np.trunc(inside.astype(np.float64)).astype(np.int32))


def test_conversions_beside_powers_of_two(library: harness.Library) -> None:
    """Some units convert numbers with a binary point by an instruction that compilers look for."""
    i, _ = integers()
    f, _ = floats()
    for places in PLACES:
        got = apply(library, f"to_f32_{places}", np.float32, i)
        assert_same_bits(got, i.astype(np.float32) * np.float32(2.0**-places), f"{places} down")
        with np.errstate(all="ignore"):
            x = f[np.abs(f * np.float32(2.0**places)) < LIMIT32]
        got = apply(library, f"to_i32_{places}", np.int32, x)
        want = np.trunc(x.astype(np.float64) * 2.0**places).astype(np.int32)
        np.testing.assert_array_equal(got, want, err_msg=f"{places} up")


def memory_values(kind: str, lanes: int) -> Array:
    dtype = DTYPES[MEMORY[kind]]
    rng = np.random.default_rng(23)
    if dtype is np.float32:
        return rng.standard_normal(lanes).astype(np.float32)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, lanes, dtype, endpoint=True)


def widened(kind: str, values: Array) -> Array:
    if kind == "f16":
        return values.view(np.float16).astype(np.float32)
    if kind == "bf16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values if kind in ("f32", "i32") else values.astype(np.int32)


def narrowed(kind: str, values: Array) -> Array:
    """What a store leaves in memory."""
    if kind == "f16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).view(np.uint16)
    if kind == "bf16":
        bits = values.view(np.uint32)
        up = bits + 0x7FFF + ((bits >> 16) & 1)
        return (np.where(np.isnan(values), bits | 0x400000, up) >> 16).astype(np.uint16)
    dtype = DTYPES[MEMORY[kind]]
    if dtype in (np.int8, np.uint8, np.int16):
        return np.clip(values, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
    return values


@pytest.mark.parametrize("kind", MEMORY)
def test_partial_access_touches_nothing_else(library: harness.Library, kind: str) -> None:
    """A load or store of n elements ends at a page without access: one more would be a crash."""
    lanes = harness.call(library, "lanes")
    values = memory_values(kind, lanes)
    dtype = DTYPES[MEMORY[lanes_of(kind)]]
    for n in range(lanes + 1):
        out = np.full(lanes, 99, dtype)
        harness.call(library, f"loadn_{kind}", out, harness.before_guard(values[:n]), n)
        want = np.zeros(lanes, dtype)
        want[:n] = widened(kind, values[:n])
        assert_same_bits(out, want, f"loadn {n}")
        page = harness.before_guard(np.full(n + 8, 0x55, values.dtype))
        before, inside = page[:8].copy(), page[8:]
        harness.call(library, f"storen_{kind}", inside, widened(kind, values), n)
        np.testing.assert_array_equal(inside, narrowed(kind, widened(kind, values))[:n])
        np.testing.assert_array_equal(page[:8], before)
    out = np.full(lanes, 99, dtype)
    harness.call(library, f"load_{kind}", out, harness.before_guard(values), lanes)
    assert_same_bits(out, widened(kind, values), "load")
    inside = harness.before_guard(values[::-1].copy())
    harness.call(library, f"store_{kind}", inside, widened(kind, values), lanes)
    np.testing.assert_array_equal(inside, narrowed(kind, widened(kind, values)))


def test_every_half_value(library: harness.Library) -> None:
    for kind in ("f16", "bf16"):
        values = np.arange(1 << 16, dtype=np.uint16)
        got = np.zeros(values.size, np.float32)
        harness.call(library, f"loads_{kind}", got, values, values.size)
        assert_same_bits(got, widened(kind, values), kind)


def test_stores_to_half_round_to_even(library: harness.Library) -> None:
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (halves[:-1] + halves[1:]) / 2
    near = np.concatenate([ties, np.nextafter(ties, 0), np.nextafter(ties, np.float32(np.inf))])
    values = np.concatenate([near, -near[::7], floats()[0], harness.every_exponent(np.float32, 5)])
    values = values[: values.size // 16 * 16]
    for kind in ("f16", "bf16"):
        got = np.zeros(values.size, np.uint16)
        harness.call(library, f"stores_{kind}", got, values, values.size)
        want = narrowed(kind, values)
        number = ~np.isnan(values)
        np.testing.assert_array_equal(got[number], want[number], err_msg=kind)
        assert np.isnan(widened(kind, got[~number])).all(), kind


def test_saturating_stores(library: harness.Library) -> None:
    edge = [0, 1, -1, 127, 128, -128, -129, 255, 256, 32767, 32768, -32769, LIMIT32 - 1, -LIMIT32]
    values = np.array([*edge, 70000, -70000], np.int32)
    for kind in ("i8", "u8", "i16"):
        got = np.zeros(values.size, DTYPES[MEMORY[kind]])
        harness.call(library, f"stores_{kind}", got, values, values.size)
        np.testing.assert_array_equal(got, narrowed(kind, values), err_msg=kind)


def test_reductions(library: harness.Library) -> None:
    lanes = harness.call(library, "lanes")
    rng = np.random.default_rng(24)
    for _ in range(20):
        f = rng.integers(-1000, 1000, lanes).astype(np.float32)
        i = rng.integers(-LIMIT32, LIMIT32, lanes).astype(np.int32)
        for name, meaning in (("sum_f32", np.sum), ("hmax_f32", np.max), ("hmin_f32", np.min)):
            out = np.zeros(1, np.float32)
            harness.call(library, name, out, f)
            assert out[0] == meaning(f), name
        total = np.zeros(1, np.int32)
        harness.call(library, "sum_i32", total, i)
        assert total[0] == _wrap(np.sum)(i)
    for at in range(lanes):
        f = np.zeros(lanes, np.float32)
        f[at] = np.nan
        for name in ("hmax_f32", "hmin_f32"):
            out = np.zeros(1, np.float32)
            harness.call(library, name, out, f)
            assert np.isnan(out[0]), (name, at)


def test_gather(library: harness.Library) -> None:
    rng = np.random.default_rng(4)
    table = rng.integers(-(1 << 31), 1 << 31, 1000).astype(np.int32)
    lanes = harness.call(library, "lanes")
    at, out = rng.integers(0, 999, lanes).astype(np.int32), np.zeros(2 * lanes, np.int32)
    harness.call(library, "gather", out, table, at)
    np.testing.assert_array_equal(out, table[[*at, *(at + 1)]])


def test_lane_order(library: harness.Library) -> None:
    lanes = harness.call(library, "lanes")
    for at in range(lanes + 1):
        values = np.full(lanes + 1, -1, np.float32)
        values[at] = 1
        out = np.zeros(lanes + 2, np.int32)
        harness.call(library, "misc", out, values)
        np.testing.assert_array_equal(out[:lanes], np.arange(lanes))
        assert out[lanes] == (at < lanes)
    square = np.arange(lanes * lanes, dtype=np.float32).reshape(lanes, lanes)
    turned = square.copy()
    harness.call(library, "transpose", turned)
    np.testing.assert_array_equal(turned, square.T)
