"""Lane expressions: what a fused elementwise loop computes for one element.

An expression is a tree of calls over arguments and immediates, all typed. ``LANE_FNS`` is the table
of functions: what each means in NumPy, how it is written in ONNX, and which result type it has. How
it is written in C belongs to the emitter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.tensor import BF16, BOOL, F16, F32, Array, DType, round_bfloat16


@dataclass(frozen=True, slots=True)
class Arg:
    """The element of operand ``index`` at this position (operands broadcast to the output)."""

    index: int
    dtype: DType


@dataclass(frozen=True, slots=True)
class Imm:
    """A literal."""

    value: float | int | bool
    dtype: DType

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Imm) or self.dtype != other.dtype:
            return False
        # a zero has a sign, and NaN is itself
        return repr(self.value) == repr(other.value)

    def __hash__(self) -> int:
        return hash((self.value if self.value == self.value else None, self.dtype))


@dataclass(frozen=True, slots=True)
class Call:
    """A function of `LANE_FNS` applied to expressions; ``cast`` converts to ``dtype``."""

    fn: str
    args: tuple[Expr, ...]
    dtype: DType


Expr: TypeAlias = Arg | Imm | Call


@dataclass(frozen=True, slots=True)
class LaneFn:
    """A row of the lane table.

    Attributes:
        name: Name in expressions, texts and C (``sp_<name>_f32``).
        arity: Number of arguments.
        eval: NumPy meaning; arguments arrive in their storage dtypes.
        result: ``"same"`` as the first argument, ``"bool"``, ``"second"`` (where), or ``"cast"``.
        onnx: ONNX operator and attributes with the same meaning, or None when `expand` says it.
        cost: Relative cost of one evaluation; 1 is an addition.
        kinds: DType kinds the function takes.
    """

    name: str
    arity: int
    eval: Callable[..., Any]
    result: Literal["same", "bool", "second", "cast"] = "same"
    onnx: tuple[str, tuple[tuple[str, Any], ...]] | None = None
    cost: int = 1
    kinds: str = "float int uint"


def _idiv(a: Array, b: Array) -> Any:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    # C truncation; a zero divisor gives 0, as in the native code (ONNX leaves it undefined)
    safe = np.where(b == 0, np.ones_like(b), b)
    q = np.floor_divide(a, safe)
    r = a - q * safe
    q = q + ((r != 0) & ((a < 0) != (safe < 0))).astype(a.dtype)
    return np.where(b == 0, np.zeros_like(q), q).astype(a.dtype)


def _mod(a: Array, b: Array) -> Any:
    if a.dtype.kind == "f":
        return np.mod(a, b)
    return np.where(b == 0, np.zeros_like(a), np.mod(a, np.where(b == 0, np.ones_like(b), b)))


def _fmod(a: Array, b: Array) -> Any:
    if a.dtype.kind == "f":
        return np.fmod(a, b)
    return np.where(b == 0, np.zeros_like(a), np.fmod(a, np.where(b == 0, np.ones_like(b), b)))


def _pow(a: Array, b: Array) -> Any:
    if a.dtype.kind != "f":
        r = np.power(a.astype(np.float64), b.astype(np.float64))
        return convert(r, np.dtype(a.dtype))
    return np.power(a, b.astype(a.dtype))


# scipy.special takes 0.1 s to import, which commands that evaluate nothing need not pay
def _sigmoid(x: Array) -> Any:
    from scipy.special import expit

    return expit(x)


def _erf(x: Array) -> Any:
    from scipy.special import erf

    return erf(x)


def _softplus(x: Array) -> Any:
    return np.logaddexp(x, np.zeros((), x.dtype))


def _gelu(x: Array) -> Any:
    half = x.dtype.type(0.5)
    return half * x * (1 + _erf(x * x.dtype.type(0.7071067811865476)))


def _gelu_tanh(x: Array) -> Any:
    t = x.dtype.type
    return t(0.5) * x * (1 + np.tanh(t(0.7978845608028654) * (x + t(0.044715) * x * x * x)))


def _hardswish(x: Array) -> Any:
    t = x.dtype.type
    return x * np.clip(x * t(1 / 6) + t(0.5), t(0), t(1))


def _shl(a: Array, b: Array) -> Array:
    wide = np.where(b < 8 * a.itemsize, b, 0).astype(a.dtype)
    return np.where(b < 8 * a.itemsize, np.left_shift(a, wide), 0).astype(a.dtype)


def _shr(a: Array, b: Array) -> Array:
    wide = np.where(b < 8 * a.itemsize, b, 0).astype(a.dtype)
    return np.where(b < 8 * a.itemsize, np.right_shift(a, wide), 0).astype(a.dtype)


def _rshr(a: Array, b: Array) -> Array:
    """Rounding shift right: floor((a + 2^(b - 1)) / 2^b), 0 <= b < bits; the sum must fit."""
    half = np.left_shift(np.ones_like(b), np.maximum(b - 1, 0)) * (b > 0)
    return np.asarray(np.right_shift(a + half.astype(a.dtype), b.astype(a.dtype)))


def _row(name: str, fn: Callable[..., Any], op: str | None = None, **more: Any) -> LaneFn:
    attrs = tuple(more.pop("attrs", {}).items())
    onnx = None if op is None else (op, attrs)
    return LaneFn(name, more.pop("arity", 1), fn, onnx=onnx, **more)


_F = "float"
LANE_FNS = (
    _row("add", np.add, "Add", arity=2),
    _row("sub", np.subtract, "Sub", arity=2),
    _row("mul", np.multiply, "Mul", arity=2),
    _row("div", _idiv, "Div", arity=2, cost=4),
    _row("pow", _pow, "Pow", arity=2, cost=40),
    _row("max", np.maximum, "Max", arity=2),
    _row("min", np.minimum, "Min", arity=2),
    _row("mod", _mod, "Mod", arity=2, cost=8),
    _row("fmod", _fmod, "Mod", arity=2, cost=8, attrs={"fmod": 1}),
    _row("eq", np.equal, "Equal", arity=2, result="bool", kinds="float int uint bool"),
    _row("lt", np.less, "Less", arity=2, result="bool"),
    _row("le", np.less_equal, "LessOrEqual", arity=2, result="bool"),
    _row("gt", np.greater, "Greater", arity=2, result="bool"),
    _row("ge", np.greater_equal, "GreaterOrEqual", arity=2, result="bool"),
    _row("and", np.logical_and, "And", arity=2, result="bool", kinds="bool"),
    _row("or", np.logical_or, "Or", arity=2, result="bool", kinds="bool"),
    _row("xor", np.logical_xor, "Xor", arity=2, result="bool", kinds="bool"),
    _row("not", np.logical_not, "Not", result="bool", kinds="bool"),
    _row("bitand", np.bitwise_and, "BitwiseAnd", arity=2, kinds="int uint"),
    _row("bitor", np.bitwise_or, "BitwiseOr", arity=2, kinds="int uint"),
    _row("bitxor", np.bitwise_xor, "BitwiseXor", arity=2, kinds="int uint"),
    _row("bitnot", np.invert, "BitwiseNot", kinds="int uint"),
    _row("shl", _shl, "BitShift", arity=2, attrs={"direction": "LEFT"}, kinds="uint"),
    _row("shr", _shr, "BitShift", arity=2, attrs={"direction": "RIGHT"}, kinds="uint"),
    _row("rshr", _rshr, None, arity=2, kinds="int"),
    _row("where", np.where, "Where", arity=3, result="second", kinds="float int uint bool"),
    _row("abs", np.abs, "Abs"),
    _row("neg", np.negative, "Neg", kinds="float int"),
    _row("sign", np.sign, "Sign"),
    _row("floor", np.floor, "Floor", kinds=_F),
    _row("ceil", np.ceil, "Ceil", kinds=_F),
    _row("round", np.rint, "Round", kinds=_F),
    _row("trunc", np.trunc, None, kinds=_F),
    _row("sqrt", np.sqrt, "Sqrt", cost=4, kinds=_F),
    _row("exp", np.exp, "Exp", cost=12, kinds=_F),
    _row("expm1", np.expm1, None, cost=16, kinds=_F),
    _row("log", np.log, "Log", cost=12, kinds=_F),
    _row("log1p", np.log1p, None, cost=16, kinds=_F),
    _row("sin", np.sin, "Sin", cost=20, kinds=_F),
    _row("cos", np.cos, "Cos", cost=20, kinds=_F),
    _row("tan", np.tan, "Tan", cost=24, kinds=_F),
    _row("asin", np.arcsin, "Asin", cost=20, kinds=_F),
    _row("acos", np.arccos, "Acos", cost=20, kinds=_F),
    _row("atan", np.arctan, "Atan", cost=20, kinds=_F),
    _row("sinh", np.sinh, "Sinh", cost=20, kinds=_F),
    _row("cosh", np.cosh, "Cosh", cost=20, kinds=_F),
    _row("tanh", np.tanh, "Tanh", cost=14, kinds=_F),
    _row("asinh", np.arcsinh, "Asinh", cost=20, kinds=_F),
    _row("acosh", np.arccosh, "Acosh", cost=20, kinds=_F),
    _row("atanh", np.arctanh, "Atanh", cost=20, kinds=_F),
    _row("erf", _erf, "Erf", cost=16, kinds=_F),
    _row("sigmoid", _sigmoid, "Sigmoid", cost=14, kinds=_F),
    _row("softplus", _softplus, "Softplus", cost=24, kinds=_F),
    _row("relu", lambda x: np.maximum(x, x.dtype.type(0)), "Relu", kinds="float int"),
    _row("gelu", _gelu, None, cost=18, kinds=_F),
    _row("gelu_tanh", _gelu_tanh, None, cost=18, kinds=_F),
    _row("silu", lambda x: x * _sigmoid(x), None, cost=15, kinds=_F),
    _row("hardswish", _hardswish, None, cost=4, kinds=_F),
    _row("isnan", np.isnan, "IsNaN", result="bool", kinds=_F),
    LaneFn("cast", 1, lambda x: x, "cast", None, 1, "float int uint bool"),
)
BY_NAME = {f.name: f for f in LANE_FNS}


def call(fn: str, *args: Expr) -> Call:
    """Apply a lane function, with its result type.

    Raises:
        InvalidGraph: Wrong number or dtypes of arguments.
    """
    row = BY_NAME[fn]
    if len(args) != row.arity:
        raise InvalidGraph(f"{fn} takes {row.arity} arguments, got {len(args)}")
    typed = args[1:] if row.result == "second" else args
    if row.result == "second" and args[0].dtype != BOOL:
        raise InvalidGraph(f"{fn} needs a bool condition, got {args[0].dtype}")
    if any(a.dtype != typed[0].dtype for a in typed) and fn != "pow":
        raise InvalidGraph(f"{fn} mixes dtypes {', '.join(a.dtype.name for a in typed)}")
    if typed[0].dtype.kind not in row.kinds.split():
        raise InvalidGraph(f"{fn} is not defined for {typed[0].dtype}")
    return Call(fn, args, BOOL if row.result == "bool" else typed[0].dtype)


def cast(x: Expr, dtype: DType) -> Expr:
    """Convert to ``dtype``; the identity when it already has it."""
    return x if x.dtype == dtype else Call("cast", (x,), dtype)


def imm_like(value: float, x: Expr) -> Imm:
    """A literal of the dtype of ``x``.

    Raises:
        InvalidGraph: An integer type does not have the value.
    """
    if x.dtype.kind == "float":
        return Imm(float(value), x.dtype)
    low, high = (0, 1) if x.dtype == BOOL else x.dtype.limits
    if not (low <= value <= high and value == int(value)):
        raise InvalidGraph(f"{value} is no {x.dtype}")
    return Imm(int(value), x.dtype)


def clip(x: Expr, lo: Expr | None, hi: Expr | None) -> Expr:
    """min(max(x, lo), hi); a missing bound is none."""
    if lo is not None:
        x = call("max", x, lo)
    return x if hi is None else call("min", x, hi)


def convert(x: Array, dtype: np.dtype[Any]) -> Array:
    """Cast with defined results: float to int truncates, saturates and maps NaN to 0."""
    if x.dtype.kind == "f" and dtype.kind in "iu":
        info = np.iinfo(dtype)
        t = np.trunc(np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf))
        # float64(max) may round up to max + 1: compare first, convert only what is inside
        high, low = t >= float(info.max), t <= float(info.min)
        safe = np.where(high | low, 0.0, t).astype(dtype)
        return np.where(high, info.max, np.where(low, info.min, safe)).astype(dtype)
    return x.astype(dtype)


def evaluate(e: Expr, operands: Sequence[Array]) -> Array:
    """Value of an expression over broadcast operands, each step rounded to its dtype.

    Half types compute in float32, as kernels do: conversions to them round, and the result.
    """
    with np.errstate(all="ignore"):
        y = _value(e, operands, _shared(e), {})
        return _cast(y, e.dtype) if e.dtype in (F16, BF16) else y


def _shared(e: Expr) -> set[int]:
    """Identities of the calls that several others have as an argument.

    By identity, as hashing a node walks all below it, 2 to the power of the depth at worst.
    """
    seen: set[int] = set()
    again: set[int] = set()
    left = [e]
    while left:
        at = left.pop()
        if isinstance(at, Call) and id(at) in seen:
            again.add(id(at))
        elif isinstance(at, Call):
            seen.add(id(at))
            left.extend(at.args)
    return again


def _value(e: Expr, operands: Sequence[Array], shared: set[int], known: dict[int, Array]) -> Array:
    """`evaluate`; ``known`` has the values of shared calls so far."""
    if isinstance(e, Imm):
        return _wide(np.asarray(e.value, e.dtype.numpy))
    if isinstance(e, Arg):
        return _wide(operands[e.index])
    if id(e) in known:
        return known[id(e)]
    y = _applied(e, [_value(a, operands, shared, known) for a in e.args])
    if id(e) in shared:
        known[id(e)] = y
    return y


def _applied(e: Call, args: Sequence[Array]) -> Array:
    if e.fn == "cast":
        return _wide(_cast(args[0], e.dtype))
    y = np.asarray(BY_NAME[e.fn].eval(*args))
    return y.astype(np.float32 if e.dtype in (F16, BF16) else e.dtype.numpy, copy=False)


def _cast(x: Array, to: DType) -> Array:
    if to == BF16:
        return round_bfloat16(x.astype(np.float32))
    return convert(np.asarray(x), to.numpy)


def _wide(x: Array) -> Array:
    return x.astype(np.float32) if x.dtype == np.float16 else x


def substitute(e: Expr, args: Sequence[Expr]) -> Expr:
    """``e`` with Arg(i) replaced by ``args[i]``."""
    if isinstance(e, Arg):
        return args[e.index]
    if isinstance(e, Imm):
        return e
    return Call(e.fn, tuple(substitute(a, args) for a in e.args), e.dtype)


def replaced(e: Expr, old: Expr, new: Expr) -> Expr:
    """``e`` with ``new`` in all places of a part of it."""
    if e == old:
        return new
    if isinstance(e, Call):
        return Call(e.fn, tuple(replaced(a, old, new) for a in e.args), e.dtype)
    return e


def walk(e: Expr) -> Iterator[Expr]:
    """Every subexpression, children first."""
    if isinstance(e, Call):
        for a in e.args:
            yield from walk(a)
    yield e


def cost(e: Expr) -> int:
    """Sum of the costs of the distinct calls in ``e``."""
    return sum(BY_NAME[c.fn].cost for c in set(walk(e)) if isinstance(c, Call))


def compact(e: Expr, names: Sequence[str]) -> tuple[Expr, tuple[str, ...]]:
    """Renumber arguments so that each distinct name of ``names`` that is used appears once."""
    used = [a.index for a in walk(e) if isinstance(a, Arg)]
    order = tuple(dict.fromkeys(names[i] for i in used))
    dtypes = {a.index: a.dtype for a in walk(e) if isinstance(a, Arg)}
    size = max(used, default=-1) + 1
    table = [
        Arg(order.index(names[i]), dtypes[i]) if i in dtypes else Arg(0, F32) for i in range(size)
    ]
    return substitute(e, table), order
