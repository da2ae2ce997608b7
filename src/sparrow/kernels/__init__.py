"""The kernel table: what can compute a node, in order of preference where costs are equal."""

from __future__ import annotations

from sparrow.kernels import conv, loop, matmul, pool, recurrent, softmax
from sparrow.kernels.case import Kernel

KERNELS: tuple[Kernel, ...] = (
    *loop.ROWS,
    *conv.ROWS,
    *matmul.ROWS,
    *pool.ROWS,
    *recurrent.ROWS,
    *softmax.ROWS,
)
