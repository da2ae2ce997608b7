"""Determinants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.tensor import F32, F64, Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class Det(Op):
    """y[..] = determinant of x[.., :, :], float32 or float64, by LU with partial pivoting. ONNX
    Det-22.
    """

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if x.rank < 2 or x.shape[-1] != x.shape[-2] or x.dtype not in (F32, F64):
            raise InvalidGraph(f"determinant of {x}")
        return (TensorType(x.shape[:-2], x.dtype),)

    def eval(self, x: Array) -> tuple[Array, ...]:
        return (np.asarray(np.linalg.det(x), x.dtype),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        assert x[0] is not None
        return x[0].size * x[0].shape[-1] * 2 // 3

    def export(self, w: Writer, site: Site) -> None:
        w.node("Det", [site.inputs[0]], [site.outputs[0]])
