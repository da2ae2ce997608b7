"""What LSTM and GRU over codes share: fixed-point gates, their activations, the step in ONNX.

    gates        int32 in units of 2^-11, clipped to [-16, 16)
    activations  int32 in units of 2^-15
    states       int32 in units of 2^-20

Each step is a lane expression, so that `eval` and `export` cannot differ. No float product feeds a
sum. native/kernels/recurrent_i8.h computes the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow import lane
from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.lane import Expr
from sparrow.ops.exponential import ONE, halved
from sparrow.ops.sums import check_zero
from sparrow.tensor import F32, I8, I32, I64, Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Writer

# Fraction bits.
GATE, UNIT, STATE = 11, 15, 20
# What a gate is clipped to, and a part of it before parts are added.
GATE_LIMITS = (-(1 << 15), (1 << 15) - 1)
PART = 1 << 20
# A state stays within 1022, so that twice its difference to one within 1 is below 2^31.
STATE_LIMIT = (1 << 30) - (2 << STATE)
# log2(e) in units of 2^-15; beyond 8 tanh is 1 in units of 2^-15.
LOG2E = 47274
TANH_LIMIT = 8 << GATE


@dataclass(frozen=True, slots=True)
class RecurrentCodes(Op):
    """A layer over gates x [T, B, ..], r, ..: what LSTMCodes and GRUCodes have in common.

    Attributes:
        zero: Zero point of the hidden codes.
        step: What the hidden state is multiplied by to be codes, a float32 value.
        reverse: Walk each sequence backwards.
        sequence: Give every step's output, not only the last.
        clip: Limit of the gates in units of 2^-11, 0 for none.
    """

    zero: int
    step: float
    reverse: bool = False
    sequence: bool = True
    clip: int = 0

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        gates, r = x[:2]
        assert gates is not None and r is not None
        return 2 * gates.shape[0] * gates.shape[1] * r.size

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        # a step evaluates lane expressions: it takes 6 to 13 times that of `Recurrent`, whose
        # calls are 48
        assert x[0] is not None
        return 512 * x[0].shape[0]

    def walked(self, time: int) -> Sequence[int]:
        """The steps of a sequence in the order in which they are walked."""
        return range(time)[::-1] if self.reverse else range(time)


def argument(i: int) -> Expr:
    """Operand i of a cell, int32."""
    return lane.Arg(i, I32)


def number(value: int) -> Expr:
    """An int32 literal."""
    return lane.Imm(value, I32)


def shifted(e: Expr, places: int) -> Expr:
    """Rounded e / 2^places."""
    return lane.call("rshr", e, lane.imm_like(places, e))


def times(a: Expr, b: Expr) -> Expr:
    """Rounded a b / 2^15 of int32, whose product may take 62 bits."""
    product = lane.call("mul", lane.cast(a, I64), lane.cast(b, I64))
    return lane.cast(shifted(product, UNIT), I32)


def _over(numerator: Expr, e: Expr) -> Expr:
    """Rounded numerator / (1 + e), both float32 exactly."""
    below = lane.cast(lane.call("add", number(ONE), e), F32)
    quotient = lane.call("div", lane.cast(numerator, F32), below)
    return lane.cast(lane.call("round", quotient), I32)


def sigmoid(x: Expr) -> Expr:
    """Activation of a clipped gate."""
    t = shifted(lane.call("mul", lane.call("abs", x), number(LOG2E)), GATE)
    upper = _over(number(ONE * ONE), halved(t))
    negative = lane.call("lt", x, number(0))
    return lane.call("where", negative, lane.call("sub", number(ONE), upper), upper)


def tanh(x: Expr) -> Expr:
    """Activation of int32 in units of gates."""
    a = lane.call("min", lane.call("abs", x), number(TANH_LIMIT))
    e = halved(shifted(lane.call("mul", a, number(LOG2E)), GATE - 1))
    rest = lane.call("mul", lane.call("sub", number(ONE), e), number(ONE))
    upper = _over(rest, e)
    return lane.call("where", lane.call("lt", x, number(0)), lane.call("neg", upper), upper)


def part(acc: Expr, ratio: Expr) -> Expr:
    """A sum over codes in units of gates."""
    steps = lane.call("mul", lane.cast(acc, F32), ratio)
    most = lane.Imm(float(PART), F32)
    return lane.cast(lane.call("round", lane.clip(steps, lane.Imm(-float(PART), F32), most)), I32)


def clipped(x: Expr, clip: int) -> Expr:
    """A gate within its limits, and within [-clip, clip] unless that is 0."""
    low, high = GATE_LIMITS
    if clip:
        low, high = max(low, -clip), min(high, clip)
    return lane.clip(x, number(low), number(high))


def code(value: Expr, ratio: float, zero: int, limits: tuple[int, int] = I8.limits) -> Expr:
    """An int32 value of the hidden state as its code within ``limits``, in int32."""
    steps = lane.call("mul", lane.cast(value, F32), lane.Imm(float(np.float32(ratio)), F32))
    low, high = (lane.Imm(float(v - zero), F32) for v in limits)
    codes = lane.cast(lane.call("round", lane.clip(steps, low, high)), I32)
    return lane.call("add", codes, number(zero)) if zero else codes


def sums(codes: Array, r: Array, zero: int) -> Array:
    """(codes - zero) r', exact; int32 codes [B, H] of at most 16 bits, int8 r [.., H]."""
    return ((codes - zero).astype(np.float64) @ r.T).astype(np.int32)


def check(
    gates: int,
    x: TensorType,
    r: TensorType,
    ratio: TensorType,
    states: Sequence[tuple[TensorType | None, TensorType]],
    zero: int,
    reach: int = 255,
) -> tuple[int, int, int]:
    """(time, batch, hidden) of a layer, checked.

    Args:
        gates: Gates of the cell.
        x: int32 [T, B, gates * H].
        r: int8 [gates * H, H].
        ratio: float32 [gates * H].
        states: (found, expected) types of optional operands.
        zero: Zero point of the hidden codes.
        reach: Largest magnitude of a hidden code less its zero point.
    """
    if x.rank != 3 or r.rank != 2 or r.shape[0] != gates * r.shape[1]:
        raise InvalidGraph(f"gates {x} and recurrent weights {r} are no sequence of {gates} gates")
    if x.dtype != I32 or r.dtype != I8 or x.shape[2] != r.shape[0]:
        raise InvalidGraph(f"gates {x} and recurrent weights {r}, expected int32 and int8")
    if ratio != TensorType(r.shape[:1], F32):
        raise InvalidGraph(f"ratios {ratio} of {r.shape[0]} rows")
    if r.shape[1] * reach * 128 >= 1 << 31:
        raise InvalidGraph(f"sums over {r.shape[1]} hidden units may leave int32")
    for found, expected in states:
        if found is not None and (found.shape, found.dtype) != (expected.shape, expected.dtype):
            raise InvalidGraph(f"state {found}, expected {expected}")
    check_zero(zero, I8)
    return x.shape[0], x.shape[1], r.shape[1]


def export_sums(w: Writer, codes: str, turned: str, zero: int) -> str:
    """`sums` in ONNX, of int32 codes of 8 bits and weights [H, ..] transposed already."""
    return w.node("MatMulInteger", [w.node("Cast", [codes], to=I8), turned, w.scalar(zero, I8)])


def export_step(w: Writer, x: str, t: int) -> str:
    """Step t of [T, B, ..]."""
    return w.node("Gather", [x, w.const(np.array(t, np.int64))], axis=0)


def export_gates(w: Writer, x: str, gates: int) -> list[str]:
    """The gates of [B, gates * H]."""
    names = [w.fresh("gate") for _ in range(gates)]
    w.node("Split", [x], names, axis=-1, num_outputs=gates)
    return names


def export_state(w: Writer, x: str, shape: tuple[int, int]) -> str:
    """An initial int32 state within its limit, zero where it is absent."""
    if not x:
        return w.const(np.zeros(shape, np.int32))
    return w.node("Clip", [x, *(w.scalar(v, I32) for v in (-STATE_LIMIT, STATE_LIMIT))])
