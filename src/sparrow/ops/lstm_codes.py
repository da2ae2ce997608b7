"""Long short-term memory over codes, one direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow import lane
from sparrow.errors import InvalidGraph
from sparrow.lane import Expr
from sparrow.ops import recurrent_codes as rc
from sparrow.ops.exponential import ONE
from sparrow.ops.recurrent import results, scan
from sparrow.tensor import F32, I8, I16, I32, Array, DType, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class LSTMCodes(rc.RecurrentCodes):
    """(y, y_h, y_c) of `LSTM` with int8 weights, hidden states of 8 or 16 bits and cells of 32.

    Inputs: x int32 [T, B, 4H], gates i, o, f, c of the inputs in units of 2^-11, within 2^20;
    r int8 [4H, H]; ratio float32 [4H], what a unit of a sum over hidden codes is in units of 2^-11;
    h0 int8 [B, H] and c0 int32 [B, H] in units of 2^-20, optional (zero). Per step:

        a = clip(x + rne(clip(float32(sum of (h - zero) r) ratio)))       in units of 2^-11
        c' = clip(F * c + (i g + 2^9 >> 10))        a * b = (a b + 2^14) >> 15, in units of 2^-20
        h' = clip(zero + rne(float32(o tanh(c' + 2^8 >> 9)) step))

    Outputs: y int8 [T, B, H] (only with ``sequence``), y_h int8 and y_c int32 [B, H]. With
    ``most`` h0, y and y_h are int16.

    ``step`` is 2^-30 over the scale of the hidden codes.

    Attributes, beside those of `RecurrentCodes`:
        couple: F = 1 - i.
        most: Largest magnitude of hidden codes of 16 bits, 0 for those of 8.
    """

    couple: bool = False
    most: int = 0

    @property
    def hidden_type(self) -> DType:
        """Type of the hidden codes."""
        return I16 if self.most else I8

    @property
    def _limits(self) -> tuple[int, int]:
        return (-self.most, self.most) if self.most else I8.limits

    def infer(
        self,
        x: TensorType,
        r: TensorType,
        ratio: TensorType,
        h0: TensorType | None = None,
        c0: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        end = (x.shape[1], r.shape[-1]) if x.rank == 3 else ()
        if not 0 <= self.most <= I16.limits[1] or (self.most and self.zero):
            raise InvalidGraph(f"hidden codes up to {self.most} around {self.zero}")
        h, c = TensorType(end, self.hidden_type), TensorType(end, I32)
        states, reach = ((h0, h), (c0, c)), self.most or 255
        time, batch, hidden = rc.check(4, x, r, ratio, states, self.zero, reach)
        return results(self, TensorType((time, batch, hidden), self.hidden_type), (h, c))

    def _gate(self, i: int) -> Expr:
        """Gate i of x, sums and ratios, which are operands i, 4 + i and 8 + i."""
        own = rc.part(rc.argument(4 + i), lane.Arg(8 + i, F32))
        return rc.clipped(lane.call("add", rc.argument(i), own), self.clip)

    def _cell(self) -> Expr:
        """The next c of the operands of `_gate` and c, operand 12."""
        let_in = rc.sigmoid(self._gate(0))
        if self.couple:
            keep: Expr = lane.call("sub", rc.number(ONE), let_in)
        else:
            keep = rc.sigmoid(self._gate(2))
        product = lane.call("mul", let_in, rc.tanh(self._gate(3)))
        fresh = rc.shifted(product, 2 * rc.UNIT - rc.STATE)
        c = lane.call("add", rc.times(rc.argument(12), keep), fresh)
        return lane.clip(c, rc.number(-rc.STATE_LIMIT), rc.number(rc.STATE_LIMIT))

    def _hidden(self) -> Expr:
        """The next h of the operands of `_gate` and the next c, operand 12."""
        out = rc.tanh(rc.shifted(rc.argument(12), rc.STATE - rc.GATE))
        value = lane.call("mul", rc.sigmoid(self._gate(1)), out)
        return rc.code(value, self.step, self.zero, self._limits)

    def eval(
        self,
        x: Array,
        r: Array,
        ratio: Array,
        h0: Array | None = None,
        c0: Array | None = None,
    ) -> tuple[Array, ...]:
        end = (x.shape[1], r.shape[1])
        h = np.full(end, self.zero, np.int32) if h0 is None else h0.astype(np.int32)
        ratios, cell, hidden = np.split(ratio, 4), self._cell(), self._hidden()

        def step(gates: Array, h: Array, c: Array) -> tuple[Array, Array]:
            own = np.split(rc.sums(h, r, self.zero), 4, axis=1)
            operands = (*np.split(gates, 4, axis=1), *own, *ratios)
            c = lane.evaluate(cell, (*operands, c))
            return lane.evaluate(hidden, (*operands, c)), c

        limit = rc.STATE_LIMIT
        c = np.zeros(end, np.int32) if c0 is None else np.clip(c0, -limit, limit)
        y, (h, c) = scan(step, x, None, self.reverse, (h, c))
        narrow = self.hidden_type.numpy
        return results(self, y.astype(narrow), (h.astype(narrow), c))

    def export(self, w: Writer, site: Site) -> None:
        x, r = site.in_types[:2]
        assert x is not None and r is not None
        (time, batch, _), hidden = x.shape, r.shape[1]
        names = (*site.inputs, *("",) * (5 - len(site.inputs)))
        turned = w.node("Transpose", [names[1]], perm=[1, 0])
        if self.most:
            # integer products of ONNX take bytes; sums of the others are exact all the same
            turned = w.node("Cast", [turned], to=I32)
        ratios = rc.export_gates(w, names[2], 4)
        end = (batch, hidden)
        h = w.node("Cast", [names[3]], to=I32) if names[3] else ""
        h = h or w.const(np.full(end, self.zero, np.int32))
        c = rc.export_state(w, names[4], end)
        every: dict[int, str] = {}
        shapes = (*(end,) * 8, *((hidden,),) * 4, end)
        front = w.const(np.array([0], np.int64))
        for t in self.walked(time):
            gates = rc.export_gates(w, rc.export_step(w, names[0], t), 4)
            wide = w.node("MatMul", [h, turned]) if self.most else ""
            own = rc.export_gates(w, wide or rc.export_sums(w, h, turned, self.zero), 4)
            operands = (*gates, *own, *ratios)
            c = w.expr(self._cell(), (*operands, c), shapes)
            h = w.expr(self._hidden(), (*operands, c), shapes)
            every[t] = w.node("Unsqueeze", [w.node("Cast", [h], to=self.hidden_type), front])
        ends = site.outputs
        if self.sequence:
            w.node("Concat", [every[t] for t in range(time)], [site.outputs[0]], axis=0)
            ends = site.outputs[1:]
        w.node("Cast", [h], [ends[0]], to=self.hidden_type)
        w.node("Identity", [c], [ends[1]])
