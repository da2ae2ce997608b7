"""Softmax and log-softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.tensor import Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class Softmax(Op):
    """y = exp(x - max) / sum(exp(x - max)) along ``axis`` (>= 0), or its log. ONNX Softmax-13."""

    axis: int
    log: bool = False

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if not 0 <= self.axis < x.rank or x.dtype.kind != "float":
            raise InvalidGraph(f"softmax over axis {self.axis} of {x}")
        return (x,)

    def eval(self, x: Array) -> tuple[Array, ...]:
        if x.size == 0:
            return (x,)
        wide = x.astype(np.float64 if x.dtype == np.float64 else np.float32)
        shifted = wide - wide.max(self.axis, keepdims=True)
        e = np.exp(shifted)
        total = e.sum(self.axis, keepdims=True)
        return ((shifted - np.log(total) if self.log else e / total).astype(x.dtype),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 5 * y[0].size

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return Softmax(perm.index(self.axis), self.log)

    def export(self, w: Writer, site: Site) -> None:
        kind = "LogSoftmax" if self.log else "Softmax"
        w.node(kind, list(site.inputs), [site.outputs[0]], axis=self.axis)
