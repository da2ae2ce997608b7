"""Slices picked by a boolean vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.padded import export_count, export_packed, packed
from sparrow.tensor import BF16, BOOL, F32, I64, Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class Compress(Op):
    """(y, count int64 []): the slices of x along ``axis`` (>= 0) where ``condition`` holds.

    condition bool [n], n at most the extent of the axis. y has extent n and is packed to the count,
    see `graph.Length`. ONNX Compress-11.
    """

    axis: int

    def infer(self, x: TensorType, condition: TensorType) -> tuple[TensorType, ...]:
        if not 0 <= self.axis < x.rank:
            raise InvalidGraph(f"axis {self.axis} of {x}")
        if condition.dtype != BOOL or condition.rank != 1:
            raise InvalidGraph(f"the condition is {condition}, expected bool of rank 1")
        n = condition.shape[0]
        if n > x.shape[self.axis]:
            raise InvalidGraph(f"{n} conditions on an axis of {x.shape[self.axis]}")
        shape = tuple(n if i == self.axis else d for i, d in enumerate(x.shape))
        return replace(x, shape=shape, quant=None), TensorType((), I64)

    def eval(self, x: Array, condition: Array) -> tuple[Array, ...]:
        kept = np.compress(condition, x, self.axis)
        count = np.array(kept.shape[self.axis], np.int64)
        n = condition.shape[0]
        shape = tuple(n if i == self.axis else d for i, d in enumerate(x.shape))
        return packed(kept, shape), count

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def export(self, w: Writer, site: Site) -> None:
        y, count = site.outputs
        x, condition = site.inputs
        dtype = site.out_types[0].dtype
        if dtype == BF16:  # newer than the operator
            x = w.node("Cast", [x], to=F32)
        kept = w.node("Compress", [x, condition], axis=self.axis)
        if dtype == BF16:
            kept = w.node("Cast", [kept], to=BF16)
        export_packed(w, kept, site.out_types[0].shape, y)
        export_count(w, kept, self.axis, count)
