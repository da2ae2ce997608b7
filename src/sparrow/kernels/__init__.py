"""The kernel table: what can compute a node, in order of preference where costs are equal."""

from __future__ import annotations

from collections.abc import Sequence

from sparrow.kernels import (
    attention,
    attention_i8,
    column_i8,
    compact_i8,
    conv,
    conv3d,
    conv_any,
    conv_i8,
    conv_i16,
    conv_transpose,
    conv_twos_i8,
    depthwise_pairs_i8,
    gather,
    lookup,
    loop,
    maddubs_i8,
    matmul,
    matmul_any,
    matmul_i8,
    matrix_bf16,
    normalize,
    pool,
    pool_any,
    pool_i8,
    quantize,
    recurrent,
    recurrent_i8,
    reduce,
    resize,
    sample,
    selecting,
    softmax,
    softmax_i8,
    winograd_i8,
)
from sparrow.kernels.case import Kernel
from sparrow.targets import Isa

KERNELS: tuple[Kernel, ...] = (
    *loop.ROWS,
    *attention.ROWS,
    *attention_i8.ROWS,
    *conv.ROWS,
    *conv_i8.ROWS,
    *conv_i16.ROWS,
    *conv_twos_i8.ROWS,
    *depthwise_pairs_i8.ROWS,
    *depthwise_pairs_i8.ROWS_I16,
    *column_i8.ROWS,
    *compact_i8.ENGINES,
    *compact_i8.ENGINES_I16,
    *maddubs_i8.ROWS,
    *winograd_i8.ROWS,
    *conv3d.ROWS,
    *conv_any.ROWS,
    *matmul.ROWS,
    *matrix_bf16.ROWS,
    *matmul_i8.ROWS,
    *matmul_any.ROWS,
    *pool.ROWS,
    *pool_i8.ROWS,
    *recurrent.ROWS,
    *recurrent_i8.ROWS,
    *reduce.ROWS,
    *normalize.ROWS,
    *pool_any.ROWS,
    *lookup.ROWS,
    *quantize.ROWS,
    *resize.ROWS,
    *conv_transpose.ROWS,
    *gather.ROWS,
    *sample.ROWS,
    *selecting.ROWS,
    *softmax.ROWS,
    *softmax_i8.ROWS,
)

# Sums over codes in more code, which is faster.
_FAST = (
    *conv_i8.ROWS,
    *conv_i16.ROWS,
    *conv_twos_i8.ROWS,
    *depthwise_pairs_i8.ROWS,
    *compact_i8.ENGINES,
    *compact_i8.ENGINES_I16,
    *maddubs_i8.ROWS,
    *winograd_i8.ROWS,
)
# The table for flash that is counted in kilobytes: sums over codes in less code, and slower.
COMPACT: tuple[Kernel, ...] = (
    *compact_i8.ROWS,
    *compact_i8.ROWS_I16,
    *(row for row in KERNELS if row not in _FAST),
)

# Rows that write the parts of a product (`passes.parts`) each where it belongs.
_PARTED = ("gemm_i8", "gemm_i8_matrix", "gemm_twos_i8")


def parts_of(kernels: Sequence[Kernel], isa: Isa) -> int | None:
    """Least columns of a part that some row for an instruction set takes; None where none does."""
    takes = any(k.name in _PARTED and isa.name in k.isas for k in kernels)
    return isa.lanes if takes else None
