"""LSTM and GRU rows over codes: the loop over time, over gates of the inputs projected before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparrow.kernels.case import (
    Argument,
    Case,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Pack,
    Packed,
    Param,
    Reject,
    Scratch,
)
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.packing_i8 import pack_conv, start_of
from sparrow.ops.gru_codes import GRUCodes
from sparrow.ops.lstm_codes import LSTMCodes
from sparrow.tensor import Array

HEADER, STRUCT = "recurrent_i8.h", "sp_recur_i8"
# vectors of sums whose weights a tile holds, `SP_GATES_I8`
MAX_SUMS = 8


def _gates_together(a: Array, gates: int, lanes: int) -> Array:
    """[gates * H, ..] -> [vectors * gates * lanes, ..], zero padded."""
    hidden = len(a) // gates
    wide = np.zeros((gates, round_up(hidden, lanes), *a.shape[1:]), a.dtype)
    wide[:, :hidden] = a.reshape(gates, hidden, *a.shape[1:])
    split = wide.reshape(gates, -1, lanes, *a.shape[1:])
    return np.ascontiguousarray(np.swapaxes(split, 0, 1).reshape(-1, *a.shape[1:]))


def _wide(op: LSTMCodes | GRUCodes) -> bool:
    """Whether hidden codes have 16 bits."""
    return isinstance(op, LSTMCodes) and op.most > 0


def _per(case: Case) -> int:
    """Hidden codes of a lane that are multiplied at once."""
    assert isinstance(case.op, LSTMCodes | GRUCodes)
    return 2 if _wide(case.op) else case.target.isa.per


def _packed(case: Case, r: Array, ratio: Array, gates: int, zero: int) -> tuple[Pack, ...]:
    """Weights, where sums start, and ratios of some gates."""
    lanes, per = case.target.isa.lanes, _per(case)
    rows = gates * round_up(len(r) // gates, lanes)
    hidden = r.shape[1]

    def weights() -> Array:
        together = _gates_together(r, gates, lanes)
        return pack_conv(together.reshape(rows, hidden, 1, 1), 1, lanes, False, per)

    def start() -> Array:
        sums = _gates_together(r, gates, lanes).sum(1, dtype=np.int64)
        return start_of(sums, None, zero, 1, lanes)

    shape = (1, rows // lanes, 1, 1, -(-hidden // per), lanes, per)
    return (
        Pack(shape, np.dtype(np.int8), weights),
        Pack((1, rows), np.dtype(np.int32), start),
        Pack((rows,), np.dtype(np.float32), lambda: _gates_together(ratio, gates, lanes)),
    )


def _lower(
    case: Case, op: LSTMCodes | GRUCodes, parts: Sequence[tuple[int, int]]
) -> tuple[dict[str, Param], list[Pack]] | Reject:
    """Preconditions, fields of `sp_recur_i8`, and weights of parts (first gate, gates)."""
    x, r, ratio = case.x[:3]
    assert x is not None and r is not None and ratio is not None
    if r.const is None or ratio.const is None:
        return Reject("recurrent weights are not constant")
    if 0 in x.shape or 0 in r.shape:
        return Reject("empty operands")
    first = case.y[0]
    if any(t.shape[-1] > 1 and t.strides[-1] != 1 for t in (x, first)):
        return Reject("rows are not dense")
    ends = case.y[1:] if op.sequence else case.y
    if not all(t.contiguous for t in (*ends, *(t for t in case.x[3:] if t is not None))):
        return Reject("states are not dense")
    isa, hidden, wide = case.target.isa, r.shape[1], _wide(op)
    flip = isa.dot_unsigned and not wide
    gates = max(n for _, n in parts)
    most = MAX_SUMS // gates if isa.registers > 16 else 1
    params: dict[str, Param] = {
        "time": x.shape[0], "batch": x.shape[1], "hidden": hidden,
        "nv": min(most, -(-hidden // isa.lanes)), "reverse": int(op.reverse),
        "sequence": int(op.sequence), "couple": 0, "after": 0, "clip": op.clip,
        "pair": int(isa.pairs or wide), "flip": int(flip),
        "tame": int(isa.widens and r.const.min(initial=0) > -128), "ahead": int(isa.widens),
        "zero": op.zero,
        "most": op.most if isinstance(op, LSTMCodes) else 0,
        "step": float(np.float32(op.step)), "xt": x.strides[0], "xb": x.strides[1],
        "yt": first.strides[0] if op.sequence else 0,
        "yb": first.strides[1] if op.sequence else 0,
    }  # fmt: skip
    seen = op.zero + 128 * int(flip)
    packed = [
        array
        for at, n in parts
        for array in _packed(
            case,
            r.const[at * hidden : (at + n) * hidden],
            ratio.const[at * hidden : (at + n) * hidden],
            n,
            seen,
        )
    ]
    return params, packed


def _finish(
    case: Case,
    function: str,
    params: dict[str, Param],
    arguments: Sequence[Argument],
    packed: Sequence[Array | Pack],
    scratch: Scratch,
) -> Lowered:
    x, r = case.x[0], case.x[1]
    assert x is not None and r is not None
    time, batch, _ = x.shape
    isa, hidden = case.target.isa, r.shape[1]
    # y is not written without a sequence; any pointer does
    outputs = [Out(i) for i in range(len(case.y))]
    if not params["sequence"]:
        outputs.insert(0, Out(0))
    # halves are widened as they are loaded
    ops = 2 if _per(case) < isa.per else isa.dot_ops
    dots = r.type.size / (isa.lanes * _per(case)) * ops
    per_step = dots + 120 * -(-hidden // isa.lanes) + 40
    one = batch if case.threads == 1 else 1
    args = (*arguments, *outputs, scratch)
    call = Invoke(HEADER, function, STRUCT, params, args, one)
    tasks = batch // one
    bytes_ = scratch.per_task * tasks
    return Lowered((call,), tasks, tuple(packed), bytes_, time * batch * per_step)


def _work(case: Case, hidden: int, gates: int) -> int:
    """Bytes of two lines of hidden codes as the product takes them, and of sums that wait."""
    isa, per = case.target.isa, _per(case)
    units, width = round_up(hidden, isa.lanes), 2 if isa.pairs or per < isa.per else 1
    line = max(units * width, 4 * -(-hidden // per))
    return 2 * line + (4 * gates * units if isa.widens else 0)


def _given(case: Case, i: int, otherwise: Array, packed: list[Array | Pack]) -> In | Packed:
    """Input ``i``, or a constant where it is absent."""
    if i < len(case.x) and case.x[i] is not None:
        return In(i)
    packed.append(otherwise)
    return Packed(len(packed) - 1)


def _lstm(case: Case) -> Lowered | Reject:
    op, end = case.op, case.y[-1].shape
    assert isinstance(op, LSTMCodes)
    found = _lower(case, op, ((0, 4),))
    if isinstance(found, Reject):
        return found
    params, packed = found[0] | {"couple": int(op.couple)}, [*found[1]]
    arrays: list[Array | Pack] = [*packed]
    h0 = _given(case, 3, np.full(end, op.zero, op.hidden_type.numpy), arrays)
    c0 = _given(case, 4, np.zeros(end, np.int32), arrays)
    arguments = (In(0), Packed(0), Packed(1), Packed(2), h0, c0)
    scratch = Scratch("uint8_t", round_up(_work(case, end[1], 4), 64))
    return _finish(case, "sp_lstm_i8", params, arguments, arrays, scratch)


def _gru(case: Case) -> Lowered | Reject:
    op, end = case.op, case.y[-1].shape
    assert isinstance(op, GRUCodes)
    parts = ((0, 3),) if op.reset_after else ((0, 2), (2, 1))
    found = _lower(case, op, parts)
    if isinstance(found, Reject):
        return found
    params = found[0] | {"after": int(op.reset_after)}
    arrays: list[Array | Pack] = [*found[1]]
    second = 0 if op.reset_after else 3
    h0 = _given(case, 3, np.zeros(end, np.int32), arrays)
    rb = _given(case, 4, np.zeros(end[1], np.int32), arrays)
    weights = (*range(3), *range(second, second + 3))
    arguments = (In(0), *map(Packed, weights), h0, rb)
    scratch = Scratch("int32_t", round_up(4 * end[1] + _work(case, end[1], 3), 64))
    return _finish(case, "sp_gru_i8", params, arguments, arrays, scratch)


ROWS = (Kernel("lstm_i8", LSTMCodes, _lstm), Kernel("gru_i8", GRUCodes, _gru))
