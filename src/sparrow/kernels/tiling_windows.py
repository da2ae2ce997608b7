"""Tiles and tasks of the float32 kernels that go by windows: depthwise, pooling, means."""

from __future__ import annotations

from dataclasses import asdict

from sparrow.kernels.case import Tile
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.params_f32 import Depthwise, Mean2d, Pool2d, Simd, Window
from sparrow.kernels.tasks import Grid, task_grid

# Columns of the input under a depthwise tile, each of which is code of its own.
MAX_COLUMNS = 64
# Vectors of so many lanes are half a line: all of a tile's pixels are taken one after the other, so
# that a line comes to L1 once for both.
_HALF_LINE = 8


def choose_depthwise(
    s: Window,
    c: int,
    cpu: Simd,
    *,
    threads: int = 1,
    xhalf: bool = False,
    half: bool = False,
    tile: Tile | None = None,
) -> Depthwise:
    """Tiles and tasks of a depthwise convolution of `c` channels.

    `xhalf`: the input is bfloat16. `half`: the output is. `tile`: one of `depthwise_tiles`, the
    first by default.
    """
    vectors = -(-c // cpu.lanes)
    mr = (tile or depthwise_tiles(s, cpu)[0]).mr
    grid = Grid(
        flops=2 * s.oh * s.ow * c * s.kh * s.kw,
        rows=s.oh,
        columns=vectors,
        copies=s.batch,
        input_bytes=4 * s.ih * s.iw * c,
        output_bytes=(2 if half else 4) * s.oh * s.ow * c,
    )
    task_h, task_c = task_grid(grid, threads, cpu.core)
    pixel_bytes = 4 * min(c, task_c * cpu.lanes)
    room = cpu.l2_bytes // 2 // pixel_bytes - s.kh * s.iw
    return Depthwise(
        **asdict(s),
        c=c,
        xhalf=int(xhalf),
        half=int(half),
        mr=mr,
        cb=task_c if cpu.lanes == _HALF_LINE else 1,
        rb=min(task_h, max(1, room // (s.sh * s.iw + s.ow))),
        task_h=task_h,
        task_c=task_c,
        tasks=s.batch * -(-s.oh // task_h) * -(-vectors // task_c),
    )


def depthwise_tiles(s: Window, cpu: Simd) -> tuple[Tile, ...]:
    """Pixels of one vector of channels at once, the one predicted best first."""

    def cost(w: int) -> float:
        if w == 0:
            return 0.0
        columns = (w - 1) * s.sw + (s.kw - 1) * s.dw + 1
        spill = max(0, w + s.kw + 2 - cpu.registers)
        return s.kh * max(w * s.kw, columns + s.kw + spill, 8.0) / 2 + 4 + w

    most = 6 if cpu.both_held else 16
    # there is no room for more: what spills costs most, with AVX2 up to 9 % of a layer (Zen 3)
    if cpu.lanes > 1 and (cpu.registers < 16 or cpu.lanes == _HALF_LINE):
        most = max(1, cpu.registers - 3 - s.kw)
    widths = range(1, min(s.ow, most, pixels_within(s)) + 1)
    ranked = sorted(widths, key=lambda mr: s.ow // mr * cost(mr) + cost(s.ow % mr))
    return tuple(Tile(mr, 1) for mr in ranked)


def pixels_within(s: Window) -> int:
    """Pixels of a depthwise tile that share few enough columns for its code to walk over."""
    return max(1, MAX_COLUMNS // s.sw)


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
    flops = s.oh * s.ow * c * s.kh * s.kw
    task_h, _ = task_grid(Grid(flops=flops, rows=s.oh, columns=1, copies=s.batch), threads)
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
    """Tasks of the mean over all pixels; dense NHWC by default.

    Of as many images as threads or more each thread takes its own, however small they are: it has
    written them.
    """
    xw = c if xw is None else xw
    xh = iw * xw if xh is None else xh
    vectors = -(-c // cpu.lanes)
    task_n, task_c = -(-batch // threads), round_up(vectors, 4)
    if batch < threads:
        grid = Grid(flops=ih * iw * c, rows=1, columns=-(-vectors // 4), copies=batch)
        task_n, task_c = 1, 4 * task_grid(grid, threads)[1]
    return Mean2d(
        batch=batch,
        ih=ih,
        iw=iw,
        c=c,
        xn=ih * xh if xn is None else xn,
        xh=xh,
        xw=xw,
        ldy=c if ldy is None else ldy,
        task_n=task_n,
        task_c=task_c,
        tasks=-(-batch // task_n) * -(-vectors // task_c),
    )
