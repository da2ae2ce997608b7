"""Softmax of 8-bit codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.sums import CODES
from sparrow.tensor import F32, I32, I64, U8, Array, DType, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

# What a sum of exponentials may reach, and what `total` may be: their products stay in int32.
MAX_SUM = 1 << 30


@dataclass(frozen=True, slots=True)
class SoftmaxCodes(Op):
    """y = softmax of the numbers that codes mean, along ``axis`` (>= 0), as codes.

    x int8 or uint8 of any shape; table [256]: what a code d below the largest of its row counts.
    With an int32 table every step is exact, products and sums stay in int32:

        s = sum of table[max - x]                     at most `MAX_SUM`
        r = (total + s / 2) / s                       integer division
        y = clip(zero + ((table[max - x] * r + 2^(shift - 1)) >> shift))

    With a float32 table it is LiteRT's: s is summed element after element in float32, and y =
    clip(zero + round(table[max - x] * (1 / (s * step)))), halves up.

    Attributes:
        axis: The axis.
        zero: Zero point of y.
        dtype: Type of y.
        total: 2^shift over the scale of y, rounded.
        shift: See above; 1 to 30.
        step: Scale of y, a float32 value.
    """

    axis: int
    zero: int
    dtype: DType
    total: int = 0
    shift: int = 1
    step: float = 1.0

    def infer(self, x: TensorType, table: TensorType) -> tuple[TensorType, ...]:
        if x.dtype not in CODES or self.dtype not in CODES or not 0 <= self.axis < x.rank:
            raise InvalidGraph(f"softmax over axis {self.axis} of {x} to {self.dtype}")
        if table.shape != (256,) or table.dtype not in (I32, F32):
            raise InvalidGraph(f"exponentials {table}")
        if not 1 <= self.shift <= 30 or not 0 <= self.total <= MAX_SUM:
            raise InvalidGraph(f"{self.total} shifted by {self.shift} may leave int32")
        return (TensorType(x.shape, self.dtype, x.axes),)

    def eval(self, x: Array, table: Array) -> tuple[Array, ...]:
        if x.size == 0:
            return (x.astype(self.dtype.numpy),)
        codes = x.astype(np.int64)
        e = table[codes.max(self.axis, keepdims=True) - codes]
        if table.dtype == np.int32:
            e = e.astype(np.int64)
            s = e.sum(self.axis, keepdims=True)
            r = (self.total + s // 2) // s
            y = (e * r + (1 << self.shift - 1)) >> self.shift
        else:
            # sums of whole arrays would add in another order
            s = np.cumsum(e, self.axis, np.float32).take([-1], self.axis)
            p = e * (np.float32(1) / (s * np.float32(self.step)))
            y = np.floor(p).astype(np.int64)
            y = y + (p >= y.astype(np.float32) + np.float32(0.5))
            if self.dtype == U8:
                # there LiteRT adds a half and truncates, which lifts the float below a half too
                y = np.where(p == np.nextafter(np.float32(0.5), np.float32(0)), 1, y)
        low, high = self.dtype.limits
        return (np.clip(y + self.zero, low, high).astype(self.dtype.numpy),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 4 * y[0].size

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return replace(self, axis=perm.index(self.axis))

    def transposable(self, x: Types) -> tuple[int, ...]:
        return (0,)

    def export(self, w: Writer, site: Site) -> None:
        codes = w.node("Cast", [site.inputs[0]], to=I32)
        axes = w.const(np.array([self.axis], np.int64))
        top = w.node("ReduceMax", [codes, axes], keepdims=1)
        e = w.node("Gather", [site.inputs[1], w.node("Sub", [top, codes])], axis=0)
        table = site.in_types[1]
        assert table is not None
        s = w.node("ReduceSum", [e, axes], keepdims=1)
        if table.dtype == I32:
            half = w.node("Div", [s, w.scalar(2, I32)])
            r = w.node("Div", [w.node("Add", [half, w.scalar(self.total, I32)]), s])
            up = w.node("Add", [w.node("Mul", [e, r]), w.scalar(1 << self.shift - 1, I32)])
            y = w.node("Div", [up, w.scalar(1 << self.shift, I32)])
        else:
            r = w.node("Reciprocal", [w.node("Mul", [s, w.scalar(self.step, F32)])])
            half = w.scalar(0.5, F32)
            y = w.node("Floor", [w.node("Add", [w.node("Mul", [e, r]), half])])
            y = w.node("Cast", [y], to=I32)
        y = w.node("Cast", [w.node("Add", [y, w.scalar(self.zero, I32)])], to=I64)
        low, high = (w.scalar(v, I64) for v in self.dtype.limits)
        y = w.node("Min", [w.node("Max", [y, low]), high])
        w.node("Cast", [y], [site.outputs[0]], to=self.dtype)
