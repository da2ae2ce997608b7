"""Lane expressions as C: over scalars of any dtype, and over vectors.

In vectors a float value is an ``sp_f32``, an int8, uint8, int16 or int32 one an ``sp_i32``, a bool
an ``sp_mask``; expressions that need anything else run over scalars, as fast as the C compiler can
make that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from sparrow import lane
from sparrow.emit.quotient import divides_exactly
from sparrow.tensor import BF16, BOOL, F16, F32, F64, I8, I16, I32, U8, DType
from sparrow.vectors import NARROW, VECTOR_INTS, WIDE, high_product, vector_type

C_TYPES = {
    "float16": "uint16_t",
    "bfloat16": "uint16_t",
    "float32": "float",
    "float64": "double",
    "bool": "uint8_t",
    "int2": "int8_t",
    "int4": "int8_t",
    "uint4": "uint8_t",
}
_OPERATORS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=="}
_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*"}
# Integers that a float becomes without a detour over double, which small CPUs compute by calls.
_FROM_F32 = ("i32", "i16", "u16", "i8", "u8")
_BITWISE = {"bitand": "&", "bitor": "|", "bitxor": "^"}


def storage(dtype: DType) -> str:
    """C type of an element in memory."""
    return C_TYPES.get(dtype.name, f"{dtype.name}_t")


def compute(dtype: DType) -> str:
    """C type a value is computed in: half types in float."""
    return "float" if dtype in WIDE else storage(dtype)


def float_literal(v: float) -> str:
    """A float32 literal; infinities and NaN come from lane.h."""
    if math.isnan(v):
        return "SP_NAN"
    if math.isinf(v):
        return "SP_INF" if v > 0 else "(-SP_INF)"
    text = float(np.float32(v)).hex()
    return f"({text}f)" if text.startswith("-") else f"{text}f"


def literal(value: float | int | bool, dtype: DType) -> str:
    """A C literal of the compute type."""
    if dtype in WIDE:
        with np.errstate(over="ignore"):
            return float_literal(float(np.float32(value)))
    if dtype == F64:
        v = float(value)
        if math.isnan(v):
            return "(double)SP_NAN"
        if math.isinf(v):
            return "(double)SP_INF" if v > 0 else "(double)(-SP_INF)"
        return f"({v.hex()})"
    v = int(value)
    if dtype.name == "uint64":
        return f"UINT64_C({v})"
    if dtype.name == "int64":
        return (
            "INT64_MIN" if v == -(1 << 63) else f"INT64_C({v})" if v >= 0 else f"(-INT64_C({-v}))"
        )
    if v == -(1 << 31):
        return "INT32_MIN"
    return (
        f"({storage(dtype)}){v}"
        if dtype.bits < 32
        else f"{v}u"
        if dtype.kind == "uint"
        else f"({v})"
    )


# -- vectors -------------------------------------------------------------------------------------


def vector_load(dtype: DType, p: str, n: str) -> str:
    """Vector of ``n`` elements of a dtype at pointer ``p``."""
    if dtype in WIDE:
        return f"sp_loadn_{_suffix(dtype)}({p}, {n})"
    if dtype == BOOL:
        return f"sp_truth_i32(sp_loadn_u8({p}, {n}))"
    return f"sp_loadn_{_suffix(dtype)}({p}, {n})"


def vector_repeat(dtype: DType, p: str) -> str:
    """Vector of the one element at pointer ``p`` in all lanes."""
    if dtype == BOOL:
        return f"sp_truth_i32(sp_set1_i32(*({p})))"
    if dtype in WIDE:
        return f"sp_set1_f32({scalar_load(dtype, p)})"
    return f"sp_set1_i32(*({p}))"


def vector_store(dtype: DType, p: str, v: str, n: str) -> str:
    """Statement that stores the first ``n`` lanes at pointer ``p``."""
    if dtype == BOOL:
        v = f"sp_select_i32({v}, sp_set1_i32(1), sp_set1_i32(0))"
        return f"sp_storen_u8({p}, {v}, {n});"
    return f"sp_storen_{_suffix(dtype)}({p}, {v}, {n});"


def _suffix(dtype: DType) -> str:
    names = {F16: "f16", BF16: "bf16", F32: "f32", I8: "i8", U8: "u8", I16: "i16", I32: "i32"}
    return names[dtype]


def scalar_load(dtype: DType, p: str) -> str:
    """The element at pointer ``p`` in its compute type."""
    return f"sp_get_{_suffix(dtype)}({p})" if dtype in (F16, BF16) else f"*({p})"


def scalar_store(dtype: DType, p: str, v: str) -> str:
    """Statement that stores a value of the compute type at pointer ``p``."""
    if dtype in (F16, BF16):
        return f"sp_put_{_suffix(dtype)}({p}, {v});"
    return f"*({p}) = {v};"


class _Text:
    """Statements that compute an expression once per distinct subexpression."""

    def __init__(self, args: Mapping[int, str]) -> None:
        self.lines: list[str] = []
        self.args = args
        self.done: dict[lane.Expr, str] = {}

    def of(self, e: lane.Expr) -> str:
        if e not in self.done:
            self.done[e] = self.make(e)
        return self.done[e]

    def make(self, e: lane.Expr) -> str:
        raise AssertionError

    def let(self, ctype: str, text: str) -> str:
        name = f"t{len(self.lines)}"
        self.lines.append(f"const {ctype} {name} = {text};")
        return name


def _clamp(e: lane.Expr) -> tuple[lane.Expr, float, float]:
    """What ``e`` clips with literals, and the bounds."""
    low, high = -math.inf, math.inf
    while isinstance(e, lane.Call) and e.fn in ("min", "max", "relu"):
        literals = [a for a in e.args if isinstance(a, lane.Imm)]
        others = [a for a in e.args if not isinstance(a, lane.Imm)]
        if len(others) != 1:
            break
        bound = float(literals[0].value) if literals else 0.0
        # an inner clip comes first: its bound is clipped by the outer ones
        if e.fn == "min":
            high = max(min(high, bound), low)
        else:
            low = min(max(low, bound), high)
        e = others[0]
    return e, low, high


# Magnitudes that `sp_rne_near_f32_i32` takes, and that conversions to int32 and additions of zero
# points take for sure.
NEAR, FITS = 1 << 22, 1 << 29


def rounded_steps(e: lane.Call) -> tuple[lane.Call, int, int] | None:
    """The float under a cast that may round to nearest even and need not saturate, and its clips.

    That is ``round(c * m)`` clipped to whole literals inside the range of the integer type, c an
    integer: the product is no NaN, for the scales m of quantized sums are finite, and rounding
    after clipping to whole numbers is rounding before it.
    """
    rounded, low, high = _clamp(e.args[0])
    if e.dtype not in VECTOR_INTS or not isinstance(rounded, lane.Call) or rounded.fn != "round":
        return None
    product = rounded.args[0]
    if not isinstance(product, lane.Call) or product.fn != "mul" or product.dtype != F32:
        return None
    least, most = e.dtype.limits
    whole = all(abs(v) < 1 << 24 and v == int(v) for v in (low, high) if math.isfinite(v))
    exact = any(
        isinstance(a, lane.Call) and a.fn == "cast" and a.args[0].dtype.kind == "int"
        for a in product.args
    )
    if not (whole and exact and least <= low <= high <= most):
        return None
    return product, int(low), int(high)


def near_steps(e: lane.Call) -> tuple[lane.Expr, float, float] | None:
    """The float under an int32 cast of ``round`` clipped to literals near 0, and the clips."""
    rounded, low, high = _clamp(e.args[0])
    if e.dtype != I32 or not isinstance(rounded, lane.Call) or rounded.fn != "round":
        return None
    near = max(-low, high) <= NEAR and low <= high and low == int(low) and high == int(high)
    return (rounded.args[0], low, high) if near else None


def _quotient(value: lane.Expr, low: float, high: float) -> tuple[lane.Expr, float] | None:
    """Dividend and divisor where `divides_exactly`."""
    if not isinstance(value, lane.Call) or value.fn != "div" or value.dtype != F32:
        return None
    x, s = value.args
    if not isinstance(s, lane.Imm) or not divides_exactly(float(s.value), int(low), int(high)):
        return None
    return x, float(s.value)


def _plus_literal(e: lane.Expr) -> tuple[lane.Expr, int]:
    """The operand and the literal of an int32 sum of the two; 0 where it is no such sum."""
    if isinstance(e, lane.Call) and e.fn == "add" and e.dtype == I32:
        literals = [a for a in e.args if isinstance(a, lane.Imm)]
        others = [a for a in e.args if not isinstance(a, lane.Imm)]
        if len(others) == 1:
            return others[0], int(literals[0].value)
    return e, 0


def _inside(e: lane.Expr, dtype: DType) -> bool:
    """Whether an int32 value is known to fit a narrower type: a clipped one plus a literal."""
    e, offset = _plus_literal(e)
    if isinstance(e, lane.Call) and e.fn == "cast":
        e = e.args[0]
    _, low, high = _clamp(e)
    least, most = dtype.limits
    return least <= low + offset and high + offset <= most


class _Vector(_Text):
    def __init__(
        self,
        args: Mapping[int, str],
        table: list[int] | None,
        largest: Mapping[int, float] | None = None,
        reach: int = 1 << 31,
    ) -> None:
        super().__init__(args)
        self.table = table
        self.largest = largest or {}
        self.reach = reach

    def make(self, e: lane.Expr) -> str:
        if isinstance(e, lane.Arg):
            return self.args[e.index]
        ctype = vector_type(e.dtype)
        assert ctype is not None, e
        if isinstance(e, lane.Imm):
            return self.literal(e)
        if e.fn == "cast" and (steps := rounded_steps(e)) is not None:
            product, low, high = steps
            above = lane.call("max", product, lane.Imm(float(low), F32))
            clipped = lane.call("min", above, lane.Imm(float(high), F32))
            near = "_near" if max(-low, high) <= NEAR else ""
            return self.let(ctype, f"sp_rne{near}_f32_i32({self.of(clipped)})")
        if e.fn == "cast" and (clips := near_steps(e)) is not None:
            value, least, most = clips
            if self.table is None and (found := _quotient(value, least, most)) is not None:
                real, s = found
                numbers = (s, float(np.float32(1) / np.float32(s)), least, most)
                literals = ", ".join(map(float_literal, numbers))
                return self.let(ctype, f"sp_quotient_f32_i32({self.of(real)}, {literals})")
            above = lane.call("max", value, lane.Imm(least, F32))
            x = self.of(lane.call("min", above, lane.Imm(most, F32)))
            number = f"sp_select_f32(sp_isnan_f32({x}), sp_zero_f32(), {x})"
            return self.let(ctype, f"sp_rne_near_f32_i32({number})")
        if (factors := high_product(e)) is not None:
            a, b = map(self.of, factors)
            return self.let(ctype, f"sp_mulh31_i32({a}, {b})")
        if e.fn == "cast" and e.args[0].dtype == I32 and e.dtype in NARROW:
            # lanes hold 32 bits: nothing to do for a value that fits
            x = self.of(e.args[0])
            return x if _inside(e.args[0], e.dtype) else self.let(ctype, _wrapped(x, e.dtype))
        if e.fn == "cast":
            text = self.cast(self.of(e.args[0]), e.args[0].dtype, e.dtype)
            return self.let(ctype, text) if "(" in text else text
        if e.args[0].dtype == BOOL:
            return self.let(ctype, self.logic(e))
        if e.args[0].dtype in WIDE:
            return self.let(ctype, self.float(e))
        return self.let(ctype, self.int(e))

    def literal(self, e: lane.Imm) -> str:
        if self.table is None or e.dtype not in (F32, I32):
            return _vector_literal(e)
        self.table.append(int(np.asarray(e.value, e.dtype.numpy).view(np.int32)))
        number = f"sp_set1_i32(k[{len(self.table) - 1}])"
        return number if e.dtype == I32 else f"sp_from_bits_f32({number})"

    def stored(self, e: lane.Expr) -> str:
        """A value on its way to a store that saturates to its type, which spares clips."""
        if e.dtype not in NARROW or not isinstance(e, lane.Call):
            return self.of(e)
        least, most = e.dtype.limits
        x: lane.Expr = e
        if e.fn == "cast" and e.args[0].dtype == I32 and _inside(e.args[0], e.dtype):
            x = e.args[0]
        x, z = _plus_literal(x)
        if isinstance(x, lane.Call) and x.fn == "cast" and (steps := rounded_steps(x)) is not None:
            product, low, high = steps
            size = self.size(product)
            fits = 2 if size <= NEAR else int(size <= FITS)
            if self.table is None:
                lo = "INT32_MIN" if low + z <= least else str(low + z)
                hi = "INT32_MAX" if high + z >= most else str(high + z)
                text = f"sp_code_f32_i32({self.of(product)}, {z}, {lo}, {hi}, {fits})"
                return self.let("sp_i32", text)
            if fits and low + z <= least and high + z >= most:
                near = "_near" if fits == 2 else ""
                code = f"sp_rne{near}_f32_i32({self.of(product)})"
                return self.let("sp_i32", f"sp_add_i32({code}, {self.literal(lane.Imm(z, I32))})")
        if self.table is not None:
            return self.of(e)
        inner, low_, high_ = _clamp(x)
        # no sum leaves int32: what was shifted to the right has room
        roomy = isinstance(inner, lane.Call) and inner.fn == "rshr" and _positive(inner.args[1])
        if inner is x or inner.dtype != I32 or (z and not roomy):
            return self.of(e)
        if low_ + z > least:
            inner = lane.call("max", inner, lane.Imm(int(low_), I32))
        if high_ + z < most:
            inner = lane.call("min", inner, lane.Imm(int(high_), I32))
        return self.of(lane.call("add", inner, lane.Imm(z, I32)) if z else inner)

    def size(self, product: lane.Call) -> float:
        """What an int32 times a float is at most, either way."""
        whole, factor = math.inf, math.inf
        for a in product.args:
            if isinstance(a, lane.Call) and a.fn == "cast" and a.args[0].dtype == I32:
                whole = self.reach if a.args[0] == lane.Arg(0, I32) else 1 << 31
            elif isinstance(a, lane.Arg):
                factor = self.largest.get(a.index, math.inf)
            elif isinstance(a, lane.Imm):
                factor = abs(float(a.value))
        return whole * factor

    def logic(self, e: lane.Call) -> str:
        a = [self.of(x) for x in e.args]
        if e.fn == "eq":
            return f"sp_mask_not(sp_mask_xor({a[0]}, {a[1]}))"
        if e.fn != "where":
            return f"sp_mask_{e.fn}({', '.join(a)})"
        if e.dtype == BOOL:
            other = f"sp_mask_and(sp_mask_not({a[0]}), {a[2]})"
            return f"sp_mask_or(sp_mask_and({a[0]}, {a[1]}), {other})"
        return f"sp_select_{'f32' if e.dtype in WIDE else 'i32'}({', '.join(a)})"

    def float(self, e: lane.Call) -> str:
        if e.fn in ("add", "sub"):
            a, b = e.args
            if isinstance(a, lane.Call) and a.fn == "mul" and e.fn == "add":
                return f"sp_fma_f32({self.of(a.args[0])}, {self.of(a.args[1])}, {self.of(b)})"
            if isinstance(b, lane.Call) and b.fn == "mul":
                f = "fma" if e.fn == "add" else "fnma"
                return f"sp_{f}_f32({self.of(b.args[0])}, {self.of(b.args[1])}, {self.of(a)})"
        args = [self.of(a) for a in e.args]
        if e.fn == "relu":
            return f"sp_maxq_f32(sp_zero_f32(), {args[0]})"
        if e.fn in ("max", "min"):
            # (imm > x ? imm : x) keeps a NaN in x; only a literal is known not to be NaN itself
            for i in (0, 1):
                imm = e.args[i]
                if isinstance(imm, lane.Imm) and not math.isnan(float(imm.value)):
                    return f"sp_{e.fn}q_f32({args[i]}, {args[1 - i]})"
        return f"sp_{e.fn}_f32({', '.join(args)})"

    def int(self, e: lane.Call) -> str:
        if e.fn == "rshr":
            shift = e.args[1]
            if not isinstance(shift, lane.Imm):
                return f"sp_rshr_i32({self.of(e.args[0])}, {self.of(shift)})"
            x, by = self.of(e.args[0]), int(shift.value)
            half = f"sp_set1_i32({1 << (by - 1)})" if by else ""
            return f"sp_shr_i32(sp_add_i32({x}, {half}), {by})" if by else x
        a = [self.of(x) for x in e.args]
        zero = "sp_set1_i32(0)"
        if e.fn in ("le", "ge"):
            return f"sp_mask_not(sp_{'gt' if e.fn == 'le' else 'lt'}_i32({a[0]}, {a[1]}))"
        if e.fn == "relu":
            return f"sp_max_i32({a[0]}, {zero})"
        if e.fn == "sign":
            low = f"sp_max_i32({a[0]}, sp_set1_i32(-1))"
            return f"sp_min_i32({low}, sp_set1_i32(1))"
        if e.fn == "bitnot":
            return _wrapped(f"sp_xor_i32({a[0]}, sp_set1_i32(-1))", e.dtype)
        if e.fn == "neg":
            return _wrapped(f"sp_sub_i32({zero}, {a[0]})", e.dtype)
        if e.fn == "abs":
            return _wrapped(f"sp_max_i32({a[0]}, sp_sub_i32({zero}, {a[0]}))", e.dtype)
        text = f"sp_{e.fn.removeprefix('bit')}_i32({a[0]}, {a[1]})"
        return _wrapped(text, e.dtype) if e.fn in _ARITHMETIC else text

    def cast(self, x: str, source: DType, to: DType) -> str:
        if to in WIDE:
            if source in VECTOR_INTS:
                x = f"sp_cvt_i32_f32({x})"
            elif source == BOOL:
                x = f"sp_select_f32({x}, sp_set1_f32(1.0f), sp_zero_f32())"
            exact = to == F32 or source == to
            return x if exact else f"sp_round_{_suffix(to)}_f32({x})"
        if to == BOOL:
            if source in WIDE:
                return f"sp_ne_f32({x}, sp_zero_f32())"
            return x if source == BOOL else f"sp_truth_i32({x})"
        if source in WIDE:
            return f"sp_to_{_suffix(to)}_f32({x})"
        if source == BOOL:
            return f"sp_select_i32({x}, sp_set1_i32(1), sp_set1_i32(0))"
        return x if to in (I32, source) else _wrapped(x, to)


def _positive(e: lane.Expr) -> bool:
    return isinstance(e, lane.Imm) and e.value > 0


def _vector_literal(e: lane.Imm) -> str:
    if e.dtype == BOOL:
        return f"sp_truth_i32(sp_set1_i32({int(e.value)}))"
    if e.dtype in WIDE:
        # the literal is a value of its own dtype, infinity where that holds no more
        with np.errstate(over="ignore"):
            own = float(np.asarray(e.value, e.dtype.numpy))
        return f"sp_set1_f32({literal(own, F32)})"
    return f"sp_set1_i32({literal(e.value, I32)})"


def _wrapped(x: str, dtype: DType) -> str:
    """Lanes brought back into the range of a narrow integer, as its arithmetic wraps."""
    if dtype == U8:
        return f"sp_and_i32({x}, sp_set1_i32(255))"
    if dtype not in NARROW:
        return x
    by = 32 - dtype.bits
    return f"sp_shr_i32(sp_shl_i32({x}, {by}), {by})"


# -- scalars -------------------------------------------------------------------------------------


class _Scalar(_Text):
    def make(self, e: lane.Expr) -> str:
        if isinstance(e, lane.Arg):
            return self.args[e.index]
        if isinstance(e, lane.Imm):
            return literal(e.value, e.dtype)
        args = [self.of(a) for a in e.args]
        if e.fn == "cast":
            text = _cast(args[0], e.args[0].dtype, e.dtype)
        elif e.fn == "pow":
            text = _power(args, e.args[0].dtype, e.args[1].dtype)
        else:
            text = _scalar_call(e.fn, e.args[-1].dtype, args)
        return self.let(compute(e.dtype), text)


def _cast(x: str, source: DType, to: DType) -> str:
    if to in (F16, BF16):
        wide = x if source in WIDE else f"(float){x}"
        return f"sp_round_{'f16' if to == F16 else 'bf16'}({wide})"
    if source.kind == "float" and to.kind in ("int", "uint"):
        name = f"{'u' if to.kind == 'uint' else 'i'}{max(to.bits, 8)}"
        if source in WIDE and name in _FROM_F32:
            return f"sp_f32_to_{name}({x})"
        return f"sp_f64_to_{name}({f'(double){x}' if source in WIDE else x})"
    if to == BOOL:
        return f"(uint8_t)({x} != 0)"
    return f"({compute(to)}){x}"


def _power(a: list[str], base: DType, exponent: DType) -> str:
    """Base of any dtype to an exponent of any other."""
    if base == F64:
        return f"sp_pow_f64({a[0]}, (double){a[1]})"
    if base in WIDE:
        return f"SP_F32_2(pow, {a[0]}, (float){a[1]})"
    to = f"sp_f64_to_{'u' if base.kind == 'uint' else 'i'}{max(base.bits, 8)}"
    if exponent.kind == "float":
        return f"{to}(sp_pow_f64((double){a[0]}, (double){a[1]}))"
    if base.bits == 64:
        kind = "u" if base.kind == "uint" else ""
        return f"sp_ipow_{'u' if kind else 'i'}64({a[0]}, ({kind}int64_t){a[1]})"
    return f"{to}((double)sp_ipow_i64({a[0]}, (int64_t){a[1]}))"


def _scalar_call(fn: str, dtype: DType, a: list[str]) -> str:
    """One call over scalars; ``dtype`` is that of the last argument."""
    if dtype.kind != "float" and len(set(a)) == 1 and fn in (*_OPERATORS, "max", "min"):
        # compilers warn of a comparison that is always true or false
        return a[0] if fn in ("max", "min") else f"(uint8_t){int('=' in _OPERATORS[fn])}"
    if fn in _OPERATORS:
        return f"(uint8_t)({a[0]} {_OPERATORS[fn]} {a[1]})"
    if fn == "where":
        return f"{a[0]} ? {a[1]} : {a[2]}"
    if fn in ("and", "or", "xor"):
        op = {"and": "&", "or": "|", "xor": "^"}[fn]
        return f"(uint8_t)({a[0]} {op} {a[1]})"
    if fn == "not":
        return f"(uint8_t)!{a[0]}"
    return _float_call(fn, dtype, a) if dtype.kind == "float" else _int_call(fn, dtype, a)


def _float_call(fn: str, dtype: DType, a: list[str]) -> str:
    f64 = dtype == F64
    if fn in _ARITHMETIC:
        return f"{a[0]} {_ARITHMETIC[fn]} {a[1]}"
    if fn == "div":
        return f"{a[0]} / {a[1]}"
    if fn in ("max", "min"):
        op = ">" if fn == "max" else "<"
        return f"({a[0]} {op} {a[1]} || {a[0]} != {a[0]}) ? {a[0]} : {a[1]}"
    if fn == "relu":
        return f"{a[0]} < 0 ? 0 : {a[0]}"
    if fn == "neg":
        return f"-{a[0]}"
    if fn == "isnan":
        return f"(uint8_t)({a[0]} != {a[0]})"
    if fn in ("mod", "fmod"):
        return f"sp_{fn}_f64({a[0]}, {a[1]})" if f64 else f"SP_F32_2({fn}, {a[0]}, {a[1]})"
    return f"sp_{fn}_f64({a[0]})" if f64 else f"SP_F32_1({fn}, {a[0]})"


def _int_call(fn: str, dtype: DType, a: list[str]) -> str:
    t = storage(dtype)
    # unsigned arithmetic wraps; signed overflow is undefined in C
    w = "uint64_t" if dtype.bits == 64 else "uint32_t"
    suffix = "i64" if dtype.bits == 64 else "i32"
    if dtype.kind == "uint":
        suffix = suffix.replace("i", "u")
    if fn in _ARITHMETIC:
        return f"({t})(({w}){a[0]} {_ARITHMETIC[fn]} ({w}){a[1]})"
    if fn in _BITWISE:
        return f"({t})({a[0]} {_BITWISE[fn]} {a[1]})"
    if fn == "bitnot":
        return f"({t})~{a[0]}"
    if fn in ("shl", "shr"):
        op = "<<" if fn == "shl" else ">>"
        return f"{a[1]} < {dtype.bits} ? ({t})(({w}){a[0]} {op} {a[1]}) : ({t})0"
    if fn == "rshr":
        # right shifts of negative values are arithmetic in every compiler named in base.h
        half = f"(({w})1 << {a[1]} >> 1)"
        return f"({t})(({t})(({w}){a[0]} + {half}) >> {a[1]})"
    if fn in ("max", "min"):
        return f"{a[0]} {'>' if fn == 'max' else '<'} {a[1]} ? {a[0]} : {a[1]}"
    if fn == "relu":
        return f"{a[0]} > 0 ? {a[0]} : ({t})0"
    if fn == "neg":
        return f"({t})(0u - ({w}){a[0]})"
    if fn == "abs":
        return f"{a[0]} < 0 ? ({t})(0u - ({w}){a[0]}) : {a[0]}" if dtype.kind == "int" else a[0]
    if fn == "sign":
        low = f" - ({a[0]} < 0)" if dtype.kind == "int" else ""
        return f"({t})(({a[0]} > 0){low})"
    names = {"div": "idiv", "mod": "imod", "fmod": "irem"}
    return f"({t})sp_{names[fn]}_{suffix}({a[0]}, {a[1]})"


def vector(e: lane.Expr, args: Mapping[int, str]) -> tuple[list[str], str]:
    """Statements and result of a `vectorizable` expression over operands of their `vector_type`."""
    t = _Vector(args, None)
    y = t.of(e)
    return _used(t.lines, y), y


def stored_vector(
    e: lane.Expr,
    args: Mapping[int, str],
    table: list[int] | None = None,
    largest: Mapping[int, float] | None = None,
    reach: int = 1 << 31,
) -> tuple[list[str], str]:
    """`vector` of a value that is stored at once: bytes may still lie outside their range.

    With a ``table`` literals of 32 bits are appended to it, and read from ``k[..]``: expressions
    that differ in them alone have one text. Operands are at most ``largest`` either way where it
    has them, and the int32 operand 0 at most ``reach``.
    """
    t = _Vector(args, table, largest, reach)
    y = t.stored(e)
    return _used(t.lines, y), y


def scalar(e: lane.Expr, args: Mapping[int, str]) -> tuple[list[str], str]:
    """Statements and result of an expression over scalars of the compute types."""
    t = _Scalar(args)
    y = t.of(e)
    return _used(t.lines, y), y


def _used(lines: list[str], result: str) -> list[str]:
    """Drop statements nothing reads (products that went into a fused multiply-add)."""
    kept: list[str] = []
    needed = result
    for line in reversed(lines):
        name = line.split(" = ")[0].split()[-1]
        if any(part == name for part in _words(needed)):
            kept.append(line)
            needed += " " + line.split(" = ", 1)[1]
    return kept[::-1]


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
