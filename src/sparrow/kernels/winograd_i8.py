"""Winograd's F(2x2, 3x3) over codes, bit for bit the direct sum: see ``winograd_i8.h``.

Weights are those of `compact_i8`, transformed in each call: 3.6 times the bytes would take
longer to read than the transform takes, which a panel of channels needs once.
"""

from __future__ import annotations

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
from sparrow.targets.types import ISAS

# Bytes of transformed codes, and of transformed weights, that stay near.
NEAR = 1 << 18
# The output's transform gives four times a sum as int32.
REACH = 1 << 29
# Instructions in units of a product and its addition, which count with their share of the loop.
PRODUCT, INSTRUCTION = 2.0, 0.5


def _winograd(case: Case) -> Lowered | Reject:
    found = conv2d_sum(case)
    if isinstance(found, Reject):
        return found
    s, w = found.shape, found.weights
    lanes, mr, nv = case.target.isa.lanes, WIDE_PIXELS, WIDE_VECTORS
    if (s.kh, s.kw, s.sh, s.sw, s.dh, s.dw, s.groups) != (3, 3, 1, 1, 1, 1, 1):
        return Reject("not a dense 3x3 convolution of stride 1")
    if s.ci % (2 * lanes) or s.co % (nv * lanes):
        return Reject("channels are no whole vectors")
    if 128 * int(np.abs(w.astype(np.int64)).sum((1, 2, 3)).max()) >= REACH:
        return Reject("four times a sum leaves int32")
    th, tw, panels = -(-s.oh // 2), -(-s.ow // 2), s.co // (nv * lanes)
    codes, weights = 32 * s.ci * tw, 32 * s.ci * nv * lanes  # of a row of tiles, of a panel
    whole = s.batch == 1 and th * codes <= 2 * NEAR
    rows = th if whole else min(th, max(1, NEAR // codes))
    # what one task transforms of its codes or weights, others transform too: the smaller of the two
    blocks = s.batch * -(-th // rows)
    block_tasks = min(case.threads, blocks)
    panel_tasks = min(case.threads // block_tasks, panels)
    # of one block the codes stay, and weights are transformed as they are needed
    together = 1 if whole else min(-(-panels // panel_tasks), max(1, NEAR // weights))
    p = params(s, found.code.pad, 1, 2 * rows, together)
    if isinstance(p, Reject):
        return p
    most = max(rows * tw, mr)
    line = round_up((2 * tw + 2) * s.ci * 2 + 3, 64)
    planes = most * s.ci * 2 + 64, weights // 16 + 64, most * nv * lanes * 4 + 64
    scratch = 4 * line + 16 * (planes[0] + together * planes[1] + planes[2])
    literals = (mr, nv, int(found.code.flip), found.code.put, panel_tasks, block_tasks)
    tiles = s.batch * th * tw
    passes = 1 if whole else -(-panels // together)
    cycles = PRODUCT * 16 * tiles * panels * nv * (s.ci // 2)
    cycles += INSTRUCTION * (
        passes * tiles * (s.ci // (2 * lanes)) * 90
        + panels * nv * (s.ci // 2) * 64
        + tiles * panels * nv * 110
    )
    return lowered(
        *(case, found, "winograd_i8.h", "sp_winograd_i8", p, literals),
        *(packed_conv(found, lanes, 2, 1, nv), panel_tasks * block_tasks, scratch, cycles),
    )


ROWS = (
    Kernel("winograd_i8", Conv, _winograd, tuple(i.name for i in ISAS if i.pairs and not i.quads)),
)
