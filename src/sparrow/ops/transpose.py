"""Permutation of axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.tensor import Affine, Array, BinaryCode, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class Transpose(Op):
    """y = transpose(x, perm): axis i of y is axis perm[i] of x. ONNX Transpose-13.

    Attributes:
        perm: A permutation of the axes.
        axes: Axis letters of y, ``""`` for the order ONNX defines.
    """

    perm: tuple[int, ...]
    axes: str = ""

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if sorted(self.perm) != list(range(x.rank)):
            raise InvalidGraph(f"perm {self.perm} does not permute the axes of {x}")
        quant = x.quant
        if isinstance(quant, Affine | BinaryCode):
            quant = quant.permuted(self.perm)
        return (TensorType(tuple(x.shape[p] for p in self.perm), x.dtype, self.axes, quant),)

    def eval(self, x: Array) -> tuple[Array, ...]:
        return (np.asarray(x.transpose(self.perm), order="C"),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def export(self, w: Writer, site: Site) -> None:
        w.node("Transpose", [site.inputs[0]], [site.outputs[0]], perm=list(self.perm))
