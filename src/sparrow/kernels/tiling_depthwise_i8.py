"""Parameters of depthwise convolutions of codes: tiles, blocks, tasks and predicted cycles."""

from __future__ import annotations

from dataclasses import fields

from sparrow.kernels.case import Tile
from sparrow.kernels.params_f32 import Conv2dShape, Window
from sparrow.kernels.params_i8 import DepthwiseI8
from sparrow.kernels.tasks import Grid, core_of, task_grid
from sparrow.kernels.tiling_i8 import SINGLE, STORED, Bytes
from sparrow.kernels.tiling_windows import pixels_within
from sparrow.targets import Target


def choose_depthwise(
    s: Conv2dShape, code: Bytes, target: Target, *, threads: int = 1, tile: Tile | None = None
) -> tuple[DepthwiseI8, float, tuple[Tile, ...]]:
    """Tiles and tasks of a depthwise convolution, its cycles on one core, and tiles it may take.

    ``tile``: one of these, pixels of one vector; the first, predicted best, by default.
    """
    c, vectors = s.co, -(-s.co // target.isa.lanes)
    isa, small = target.isa, target.machine.bare
    per = isa.depthwise_taken
    shared = s.sh == 1 and s.dh == 1 and s.oh > 1 and s.kh % 4 in (1, 2, 3)
    ro = 2 if shared and not small and per == 4 else 1
    rq = -(-((ro - 1) * s.sh + s.kh) // per)
    spare = target.isa.registers - 4

    def cost(mr: int) -> float:
        columns = (mr - 1) * s.sw + (s.kw - 1) * s.dw + 1
        spill = max(0, ro * mr + ro * s.kw - spare)
        work = rq * (columns * 7 + ro * mr * s.kw * target.isa.dot_ops + 2 * spill)
        return work / 3 + 3 * ro * mr + 10

    # of few registers, weights and a pixel take half of one each, and there is no room for more
    few = isa.singles and isa.registers < 16
    most = max(
        1, min(s.ow, 32 // ro, pixels_within(s), isa.registers - 4 - (s.kw + 1) // 2 if few else 12)
    )
    ranked = sorted(
        range(1, most + 1),
        key=lambda mr: s.ow // mr * cost(mr) + (cost(s.ow % mr) if s.ow % mr else 0),
    )
    if small:
        # each kind of tile is its code once more: one row, no rest, and few pixels
        even = [n for n in range(2, min(s.ow, 6) + 1) if s.ow % n == 0]
        ranked = [next((n for n in even if n >= 3), even[-1] if even else ranked[0])]
    mr = tile.mr if tile else ranked[0]
    cycles = s.batch * vectors * -(-s.oh // ro) * (-(-s.ow // mr)) * cost(mr)
    core, read = core_of(target), s.ih * s.iw * c
    # windows that share no rows are left to who wrote these: to read another's takes longer
    far = core.move_cycles * read * (1 - 1 / threads) if s.sh >= s.kh else 0.0
    # what a product would do in that time. An odd row of a task is done alone
    flops = int((cycles / s.batch + far) * core.flops_per_cycle)
    grid = Grid(
        flops=flops,
        rows=s.oh,
        columns=vectors,
        copies=s.batch,
        input_bytes=read,
        output_bytes=s.oh * s.ow * c * STORED[code.put],
    )
    task_h, task_c = task_grid(grid, threads, core)
    pixel_bytes = min(c, task_c * target.isa.lanes)
    room = target.l2_bytes // 2 // pixel_bytes - s.kh * s.iw
    # where RAM is short a row at a time, so that it may run over what it was made from
    rb = 1 if small else max(1, room // (s.sh * s.iw + s.ow)) // ro * ro
    p = DepthwiseI8(
        **{f.name: getattr(s, f.name) for f in fields(Window)},
        c=c,
        pair=SINGLE if per == 1 else 0,
        flip=int(code.flip),
        pad=code.pad,
        put=code.put,
        same=0,
        ro=ro,
        rq=rq,
        mr=mr,
        rb=min(task_h, max(ro, rb)),
        task_h=task_h,
        task_c=task_c,
        tasks=s.batch * -(-s.oh // task_h) * -(-vectors // task_c),
    )
    return p, cycles, tuple(Tile(mr, 1) for mr in ranked)
