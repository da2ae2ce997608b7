"""Functions of one value: a table of results, in double precision (float32 under `tflite`).

before   y = Quantize(f(Dequantize(x)))
after    y = Lookup(x, table of f over all codes)                x of 8 bits
         y = LookupLinear(x, table of f over every 128th)        x of 16

Between entries a function bends: one whose codes would be too far off stays float.
Half of that at the middle of an interval is taken off its ends, so that errors lie on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparrow import lane
from sparrow.graph import Node, Scheme
from sparrow.ops.lane import Lane
from sparrow.ops.lookup import Lookup
from sparrow.ops.lookup_linear import FRACTION, REACH, STEP, LookupLinear
from sparrow.passes.integer import litert_functions
from sparrow.passes.integer.codes import Edit, Target, codes_of
from sparrow.passes.requantize import Grid
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, F64, I16, I32, Array

# Steps that a code of 16 bits may be off: half of what the twin allows.
MOST = 8.0
# Codes of 8 bits that round otherwise than f itself: the twin allows 5 % of them. Values are taken
# to spread over so many codes at least, a 64th of all, so that a bend in one interval, as a
# hard-swish has two, counts little.
TIPPED = 0.05
SPREAD = 1024


def table(m: Match, n: Node, t: Target, value: str, scheme: Scheme) -> Rewrite | Reject:
    """A function of one value: every code's result."""
    op, x = n.op, codes_of(m, value)
    assert isinstance(op, Lane)
    if x is None:
        return Reject("its input is no codes of one scale")
    if any(v is not None and v.size != 1 for v in map(m.const, n.inputs)):
        return Reject("it has an operand that varies")
    if m.type(value).shape != m.type(n.outputs[0]).shape:
        return Reject("it broadcasts")
    low, high = x.type.dtype.limits
    wide = x.type.dtype == I16
    e = Edit(m, n.origin)
    if scheme == "tflite":
        own = litert_functions.own(op.expr, x, t)
        if own is None and wide:
            return litert_functions.of_16_bits(m, n, t, x)
        if isinstance(own, Reject):
            return own
        if own is not None:
            every = np.arange(low, high + 1).astype(x.type.dtype.numpy)
            if wide:
                e.add(Lane(own), x.name, y=t.node.outputs[0])
            else:
                codes = lane.evaluate(own, (every,))
                e.add(Lookup(), x.name, e.const(codes, t.grid.dtype), y=t.node.outputs[0])
            return e.done(t.node)
    # LiteRT computes its tables in float32
    single = scheme == "tflite" and not wide
    real = np.dtype(np.float32 if single else np.float64)
    scale, step = np.array([x.scale, t.scale], real)
    with np.errstate(all="ignore"):
        reals = (np.arange(low, high + 1 + wide) - x.zero).astype(real) * scale
        known = (m.const(name) for name in n.inputs)
        args = [reals if v is None else v.astype(real).reshape(()) for v in known]
        result = in_float32(op.expr, args, {}) if single else lane.evaluate(_double(op.expr), args)
        result = np.broadcast_to(result, reals.shape)
        steps = result * (real.type(1) / step) if single else result / step
    if np.isnan(steps).any():
        return Reject("it is undefined for some code")
    exact = np.clip(steps.astype(np.float64), -(2.0**31), 2.0**31)
    if wide:
        between = _between(exact, t.grid)
        if isinstance(between, Reject):
            return between
        made, entries = between
        e.add(made, x.name, e.const(entries, I32), y=t.node.outputs[0])
        return e.done(t.node)
    away = np.copysign(np.floor(np.abs(exact) + 0.5), exact)
    whole = (away if scheme == "tflite" else np.rint(exact)) + t.grid.zero
    codes = np.clip(whole, t.grid.low, t.grid.high).astype(t.grid.dtype.numpy)
    e.add(Lookup(), x.name, e.const(codes, t.grid.dtype), y=t.node.outputs[0])
    return e.done(t.node)


def _between(exact: Array, grid: Grid) -> tuple[LookupLinear, Array] | Reject:
    """The table of a function over all codes of 16 bits and the one past them, in steps."""
    ends = np.clip(exact * 2.0**FRACTION, -REACH, REACH)
    line = (ends[:-1:STEP] + ends[STEP::STEP]) / 2
    over = line - ends[STEP // 2 :: STEP]
    entries = ends[::STEP].copy()
    entries[:-1] -= over / 2
    table = np.clip(np.rint(entries), -REACH, REACH).astype(np.int32)
    made = LookupLinear(grid.zero, grid.low, grid.high, grid.dtype)
    x = np.arange(I16.limits[0], I16.limits[1] + 1).astype(np.int16)
    want = np.clip(exact[:-1] + grid.zero, grid.low, grid.high)
    codes = made.eval(x, table)[0]
    off = np.abs(codes - want)
    if grid.dtype.bits == 8:
        tips = (codes != np.rint(want)).reshape(-1, STEP).mean(1)
        share = np.convolve(tips, np.full(SPREAD // STEP, STEP / SPREAD), "valid").max()
        if share > TIPPED:
            return Reject(f"lines between every {STEP}th code tip {share:.0%} of the codes")
    if off.max() > MOST:
        return Reject(f"a line between every {STEP}th code is {off.max():.2g} steps off")
    return made, table


def _double(e: lane.Expr) -> lane.Expr:
    """A float32 expression in float64."""
    if isinstance(e, lane.Arg):
        return lane.Arg(e.index, F64 if e.dtype == F32 else e.dtype)
    if isinstance(e, lane.Imm):
        return lane.Imm(e.value, F64 if e.dtype == F32 else e.dtype)
    return lane.Call(e.fn, tuple(map(_double, e.args)), F64 if e.dtype == F32 else e.dtype)


def _one(x: float) -> lane.Expr:
    return lane.Imm(x, F32)


def _sigmoid(x: lane.Expr) -> lane.Expr:
    below = lane.call("exp", lane.call("neg", x))
    return lane.call("div", _one(1.0), lane.call("add", _one(1.0), below))


def _gelu(x: lane.Expr) -> lane.Expr:
    part = lane.call("erf", lane.call("mul", x, _one(0.5**0.5)))
    return lane.call("mul", lane.call("mul", _one(0.5), x), lane.call("add", _one(1.0), part))


# What C computes in several steps.
STEPS = {"sigmoid": _sigmoid, "gelu": _gelu}


def in_float32(
    e: lane.Expr, operands: Sequence[Array], known: dict[int, tuple[lane.Expr, Array]]
) -> Array:
    """Value of a float32 expression as C's library has it, each function rounded once.

    By way of float64: NumPy's functions of float32 differ between processors, and so would codes.

    Args:
        e: The expression.
        operands: Of its arguments.
        known: Of calls so far, by identity; keeps them, so that no other has theirs.
    """
    if not isinstance(e, lane.Call):
        return lane.evaluate(e, operands)
    if e.fn == "cast":
        (inner,) = e.args
        x = in_float32(inner, operands, known)
        return lane.evaluate(lane.cast(lane.Arg(0, inner.dtype), e.dtype), (x,))
    if id(e) not in known:
        if e.fn in STEPS:
            y = in_float32(STEPS[e.fn](*e.args), operands, known)
        else:
            args = [in_float32(a, operands, known) for a in e.args]
            wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in args]
            y = np.asarray(lane.BY_NAME[e.fn].eval(*wide)).astype(e.dtype.numpy)
        known[id(e)] = (e, y)
    return known[id(e)][1]
