"""The same bits read as another type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.tensor import BF16, BOOL, Array, DType, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class BitCast(Op):
    """y = the bits of x as elements of ``dtype``, of the same width (at least 8 bits). ONNX
    BitCast-26.
    """

    dtype: DType

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if x.dtype.bits != self.dtype.bits or x.dtype.bits < 8:
            raise InvalidGraph(f"bits of {x.dtype} as {self.dtype}")
        # bfloat16 lives in float32 here, and a bool of other bits than 0 and 1 is none
        if BF16 in (x.dtype, self.dtype) or (self.dtype == BOOL and x.dtype != BOOL):
            raise InvalidGraph(f"bits of {x.dtype} as {self.dtype}")
        return (replace(x, dtype=self.dtype, quant=None),)

    def eval(self, x: Array) -> tuple[Array, ...]:
        return (np.ascontiguousarray(x).reshape(x.shape).view(self.dtype.numpy),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return self

    def export(self, w: Writer, site: Site) -> None:
        w.require(26)
        w.node("BitCast", [site.inputs[0]], [site.outputs[0]], to=self.dtype)
