"""A function of one 16-bit code as a table with linear interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow import lane
from sparrow.errors import InvalidGraph
from sparrow.graph import Op, Types
from sparrow.ops.sums import CODES
from sparrow.tensor import I16, I32, Array, DType, TensorType

if TYPE_CHECKING:
    from sparrow.export import Site, Writer

# Codes from one entry to the next, and entries; as in LiteRT's tables of 16 bits.
STEP = 128
ENTRIES = 513
# Bits of an entry below a step of the result, and its greatest magnitude.
FRACTION = 7
REACH = 1 << 23
# What holds codes of 16 bits.
WIDE = (I16, I32)


@dataclass(frozen=True, slots=True)
class LookupLinear(Op):
    """y = clip(zero + ((table[i] (128 - o) + table[i + 1] o + 2^13) >> 14)), x + 2^15 = 128 i + o.

    x codes of 16 bits, of any shape, as int16 or, clipped to those, as int32; table int32 [513],
    entries within `REACH`, in 2^-7 steps of y from its zero point. Everything stays in int32.

    Attributes:
        zero: Zero point of y.
        low: Least code of y.
        high: Greatest code of y.
        dtype: Type of y: int8, uint8, int16, or int32 for codes of 16 bits.
    """

    zero: int
    low: int
    high: int
    dtype: DType

    def infer(self, x: TensorType, table: TensorType) -> tuple[TensorType, ...]:
        if x.dtype not in WIDE or (table.shape, table.dtype) != ((ENTRIES,), I32):
            raise InvalidGraph(f"look-up of {x} between {table}")
        low, high = (I16 if self.dtype == I32 else self.dtype).limits
        if self.dtype not in (*CODES, *WIDE) or not low <= self.low <= self.high <= high:
            raise InvalidGraph(f"codes {self.low} to {self.high} of {self.dtype}")
        if not low <= self.zero <= high:
            raise InvalidGraph(f"zero point {self.zero} of {self.dtype}")
        return (TensorType(x.shape, self.dtype, x.axes),)

    def _codes(self) -> lane.Expr:
        """The code between two entries, operands 0 and 1, at the offset that is operand 2."""
        first, second, offset = (lane.Arg(i, I32) for i in range(3))
        rest = lane.call("sub", lane.Imm(STEP, I32), offset)
        total = lane.call("add", lane.call("mul", first, rest), lane.call("mul", second, offset))
        steps = lane.call("rshr", total, lane.Imm(2 * FRACTION, I32))
        code = lane.call("add", steps, lane.Imm(self.zero, I32))
        return lane.cast(
            lane.clip(code, lane.Imm(self.low, I32), lane.Imm(self.high, I32)), self.dtype
        )

    def eval(self, x: Array, table: Array) -> tuple[Array, ...]:
        at = np.clip(x.astype(np.int32), *I16.limits) - I16.limits[0]
        i = at // STEP
        return (lane.evaluate(self._codes(), (table[i], table[i + 1], at % STEP)),)

    def flops(self, x: Types, y: Sequence[TensorType]) -> int:
        return 4 * y[0].size

    def permuted(self, perm: tuple[int, ...], x: Types) -> Op | None:
        return self

    def transposable(self, x: Types) -> tuple[int, ...]:
        return (0,)

    def export(self, w: Writer, site: Site) -> None:
        t = site.in_types[0]
        assert t is not None
        x, table = site.inputs
        low, high = (w.scalar(v, I32) for v in I16.limits)
        code = w.node("Max", [w.node("Min", [w.node("Cast", [x], to=I32), high]), low])
        at = w.node("Sub", [code, low])
        step = w.scalar(STEP, I32)
        i = w.node("Div", [at, step])
        offset = w.node("Sub", [at, w.node("Mul", [i, step])])
        first = w.node("Gather", [table, i], axis=0)
        second = w.node("Gather", [table, w.node("Add", [i, w.scalar(1, I32)])], axis=0)
        y = w.expr(self._codes(), (first, second, offset), (t.shape,) * 3)
        w.node("Identity", [y], [site.outputs[0]])
