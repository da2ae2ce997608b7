"""LSTM, GRU and RNN rows: the loop over time, over inputs projected before (`hoist_projection`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sparrow.kernels.case import (
    Argument,
    Case,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Packed,
    Param,
    Reject,
    Scratch,
    Tensor,
)
from sparrow.kernels.params_f32 import simd_of
from sparrow.ops.gru import GRU
from sparrow.ops.lstm import LSTM
from sparrow.ops.recurrent import ACTIVATIONS, Activation
from sparrow.ops.rnn import RNN
from sparrow.tensor import F32, Array

HEADER = "recurrent_f32.h"
# as the header counts them
_KINDS = tuple(ACTIVATIONS)
MAX_SUMS, MAX_ROWS = 32, 8
# Numbers of a first state that nobody gives, which the code carries as zeros.
MAX_STATE = 1 << 22
# additions in flight that keep the multipliers busy
BUSY = 8


def pack_recurrent(r: Array, gates: int, lanes: int, nv: int) -> NDArray[np.float32]:
    """[gates * H, H] -> blocks of nv vectors of units, [H][nv][gates][lanes] each.

    Units beyond H are zero. The last block holds what is left, at least one vector.
    """
    hidden = r.shape[1]
    vectors = -(-hidden // lanes)
    wide = np.zeros((gates, vectors * lanes, hidden), np.float32)
    wide[:, :hidden] = r.reshape(gates, hidden, hidden)
    split = wide.reshape(gates, vectors, lanes, hidden)
    blocks = [split[:, at : at + nv].transpose(3, 1, 0, 2).ravel() for at in range(0, vectors, nv)]
    return np.concatenate(blocks)


def tile(
    hidden: int, gates: int, lanes: int, registers: int, batch: int = 1, threads: int = 1
) -> tuple[int, int, int]:
    """(rows, nv, ku) of `sp_recur`: sequences and vectors of units together, partial sums of each.

    ``ku`` follows from one sequence, so that more of them, or threads, change no bit.
    """
    vectors = -(-hidden // lanes)

    def units(rows: int, ku: int) -> int:
        # besides the sums a register for each state and one for weights, or more weights
        spare = max(3, rows + 1)
        most = max(1, min(8, min(registers - spare, MAX_SUMS) // (rows * gates * ku)))
        return -(-vectors // -(-vectors // most))

    nv, ku = units(1, 1), 1
    while ku * nv * gates < BUSY and 2 * ku * nv * gates <= min(MAX_SUMS, registers - 2):
        ku *= 2
    room = min((registers - 1) // (ku * gates + 1), MAX_SUMS // (ku * gates), MAX_ROWS)
    each = max(1, min(room, -(-batch // threads)))
    rows = -(-batch // -(-batch // each))
    return rows, nv if rows == 1 else min(nv, units(rows, ku)), ku


@dataclass(slots=True)
class _Call:
    """A call under construction: arguments in order, arrays to be packed."""

    case: Case
    nv: int
    packed: list[Array] = field(default_factory=list)

    def pack(self, a: Array) -> Packed:
        """A constant array as an argument."""
        self.packed.append(a)
        return Packed(len(self.packed) - 1)

    def given(self, i: int, otherwise: Array) -> In | Packed:
        """Input ``i``, or a constant where it is absent."""
        present = i < len(self.case.x) and self.case.x[i] is not None
        return In(i) if present else self.pack(otherwise)


def _inner_dense(t: Tensor) -> bool:
    return t.shape[-1] == 1 or t.strides[-1] == 1


def _lower(
    case: Case,
    op: LSTM | GRU | RNN,
    gates: int,
    activations: Sequence[Activation],
) -> tuple[_Call, dict[str, Param]] | Reject:
    """What the three share: preconditions and the fields of `sp_recur`."""
    x, r = case.x[0], case.x[2]
    assert x is not None and r is not None
    if x.type.dtype != F32:
        return Reject(f"{x.type.dtype}")
    if case.x[1] is not None:
        return Reject("the input projection is not hoisted")
    if 0 in x.shape or 0 in r.shape:
        return Reject("empty operands")
    first = case.y[0]
    ends = case.y[1:] if op.sequence else case.y
    rest = [t for t in case.x[3:] if t is not None]
    if not _inner_dense(x) or not _inner_dense(first):
        return Reject("rows are not dense")
    if not all(t.contiguous for t in (r, *rest, *ends)):
        return Reject("states are not dense")
    time, batch, _ = x.shape
    if batch * r.shape[1] > MAX_STATE:
        return Reject(f"states of {batch} x {r.shape[1]}")
    hidden = r.shape[1]
    simd = simd_of(case.target)
    # sequences of unequal lengths end one by one
    lens = case.x[4] if len(case.x) > 4 else None
    together = batch if lens is None else 1
    threads = case.threads
    rows, nv, ku = tile(hidden, gates, simd.lanes, simd.registers, together, threads)
    params: dict[str, Param] = {
        "time": time,
        "batch": batch,
        "hidden": hidden,
        "rows": rows,
        "nv": nv,
        "ku": ku,
        "reverse": int(op.reverse),
        "sequence": int(op.sequence),
        "couple": 0,
        "peephole": 0,
        "after": 0,
        "pack": int(r.const is None),
        "clip": float(op.clip),
        "act": tuple(_KINDS.index(a.name) for a in activations),
        "alpha": tuple(float(a.alpha) for a in activations),
        "beta": tuple(float(a.beta) for a in activations),
        "xt": x.strides[0],
        "xb": x.strides[1],
        "yt": first.strides[0] if op.sequence else 0,
        "yb": first.strides[1] if op.sequence else 0,
    }
    return _Call(case, nv), params


def _finish(
    call: _Call,
    function: str,
    params: dict[str, Param],
    arguments: Sequence[Argument],
    buffers: int,
) -> Lowered:
    case = call.case
    x, r = case.x[0], case.x[2]
    assert x is not None and r is not None
    time, batch, _ = x.shape
    hidden, rows = r.shape[1], params["rows"]
    assert isinstance(rows, int)
    sequence = bool(params["sequence"])
    # y is not written without a sequence; any pointer does
    outputs = [Out(i) for i in range(len(case.y))]
    if not sequence:
        outputs.insert(0, Out(0))
    vectors = -(-hidden // case.target.isa.lanes)
    weights = r.shape[0] * vectors * case.target.isa.lanes if params["pack"] else 0
    scratch = -(-4 * (buffers * rows * hidden + weights) // 64) * 64
    args = (
        *arguments,
        *outputs,
        Scratch("float", scratch),
    )
    # every step streams the recurrent weights and evaluates a few activations per unit
    lanes, groups = case.target.isa.lanes, -(-batch // rows)
    weights_each = r.type.size / lanes * max(0.75, rows / 2)
    per_step = groups * (weights_each + 40) + batch * 60 * -(-hidden // lanes)
    tasks = 1 if case.threads == 1 else groups
    invoke = Invoke(HEADER, function, "sp_recur", params, args, groups // tasks)
    return Lowered((invoke,), tasks, tuple(call.packed), scratch * tasks, time * per_step)


def _lengths(case: Case) -> NDArray[np.int32]:
    x = case.x[0]
    assert x is not None
    return np.full(x.shape[1], x.shape[0], np.int32)


def _zeros(case: Case) -> NDArray[np.float32]:
    r, x = case.x[2], case.x[0]
    assert r is not None and x is not None
    return np.zeros((x.shape[1], r.shape[1]), np.float32)


def _weights(call: _Call, first: int, gates: int) -> In | Packed:
    """Recurrent weights of some gates: packed now, or as they are when only known at run time."""
    r = call.case.x[2]
    assert r is not None
    if r.const is None:
        return In(2)
    hidden = r.shape[1]
    some = r.const[first * hidden : (first + gates) * hidden]
    return call.pack(pack_recurrent(some, gates, call.case.target.isa.lanes, call.nv))


def _lstm(case: Case) -> Lowered | Reject:
    op = case.op
    assert isinstance(op, LSTM)
    found = _lower(case, op, 4, (op.f, op.g, op.h))
    if isinstance(found, Reject):
        return found
    call, params = found
    peephole = len(case.x) > 7 and case.x[7] is not None
    params |= {"couple": int(op.couple), "peephole": int(peephole)}
    weights = _weights(call, 0, 4)
    arguments = (
        In(0),
        weights,
        call.given(4, _lengths(case)),
        call.given(5, _zeros(case)),
        call.given(6, _zeros(case)),
        In(7) if peephole else weights,
    )
    return _finish(call, "sp_lstm_f32", params, arguments, 2)


def _gru(case: Case) -> Lowered | Reject:
    op = case.op
    assert isinstance(op, GRU)
    found = _lower(case, op, 3 if op.reset_after else 2, (op.f, op.g))
    if isinstance(found, Reject):
        return found
    call, params = found
    params |= {"after": int(op.reset_after)}
    r = case.x[2]
    assert r is not None
    first = second = _weights(call, 0, 3 if op.reset_after else 2)
    if not op.reset_after:
        second = _weights(call, 2, 1)
    arguments = (
        In(0),
        first,
        second,
        call.given(4, _lengths(case)),
        call.given(5, _zeros(case)),
        call.given(6, np.zeros(r.shape[1], np.float32)),
    )
    return _finish(call, "sp_gru_f32", params, arguments, 4)


def _rnn(case: Case) -> Lowered | Reject:
    op = case.op
    assert isinstance(op, RNN)
    found = _lower(case, op, 1, (op.f,))
    if isinstance(found, Reject):
        return found
    call, params = found
    weights = _weights(call, 0, 1)
    arguments = (In(0), weights, call.given(4, _lengths(case)), call.given(5, _zeros(case)))
    return _finish(call, "sp_rnn_f32", params, arguments, 2)


ROWS = (
    Kernel("lstm_f32", LSTM, _lstm),
    Kernel("gru_f32", GRU, _gru),
    Kernel("rnn_f32", RNN, _rnn),
)
