"""Lane expressions as C over vectors.

A float value is an ``sp_f32``, an int8, uint8, int16 or int32 one an ``sp_i32``, a bool an
``sp_mask``; expressions that need anything else run over scalars.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from sparrow import lane
from sparrow.emit.clips import (
    FITS,
    NEAR,
    SHORT,
    bounds,
    clamp,
    inside,
    near_steps,
    plus_literal,
    positive,
    quotient,
    rounded_steps,
)
from sparrow.emit.dtype_c import float_literal, literal, scalar_load, suffix
from sparrow.emit.lane_c import ARITHMETIC, Text
from sparrow.tensor import BOOL, F32, I32, U8, DType
from sparrow.vectors import NARROW, VECTOR_INTS, WIDE, high_product, vector_type

# Of floats that are multiplied or added once more without leaving float32.
LARGEST = 2.0**60


def vector_load(dtype: DType, p: str, n: str) -> str:
    """Vector of ``n`` elements of a dtype at pointer ``p``."""
    if dtype in WIDE:
        return f"sp_loadn_{suffix(dtype)}({p}, {n})"
    if dtype == BOOL:
        return f"sp_truth_i32(sp_loadn_u8({p}, {n}))"
    return f"sp_loadn_{suffix(dtype)}({p}, {n})"


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
    return f"sp_storen_{suffix(dtype)}({p}, {v}, {n});"


class _Vector(Text):
    def __init__(
        self,
        args: Mapping[int, str],
        table: list[int] | None,
        largest: Mapping[int, float] | None = None,
        reach: int = 1 << 31,
        shortens: bool = False,
    ) -> None:
        super().__init__(args)
        self.table = table
        self.largest = largest or {}
        self.reach = reach
        self.shortens = shortens

    def make(self, e: lane.Expr) -> str:
        if isinstance(e, lane.Arg):
            return self.args[e.index]
        ctype = vector_type(e.dtype)
        assert ctype is not None, e
        if isinstance(e, lane.Imm):
            return self.literal(e)
        if e.fn == "cast" and (steps := self.steps(e)) is not None:
            product, low, high = steps
            if self.table is None:
                return self.let(ctype, f"sp_steps_f32_i32({self.of(product)}, {low}, {high})")
            above = lane.call("max", product, lane.Imm(float(low), F32))
            clipped = lane.call("min", above, lane.Imm(float(high), F32))
            near = "_near" if max(-low, high) <= NEAR else ""
            return self.let(ctype, f"sp_rne{near}_f32_i32({self.of(clipped)})")
        if e.fn == "cast" and (clips := near_steps(e)) is not None:
            value, least, most = clips
            if self.table is None and (found := quotient(value, least, most)) is not None:
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
            return x if inside(e.args[0], e.dtype) else self.let(ctype, _wrapped(x, e.dtype))
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
        if e.fn == "cast" and e.args[0].dtype == I32 and inside(e.args[0], e.dtype):
            x = e.args[0]
        x, z = plus_literal(x)
        if isinstance(x, lane.Call) and x.fn == "cast" and (steps := self.steps(x)) is not None:
            product, low, high = steps
            size = self.size(product)
            fits = 2 if size <= NEAR else int(size <= FITS)
            fits = 3 if self.shortens and size + abs(z) < SHORT else fits
            if self.table is None:
                lo = "INT32_MIN" if low + z <= least else str(low + z)
                hi = "INT32_MAX" if high + z >= most else str(high + z)
                text = f"sp_code_f32_i32({self.of(product)}, {z}, {lo}, {hi}, {fits})"
                return self.let("sp_i32", text)
            if fits and low + z <= least and high + z >= most:
                near = "_near" if fits >= 2 else ""
                code = f"sp_rne{near}_f32_i32({self.of(product)})"
                return self.let("sp_i32", f"sp_add_i32({code}, {self.literal(lane.Imm(z, I32))})")
        if self.table is not None:
            return self.of(e)
        inner, low_, high_ = clamp(x)
        # no sum leaves int32: what was shifted to the right has room
        shift = inner.args[1] if isinstance(inner, lane.Call) and inner.fn == "rshr" else None
        roomy = shift is not None and positive(shift)
        if inner is x or inner.dtype != I32 or (z and not roomy):
            return self.of(e)
        spared = low_ + z <= least and high_ + z >= most and e.dtype.bits == 8
        if self.shortens and spared and isinstance(shift, lane.Imm) and 16 < shift.value < 24:
            assert isinstance(inner, lane.Call)
            smallest, largest = bounds(inner.args[0])
            n = int(shift.value)
            more = (2 * z + 1) << (n - 1)
            fits = int(smallest + more >= -(1 << 31) and largest + more < 1 << 31)
            text = f"sp_code_rshr_i32({self.of(inner.args[0])}, {n}, {z}, {fits})"
            return self.let("sp_i32", text)
        if low_ + z > least:
            inner = lane.call("max", inner, lane.Imm(int(low_), I32))
        if high_ + z < most:
            inner = lane.call("min", inner, lane.Imm(int(high_), I32))
        y = self.of(lane.call("add", inner, lane.Imm(z, I32)) if z else inner)
        if not self.shortens or not isinstance(shift, lane.Imm):
            return y
        most = (1 << 31 >> int(shift.value)) + 1 + abs(z)
        return self.let("sp_i32", f"sp_short_i32({y})") if most < SHORT else y

    def steps(self, e: lane.Call) -> tuple[lane.Expr, int, int] | None:
        """`rounded_steps`, and those of a float of known magnitude, which is no NaN either."""
        if (steps := rounded_steps(e)) is not None:
            return steps
        if (clips := near_steps(e)) is None or self.size(clips[0]) > FITS:
            return None
        return clips[0], int(clips[1]), int(clips[2])

    def size(self, e: lane.Expr) -> float:
        """What a float is at most, either way; infinite where that or a step to it is unknown."""
        found = self._size(e)
        return found if found < LARGEST else math.inf

    def _size(self, e: lane.Expr) -> float:
        if isinstance(e, lane.Imm):
            return abs(float(e.value))
        if isinstance(e, lane.Arg):
            return self.largest.get(e.index, math.inf)
        if e.fn == "cast" and e.args[0].dtype in VECTOR_INTS:
            return self.reach if e.args[0] == lane.Arg(0, I32) else 1 << 31
        sizes = [self.size(a) for a in (e.args[1:] if e.fn == "where" else e.args)]
        if math.inf in sizes:
            return math.inf
        if e.fn == "mul":
            return math.prod(sizes)
        if e.fn in ("add", "sub"):
            return sum(sizes)
        if e.fn in ("max", "min", "relu", "where", "abs", "neg"):
            _, low, high = clamp(e)
            return min(max(sizes), max(-low, high)) if e.fn in ("max", "min") else max(sizes)
        return math.inf

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
            return f"sp_rshr_n_i32({x}, {by})" if by else x
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
        return _wrapped(text, e.dtype) if e.fn in ARITHMETIC else text

    def cast(self, x: str, source: DType, to: DType) -> str:
        if to in WIDE:
            if source in VECTOR_INTS:
                x = f"sp_cvt_i32_f32({x})"
            elif source == BOOL:
                x = f"sp_select_f32({x}, sp_set1_f32(1.0f), sp_zero_f32())"
            exact = to == F32 or source == to
            return x if exact else f"sp_round_{suffix(to)}_f32({x})"
        if to == BOOL:
            if source in WIDE:
                return f"sp_ne_f32({x}, sp_zero_f32())"
            return x if source == BOOL else f"sp_truth_i32({x})"
        if source in WIDE:
            return f"sp_to_{suffix(to)}_f32({x})"
        if source == BOOL:
            return f"sp_select_i32({x}, sp_set1_i32(1), sp_set1_i32(0))"
        return x if to in (I32, source) else _wrapped(x, to)


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


def vector(e: lane.Expr, args: Mapping[int, str]) -> tuple[list[str], str]:
    """Statements and result of a `vectorizable` expression over operands of their `vector_type`."""
    t = _Vector(args, None)
    y = t.of(e)
    return t.statements(y), y


def stored_vector(
    e: lane.Expr,
    args: Mapping[int, str],
    table: list[int] | None = None,
    largest: Mapping[int, float] | None = None,
    reach: int = 1 << 31,
    shortens: bool = False,
) -> tuple[list[str], str]:
    """`vector` of a value that is stored at once: bytes may still lie outside their range.

    With a ``table`` literals of 32 bits are appended to it, and read from ``k[..]``: expressions
    that differ in them alone have one text. Operands are at most ``largest`` either way where it
    has them, and the int32 operand 0 at most ``reach``. Where it ``shortens``, what fits 16 bits
    says so.
    """
    t = _Vector(args, table, largest, reach, shortens)
    y = t.stored(e)
    return t.statements(y), y
