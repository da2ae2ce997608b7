"""Tiles, tasks and predicted cycles of float32 convolution by F(4x4, 3x3)."""

from __future__ import annotations

from dataclasses import asdict

from sparrow.kernels.case import Tile
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.params_f32 import Conv2dShape, Simd, Winograd, winograd_shape
from sparrow.kernels.tasks import split_of
from sparrow.kernels.tiles_f32 import (
    RegisterTile,
    Sums,
    choose_tile,
    ranked_tiles,
    tile_cycles,
    weight_cycles,
)


def choose_winograd(
    s: Conv2dShape,
    cpu: Simd,
    *,
    threads: int = 1,
    half: bool = False,
    raw: bool = False,
    tile: Tile | None = None,
) -> Winograd | None:
    """Tiles and tasks of a 3x3 convolution by F(4x4, 3x3); None where it does not apply.

    The function is the same, with rounding errors some two times larger; weights take four times
    the space. Worth it where `winograd_cycles` is well below `conv2d_cycles`. `half`: the output is
    bfloat16. `raw`: weights are those of the direct sum, transformed in each call. `tile`: of the
    products, one of `winograd_tiles`, the first by default.
    """
    shape = winograd_shape(s, half)
    if shape is None:
        return None
    tiles = s.batch * -(-s.oh // 4) * -(-s.ow // 4)
    vectors = -(-s.co // cpu.lanes)
    up = round_up(s.ci, cpu.lanes)
    tile_bytes = 4 * 36 * up
    room = max(1, min(cpu.l2_bytes // tile_bytes, max(16, cpu.l2_bytes // 4 // tile_bytes)))
    flops = 18 * s.batch * s.oh * s.ow * s.co * s.ci
    wish = split_of(flops, threads)

    def plan(columns: int, tile: Tile | None = None) -> Winograd:
        rows = min(tiles, -(-wish // columns))
        # of pixels and raw weights of a task, the fewer stay transformed
        whole = raw and up * -(-tiles // rows) <= s.ci * round_up(-(-s.co // columns), cpu.lanes)
        blocks = rows if whole else round_up(max(-(-tiles // room), rows), rows)
        tb = -(-tiles // blocks)
        blocks = -(-tiles // tb)
        t = choose_tile(Sums(tb, _across(vectors, raw), s.ci, 4 * up), cpu, tile=tile)
        task_b = -(-blocks // rows)
        panels = -(-vectors // t.nv)
        task_n = -(-panels // columns) * t.nv
        group = t.nv if whole else task_n
        u = group * (s.ci * cpu.lanes + 16) if raw else 0
        return Winograd(
            **asdict(shape),
            raw=int(raw),
            mr=t.mr,
            nv=t.nv,
            tb=tb,
            task_b=task_b,
            task_n=task_n,
            group=group,
            tasks=-(-blocks // task_b) * -(-vectors // task_n),
            scratch_bytes=4 * 36 * (tb * up + cpu.lanes + tb * t.nv * cpu.lanes + u),
        )

    def cost(columns: int) -> float:
        p = plan(columns)
        across = -(-vectors // p.task_n)
        moved = cpu.core.move_cycles * 4 * s.batch * s.ih * s.iw * s.ci * (1 - 1 / across)
        return -(-p.tasks // wish) * _winograd_task_cycles(p, cpu) + moved

    return plan(min(range(1, min(wish, vectors) + 1), key=cost), tile)


def winograd_cycles(p: Winograd, cpu: Simd) -> float:
    """Predicted cycles on one core."""
    return p.tasks * _winograd_task_cycles(p, cpu)


# A vector of 3 x 3 weights transformed: 9 loads, 81 operations, 36 stores.
_WEIGHT_CYCLES = 60


def _winograd_task_cycles(p: Winograd, cpu: Simd) -> float:
    vectors, up = min(p.task_n, -(-p.co // cpu.lanes)), round_up(p.ci, cpu.lanes)
    sums = Sums(p.tb, vectors, p.ci, 4 * up)
    work = 36 * tile_cycles(RegisterTile(p.mr, p.nv, 1), sums, cpu)
    turn = p.tb * (120 * up / cpu.lanes + 90 * vectors)
    weight_bytes = 4 * 36 * p.ci * vectors * cpu.lanes
    again = (
        (p.task_b - 1) * weight_bytes / cpu.core.cache_rate if weight_bytes > cpu.l2_bytes else 0.0
    )
    if p.raw:
        first = _WEIGHT_CYCLES * p.ci * vectors + weight_cycles(weight_bytes // 4, cpu)
    else:
        first = 0.7 * weight_cycles(weight_bytes, cpu)
    return p.task_b * (work + turn) + again + first


def _across(vectors: int, raw: bool) -> int:
    """Vectors that a tile of products is chosen for."""
    return vectors if raw else min(vectors, 4)


def winograd_tiles(p: Winograd, cpu: Simd) -> tuple[Tile, ...]:
    """Register tiles that the products of `sp_winograd` may take, the one predicted best first."""
    vectors = _across(-(-p.co // cpu.lanes), bool(p.raw))
    return ranked_tiles(Sums(p.tb, vectors, p.ci, 4 * round_up(p.ci, cpu.lanes)), cpu)
