"""What the attention operators have in common: heads, masks, and the product itself."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from sparrow import lane
from sparrow.importers.onnx.call import Call
from sparrow.ops.attention import HEADS_SECOND, Attention
from sparrow.ops.concat import Concat
from sparrow.tensor import BOOL, DType


@dataclass(slots=True)
class Heads:
    """Queries, keys and values of rank 4 under construction.

    ``rows_first`` values are [B, rows, heads, D] (reshaped projections), the others
    [B, heads, rows, D].
    """

    n: Call
    q: str
    k: str
    v: str
    rows_first: list[bool]
    dtype: DType
    past: int = 0

    def shape(self, i: int) -> tuple[int, ...]:
        """[B, heads, rows, D] of q, k or v."""
        s = self.n.b.shape((self.q, self.k, self.v)[i])
        return (s[0], s[2], s[1], s[3]) if self.rows_first[i] else s

    def heads_first(self, i: int) -> str:
        """The value q, k or v as [B, heads, rows, D]."""
        value = (self.q, self.k, self.v)[i]
        return self.n.b.transpose(value, HEADS_SECOND) if self.rows_first[i] else value

    def append(self, past_k: str, past_v: str) -> None:
        """Put cached keys and values before the new ones."""
        self.past = self.n.b.shape(past_k)[2]
        b = self.n.b
        for i, cached in ((1, past_k), (2, past_v)):
            joined = b.add(Concat(2), b.cast(cached, self.dtype), self.heads_first(i))
            self.rows_first[i] = False
            self.k, self.v = (joined, self.v) if i == 1 else (self.k, joined)

    def scores_shape(self) -> tuple[int, int, int, int]:
        """[B, H, S, T]."""
        b, h, s, _ = self.shape(0)
        return b, h, s, self.shape(1)[2]


def split_heads(n: Call, x: str, heads: int, what: str) -> str:
    """[B, S, heads * D] -> [B, S, heads, D]."""
    shape = n.b.shape(x)
    if len(shape) != 3 or heads < 1 or shape[2] % heads:
        raise n.bad(f"{what} {n.b.type(x)} does not split into {heads} heads")
    return n.b.reshape(x, (*shape[:2], heads, shape[2] // heads))


def bias_of(n: Call, allowed: str, dtype: DType, low: float = -np.inf) -> str:
    """0 where a bool value is true, ``low`` elsewhere."""
    cond = lane.Arg(0, BOOL)
    e = lane.call("where", cond, lane.Imm(0.0, dtype), lane.Imm(float(low), dtype))
    return n.b.lane(e, allowed)


def added(n: Call, a: str, b: str) -> str:
    """The sum of two biases, either of which may be absent."""
    return n.b.call("add", a, b) if a and b else a or b


def mask(n: Call, i: int, keys: int, dtype: DType) -> str:
    """Input ``i``, a bool or float mask, as bias with all keys; ``""`` when absent."""
    if not n.has(i):
        return ""
    x, t = n.x(i), n.type(i)
    bias = bias_of(n, x, dtype) if t.dtype == BOOL else n.b.cast(x, dtype)
    if t.rank and 1 < t.shape[-1] < keys:
        n.b.made(prod(t.shape[:-1]) * (keys - t.shape[-1]), "the rest of the mask")
        rest = np.full((*t.shape[:-1], keys - t.shape[-1]), -np.inf, dtype.numpy)
        bias = n.b.add(Concat(t.rank - 1), bias, n.b.const(rest, dtype))
    return bias


def attend(h: Heads, op: Attention, bias: str, *, flat: bool, dtype: DType) -> str:
    """Apply attention; ``flat`` gives [B, S, H * E], otherwise [B, H, S, E]."""
    b = h.n.b
    inside = (h.rows_first[0], h.rows_first[1], h.rows_first[2], flat)
    fused = Attention(op.scale, op.softcap, op.causal, op.offset, inside)
    y = b.add(fused, h.q, h.k, h.v, bias)
    if flat:
        batch, rows, heads, width = b.shape(y)
        y = b.reshape(y, (batch, rows, heads * width))
    return b.cast(y, dtype)
