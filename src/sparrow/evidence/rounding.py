"""How far roundings may carry the value of an expression: running error analysis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from sparrow import lane
from sparrow.tensor import BF16, F16, F32, F64, Array, DType

UNIT = {F32: 2.0**-24, F64: 2.0**-53, F16: 2.0**-11, BF16: 2.0**-8}
"""Half a unit in the last place of 1: the relative error of one rounding."""
SMALLEST = {F32: 2.0**-126, F64: 2.0**-1022, F16: 2.0**-24, BF16: 2.0**-126}
"""Absolute error granted to every float: below it functions may flush to zero."""

# Units in the last place by which NumPy's, SciPy's or our function may miss the exact value; our
# bounds stand beside the functions in native/kernels/math.h, the basic ones round correctly.
ULPS = {
    **dict.fromkeys(("add", "sub", "mul", "div", "sqrt", "cast"), 0.6),
    **dict.fromkeys(("exp", "expm1", "log", "log1p", "sin", "cos", "erf", "sigmoid", "tanh"), 4.0),
    **dict.fromkeys(
        ("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"), 5.0
    ),
    **dict.fromkeys(("pow", "softplus", "silu", "gelu", "gelu_tanh", "hardswish"), 8.0),
    **dict.fromkeys(("mod", "fmod"), 1.0),
}
# The reference forms x (1 + f(x)): where f(x) nears -1 the error stays that of the 1.
ABSOLUTE = {"gelu": 4.0, "gelu_tanh": 4.0, "hardswish": 2.0}
# Largest slope of functions that turn inside an interval, where its ends do not bound the change.
STEEPEST = {
    "sin": 1.0,
    "cos": 1.0,
    "gelu": 1.13,
    "gelu_tanh": 1.13,
    "silu": 1.1,
    "hardswish": 1.5,
}
# Rising and convex: moving the argument up changes the value at least as much as moving it down.
CONVEX = frozenset(("relu", "exp", "expm1", "softplus"))


# Elements analysed at once: an analysis holds two doubles of each for every part of the expression.
BLOCK = 1 << 15


def in_double(a: Array) -> Array:
    """Floats in double precision; anything else as it is."""
    return a.astype(np.float64) if a.dtype.kind == "f" else a


def lane_error(
    e: lane.Expr, operands: Sequence[Array], errors: Sequence[Array | None]
) -> tuple[Array, Array | None]:
    """Value of a lane expression in double precision, and how far one evaluation may be from it.

    Running error analysis: every call passes on what its arguments' errors change (found by moving
    them by their bound) and adds its own rounding. A comparison or a conversion to integer that the
    error could tip is allowed to tip. Half types are float32 but for conversions to them and the
    result, as in `lane.evaluate`.

    Args:
        e: The expression.
        operands: Values of its arguments.
        errors: Error of each argument; None where it is exact.

    Returns:
        Value, and its error or None where it is exact.
    """
    shape = np.broadcast_shapes(*(a.shape for a in (*operands, *errors) if a is not None))
    if prod(shape) <= BLOCK:
        return _error_of(e, operands, errors)
    axis = next(i for i, n in enumerate(shape) if n > 1)
    rows = max(1, BLOCK * shape[axis] // prod(shape))
    y = error = None
    for start in range(0, shape[axis], rows):
        taken = slice(start, start + rows)
        place = (*(slice(None),) * axis, taken)
        part, off = lane_error(
            e,
            [_rows(a, axis - len(shape), taken) for a in operands],
            [None if a is None else _rows(a, axis - len(shape), taken) for a in errors],
        )
        y = np.empty(shape, part.dtype) if y is None else y
        y[place] = part
        if off is not None:
            error = np.zeros(shape) if error is None else error
            error[place] = off
    assert y is not None
    return y, error


def _rows(a: Array, axis: int, taken: slice) -> Array:
    """Of an axis, counted from the end; all of an operand that is broadcast along it."""
    if a.ndim < -axis or a.shape[axis] == 1:
        return a
    place: tuple[Any, ...] = (..., taken, *(slice(None),) * (-axis - 1))
    rows: Array = a[place]
    return rows


def _error_of(
    e: lane.Expr, operands: Sequence[Array], errors: Sequence[Array | None]
) -> tuple[Array, Array | None]:
    done: dict[lane.Expr, tuple[Array, Array | None]] = {}

    def visit(x: lane.Expr) -> tuple[Array, Array | None]:
        if x not in done:
            done[x] = _lane_step(x, visit, operands, errors)
        return done[x]

    with np.errstate(all="ignore"):
        y, error = visit(e)
        if isinstance(e, lane.Call) and e.fn != "cast" and e.dtype in (F16, BF16):
            stored = 2 * ULPS["cast"] * UNIT[e.dtype] * np.abs(y)
            error = stored if error is None else error + stored
        return y, error


def _lane_step(
    e: lane.Expr,
    visit: Callable[[lane.Expr], tuple[Array, Array | None]],
    operands: Sequence[Array],
    errors: Sequence[Array | None],
) -> tuple[Array, Array | None]:
    if isinstance(e, lane.Arg):
        return in_double(operands[e.index]), errors[e.index]
    if isinstance(e, lane.Imm):
        # a float32 immediate is rounded once, on both sides alike
        return in_double(np.asarray(e.value, e.dtype.numpy)), None
    parts = [visit(a) for a in e.args]
    values = [v for v, _ in parts]
    y = _apply(e, values)
    error: Array | None = None
    for i, (v, err) in enumerate(parts):
        if err is None:
            continue
        if e.fn in STEEPEST:
            change = np.minimum(STEEPEST[e.fn] * err, 2.0 if e.fn in ("sin", "cos") else np.inf)
        else:
            moves = _moved(v, err)[: 1 if e.fn in CONVEX else None]
            others = [_apply(e, [*values[:i], m, *values[i + 1 :]]) for m in moves]
            change = reduce(np.maximum, (_apart(other, y) for other in others))
            # inf - inf: the error has outgrown the range, nothing is known any more
            change = np.nan_to_num(change, nan=np.inf)
        error = change if error is None else error + change
    if e.dtype.kind == "float":
        held = F32 if e.dtype in (F16, BF16) and e.fn != "cast" else e.dtype
        unit = UNIT[held]
        size = np.abs(y)
        own: Array | float = 0.0
        if e.fn != "cast" or _narrows(e.args[0].dtype, e.dtype):
            own = 2 * ULPS.get(e.fn, 0.0) * unit * size
        if e.fn in ABSOLUTE:
            own = own + ABSOLUTE[e.fn] * unit * np.abs(values[0])
        if e.fn in ("mul", "div"):
            # among subnormals, which sums and roots do not reach anew, the unit is absolute
            own = own + np.where((y != 0) & (unit * size < SMALLEST[held]), SMALLEST[held], 0)
        elif e.fn in ULPS and e.fn not in ("add", "sub", "sqrt"):
            own = own + SMALLEST[held]
        error = own + error if error is not None else np.asarray(own) if np.any(own) else None
    return y, error


def _apply(e: lane.Call, values: Sequence[Array]) -> Array:
    if e.fn == "cast":
        x = values[0]
        wide = np.dtype(np.float64) if e.dtype.kind == "float" else e.dtype.numpy
        return lane.convert(np.asarray(x), wide)
    return np.asarray(lane.BY_NAME[e.fn].eval(*values))


def _narrows(before: DType, after: DType) -> bool:
    exact = {(F16, F32), (BF16, F32), (F16, F64), (BF16, F64), (F32, F64)}
    return before != after and (before, after) not in exact


def _moved(v: Array, error: Array) -> tuple[Array, ...]:
    if v.dtype == np.bool_:
        return (v ^ (error > 0),)
    if v.dtype.kind in "iu":
        return (v + error.astype(v.dtype), v - error.astype(v.dtype))
    return (v + error, v - error)


def _apart(a: Array, b: Array) -> Array:
    return np.abs(a.astype(np.float64) - b.astype(np.float64))
