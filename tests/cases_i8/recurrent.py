"""Recurrent layers over codes."""

from __future__ import annotations

import numpy as np

from cases_i8.case import Case
from drawn import Made
from sparrow import lane
from sparrow.ops.concat import Concat
from sparrow.ops.gru_codes import GRUCodes
from sparrow.ops.lane import Lane
from sparrow.ops.lstm_codes import LSTMCodes
from sparrow.tensor import I8, I16, I32, DType, TensorType


def _gates(c: Case, gates: int) -> tuple[tuple[int, int, int], list[str]]:
    """(time, batch, hidden) and the operands x, r and ratio of a recurrent layer."""
    shape = c.n(1, 5), c.n(1, 2), (c.n(1, 70), 16, 32)[c.n(0, 2)]
    time, batch, hidden = shape
    reach = 1 << (20 if c.n(0, 3) == 0 else 13)
    c.feeds["x"] = c.rng.integers(-reach, reach + 1, (time, batch, gates * hidden), np.int32)
    x = c.b.input("x", TensorType(c.feeds["x"].shape, I32))
    ratio = c.rng.uniform(0.05, 3, gates * hidden).astype(np.float32)
    return shape, [x, c.weights((gates * hidden, hidden)), c.b.const(ratio)]


def _state(c: Case, name: str, dtype: DType, shape: tuple[int, ...], reach: int) -> str:
    if c.flag():
        return ""
    c.feeds[name] = c.rng.integers(-reach, reach, shape).astype(dtype.numpy)
    return c.b.input(name, TensorType(shape, dtype))


def _first(c: Case, op: LSTMCodes | GRUCodes, operands: list[str]) -> Made:
    """All results of a layer in one tensor."""
    flat = [
        c.b.add(
            Lane(lane.cast(lane.Arg(0, c.b.type(y).dtype), I32)),
            c.b.reshape(y, (c.b.type(y).size,)),
        )
        for y in c.b.add_n(op, *operands)
    ]
    return c.finish(c.b.add(Concat(0), *flat))


def lstm_case(seed: int) -> Made:
    c = Case(seed)
    (_, batch, hidden), operands = _gates(c, 4)
    h0 = _state(c, "h0", I8, (batch, hidden), 127)
    c0 = _state(c, "c0", I32, (batch, hidden), 1 << (31 if c.flag() else 23))
    step = float(np.float32(2.0**-30 * c.rng.uniform(60, 200)))
    clip = (0, 0, c.n(100, 40000))[c.n(0, 2)]
    zero = (-128, 127, c.n(-128, 127))[c.n(0, 2)]
    op = LSTMCodes(zero, step, c.flag(), c.flag(), clip, c.flag())
    return _first(c, op, [*operands, h0, c0])


def lstm_of_halves_case(seed: int) -> Made:
    """Hidden codes of up to 16 bits, whose ratios are those of weights that mean something."""
    c = Case(seed)
    (_, batch, hidden), (x, r, _) = _gates(c, 4)
    most = (32767, 16384, c.n(200, 32767))[c.n(0, 2)]
    ratio = c.b.const(c.rng.uniform(0.1, 30, 4 * hidden).astype(np.float32) / np.float32(most))
    h0 = _state(c, "h0", I16, (batch, hidden), most)
    c0 = _state(c, "c0", I32, (batch, hidden), 1 << (31 if c.flag() else 23))
    step = float(np.float32(2.0**-30 * most * c.rng.uniform(0.9, 1.2)))
    clip = (0, 0, c.n(100, 40000))[c.n(0, 2)]
    op = LSTMCodes(0, step, c.flag(), c.flag(), clip, c.flag(), most)
    return _first(c, op, [x, r, ratio, h0, c0])


def gru_case(seed: int) -> Made:
    c = Case(seed)
    (_, batch, hidden), operands = _gates(c, 3)
    h0 = _state(c, "h0", I32, (batch, hidden), 1 << (31 if c.flag() else 20))
    step = float(np.float32(2.0**-20 * c.rng.uniform(60, 200)))
    clip = (0, 0, c.n(100, 40000))[c.n(0, 2)]
    zero = (-128, 127, c.n(-128, 127))[c.n(0, 2)]
    op = GRUCodes(zero, step, c.flag(), c.flag(), clip, c.flag())
    rb = c.b.const(c.rng.integers(-(1 << 20), 1 << 20, hidden, np.int32)) if c.flag() else ""
    return _first(c, op, [*operands, h0, rb if op.reset_after else ""])
