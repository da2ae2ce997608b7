"""Convolutions and products of codes for engines that add products by twos: ``maddubs_i8.h``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparrow.kernels.case import Case, Kernel, Lowered, Pack, Reject
from sparrow.kernels.compact_i8 import blocks_of, lowered, params
from sparrow.kernels.packing_i8 import pack_conv
from sparrow.kernels.sums_i8 import conv2d_sum
from sparrow.kernels.tiling_i8 import merges, reads_inside
from sparrow.kernels.twos import Steps, steps_of
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.targets.instruction_sets import ISAS

# Instructions of a step of two quads, of turning one of them, of a step of one that is turned; and
# of an epilogue beyond that of tiles of two vectors, which are stored together.
STEP, TURN, SINGLE, STORE = 5.0, 1.0, 4.0, 1.5
# Pixels of a tile: sums, a quad, weights, a mask and ones just fit V8's registers on x86.
PIXELS = (10, 8, 7)
HEADER = 5  # words of sp_maddubs_i8


def _instructions(steps: Steps) -> float:
    """Of the sums of a pixel."""
    *pairs, single = steps.counts
    return sum((STEP + k * TURN) * n for k, n in enumerate(pairs)) + SINGLE * single


def _maddubs(case: Case) -> Lowered | Reject:
    found = conv2d_sum(case, unsigned=True)
    if isinstance(found, Reject):
        return found
    s, code, lanes = found.shape, found.code, case.target.isa.lanes
    if code.part:
        return Reject("output channels lie in parts")
    if found.weights.min(initial=0) == -128:
        return Reject("a weight of -128 cannot be negated")
    # an engine turns bytes once, when it copies them
    band = code.flip or not reads_inside(s)
    blocks = blocks_of(case, s, 1, -(-(s.co // s.groups) // lanes))
    s = blocks.shape
    merged = merges(s, band)
    p = params(s, code.pad, 1 if merged else s.kw, blocks.rows, blocks.panels)
    if isinstance(p, Reject):
        return p
    each = s.ci // s.groups
    line = blocks.line(1) if band else s.xh
    kernel = pack_conv(found.weights, s.groups, lanes, merged)
    _, _, kh, runs, kq, _, _ = kernel.shape
    ky, run, quad = np.ogrid[:kh, :runs, :kq]
    places = (ky * s.dh * line + run * s.dw * (each if band else s.xw) + 4 * quad).ravel()
    if places[-1] >= 1 << 16:
        return Reject("a pixel reads from more than 64 kB")
    quads = kernel.reshape(-1, kh * runs * kq, lanes, 4)
    steps = steps_of(quads)
    start = found.start(lanes)
    head = 4 * len(steps) * (HEADER + lanes)

    def pack() -> NDArray[np.int8]:
        structs, body = [], bytearray()
        begin = np.asarray(start).reshape(len(steps), lanes).astype(np.int64)
        for v, x in enumerate(steps):
            begin[v] += x.start(quads[v])
            structs.append((head + len(body), *x.counts))
            body += x.pack(quads[v], places)
        whole = begin.astype(np.uint64).astype("<u4").tobytes()
        return np.frombuffer(np.array(structs, "<i4").tobytes() + whole + body, np.int8)

    packed = Pack((head + sum(x.nbytes for x in steps),), np.dtype(np.int8), pack)
    pixels = min((min(n, s.ow) for n in PIXELS), key=lambda n: -(-s.ow // n) * (n + STORE))
    whole = s.co // s.groups % lanes == 0
    literals = (pixels, int(whole), int(band), int(code.flip), code.put)
    sums = sum(map(_instructions, steps)) * (pixels + 1) / pixels  # a step's own instructions
    cycles = s.batch * s.oh * s.ow * (sums + STORE * len(steps))
    scratch = blocks.scratch(1) if band else 0
    return lowered(
        *(case, found, "maddubs_i8.h", "sp_conv2d_maddubs_i8", p, literals),
        *(packed, blocks.tasks, scratch, cycles, blocks.lead(case, band)),
    )


_ISAS = tuple(i.name for i in ISAS if i.twos and i.engine)
ROWS = (
    Kernel("conv2d_maddubs_i8", Conv, _maddubs, _ISAS),
    Kernel("gemm_maddubs_i8", MatMul, _maddubs, _ISAS),
)
