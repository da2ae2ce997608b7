"""Where a tensor is not zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow.graph import Op, Types
from sparrow.ops.padded import export_count, export_packed, packed
from sparrow.tensor import I64, Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class NonZero(Op):
    """(indices int64 [rank, size], count int64 []) of the elements that are not zero, in row-major
    order.

    The first is packed as [rank, count], see `graph.Length`. ONNX NonZero-13.
    """

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return TensorType((x.rank, x.size), I64), TensorType((), I64)

    def eval(self, x: Array) -> tuple[Array, ...]:
        found = np.stack(np.nonzero(np.atleast_1d(x))).astype(np.int64)[: x.ndim]
        count = np.count_nonzero(x)
        return packed(found, (x.ndim, x.size)), np.array(count, np.int64)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def export(self, w: Writer, site: Site) -> None:
        y, count = site.outputs
        found = w.node("NonZero", [site.inputs[0]])
        export_packed(w, found, site.out_types[0].shape, y)
        export_count(w, found, 1, count)
