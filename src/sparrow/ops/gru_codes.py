"""Gated recurrent unit over codes, one direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow import lane
from sparrow.lane import Expr
from sparrow.ops import recurrent_codes as rc
from sparrow.ops.recurrent import results, scan
from sparrow.tensor import F32, I8, I32, Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class GRUCodes(rc.RecurrentCodes):
    """(y, y_h) of `GRU` with int8 weights; products read hidden states of 8 bits, steps add to 32.

    Inputs: x int32 [T, B, 3H], gates z, r, h of the inputs in units of 2^-11, within 2^20;
    r int8 [3H, H]; ratio float32 [3H], what a unit of a sum over hidden codes is in units of 2^-11;
    h0 int32 [B, H] in units of 2^-20, optional (zero); rb int32 [H] in units of 2^-11, within
    2^20 (only with ``reset_after``), optional. Per step, q(h) the code of h:

        a = x + rne(clip(float32(sum of (q(h) - zero) r) ratio))       z, r = sigmoid(clip(a))
        with ``reset_after``  n = tanh(clip(x + r * (own part + rb)))   a * b = (a b + 2^14) >> 15
        else                  n = tanh(clip(a)), over codes zero + r * (q(h) - zero) instead of q(h)
        h' = 2^5 n + z * (h - 2^5 n)                                          in units of 2^-20

    Outputs: y int8 [T, B, H], the codes of h' (only with ``sequence``), y_h int32 [B, H].

    ``step`` is 2^-20 over the scale of the hidden codes.

    Attributes, beside those of `RecurrentCodes`:
        reset_after: Apply the reset gate after the recurrent product.
    """

    reset_after: bool = False

    def infer(
        self,
        x: TensorType,
        r: TensorType,
        ratio: TensorType,
        h0: TensorType | None = None,
        rb: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        end = TensorType((x.shape[1], r.shape[-1]) if x.rank == 3 else (), I32)
        bias = TensorType(r.shape[-1:], I32)
        time, batch, hidden = rc.check(3, x, r, ratio, ((h0, end), (rb, bias)), self.zero)
        return results(self, TensorType((time, batch, hidden), I8), (end,))

    def _gate(self, i: int) -> Expr:
        """Activation of gate i (0 or 1) of x, sums and ratios: operands i, 3 + i and 6 + i."""
        own = rc.part(rc.argument(3 + i), lane.Arg(6 + i, F32))
        return rc.sigmoid(rc.clipped(lane.call("add", rc.argument(i), own), self.clip))

    def code(self) -> Expr:
        """The code of h, operand 0."""
        return rc.code(rc.argument(0), self.step, self.zero)

    def _reset(self) -> Expr:
        """Codes of the second product: operands of `_gate`, and the codes of h as operand 9."""
        away = lane.call("sub", rc.argument(9), rc.number(self.zero))
        kept = rc.times(away, self._gate(1))
        return lane.call("add", kept, rc.number(self.zero))

    def _next(self) -> Expr:
        """The next h: operands of `_gate`, h as operand 9, rb as operand 10."""
        own = rc.part(rc.argument(5), lane.Arg(8, F32))
        if self.reset_after:
            own = rc.times(lane.call("add", own, rc.argument(10)), self._gate(1))
        fresh = rc.tanh(rc.clipped(lane.call("add", rc.argument(2), own), self.clip))
        fresh = lane.call("mul", fresh, rc.number(1 << rc.STATE - rc.UNIT))
        kept = rc.times(lane.call("sub", rc.argument(9), fresh), self._gate(0))
        return lane.call("add", fresh, kept)

    def eval(
        self,
        x: Array,
        r: Array,
        ratio: Array,
        h0: Array | None = None,
        rb: Array | None = None,
    ) -> tuple[Array, ...]:
        hidden = r.shape[1]
        ratios, code, after = np.split(ratio, 3), self.code(), self._next()
        more = np.zeros(hidden, np.int32) if rb is None else rb

        def step(gates: Array, h: Array) -> tuple[Array]:
            codes = lane.evaluate(code, (h,))
            own = np.split(rc.sums(codes, r, self.zero), 3, axis=1)
            operands = [*np.split(gates, 3, axis=1), *own, *ratios]
            if not self.reset_after:
                kept = lane.evaluate(self._reset(), (*operands, codes))
                operands[5] = rc.sums(kept, r[2 * hidden :], self.zero)
            return (lane.evaluate(after, (*operands, h, more)),)

        limit = rc.STATE_LIMIT
        zeros = np.zeros((x.shape[1], hidden), np.int32)
        start = zeros if h0 is None else np.clip(h0, -limit, limit)
        y, (h,) = scan(step, x, None, self.reverse, (start,))
        return results(self, lane.evaluate(code, (y,)).astype(np.int8), (h,))

    def export(self, w: Writer, site: Site) -> None:
        x, r = site.in_types[:2]
        assert x is not None and r is not None
        (time, batch, _), hidden = x.shape, r.shape[1]
        names = (*site.inputs, *("",) * (5 - len(site.inputs)))
        turned = w.node("Transpose", [names[1]], perm=[1, 0])
        parts = rc.export_gates(w, turned, 3)
        ratios = rc.export_gates(w, names[2], 3)
        end = (batch, hidden)
        h = rc.export_state(w, names[3], end)
        more = names[4] or w.const(np.zeros(hidden, np.int32))
        every: dict[int, str] = {}
        shapes = (*(end,) * 6, *((hidden,),) * 3, end, (hidden,))
        front = w.const(np.array([0], np.int64))
        for t in self.walked(time):
            codes = w.expr(self.code(), (h,), (end,))
            own = rc.export_gates(w, rc.export_sums(w, codes, turned, self.zero), 3)
            operands = [*rc.export_gates(w, rc.export_step(w, names[0], t), 3), *own, *ratios]
            if not self.reset_after:
                kept = w.expr(self._reset(), (*operands, codes), shapes[:10])
                operands[5] = rc.export_sums(w, kept, parts[2], self.zero)
            h = w.expr(self._next(), (*operands, h, more), shapes)
            code = w.node("Cast", [w.expr(self.code(), (h,), (end,))], to=I8)
            every[t] = w.node("Unsqueeze", [code, front])
        if self.sequence:
            w.node("Concat", [every[t] for t in range(time)], [site.outputs[0]], axis=0)
        w.node("Identity", [h], [site.outputs[-1]])
