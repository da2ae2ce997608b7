"""Winograd's F(2x2, 3x3) and F(4x4, 3x3) over codes, bit for bit the direct sum: ``winograd_i8.h``.

Weights are those of `compact_i8`, transformed in each call: 3.6 or 8 times the bytes would take
longer to read than the transform takes, which a panel of channels needs once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from sparrow.kernels.case import Case, Kernel, Lowered, Reject
from sparrow.kernels.compact_i8 import (
    WIDE_PIXELS,
    WIDE_VECTORS,
    lowered,
    packed_conv,
    params,
)
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.sums_i8 import conv2d_sum
from sparrow.ops.conv import Conv
from sparrow.targets.instruction_sets import ISAS

# Bytes of transformed codes, and of transformed weights, that stay near.
NEAR = 1 << 18
# Instructions in units of a product and its addition, which count with their share of the loop.
PRODUCT, INSTRUCTION = 2.0, 0.5


@dataclass(frozen=True, slots=True)
class _Tile:
    """Tiles of ``size`` x ``size`` outputs, ``pixels`` of which are multiplied at once.

    The output's transform gives sums times up to 2^32 / ``reach`` / 2 modulo 2^32. Instructions of
    a tile's transforms are of a vector of codes, of weights and of sums.
    """

    size: int
    pixels: int
    reach: int
    codes: int
    weights: int
    sums: int


_TILES = {
    "winograd_i8": _Tile(2, WIDE_PIXELS, 1 << 29, 90, 64, 110),
    # images of 7 and 14 pixels are 4 and 16 tiles
    "winograd4_i8": _Tile(4, 4, 1 << 25, 400, 170, 430),
}


def _winograd(case: Case, tile: _Tile) -> Lowered | Reject:
    found = conv2d_sum(case, unsigned=False, upright=True)
    if isinstance(found, Reject):
        return found
    s, w = found.shape, found.weights
    lanes, mr, nv = case.target.isa.lanes, tile.pixels, WIDE_VECTORS
    if (s.kh, s.kw, s.sh, s.sw, s.dh, s.dw, s.groups) != (3, 3, 1, 1, 1, 1, 1):
        return Reject("not a dense 3x3 convolution of stride 1")
    if s.ci % (2 * lanes) or s.co % (nv * lanes):
        return Reject("channels are no whole vectors")
    if 128 * int(np.abs(w.astype(np.int64)).sum((1, 2, 3)).max()) >= tile.reach:
        return Reject("a transformed sum leaves int32")
    size, planes = tile.size, (tile.size + 2) ** 2
    th, tw, panels = -(-s.oh // size), -(-s.ow // size), s.co // (nv * lanes)
    # of a row of tiles, of a panel
    codes, weights = 2 * planes * s.ci * tw, 2 * planes * s.ci * nv * lanes
    whole = s.batch == 1 and th * codes <= 2 * NEAR
    rows = th if whole else min(th, max(1, NEAR // codes))
    # what one task transforms of its codes or weights, others transform too: the smaller of the two
    blocks = s.batch * -(-th // rows)
    block_tasks = min(case.threads, blocks)
    panel_tasks = min(case.threads // block_tasks, panels)
    # of one block the codes stay, and weights are transformed as they are needed
    together = 1 if whole else min(-(-panels // panel_tasks), max(1, NEAR // weights))
    p = params(s, found.code.pad, 1, size * rows, together)
    if isinstance(p, Reject):
        return p
    most = max(rows * tw, mr)
    line = round_up((size * tw + 2) * s.ci * 2 + 3, 64)
    plane = most * s.ci * 2 + 64, weights // planes + 64, most * nv * lanes * 4 + 64
    scratch = (size + 2) * line + planes * (plane[0] + together * plane[1] + plane[2])
    literals = (size, mr, nv, int(found.code.flip), found.code.put, panel_tasks, block_tasks)
    tiles = s.batch * th * tw
    products = blocks * -(-rows * tw // mr) * mr  # the last of a block in part again
    passes = 1 if whole else -(-panels // together)
    cycles = PRODUCT * planes * products * panels * nv * (s.ci // 2)
    cycles += INSTRUCTION * (
        passes * tiles * (s.ci // (2 * lanes)) * tile.codes
        + panels * nv * (s.ci // 2) * tile.weights
        + tiles * panels * nv * tile.sums
    )
    return lowered(
        *(case, found, "winograd_i8.h", "sp_winograd_i8", p, literals),
        *(packed_conv(found, lanes, 2, 1, nv), panel_tasks * block_tasks, scratch, cycles),
    )


ROWS = tuple(
    Kernel(
        name,
        Conv,
        partial(_winograd, tile=tile),
        tuple(i.name for i in ISAS if i.engine and not i.quads),
    )
    for name, tile in _TILES.items()
)
