"""Scaled dot-product attention with a mask, causality, soft cap and grouped heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.lane import broadcast_shape
from sparrow.tensor import BF16, F32, F64, Array, DType, TensorType, round_bfloat16

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

HEADS_SECOND = (0, 2, 1, 3)


def rows_inside(shape: tuple[int, ...], interleaved: bool) -> tuple[int, ...]:
    """Shape as [B, heads, rows, D]; the swap is its own inverse."""
    return (shape[0], shape[2], shape[1], shape[3]) if interleaved else shape


@dataclass(frozen=True, slots=True)
class Extents:
    """Sizes of an attention: q [batch, heads, rows, d], k [batch, groups, keys, d], v [.., e]."""

    batch: int
    heads: int
    rows: int
    d: int
    groups: int
    keys: int
    e: int

    @property
    def scores(self) -> tuple[int, int, int, int]:
        """Shape of the scores before softmax."""
        return self.batch, self.heads, self.rows, self.keys

    @property
    def result(self) -> tuple[int, int, int, int]:
        """Shape of the result, heads before rows."""
        return self.batch, self.heads, self.rows, self.e


def extents(q: TensorType, k: TensorType, v: TensorType, interleaved: tuple[bool, ...]) -> Extents:
    """Sizes of the operands of an attention.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        interleaved: See `Attention`.

    Raises:
        InvalidGraph: They do not fit one another.
    """
    if not q.rank == k.rank == v.rank == 4:
        raise InvalidGraph(f"attention over {q}, {k}, {v}, expected rank 4")
    b, h, s, d = rows_inside(q.shape, interleaved[0])
    bk, g, t, dk = rows_inside(k.shape, interleaved[1])
    bv, gv, tv, e = rows_inside(v.shape, interleaved[2])
    if (bk, dk) != (b, d) or (bv, gv, tv) != (b, g, t) or (g == 0 or h % g):
        raise InvalidGraph(f"keys {k} and values {v} do not fit queries {q}")
    return Extents(b, h, s, d, g, t, e)


@dataclass(frozen=True, slots=True)
class Attention(Op):
    """y = softmax(cap(scale * q k') + mask) v for every head. ONNX Attention-24.

    Inputs: q [B, H, S, D], k [B, G, T, D], v [B, G, T, E], H a multiple of G: query head h reads
    key head h // (H / G); mask optional, of the dtype of q and broadcast to [B, H, S, T]. float32
    or float64. Output y [B, H, S, E]. cap(s) = softcap * tanh(s / softcap). A row that may see
    no key (scores -inf everywhere) is zero, or NaN with ``blind_nan``.

    Attributes:
        scale: Factor of the scores.
        softcap: Bound of the scores, 0 for none.
        causal: Row i sees the keys j <= i + ``offset`` only.
        offset: Keys before the first row, with ``causal``; may be negative.
        interleaved: For q, k, v and y, whether it is stored [B, rows, heads, D], as projections
            write it.
        blind_nan: A row that may see no key is NaN, as Softmax and MatMul spelled out give.
        accumulate: Type of scores, mask, weights and sums where q, k and v are bfloat16: float32.
            Weights, e^(score - the row's greatest), are rounded to bfloat16 before they are
            multiplied, not before they are added.
        dtype: Type of y where it is not that of the sums: bfloat16.
    """

    scale: float
    softcap: float = 0.0
    causal: bool = False
    offset: int = 0
    interleaved: tuple[bool, bool, bool, bool] = (False, False, False, False)
    blind_nan: bool = False
    accumulate: DType | None = None
    dtype: DType | None = None

    def infer(
        self, q: TensorType, k: TensorType, v: TensorType, mask: TensorType | None = None
    ) -> tuple[TensorType, ...]:
        x = extents(q, k, v, self.interleaved)
        taken = (F32, F64) if self.accumulate is None else (BF16,)
        if q.dtype not in taken or k.dtype != q.dtype or v.dtype != q.dtype:
            raise InvalidGraph(f"attention over {q.dtype}, {k.dtype}, {v.dtype}")
        sums = self.accumulate or q.dtype
        full = x.scores
        if mask is not None and (mask.dtype != sums or broadcast_shape(mask.shape, full) != full):
            raise InvalidGraph(f"mask {mask} does not fit scores {full}")
        return (TensorType(rows_inside(x.result, self.interleaved[3]), self.dtype or sums),)

    def visible(self, rows: int, keys: int) -> Array:
        """Which keys each row sees by causality: bool [rows, keys]."""
        return np.tri(rows, keys, self.offset, dtype=np.bool_)

    def heads(self, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
        """Operands as [B, heads, rows, ..], keys and values repeated for all query heads."""
        q, k, v = (
            x.transpose(HEADS_SECOND) if swap else x
            for x, swap in zip((q, k, v), self.interleaved[:3], strict=True)
        )
        group = q.shape[1] // k.shape[1]
        return q, np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)

    def scores(self, q: Array, k: Array, mask: Array | None = None) -> Array:
        """Scores [B, H, S, T] of `heads`; -inf where a key is not seen."""
        scores: Array = (q * q.dtype.type(self.scale)) @ np.swapaxes(k, -1, -2)
        if self.softcap:
            scores = np.tanh(scores / self.softcap) * self.softcap
        if mask is not None:
            scores = scores + mask
        if self.causal:
            scores = np.where(self.visible(*scores.shape[-2:]), scores, -np.inf)
        return scores

    def eval(self, q: Array, k: Array, v: Array, mask: Array | None = None) -> tuple[Array, ...]:
        q, k, v = self.heads(q, k, v)
        e = exponentials(self.scores(q, k, mask))
        total = e.sum(-1, keepdims=True)
        total = np.where(total == 0, np.nan if self.blind_nan else 1, total)
        if self.accumulate is None:
            y = (e / total).astype(q.dtype) @ v
        else:
            y = (round_bfloat16(e) @ v / total).astype(q.dtype)
        if self.dtype == BF16:
            y = round_bfloat16(y)
        if self.interleaved[3]:
            y = np.ascontiguousarray(y.transpose(HEADS_SECOND))
        return (y,)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        q, k = x[0], x[1]
        assert q is not None and k is not None
        b, h, s, d = rows_inside(q.shape, self.interleaved[0])
        keys = rows_inside(k.shape, self.interleaved[1])[2]
        e = y[0].shape[3]
        return b * h * s * keys * (2 * d + 2 * e + 5)

    def export(self, w: Writer, site: Site) -> None:
        q, k, v = (
            w.node("Transpose", [x], perm=list(HEADS_SECOND)) if swap else x
            for x, swap in zip(site.inputs[:3], self.interleaved[:3], strict=True)
        )
        q_type, k_type = site.in_types[0], site.in_types[1]
        assert q_type is not None and k_type is not None
        b, h, s, d = rows_inside(q_type.shape, self.interleaved[0])
        g, t = rows_inside(k_type.shape, self.interleaved[1])[1:3]
        e = site.out_types[0].shape[3]
        dtype = self.accumulate or q_type.dtype
        if self.accumulate is not None:
            q, k, v = (w.node("Cast", [x], to=dtype) for x in (q, k, v))
        if g != h:
            k, v = (repeated(w, x, (b, g, h // g, t, n)) for x, n in ((k, d), (v, e)))
        q = w.node("Mul", [q, w.scalar(self.scale, dtype)])
        scores = w.node("MatMul", [q, w.node("Transpose", [k], perm=[0, 1, 3, 2])])
        if self.softcap:
            cap = w.scalar(self.softcap, dtype)
            scores = w.node("Mul", [w.node("Tanh", [w.node("Div", [scores, cap])]), cap])
        masked = len(site.inputs) > 3 and bool(site.inputs[3])
        if masked:
            scores = w.node("Add", [scores, site.inputs[3]])
        if self.causal:
            seen = w.const(self.visible(s, t))
            scores = w.node("Where", [seen, scores, w.scalar(-np.inf, dtype)])
        blind = not self.blind_nan and (masked or (self.causal and self.offset < 0))
        if self.accumulate is None:
            y = w.node("MatMul", [_softmax(w, scores, blind, dtype), v])
        else:
            y = _over_halves(w, scores, v, None if self.blind_nan else dtype)
        if self.dtype is not None:
            y = w.node("Cast", [y], to=self.dtype)
        if self.interleaved[3]:
            w.node("Transpose", [y], [site.outputs[0]], perm=list(HEADS_SECOND))
        else:
            w.node("Identity", [y], [site.outputs[0]])


def exponentials(scores: Array) -> Array:
    """Exponentials of scores less the greatest of their row; 0 in rows of nothing but -inf."""
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    e: Array = np.exp(scores - np.where(np.isneginf(top), 0, top))
    return e


def _softmax(w: Writer, scores: str, blind: bool, dtype: DType) -> str:
    p = w.node("Softmax", [scores], axis=-1)
    if blind:
        # ONNX Softmax of nothing but -inf is NaN
        top = w.node("ReduceMax", [scores, w.const(np.array([-1], np.int64))], keepdims=1)
        none = w.node("Equal", [top, w.scalar(-np.inf, dtype)])
        p = w.node("Where", [none, w.scalar(0, dtype), p])
    return p


def _over_halves(w: Writer, scores: str, v: str, zero: DType | None) -> str:
    """Rounded exponentials times values, over the sum of all; rows of none are ``zero``."""
    axis = w.const(np.array([-1], np.int64))
    top = w.node("ReduceMax", [scores, axis], keepdims=1)
    top = w.node("Max", [top, w.scalar(float(np.finfo(np.float32).min), F32)])
    e = w.node("Exp", [w.node("Sub", [scores, top])])
    total = w.node("ReduceSum", [e, axis], keepdims=1)
    if zero is not None:
        none = w.node("Equal", [total, w.scalar(0, zero)])
        total = w.node("Where", [none, w.scalar(1, zero), total])
    halves = w.node("Cast", [w.node("Cast", [e], to=BF16)], to=F32)
    return w.node("Div", [w.node("MatMul", [halves, v]), total])


def repeated(w: Writer, x: str, shape: tuple[int, int, int, int, int]) -> str:
    """[B, G, T, D] with every head ``repeats`` times in a row; shape is (B, G, repeats, T, D)."""
    b, g, repeats, t, d = shape
    x = w.node("Unsqueeze", [x, w.const(np.array([2], np.int64))])
    x = w.node("Expand", [x, w.const(np.array(shape, np.int64))])
    return w.node("Reshape", [x, w.const(np.array([b, g * repeats, t, d], np.int64))])
