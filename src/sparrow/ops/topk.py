"""The largest or smallest elements along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.tensor import BOOL, I64, Array, TensorType, moved

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class TopK(Op):
    """(values, indices int64) of the ``k`` first elements along ``axis`` (>= 0) in sorted order.

    Of equal elements the one with the lower index comes first; NaN counts as larger than
    everything. ONNX TopK-11, always sorted.
    """

    axis: int
    k: int
    largest: bool = True

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if not 0 <= self.axis < x.rank or x.dtype == BOOL:
            raise InvalidGraph(f"top-k along axis {self.axis} of {x}")
        if not 0 <= self.k <= x.shape[self.axis]:
            raise InvalidGraph(f"k is {self.k} on an axis of {x.shape[self.axis]}")
        shape = tuple(self.k if i == self.axis else d for i, d in enumerate(x.shape))
        y = replace(x, shape=shape, quant=moved(x.quant, x.rank))
        return y, TensorType(shape, I64, x.axes)

    def eval(self, x: Array) -> tuple[Array, ...]:
        if self.largest:
            # a stable ascending order of the reversed axis, read backwards
            back = np.argsort(np.flip(x, self.axis), self.axis, kind="stable")
            order = x.shape[self.axis] - 1 - np.flip(back, self.axis)
        else:
            order = np.argsort(x, self.axis, kind="stable")
        first = np.take(order, np.arange(self.k), self.axis).astype(np.int64)
        return np.take_along_axis(x, first, self.axis), first

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        assert x[0] is not None
        return x[0].size * max(1, self.k.bit_length())

    def calls(self, x: Types, y: Sequence[TensorType]) -> int:
        # it sorts the whole axis
        assert x[0] is not None
        return x[0].size * x[0].shape[self.axis].bit_length() // 128

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return replace(self, axis=perm.index(self.axis))

    def export(self, w: Writer, site: Site) -> None:
        w.node(
            "TopK",
            [site.inputs[0], w.const(np.array([self.k], np.int64))],
            list(site.outputs),
            axis=self.axis,
            largest=int(self.largest),
            sorted=1,
        )
