"""What clips, casts and literals say of an expression's range, so that C need not test it."""

from __future__ import annotations

import math

from sparrow import lane
from sparrow.emit.quotient import divides_exactly
from sparrow.tensor import F32, I32, DType
from sparrow.vectors import VECTOR_INTS


def clamp(e: lane.Expr) -> tuple[lane.Expr, float, float]:
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
# points take for sure; and what 16 bits hold, rounded or not.
NEAR, FITS, SHORT = 1 << 22, 1 << 29, 32_767


def rounded_steps(e: lane.Call) -> tuple[lane.Call, int, int] | None:
    """The float under a cast that may round to nearest even and need not saturate, and its clips.

    That is ``round(c * m)`` clipped to whole literals inside the range of the integer type, c an
    integer: the product is no NaN, for the scales m of quantized sums are finite, and rounding
    after clipping to whole numbers is rounding before it.
    """
    rounded, low, high = clamp(e.args[0])
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
    rounded, low, high = clamp(e.args[0])
    if e.dtype != I32 or not isinstance(rounded, lane.Call) or rounded.fn != "round":
        return None
    near = max(-low, high) <= NEAR and low <= high and low == int(low) and high == int(high)
    return (rounded.args[0], low, high) if near else None


def quotient(value: lane.Expr, low: float, high: float) -> tuple[lane.Expr, float] | None:
    """Dividend and divisor where `divides_exactly`."""
    if not isinstance(value, lane.Call) or value.fn != "div" or value.dtype != F32:
        return None
    x, s = value.args
    if not isinstance(s, lane.Imm) or not divides_exactly(float(s.value), int(low), int(high)):
        return None
    return x, float(s.value)


def plus_literal(e: lane.Expr) -> tuple[lane.Expr, int]:
    """The operand and the literal of an int32 sum of the two; 0 where it is no such sum."""
    if isinstance(e, lane.Call) and e.fn == "add" and e.dtype == I32:
        literals = [a for a in e.args if isinstance(a, lane.Imm)]
        others = [a for a in e.args if not isinstance(a, lane.Imm)]
        if len(others) == 1:
            return others[0], int(literals[0].value)
    return e, 0


def inside(e: lane.Expr, dtype: DType) -> bool:
    """Whether an int32 value is known to fit a narrower type: a clipped one plus a literal."""
    e, offset = plus_literal(e)
    if isinstance(e, lane.Call) and e.fn == "cast":
        e = e.args[0]
    _, low, high = clamp(e)
    least, most = dtype.limits
    return least <= low + offset and high + offset <= most


def bounds(e: lane.Expr) -> tuple[float, float]:
    """Least and largest value that an integer may have, by intervals; those of its type if more."""
    least, most = e.dtype.limits
    if isinstance(e, lane.Imm):
        return float(e.value), float(e.value)
    if not isinstance(e, lane.Call):
        return least, most
    low, high = float(least), float(most)
    if e.fn == "cast" and (steps := rounded_steps(e)) is not None:
        low, high = steps[1:]
    elif e.fn == "cast" and e.args[0].dtype in VECTOR_INTS:
        low, high = bounds(e.args[0])
    elif e.fn in ("add", "sub", "mul"):
        (a, b), (c, d) = map(bounds, e.args)
        if e.fn == "mul":
            products = (a * c, a * d, b * c, b * d)
            low, high = min(products), max(products)
        else:
            low, high = (a + c, b + d) if e.fn == "add" else (a - d, b - c)
    elif (inner := clamp(e))[0] is not e:
        low, high = (min(max(v, inner[1]), inner[2]) for v in bounds(inner[0]))
    return (low, high) if least <= low and high <= most else (least, most)


def positive(e: lane.Expr) -> bool:
    """Whether it is a literal above 0."""
    return isinstance(e, lane.Imm) and e.value > 0
