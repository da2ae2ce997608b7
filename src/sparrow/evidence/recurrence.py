"""Recurrent layers of a QDQ graph one step at a time, each fed the state that the integers had.

What rounding does to a hidden state goes on into the next step: after many of them a float layer
is elsewhere than one over codes, without either being wrong. Here all steps of a layer are one
batch of single steps, so that each answers for its own rounding only.

    before   y, h, c = LSTM(x, w, r, b, -, h0, c0)          x [T, B, I]
    after    h', c' = LSTM(x', w, r, b, -, H, C)            x' [1, T B, I]; H, C before each step
             y = h', h = h' of the last step, c likewise

A GRU over codes multiplies the codes H of its state S and adds to S itself, z its update gate:

             h' = GRU(x', w, r, b, -, H, rb) + z (S - H)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sparrow import lane
from sparrow.graph import Graph, Node, Op, retyped
from sparrow.ops.gru import GRU
from sparrow.ops.gru_codes import GRUCodes
from sparrow.ops.lane import Lane
from sparrow.ops.lstm import LSTM
from sparrow.ops.lstm_codes import LSTMCodes
from sparrow.ops.quantize import Quantize
from sparrow.ops.recurrent_codes import STATE
from sparrow.ops.reshape import Reshape
from sparrow.ops.rnn import RNN
from sparrow.ops.slice import Slice
from sparrow.tensor import F32, Array, TensorType


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A recurrent layer over codes and what it read.

    Attributes:
        op: The layer.
        operands: Its operands, None where absent.
    """

    op: LSTMCodes | GRUCodes
    operands: tuple[Array | None, ...]

    def states(self) -> tuple[Array, ...]:
        """What it held before every step, [T, B, H] each: codes and c of an LSTM, h of a GRU."""
        padded = [*self.operands, None, None]
        (x, r, ratio), rest = padded[:3], padded[3:5]
        assert x is not None and r is not None and ratio is not None
        one = replace(self.op, reverse=False, sequence=False)
        zeros = np.zeros((x.shape[1], r.shape[1]), np.int32)
        start: list[Array] = [zeros]
        if isinstance(one, LSTMCodes):
            start = [np.full(zeros.shape, one.zero, one.hidden_type.numpy), zeros]
        now = tuple(s if g is None else g for s, g in zip(start, rest, strict=False))
        seen = [np.zeros((len(x), *zeros.shape), s.dtype) for s in now]
        for t in self.op.walked(len(x)):
            for every, s in zip(seen, now, strict=True):
                every[t] = s
            bias = (rest[1],) if isinstance(one, GRUCodes) else ()
            now = one.eval(x[t : t + 1], r, ratio, *now, *bias)
        return tuple(seen)


def _real(codes: Array, step: float, zero: int) -> Array:
    """[T, B, H] of integers as [T B, H] of floats."""
    values = (codes.reshape(-1, codes.shape[-1]).astype(np.float64) - zero) * step
    return values.astype(np.float32)


class _Steps:
    """What takes the place of one layer."""

    def __init__(self, g: Graph, n: Node, count: int) -> None:
        self.g, self.n, self.count = g, n, count
        self.nodes: list[Node] = []
        self.feeds: dict[str, Array] = {}

    def fresh(self) -> str:
        return f"{self.n.outputs[0]}.step{self.count}.{len(self.nodes)}.{len(self.feeds)}"

    def add(self, op: Op, *inputs: str, y: str = "") -> str:
        y = y or self.fresh()
        self.nodes.append(Node(op, inputs, (y,), self.n.origin))
        return y

    def feed(self, values: Array) -> str:
        name = self.fresh()
        self.feeds[name] = values
        return name

    def first_rows(self, x: str, rows: int) -> str:
        """The operand's first rows; empty where it is absent."""
        if not x:
            return ""
        rest = self.g.types[x].shape[1:]
        return self.add(Slice((0,) * (1 + len(rest)), (rows, *rest), (1,) * (1 + len(rest))), x)

    def give(self, y: str, value: str, end: str, last: int) -> None:
        """All steps as ``y`` and the last one as ``end``, of [T B, H]."""
        x = self.g.types[self.n.inputs[0]].shape
        hidden = self.g.types[self.n.inputs[2]].shape[1]
        steps = self.add(Reshape((*x[:2], hidden)), value, y=y)
        one = self.add(Slice((last, 0, 0), (1, x[1], hidden), (1, 1, 1)), steps)
        self.add(Reshape((x[1], hidden)), one, y=end)


def _lstm(s: _Steps, op: LSTM, trace: Trace, step: float, zero: int) -> None:
    codes, cells = trace.states()
    x, w, r, b = (*s.n.inputs, "")[:4]
    time, batch, width = s.g.types[x].shape
    flat = s.add(Reshape((1, time * batch, width)), x)
    h = s.feed(_real(codes, step, zero))
    c = s.feed(_real(cells, 2.0**-STATE, 0))
    made = s.fresh(), s.fresh() + "c"
    one = replace(op, reverse=False, sequence=False)
    s.nodes.append(Node(one, (flat, w, r, b, "", h, c), made, s.n.origin))
    last = 0 if op.reverse else time - 1
    *ys, h_end, c_end = s.n.outputs
    s.give(ys[0] if ys else "", made[0], h_end, last)
    s.give("", made[1], c_end, last)


def _gru(s: _Steps, op: GRU, trace: Trace, step: float, zero: int) -> None:
    (states,) = trace.states()
    assert isinstance(trace.op, GRUCodes)
    x, w, r, b = (*s.n.inputs, "")[:4]
    time, batch, width = s.g.types[x].shape
    hidden = s.g.types[r].shape[1]
    flat = s.add(Reshape((1, time * batch, width)), x)
    read = lane.evaluate(trace.op.code(), (states,))
    h, own = s.feed(_real(read, step, zero)), s.feed(_real(states, 2.0**-STATE, 0))
    one = replace(op, reverse=False, sequence=False)
    more = s.n.inputs[6:7]
    new = s.add(one, flat, w, r, b, "", h, *more)
    gates = (s.first_rows(v, hidden) for v in (w, r, b))
    update = s.add(RNN(False, False, op.clip, op.f), flat, *gates, "", h)
    args = [lane.Arg(i, F32) for i in range(4)]
    rest = lane.call("mul", args[1], lane.call("sub", args[2], args[3]))
    moved = s.add(Lane(lane.call("add", args[0], rest)), new, update, own, h)
    *ys, end = s.n.outputs
    s.give(ys[0] if ys else "", moved, end, 0 if op.reverse else time - 1)


def single_steps(g: Graph, traces: Mapping[str, Trace]) -> tuple[Graph, dict[str, Array]]:
    """``g`` with its recurrent layers one step at a time, and what its new inputs are fed.

    Args:
        g: A QDQ graph.
        traces: The name of a Quantize's codes -> the layer over codes that makes them.
    """
    feeds: dict[str, Array] = {}
    nodes: list[Node] = []
    users = g.users()
    for count, n in enumerate(g.nodes):
        after = [q for y in n.outputs for q in users.get(y, ()) if isinstance(q.op, Quantize)]
        found = next((q for q in after if q.outputs[0] in traces), None)
        if found is None or not isinstance(n.op, LSTM | GRU):
            nodes.append(n)
            continue
        assert isinstance(found.op, Quantize)
        quant = found.op.quant
        step, zero = float(quant.scale.reshape(())), int(quant.zero_point.reshape(()))
        s = _Steps(g, n, count)
        trace = traces[found.outputs[0]]
        if isinstance(n.op, LSTM):
            _lstm(s, n.op, trace, step, zero)
        else:
            _gru(s, n.op, trace, step, zero)
        nodes += s.nodes
        feeds |= s.feeds
    types = {**g.types, **{x: TensorType(a.shape, F32) for x, a in feeds.items()}}
    wider = replace(g, inputs=(*g.inputs, *feeds))
    return retyped(wider, nodes, types=types), feeds
