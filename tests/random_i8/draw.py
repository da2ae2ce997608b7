"""Random codes, and configurations: an operator over random operands."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple, TypeVar

import numpy as np

from sparrow.graph import Op
from sparrow.tensor import I8, I16, U8, Array

T = TypeVar("T")


class Draw:
    """Random integers and codes; extreme ones are common."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def n(self, low: int, high: int) -> int:
        """An integer of both ends included."""
        return int(self.rng.integers(low, high + 1))

    def codes(self, shape: tuple[int, ...], low: int, high: int) -> Array:
        """Codes; of one array in three all are at an end."""
        kind = self.n(0, 5)
        if kind == 0:
            return np.full(shape, self.rng.choice([low, high]))
        values = self.rng.integers(low, high + 1, shape)
        return np.where(values > (low + high) // 2, high, low) if kind == 1 else values

    def flag(self) -> bool:
        """Either."""
        return bool(self.n(0, 1))

    def slice(self, values: Array) -> Array:
        """The same values as a slice of wider rows."""
        before, after = self.n(0, 5), self.n(1, 9)
        n = values.shape[-1]
        wide = np.zeros((*values.shape[:-1], before + n + after), values.dtype)
        wide[..., before : before + n] = values
        return wide[..., before : before + n]

    def operands(
        self, x: tuple[int, ...], w: tuple[int, ...], columns: int, wide: bool = False
    ) -> tuple[Array, Array, Array | None, int]:
        """(codes of either sign, weights, bias or none, a zero point at an end or anywhere).

        ``wide``: codes of 16 bits, which have no zero point.
        """
        dtype = I16 if wide else (I8, U8)[self.n(0, 1)]
        low, high = dtype.limits
        zero = 0 if wide else (low, high, 0, self.n(low, high))[self.n(0, 3)]
        bias = self.rng.integers(-(1 << 18), 1 << 18, columns).astype(np.int32)
        return (
            self.codes(x, low, high).astype(dtype.numpy),
            self.codes(w, -127, 127).astype(np.int8),
            bias if self.n(0, 1) else None,
            zero,
        )

    def pick(self, *values: T) -> T:
        """One of some values."""
        return values[self.n(0, len(values) - 1)]


class Made(NamedTuple):
    """A configuration: op, operands, and which of them are constants."""

    op: Op
    operands: tuple[Array | None, ...]
    constant: Container[int] = (1, 2)
