"""Weight packing and tile choice of the float32 kernels.

Parameter classes have the field names of the C structs in ``native/kernels`` (plus `tasks` and
`scratch_bytes`), so `c_literal` turns one into the compound literal that the kernel takes. Packed
weights depend on the weight's shape and the lane count only, never on tiles: entry points with
different M, and re-tuned tiles, share one blob.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Simd:
    """What the tile choice needs to know of a CPU.

    `registers` counts those a tile may use; `ways` is the associativity of the level-1 data cache.
    """

    lanes: int
    registers: int
    l1_bytes: int = 32 << 10
    l2_bytes: int = 512 << 10
    ways: int = 8


SCALAR = Simd(1, 14)
AVX2 = Simd(8, 16)
AVX512 = Simd(16, 32, 48 << 10, 1 << 20, 12)


@dataclass(frozen=True, slots=True)
class Gemm:
    """`sp_gemm` of gemm_f32.h; `scratch_bytes` per task, 0 unless `sp_gemm_pack_f32` is meant."""

    m: int
    n: int
    k: int
    lda: int
    ldb: int
    ldc: int
    a_trans: int
    b_packed: int
    b_trans: int
    mr: int
    nv: int
    ku: int
    pf: int
    mc: int
    task_m: int
    task_n: int
    batch: int
    sa: int
    sb: int
    sc: int
    tasks: int
    scratch_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Sizes and addresses of a windowed layer.

    Element (n, y, x, c) of the input lies at n*xn + y*xh + x*xw + c; output pixels lie at distance
    `ldy`. Pads `pt` and `pl` are those before the image; those after it follow from `oh` and `ow`.
    """

    ih: int
    iw: int
    oh: int
    ow: int
    kh: int
    kw: int
    xn: int
    xh: int
    xw: int
    ldy: int
    sh: int = 1
    sw: int = 1
    dh: int = 1
    dw: int = 1
    pt: int = 0
    pl: int = 0
    batch: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv2dShape(Window):
    """A convolution: `ci` and `co` count all groups; `xc` is the distance of input channels."""

    ci: int
    co: int
    groups: int = 1
    xc: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv2d(Conv2dShape):
    """`sp_conv2d` of conv2d_f32.h."""

    mr: int
    nv: int
    ku: int
    rb: int
    task_h: int
    task_n: int
    as_gemm: int
    mc: int
    task_m: int
    pf: int
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Depthwise(Window):
    """`sp_depthwise` of depthwise_f32.h."""

    c: int
    mr: int
    rb: int
    task_h: int
    task_c: int
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool2d(Window):
    """`sp_pool2d` of pool_f32.h."""

    c: int
    pb: int
    pr: int
    average: int
    task_h: int
    tasks: int


@dataclass(frozen=True, slots=True)
class Mean2d:
    """`sp_mean2d` of pool_f32.h."""

    batch: int
    ih: int
    iw: int
    c: int
    xn: int
    xh: int
    xw: int
    ldy: int
    task_c: int
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Winograd:
    """`sp_winograd` of winograd_f32.h."""

    batch: int
    ih: int
    iw: int
    ci: int
    oh: int
    ow: int
    co: int
    pt: int
    pl: int
    xn: int
    xh: int
    xw: int
    ldy: int
    mr: int
    nv: int
    tb: int
    task_b: int
    task_n: int
    tasks: int
    scratch_bytes: int


# Bytes a core takes per cycle when it streams, measured on Zen 5.
_DRAM = 8.0
_L3 = 20.0

Params: TypeAlias = Gemm | Conv2d | Depthwise | Pool2d | Mean2d | Winograd

_STRUCTS = {
    Gemm: "sp_gemm",
    Conv2d: "sp_conv2d",
    Depthwise: "sp_depthwise",
    Pool2d: "sp_pool2d",
    Mean2d: "sp_mean2d",
    Winograd: "sp_winograd",
}


def c_literal(p: Params) -> str:
    """The parameters as a C99 compound literal with designated initialisers."""
    values = (
        f".{f.name} = {getattr(p, f.name)}"
        for f in fields(p)
        if f.name not in ("tasks", "scratch_bytes")
    )
    return f"(({_STRUCTS[type(p)]}){{{', '.join(values)}}})"


def pack_gemm_b(b: F32, lanes: int) -> F32:
    """[k, n] -> [ceil(n / lanes), k, lanes], zero padded."""
    k, n = b.shape
    out = np.zeros((k, _up(n, lanes)), np.float32)
    out[:, :n] = b
    return np.ascontiguousarray(out.reshape(k, -1, lanes).transpose(1, 0, 2))


def pack_conv(w: F32, groups: int, lanes: int) -> F32:
    """OIHW [co, i, kh, kw] -> [groups, ceil(co / groups / lanes), kh, kw, i, lanes]."""
    co, ci, kh, kw = w.shape
    g = co // groups
    out = np.zeros((groups, _up(g, lanes), ci, kh, kw), np.float32)
    out[:, :g] = w.reshape(groups, g, ci, kh, kw)
    split = out.reshape(groups, -1, lanes, ci, kh, kw)
    return np.ascontiguousarray(split.transpose(0, 1, 4, 5, 3, 2))


def pack_depthwise(w: F32, lanes: int) -> F32:
    """[c, 1, kh, kw] -> [kh * kw, c rounded up to lanes], zero padded."""
    c, _, kh, kw = w.shape
    out = np.zeros((kh * kw, _up(c, lanes)), np.float32)
    out[:, :c] = w.reshape(c, kh * kw).T
    return out


def pack_winograd(w: F32, lanes: int) -> F32:
    """[co, ci, 3, 3] -> G w G', [ceil(co / lanes), 36, ci, lanes], zero padded."""
    co, ci, _, _ = w.shape
    g = np.array(
        [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float64
    )
    u = np.einsum("ij,oajk,lk->oail", g / 24, w.astype(np.float64), g / 24).reshape(co, ci, 36)
    out = np.zeros((_up(co, lanes), ci, 36), np.float32)
    out[:co] = u
    return np.ascontiguousarray(out.reshape(-1, lanes, ci, 36).transpose(0, 3, 2, 1))


def choose_gemm(
    m: int,
    n: int,
    k: int,
    cpu: Simd,
    *,
    threads: int = 1,
    batch: int = 1,
    b: str = "packed",
    a_trans: bool = False,
    lda: int | None = None,
    ldb: int | None = None,
    ldc: int | None = None,
    sa: int | None = None,
    sb: int | None = None,
    sc: int | None = None,
) -> Gemm:
    """Tiles and tasks of C[m, n] = A[m, k] B[k, n].

    `b` is "packed" (constant, by `pack_gemm_b`), "plain" (row-major) or "trans" ([n, k]); the last
    two may ask for `scratch_bytes`, and then `sp_gemm_pack_f32` must be called. `lda`, `ldb`, `ldc`
    are distances of rows and `sa`, `sb`, `sc` of the matrices of a batch (0 shares one); all are
    dense by default.
    """
    assert b in ("packed", "plain", "trans"), b
    lda = (m if a_trans else k) if lda is None else lda
    ldb = (k if b == "trans" else n) if ldb is None else ldb
    ldc = n if ldc is None else ldc
    vectors = -(-n // cpu.lanes)
    t = _tile(m, vectors, k, 4 if a_trans else 4 * lda, cpu)
    grid = _grid(2 * m * n * k, -(-m // t.mr), -(-vectors // t.nv), batch, threads, m, n)
    task_m, task_n = grid[0] * t.mr, grid[1] * t.nv
    mc = max(t.mr, cpu.l2_bytes // 2 // (4 * k) // t.mr * t.mr)
    rows = -(-m // task_m)
    cols = -(-vectors // task_n)
    pack = b == "trans" or (b == "plain" and min(m, task_m) >= 8 * t.mr)
    return Gemm(
        m=m,
        n=n,
        k=k,
        lda=lda,
        ldb=0 if b == "packed" else ldb,
        ldc=ldc,
        a_trans=int(a_trans),
        b_packed=int(b == "packed"),
        b_trans=int(b == "trans"),
        mr=t.mr,
        nv=t.nv,
        ku=t.ku,
        pf=_prefetch(t, k, n, cpu) if b == "packed" else 0,
        mc=min(mc, task_m),
        task_m=task_m,
        task_n=task_n,
        batch=batch,
        sa=(lda * (k if a_trans else m) if sa is None else sa),
        sb=0 if b == "packed" else (ldb * (n if b == "trans" else k) if sb is None else sb),
        sc=ldc * m if sc is None else sc,
        tasks=rows * cols * batch,
        scratch_bytes=4 * min(task_n, vectors) * k * cpu.lanes if pack else 0,
    )


def choose_conv2d(s: Conv2dShape, cpu: Simd, *, threads: int = 1) -> Conv2d:
    """Tiles and tasks of a convolution (`choose_depthwise` is faster when ci == co == groups)."""
    ci, co = s.ci // s.groups, s.co // s.groups
    vectors = -(-co // cpu.lanes)
    k = s.kh * s.kw * ci
    flops = 2 * s.oh * s.ow * co * k
    as_gemm = _is_gemm(s)
    mc = task_m = rb = task_h = 0
    if as_gemm:
        m = s.oh * s.ow
        t = _tile(m, vectors, k, 4 * s.xw, cpu)
        grid = _grid(flops, -(-m // t.mr), -(-vectors // t.nv), s.batch, threads, m, co)
        task_m, task_n = grid[0] * t.mr, grid[1] * t.nv
        mc = min(task_m, max(t.mr, cpu.l2_bytes // 2 // (4 * k) // t.mr * t.mr))
        tasks = s.batch * -(-m // task_m) * -(-vectors // task_n)
    else:
        t = _tile(s.ow, vectors, k, 4 * s.sw * s.xw, cpu)
        copies = s.batch * s.groups
        grid = _grid(flops, s.oh, -(-vectors // t.nv), copies, threads, s.oh * s.ow, co)
        task_h, task_n = grid[0], grid[1] * t.nv
        row_bytes = 4 * s.iw * ci
        rb = min(task_h, max(1, (cpu.l2_bytes // 2 // row_bytes - s.kh) // s.sh))
        tasks = copies * -(-s.oh // task_h) * -(-vectors // task_n)
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
        pf=_prefetch(t, k, co, cpu),
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
        mc=p.mc,
        task_m=p.task_m,
        task_n=p.task_n,
        batch=p.batch,
        sa=p.xn,
        sb=0,
        sc=m * p.ldy,
        tasks=p.tasks,
        scratch_bytes=0,
    )


def choose_winograd(s: Conv2dShape, cpu: Simd, *, threads: int = 1) -> Winograd | None:
    """Tiles and tasks of a 3x3 convolution by F(4x4, 3x3); None where it does not apply.

    The function is the same, with rounding errors some ten times larger; weights take four times
    the space. Worth it where `winograd_cycles` is well below `conv2d_cycles`.
    """
    plain = s.sh == s.sw == s.dh == s.dw == s.groups == s.xc == 1
    if not plain or s.kh != 3 or s.kw != 3:
        return None
    tiles = s.batch * -(-s.oh // 4) * -(-s.ow // 4)
    vectors = -(-s.co // cpu.lanes)
    up = _up(s.ci, cpu.lanes)
    tile_bytes = 4 * 36 * up
    room = max(1, min(cpu.l2_bytes // tile_bytes, max(16, cpu.l2_bytes // 4 // tile_bytes)))
    flops = 18 * s.batch * s.oh * s.ow * s.co * s.ci
    wish = max(1, min(threads, flops // 500_000)) if flops >= 1_000_000 else 1

    def plan(columns: int) -> Winograd:
        rows = min(tiles, -(-wish // columns))
        blocks = _up(max(-(-tiles // room), rows), rows)
        tb = -(-tiles // blocks)
        blocks = -(-tiles // tb)
        t = _tile(tb, min(vectors, 4), s.ci, 4 * up, cpu)
        task_b = -(-blocks // rows)
        panels = -(-vectors // t.nv)
        task_n = -(-panels // columns) * t.nv
        return Winograd(
            batch=s.batch,
            ih=s.ih,
            iw=s.iw,
            ci=s.ci,
            oh=s.oh,
            ow=s.ow,
            co=s.co,
            pt=s.pt,
            pl=s.pl,
            xn=s.xn,
            xh=s.xh,
            xw=s.xw,
            ldy=s.ldy,
            mr=t.mr,
            nv=t.nv,
            tb=tb,
            task_b=task_b,
            task_n=task_n,
            tasks=-(-blocks // task_b) * -(-vectors // task_n),
            scratch_bytes=4 * 36 * (tb * up + cpu.lanes + tb * t.nv * cpu.lanes),
        )

    plans = [plan(columns) for columns in range(1, min(wish, vectors) + 1)]
    return min(plans, key=lambda p: -(-p.tasks // wish) * _winograd_task_cycles(p, cpu))


def conv2d_cycles(p: Conv2d, cpu: Simd) -> float:
    """Predicted cycles on one core, weights not in any cache."""
    ci, co = p.ci // p.groups, p.co // p.groups
    k, vectors = p.kh * p.kw * ci, -(-co // cpu.lanes)
    tile = _Tile(p.mr, p.nv, p.ku)
    if p.as_gemm:
        work = _cost(tile, p.oh * p.ow, vectors, k, 4 * p.xw, cpu)
    else:
        work = p.oh * _cost(tile, p.ow, vectors, k, 4 * p.sw * p.xw, cpu)
    return p.groups * (p.batch * work + 0.3 * 4 * k * co / _DRAM)


def winograd_cycles(p: Winograd, cpu: Simd) -> float:
    """Predicted cycles on one core, weights not in any cache."""
    return p.tasks * _winograd_task_cycles(p, cpu)


def _winograd_task_cycles(p: Winograd, cpu: Simd) -> float:
    vectors, up = min(p.task_n, -(-p.co // cpu.lanes)), _up(p.ci, cpu.lanes)
    work = 36 * _cost(_Tile(p.mr, p.nv, 1), p.tb, vectors, p.ci, 4 * up, cpu)
    turn = p.tb * (120 * up / cpu.lanes + 90 * vectors)
    weight_bytes = 4 * 36 * p.ci * vectors * cpu.lanes
    again = (p.task_b - 1) * weight_bytes / _L3 if weight_bytes > cpu.l2_bytes else 0.0
    return p.task_b * (work + turn) + again + 0.7 * weight_bytes / _DRAM


def choose_depthwise(s: Window, c: int, cpu: Simd, *, threads: int = 1) -> Depthwise:
    """Tiles and tasks of a depthwise convolution of `c` channels."""
    vectors = -(-c // cpu.lanes)

    def tile(w: int) -> float:
        if w == 0:
            return 0.0
        columns = (w - 1) * s.sw + (s.kw - 1) * s.dw + 1
        spill = max(0, w + s.kw + 2 - cpu.registers)
        return s.kh * max(w * s.kw, columns + s.kw + spill, 8.0) / 2 + 4 + w

    mr = min(range(1, min(s.ow, 16) + 1), key=lambda mr: s.ow // mr * tile(mr) + tile(s.ow % mr))
    flops = 2 * s.oh * s.ow * c * s.kh * s.kw
    task_h, task_c = _grid(flops, s.oh, vectors, s.batch, threads, 1, 1)
    pixel_bytes = 4 * min(c, task_c * cpu.lanes)
    room = cpu.l2_bytes // 2 // pixel_bytes - s.kh * s.iw
    return Depthwise(
        **asdict(s),
        c=c,
        mr=mr,
        rb=min(task_h, max(1, room // (s.sh * s.iw + s.ow))),
        task_h=task_h,
        task_c=task_c,
        tasks=s.batch * -(-s.oh // task_h) * -(-vectors // task_c),
    )


def choose_pool2d(
    s: Window,
    c: int,
    *,
    average: bool = False,
    include_pad: bool = False,
    pb: int = 0,
    pr: int = 0,
    threads: int = 1,
) -> Pool2d:
    """Tasks of a pooling layer; the pads after the image, `pb` and `pr`, only count taps."""
    task_h = _grid(s.oh * s.ow * c * s.kh * s.kw, s.oh, 1, s.batch, threads, 1, 1)[0]
    return Pool2d(
        **asdict(s),
        c=c,
        pb=pb,
        pr=pr,
        average=(2 if include_pad else 1) if average else 0,
        task_h=task_h,
        tasks=s.batch * -(-s.oh // task_h),
    )


def choose_mean2d(
    ih: int,
    iw: int,
    c: int,
    cpu: Simd,
    *,
    batch: int = 1,
    xn: int | None = None,
    xh: int | None = None,
    xw: int | None = None,
    ldy: int | None = None,
    threads: int = 1,
) -> Mean2d:
    """Tasks of the mean over all pixels; dense NHWC by default."""
    xw = c if xw is None else xw
    xh = iw * xw if xh is None else xh
    vectors = -(-c // cpu.lanes)
    task_c = 4 * _grid(ih * iw * c, 1, -(-vectors // 4), batch, threads, 1, 1)[1]
    return Mean2d(
        batch=batch,
        ih=ih,
        iw=iw,
        c=c,
        xn=ih * xh if xn is None else xn,
        xh=xh,
        xw=xw,
        ldy=c if ldy is None else ldy,
        task_c=task_c,
        tasks=batch * -(-vectors // task_c),
    )


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


def _is_gemm(s: Conv2dShape) -> bool:
    """True when pixels lie at equal distances and the taps of a pixel are one run of k."""
    if s.groups != 1 or s.xc != 1 or s.pt or s.pl:
        return False
    if s.kh == s.kw == s.sh == s.sw == 1:
        return s.xh == s.iw * s.xw and s.oh == s.ih and s.ow == s.iw
    one_row = s.kh == 1 or (s.dh == 1 and s.xh == s.kw * s.xw)
    one_column = s.kw == 1 or (s.dw == 1 and s.xw == s.ci)
    return s.oh == s.ow == 1 and one_row and one_column and (s.kh == 1 or s.xw == s.ci)


@dataclass(frozen=True, slots=True)
class _Tile:
    mr: int
    nv: int
    ku: int


def _prefetch(t: _Tile, k: int, n: int, cpu: Simd) -> int:
    """What is prefetched of k x n weights.

    16 lines ahead for one row; else the next panel, if it fits beside the present one in L2 and the
    weights as a whole do not stay there anyway.
    """
    if t.mr == 1:
        return 16
    fits = 4 * k * t.nv * cpu.lanes <= cpu.l2_bytes // 8
    return -1 if fits and 4 * k * n > cpu.l2_bytes // 4 else 0


def _tile(rows: int, vectors: int, k: int, row_bytes: int, cpu: Simd) -> _Tile:
    """The register tile with the least predicted time for `rows` x `vectors` outputs."""
    best = min(_tiles(rows, vectors, cpu), key=lambda t: _cost(t, rows, vectors, k, row_bytes, cpu))
    return best


def _tiles(rows: int, vectors: int, cpu: Simd) -> Iterator[_Tile]:
    for nv in range(1, min(vectors, 8) + 1):
        for mr in range(1, min(rows, cpu.registers) + 1):
            if mr * nv + nv + 1 >= cpu.registers:  # one to spare: an exact fill spills in places
                break
            ku = 1  # partial sums are for tiles that cannot be larger
            while (
                mr == rows
                and ku < 8
                and ku * mr * nv < 10
                and 2 * ku * mr * nv + nv + 1 < cpu.registers
            ):
                ku *= 2
            yield _Tile(mr, nv, ku)


def _cost(t: _Tile, rows: int, vectors: int, k: int, row_bytes: int, cpu: Simd) -> float:
    """Cycles of a core with two FMAs of latency 4 and two loads per cycle (chains get near 4.7)."""
    sets = 4096 // int(np.gcd(row_bytes, 4096))
    resident = sets * (cpu.ways - 1) - t.nv

    def tile(mr: int, nv: int) -> float:
        if mr == 0 or nv == 0:
            return 0.0
        # rows that share too few cache sets are fetched from L2 once per line and k
        evicted = 0.25 * mr if mr > resident else 0.0
        step = max(mr * nv / 2, (mr + nv) / 2 + 0.25, 4.7 / t.ku)
        return k * (step + evicted) + 1.5 * mr * nv + 20

    full_m, tail_m = divmod(rows, t.mr)
    full_n, tail_n = divmod(vectors, t.nv)
    return full_n * (full_m * tile(t.mr, t.nv) + tile(tail_m, t.nv)) + (
        full_m * tile(t.mr, tail_n) + tile(tail_m, tail_n)
    )


def _grid(
    flops: int, rows: int, columns: int, copies: int, threads: int, a: int, b: int
) -> tuple[int, int]:
    """Rows and columns of tiles per task, for about `threads` equal tasks over all copies.

    Work below a million operations is not split. Among equally balanced grids the one that reads
    least wins: every column of tasks reads the inputs (weight `a`), every row the weights (`b`).
    """
    wish = min(threads, flops * copies // 500_000) if flops * copies >= 1_000_000 else 1
    wish = -(-max(wish, 1) // copies)
    best = (rows, columns)
    best_cost = (rows * columns, 0)
    for tn in range(1, min(columns, wish) + 1):
        tm = min(rows, -(-wish // tn))
        task = (-(-rows // tm), -(-columns // tn))
        count = -(-rows // task[0]) * -(-columns // task[1])
        cost = (-(-count // wish) * task[0] * task[1], a * tn + b * tm)
        if cost < best_cost:
            best, best_cost = task, cost
    return best
