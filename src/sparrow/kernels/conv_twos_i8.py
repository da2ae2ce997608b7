"""Rows of convolutions and products of codes that are added by twos in 16 bits (`twos`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sparrow.kernels.case import Case, Kernel, Lowered, Pack, Reject
from sparrow.kernels.conv_i8 import conv2d_lowered
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.packing_i8 import pack_conv
from sparrow.kernels.sums_i8 import conv2d_sum
from sparrow.kernels.tiling_i8 import choose_conv2d, merges, reads_inside
from sparrow.kernels.twos import steps_of
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.targets.instruction_sets import ISAS

PLACES = 1 << 16


def _conv2d_twos(case: Case) -> Lowered | Reject:
    if case.target.machine.bare:
        return Reject("masks of weights take room")
    found = conv2d_sum(case, unsigned=True)
    if isinstance(found, Reject):
        return found
    s, lanes = found.shape, case.target.isa.lanes
    if found.weights.min(initial=0) == -128:
        return Reject("a weight of -128 cannot be negated")
    merged = merges(s, found.code.flip or not reads_inside(s))
    kernel = pack_conv(found.weights, s.groups, lanes, merged)
    quads = kernel.reshape(kernel.shape[0] * kernel.shape[1], -1, lanes, 4)
    steps = steps_of(quads)
    counts = np.sum([x.counts for x in steps], 0) // s.groups
    p, cycles, tiles = choose_conv2d(
        s,
        found.code,
        case.target,
        threads=case.threads,
        tile=case.tile,
        steps=[int(n) for n in counts],
    )
    ky, run, quad = np.ogrid[: s.kh, : p.runs, : p.kq]
    places = (ky * s.dh * p.xr + run * p.xt + 4 * quad).ravel()
    # what they count
    unit = 1 if (places % 4).any() else 4
    if places[-1] // unit >= PLACES:
        return Reject("a pixel reads from more than 256 kB")
    start = found.start(lanes)
    # each vector has the room of the largest, whole quads of all kernel rows
    rows = 4 * lanes * s.kh
    room = round_up(4 * lanes + max(x.nbytes for x in steps), rows)

    def pack() -> NDArray[np.int8]:
        out = np.zeros((len(steps), room), np.int8)
        for to, x, w in zip(out, steps, quads, strict=True):
            body = np.array(x.counts, "<i4").tobytes().ljust(4 * lanes, b"\0")
            body += x.pack(w, places // unit)
            to[: len(body)] = np.frombuffer(body, np.int8)
        return out

    def begin() -> NDArray[np.int32]:
        turned = np.stack([x.start(w) for x, w in zip(steps, quads, strict=True)])
        whole = np.asarray(start).astype(np.int64) + turned.reshape(start.shape)
        return whole.astype(np.uint64).astype(np.uint32).view(np.int32)

    packed = (
        Pack((len(steps), room), np.dtype(np.int8), pack),
        Pack(start.shape, np.dtype(np.int32), begin),
    )
    p = replace(p, runs=1, kq=room // rows, xt=unit)
    return conv2d_lowered(case, found, p, packed, cycles, tiles)


_ISAS = tuple(i.name for i in ISAS if i.twos and not i.engine)
ROWS = (
    Kernel("conv2d_twos_i8", Conv, _conv2d_twos, _ISAS),
    Kernel("gemm_twos_i8", MatMul, _conv2d_twos, _ISAS),
)
