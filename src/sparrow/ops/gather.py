"""Rows of a tensor picked by an index tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.tensor import I32, I64, Array, TensorType, moved

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


def in_range(index: Array, extent: int) -> Array:
    """Indices with negative ones counted from the end, clamped into the axis.

    Clamping is what the native code does with an index outside [-extent, extent), which ONNX
    forbids: a hostile index reads some element of the tensor, never memory outside it.
    """
    wrapped = np.where(index < 0, index + extent, index)
    return np.clip(wrapped, 0, max(extent - 1, 0))


@dataclass(frozen=True, slots=True)
class Gather(Op):
    """y[.., i.., ..] = x[.., index[i..], ..] along ``axis`` (>= 0). index int32 or int64. ONNX
    Gather-13.
    """

    axis: int

    def infer(self, x: TensorType, index: TensorType) -> tuple[TensorType, ...]:
        if not 0 <= self.axis < x.rank:
            raise InvalidGraph(f"axis {self.axis} of {x}")
        if index.dtype not in (I32, I64):
            raise InvalidGraph(f"indices are {index.dtype}, expected int32 or int64")
        shape = (*x.shape[: self.axis], *index.shape, *x.shape[self.axis + 1 :])
        if index.size and x.shape[self.axis] == 0:
            raise InvalidGraph(f"indices into an empty axis of {x}")
        return (TensorType(shape, x.dtype, quant=moved(x.quant, len(shape))),)

    def eval(self, x: Array, index: Array) -> tuple[Array, ...]:
        picked = np.take(x, in_range(index, x.shape[self.axis]), self.axis)
        return (np.asarray(picked, order="C"),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def export(self, w: Writer, site: Site) -> None:
        w.node("Gather", list(site.inputs), [site.outputs[0]], axis=self.axis)
