"""How far the result of a kernel may run over the input that it walks through.

A kernel that finishes its output in blocks, in order, needs of its input only what later blocks
read. Where the input begins far enough behind the output, its stores stay behind its reads:

    output   |oooooooooo>.......|
    input         |xxxxx>iiiiiiiii|      x: read for the last time, and overwritten

(the diagonal memory optimization of Blacker et al. 2020, arXiv:2010.01668, by blocks).
"""

from __future__ import annotations

from itertools import accumulate

from sparrow.kernels.params_f32 import Window
from sparrow.kernels.params_i8 import ChannelsI8, Conv2dI8


def lead_of(
    p: Window | Conv2dI8 | ChannelsI8,
    size: int,
    rows: int,
    pixels: int,
    copied: bool,
) -> int | None:
    """Bytes that a dense input must begin behind a dense output so that it is read in time.

    Args:
        p: Sizes; elements of the input are bytes.
        size: Bytes of an element of the output.
        rows: Rows of a block of the output.
        pixels: Pixels of its rows; blocks follow one another along a row.
        copied: Whether what a block reads is in scratch before its first store.
    """
    if p.batch > 1:
        return None
    first: list[int] = []  # byte of the input that a block reads
    end: list[int] = []  # of the output that it writes
    for oy in range(0, p.oh, rows):
        oe = min(oy + rows, p.oh)
        for ox in range(0, p.ow, pixels):
            # several rows of a block begin at its left, and the second may be the first read
            left = max(0, ox * p.sw - p.pl) if oe - oy == 1 else 0
            first.append(max(0, oy * p.sh - p.pt) * p.xh + left * p.xw)
            end.append(((oe - 1) * p.ow + min(ox + pixels, p.ow)) * p.ldy * size)
    if copied:
        first = [*first[1:], p.ih * p.xh]
    # rows above the image are not read: a block may begin where the one before it did
    rest = list(accumulate(reversed(first), min))[::-1]
    return max(e - r for e, r in zip(end, rest, strict=True))
