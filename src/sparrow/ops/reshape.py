"""Another shape over the same elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.tensor import Array, TensorType, moved

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class Reshape(Op):
    """y = x with another shape, row-major order kept. ONNX Reshape, Flatten, Squeeze, Unsqueeze."""

    shape: tuple[int, ...]

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        y = TensorType(self.shape, x.dtype, quant=moved(x.quant, len(self.shape)))
        if y.size != x.size or min((0, *self.shape)) < 0:
            raise InvalidGraph(f"{x.shape} ({x.size} elements) cannot become {self.shape}")
        return (y,)

    def eval(self, x: Array) -> tuple[Array, ...]:
        return (x.reshape(self.shape),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def export(self, w: Writer, site: Site) -> None:
        shape = w.const(np.array(self.shape, np.int64))
        w.node("Reshape", [site.inputs[0], shape], [site.outputs[0]], allowzero=1)
