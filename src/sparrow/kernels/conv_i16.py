"""Rows of convolutions and products of 16-bit codes with constant int8 weights.

The kernel of `conv_i8` over twice the bytes: a quad of them is a pair of halves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sparrow.graph import Op
from sparrow.kernels.case import Case, Kernel, Lowered, Pack, Reject
from sparrow.kernels.conv_i8 import conv2d_lowered
from sparrow.kernels.depthwise_pairs_i8 import HALVES as DEPTHWISE
from sparrow.kernels.packing_i8 import pack_conv
from sparrow.kernels.sums_i8 import conv2d_sum, in_bytes
from sparrow.kernels.tiling_i8 import HALVES, choose_conv2d, merges
from sparrow.kernels.winograd_i8 import INSTRUCTION_SETS as WINOGRAD
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.targets.instruction_sets import ISAS, Isa
from sparrow.tensor import TensorType


def _conv2d(case: Case) -> Lowered | Reject:
    found = conv2d_sum(case, unsigned=False, halves=True)
    if isinstance(found, Reject):
        return found
    w, lanes = found.weights, case.target.isa.lanes
    found = replace(found, shape=in_bytes(found.shape))
    target = replace(case.target, isa=case.target.isa.over_halves)
    s = found.shape
    p, cycles, tiles = choose_conv2d(s, found.code, target, threads=case.threads, tile=case.tile)
    p = replace(p, pair=HALVES)
    shape = (s.groups, -(-(s.co // s.groups) // lanes), s.kh, p.runs, p.kq, lanes, 2)
    packed = (
        Pack(
            *(shape, np.dtype(np.int8)),
            lambda: pack_conv(w, s.groups, lanes, merges(s, bool(p.band)), 2, p.kq),
        ),
        found.start(lanes),
    )
    return conv2d_lowered(case, found, p, packed, cycles, tiles)


def takes_halves(isa: Isa) -> Callable[[Op, TensorType], bool] | None:
    """Which sums over codes of 16 bits, of weights of a type, these rows take; None: of none.

    Windows of 3 x 3 keep their digits where there is Winograd's algorithm for those: its transforms
    of bytes are halves, and save more products (28 x 28 x 64 -> 64, AVX2: 267 us for both digits,
    373 for the codes).
    """
    if not isa.half_ops:
        return None

    def takes(op: Op, w: TensorType) -> bool:
        if not isinstance(op, Conv):
            return True
        once = (1,) * len(op.strides)
        window = w.shape[2:] == (3, 3) and op.strides == op.dilations == once
        if op.group == 1:
            return not (window and isa.name in WINOGRAD)
        return w.shape[1] > 1 or isa.name in DEPTHWISE

    return takes


_ISAS = tuple(i.name for i in ISAS if i.half_ops and not i.engine)
ROWS = (
    Kernel("conv2d_i16", Conv, _conv2d, _ISAS),
    Kernel("gemm_i16", MatMul, _conv2d, _ISAS),
)
