"""The way back from the indices of a max pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.tensor import I64, Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class Unpool(Op):
    """y, zero but for y.flat[index] = x; the last of equal indices wins. ONNX MaxUnpool-22.

    x of any shape; index int64 of the same shape; an index outside y writes nothing.

    Attributes:
        shape: Shape of y.
    """

    shape: tuple[int, ...]

    def infer(self, x: TensorType, index: TensorType) -> tuple[TensorType, ...]:
        if index.shape != x.shape or index.dtype != I64:
            raise InvalidGraph(f"indices {index} do not fit {x}")
        return (TensorType(self.shape, x.dtype),)

    def eval(self, x: Array, index: Array) -> tuple[Array, ...]:
        y = np.zeros(prod(self.shape), x.dtype)
        good = (index >= 0) & (index < y.size)
        y[index[good]] = x[good]
        return (y.reshape(self.shape),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def export(self, w: Writer, site: Site) -> None:
        t = site.in_types[0]
        assert t is not None
        flat = w.const(np.array([-1], np.int64))
        zeros = w.const(np.zeros(prod(self.shape), t.dtype.numpy), t.dtype)
        values = w.node("Reshape", [site.inputs[0], flat])
        index = w.node("Reshape", [site.inputs[1], flat])
        y = w.node("ScatterElements", [zeros, index, values])
        shape = w.const(np.array(self.shape, np.int64))
        w.node("Reshape", [y, shape], [site.outputs[0]], allowzero=1)
