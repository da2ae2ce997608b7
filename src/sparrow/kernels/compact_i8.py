"""Rows of 8-bit convolutions and products in little code, in place of those of `conv_i8`.

Layers whose epilogues are alike share one function, sizes are a table, and weights are not padded
to whole vectors. For engines (`Isa.engine`) there are no others, and their tiles are wider.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

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
from sparrow.kernels.sums_i8 import Sum, conv2d_sum, depthwise_sum, in_bytes, one_column
from sparrow.kernels.tiling_i8 import HALVES, merges, reads_inside, row_of
from sparrow.kernels.tiling_i8 import PAIRED as WIDENED
from sparrow.kernels.walk import lead_of
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.targets.instruction_sets import ENGINE_ISAS, ISAS, Isa
from sparrow.tensor import Array

# Pixels of a tile: enough sums in flight for the latency of a dot product.
PIXELS = 4
DEPTHWISE_PIXELS = (7, 5, 4)
# The same where products widen their operands, whose code is unrolled for each pixel and tap.
FEW_PIXELS = 2
# A tile for engines: of pairs, 10 sums and what they take just fit V8's registers on x86.
WIDE_PIXELS, WIDE_VECTORS = 5, 2
ROUND = 4  # SP_QUADS of such headers
# Pixels and rows of such tiles of a depthwise layer, by vectors: two are interleaved at once, and
# pairs of input rows serve two rows.
PAIR_TILES = {2: ((4, 1), (2, 2)), 1: ((7, 1), (5, 1), (4, 1), (5, 2))}
# Pixels of a pointwise layer that are worth a task, for the last tile is computed in part again.
PAIR_SHARE = 32
HEADER, STRUCT = "compact_i8.h", "sp_compact_i8"
# Columns of a depthwise window, whose code is unrolled.
MOST_COLUMNS = 255
# A row of the band of a convolution stays near; more rows than this gain nothing.
BAND_BYTES = 1 << 14
# Fields of `sp_compact_i8` by their bits.
_FIELDS = {
    **dict.fromkeys(("xn", "xh", "xw", "ldy", "iw", "ow", "ci", "co"), 31),
    # a window of a signal is hundreds of samples
    **dict.fromkeys(("batch", "ih", "oh", "groups", "rb", "panels", "kw", "sw"), 16),
    **dict.fromkeys(("kh", "sh", "dh", "dw", "pt", "pl", "runs", "pad"), 8),
}


def params(
    s: Conv2dShape, pad: int, runs: int, rows: int, panels: int = 0
) -> dict[str, int] | Reject:
    """Fields of `sp_compact_i8`."""
    own = {"pad": pad, "runs": runs, "rb": rows, "panels": panels}
    found = {k: own[k] if k in own else getattr(s, k) for k in _FIELDS}
    for k, bits in _FIELDS.items():
        if found[k] >= 1 << bits:
            return Reject(f"{k} = {found[k]} leaves {bits} bits")
    return found


def panels(
    w: NDArray[np.int8], groups: int, lanes: int, merged: bool, per: int, vectors: int
) -> NDArray[np.int8]:
    """`pack_conv` in panels of so many ``vectors``, which lie side by side in every quad.

    What is left of a group are panels of one; the last has its own channels only.
    """
    full = pack_conv(w, groups, lanes, merged, per)
    each = w.shape[0] // groups
    parts = []
    for g in range(groups):
        whole = each // (lanes * vectors) * vectors
        panels = full[g, :whole].reshape(-1, vectors, *full.shape[2:])
        parts.append(np.moveaxis(panels, 1, 4).reshape(-1))
        parts += [
            full[g, v, ..., : min(lanes, each - v * lanes), :].reshape(-1)
            for v in range(whole, full.shape[1])
        ]
    return np.concatenate(parts)


def _behind(size: int, start: Pack, weights: Array) -> Array:
    """``size`` bytes of weights, and behind them where sums begin."""
    data = np.zeros(size + start.nbytes, np.int8)
    data[: weights.size] = weights.reshape(-1)
    data[size:] = np.asarray(start).reshape(-1).view(np.int8)
    return data


def packed_conv(found: Sum, lanes: int, per: int, kq: int, runs: int, vectors: int) -> Pack:
    """`panels` of a convolution whose kernel rows are ``runs`` runs, and where its sums begin."""
    s, w = found.shape, found.weights
    start, size = found.start(lanes), s.co * s.kh * runs * kq * per
    merged = runs < s.kw
    return Pack(
        (size + start.nbytes,),
        np.dtype(np.int8),
        lambda: _behind(size, start, panels(w, s.groups, lanes, merged, per, vectors)),
    )


@dataclass(frozen=True, slots=True)
class Blocks:
    """How a convolution goes over its rows, and what its tasks are.

    Attributes:
        shape: Of a pointwise one all pixels are one row, or as many as stay near.
        rows: Of a block.
        panels: Of a task where rows do not serve all threads, else 0.
        parts: Tasks that share the panels of a block.
    """

    shape: Conv2dShape
    rows: int
    panels: int
    parts: int

    @property
    def tasks(self) -> int:
        """All of them."""
        s = self.shape
        return s.batch * s.groups * self.parts * -(-s.oh // self.rows)

    def line(self, size: int) -> int:
        """Bytes of a row in scratch, of codes of ``size`` bytes."""
        s = self.shape
        width = (s.ow - 1) * s.sw + (s.kw - 1) * s.dw + 1
        return round_up(width * (s.ci // s.groups) * size + 3, 64)

    def scratch(self, size: int) -> int:
        """Bytes of the rows that a block reads."""
        s = self.shape
        return ((self.rows - 1) * s.sh + (s.kh - 1) * s.dh + 1) * self.line(size)

    def lead(self, case: Case, copied: bool) -> int | None:
        """As `lead_of`."""
        s = self.shape
        if case.threads > 1 or s.groups > 1:
            return None
        return lead_of(s, case.y[0].type.dtype.bytes, self.rows, s.ow, copied=copied)


def blocks_of(case: Case, s: Conv2dShape, size: int, panels: int) -> Blocks:
    """Blocks of rows whose codes take ``size`` bytes in scratch, and of so many ``panels``."""
    engine, each = case.target.isa.engine, s.ci // s.groups
    pointwise = s.kh == s.kw == s.sh == s.sw == 1 and s.xh == s.iw * s.xw and s.oh == s.ih
    if pointwise and reads_inside(s):
        # all pixels are one row, or as many as stay near
        image = s.oh * s.ow
        most = max(s.ow, 64, 8 * BAND_BYTES // (size * each + s.ldy))
        share = -(-image // case.threads)
        near = row_of(image, min(most, share) if share >= PAIR_SHARE else most, case.threads)
        ow = near if engine else image
        s = replace(s, ih=image // ow, oh=image // ow, iw=ow, ow=ow, xh=ow * s.xw)
    rows = max(1, min(s.oh, BAND_BYTES // ((s.iw * each + 64) * s.sh)))
    if case.threads > 1:
        rows = min(rows, -(-s.oh // case.threads))
    # where rows do not serve all threads, panels are shared out too
    blocks, parts, each_part = -(-s.oh // rows), 1, 0
    if engine and blocks < case.threads and panels > 1:
        each_part = -(-panels // (case.threads // blocks))
        parts = -(-panels // each_part)
    return Blocks(s, rows, each_part, parts)


def _conv2d(case: Case, halves: bool = False) -> Lowered | Reject:
    """``halves``: of codes of 16 bits, as `conv_i16` has them: quads of bytes are pairs."""
    small = not case.target.isa.engine
    unsigned = False if halves else None
    found = conv2d_sum(case, unsigned=unsigned, small=small, halves=halves)
    if isinstance(found, Reject):
        return found
    s, code = in_bytes(found.shape) if halves else found.shape, found.code
    if code.part:
        return Reject("output channels lie in parts")
    isa, each = case.target.isa, s.ci // s.groups
    lanes, engine = isa.lanes, isa.engine
    pair = isa.pairs and not halves and not (isa.quads and found.weights.min(initial=0) > -128)
    size, per = (2, 2) if pair else (1, 4)  # bytes of a code in scratch, codes of a quad
    # an engine turns bytes once, when it copies them
    band = pair or (engine and code.flip) or not reads_inside(s)
    vectors = WIDE_VECTORS if engine else 1
    all_panels = s.co // s.groups // (vectors * lanes)
    blocks = blocks_of(case, s, size, all_panels)
    s, rows = blocks.shape, blocks.rows
    merged = merges(s, band)
    p = params(s, code.pad, 1 if merged else s.kw, rows, blocks.panels)
    if isinstance(p, Reject):
        return p
    runs = p["runs"]
    kq = -(-(s.kw // runs * each) // per)
    scratch_bytes = blocks.scratch(size) if band else 0
    # weights that serve several tiles are widened before
    wide = pair and all_panels > 0 and rows * s.ow > 2 * WIDE_PIXELS
    if wide:
        # a panel of weights as halves
        scratch_bytes += 2 * vectors * lanes * s.kh * runs * kq * per
    whole = engine and s.co // s.groups % lanes == 0
    pixels = min(s.ow, WIDE_PIXELS if engine else PIXELS)
    one_run = 0 if not engine or s.kh * runs > 1 else 1 if kq % ROUND else 2
    kind = HALVES if halves else WIDENED if wide else int(pair)
    shape = (pixels, vectors, kind, int(whole), int(band), one_run)
    literals = (*shape, int(code.flip), code.put)
    cycles = 2.0 * s.batch * s.oh * s.ow * round_up(s.co, lanes) * kq * runs * s.kh / lanes
    packed = packed_conv(found, lanes, 2 if halves else per, kq, runs, vectors)
    return lowered(
        *(case, found, HEADER, "sp_conv2d_compact_i8", p, literals),
        *(packed, blocks.tasks, scratch_bytes, cycles, blocks.lead(case, band)),
    )


class _Tile(NamedTuple):
    """Literals of a depthwise tile."""

    pixels: int
    rows: int
    vectors: int


def _in_blocks(s: Conv2dShape, rows: int, least: int) -> bool:
    """Whether every block of so many output rows has ``least``."""
    return rows >= least and (s.oh % rows == 0 or s.oh % rows >= least)


def _taps(s: Conv2dShape) -> int:
    """Pairs of taps of a channel for an output row, as `sp_depthwise_taps_i8` has it."""
    return s.kh // 2 * s.kw + s.kh % 2 * -(-s.kw // 2)


def _held(s: Conv2dShape, t: _Tile) -> bool:
    """Whether taps stay in registers for a tile's pixels, as `sp_depthwise_turns_i8` has it."""
    taps = t.rows * t.vectors
    if taps == 1:
        return True
    sums = taps * t.pixels
    more = t.pixels * t.vectors + 3 if s.sw == 1 else -(-s.kw // s.sw) * taps + t.vectors + 1
    return s.dw == 1 and sums + more <= 15


def _instructions(s: Conv2dShape, t: _Tile) -> int:
    """Instructions of all tiles of a vector of channels, for engines."""
    columns = (t.pixels - 1) * s.sw + (s.kw - 1) * s.dw + 1
    series, cells = t.rows * t.vectors, t.rows * t.pixels * t.vectors
    # addresses, loads, interleaving and widening; a dot product, its sum, and weights
    read = s.kh // 2 * columns + s.kh % 2 * t.rows * (t.pixels + s.kw // 2)
    sums = 2 * cells + (series if _held(s, t) else cells)
    tile = 30 + (6, 8)[t.vectors - 1] * read + _taps(s) * sums + (12, 10)[t.vectors - 1] * cells
    return -(-s.oh // t.rows) * -(-s.ow // t.pixels) * tile // t.vectors


def _depthwise_tile(s: Conv2dShape, rows: int, isa: Isa) -> _Tile:
    """The tile of a layer, of which a block has at most so many rows."""
    if not isa.engine:
        if isa.widens:
            return _Tile(min(s.ow, FEW_PIXELS), 1, 1)
        even = (n for n in DEPTHWISE_PIXELS if s.ow % n == 0)
        return _Tile(next(even, min(s.ow, DEPTHWISE_PIXELS[-1])), 1, 1)
    successive = s.sh == s.dh == 1 and s.kh % 2
    blocks = any(_in_blocks(s, n, 2) for n in range(2, rows + 1))
    vectors = WIDE_VECTORS if s.co % (WIDE_VECTORS * isa.lanes) == 0 else 1
    tiles = [
        _Tile(min(pixels, s.ow), high, vectors)
        for pixels, high in PAIR_TILES[vectors]
        if high == 1 or (successive and blocks)
    ]
    return min(tiles, key=lambda t: _instructions(s, t))


def _depthwise(case: Case) -> Lowered | Reject:
    found = depthwise_sum(case)
    if isinstance(found, Reject):
        return found
    s, w, code, isa = found.shape, found.weights, found.code, case.target.isa
    if isa.engine:
        # rows of a column begin whole lines of scratch, which elsewhere may be short
        s, w = one_column(s, w)
    if s.kw > MOST_COLUMNS:
        return Reject(f"columns are unrolled, and {s.kw} are too many")
    lanes = isa.lanes
    line = round_up(((s.ow - 1) * s.sw + (s.kw - 1) * s.dw + 1) * s.ci + 3, 64)
    rows = max(1, min(-(-s.oh // case.threads), 4 * BAND_BYTES // (line * s.sh)))
    t = _depthwise_tile(s, rows, isa)
    if t.rows > 1:
        rows = next(n for n in range(rows, 0, -1) if _in_blocks(s, n, t.rows))
    p = params(replace(s, groups=1), code.pad, 1, rows)
    if isinstance(p, Reject):
        return p
    start, size = found.start(lanes), round_up(w.size, 4)
    packed = Pack(
        (size + start.nbytes,),
        np.dtype(np.int8),
        lambda: _behind(size, start, w.transpose(2, 3, 1, 0)),
    )
    quads = _taps(s) if isa.engine else -(-(t.rows - 1 + s.kh) // isa.per) * s.kw
    scratch_bytes = ((rows - 1) * s.sh + (s.kh - 1) * s.dh + 1) * line
    scratch_bytes += t.rows * quads * 4 * round_up(s.co, lanes)
    whole = isa.engine and s.co % lanes == 0
    window = (s.kh, s.kw, s.sw, s.dw)
    literals = (*t, int(isa.engine), int(whole), *window, int(code.flip), code.put)
    cycles = 8.0 * math.prod((s.batch, s.oh, s.ow, round_up(s.co, lanes), quads)) / lanes
    tasks = s.batch * -(-s.oh // rows)
    each, walks = case.y[0].type.dtype.bytes, case.threads == 1
    lead = lead_of(s, each, rows, s.ow, copied=True) if walks else None
    return lowered(
        *(case, found, HEADER, "sp_depthwise_compact_i8", p, literals),
        *(packed, tasks, scratch_bytes, cycles, lead),
    )


def lowered(
    case: Case,
    found: Sum,
    header: str,
    function: str,
    params: dict[str, int],
    literals: tuple[int, ...],
    packed: Pack,
    tasks: int,
    scratch_bytes: int,
    cycles: float,
    lead: int | None = None,
    shared: bool = True,
) -> Lowered:
    """A call that shares its code, or has its own: ``scratch_bytes`` for each of ``tasks``."""
    serial = case.threads == 1
    arguments: tuple[Argument, ...] = (
        *map(Literal, literals),
        *(In(0), Packed(0), Out(0)),
        # without scratch, a null pointer
        Scratch("uint8_t", 0 if serial else scratch_bytes) if scratch_bytes else Literal(0),
        found.epilogue,
    )
    repeat = tasks if serial else 1
    call = Invoke(header, function, STRUCT, params, arguments, repeat, shared=shared)
    tasks = 1 if serial else tasks
    return Lowered((call,), tasks, (packed,), scratch_bytes * tasks, cycles, lead=lead)


ROWS = (
    Kernel("depthwise_compact_i8", Conv, _depthwise),
    Kernel("conv2d_compact_i8", Conv, _conv2d),
    Kernel("gemm_compact_i8", MatMul, _conv2d),
)
_HALVES = tuple(i.name for i in ISAS if i.half_ops)
ROWS_I16 = (
    Kernel("conv2d_compact_i16", Conv, partial(_conv2d, halves=True), _HALVES),
    Kernel("gemm_compact_i16", MatMul, partial(_conv2d, halves=True), _HALVES),
)
ENGINES = tuple(replace(row, isas=ENGINE_ISAS) for row in ROWS)
ENGINES_I16 = tuple(
    replace(row, isas=tuple(name for name in _HALVES if name in ENGINE_ISAS)) for row in ROWS_I16
)
