"""Tiles, tasks and predicted cycles of F(4x4, 3x3) whose weights are transformed as they pass."""

from __future__ import annotations

from dataclasses import asdict
from itertools import product

from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.params_f32 import Conv2dShape, Simd, WinogradStream, winograd_shape
from sparrow.kernels.tasks import split_of
from sparrow.kernels.tiles_f32 import weight_cycles

# Input channels whose weights of one vector (18 kB) stay in L1 while all positions use them.
CHUNK = 32
# What passes take over their arithmetic: pixels and weights come from L2 once a chunk.
_SLACK = 1.22
# The share of the time of its weights from memory that a core waits.
_WAIT = 0.2


def choose_winograd_stream(
    s: Conv2dShape, cpu: Simd, *, threads: int = 1, half: bool = False
) -> WinogradStream | None:
    """Tiles and tasks of a 3x3 convolution of stride 1; None where it does not apply.

    The function is that of `choose_winograd`, rounding errors are those of raw weights. `half`: the
    output is bfloat16.
    """
    shape = winograd_shape(s, half)
    if shape is None:
        return None
    tiles = s.batch * -(-s.oh // 4) * -(-s.ow // 4)
    vectors = -(-s.co // cpu.lanes)
    up = round_up(s.ci, CHUNK)
    wish = split_of(18 * s.batch * s.oh * s.ow * s.co * s.ci, threads)
    room = max(1, cpu.l2_bytes * 5 // 8 // (4 * 36 * up))
    blocks = -(-tiles // room)
    tb = -(-tiles // blocks)
    blocks = -(-tiles // tb)
    sums = cpu.registers * 3 // 4
    shapes = ((np, nt) for np, nt in product((3, 6), range(1, tb + 1)) if np * nt <= sums)
    np, nt = min(shapes, key=lambda t: _channel_cycles(t[0], t[1], tb), default=(3, 1))
    task_n = -(-vectors // min(wish, vectors))
    return WinogradStream(
        **asdict(shape),
        np=np,
        nt=nt,
        kc=CHUNK,
        tb=tb,
        task_b=blocks,
        task_n=task_n,
        tasks=-(-vectors // task_n),
        scratch_bytes=4 * 36 * (up // CHUNK * (tb * CHUNK + cpu.lanes) + tb * cpu.lanes),
    )


def _channel_cycles(np: int, nt: int, tb: int) -> float:
    """An input channel of a vector of outputs, for all positions of tb tiles."""
    cycles = 0.0
    for n in (*[nt] * (tb // nt), tb % nt):
        if n == 0:
            continue
        # two FMAs and two loads per cycle; sums come and go once a chunk. Rows of weights between
        # the first and the last are sums of three, positions between them too
        for taps, sums in ((3, 0), (9, 6)):
            step = max(sums + np + np * n, taps + np * n, 9.4) / 2
            cycles += (2 if sums == 0 else 4) * 6 // np * (step + 1.5 * np * n / CHUNK)
    return cycles


def inside(s: Conv2dShape) -> float:
    """The share of the direct sum's products that read pixels: it skips those of padding, which its
    predicted cycles count.
    """
    read = sum(0 <= y + k - s.pt < s.ih for y in range(s.oh) for k in range(s.kh)) * sum(
        0 <= x + k - s.pl < s.iw for x in range(s.ow) for k in range(s.kw)
    )
    return max(1, read) / (s.oh * s.kh * s.ow * s.kw)


def winograd_stream_cycles(p: WinogradStream, cpu: Simd, threads: int = 1) -> float:
    """Predicted cycles on one core, where `threads` cores share the memory."""
    vectors, up = -(-p.co // cpu.lanes), round_up(p.ci, cpu.lanes)
    work = _SLACK * p.ci * vectors * _channel_cycles(p.np, p.nt, p.tb)
    turn = p.tb * (p.tasks * 120 * up / cpu.lanes + 126 * vectors)
    size = 4 * 9 * p.ci * vectors * cpu.lanes
    again = (p.task_b - 1) * size / cpu.core.cache_rate
    return p.task_b * (work + turn) + again + _WAIT * threads * weight_cycles(size, cpu)
