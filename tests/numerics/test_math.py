"""Elementary functions within the bounds their headers state, over all exponents.

Float32 vector functions on every instruction set against float64 (or wider where float64 itself
is not clearly better than the bound); float64 scalar functions against 80-bit long double.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

import native_harness as harness

Array = NDArray[Any]


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, e, 1) / (1 + e))


def _erf(x: Array) -> Array:
    return np.asarray(special.erf(x.astype(np.float64)), x.dtype)


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * special.erfc(-x.astype(np.float64) * 0.5**0.5))


def _gelu_tanh(x: Array) -> Array:
    return x * _sigmoid(x * (1.5957691216057308 + 0.07135481627260025 * x * x))


# The vocabularies of one family differ in their products of bytes and halves only; RVV is slow to
# emulate.
FLOAT_BUILDS = [
    pytest.param(b, marks=pytest.mark.slow) if b == "rvv" else b
    for b in harness.BUILDS
    if b not in ("neon_dot", "avx512vnni", "avx512bf16", "amx")
]

# Largest error in ULP; the header states the same numbers.
F32: dict[str, tuple[float, Callable[..., Any]]] = {
    "exp": (1.1, np.exp),
    "expm1": (1.7, np.expm1),
    "log": (0.9, np.log),
    "log2": (2.4, np.log2),
    "log1p": (1.7, np.log1p),
    "sin": (1.6, np.sin),
    "cos": (1.6, np.cos),
    "tan": (3.1, np.tan),
    "asin": (2.2, np.arcsin),
    "acos": (1.2, np.arccos),
    "atan": (2.0, np.arctan),
    "sinh": (1.8, np.sinh),
    "cosh": (1.6, np.cosh),
    "tanh": (3.4, np.tanh),
    "asinh": (2.0, np.arcsinh),
    "acosh": (2.4, np.arccosh),
    "atanh": (2.2, np.arctanh),
    "erf": (1.3, _erf),
    "sigmoid": (2.5, _sigmoid),
    "softplus": (1.9, lambda x: np.logaddexp(x, 0)),
    "softsign": (1.6, lambda x: x / (1 + np.abs(x))),
    "sign": (0.0, np.sign),
}
# Relative only where nothing cancels or underflows: from here on.
F32_FROM: dict[str, tuple[float, float, Callable[..., Any]]] = {
    "silu": (3.3, -85, lambda x: x * _sigmoid(x)),
    "mish": (4.4, -85, lambda x: x * np.tanh(np.logaddexp(x, 0))),
}
# Largest absolute error in |x| 2^-24.
F32_ABSOLUTE: dict[str, tuple[float, Callable[..., Any]]] = {
    "gelu": (4.2, _gelu),
    "gelu_tanh": (3.0, _gelu_tanh),
    "hardswish": (1.7, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
}
F64: dict[str, tuple[float, Callable[..., Any]]] = {
    "exp": (1.1, np.exp),
    "expm1": (1.9, np.expm1),
    "log": (0.9, np.log),
    "log2": (0.6, np.log2),
    "log1p": (0.9, np.log1p),
    "sqrt": (0.51, np.sqrt),
    "sin": (2.6, np.sin),
    "cos": (2.6, np.cos),
    "tan": (3.9, np.tan),
    "asin": (2.1, np.arcsin),
    "acos": (1.2, np.arccos),
    "atan": (1.6, np.arctan),
    "sinh": (2.5, np.sinh),
    "cosh": (1.6, np.cosh),
    "tanh": (2.6, np.tanh),
    "asinh": (1.8, np.arcsinh),
    "acosh": (1.9, np.arccosh),
    "atanh": (1.8, np.arctanh),
    "sigmoid": (2.4, _sigmoid),
    "softplus": (1.8, lambda x: np.logaddexp(x, 0)),
    "round": (0.0, np.rint),
    "floor": (0.0, np.floor),
    "ceil": (0.0, np.ceil),
    "trunc": (0.0, np.trunc),
    "sign": (0.0, np.sign),
}
POW32, POW64 = 1.3, 1.4
LONG = np.longdouble
WIDE_LONG = np.finfo(LONG).nmant >= 63

HEAD = '#include "kernels/math.h"\n#include "kernels/scalar_math.h"\n'


def _scalar_loop(name: str, ctype: str, call: str, arity: int = 1) -> str:
    names = "ab"[:arity]
    pointers = "".join(f", const {ctype} *{v}" for v in names)
    head = f"void {name}({ctype} *out{pointers}, ptrdiff_t count)"
    arguments = ", ".join(f"{v}[i]" for v in names)
    body = f"  ptrdiff_t i;\n  for (i = 0; i < count; ++i) out[i] = {call}({arguments});"
    return f"{head};\n{head} {{\n{body}\n}}\n"


def _vector_source() -> str:
    unary = [*F32, *F32_FROM, *F32_ABSOLUTE]
    text = [HEAD, *(harness.loop(f"v_{n}", f"sp_{n}_f32(a)", ("f32",), "f32") for n in unary)]
    for n in ("pow", "mod", "fmod"):
        text.append(harness.loop(f"v_{n}", f"sp_{n}_f32(a, b)", ("f32",) * 2, "f32"))
    return "\n".join(text)


def _double_source() -> str:
    text = [HEAD]
    unary = [*F64, "erf", "gelu", "gelu_tanh", "silu", "hardswish", "abs"]
    text += [_scalar_loop(f"d_{n}", "double", f"sp_{n}_f64") for n in unary]
    text += [_scalar_loop(f"d_{n}", "double", f"sp_{n}_f64", 2) for n in ("pow", "mod", "fmod")]
    for t in ("i32", "i64", "u32", "u64"):
        ctype = t.replace("i", "int").replace("u", "uint") + "_t"
        for n in ("idiv", "imod", "irem", "ipow"):
            text.append(_scalar_loop(f"{n}_{t}", ctype, f"sp_{n}_{t}", 2))
    for t in ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"):
        ctype = t.replace("i", "int").replace("u", "uint") + "_t"
        head = f"void to_{t}({ctype} *out, const double *a, ptrdiff_t count)"
        text.append(
            f"{head};\n{head} {{\n  ptrdiff_t i;\n"
            f"  for (i = 0; i < count; ++i) out[i] = sp_f64_to_{t}(a[i]);\n}}\n"
        )
    return "\n".join(text)


@pytest.fixture(scope="module", params=FLOAT_BUILDS)
def vectors(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> harness.Library:
    isa, _, compiler = str(request.param).partition(" ")
    folder: Path = tmp_path_factory.mktemp("math")
    return harness.build(_vector_source(), isa, folder, compiler or "zig")


@pytest.fixture(scope="module", params=["zig", "gcc"])
def doubles(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> harness.Library:
    folder: Path = tmp_path_factory.mktemp("math64")
    return harness.build(_double_source(), "scalar", folder, str(request.param))


def points(dtype: type[np.float32] | type[np.float64], count: int) -> Array:
    """Half over all exponents, half over the ranges where the functions change, and the edges."""
    rng = np.random.default_rng(30)
    ranges = (1e-3, 0.5, 1, 2, 5, 12, 110, 2e4) if dtype is np.float32 else (0.5, 1, 5, 750, 2e6)
    parts = [harness.every_exponent(dtype, count // 2)]
    parts += [rng.uniform(-r, r, count // 2 // len(ranges)).astype(dtype) for r in ranges]
    info = np.finfo(dtype)
    edge = [0, 0.5, 1, 2, np.inf, np.nan, info.max, info.tiny, info.smallest_subnormal]
    edge += [88.72, 88.73, 89.41, 103.9, 104, 709.7, 709.8, 745.1, 746, 1048576, 1e22]
    with np.errstate(over="ignore"):
        edges: Array = np.array(edge).astype(dtype)
    return np.concatenate([*parts, edges, np.negative(edges)])


def test_bounds_are_those_of_the_header() -> None:
    stated: dict[str, float] = {}
    for name in ("math.h", "scalar_math.h"):
        text = (harness.NATIVE / "kernels" / name).read_text()
        for comment, function in re.findall(
            r"/\*((?:(?!\*/).)*)\*/\nSP_\w+ \w+ (\w+)\(", text, re.S
        ):
            if bound := re.search(r"([\d.]+) ULP", comment):
                stated[function] = float(bound[1])
    tested = {f"sp_{n}_f32": b for n, (b, _) in F32.items() if b}
    tested |= {f"sp_{n}_f32": b for n, (b, _, _) in F32_FROM.items()}
    tested |= {f"sp_{n}_f64": b for n, (b, _) in F64.items() if b} | {"sp_erf_f64": 1.2}
    tested |= {"sp_pow_f32": POW32, "sp_pow_f64": POW64}
    assert {n: b for n, b in stated.items() if n in tested} == tested


def apply(library: harness.Library, name: str, *args: Array, dtype: Any = None) -> Array:
    out = np.full(args[0].size, 77, dtype or args[0].dtype)
    harness.call(library, name, out, *args, out.size)
    return out


X32 = points(np.float32, 400_000)


@pytest.fixture(scope="module")
def references() -> dict[str, Array]:
    """Exact enough results for X32, computed once for every instruction set."""
    with np.errstate(all="ignore"):
        wide = X32.astype(np.float64)
        exact = {n: f(wide) for n, (_, f) in F32.items()}
        exact |= {n: f(wide) for n, (_, _, f) in F32_FROM.items()}
        return exact | {n: f(wide) for n, (_, f) in F32_ABSOLUTE.items()}


def test_float32_ulp(vectors: harness.Library, references: dict[str, Array]) -> None:
    x = X32

    def error_of(name: str) -> Array:
        got, want = apply(vectors, f"v_{name}", x), references[name]
        error = harness.ulp_error(got, want)
        return harness.unless_flushed(vectors, error, got, want, x)

    for name, (bound, _) in F32.items():
        error = error_of(name)
        if name == "softsign":
            error[np.isinf(x)] = 0
        assert error.max() <= bound, f"{name}: {harness.worst(error, x)}"
    for name, (bound, start, _) in F32_FROM.items():
        error = error_of(name)
        low = x < start
        assert error[~low].max() <= bound, f"{name}: {harness.worst(error[~low], x[~low])}"
        low &= np.isfinite(x)
        got = apply(vectors, f"v_{name}", x)[low]
        # x times what may count as zero
        least = 2.0**-119 if harness.call(vectors, "flushes") else 2.0**-139
        assert np.abs(got - references[name][low]).max() < least, name


def test_float32_absolute(vectors: harness.Library, references: dict[str, Array]) -> None:
    x = X32
    finite = np.isfinite(x) & (np.abs(x) > 1e-30)
    for name, (bound, _) in F32_ABSOLUTE.items():
        got = apply(vectors, f"v_{name}", x)
        with np.errstate(all="ignore"):
            error = np.abs(got - references[name]) / (np.abs(x.astype(np.float64)) * 2.0**-24)
        error[(got == references[name].astype(np.float32)) | ~finite] = 0
        assert error.max() <= bound, f"{name}: {harness.worst(error, x)}"
        assert np.isnan(got[np.isnan(x)]).all()
        assert (got[x == np.inf] == np.inf).all()


def power_points(dtype: type[np.float32] | type[np.float64], n: int) -> tuple[Array, Array]:
    """Bases of every size with exponents that use the whole range of results."""
    rng = np.random.default_rng(31)
    top, small = (150, 1e-3) if dtype is np.float32 else (1070, 1e-6)
    a = np.abs(points(dtype, n))
    with np.errstate(all="ignore"):
        b = rng.uniform(-top, top, a.size) / np.log2(a.astype(LONG))
        near = 1 + rng.uniform(-small, small, n)
        xs = (a, rng.uniform(0.5, 2, n), near, rng.uniform(0, 10, n), -rng.uniform(0, 9, n))
        ys = (b, rng.uniform(-top, top, n), rng.uniform(-top, top, n) / small,
              rng.choice([2, 3, 0.5, -1, -0.5, 1.5, 10], n), rng.integers(-40, 40, n))  # fmt: skip
        return np.concatenate(xs).astype(dtype), np.concatenate(ys).astype(dtype)


def special_pairs(dtype: type[np.float32] | type[np.float64]) -> tuple[Array, Array]:
    info = np.finfo(dtype)
    whole = 2.0 ** (info.nmant + 1)
    one = [1, 1 + float(info.eps), 1 - float(info.epsneg), 2, 3, 0.5, 1.5, 1e10]
    plain: list[float] = [
        0,
        np.inf,
        float(info.max),
        float(info.smallest_subnormal),
        whole - 1,
        whole,
        whole + 2,
        *one,
    ]
    values = np.array([*plain, np.nan, *(-v for v in plain)], dtype)
    x, y = np.meshgrid(values, values)
    return x.ravel(), y.ravel()


POW_POINTS = power_points(np.float32, 60_000)


def test_float32_pow(vectors: harness.Library) -> None:
    x, y = POW_POINTS
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
    got = apply(vectors, "v_pow", x, y)
    error = harness.unless_flushed(vectors, harness.ulp_error(got, exact), got, exact, x, y)
    assert error.max() <= POW32, harness.worst(error, x, y)
    x, y = special_pairs(np.float32)
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
    got = apply(vectors, "v_pow", x, y)
    error = harness.unless_flushed(vectors, harness.ulp_error(got, exact), got, exact, x, y)
    assert error.max() <= POW32, harness.worst(error, x, y)


def test_float32_remainders(vectors: harness.Library) -> None:
    rng = np.random.default_rng(32)
    random = harness.every_exponent(np.float32, 4000)
    some = (rng.uniform(-20, 20, 3000) * 8).round().astype(np.float32) / 8
    x, y = special_pairs(np.float32)
    x = np.concatenate([x, random, some])
    y = np.concatenate([y, np.roll(random, 1), np.roll(some, 1)])
    if harness.call(vectors, "flushes"):
        # a remainder of something this small may be one that counts as zero
        small = [(v != 0) & (np.abs(v) < 2.0**-100) for v in (x, y)]
        x, y = x[~(small[0] | small[1])], y[~(small[0] | small[1])]
    with np.errstate(all="ignore"):
        for name, meaning in (("fmod", np.fmod), ("mod", np.mod)):
            got = apply(vectors, f"v_{name}", x, y)
            np.testing.assert_array_equal(got, meaning(x, y), err_msg=name)


@pytest.mark.skipif(not WIDE_LONG, reason="needs a long double wider than double")
def test_float64_ulp(doubles: harness.Library) -> None:
    x = points(np.float64, 60_000)
    for name, (bound, meaning) in F64.items():
        with np.errstate(all="ignore"):
            exact = meaning(x.astype(LONG))
        error = harness.ulp_error(apply(doubles, f"d_{name}", x), exact)
        assert error.max() <= bound, f"{name}: {harness.worst(error, x)}"
    for pairs in (power_points(np.float64, 20_000), special_pairs(np.float64)):
        with np.errstate(all="ignore"):
            exact = np.power(pairs[0].astype(LONG), pairs[1].astype(LONG))
        error = harness.ulp_error(apply(doubles, "d_pow", *pairs), exact)
        assert error.max() <= POW64, f"pow: {harness.worst(error, *pairs)}"


def test_float64_compositions(doubles: harness.Library) -> None:
    """Against functions of SciPy and NumPy that are themselves within 2 ULP."""
    x = points(np.float64, 40_000)
    error = harness.ulp_error(apply(doubles, "d_erf", x), special.erf(x).astype(LONG))
    assert error.max() <= 1.2 + 2, harness.worst(error, x)
    inside = x[(np.abs(x) > 1e-290) & (np.abs(x) < 1e3)]
    for name, meaning in (
        ("gelu", _gelu),
        ("gelu_tanh", _gelu_tanh),
        ("silu", lambda x: x * _sigmoid(x)),
        ("hardswish", lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    ):
        got = apply(doubles, f"d_{name}", inside)
        assert (np.abs(got - meaning(inside)) <= 8 * 2.0**-53 * np.abs(inside)).all(), name
    np.testing.assert_array_equal(apply(doubles, "d_abs", x), np.abs(x))


def test_float64_remainders(doubles: harness.Library) -> None:
    x, y = special_pairs(np.float64)
    random = harness.every_exponent(np.float64, 3000)
    x, y = np.append(x, random), np.append(y, np.roll(random, 1))
    with np.errstate(all="ignore"):
        for name, meaning in (("fmod", np.fmod), ("mod", np.mod)):
            got = apply(doubles, f"d_{name}", x, y)
            np.testing.assert_array_equal(got, meaning(x, y), err_msg=name)


INTEGERS: dict[str, Any] = {"i32": np.int32, "i64": np.int64, "u32": np.uint32, "u64": np.uint64}


def truncated_division(a: int, b: int) -> tuple[int, int]:
    q = abs(a) // abs(b)
    q = q if (a < 0) == (b < 0) else -q
    return q, a - q * b


def test_integer_division_and_powers(doubles: harness.Library) -> None:
    for t, dtype in INTEGERS.items():
        info = np.iinfo(dtype)
        low, high = int(info.min), int(info.max)
        values = [0, 1, 2, 3, 5, 7, 10, 63, 64, 255, 1000, high // 2, high - 1, high, low, low + 1]
        values += [v for v in (-1, -2, -3, -7, -64, -1000) if low < 0]
        pairs = [(a, b) for a in values for b in values]
        x, y = (np.array(v, dtype) for v in zip(*pairs, strict=True))
        want: dict[str, list[int]] = {"idiv": [], "irem": [], "imod": [], "ipow": []}
        for a, b in pairs:
            q, r = truncated_division(a, b) if b else (0, 0)
            want["idiv"].append(low if q > high else q)
            want["irem"].append(r)
            want["imod"].append(a % b if b else 0)
            want["ipow"].append(saturated_power(a, b, low, high))
        for name, values in want.items():
            got = apply(doubles, f"{name}_{t}", x, y)
            np.testing.assert_array_equal(got, np.array(values, dtype), err_msg=f"{name}_{t}")


def saturated_power(a: int, b: int, low: int, high: int) -> int:
    if b < 0:
        return high if a == 0 else 0 if abs(a) != 1 else a if b % 2 else 1
    if abs(a) > 1 and b > 64:
        return low if a < 0 and b % 2 else high
    return min(max(int(a**b), low), high)


def test_float_to_integer_saturates(doubles: harness.Library) -> None:
    edge = [0.5, 1.5, 126.9, 127, 128, 129, 255, 256, 32767, 32768, 65535, 65536, 2.0**31 - 1]
    edge += [2.0**31, 2.0**32 - 1, 2.0**32, 2.0**53, 2.0**63 - 1024, 2.0**63, 2.0**64 - 2048]
    edge += [2.0**64, 1e30, np.inf, 0.0, 1e-300]
    x = np.array([np.nan, *edge, *(-v for v in edge)])
    for bits in (8, 16, 32, 64):
        for kind in "iu":
            dtype = np.dtype(f"{kind}{bits // 8}")
            info = np.iinfo(dtype)
            want = [
                0 if np.isnan(v) else info.max if v == np.inf else info.min if v == -np.inf
                else min(max(int(v), int(info.min)), int(info.max))
                for v in x
            ]  # fmt: skip
            got = apply(doubles, f"to_{kind}{bits}", x, dtype=dtype)
            np.testing.assert_array_equal(got, np.array(want, dtype), err_msg=str(dtype))
