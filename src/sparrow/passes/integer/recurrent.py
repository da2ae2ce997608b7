"""LSTM and GRU layers whose input is codes and whose result becomes codes.

    before   y = Quantize(LSTM(Dequantize(x), Dequantize(w), Dequantize(r), b, .., h0, c0))
    after    g = rne(x w' + b)                    int32, gates of the inputs in units of 2^-11
             y = LSTMCodes(g, r, ratio, h0', c0')

Products over the hidden state read it as the codes that the Quantize makes. States that enter or
leave as floats are codes (LSTM: h) or int32 in units of 2^-20 (its cell; GRU) inside.
"""

from __future__ import annotations

import numpy as np

from sparrow import lane
from sparrow.graph import Node, Scheme
from sparrow.ops import recurrent_codes as rc
from sparrow.ops.gru import GRU
from sparrow.ops.gru_codes import GRUCodes
from sparrow.ops.lane import Lane
from sparrow.ops.lstm import LSTM
from sparrow.ops.lstm_codes import LSTMCodes
from sparrow.ops.matmul import MatMul
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.recurrent import SIGMOID, TANH
from sparrow.passes.hoist_projection import trimmed
from sparrow.passes.integer.codes import Codes, Edit, codes_of
from sparrow.passes.integer.constants import bias_codes, weight_codes
from sparrow.passes.requantize import Constants, Grid, scaled
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, I8, I16, I32, Affine

# Gates have units of 2^-11.
LEAST_STEP = 2.0**-12


def recurrent(m: Match, n: Node, scheme: Scheme) -> Rewrite | Reject | None:
    """Match an LSTM or GRU layer that reads codes."""
    if not isinstance(n.op, LSTM | GRU) or len(n.inputs) < 3 or not n.inputs[1]:
        return None
    x = codes_of(m, n.inputs[0])
    if x is None:
        return None
    found = _hidden_codes(m, n)
    if isinstance(found, Reject):
        return found
    targets, step, zero = found
    if scheme == "tflite" or x.type.dtype == I16:
        return Reject("LiteRT has a form of its own, or the input has 16 bits")
    lens, peepholes = _operand(n, 4), _operand(n, 7) if isinstance(n.op, LSTM) else ""
    plain = n.op.f == SIGMOID and n.op.g == TANH and getattr(n.op, "h", TANH) == TANH
    if lens or peepholes or not plain:
        return Reject("it has lengths, peepholes, or other activations than sigmoid and tanh")
    r = weight_codes(m, n.inputs[2], 0)
    if isinstance(r, Reject):
        return r
    if r.offset or r.groups is not None or r.codes.shape[1] * 255 * 128 >= 1 << 31:
        return Reject("recurrent weights of more than 8 bits, or sums that may leave int32")
    e = Edit(m, n.origin)
    gates = _projected(e, m, n, x)
    if isinstance(gates, Reject):
        return gates
    ratio = (step * r.scale * (1 << rc.GATE)).astype(np.float32)
    weights = e.const(r.codes, I8), e.const(ratio)
    op: LSTMCodes | GRUCodes
    if isinstance(n.op, LSTM):
        op, more = _lstm(e, n, n.op, step, zero)
    else:
        rb = _recurrent_bias(m, e, n)
        if isinstance(rb, Reject):
            return rb
        op, more = _gru(e, n, n.op, step, zero, rb)
    *codes_out, state = n.outputs
    names = [m.fresh() if q is None else q.outputs[0] for q in targets[: len(codes_out)]]
    made = (*names, m.fresh())
    e.nodes.append(Node(op, trimmed(gates, *weights, *more), made, n.origin))
    for y, name, q in zip(codes_out, names, targets, strict=False):
        if q is None:
            e.add(Dequantize(_per_tensor(step, zero, m.type(y).rank)), name, y=y)
    fixed = lane.Arg(0, I32)
    if targets[-1] is not None:
        code = lane.cast(rc.code(fixed, 2.0**-rc.STATE / step, zero), I8)
        e.add(Lane(code), made[-1], y=targets[-1].outputs[0])
    else:
        unit = lane.Imm(2.0**-rc.STATE, F32)
        e.add(Lane(lane.call("mul", lane.cast(fixed, F32), unit)), made[-1], y=state)
    return e.done(n, *(q for q in targets if q is not None))


def _operand(n: Node, i: int) -> str:
    return n.inputs[i] if i < len(n.inputs) else ""


def _hidden_codes(m: Match, n: Node) -> tuple[list[Node | None], float, int] | Reject:
    """(the Quantize of each result or None, their one scale and zero point)."""
    hidden = n.outputs if isinstance(n.op, GRU) else n.outputs[:-1]
    targets: list[Node | None] = []
    grids = set()
    for y in n.outputs:
        q = m.only_user(y) if y in hidden else None
        if q is None or not isinstance(q.op, Quantize):
            targets.append(None)
            continue
        if not q.op.quant.per_tensor or q.op.dtype != I8:
            return Reject(f"its result becomes {q.op.dtype}, or has more than one scale")
        if q.op.quant.scale.min() < LEAST_STEP:
            return Reject("steps of its result are finer than its gates are exact")
        grids.add((float(q.op.quant.scale.reshape(())), int(q.op.quant.zero_point.reshape(()))))
        targets.append(q)
    if len(grids) != 1:
        return Reject("its hidden state does not become codes of one scale")
    ((step, zero),) = grids
    return targets, step, zero


def _projected(e: Edit, m: Match, n: Node, x: Codes) -> str | Reject:
    """Gates of the inputs of all steps."""
    found = weight_codes(m, n.inputs[1], 0)
    if isinstance(found, Reject):
        return found
    unit = x.scale * found.scale
    if (
        found.offset
        or found.groups is not None
        or not (unit > 0).all()
        or not np.isfinite(unit).all()
    ):
        return Reject("weights of more than 8 bits, or a scale that is not positive and finite")
    reach = found.magnitudes(0) * x.reach
    operands = [x.name, e.const(found.codes, I8)]
    if b := _operand(n, 3):
        bias = bias_codes(m, b, unit)
        if isinstance(bias, Reject):
            return bias
        reach = reach + np.abs(bias.astype(np.int64))
        operands.append(e.const(bias, I32))
    if int(reach.max(initial=0)) >= 1 << 31:
        return Reject("sums over the inputs may leave int32")
    constants = Constants(1)
    grid = Grid(0, -rc.PART, rc.PART, I32)
    expr = scaled("f32", lane.Arg(0, I32), unit * (1 << rc.GATE), grid, constants)
    if isinstance(expr, Reject):
        return expr
    total = e.add(MatMul(trans_b=True, zero=x.zero), *operands)
    return e.add(Lane(expr), total, *map(e.const, constants.arrays))


def _clip(op: LSTM | GRU) -> int:
    return round(min(op.clip, 1024.0) * (1 << rc.GATE))


def _lstm(e: Edit, n: Node, op: LSTM, step: float, zero: int) -> tuple[LSTMCodes, tuple[str, str]]:
    """The op over codes and its initial states."""
    h0, c0 = _operand(n, 5), _operand(n, 6)
    unit = float(np.float32(2.0 ** -(2 * rc.UNIT) / step))
    states = (
        e.add(Quantize(_per_tensor(step, zero, 2), I8), h0) if h0 else "",
        e.add(Lane(_fixed()), c0) if c0 else "",
    )
    return LSTMCodes(zero, unit, op.reverse, op.sequence, _clip(op), op.couple), states


def _gru(
    e: Edit, n: Node, op: GRU, step: float, zero: int, rb: str
) -> tuple[GRUCodes, tuple[str, str]]:
    """The op over codes, its initial state and its second bias."""
    h0 = _operand(n, 5)
    unit = float(np.float32(2.0**-rc.STATE / step))
    state = e.add(Lane(_fixed()), h0) if h0 else ""
    return GRUCodes(zero, unit, op.reverse, op.sequence, _clip(op), op.reset_after), (state, rb)


def _recurrent_bias(m: Match, e: Edit, n: Node) -> str | Reject:
    """The bias behind the reset gate in units of gates; empty for none."""
    name = _operand(n, 6)
    if not name:
        return ""
    values = m.const(name)
    if values is None:
        return Reject("the bias of the recurrent product is not constant")
    steps = np.rint(values.astype(np.float64) * (1 << rc.GATE))
    return e.const(np.clip(steps, -rc.PART, rc.PART).astype(np.int32), I32)


def _fixed() -> lane.Expr:
    """A float32 state in units of 2^-20, within its limit."""
    steps = lane.call("mul", lane.Arg(0, F32), lane.Imm(float(1 << rc.STATE), F32))
    bounds = (lane.Imm(float(v), F32) for v in (-rc.STATE_LIMIT, rc.STATE_LIMIT))
    return lane.cast(lane.call("round", lane.clip(steps, *bounds)), I32)


def _per_tensor(step: float, zero: int, rank: int) -> Affine:
    ones = (1,) * rank
    return Affine(np.full(ones, step, np.float32), np.full(ones, zero, np.int32), (-1,) * rank)
