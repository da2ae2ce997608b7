"""Rows of 8-bit convolutions and products in little code, in place of those of `conv_i8`.

Layers whose epilogues are alike share one function, sizes are a table, and weights are not padded
to whole vectors.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sparrow.kernels.case import (
    Argument,
    Case,
    In,
    Invoke,
    Kernel,
    Literal,
    Lowered,
    Out,
    Pack,
    Packed,
    Reject,
    Scratch,
)
from sparrow.kernels.packing_f32 import round_up
from sparrow.kernels.packing_i8 import pack_conv
from sparrow.kernels.params_f32 import Conv2dShape
from sparrow.kernels.sums_i8 import Sum, conv2d_sum, depthwise_sum
from sparrow.kernels.tiling_i8 import merges, reads_inside
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.tensor import Array

# Pixels of a tile: enough sums in flight for the latency of a dot product.
PIXELS = 4
DEPTHWISE_PIXELS = 4
HEADER, STRUCT = "compact_i8.h", "sp_compact_i8"
# A row of the band of a convolution stays near; more rows than this gain nothing.
BAND_BYTES = 1 << 14
# Fields of `sp_compact_i8` by their bits.
_FIELDS = {
    **dict.fromkeys(("xn", "xh", "xw", "ldy", "iw", "ow", "ci", "co"), 31),
    **dict.fromkeys(("ih", "oh", "groups", "rb"), 16),
    **dict.fromkeys(("kh", "kw", "sh", "sw", "dh", "dw", "pt", "pl", "runs", "pad"), 8),
}


def _params(s: Conv2dShape, pad: int, runs: int, rows: int) -> dict[str, int] | Reject:
    own = {"pad": pad, "runs": runs, "rb": rows}
    found = {k: own[k] if k in own else getattr(s, k) for k in _FIELDS}
    for k, bits in _FIELDS.items():
        if found[k] >= 1 << bits:
            return Reject(f"{k} = {found[k]} leaves {bits} bits")
    return found


def trimmed(w: NDArray[np.int8], groups: int, lanes: int, merged: bool) -> NDArray[np.int8]:
    """`pack_conv` whose last vector of a group keeps its own channels only."""
    full = pack_conv(w, groups, lanes, merged)
    each = w.shape[0] // groups
    parts = [
        full[g, v, ..., : min(lanes, each - v * lanes), :].reshape(-1)
        for g in range(groups)
        for v in range(full.shape[1])
    ]
    return np.concatenate(parts)


def _behind(size: int, start: Pack, weights: Array) -> Array:
    """``size`` bytes of weights, and behind them where sums begin."""
    data = np.zeros(size + start.nbytes, np.int8)
    data[: weights.size] = weights.reshape(-1)
    data[size:] = np.asarray(start).reshape(-1).view(np.int8)
    return data


def _conv2d(case: Case) -> Lowered | Reject:
    found = conv2d_sum(case)
    if isinstance(found, Reject):
        return found
    s, w, code = found.shape, found.weights, found.code
    lanes, each = case.target.isa.lanes, s.ci // s.groups
    band = not reads_inside(s)
    if not band and s.kh == s.kw == s.sh == s.sw == 1 and s.xh == s.iw * s.xw and s.oh == s.ih:
        # all pixels are one row
        s = replace(s, ih=1, oh=1, iw=s.oh * s.ow, ow=s.oh * s.ow)
    rows = max(1, min(s.oh, BAND_BYTES // ((s.iw * each + 64) * s.sh)))
    if case.threads > 1:
        rows = min(rows, -(-s.oh // case.threads))
    merged = merges(s, band)
    p = _params(s, code.pad, 1 if merged else s.kw, rows)
    if isinstance(p, Reject):
        return p
    runs = p["runs"]
    kq = -(-(s.kw // runs * each) // 4)
    start, size = found.start(lanes), s.co * s.kh * runs * kq * 4
    packed = Pack(
        (size + start.nbytes,),
        np.dtype(np.int8),
        lambda: _behind(size, start, trimmed(w, s.groups, lanes, merged)),
    )
    width = (s.ow - 1) * s.sw + (s.kw - 1) * s.dw + 1
    line = round_up(width * each + 3, 64) if band else 0
    scratch_bytes = ((rows - 1) * s.sh + (s.kh - 1) * s.dh + 1) * line
    literals = (PIXELS, int(band), int(code.flip), code.put)
    cycles = 2.0 * s.batch * s.oh * s.ow * round_up(s.co, lanes) * kq * runs * s.kh / lanes
    tasks = s.batch * s.groups * -(-s.oh // rows)
    return _lowered(
        case, found, "sp_conv2d_compact_i8", p, literals, packed, tasks, scratch_bytes, cycles
    )


def _depthwise(case: Case) -> Lowered | Reject:
    found = depthwise_sum(case)
    if isinstance(found, Reject):
        return found
    s, w, code, lanes = found.shape, found.weights, found.code, case.target.isa.lanes
    rows = s.oh if case.threads == 1 else -(-s.oh // case.threads)
    p = _params(replace(s, groups=1), code.pad, 1, rows)
    if isinstance(p, Reject):
        return p
    start, size = found.start(lanes), round_up(w.size, 4)
    packed = Pack(
        (size + start.nbytes,),
        np.dtype(np.int8),
        lambda: _behind(size, start, w.transpose(2, 3, 1, 0)),
    )
    quads = -(-s.kh // 4) * s.kw
    scratch_bytes = round_up(s.iw * s.xw + lanes, 64) + quads * 4 * lanes
    pixels = min(s.ow, DEPTHWISE_PIXELS)
    literals = (pixels, s.kw, s.sw, s.dw, int(code.flip), code.put)
    cycles = 8.0 * math.prod((s.batch, s.oh, s.ow, round_up(s.co, lanes), quads)) / lanes
    tasks = s.batch * -(-s.oh // rows)
    return _lowered(
        case, found, "sp_depthwise_compact_i8", p, literals, packed, tasks, scratch_bytes, cycles
    )


def _lowered(
    case: Case,
    found: Sum,
    function: str,
    params: dict[str, int],
    literals: tuple[int, ...],
    packed: Pack,
    tasks: int,
    scratch_bytes: int,
    cycles: float,
) -> Lowered:
    serial = case.threads == 1
    arguments: tuple[Argument, ...] = (
        *map(Literal, literals),
        *(In(0), Packed(0), Out(0)),
        # without scratch, a null pointer
        Scratch("uint8_t", 0 if serial else scratch_bytes) if scratch_bytes else Literal(0),
        found.epilogue,
    )
    repeat = tasks if serial else 1
    call = Invoke(HEADER, function, STRUCT, params, arguments, repeat, shared=True)
    tasks = 1 if serial else tasks
    return Lowered((call,), tasks, (packed,), scratch_bytes * tasks, cycles)


ROWS = (
    Kernel("depthwise_compact_i8", Conv, _depthwise),
    Kernel("conv2d_compact_i8", Conv, _conv2d),
    Kernel("gemm_compact_i8", MatMul, _conv2d),
)
