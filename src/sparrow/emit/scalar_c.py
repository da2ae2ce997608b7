"""Lane expressions as C over scalars of any dtype, as fast as the C compiler can make that."""

from __future__ import annotations

from collections.abc import Mapping

from sparrow import lane
from sparrow.emit.dtype_c import compute, literal, storage
from sparrow.emit.lane_c import ARITHMETIC, Text
from sparrow.tensor import BF16, BOOL, F16, F64, DType
from sparrow.vectors import WIDE

_OPERATORS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=="}
# Integers that a float becomes without a detour over double, which small CPUs compute by calls.
_FROM_F32 = ("i32", "i16", "u16", "i8", "u8")
_BITWISE = {"bitand": "&", "bitor": "|", "bitxor": "^"}


class _Scalar(Text):
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
    if fn in ARITHMETIC:
        return f"{a[0]} {ARITHMETIC[fn]} {a[1]}"
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
    if fn in ARITHMETIC:
        return f"({t})(({w}){a[0]} {ARITHMETIC[fn]} ({w}){a[1]})"
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


def scalar(e: lane.Expr, args: Mapping[int, str]) -> tuple[list[str], str]:
    """Statements and result of an expression over scalars of the compute types."""
    t = _Scalar(args)
    y = t.of(e)
    return t.statements(y), y
