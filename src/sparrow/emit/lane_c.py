"""Lane expressions as C: over scalars of any dtype, and over float32 vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from sparrow import lane
from sparrow.tensor import BF16, BOOL, F16, F32, F64, DType

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
WIDE = (F16, BF16, F32)
_VECTOR_FNS = frozenset(
    "add sub mul div max min sqrt abs neg floor ceil round trunc relu where sign "
    "exp expm1 log log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf sigmoid "
    "softplus pow gelu gelu_tanh silu hardswish lt le gt ge eq and or xor not isnan cast".split()
)
_OPERATORS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=="}
_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*"}
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
        return "INT64_MIN" if v == -(1 << 63) else f"INT64_C({v})" if v >= 0 else f"(-INT64_C({-v}))"
    if v == -(1 << 31):
        return "INT32_MIN"
    return f"({storage(dtype)}){v}" if dtype.bits < 32 else f"{v}u" if dtype.kind == "uint" else f"({v})"


def vectorizable(e: lane.Expr) -> bool:
    """Whether every step of ``e`` has a float32 vector form."""
    if e.dtype not in WIDE:
        return False
    for s in lane.walk(e):
        if isinstance(s, lane.Call):
            if s.fn not in _VECTOR_FNS or any(a.dtype not in (*WIDE, BOOL) for a in s.args):
                return False
            if s.fn == "cast" and (s.dtype not in WIDE or s.args[0].dtype not in WIDE):
                return False
            if s.fn == "eq" and s.args[0].dtype == BOOL:
                return False
            if s.fn == "where" and s.dtype == BOOL:
                return False
        elif isinstance(s, lane.Arg) and s.dtype not in WIDE:
            return False
        elif isinstance(s, lane.Imm) and s.dtype not in WIDE:
            return False
    return True


class _Text:
    """Statements that compute an expression once per distinct subexpression."""

    def __init__(self, args: Mapping[int, str]) -> None:
        self.lines: list[str] = []
        self.args = args
        self.done: dict[lane.Expr, str] = {}

    def let(self, ctype: str, text: str) -> str:
        name = f"t{len(self.lines)}"
        self.lines.append(f"const {ctype} {name} = {text};")
        return name


class _Vector(_Text):
    def of(self, e: lane.Expr) -> str:
        if e not in self.done:
            self.done[e] = self._of(e)
        return self.done[e]

    def _of(self, e: lane.Expr) -> str:
        if isinstance(e, lane.Arg):
            return self.args[e.index]
        if isinstance(e, lane.Imm):
            return f"sp_set1_f32({literal(e.value, F32)})"
        if e.fn == "cast":
            return self.of(e.args[0])
        ctype = "sp_mask" if e.dtype == BOOL else "sp_f32"
        return self.let(ctype, self._call(e))

    def _call(self, e: lane.Call) -> str:
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
        if e.fn == "where":
            return f"sp_select_f32({', '.join(args)})"
        if e.fn in ("and", "or", "xor", "not"):
            return f"sp_mask_{e.fn}({', '.join(args)})"
        return f"sp_{e.fn}_f32({', '.join(args)})"


class _Scalar(_Text):
    def of(self, e: lane.Expr) -> str:
        if e not in self.done:
            self.done[e] = self._of(e)
        return self.done[e]

    def _of(self, e: lane.Expr) -> str:
        if isinstance(e, lane.Arg):
            return self.args[e.index]
        if isinstance(e, lane.Imm):
            return literal(e.value, e.dtype)
        args = [self.of(a) for a in e.args]
        if e.fn == "cast":
            text = _cast(args[0], e.args[0].dtype, e.dtype)
        else:
            text = _scalar_call(e.fn, e.args[-1].dtype if e.fn != "pow" else e.args[0].dtype, args)
        return self.let(compute(e.dtype), text)


def _cast(x: str, source: DType, to: DType) -> str:
    if to in (F16, BF16):
        wide = x if source in WIDE else f"(float){x}"
        return f"sp_round_{'f16' if to == F16 else 'bf16'}({wide})"
    if source.kind == "float" and to.kind in ("int", "uint"):
        wide = f"(double){x}" if source in WIDE else x
        return f"sp_f64_to_{'u' if to.kind == 'uint' else 'i'}{max(to.bits, 8)}({wide})"
    if to == BOOL:
        return f"(uint8_t)({x} != 0)"
    return f"({compute(to)}){x}"


def _scalar_call(fn: str, dtype: DType, a: list[str]) -> str:
    """One call over scalars; ``dtype`` is that of the last argument."""
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
    if fn in ("mod", "fmod", "pow"):
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
    names = {"div": "idiv", "mod": "imod", "fmod": "irem", "pow": "ipow"}
    return f"({t})sp_{names[fn]}_{suffix}({a[0]}, {a[1]})"


def vector(e: lane.Expr, args: Mapping[int, str]) -> tuple[list[str], str]:
    """Statements and result (an sp_f32) of a `vectorizable` expression over sp_f32 operands."""
    t = _Vector(args)
    y = t.of(e)
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
