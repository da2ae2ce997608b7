"""Winograd's F(2x2, 3x3) and F(4x4, 3x3) over codes, bit for bit the direct sum: ``winograd_i8.h``.

Weights are those of `compact_i8`, transformed in each call: 3.6 or 8 times the bytes would take
longer to read than the transform takes, which a panel of channels needs once for a block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from sparrow.kernels.params_f32 import Conv2dShape
from sparrow.kernels.sums_i8 import conv2d_sum
from sparrow.kernels.tasks import split_of
from sparrow.ops.conv import Conv
from sparrow.targets.instruction_sets import ISAS

# Of engines, bytes of transformed codes, and of transformed weights, that stay near.
NEAR = 1 << 18
# Cycles of a product and its addition with their share of the loop, and of another instruction.
PRODUCT, INSTRUCTION = 2.0, 0.5


@dataclass(frozen=True, slots=True)
class _Tile:
    """Tiles of ``size`` x ``size`` outputs, of which engines multiply ``pixels`` at once.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    """How a layer goes over its tiles.

    Attributes:
        pixels: Tiles that are multiplied at once.
        rows: Of tiles of a block.
        together: Panels whose weights are transformed at once, before all blocks.
        chunk: Input channels of one panel whose weights are, in each block; 0: of all.
        panel_tasks: Parts of the panels.
        block_tasks: Parts of the blocks.
        codes: How often codes are transformed.
        weights: How often weights are.
        product: Cycles of a product of a vector and its addition.
    """

    pixels: int
    rows: int
    together: int
    chunk: int
    panel_tasks: int
    block_tasks: int
    codes: int
    weights: int
    product: float = PRODUCT


def _shared(s: Conv2dShape, tile: _Tile, panels: int, case: Case) -> _Walk:
    """Of code that layers share, for engines."""
    lanes, threads = case.target.isa.lanes, case.threads
    planes = (tile.size + 2) ** 2
    th, tw = -(-s.oh // tile.size), -(-s.ow // tile.size)
    # of a row of tiles, of a panel
    codes, weights = 2 * planes * s.ci * tw, 2 * planes * s.ci * WIDE_VECTORS * lanes
    whole = s.batch == 1 and th * codes <= 2 * NEAR
    rows = th if whole else min(th, max(1, NEAR // codes))
    # what one task transforms of its codes or weights, others transform too: the smaller of the two
    blocks = s.batch * -(-th // rows)
    block_tasks = min(threads, blocks)
    panel_tasks = min(threads // block_tasks, panels)
    # of one block the codes stay, and weights are transformed as they are needed
    together = 1 if whole else min(-(-panels // panel_tasks), max(1, NEAR // weights))
    return _Walk(
        pixels=tile.pixels,
        rows=rows,
        together=together,
        chunk=0,
        panel_tasks=panel_tasks,
        block_tasks=block_tasks,
        codes=1 if whole else -(-panels // together),
        weights=1,
    )


def _own(s: Conv2dShape, tile: _Tile, panels: int, case: Case) -> _Walk:
    """Of a layer that has its own code.

    Weights of all panels are transformed first and stay in L2, or those of one panel where it is
    multiplied, in parts that leave L2 to the codes of a block: from L3 they would not come sooner.
    """
    target, wish = case.target, split_of(18 * s.batch * s.oh * s.ow * s.co * s.ci, case.threads)
    width, planes = WIDE_VECTORS * target.isa.lanes, (tile.size + 2) ** 2
    th, tw = -(-s.oh // tile.size), -(-s.ow // tile.size)
    channel = 2 * planes * width  # bytes of the weights of an input channel
    parts = -(-s.ci * channel // (target.l2_bytes // 4))
    chunk = round_up(-(-s.ci // parts), 2)

    def walk(pixels: int, rows: int, kept: bool) -> _Walk:
        blocks = s.batch * -(-th // rows)
        shares = 1 if kept or blocks % wish == 0 else min(wish, panels)
        return _Walk(
            pixels=pixels,
            rows=rows,
            together=panels,
            chunk=0 if kept else chunk,
            panel_tasks=shares,
            block_tasks=min(wish, blocks),
            codes=shares,
            weights=min(wish, blocks) if kept else blocks,
            product=0.5625 + 1 / (pixels * WIDE_VECTORS),
        )

    def cost(w: _Walk) -> float:
        most, blocks = round_up(w.rows * tw, w.pixels), s.batch * -(-th // w.rows)
        tasks = w.panel_tasks * w.block_tasks
        near = planes * most * (2 * s.ci + 4 * width)
        near += channel * (w.chunk or s.ci * panels)
        # of what L2 does not hold, codes come from behind it for each panel
        again = 2 * planes * most * s.ci * panels * blocks if near > target.l2_bytes else 0
        cycles = _cycles(s, tile, w, panels, target.isa.lanes) + again / target.memory_rate
        uneven = (
            -(-blocks // w.block_tasks) * w.block_tasks / blocks * -(-tasks // wish) * wish / tasks
        )
        return cycles * uneven

    most = (target.isa.registers - 2) // WIDE_VECTORS - 1  # beside sums, weights and a product
    walks = (
        walk(pixels, rows, kept)
        for pixels in range(most // 2 + 1, most + 1)
        for rows in range(1, th + 1)
        for kept in (False, True)
    )
    return min(walks, key=cost)


def _cycles(s: Conv2dShape, tile: _Tile, w: _Walk, panels: int, lanes: int) -> float:
    """Of all tasks together; leftovers of a block's tiles are multiplied as well."""
    th, tw, vectors = -(-s.oh // tile.size), -(-s.ow // tile.size), panels * WIDE_VECTORS
    blocks, tiles = s.batch * -(-th // w.rows), s.batch * th * tw
    products = (tile.size + 2) ** 2 * blocks * round_up(w.rows * tw, w.pixels) * vectors
    return w.product * products * (s.ci // 2) + INSTRUCTION * (
        w.codes * tiles * (s.ci // (2 * lanes)) * tile.codes
        + w.weights * vectors * (s.ci // 2) * tile.weights
        + tiles * vectors * tile.sums
    )


def _winograd(case: Case, tile: _Tile) -> Lowered | Reject:
    found = conv2d_sum(case, unsigned=False, upright=True)
    if isinstance(found, Reject):
        return found
    s, w, isa = found.shape, found.weights, case.target.isa
    lanes, nv = isa.lanes, WIDE_VECTORS
    if (s.kh, s.kw, s.sh, s.sw, s.dh, s.dw, s.groups) != (3, 3, 1, 1, 1, 1, 1):
        return Reject("not a dense 3x3 convolution of stride 1")
    whole = replace(s, ci=round_up(s.ci, 2 * lanes), co=round_up(s.co, nv * lanes))
    if isa.engine and whole != s:
        return Reject("channels are no whole vectors")
    if 128 * int(np.abs(w.astype(np.int64)).sum((1, 2, 3)).max()) >= tile.reach:
        return Reject("a transformed sum leaves int32")
    size, planes = tile.size, (tile.size + 2) ** 2
    panels, tw = whole.co // (nv * lanes), -(-s.ow // size)
    walk = (_shared if isa.engine else _own)(whole, tile, panels, case)
    p = params(s, found.code.pad, 1, size * walk.rows, walk.together)
    if isinstance(p, Reject):
        return p
    most = round_up(walk.rows * tw, walk.pixels)
    line = round_up((size * tw + 2) * s.ci * 2 + 3, 64)
    weights = 2 * (walk.chunk or whole.ci) * nv * lanes + 64
    plane = most * whole.ci * 2 + 64 + most * nv * lanes * 4 + 64
    plane += weights if walk.chunk else walk.together * weights
    scratch = (size + 2) * line + planes * plane
    literals = (size, walk.pixels, nv, walk.chunk, int(found.code.flip), found.code.put)
    more = ((0, whole.co - s.co), (0, whole.ci - s.ci), (0, 0), (0, 0))
    bias = None if found.bias is None else np.pad(found.bias, more[:1])
    padded = replace(found, shape=whole, weights=np.pad(w, more), bias=bias)
    packed = packed_conv(padded, lanes, 2, 3 * whole.ci // 2, 1, nv)
    cycles = _cycles(whole, tile, walk, panels, lanes)
    return lowered(
        *(case, found, "winograd_i8.h", f"sp_winograd_i8{'' if isa.engine else '_own'}"),
        *(p, (*literals, int(whole == s), walk.panel_tasks, walk.block_tasks), packed),
        *(walk.panel_tasks * walk.block_tasks, scratch, cycles),
        shared=isa.engine,
    )


# Others multiply bytes in one instruction, or halves in more.
INSTRUCTION_SETS = (*(i.name for i in ISAS if i.engine and not i.quads), "avx2", "avx512")
ROWS = tuple(
    Kernel(name, Conv, partial(_winograd, tile=tile), INSTRUCTION_SETS)
    for name, tile in _TILES.items()
)
