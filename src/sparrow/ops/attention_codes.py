"""Scaled dot-product attention over 8-bit codes."""

from __future__ import annotations

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
from sparrow.tensor import F32, I16, I32, U8, Array, DType, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

# A mask's way to say that a key is not seen; any other number is within `MASK`.
UNSEEN = -(1 << 31)
MASK = 1 << 29
# Bits of a weight: two digits of seven, which bytes of either sign hold.
BITS = 14


def weight_bits(keys: int) -> int:
    """Bits of the weights of ``keys`` keys, so that their sums times 8-bit codes are int32."""
    most = ((1 << 31) - 1) // (255 * max(keys, 1))
    return min(BITS, most.bit_length() - 1)


@dataclass(frozen=True, slots=True)
class AttentionCodes(Op):
    """y = softmax(scale q k' + mask) v of the numbers that codes mean, as codes, head by head.

    q, k, v as `Attention` has them, int8 or uint8; mask optional, int32 in units of the sums,
    `UNSEEN` or within `MASK`, broadcast to [B, H, S, T].

        s = sum of (q - zero_q) k, plus the mask             exact; a zero point of k shifts a row
        d = greatest s that is seen less s
        e = min(halved(rne(min(float32(d) step, LIMIT)), 15 - bits), 2^bits - 1)   0 if not seen
        y = clip(zero + rne(float32(sum of e (v - zero_v)) (ratio / float32(sum of e))))

    A row that sees no key is ``zero``. No product feeds a sum.

    Attributes:
        zero_q: Zero point of q.
        zero_v: Zero point of v.
        zero: Zero point of y.
        dtype: Type of y: int8, uint8 or int16.
        step: 2^15 log2(e) times what a unit of s is worth, a float32 value.
        ratio: Scale of v over that of y, a float32 value.
        causal: Row i sees the keys j <= i + ``offset`` only.
        offset: Keys before the first row, with ``causal``; may be negative.
        interleaved: As of `Attention`.
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

    def infer(
        self, q: TensorType, k: TensorType, v: TensorType, mask: TensorType | None = None
    ) -> tuple[TensorType, ...]:
        x = extents(q, k, v, self.interleaved)
        if any(t.dtype not in CODES for t in (q, k, v)) or self.dtype not in (*CODES, I16):
            raise InvalidGraph(f"attention over {q.dtype}, {k.dtype}, {v.dtype} to {self.dtype}")
        check_zero(self.zero_q, q.dtype)
        check_zero(self.zero_v, v.dtype)
        if x.d * 255 * 255 >= MASK or weight_bits(x.keys) < 8:
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

    def eval(self, q: Array, k: Array, v: Array, mask: Array | None = None) -> tuple[Array, ...]:
        q, k, v = (
            x.transpose(HEADS_SECOND) if swap else x
            for x, swap in zip((q, k, v), self.interleaved[:3], strict=True)
        )
        group = q.shape[1] // k.shape[1]
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
        # sums of products of codes are exact in double precision
        s = ((q.astype(np.float64) - self.zero_q) @ np.swapaxes(k, -1, -2)).astype(np.int64)
        seen = np.broadcast_to(self.visible(*s.shape[-2:]), s.shape)
        if mask is not None:
            seen = seen & (mask != UNSEEN)
            s = s + mask
        top = np.where(seen, s, UNSEEN).max(-1, keepdims=True, initial=UNSEEN)
        d = np.where(seen, top - s, 0).astype(np.int32)
        e = np.where(seen, lane.evaluate(self._weights(s.shape[-1]), (d,)), 0)
        total = e.astype(np.float64) @ (v.astype(np.float64) - self.zero_v)
        weights = e.sum(-1, keepdims=True, dtype=np.int32)
        y = lane.evaluate(self._codes(), (total.astype(np.int32), weights))
        return (np.ascontiguousarray(y.transpose(HEADS_SECOND)) if self.interleaved[3] else y,)

    def flops(self, x: Types, y: tuple[TensorType, ...]) -> int:  # type: ignore[override]
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
        scores = w.node("MatMulInteger", [q, turned, w.scalar(self.zero_q, q_type.dtype)])
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
        high = w.node("Div", [e, w.scalar(128, I32)])
        low = w.node("Sub", [e, w.node("Mul", [high, w.scalar(128, I32)])])
        zeros = w.scalar(0, U8), w.scalar(self.zero_v, v_type.dtype)
        high, low = (
            w.node("MatMulInteger", [w.node("Cast", [x], to=U8), v, *zeros]) for x in (high, low)
        )
        total = w.node("Add", [w.node("Mul", [high, w.scalar(128, I32)]), low])
        weights = w.node("ReduceSum", [e, last], keepdims=1)
        y = w.expr(self._codes(), (total, weights), ((b, h, s, n), (b, h, s, 1)))
        if self.interleaved[3]:
            w.node("Transpose", [y], [site.outputs[0]], perm=list(HEADS_SECOND))
        else:
            w.node("Identity", [y], [site.outputs[0]])
