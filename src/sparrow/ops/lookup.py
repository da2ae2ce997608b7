"""A function of one 8-bit code as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.sums import CODES
from sparrow.tensor import I32, Array, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer


@dataclass(frozen=True, slots=True)
class Lookup(Op):
    """y = table[x - lowest code of x]. x int8 or uint8 of any shape, table [256] of any dtype."""

    def infer(self, x: TensorType, table: TensorType) -> tuple[TensorType, ...]:
        if x.dtype not in CODES or table.shape != (256,):
            raise InvalidGraph(f"look-up of {x} in {table}")
        return (TensorType(x.shape, table.dtype, x.axes),)

    def eval(self, x: Array, table: Array) -> tuple[Array, ...]:
        low = np.iinfo(x.dtype).min
        return (table[x.astype(np.int64) - low],)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 0

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return self

    def transposable(self, x: Types) -> tuple[int, ...]:
        return (0,)

    def export(self, w: Writer, site: Site) -> None:
        t = site.in_types[0]
        assert t is not None
        index = w.node("Cast", [site.inputs[0]], to=I32)
        if t.dtype.kind == "int":
            index = w.node("Add", [index, w.scalar(128, I32)])
        w.node("Gather", [site.inputs[1], index], [site.outputs[0]], axis=0)
