"""Elements picked by an index tensor along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.gather import in_range
from sparrow.tensor import I32, I64, Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


def check_index_shape(x: TensorType, index: TensorType, axis: int) -> None:
    """Check an index tensor that lies within ``x`` on every axis but one.

    Raises:
        InvalidGraph: Wrong dtype, rank or extents.
    """
    if not 0 <= axis < x.rank:
        raise InvalidGraph(f"axis {axis} of {x}")
    if index.dtype not in (I32, I64):
        raise InvalidGraph(f"indices are {index.dtype}, expected int32 or int64")
    pairs = zip(index.shape, x.shape, strict=False)
    inside = all(a <= b or i == axis for i, (a, b) in enumerate(pairs))
    if index.rank != x.rank or not inside:
        raise InvalidGraph(f"indices {index.shape} do not fit {x} along axis {axis}")
    if index.size and x.shape[axis] == 0:
        raise InvalidGraph(f"indices into an empty axis of {x}")


def open_grid(shape: tuple[int, ...]) -> list[Array]:
    """One broadcasting index array per axis, covering ``shape``."""
    return list(np.indices(shape, sparse=True))


@dataclass(frozen=True, slots=True)
class GatherElements(Op):
    """y[i, j, ..] = x[i, index[i, j, ..], ..], the index replacing position ``axis`` (>= 0).

    index int32 or int64, of the rank of x and within it on the other axes; an index outside the
    axis is clamped, see `gather.in_range`. ONNX GatherElements-13.
    """

    axis: int

    def infer(self, x: TensorType, index: TensorType) -> tuple[TensorType, ...]:
        check_index_shape(x, index, self.axis)
        return (TensorType(index.shape, x.dtype),)

    def eval(self, x: Array, index: Array) -> tuple[Array, ...]:
        at = open_grid(index.shape)
        at[self.axis] = in_range(index, x.shape[self.axis])
        return (x[tuple(at)],)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return GatherElements(perm.index(self.axis))

    def export(self, w: Writer, site: Site) -> None:
        w.node("GatherElements", list(site.inputs), [site.outputs[0]], axis=self.axis)
