"""How much may be computed from constants while a model is compiled.

A model of a hundred bytes can ask for gigabytes: a constant of any shape, the product of two such,
forty of them in a chain. What a model stores pays for what is made of it; beyond that there is
little. An operator that is not folded stays in the Graph and runs at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from sparrow.graph import Op, Types
from sparrow.tensor import TensorType

SPARE_BYTES = 16 << 20
# What is stored once and read again, in a loop or by another tensor, is hashed each time.
SPARE_REPEATS = 128 << 20
BYTES_PER_STORED = 8
# Operations; the reference takes up to 10 ns for one, and 8 bytes of temporary memory.
SPARE_WORK = 1 << 23
WORK_PER_STORED = 256
# A call into NumPy over a few elements.
WORK_PER_CALL = 256
# Shape arithmetic is always folded, since without it no shape is known; whoever reads nodes bounds
# it, to whom a node of little work is as good as one of none.
SMALL_BYTES = 4096
SMALL_WORK = 1 << 16
LITTLE_WORK = 1 << 11


def evaluation_work(op: Op, x: Types, y: Sequence[TensorType]) -> int:
    """What it costs to evaluate an op: operations, elements read and written, calls.

    An extent of zero counts as one, since NumPy walks the other axes of an empty tensor.
    """
    elements = sum(prod(max(d, 1) for d in t.shape) for t in (*x, *y) if t is not None)
    return op.flops(x, y) + elements + WORK_PER_CALL * op.calls(x, y)


@dataclass(slots=True)
class Folding:
    """What is left to spend; one per model and stage.

    Attributes:
        bytes_left: Of constants that may still be made.
        work_left: Of operations that may still be done.
        repeats_left: Bytes of stored constants that may still be read once more.
        small: Evaluations that were too small to be counted above, in units of `LITTLE_WORK`.
    """

    bytes_left: int = SPARE_BYTES
    work_left: int = SPARE_WORK
    repeats_left: int = SPARE_REPEATS
    small: int = 0

    def grant(self, stored_bytes: int) -> None:
        """Count constants that the model itself stores."""
        self.bytes_left += BYTES_PER_STORED * stored_bytes
        self.work_left += WORK_PER_STORED * stored_bytes
        self.repeats_left += BYTES_PER_STORED * stored_bytes

    def repeats(self, stored_bytes: int) -> bool:
        """Count constants that are stored but once and read again, if there is enough left."""
        self.repeats_left -= stored_bytes
        return self.repeats_left >= 0

    def affords(self, size_bytes: int) -> bool:
        """Take memory for a constant made from numbers of the model, if there is enough left."""
        if size_bytes > self.bytes_left:
            return False
        self.bytes_left -= size_bytes
        return True

    def takes(self, op: Op, x: Types, y: Sequence[TensorType]) -> bool:
        """Whether to evaluate an op over constants; counts it when so."""
        size_bytes = sum(t.bytes for t in y)
        if size_bytes > max(self.bytes_left, SMALL_BYTES):
            return False
        work = evaluation_work(op, x, y)
        if size_bytes <= SMALL_BYTES and work <= SMALL_WORK:
            self.small += work // LITTLE_WORK
            return True
        if size_bytes > self.bytes_left or work > self.work_left:
            return False
        self.bytes_left -= size_bytes
        self.work_left -= work
        return True
