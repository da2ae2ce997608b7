"""Distinct elements or slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.padded import export_count, export_packed, packed
from sparrow.tensor import BF16, F32, I64, Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class Unique(Op):
    """(y, first, inverse, repeats, count): the distinct slices of x along ``axis``. ONNX Unique-11.

    y has the shape of x (flat without an axis), first and repeats [n] int64 give where each slice
    occurs first and how often, inverse int64 [n] where each slice of x is in y, count int64 [] how
    many there are; y, first and repeats are packed to it, see `graph.Length`.

    Attributes:
        axis: Axis >= 0 of the slices, or None for the elements of x flattened.
        ordered: Slices in ascending (lexicographic) order, else in order of first occurrence.
    """

    axis: int | None
    ordered: bool = True

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if self.axis is not None and not 0 <= self.axis < x.rank:
            raise InvalidGraph(f"axis {self.axis} of {x}")
        n = x.size if self.axis is None else x.shape[self.axis]
        y = TensorType((n,), x.dtype) if self.axis is None else replace(x, quant=None)
        each = TensorType((n,), I64)
        return y, each, each, each, TensorType((), I64)

    def eval(self, x: Array) -> tuple[Array, ...]:
        axis = self.axis or 0
        flat = x.reshape(-1) if self.axis is None else x
        y, first, inverse, repeats = np.unique(
            flat, return_index=True, return_inverse=True, return_counts=True, axis=axis
        )
        inverse = inverse.reshape(-1)
        if not self.ordered:
            order = np.argsort(first)
            rank = np.argsort(order)
            y, first, repeats = np.take(y, order, axis), first[order], repeats[order]
            inverse = rank[inverse]
        n = flat.shape[axis]
        return (
            packed(y, flat.shape),
            packed(first.astype(np.int64), (n,)),
            inverse.astype(np.int64),
            packed(repeats.astype(np.int64), (n,)),
            np.array(len(first), np.int64),
        )

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        # it sorts what is there
        assert x[0] is not None
        return 24 + x[0].size * x[0].size.bit_length() // 64

    def export(self, w: Writer, site: Site) -> None:
        attrs = {} if self.axis is None else {"axis": self.axis}
        names = [w.fresh("unique") for _ in range(4)]
        x, dtype = site.inputs[0], site.out_types[0].dtype
        if dtype == BF16:  # newer than the operator
            x = w.node("Cast", [x], to=F32)
        w.node("Unique", [x], names, sorted=int(self.ordered), **attrs)
        if dtype == BF16:
            names[0] = w.node("Cast", [names[0]], to=BF16)
        y, first, inverse, repeats, count = site.outputs
        shapes = [t.shape for t in site.out_types]
        export_packed(w, names[0], shapes[0], y)
        export_packed(w, names[1], shapes[1], first)
        full = w.const(np.array(shapes[2], np.int64))
        w.node("Reshape", [names[2], full], [inverse], allowzero=1)
        export_packed(w, names[3], shapes[3], repeats)
        export_count(w, names[1], 0, count)
