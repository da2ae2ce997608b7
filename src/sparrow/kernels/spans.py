"""What tasks of convolutions and products touch: rows of pixels, and where those lie."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from sparrow.kernels.case import Epilogue, In, Out, Span, Tensor
from sparrow.kernels.params_f32 import Gemm, Window
from sparrow.kernels.params_i8 import ChannelsI8, Conv2dI8

Walked = Window | Conv2dI8 | ChannelsI8


def channels_of(channels: int, lanes: int, task_n: int, groups: int = 1) -> list[tuple[int, int]]:
    """Channels of the tasks of a pixel, `task_n` vectors of a group each."""
    co = channels // groups
    each = task_n * lanes
    starts = range(0, co, each)
    return [(g * co + j, g * co + min(co, j + each)) for g in range(groups) for j in starts]


def _cuts(extent: int, each: int) -> list[tuple[int, int]]:
    return [(i, min(extent, i + each)) for i in range(0, extent, each)]


def window_spans(
    p: Walked,
    task_h: int,
    across: list[tuple[int, int]],
    reach: tuple[int, int],
    y: Tensor,
    ep: Epilogue,
    task_w: int = 0,
) -> tuple[tuple[Span, ...], ...]:
    """Of each task of a windowed layer.

    Args:
        p: Its sizes.
        task_h: Output rows of a task.
        across: `channels_of` of a pixel.
        reach: Elements of the input from the first channel of a pixel to behind the last, and the
            bytes of an element; less than none where channels run backwards.
        y: The result, whose pixels lie `p.ldy` apart.
        ep: Reads the operands that it adds at the same pixels.
        task_w: Output pixels of a row that a task takes; 0 for all.
    """
    if min(p.xn, p.xh, p.xw, p.ldy, reach[0]) < 0:
        return ()
    rows, wide = _cuts(p.oh, task_h), _cuts(p.ow, task_w or p.ow)
    found = []
    for z, oy, ox, c in product(range(p.batch), rows, wide, across):
        first = _seen(oy, p.sh, p.pt, p.kh, p.dh, p.ih)
        # all pixels may be one row of the output, and yet rows of the input
        last = _seen(ox, p.sw, p.pl, p.kw, p.dw, max(p.iw, p.ow * p.sw))
        read = Span(
            In(0),
            reach[1] * (z * p.xn + first[0] * p.xh + last[0] * p.xw),
            reach[1] * (z * p.xn + first[1] * p.xh + last[1] * p.xw + reach[0]),
        )
        low, high = ((z * p.oh + oy[k] - k) * p.ow + ox[k] - k for k in (0, 1))
        found.append((read, *_results((low, high), c, p.ldy, y, ep)))
    return tuple(found)


def conv2d_spans(p: Conv2dI8, lanes: int, y: Tensor, ep: Epilogue) -> tuple[tuple[Span, ...], ...]:
    """`window_spans` of a kernel whose input counts bytes; () where channels are in parts."""
    if p.part:
        return ()
    across = channels_of(p.co, lanes, p.task_n, p.groups)
    return window_spans(p, p.task_h, across, (p.ci, 1), y, ep, p.task_w)


def _seen(
    out: tuple[int, int], step: int, pad: int, taps: int, apart: int, extent: int
) -> tuple[int, int]:
    """The first and the last row of the input that output rows see; of pads alone the nearest."""
    low = out[0] * step - pad
    high = (out[1] - 1) * step - pad + (taps - 1) * apart
    return min(max(low, 0), extent - 1), max(min(high, extent - 1), 0)


def gemm_spans(p: Gemm, lanes: int, y: Tensor, ep: Epilogue) -> tuple[tuple[Span, ...], ...]:
    """Of each task of a product whose second operand is constant; () where rows are columns."""
    if p.a_trans or not p.b_packed:
        return ()
    found = []
    rows = _cuts(p.m, p.task_m)
    for z, (i, ie), c in product(range(p.batch), rows, channels_of(p.n, lanes, p.task_n)):
        read = Span(In(0), 4 * (z * p.sa + i * p.lda), 4 * (z * p.sa + (ie - 1) * p.lda + p.k))
        if z and p.sc != p.m * p.ldc:
            return ()
        found.append((read, *_results((z * p.m + i, z * p.m + ie - 1), c, p.ldc, y, ep)))
    return tuple(found)


def _results(
    pixels: tuple[int, int], c: tuple[int, int], ldy: int, y: Tensor, ep: Epilogue
) -> Iterator[Span]:
    """The result from the first to the last of ``pixels``, and what the epilogue reads there."""
    size = y.type.dtype.bytes
    yield Span(Out(0), size * (pixels[0] * ldy + c[0]), size * (pixels[1] * ldy + c[1]))
    for e in ep.extras:
        if isinstance(e.source, In) and e.row_stride > 0 and e.col_stride >= 0:
            at = e.source.offset + pixels[0] * e.row_stride + c[0] * e.col_stride
            end = e.source.offset + pixels[1] * e.row_stride + (c[1] - 1) * e.col_stride + 1
            yield Span(In(e.source.index), e.type.dtype.bytes * at, e.type.dtype.bytes * end)
