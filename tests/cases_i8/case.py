"""A graph of one sum over random codes, and how its results are requantized."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from drawn import Drawn, Made
from sparrow import lane
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.passes.requantize import Constants, Grid, scaled
from sparrow.tensor import F32, I8, I16, I32, U8, Array, DType, TensorType


class Case(Drawn):
    """A graph of one sum over random codes; operands of extreme values are common."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.wide = False

    def codes(self, shape: tuple[int, ...], dtype: DType) -> Array:
        low, high = dtype.limits
        values = self.rng.integers(low, high + 1, shape)
        if self.n(0, 3) == 0:
            values = np.where(values > (low + high) // 2, high, low)
        return values.astype(dtype.numpy)

    def input(self, shape: tuple[int, ...], wide: bool = False) -> tuple[str, DType, int]:
        """(codes, their type, a zero point); of 16 bits 0."""
        dtype = I16 if wide else (I8, U8)[self.n(0, 1)]
        self.wide |= wide
        name = f"in{len(self.feeds)}"
        self.feeds[name] = self.codes(shape, dtype)
        low, high = dtype.limits
        zero = 0 if wide else (low, high, 0, self.n(low, high))[self.n(0, 3)]
        return self.b.input(name, TensorType(shape, dtype)), dtype, zero

    def weights(self, shape: tuple[int, ...]) -> str:
        return self.b.const(np.maximum(self.codes(shape, I8), -127), I8)

    def bias(self, n: int) -> str:
        values = self.rng.integers(-(1 << 18), 1 << 18, n).astype(np.int32)
        return self.b.const(values, I32) if self.flag() else ""

    def requantized(self, depth: int, columns: int) -> tuple[lane.Expr, list[str]]:
        """A requantization under the default scheme, or a conversion to float."""
        ratio = self.rng.uniform(0.2, 3.0, columns if self.flag() else 1) / (depth**0.5 * 60)
        ratio = ratio / 256 if self.wide else ratio
        constants = Constants(1)
        if self.n(0, 4) == 0:
            scale = constants.take(ratio, F32)
            e: lane.Expr = lane.call("mul", lane.cast(lane.Arg(0, I32), F32), scale)
        else:
            dtype = (I8, U8)[self.n(0, 1)]
            low, high = dtype.limits
            grid = Grid(self.n(low, high), low, high, dtype)
            if self.wide and self.flag():
                ratio, grid = 256 * ratio, Grid(0, *I16.limits, I16)
            made = scaled("f32", lane.Arg(0, I32), ratio, grid, constants)
            assert not hasattr(made, "reason")
            e = made
        return e, [self.b.const(a) for a in constants.arrays]

    def sum(self, op: Conv | MatMul, x: str, w: str, bias: str, depth: int, columns: int) -> Made:
        if self.n(0, 4) == 0:
            return self.finish(self.b.add(op, *[v for v in (x, w, bias) if v]))
        expr, extras = self.requantized(depth, columns)
        return self.finish(self.b.add(replace(op, epilogue=expr), x, w, bias, *extras))
