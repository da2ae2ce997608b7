"""Depthwise convolutions of codes by products of pairs, over rows that are interleaved once."""

from __future__ import annotations

from dataclasses import fields
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sparrow.kernels.case import (
    Argument,
    Case,
    In,
    Invoke,
    Kernel,
    Lowered,
    Out,
    Pack,
    Packed,
    Reject,
    Scratch,
    Tile,
)
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.packing_i8 import pack_depthwise
from sparrow.kernels.params_f32 import Conv2dShape, Window, params_of, shape_text
from sparrow.kernels.params_i8 import DepthwisePairsI8
from sparrow.kernels.spans import channels_of, window_spans
from sparrow.kernels.sums_i8 import depthwise_sum, in_bytes
from sparrow.kernels.tasks import Grid, core_of, task_grid
from sparrow.kernels.tiling_i8 import STORED, Bytes
from sparrow.kernels.walk import lead_of
from sparrow.ops.conv import Conv
from sparrow.targets import Target
from sparrow.targets.instruction_sets import ISAS

# Sums of a tile: with two registers for what is multiplied all sixteen are taken.
SUMS = 14
# Pixels that the start and the end of a tile take as long as.
TURN = 0.5
# Vectors whose bytes of a pixel are read together, half a line of the cache.
VECTORS = 4
# Bytes of the lines of a block; those of wide images leave L1 rather than be interleaved twice.
LINES = 48 << 10
# Cycles (Zen 3) of a product with its sum, of two bytes that are interleaved, and of an epilogue.
PRODUCT, INTERLEAVE, EPILOGUE = 0.7, 2.0, 3.0


def pack(w: NDArray[np.int8], lanes: int, rows: int, lines: int, stride: int) -> NDArray[np.int8]:
    """[c, 1, kh, kw] -> halves [vectors, lines, kw, rows, lanes, 2] as bytes, zero padded."""
    packed = pack_depthwise(w, lanes, rows, lines, stride, 2)
    return np.ascontiguousarray(packed.transpose(0, 2, 3, 1, 4, 5)).astype(np.int16).view(np.int8)


def choose(
    s: Conv2dShape,
    code: Bytes,
    target: Target,
    *,
    threads: int = 1,
    tile: Tile | None = None,
    wide: bool = False,
) -> tuple[DepthwisePairsI8, float, int, tuple[Tile, ...]]:
    """Tiles, blocks and tasks, cycles on one core, bytes of a block's lines, and possible tiles.

    ``tile``: one of these, pixels of one vector; the first, predicted best, by default. ``wide``:
    codes have 16 bits; distances of the input count bytes.
    """
    lanes, c = target.isa.lanes, s.co
    vectors = -(-c // lanes)
    # of an odd number of successive rows two outputs read whole pairs
    ro = 2 if s.sh == s.dh == 1 and s.oh > 1 and s.kh % 2 else 1
    rq = ((ro - 1) * s.sh + s.kh + 1) // 2
    step = min(ro * s.sh // 2, rq) if s.dh == 1 and ro * s.sh % 2 == 0 else rq
    width = (s.ow - 1) * s.sw + (s.kw - 1) * s.dw + 1
    ranked = sorted(
        range(min(s.ow, SUMS // ro), 0, -1), key=lambda mr: -(-s.ow // mr) * (mr + TURN)
    )
    mr = tile.mr if tile else ranked[0]
    sums = ro * mr * (PRODUCT * rq * s.kw + EPILOGUE) + TURN * ro * 8
    each = -(-s.ow // mr) * sums + step * width * INTERLEAVE  # of a row of tiles
    cycles = s.batch * vectors * -(-s.oh // ro) * each
    core = core_of(target)
    grid = Grid(
        flops=int(cycles / s.batch * core.flops_per_cycle),
        rows=s.oh,
        columns=vectors,
        copies=s.batch,
        input_bytes=s.ih * s.iw * c * (2 if wide else 1),
        output_bytes=s.oh * s.ow * c * STORED[code.put],
    )
    task_h, task_c = task_grid(grid, threads, core)
    task_h = round_up(task_h, ro)
    nv, line = min(VECTORS, task_c), width * 4 * lanes
    tiles = max(1, (LINES // (nv * line) - rq) // step + 1)
    rb = min(round_up(task_h, ro), ro * tiles)
    p = DepthwisePairsI8(
        **{f.name: getattr(s, f.name) for f in fields(Window)},
        c=c,
        wide=int(wide),
        flip=int(code.flip),
        pad=code.pad,
        put=code.put,
        ro=ro,
        rq=rq,
        mr=mr,
        nv=nv,
        rb=rb,
        task_h=task_h,
        task_c=task_c,
        tasks=s.batch * -(-s.oh // task_h) * -(-vectors // task_c),
    )
    scratch = nv * ((rb // ro - 1) * step + rq) * line
    return p, cycles, round_up(scratch, 64), tuple(Tile(n, 1) for n in ranked)


def _depthwise(case: Case, wide: bool = False) -> Lowered | Reject:
    if case.target.machine.bare:
        return Reject("interleaved rows take room")
    found = depthwise_sum(case, unsigned=False, halves=wide)
    if isinstance(found, Reject):
        return found
    s, w, lanes = found.shape, found.weights, case.target.isa.lanes
    if wide:
        # its channels are counted by `co`
        s = in_bytes(s)
    p, cycles, each, tiles = choose(
        s, found.code, case.target, threads=case.threads, tile=case.tile, wide=wide
    )
    packed = (
        Pack(
            *((-(-p.c // lanes), p.rq, p.kw, p.ro, lanes, 4), np.dtype(np.int8)),
            lambda: pack(w, lanes, p.ro, p.rq, p.sh),
        ),
        found.start(lanes),
    )
    serial = case.threads == 1
    scratch = Scratch("uint8_t", 0 if serial else each)
    arguments: tuple[Argument, ...] = (In(0), Packed(0), Packed(1), Out(0), scratch, found.epilogue)
    call = Invoke(
        *("depthwise_pairs_i8.h", "sp_depthwise_pairs_i8_run", "sp_depthwise_pairs"),
        *(params_of(p), arguments, p.tasks if serial else 1),
    )
    tasks, stored = 1 if serial else p.tasks, case.y[0].type.dtype.bytes
    lead = lead_of(p, stored, p.rb, p.ow, copied=False) if serial and p.tasks == 1 else None
    across = channels_of(p.c, lanes, p.task_c)
    spans = window_spans(p, p.task_h, across, (s.ci, 1), case.y[0], found.epilogue)
    return Lowered(
        *((call,), tasks, packed, each * tasks, cycles, shape_text(s), tiles, Tile(p.mr, 1), lead),
        spans=spans if tasks > 1 else (),
    )


ROWS = (Kernel("depthwise_pairs_i8", Conv, _depthwise, ("avx2",)),)
HALVES = tuple(i.name for i in ISAS if i.half_ops and not i.engine and i.lanes > 1)
ROWS_I16 = (Kernel("depthwise_i16", Conv, partial(_depthwise, wide=True), HALVES),)
