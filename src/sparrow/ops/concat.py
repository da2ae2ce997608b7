"""Tensors one after another along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.tensor import Array, TensorType, moved

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class Concat(Op):
    """y = concatenation of all inputs along ``axis`` (>= 0). ONNX Concat-13."""

    axis: int

    def infer(self, *x: TensorType) -> tuple[TensorType, ...]:
        first = x[0]
        if not 0 <= self.axis < first.rank:
            raise InvalidGraph(f"axis {self.axis} of rank {first.rank}")
        for t in x[1:]:
            same = t.rank == first.rank and all(
                a == b or i == self.axis
                for i, (a, b) in enumerate(zip(t.shape, first.shape, strict=True))
            )
            if not same or t.dtype != first.dtype:
                raise InvalidGraph(f"{t} does not join {first} along axis {self.axis}")
        shape = list(first.shape)
        shape[self.axis] = sum(t.shape[self.axis] for t in x)
        quant = moved(first.quant, first.rank) if all(t.quant == first.quant for t in x) else None
        return (replace(first, shape=tuple(shape), quant=quant),)

    def eval(self, *x: Array) -> tuple[Array, ...]:
        return (np.concatenate(x, self.axis),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return Concat(perm.index(self.axis))

    def export(self, w: Writer, site: Site) -> None:
        w.node("Concat", list(site.inputs), [site.outputs[0]], axis=self.axis)
