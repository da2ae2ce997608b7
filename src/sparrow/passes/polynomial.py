"""Normal forms of lane expressions to match on: polynomials in a value, products of powers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sparrow import lane

MAX_DEGREE = 4
CLOSE = 1e-6


def polynomial(e: lane.Expr, x: lane.Expr) -> dict[int, float] | None:
    """Coefficients by degree of ``e`` as a polynomial in ``x``; None when it is none."""
    if e == x:
        return {1: 1.0}
    if isinstance(e, lane.Imm):
        return {0: float(e.value)}
    if isinstance(e, lane.Arg):
        return None
    parts = [polynomial(a, x) for a in e.args]
    a, b = parts[0], parts[-1]
    if a is None or b is None:
        return None
    if e.fn == "neg":
        return {k: -v for k, v in a.items()}
    if e.fn in ("add", "sub"):
        sign = 1.0 if e.fn == "add" else -1.0
        return {k: a.get(k, 0.0) + sign * b.get(k, 0.0) for k in {*a, *b}}
    if e.fn == "mul":
        return _product(a, b)
    if e.fn == "div" and set(b) == {0} and b[0]:
        return {k: v / b[0] for k, v in a.items()}
    if e.fn == "pow" and set(b) == {0} and b[0] in (1.0, 2.0, 3.0, 4.0):
        y: dict[int, float] | None = {0: 1.0}
        for _ in range(int(b[0])):
            y = None if y is None else _product(y, a)
        return y
    return None


def _product(a: Mapping[int, float], b: Mapping[int, float]) -> dict[int, float] | None:
    y: dict[int, float] = {}
    for i, u in a.items():
        for j, v in b.items():
            y[i + j] = y.get(i + j, 0.0) + u * v
    return y if max(y) <= MAX_DEGREE else None


def is_polynomial(e: lane.Expr, x: lane.Expr, want: Mapping[int, float]) -> bool:
    """Whether ``e`` is that polynomial in ``x``, its coefficients as near as float32 can say."""
    found = polynomial(e, x)
    return found is not None and all(
        math.isclose(found.get(k, 0.0), want.get(k, 0.0), rel_tol=CLOSE, abs_tol=1e-12)
        for k in {*found, *want}
    )


def factors(e: lane.Expr) -> tuple[float, dict[lane.Expr, float]]:
    """(k, {base: exponent}) with e = k * product of base ** exponent; roots stay closed."""
    if isinstance(e, lane.Imm):
        return float(e.value), {}
    if isinstance(e, lane.Call) and e.dtype.kind == "float":
        if e.fn in ("mul", "div"):
            (k, a), (m, b) = (factors(v) for v in e.args)
            if e.fn == "div" and m == 0:
                return 1.0, {e: 1.0}
            sign = 1.0 if e.fn == "mul" else -1.0
            merged = dict(a)
            for base, p in b.items():
                merged[base] = merged.get(base, 0.0) + sign * p
            return (k * m if e.fn == "mul" else k / m), {v: p for v, p in merged.items() if p}
        if e.fn == "neg":
            k, a = factors(e.args[0])
            return -k, a
        if e.fn == "sqrt":
            return 1.0, {e.args[0]: 0.5}
        if e.fn == "pow" and isinstance(e.args[1], lane.Imm):
            return 1.0, {e.args[0]: float(e.args[1].value)}
    return 1.0, {e: 1.0}


def close(a: float, b: float) -> bool:
    """Equal as far as float32 can say."""
    return math.isclose(a, b, rel_tol=CLOSE)
