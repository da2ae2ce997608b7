"""Elementwise operators and activations: one lane expression each, between codes if quantized."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from sparrow import lane
from sparrow.importers.tflite.call import Call, Decoder
from sparrow.importers.tflite.decode.shifted import shifted
from sparrow.lane import Expr, imm_like
from sparrow.ops.quantize import Dequantize
from sparrow.ops.reduce import Reduce
from sparrow.ops.softmax import Softmax
from sparrow.tensor import BOOL


def _unary(make: Callable[[Call, Expr], Expr]) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        x = n.real()
        return [n.write(n.b.lane(make(n, n.b.arg(0, x)), x))]

    return decode


def _fn(name: str) -> Decoder:
    return _unary(lambda _, x: lane.call(name, x))


def _clip(low: float, high: float) -> Decoder:
    return _unary(lambda _, x: lane.clip(x, imm_like(low, x), imm_like(high, x)))


def _binary(make: Callable[[Expr, Expr], Expr]) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        a, b = n.real(0), n.real(1)
        y = n.b.lane(make(n.b.arg(0, a), n.b.arg(1, b)), a, b)
        return [n.write(n.activated(y))]

    return decode


def _fn2(name: str) -> Decoder:
    return _binary(lambda a, b: lane.call(name, a, b))


def _arithmetic(name: str) -> Decoder:
    """ADD, SUB and MUL, of which LiteRT has kernels over codes."""

    def decode(n: Call) -> Sequence[str]:
        y = shifted(n, name) if name != "mul" else None
        if y is not None:
            return [y]
        return [n.write(n.activated(n.b.call(name, _codes(n, 0), _codes(n, 1))))]

    return decode


def _codes(n: Call, i: int) -> str:
    """`Call.real` of an operand that stays codes.

    A constant of one element would be folded to a float, of which the integer form is a table, and
    not LiteRT's arithmetic. It is written as often as the innermost axis of the other needs it.
    """
    x, value = n.real(i), n.b.value(n.x(i))
    other = n.type(1 - i)
    if value is None or value.size != 1 or not n.tensor(i).quantized or other.size == 1:
        return x
    own = next(s for k in range(1, other.rank + 1) if prod(s := other.shape[-k:]) != 1)
    shape = (1,) * (value.ndim - len(own)) + own
    quant = n.tensor(i).affine(shape)
    codes = np.broadcast_to(value.reshape(()), shape).copy()
    return n.b.add(Dequantize(quant), n.b.const(codes, n.type(i).dtype, quant))


def _select(cond: Expr, a: Expr, b: Expr) -> Expr:
    return lane.call("where", cond, a, b)


def _floor_div(a: Expr, b: Expr) -> Expr:
    if a.dtype.kind == "float":
        return lane.call("floor", lane.call("div", a, b))
    q = lane.call("div", a, b)
    zero = imm_like(0, a)
    inexact = lane.call("not", lane.call("eq", lane.call("mul", q, b), a))
    opposite = lane.call("xor", lane.call("lt", a, zero), lane.call("lt", b, zero))
    down = lane.call("sub", q, imm_like(1, a))
    return _select(lane.call("and", inexact, opposite), down, q)


def _square_of_difference(a: Expr, b: Expr) -> Expr:
    d = lane.call("sub", a, b)
    return lane.call("mul", d, d)


def _not_equal(a: Expr, b: Expr) -> Expr:
    return lane.call("not", lane.call("eq", a, b))


def _compare(make: Callable[[Expr, Expr], Expr]) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        a, b = n.real(0), n.real(1)
        return [n.b.lane(make(n.b.arg(0, a), n.b.arg(1, b)), a, b)]

    return decode


def _cmp(name: str) -> Decoder:
    return _compare(lambda a, b: lane.call(name, a, b))


def _extreme(name: str) -> Decoder:
    """Maximum or minimum, of the codes where they order like the numbers."""

    def decode(n: Call) -> Sequence[str]:
        if n.alike(0, 1):
            return [n.b.call(name, n.x(0), n.x(1))]
        return [n.write(n.b.call(name, n.real(0), n.real(1)))]

    return decode


def _leaky(n: Call, x: Expr) -> Expr:
    neg = lane.call("mul", imm_like(float(n.option("alpha")), x), x)
    return _select(lane.call("lt", x, imm_like(0, x)), neg, x)


def _elu(n: Call, x: Expr) -> Expr:
    return _select(lane.call("lt", x, imm_like(0, x)), lane.call("expm1", x), x)


def _gelu(n: Call, x: Expr) -> Expr:
    return lane.call("gelu_tanh" if n.option("approximate") else "gelu", x)


def _rsqrt(n: Call, x: Expr) -> Expr:
    return lane.call("div", imm_like(1, x), lane.call("sqrt", x))


def _prelu(n: Call) -> Sequence[str]:
    x, slope = n.float(0), n.float(1)
    a, s = n.b.arg(0, x), n.b.arg(1, slope)
    y = _select(lane.call("lt", a, imm_like(0, a)), lane.call("mul", s, a), a)
    return [n.write(n.b.lane(y, x, slope))]


def _add_n(n: Call) -> Sequence[str]:
    y = n.real(0)
    for i in range(1, len(n.ins)):
        y = n.b.call("add", y, n.real(i))
    return [n.write(y)]


def _where(n: Call) -> Sequence[str]:
    """SELECT has a condition per row as well: a vector over the first axis."""
    cond = n.x(0)
    rank = n.type(1).rank
    if n.op == "SELECT" and n.type(0).rank == 1 and rank > 1:
        cond = n.b.reshape(cond, (n.type(0).size, *(1,) * (rank - 1)))
    if n.alike(1, 2):
        return [n.b.call("where", cond, n.x(1), n.x(2))]
    return [n.write(n.b.call("where", cond, n.real(1), n.real(2)))]


def _cast(n: Call) -> Sequence[str]:
    return [n.b.cast(n.x(), n.outs[0].dtype)]


def _softmax(log: bool) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        x = n.float()
        if n.b.type(x).rank < 1:
            raise n.bad(f"softmax of {n.type()}")
        beta = 1.0 if log else float(n.option("beta"))
        if beta != 1.0:
            x = n.b.lane(lane.call("mul", n.b.arg(0, x), imm_like(beta, n.b.arg(0, x))), x)
        return [n.write(n.b.add(Softmax(n.b.type(x).rank - 1, log), x))]

    return decode


def _l2_normalization(n: Call) -> Sequence[str]:
    x = n.float()
    if n.b.type(x).rank < 1:
        raise n.bad(f"normalization of {n.type()}")
    total = n.b.add(Reduce("sum", (n.b.type(x).rank - 1,)), n.b.call("mul", x, x))
    e, s = n.b.arg(0, x), n.b.arg(1, total)
    norm = lane.call("sqrt", lane.call("max", s, imm_like(1e-12, s)))
    return [n.write(n.activated(n.b.lane(lane.call("div", e, norm), x, total)))]


def _requantize(n: Call) -> Sequence[str]:
    """QUANTIZE, of numbers or of codes that mean something else, and DEQUANTIZE."""
    return [n.write(n.real())]


def _fake_quant(n: Call) -> Sequence[str]:
    """Rounding to ``bits`` codes between ``min`` and ``max``, nudged so that 0 is one of them."""
    low, high, bits = float(n.option("min")), float(n.option("max")), int(n.option("bits"))
    if not 2 <= bits <= 16 or not low < high or not low <= 0 <= high:
        raise n.bad(f"min {low}, max {high}, bits {bits}")
    first, last = int(bool(n.option("narrow"))), (1 << bits) - 1
    scale = (high - low) / (last - first)
    zero = min(last, max(first, round(first - low / scale)))
    x = n.float()
    e = n.b.arg(0, x)
    nudged = [imm_like((c - zero) * scale, e) for c in (first, last)]
    shifted = lane.call("sub", lane.clip(e, nudged[0], nudged[1]), nudged[0])
    half = lane.call("add", lane.call("mul", shifted, imm_like(1 / scale, e)), imm_like(0.5, e))
    y = lane.call("mul", lane.call("floor", half), imm_like(scale, e))
    return [n.write(n.b.lane(lane.call("add", y, nudged[0]), x))]


def _logical(name: str) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        args = [n.x(i) for i in range(lane.BY_NAME[name].arity)]
        if any(n.b.type(a).dtype != BOOL for a in args):
            raise n.bad(f"operands are {', '.join(map(str, (n.b.type(a) for a in args)))}")
        return [n.b.call(name, *args)]

    return decode


DECODERS: Mapping[str, Decoder] = {
    **{
        k: _fn(v)
        for k, v in {
            "ABS": "abs",
            "CEIL": "ceil",
            "COS": "cos",
            "EXP": "exp",
            "FLOOR": "floor",
            "HARD_SWISH": "hardswish",
            "LOG": "log",
            "LOGISTIC": "sigmoid",
            "NEG": "neg",
            "RELU": "relu",
            "ROUND": "round",
            "SIGN": "sign",
            "SIN": "sin",
            "SQRT": "sqrt",
            "TANH": "tanh",
        }.items()
    },
    "DIV": _fn2("div"),
    **{k: _arithmetic(k.lower()) for k in ("ADD", "SUB", "MUL")},
    **{
        k: _cmp(v)
        for k, v in {
            "EQUAL": "eq",
            "GREATER": "gt",
            "GREATER_EQUAL": "ge",
            "LESS": "lt",
            "LESS_EQUAL": "le",
        }.items()
    },
    "ADD_N": _add_n,
    "CAST": _cast,
    "DEQUANTIZE": _requantize,
    "ELU": _unary(_elu),
    "FAKE_QUANT": _fake_quant,
    "FLOOR_DIV": _binary(_floor_div),
    "FLOOR_MOD": _fn2("mod"),
    "GELU": _unary(_gelu),
    "L2_NORMALIZATION": _l2_normalization,
    "LEAKY_RELU": _unary(_leaky),
    "LOGICAL_AND": _logical("and"),
    "LOGICAL_NOT": _logical("not"),
    "LOGICAL_OR": _logical("or"),
    "LOG_SOFTMAX": _softmax(log=True),
    "MAXIMUM": _extreme("max"),
    "MINIMUM": _extreme("min"),
    "NOT_EQUAL": _compare(_not_equal),
    "POW": _fn2("pow"),
    "PRELU": _prelu,
    "QUANTIZE": _requantize,
    "RELU6": _clip(0.0, 6.0),
    "RELU_0_TO_1": _clip(0.0, 1.0),
    "RELU_N1_TO_1": _clip(-1.0, 1.0),
    "RSQRT": _unary(_rsqrt),
    "SELECT": _where,
    "SELECT_V2": _where,
    "SOFTMAX": _softmax(log=False),
    "SQUARE": _unary(lambda _, x: lane.call("mul", x, x)),
    "SQUARED_DIFFERENCE": _binary(_square_of_difference),
}
