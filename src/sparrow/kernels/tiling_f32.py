"""Tiles, blocks, tasks and predicted cycles of float32 products and direct convolutions."""

from __future__ import annotations

from dataclasses import KW_ONLY, asdict, dataclass, replace
from typing import Literal, TypeAlias

from sparrow.kernels.case import Tile
from sparrow.kernels.packing_f32 import fits_twice, round_up
from sparrow.kernels.params_f32 import Conv2d, Conv2dShape, Gemm, Simd
from sparrow.kernels.tasks import Grid, part_of, seam_cycles, split_of, task_grid
from sparrow.kernels.tiles_f32 import (
    RegisterTile,
    Sums,
    block_of,
    choose_tile,
    prefetch_of,
    ranked_tiles,
    tile_cycles,
    weight_cycles,
)

# An image of so many channels is mostly the caller's, whose memory was left a whole call ago. Rows
# of several planes are read by turns, and what a processor fetches unasked comes too late for them.
FEW_CHANNELS = 4

Form: TypeAlias = Literal["packed", "plain", "trans"]
"""Of B: constant, by `pack_gemm_b`; row-major; or [n, k]."""


def shares(n: int, cpu: Simd, pair: bool) -> bool:
    """Whether two rows may share the last vector of n packed columns."""
    return cpu.shares and not pair and fits_twice(n, cpu.lanes)


@dataclass(frozen=True, slots=True)
class Product:
    """C[m, n] = A[m, k] B[k, n], and how the three lie; dense by default.

    Attributes:
        m: Rows of A and C.
        n: Columns of B and C.
        k: What is summed over; of pairs, how many.
        b: How B lies.
        a_trans: A is [k, m].
        lda: Distance of rows of A as it is stored.
        ldb: Of B, unless it is packed.
        ldc: Of C.
        batch: Products of a batch.
        sa: Distance of their A, 0 where they share one.
        sb: Of their B.
        sc: Of their C.
        pair: Elements of A and of B, which is packed, are pairs of bfloat16; `lda` and `sa` count
            pairs.
        half: C is bfloat16.
    """

    m: int
    n: int
    k: int
    _: KW_ONLY
    b: Form = "packed"
    a_trans: bool = False
    lda: int | None = None
    ldb: int | None = None
    ldc: int | None = None
    batch: int = 1
    sa: int | None = None
    sb: int | None = None
    sc: int | None = None
    pair: bool = False
    half: bool = False


def choose_gemm(x: Product, cpu: Simd, *, threads: int = 1, tile: Tile | None = None) -> Gemm:
    """Tiles and tasks of a product.

    Args:
        x: The product. Unless B is packed `scratch_bytes` may be asked for, and then
            `sp_gemm_pack_f32` must be called.
        cpu: Of one core.
        threads: Threads that tasks are cut for.
        tile: One of `gemm_tiles`, the first by default.
    """
    m, n, k, b, pair = x.m, x.n, x.k, x.b, x.pair
    assert b == "packed" or not pair, b
    lda = (m if x.a_trans else k) if x.lda is None else x.lda
    ldb = (k if b == "trans" else n) if x.ldb is None else x.ldb
    ldc = n if x.ldc is None else x.ldc
    vectors = -(-n // cpu.lanes)
    flops = 2 * m * n * k * (1 + pair)
    parts = -(-split_of(flops * x.batch, threads) // x.batch)
    part = part_of(flops * x.batch, m, 1, threads)
    seam = seam_cycles(cpu.core, 1, 4 * (k + n))
    row_bytes = 4 if x.a_trans else 4 * lda
    sums = Sums(m, vectors, k, row_bytes, pair, b == "packed" and shares(n, cpu, pair))
    t = choose_tile(sums, cpu, tile=tile, parts=parts, part=part, seam=seam)
    grid = Grid(
        flops=flops,
        rows=m,
        columns=vectors,
        copies=x.batch,
        mr=t.mr,
        panel=t.nv,
        input_bytes=4 * m * k,
        output_bytes=(2 if x.half else 4) * m * n,
        weight_bytes=4 * n * k,
    )
    down, task_n = task_grid(grid, threads, cpu.core)
    task_m = down * t.mr
    mc = min(task_m, block_of(round_up(m, t.mr), t.mr, 4 * k, 4 * n, 4 * k * n, cpu))
    rows = -(-m // task_m)
    cols = -(-vectors // task_n)
    rest = 4 * min(m, mc) * (k + n)
    tiles = -(-min(m, mc) // t.mr)
    pf, every = prefetch_of(t, tiles, rest, k, n, cpu, cols) if b == "packed" else (0, 1)
    pack = b == "trans" or (b == "plain" and min(m, task_m) >= 8 * t.mr)
    return Gemm(
        m=m,
        n=n,
        k=k,
        lda=lda,
        ldb=0 if b == "packed" else ldb,
        ldc=ldc,
        a_trans=int(x.a_trans),
        b_packed=int(b == "packed"),
        b_trans=int(b == "trans"),
        mr=t.mr,
        nv=t.nv,
        ku=t.ku,
        pf=pf,
        every=every,
        mc=mc,
        task_m=task_m,
        task_n=task_n,
        batch=x.batch,
        sa=lda * (k if x.a_trans else m) if x.sa is None else x.sa,
        sb=0 if b == "packed" else (ldb * (n if b == "trans" else k) if x.sb is None else x.sb),
        sc=ldc * m if x.sc is None else x.sc,
        pair=int(pair),
        half=int(x.half),
        shared=int(t.shared),
        tasks=rows * cols * x.batch,
        scratch_bytes=4 * min(task_n, vectors) * k * cpu.lanes if pack else 0,
    )


def choose_conv2d(
    s: Conv2dShape,
    cpu: Simd,
    *,
    threads: int = 1,
    pair: bool = False,
    half: bool = False,
    tile: Tile | None = None,
) -> Conv2d:
    """Tiles and tasks of a convolution (`choose_depthwise` is faster when ci == co == groups).

    `pair`: elements of the input and the weights are pairs of bfloat16, and `ci`, `xn`, `xh` and
    `xw` count them. `half`: the output is bfloat16. `tile`: one of `conv2d_tiles`, the first by
    default.
    """
    ci, co = s.ci // s.groups, s.co // s.groups
    vectors = -(-co // cpu.lanes)
    k = s.kh * s.kw * ci
    flops = 2 * s.oh * s.ow * co * k * (1 + pair)
    grid = Grid(
        flops=flops,
        rows=s.oh,
        columns=vectors,
        copies=s.batch,
        input_bytes=4 * s.ih * s.iw * ci,
        output_bytes=(2 if half else 4) * s.oh * s.ow * co,
        weight_bytes=4 * k * co,
    )
    as_gemm, shared = _is_gemm(s), shares(co, cpu, pair)
    mc = task_m = rb = task_h = 0
    if as_gemm:
        m = s.oh * s.ow
        image = (s.oh, s.ow) if s.oh > 1 else (m, 1)
        part = part_of(flops * s.batch, *image, threads)
        seam = seam_cycles(cpu.core, 1, 4 * (k + co))
        sums = Sums(m, vectors, k, 4 * s.xw, pair, shared)
        t = choose_tile(sums, cpu, tile=tile, part=part, seam=seam)
        grid = replace(grid, rows=image[0], width=image[1], mr=t.mr, panel=t.nv)
        down, task_n = task_grid(grid, threads, cpu.core)
        task_m = down * t.mr
        mc = min(task_m, block_of(round_up(m, t.mr), t.mr, 4 * k, 4 * co, 4 * k * co, cpu))
        tiles, rest = -(-min(m, mc) // t.mr), 4 * min(m, mc) * (k + co)
        tasks = s.batch * -(-m // task_m) * -(-vectors // task_n)
    else:
        sums = Sums(s.ow, vectors, k, 4 * s.sw * s.xw, pair, shared)
        t = choose_tile(sums, cpu, tile=tile)
        copies = s.batch * s.groups
        grid = replace(grid, copies=copies, panel=t.nv, halo_bytes=4 * s.halo * s.iw * ci)
        task_h, task_n = task_grid(grid, threads, cpu.core)
        row_bytes = 4 * s.sh * s.iw * ci, 4 * s.ow * co
        rb = min(task_h, block_of(s.oh, 1, *row_bytes, 4 * k * co, cpu))
        tiles, rest = rb, rb * sum(row_bytes)
        tasks = copies * -(-s.oh // task_h) * -(-vectors // task_n)
    pf, every = prefetch_of(t, tiles, rest, k, co, cpu)
    return Conv2d(
        **asdict(s),
        mr=t.mr,
        nv=t.nv,
        ku=t.ku,
        rb=rb,
        task_h=task_h,
        task_n=task_n,
        as_gemm=int(as_gemm),
        mc=mc,
        task_m=task_m,
        pf=pf,
        every=every,
        pair=int(pair),
        half=int(half),
        shared=int(t.shared),
        ahead=int(s.ci <= FEW_CHANNELS and grid.input_bytes > cpu.l1_bytes),
        tasks=tasks,
    )


def gemm_of(p: Conv2d) -> Gemm | None:
    """The product that `sp_conv2d_f32` forwards to when `as_gemm`: same weights, tasks and result.

    Calling `sp_gemm_f32` at once spares the compiler the convolution it would discard.
    """
    if not p.as_gemm:
        return None
    m = p.oh * p.ow
    return Gemm(
        m=m,
        n=p.co,
        k=p.kh * p.kw * p.ci,
        lda=p.xw,
        ldb=0,
        ldc=p.ldy,
        a_trans=0,
        b_packed=1,
        b_trans=0,
        mr=p.mr,
        nv=p.nv,
        ku=p.ku,
        pf=p.pf,
        every=p.every,
        mc=p.mc,
        task_m=p.task_m,
        task_n=p.task_n,
        batch=p.batch,
        sa=p.xn,
        sb=0,
        sc=m * p.ldy,
        pair=p.pair,
        half=p.half,
        shared=p.shared,
        tasks=p.tasks,
        scratch_bytes=0,
    )


def _is_gemm(s: Conv2dShape) -> bool:
    """True when pixels lie at equal distances and the taps of a pixel are one run of k."""
    if s.groups != 1 or s.xc != 1 or s.pt or s.pl:
        return False
    if s.kh == s.kw == s.sh == s.sw == 1:
        return s.xh == s.iw * s.xw and s.oh == s.ih and s.ow == s.iw
    one_row = s.kh == 1 or (s.dh == 1 and s.xh == s.kw * s.xw)
    one_column = s.kw == 1 or (s.dw == 1 and s.xw == s.ci)
    return s.oh == s.ow == 1 and one_row and one_column and (s.kh == 1 or s.xw == s.ci)


def _sums_of_gemm(p: Gemm, cpu: Simd) -> Sums:
    pair = bool(p.pair)
    shared = bool(p.b_packed) and shares(p.n, cpu, pair)
    row_bytes = 4 if p.a_trans else 4 * p.lda
    return Sums(p.m, -(-p.n // cpu.lanes), p.k, row_bytes, pair, shared)


def _sums_of_conv2d(p: Conv2d, cpu: Simd) -> Sums:
    """Of a row of pixels, or of an image where it is a product."""
    rows, step = (p.oh * p.ow, p.xw) if p.as_gemm else (p.ow, p.sw * p.xw)
    co, k, pair = p.co // p.groups, p.kh * p.kw * (p.ci // p.groups), bool(p.pair)
    return Sums(rows, -(-co // cpu.lanes), k, 4 * step, pair, shares(co, cpu, pair))


def gemm_cycles(p: Gemm, cpu: Simd) -> float:
    """Predicted cycles on one core of a product with packed weights."""
    tile = RegisterTile(p.mr, p.nv, p.ku, bool(p.shared))
    work = tile_cycles(tile, _sums_of_gemm(p, cpu), cpu)
    return p.batch * work + 0.3 * weight_cycles(4 * p.k * p.n, cpu)


def conv2d_cycles(p: Conv2d, cpu: Simd) -> float:
    """Predicted cycles on one core."""
    tile = RegisterTile(p.mr, p.nv, p.ku, bool(p.shared))
    sums = _sums_of_conv2d(p, cpu)
    work = (1 if p.as_gemm else p.oh) * tile_cycles(tile, sums, cpu)
    return p.groups * (p.batch * work + 0.3 * weight_cycles(4 * sums.k * p.co // p.groups, cpu))


def gemm_tiles(p: Gemm, cpu: Simd) -> tuple[Tile, ...]:
    """Register tiles that a product may take, the one predicted best first."""
    return ranked_tiles(_sums_of_gemm(p, cpu), cpu)


def conv2d_tiles(p: Conv2d, cpu: Simd) -> tuple[Tile, ...]:
    """Register tiles that a convolution may take, the one predicted best first."""
    return ranked_tiles(_sums_of_conv2d(p, cpu), cpu)
