"""Sub-tensors picked by index vectors."""

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


@dataclass(frozen=True, slots=True)
class GatherND(Op):
    """y[b.., i..] = x[b.., index[b.., i.., 0], .., index[b.., i.., r-1], ..]. ONNX GatherND-13.

    x [B.., D1, .., Dr, R..], index int32 or int64 [B.., I.., r], y [B.., I.., R..] with
    ``batch_dims`` axes B. An index outside its axis is clamped, see `gather.in_range`.
    """

    batch_dims: int = 0

    def infer(self, x: TensorType, index: TensorType) -> tuple[TensorType, ...]:
        b = self.batch_dims
        if index.dtype not in (I32, I64):
            raise InvalidGraph(f"indices are {index.dtype}, expected int32 or int64")
        if not 0 <= b < min(index.rank, x.rank + 1) or x.shape[:b] != index.shape[:b]:
            raise InvalidGraph(f"{b} batch axes of {x} and indices {index.shape}")
        depth = index.shape[-1]
        if depth < 1 or b + depth > x.rank:
            raise InvalidGraph(f"index vectors of {depth} into {x} after {b} batch axes")
        shape = (*index.shape[:-1], *x.shape[b + depth :])
        if index.size and 0 in x.shape[b : b + depth]:
            raise InvalidGraph(f"indices into an empty axis of {x}")
        return (TensorType(shape, x.dtype),)

    def eval(self, x: Array, index: Array) -> tuple[Array, ...]:
        b, depth = self.batch_dims, index.shape[-1]
        lead = index.shape[:-1]
        batch = np.indices(lead, sparse=True)[:b]
        at = [in_range(index[..., j], x.shape[b + j]) for j in range(depth)]
        return (np.asarray(x[(*batch, *at)], order="C"),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def export(self, w: Writer, site: Site) -> None:
        x, index = site.inputs
        t = site.in_types[1]
        if t is not None and t.dtype == I32:
            index = w.node("Cast", [index], to=I64)
        w.node("GatherND", [x, index], [site.outputs[0]], batch_dims=self.batch_dims)
