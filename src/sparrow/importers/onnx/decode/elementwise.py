"""Elementwise operators: each becomes one lane expression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from sparrow import lane
from sparrow.importers.onnx.call import Call, Decoder, elem_type
from sparrow.lane import Expr, Imm, imm_like
from sparrow.tensor import BOOL, F32, F64, I32, I64, U32, U64, DType


def _direct(fn: str) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        return [n.b.call(fn, *(n.x(i) for i in range(lane.BY_NAME[fn].arity)))]

    return decode


def _aligned(decoder: Decoder) -> Decoder:
    """Before opset 7 the second operand began at attribute ``axis`` of the first."""

    def decode(n: Call) -> Sequence[str]:
        rank, own = n.type(0).rank, n.type(1).shape
        if n.version >= 7 or n.attr("axis") is None or not own:
            return decoder(n)
        behind = rank - n.axis(int(n.attr("axis")), rank) - len(own)
        if behind < 0:
            raise n.bad(f"{n.type(1)} does not fit {n.type(0)} from axis {n.attr('axis')}")
        second = n.b.reshape(n.x(1), (*own, *(1,) * behind))
        return decoder(replace(n, inputs=(n.x(), second)))

    return decode


def _unary(make: Callable[[Call, Expr], Expr]) -> Decoder:
    """An expression of one operand and the node's attributes."""

    def decode(n: Call) -> Sequence[str]:
        return [n.b.lane(make(n, n.b.arg(0, n.x())), n.x())]

    return decode


# Operands of one expression: its depth is that of recursive functions, whatever a model asks for.
AT_ONCE = 16
MAX_OPERANDS = 1000


def _variadic(fn: str, mean: bool = False) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        if len(n.inputs) > MAX_OPERANDS:
            raise n.unsupported(
                f"{len(n.inputs)} operands, at most {MAX_OPERANDS}", "combine them in groups"
            )
        y, rest = n.x(), n.xs(1)
        while True:
            names = (y, *rest[:AT_ONCE])
            args = [n.b.arg(i, x) for i, x in enumerate(names)]
            e: Expr = args[0]
            for a in args[1:]:
                e = lane.call(fn, e, a)
            rest = rest[AT_ONCE:]
            if mean and not rest:
                e = lane.call("div", e, imm_like(len(n.inputs), e))
            y = n.b.lane(e, *names)
            if not rest:
                return [y]

    return decode


def _f(n: Call, name: str, default: float, x: Expr) -> Imm:
    return imm_like(float(np.float32(n.attr(name, default))), x)


def _select(cond: Expr, a: Expr, b: Expr) -> Expr:
    return lane.call("where", cond, a, b)


def _elu(n: Call, x: Expr) -> Expr:
    neg = lane.call("mul", _f(n, "alpha", 1.0, x), lane.call("expm1", x))
    return _select(lane.call("lt", x, imm_like(0, x)), neg, x)


def _celu(n: Call, x: Expr) -> Expr:
    alpha = _f(n, "alpha", 1.0, x)
    neg = lane.call("mul", alpha, lane.call("expm1", lane.call("div", x, alpha)))
    return lane.call("add", lane.call("relu", x), lane.call("min", imm_like(0, x), neg))


def _selu(n: Call, x: Expr) -> Expr:
    alpha, gamma = _f(n, "alpha", 1.6732632423543772, x), _f(n, "gamma", 1.0507009873554805, x)
    neg = lane.call("mul", alpha, lane.call("expm1", x))
    y = _select(lane.call("le", x, imm_like(0, x)), neg, x)
    return lane.call("mul", gamma, y)


def _leaky(n: Call, x: Expr) -> Expr:
    neg = lane.call("mul", _f(n, "alpha", 0.01, x), x)
    return _select(lane.call("lt", x, imm_like(0, x)), neg, x)


def _thresholded(n: Call, x: Expr) -> Expr:
    return _select(lane.call("gt", x, _f(n, "alpha", 1.0, x)), x, imm_like(0, x))


def _hardsigmoid(n: Call, x: Expr) -> Expr:
    y = lane.call("add", lane.call("mul", _f(n, "alpha", 0.2, x), x), _f(n, "beta", 0.5, x))
    return lane.clip(y, imm_like(0, x), imm_like(1, x))


def _softsign(n: Call, x: Expr) -> Expr:
    return lane.call("div", x, lane.call("add", imm_like(1, x), lane.call("abs", x)))


def _shrink(n: Call, x: Expr) -> Expr:
    if x.dtype.kind != "float":
        # bias and lambd are floats for integers too, and -lambd is no unsigned number
        return lane.cast(_shrink(n, lane.cast(x, F64)), x.dtype)
    bias, lambd = _f(n, "bias", 0.0, x), _f(n, "lambd", 0.5, x)
    low = lane.call("lt", x, lane.call("neg", lambd))
    high = lane.call("gt", x, lambd)
    inner = _select(high, lane.call("sub", x, bias), imm_like(0, x))
    return _select(low, lane.call("add", x, bias), inner)


def _reciprocal(n: Call, x: Expr) -> Expr:
    return lane.call("div", imm_like(1, x), x)


def _gelu(n: Call, x: Expr) -> Expr:
    form = n.attr("approximate", "none")
    if form not in ("none", "tanh"):
        raise n.bad(f"approximate is {form!r}, expected 'none' or 'tanh'")
    return lane.call("gelu_tanh" if form == "tanh" else "gelu", x)


def _mish(n: Call, x: Expr) -> Expr:
    return lane.call("mul", x, lane.call("tanh", lane.call("softplus", x)))


def _swish(n: Call, x: Expr) -> Expr:
    alpha = float(n.attr("alpha", 1.0))
    if alpha == 1.0:
        return lane.call("silu", x)
    return lane.call("mul", x, lane.call("sigmoid", lane.call("mul", x, imm_like(alpha, x))))


def _isinf(n: Call, x: Expr) -> Expr:
    pos = lane.call("eq", x, imm_like(float("inf"), x))
    neg = lane.call("eq", x, imm_like(float("-inf"), x))
    if n.attr("detect_positive", 1) and n.attr("detect_negative", 1):
        return lane.call("or", pos, neg)
    if n.attr("detect_positive", 1):
        return pos
    return neg if n.attr("detect_negative", 1) else lane.call("and", pos, neg)


def _clip(n: Call) -> Sequence[str]:
    x = n.b.arg(0, n.x())
    if n.version < 11:
        lo = None if n.attr("min") is None else imm_like(n.attr("min"), x)
        hi = None if n.attr("max") is None else imm_like(n.attr("max"), x)
        return [n.b.lane(lane.clip(x, lo, hi), n.x())]
    names, bounds = [n.x()], []
    for i in (1, 2):
        bounds.append(n.b.arg(len(names), n.x(i)) if n.has(i) else None)
        if n.has(i):
            names.append(n.x(i))
    return [n.b.lane(lane.clip(x, bounds[0], bounds[1]), *names)]


def _prelu(n: Call) -> Sequence[str]:
    x, slope = n.b.arg(0, n.x()), n.b.arg(1, n.x(1))
    name = n.x(1)
    if n.type(1).rank == 1 and n.type(0).rank > 2 and n.version < 7:
        # one slope per channel; later versions broadcast like everything else
        name = n.b.reshape(name, (n.type(1).size, *(1,) * (n.type(0).rank - 2)))
    neg = lane.call("mul", slope, x)
    return [n.b.lane(_select(lane.call("lt", x, imm_like(0, x)), neg, x), n.x(), name)]


def _pow(n: Call) -> Sequence[str]:
    x, p = n.x(), n.x(1)
    a, e = n.b.arg(0, x), n.b.arg(1, p)
    v = n.b.value(p)
    if v is not None and v.size == 1 and a.dtype.kind == "float":
        k = float(v.ravel()[0])
        if k == 2.0:
            return (
                [n.b.lane(lane.call("mul", a, a), x)]
                if v.ndim <= n.type().rank
                else [n.b.call("pow", x, p)]
            )
        if k == 0.5 and v.ndim <= n.type().rank:
            return [n.b.lane(lane.call("sqrt", a), x)]
    if a.dtype.kind != "float" and e.dtype.kind == "float":
        wide = lane.call("pow", lane.cast(a, F64), lane.cast(e, F64))
        return [n.b.lane(lane.cast(wide, a.dtype), x, p)]
    return [n.b.lane(lane.call("pow", a, lane.cast(e, a.dtype)), x, p)]


def _mod(n: Call) -> Sequence[str]:
    return [n.b.call("fmod" if n.attr("fmod", 0) else "mod", n.x(), n.x(1))]


def _bitshift(n: Call) -> Sequence[str]:
    direction = n.attr("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise n.bad(f"direction is {direction!r}, expected 'LEFT' or 'RIGHT'")
    fn = "shl" if direction == "LEFT" else "shr"
    if n.type().dtype.kind == "uint":
        return [n.b.call(fn, n.x(), n.x(1))]
    # signed: on the bits, at a width that every runtime shifts; no shift count is negative then
    dtype = n.type().dtype
    wide, bits = (I64, U64) if dtype.bits == 64 else (I32, U32)
    x = lane.cast(n.b.arg(0, n.x()), wide)
    by = lane.cast(lane.cast(n.b.arg(1, n.x(1)), wide), bits)
    if fn == "shl":
        y: Expr = lane.cast(lane.call("shl", lane.cast(x, bits), by), wide)
    else:
        negative = lane.call("lt", x, imm_like(0, x))
        magnitude = _select(negative, lane.call("bitnot", x), x)
        moved = lane.cast(lane.call("shr", lane.cast(magnitude, bits), by), wide)
        y = _select(negative, lane.call("bitnot", moved), moved)
    return [n.b.lane(lane.cast(y, dtype), n.x(), n.x(1))]


def _cast_to(n: Call, dtype: DType) -> Sequence[str]:
    return [n.b.cast(n.x(), dtype)]


def _cast(n: Call) -> Sequence[str]:
    return _cast_to(n, elem_type(int(n.attr("to", 0)), n.where))


def _cast_like(n: Call) -> Sequence[str]:
    return _cast_to(n, n.type(1).dtype)


def _identity(n: Call) -> Sequence[str]:
    return [n.x()]


def _dropout(n: Call) -> Sequence[str]:
    if n.version < 7 and not n.attr("is_test", 0):
        raise n.unsupported("training mode", "export the model for inference")
    mode = n.b.value(n.x(2)) if n.has(2) else None
    ratio = n.b.value(n.x(1)) if n.has(1) else None
    drops = ratio is None or bool(ratio.any())
    if n.has(2) and (mode is None or bool(mode.any())) and drops:
        raise n.unsupported("training mode", "export the model for inference")
    if n.n_outputs == 1:
        return [n.x()]
    dtype = BOOL if n.version >= 10 else n.type().dtype
    n.b.made(n.type().size, "the mask")
    return [n.x(), n.b.const(np.ones(n.type().shape, dtype.numpy), dtype)]


def _batch_norm(n: Call) -> Sequence[str]:
    """(x - mean) / sqrt(var + eps) * scale + bias over axis 1, as one multiply-add per channel."""
    training = n.attr("training_mode", 0) or (n.version < 7 and not n.attr("is_test", 0))
    if training or n.n_outputs > 1:
        raise n.unsupported("training mode", "export the model for inference")
    if not n.attr("spatial", 1):
        raise n.unsupported("statistics per element (spatial=0)")
    rank = n.type().rank
    # x, scale and mean may each have a type of their own
    dtype = F64 if F64 in (n.type(i).dtype for i in range(5)) else F32
    x, scale, bias, mean, var = (n.b.cast(n.x(i), dtype) for i in range(5))
    eps = n.b.scalar(n.attr("epsilon", 1e-5), dtype)
    g = n.b.call("div", scale, n.b.call("sqrt", n.b.call("add", var, eps)))
    shift = n.b.call("sub", bias, n.b.call("mul", mean, g))
    shape = (n.b.type(g).size, *(1,) * (rank - 2)) if rank > 1 else (n.b.type(g).size,)
    g, shift = (n.b.reshape(v, shape) for v in (g, shift))
    a, s, t = n.b.arg(0, x), n.b.arg(1, g), n.b.arg(2, shift)
    y = n.b.lane(lane.call("add", lane.call("mul", a, s), t), x, g, shift)
    return [n.b.cast(y, n.type().dtype)]


def _where(n: Call) -> Sequence[str]:
    return [n.b.call("where", n.x(), n.x(1), n.x(2))]


_UNARY_FNS = {
    "Abs": "abs", "Neg": "neg", "Sign": "sign", "Floor": "floor", "Ceil": "ceil", "Round": "round",
    "Sqrt": "sqrt", "Exp": "exp", "Log": "log", "Sin": "sin", "Cos": "cos", "Tan": "tan",
    "Asin": "asin", "Acos": "acos", "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh", "Tanh": "tanh",
    "Asinh": "asinh", "Acosh": "acosh", "Atanh": "atanh", "Erf": "erf", "Sigmoid": "sigmoid",
    "Softplus": "softplus", "Relu": "relu", "HardSwish": "hardswish", "IsNaN": "isnan",
    "Not": "not", "BitwiseNot": "bitnot",
}  # fmt: skip
_BINARY_FNS = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Equal": "eq", "Less": "lt",
    "LessOrEqual": "le", "Greater": "gt", "GreaterOrEqual": "ge", "And": "and", "Or": "or",
    "Xor": "xor", "BitwiseAnd": "bitand", "BitwiseOr": "bitor", "BitwiseXor": "bitxor",
}  # fmt: skip

DECODERS: Mapping[str, Decoder] = {
    **{k: _direct(v) for k, v in _UNARY_FNS.items()},
    **{k: _aligned(_direct(v)) for k, v in _BINARY_FNS.items()},
    "Elu": _unary(_elu),
    "Celu": _unary(_celu),
    "Selu": _unary(_selu),
    "LeakyRelu": _unary(_leaky),
    "ThresholdedRelu": _unary(_thresholded),
    "HardSigmoid": _unary(_hardsigmoid),
    "Softsign": _unary(_softsign),
    "Shrink": _unary(_shrink),
    "Reciprocal": _unary(_reciprocal),
    "Gelu": _unary(_gelu),
    "Mish": _unary(_mish),
    "Swish": _unary(_swish),
    "IsInf": _unary(_isinf),
    "Sum": _variadic("add"),
    "Mean": _variadic("add", mean=True),
    "Max": _variadic("max"),
    "Min": _variadic("min"),
    "Clip": _clip,
    "PRelu": _prelu,
    "Pow": _aligned(_pow),
    "Mod": _mod,
    "BitShift": _bitshift,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Identity": _identity,
    "Dropout": _dropout,
    "BatchNormalization": _batch_norm,
    "Where": _where,
}
