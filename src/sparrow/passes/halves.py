"""One sum over codes of 16 bits for the two over their digits.

    before   s = 256 Conv(h, w) + Conv(l, w, b)       h, l: the digits of x
    after    s = Conv(x, w, b)

Both are int32, and wrap alike. Where the instruction set has dot products of bytes the two sums
take no longer than one over halves; elsewhere bytes are widened to halves before they are
multiplied, or added by twos where these fit, and one sum over what are halves already is the
faster, besides the digits and the second sum's way through memory. Which sums those are, the
kernels say (`kernels/conv_i16.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sparrow import lane
from sparrow.graph import Node, Op
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.passes.integer.sums import HIGH, LOW
from sparrow.rewrite import Match, Rewrite, Rule
from sparrow.tensor import I32, TensorType

Takes = Callable[[Op, TensorType], bool]


def whole_codes(takes: Takes) -> Rule:
    """The rule, for those sums that a kernel ``takes``, given their weights."""

    def whole_codes(m: Match, n: Node) -> Rewrite | None:
        """Match an expression that adds two sums over the digits of one value."""
        return _whole(m, n, takes)

    return whole_codes


def _whole(m: Match, n: Node, takes: Takes) -> Rewrite | None:
    if not isinstance(n.op, Lane):
        return None
    for e in lane.walk(n.op.expr):
        match e:
            case lane.Call(
                "add",
                (lane.Arg(i), lane.Call("mul", (lane.Arg(j), lane.Imm(256)))),
                dtype,
            ) if dtype == I32:
                low, total = m.producer(n.inputs[i]), _joined(m, n, n.inputs[i], n.inputs[j])
                if low is not None and total is not None and takes(total.op, m.type(low.inputs[1])):
                    expr = lane.replaced(n.op.expr, e, lane.Arg(i, I32))
                    expr, used = lane.compact(expr, n.inputs)
                    return Rewrite((total, replace(n, op=Lane(expr), inputs=used)), (low, n))
    return None


def _joined(m: Match, n: Node, low: str, high: str) -> Node | None:
    """The sum of codes that gives ``low`` the value of both, which ``n`` alone reads."""
    a, b = (m.producer(v, (Conv, MatMul)) for v in (low, high))
    if a is None or b is None or a.op != b.op or a.inputs[1] != b.inputs[1]:
        return None
    if any(u is not n for u in m.users(low)) or m.is_output(low) or len(b.inputs) > 2:
        return None
    x = _codes_of(m, a.inputs[0], LOW)
    if x is None or x != _codes_of(m, b.inputs[0], HIGH):
        return None
    return replace(a, inputs=(x, *a.inputs[1:]))


def _codes_of(m: Match, value: str, digit: lane.Expr) -> str | None:
    """What ``value`` is that digit of."""
    d = m.producer(value, Lane)
    return d.inputs[0] if d is not None and d.op == Lane(digit) else None
