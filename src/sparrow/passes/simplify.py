"""Simplify lane expressions.

Exact (NaN and infinities included; of zeros only the sign may change):

    x * 1, x / 1, x + 0, x - 0, x ^ 1        ->  x
    x * -1                                   ->  -x
    -(-x), not not x, | |x| |, |-x|          ->  x, x, |x|, |x|
    a + (-b), a - (-b), (-a) * (-b)          ->  a - b, a + b, a * b
    x / 8                                    ->  x * 0.125          divisor a power of two
    max(max(x, 1), 2), max(x, 0)             ->  max(x, 2), relu(x)
    relu(sigmoid(x)), min(max(x, 0), 0..)    ->  what cannot bind goes: bounds are known
    where(not c, a, b), where(c, a, a)       ->  where(c, b, a), a
    x * sigmoid(x)                           ->  silu(x)
    f(1, 2), cast(cast(x)) through a wider type  ->  the value, x

Within rounding (float32 and float64 only; at most a few units in the last place):

    x ^ 2, x ^ 3, x ^ 0.5, x ^ -0.5, x ^ -1  ->  x * x, x * x * x, sqrt(x), 1 / sqrt(x), 1 / x
    a * (1 / b)                              ->  a / b
    1 / (1 + exp(-x)), x / (1 + exp(-x))     ->  sigmoid(x), silu(x)
    x * clip(x / 6 + 0.5, 0, 1)              ->  hardswish(x)       also x * clip(x + 3, 0, 6) / 6
    x * (1 + erf(x / sqrt(2))) / 2           ->  gelu(x)            in any association
    x * (1 + erf(x / sqrt(2)))               ->  gelu(x) * 2
    x * (1 + tanh(0.79788 (x + 0.044715 x^3))) / 2  ->  gelu_tanh(x)

A division by another constant stays: x * (1 / 49) is not 1 at x = 49, which a floor would show.
Float sums and products are not reassociated, and x * 0 stays: x may be infinite. x ^ 0.5 of -inf
was inf.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from operator import is_

from sparrow import lane
from sparrow.graph import Node
from sparrow.lane import Call, Expr, Imm, call, imm_like
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.passes.literals import spans
from sparrow.passes.polynomial import close, factors, is_polynomial
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, F64, DType

INF = math.inf


def simplify(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Lane, or an op with an epilogue, whose expression has a simpler form."""
    if isinstance(n.op, Lane):
        e = simpler(n.op.expr)
        if e == n.op.expr:
            return None
        e, names = lane.compact(e, n.inputs)
        if not names or not spans(m, names, m.type(n.outputs[0]).shape):
            return Reject("an operand gives only the shape of the result")
        return Rewrite((Node(Lane(e), names, n.outputs, n.origin),), (n,))
    if isinstance(n.op, (Conv, ConvTranspose, MatMul)) and n.op.epilogue is not None:
        e = simpler(n.op.epilogue)
        used = {a.index for a in lane.walk(e) if isinstance(a, lane.Arg)}
        if e == n.op.epilogue or not set(range(len(n.inputs) - 2)) <= used:
            return None
        return Rewrite((replace(n, op=replace(n.op, epilogue=e)),), (n,))
    return None


def simpler(e: Expr) -> Expr:
    """The simplest form of an expression that the rules above reach."""
    while True:
        done = _once(e, {})
        if done == e:
            return e
        e = done


def _once(e: Expr, seen: dict[int, Expr]) -> Expr:
    if not isinstance(e, Call):
        return e
    # shared parts are one object; to hash one is to walk all of it
    if id(e) not in seen:
        args = tuple(_once(a, seen) for a in e.args)
        new: Expr = e if all(map(is_, args, e.args)) else Call(e.fn, args, e.dtype)
        for rule in RULES:
            assert isinstance(new, Call)
            better = rule(new)
            if better is not None:
                new = better
                break
        seen[id(e)] = new
    return seen[id(e)]


def _is(e: Expr, value: float) -> bool:
    return isinstance(e, Imm) and float(e.value) == value


def _fn(e: Expr, *names: str) -> Call | None:
    return e if isinstance(e, Call) and e.fn in names else None


def _either_way(e: Call) -> Iterator[tuple[Expr, Expr]]:
    """Operands of a commutative call in both orders."""
    yield e.args[0], e.args[1]
    yield e.args[1], e.args[0]


def _known(e: Call) -> Expr | None:
    """A call of literals is a literal."""
    if not all(isinstance(a, Imm) for a in e.args):
        return None
    return Imm(lane.evaluate(e, ()).item(), e.dtype)


def _neutral(e: Call) -> Expr | None:
    """Operands that change nothing."""
    if e.fn in ("add", "mul"):
        for a, b in _either_way(e):
            if _is(b, 0.0 if e.fn == "add" else 1.0):
                return a
            if e.fn == "mul" and _is(b, -1.0) and e.dtype.kind in ("float", "int"):
                return call("neg", a)
    if (e.fn == "sub" and _is(e.args[1], 0.0)) or (e.fn in ("div", "pow") and _is(e.args[1], 1.0)):
        return e.args[0]
    return None


def _signs(e: Call) -> Expr | None:
    """Double negation, and negation inside sums and products."""
    args = e.args
    inner = _fn(args[0], "neg")
    if inner and e.fn in ("neg", "abs"):
        return inner.args[0] if e.fn == "neg" else call("abs", inner.args[0])
    if e.fn == "abs" and (positive := _fn(args[0], "abs")):
        return positive
    if e.fn == "not" and (n := _fn(args[0], "not")):
        return n.args[0]
    if e.fn == "add":
        for a, b in _either_way(e):
            if minus := _fn(b, "neg"):
                return call("sub", a, minus.args[0])
    if e.fn == "sub" and (n := _fn(args[1], "neg")):
        return call("add", args[0], n.args[0])
    if e.fn in ("mul", "div") and inner and (n := _fn(args[1], "neg")):
        return call(e.fn, inner.args[0], n.args[0])
    return None


def _power_of_two(e: Call) -> Expr | None:
    """Division by a power of two is a product."""
    d = e.args[-1]
    if e.fn != "div" or e.dtype not in (F32, F64) or not isinstance(d, Imm):
        return None
    v = float(d.value)
    whole = (
        v != 0 and math.isfinite(v) and abs(math.frexp(v)[0]) == 0.5 and 2**-64 <= abs(v) <= 2**64
    )
    return call("mul", e.args[0], imm_like(1 / v, d)) if whole else None


def _where(e: Call) -> Expr | None:
    if e.fn != "where":
        return None
    c, a, b = e.args
    if a == b:
        return a
    if isinstance(c, Imm):
        return a if c.value else b
    n = _fn(c, "not")
    return call("where", n.args[0], b, a) if n else None


def _casts(e: Call) -> Expr | None:
    """X -> wider -> back is x."""
    if e.fn != "cast" or not (inner := _fn(e.args[0], "cast")):
        return None
    x = inner.args[0]
    if x.dtype == e.dtype and _holds(inner.dtype, x.dtype):
        return x
    return (
        lane.cast(x, e.dtype) if _holds(inner.dtype, x.dtype) and x.dtype.kind != "bool" else None
    )


def _holds(wide: DType, t: DType) -> bool:
    """Whether every value of ``t`` is one of ``wide``."""
    if t.kind == wide.kind:
        if t.kind == "float":
            return wide.bits > t.bits and wide in (F32, F64)
        return wide.bits >= t.bits
    if t.kind == "bool":
        return True
    if wide.kind == "float":
        return t.bits <= {16: 11, 32: 24, 64: 53}[wide.bits] - 1 and wide in (F32, F64)
    return t.kind == "uint" and wide.kind == "int" and wide.bits > t.bits


def bounds(e: Expr) -> tuple[float, float]:
    """An interval that holds every value of ``e`` that is not NaN; integers stay exact."""
    if isinstance(e, Imm):
        return (-INF, INF) if math.isnan(e.value) else (e.value, e.value)
    if not isinstance(e, Call):
        return (0.0, INF) if e.dtype.kind == "uint" else (-INF, INF)
    if e.fn in _RANGES:
        return _RANGES[e.fn]
    if e.fn in ("max", "min", "relu"):
        pick = min if e.fn == "min" else max
        (a, b), (c, d) = bounds(e.args[0]), bounds(e.args[1]) if len(e.args) > 1 else (0.0, 0.0)
        return pick(a, c), pick(b, d)
    if e.fn == "abs" and e.dtype.kind == "float":
        return 0.0, INF
    if e.fn == "where":
        (a, b), (c, d) = bounds(e.args[1]), bounds(e.args[2])
        return min(a, c), max(b, d)
    return -INF, INF


_RANGES = {
    "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "erf": (-1.0, 1.0), "sin": (-1.0, 1.0),
    "cos": (-1.0, 1.0), "exp": (0.0, INF), "sqrt": (0.0, INF), "softplus": (0.0, INF),
}  # fmt: skip


def _limits(e: Call) -> Expr | None:
    """max, min, relu and abs that cannot bind, or that join the one inside."""
    if e.fn == "relu" and e.dtype.kind in ("float", "int"):
        inner = _fn(e.args[0], "max")
        for a, b in _either_way(inner) if inner else ():
            if isinstance(b, Imm) and b.value <= 0:
                return call("relu", a)
    if e.fn in ("relu", "abs") and bounds(e.args[0])[0] >= 0:
        return e.args[0]
    if e.fn not in ("max", "min"):
        return None
    for a, b in _either_way(e):
        if not isinstance(b, Imm) or math.isnan(b.value):
            continue
        lo, hi = bounds(a)
        c = b.value
        if (e.fn == "max" and c <= lo) or (e.fn == "min" and c >= hi):
            return a
        if e.fn == "max" and c == 0 and e.dtype.kind in ("float", "int"):
            return call("relu", a)
        inner = _fn(a, e.fn)
        for x, d in _either_way(inner) if inner else ():
            if isinstance(d, Imm) and not math.isnan(d.value):
                pick = max if e.fn == "max" else min
                return call(e.fn, x, imm_like(pick(c, d.value), x))
    return None


def _powers(e: Call) -> Expr | None:
    """Powers with exponents that multiplication and square roots reach."""
    if e.fn != "pow" or e.dtype not in (F32, F64) or not isinstance(e.args[1], Imm):
        return None
    x, p = e.args[0], float(e.args[1].value)
    if p in (2.0, 3.0):
        square = call("mul", x, x)
        return square if p == 2.0 else call("mul", square, x)
    if p == 0.5:
        return call("sqrt", x)
    if p in (-0.5, -1.0):
        return call("div", imm_like(1, x), x if p == -1.0 else call("sqrt", x))
    return None


def _reciprocal(e: Call) -> Expr | None:
    """A * (1 / b), and a / (1 / b)."""
    if e.dtype not in (F32, F64):
        return None
    if e.fn == "mul":
        for a, b in _either_way(e):
            d = _fn(b, "div")
            if d and _is(d.args[0], 1.0) and not _fn(a, "sigmoid"):
                return call("div", a, d.args[1])
    return None


def _sigmoid(e: Call) -> Expr | None:
    """1 / (1 + exp(-x)) and what is multiplied by it."""
    if e.dtype not in (F32, F64):
        return None
    if e.fn == "div" and (s := _fn(e.args[1], "add")):
        for one, grown in _either_way(s):
            g = _fn(grown, "exp")
            if not (g and _is(one, 1.0)):
                continue
            if n := _fn(g.args[0], "neg"):
                x = n.args[0]
                if _is(e.args[0], 1.0):
                    return call("sigmoid", x)
                return call("silu", x) if e.args[0] == x else None
    if e.fn == "mul":
        for a, b in _either_way(e):
            if (gate := _fn(b, "sigmoid")) and gate.args[0] == a:
                return call("silu", a)
    return None


def _activation(e: Call) -> Expr | None:
    """Products that spell hardswish, or gelu, or twice that: a half may be in weights by now."""
    if e.fn not in ("mul", "div") or e.dtype not in (F32, F64):
        return None
    k, bases = factors(e)
    if k == 1.0 and len(bases) == 1:
        # twice a gelu, which was all that had been seen, halved
        ((whole, p),) = bases.items()
        return whole if p == 1.0 and (_fn(whole, "gelu") or _fn(whole, "gelu_tanh")) else None
    if len(bases) != 2 or any(p != 1.0 for p in bases.values()):
        return None
    a, b = bases
    for x, f in ((a, b), (b, a)):
        if _is_hard(f, x, k):
            return call("hardswish", x)
        for name in ("erf", "tanh"):
            whole = call("gelu" if name == "erf" else "gelu_tanh", x)
            if _is_gelu(f, x, k, name):
                return whole
            if _is_gelu(f, x, k / 2, name):
                return call("mul", whole, Imm(2.0, e.dtype))
    return None


def _is_hard(f: Expr, x: Expr, k: float) -> bool:
    """K * f == clip(x / 6 + 0.5, 0, 1)."""
    top = _fn(f, "min")
    for rest, hi in _either_way(top) if top else ():
        low = _fn(rest, "relu")
        if low and isinstance(hi, Imm) and k > 0 and close(k * float(hi.value), 1.0):
            return is_polynomial(low.args[0], x, {1: 1 / (6 * k), 0: 0.5 / k})
    return False


def _is_gelu(f: Expr, x: Expr, k: float, name: str) -> bool:
    """K * f == (1 + name(..)) / 2 with the argument of the exact or the tanh form."""
    s = _fn(f, "add")
    for one, g in _either_way(s) if s else ():
        if not isinstance(one, Imm):
            continue
        m, inner = factors(g)
        ((g, p),) = inner.items() if len(inner) == 1 else ((one, 0.0),)
        h = _fn(g, name)
        if h is None or p != 1.0 or not (close(k * float(one.value), 0.5) and close(k * m, 0.5)):
            continue
        if name == "erf":
            return is_polynomial(h.args[0], x, {1: math.sqrt(0.5)})
        c = math.sqrt(2 / math.pi)
        return is_polynomial(h.args[0], x, {1: c, 3: 0.044715 * c})
    return False


RULES: tuple[Callable[[Call], Expr | None], ...] = (
    _known, _neutral, _signs, _power_of_two, _where, _casts, _limits, _powers, _sigmoid,
    _activation, _reciprocal,
)  # fmt: skip

__all__ = ["bounds", "simpler", "simplify"]
