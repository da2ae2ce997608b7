"""Scaled dot-product attention over codes of 8 or 16 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow import lane
from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.attention import HEADS_SECOND, extents, repeated, rows_inside
from sparrow.ops.exponential import LIMIT, halved
from sparrow.ops.lane import broadcast_shape
from sparrow.ops.sums import CODES, check_zero
from sparrow.tensor import F32, F64, I16, I32, U8, Array, DType, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

# A mask's way to say that a key is not seen; any other number is within `MASK`.
UNSEEN = -(1 << 31)
MASK = 1 << 29
# Bits of a weight: two digits of seven, which bytes of either sign hold.
BITS = 14
# Bits of the lower digit of a value of 16 bits.
DIGIT = 8


def weight_bits(keys: int) -> int:
    """Bits of the weights of ``keys`` keys, so that their sums times 8-bit codes are int32."""
    most = ((1 << 31) - 1) // (255 * max(keys, 1))
    return min(BITS, most.bit_length() - 1)


@dataclass(frozen=True, slots=True)
class AttentionCodes(Op):
    """y = softmax(scale q k' + mask) v of the numbers that codes mean, as codes, head by head.

    q, k, v as `Attention` has them, int8 or uint8 each, or all int16 with zero points 0; mask
    optional, int32 in units of the sums, `UNSEEN` or within `MASK`, broadcast to [B, H, S, T].

        s = sum of (q - zero_q) k, plus the mask             exact; a zero point of k shifts a row
        d = greatest s that is seen less s
        e = min(halved(rne(min(float32(d) step, LIMIT)), 15 - bits), 2^bits - 1)   0 if not seen
        t = sum of e (v - zero_v)
        y = clip(zero + rne(float32(t) (ratio / float32(sum of e))))

    Of 16 bits q and k first lose their last ``shifts`` bits, halves up, and the sum its last eight:
    t = sum of e (v >> 8) + ((sum of e (v & 255) + 128) >> 8). All stays in int32.
    A row that sees no key is ``zero``. No product feeds a sum.

    Attributes:
        zero_q: Zero point of q.
        zero_v: Zero point of v.
        zero: Zero point of y.
        dtype: Type of y: int8, uint8 or int16.
        step: 2^15 log2(e) times what a unit of s is worth, a float32 value.
        ratio: What a unit of t is in steps of y, but for the weights, a float32 value: scale of v
            over that of y, of 16 bits 2^8 times that.
        causal: Row i sees the keys j <= i + ``offset`` only.
        offset: Keys before the first row, with ``causal``; may be negative.
        interleaved: As of `Attention`.
        shifts: Bits that q and k of 16 bits lose, so that s without the mask stays within `MASK`.
    """

    zero_q: int
    zero_v: int
    zero: int
    dtype: DType
    step: float
    ratio: float
    causal: bool = False
    offset: int = 0
    interleaved: tuple[bool, bool, bool, bool] = (False, False, False, False)
    shifts: tuple[int, int] = (0, 0)

    def infer(
        self, q: TensorType, k: TensorType, v: TensorType, mask: TensorType | None = None
    ) -> tuple[TensorType, ...]:
        x = extents(q, k, v, self.interleaved)
        wide = q.dtype == k.dtype == v.dtype == I16
        known = wide or all(t.dtype in CODES for t in (q, k, v))
        if not known or self.dtype not in (*CODES, I16):
            raise InvalidGraph(f"attention over {q.dtype}, {k.dtype}, {v.dtype} to {self.dtype}")
        check_zero(self.zero_q, q.dtype)
        check_zero(self.zero_v, v.dtype)
        if not all(0 <= n <= (15 if wide else 0) for n in self.shifts):
            raise InvalidGraph(f"attention over {q.dtype} that loses {self.shifts} bits")
        most = 1 << (30 - sum(self.shifts)) if wide else 255 * 255
        if x.d * most >= MASK or weight_bits(x.keys) < 8:
            raise InvalidGraph(f"attention over {x.d} features and {x.keys} keys may leave int32")
        if not self.step > 0 or not self.ratio > 0:
            raise InvalidGraph(f"attention with a step of {self.step} and a ratio of {self.ratio}")
        full = x.scores
        if mask is not None and (mask.dtype != I32 or broadcast_shape(mask.shape, full) != full):
            raise InvalidGraph(f"mask {mask} does not fit scores {full}")
        return (TensorType(rows_inside(x.result, self.interleaved[3]), self.dtype),)

    def visible(self, rows: int, keys: int) -> Array:
        """Which keys each row sees by causality: bool [rows, keys]."""
        return np.tri(rows, keys, self.offset if self.causal else keys, dtype=np.bool_)

    def _weights(self, keys: int) -> lane.Expr:
        """The weight e of d, which is operand 0."""
        d = lane.cast(lane.Arg(0, I32), F32)
        steps = lane.call("mul", d, lane.Imm(float(np.float32(self.step)), F32))
        t = lane.call("round", lane.call("min", steps, lane.Imm(float(LIMIT), F32)))
        bits = weight_bits(keys)
        return lane.call(
            "min", halved(lane.cast(t, I32), 15 - bits), lane.Imm((1 << bits) - 1, I32)
        )

    def _codes(self) -> lane.Expr:
        """The code of the sum over values (operand 0) and that of the weights (operand 1)."""
        total = lane.cast(lane.call("max", lane.Arg(1, I32), lane.Imm(1, I32)), F32)
        each = lane.call("div", lane.Imm(float(np.float32(self.ratio)), F32), total)
        steps = lane.call("round", lane.call("mul", lane.cast(lane.Arg(0, I32), F32), each))
        low, high = (lane.Imm(float(v - self.zero), F32) for v in self.dtype.limits)
        codes = lane.cast(lane.clip(steps, low, high), I32)
        return lane.cast(lane.call("add", codes, lane.Imm(self.zero, I32)), self.dtype)

    def _shortened(self, bits: int) -> lane.Expr:
        """A code of 16 bits, operand 0, without its last ``bits``."""
        code = lane.cast(lane.Arg(0, I16), I32)
        return lane.call("rshr", code, lane.Imm(bits, I32))

    def _digits(self) -> tuple[lane.Expr, lane.Expr]:
        """(v & 255, v >> 8) of a code of 16 bits."""
        code = lane.cast(lane.Arg(0, I16), I32)
        low = lane.call("bitand", code, lane.Imm((1 << DIGIT) - 1, I32))
        # a multiple of 256: nothing is rounded
        return low, lane.call("rshr", lane.call("sub", code, low), lane.Imm(DIGIT, I32))

    def _joined(self) -> lane.Expr:
        """The sum over values from those over their lower digits and their higher ones."""
        carried = lane.call("rshr", lane.Arg(0, I32), lane.Imm(DIGIT, I32))
        return lane.call("add", carried, lane.Arg(1, I32))

    def eval(self, q: Array, k: Array, v: Array, mask: Array | None = None) -> tuple[Array, ...]:
        q, k, v = (
            x.transpose(HEADS_SECOND) if swap else x
            for x, swap in zip((q, k, v), self.interleaved[:3], strict=True)
        )
        group = q.shape[1] // k.shape[1]
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
        wide = q.dtype == np.int16
        if wide:
            q, k = (
                lane.evaluate(self._shortened(n), (x,))
                for n, x in zip(self.shifts, (q, k), strict=True)
            )
        # sums of products of codes are exact in double precision
        s = ((q.astype(np.float64) - self.zero_q) @ np.swapaxes(k, -1, -2)).astype(np.int64)
        seen = np.broadcast_to(self.visible(*s.shape[-2:]), s.shape)
        if mask is not None:
            seen = seen & (mask != UNSEEN)
            s = s + mask
        top = np.where(seen, s, UNSEEN).max(-1, keepdims=True, initial=UNSEEN)
        d = np.where(seen, top - s, 0).astype(np.int32)
        e = np.where(seen, lane.evaluate(self._weights(s.shape[-1]), (d,)), 0)
        digits = [lane.evaluate(x, (v,)) for x in self._digits()] if wide else [v]
        sums = [e.astype(np.float64) @ (x.astype(np.float64) - self.zero_v) for x in digits]
        total, *high = (x.astype(np.int32) for x in sums)
        if high:
            total = lane.evaluate(self._joined(), (total, *high))
        weights = e.sum(-1, keepdims=True, dtype=np.int32)
        y = lane.evaluate(self._codes(), (total, weights))
        return (np.ascontiguousarray(y.transpose(HEADS_SECOND)) if self.interleaved[3] else y,)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        q, k = x[0], x[1]
        assert q is not None and k is not None
        b, h, s, d = rows_inside(q.shape, self.interleaved[0])
        keys = rows_inside(k.shape, self.interleaved[1])[2]
        return b * h * s * keys * (2 * d + 2 * y[0].shape[3] + 5)

    def export(self, w: Writer, site: Site) -> None:
        q, k, v = (
            w.node("Transpose", [x], perm=list(HEADS_SECOND)) if swap else x
            for x, swap in zip(site.inputs[:3], self.interleaved[:3], strict=True)
        )
        q_type, k_type, v_type = site.in_types[:3]
        assert q_type is not None and k_type is not None and v_type is not None
        b, h, s, d = rows_inside(q_type.shape, self.interleaved[0])
        g, t = rows_inside(k_type.shape, self.interleaved[1])[1:3]
        n = rows_inside(v_type.shape, self.interleaved[2])[3]
        if g != h:
            k, v = (repeated(w, x, (b, g, h // g, t, m)) for x, m in ((k, d), (v, n)))
        full, last = (b, h, s, t), w.const(np.array([-1], np.int64))
        turned = w.node("Transpose", [k], perm=[0, 1, 3, 2])
        scores = self._scores(w, (q, turned), (q_type, k_type), ((b, h, s, d), (b, h, d, t)))
        seen = w.const(np.broadcast_to(self.visible(s, t), full).copy())
        if len(site.inputs) > 3 and site.inputs[3]:
            own = w.node("Greater", [site.inputs[3], w.scalar(UNSEEN, I32)])
            seen = w.node("And", [seen, own])
            scores = w.node("Add", [scores, site.inputs[3]])
        scores = w.node("Where", [seen, scores, w.scalar(UNSEEN, I32)])
        top = w.node("ReduceMax", [scores, last], keepdims=1)
        away = w.node("Sub", [top, w.node("Where", [seen, scores, top])])
        e = w.expr(self._weights(t), (away,), (full,))
        e = w.node("Where", [seen, e, w.scalar(0, I32)])
        if v_type.dtype == I16:
            sums = [_product(w, e, w.expr(x, (v,), ((b, h, t, n),))) for x in self._digits()]
            total = w.expr(self._joined(), tuple(sums), ((b, h, s, n),) * 2)
        else:
            total = self._bytes(w, e, v, v_type)
        weights = w.node("ReduceSum", [e, last], keepdims=1)
        y = w.expr(self._codes(), (total, weights), ((b, h, s, n), (b, h, s, 1)))
        if self.interleaved[3]:
            w.node("Transpose", [y], [site.outputs[0]], perm=list(HEADS_SECOND))
        else:
            w.node("Identity", [y], [site.outputs[0]])

    def _scores(
        self,
        w: Writer,
        operands: tuple[str, str],
        types: tuple[TensorType, TensorType],
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
    ) -> str:
        """The products of queries and turned keys."""
        if types[0].dtype != I16:
            return w.node("MatMulInteger", [*operands, w.scalar(self.zero_q, types[0].dtype)])
        q, k = (
            w.expr(self._shortened(n), (x,), (shape,))
            for n, x, shape in zip(self.shifts, operands, shapes, strict=True)
        )
        return _product(w, q, k)

    def _bytes(self, w: Writer, e: str, v: str, v_type: TensorType) -> str:
        """The sums of weights, in two digits, times values of 8 bits."""
        high = w.node("Div", [e, w.scalar(128, I32)])
        low = w.node("Sub", [e, w.node("Mul", [high, w.scalar(128, I32)])])
        zeros = w.scalar(0, U8), w.scalar(self.zero_v, v_type.dtype)
        high, low = (
            w.node("MatMulInteger", [w.node("Cast", [x], to=U8), v, *zeros]) for x in (high, low)
        )
        return w.node("Add", [w.node("Mul", [high, w.scalar(128, I32)]), low])


def _product(w: Writer, a: str, b: str) -> str:
    """The matrix product of int32 values whose sums are int32, exact in double precision."""
    a, b = (w.node("Cast", [x], to=F64) for x in (a, b))
    return w.node("Cast", [w.node("MatMul", [a, b])], to=I32)
