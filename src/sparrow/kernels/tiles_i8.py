"""Register tiles of the 8-bit products, and the cycles that they are predicted to take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparrow.kernels.case import Tile
from sparrow.kernels.params_f32 import Conv2dShape
from sparrow.targets import Isa

# Instructions of an epilogue (scale, round, clamp, narrow, store) in units of a dot product's slot.
EPILOGUE = 3.0
# Loads that broadcasting a quad to all lanes counts for: a vector of channels by itself takes 1.36
# cycles for a dot product of 512 bits on Zen 4, two vectors 1.04.
BROADCAST = 1.3
# Cycles of a step of sums by twos, of each kind of `twos.Steps`, for a pixel, and beyond; of one at
# least, whose weights, masks and places come for one pixel; pixels of a tile at most (Zen 3).
STEPS, STEP, LEAST = (1.8, 2.2, 2.5, 1.5), 1.3, 5.0
MOST_PIXELS = 10
# Quads up to which tiles are small enough for two in registers, the epilogue of one between sums of
# the other. Of longer sums the epilogue is little, and weights would pass twice as often.
INTERLEAVED = 64


def _operands(mr: int, nv: int, isa: Isa) -> int:
    """Registers that the operands of a tile take."""
    if isa.octets:
        # an octet of two pixels each, and the next one, which the compiler loads before it has to
        return mr + mr % 2 + 1
    if isa.halves and isa.registers == 16:
        # half of them are counted in Armv7: bytes of pixels, pairs of one and of the weights
        return (mr + 2 * nv + 2) // 2 + 2
    if isa.halves:
        # of a pixel its bytes and two pairs
        return 3 * mr + 4
    if isa.singles:
        # of weights the bytes, and what they are widened to; activations are no vectors
        return 2 * nv
    if isa.group > 1:
        # the activations stay, and weights come one by one
        return mr + 2
    # the dot product of 16-bit halves needs both halves of its operands in registers
    halves = 1 if isa.dot_ops == 1 or isa.held_whole else 2
    return halves * (nv + 1)


def tiles(pixels: int, vectors: int, isa: Isa) -> Iterator[Tile]:
    """Every tile that fits the registers."""
    if isa.runs:
        # the sums of one vector of channels are half of the general registers
        yield Tile(1, 1)
        return
    # with one lane these are the registers that hold pointers and counters too
    held = 3 if isa.lanes == 1 else 0
    for nv in range(1, min(vectors, 8) + 1):
        for mr in range(1, min(pixels, 32) + 1):
            rows = mr + mr % 2 if isa.octets else mr
            if mr + held > 1 and rows * nv + _operands(mr, nv, isa) + held >= isa.registers:
                break
            yield Tile(mr, nv)


def _step(mr: int, nv: int, isa: Isa) -> float:
    """Cycles of one quad where pixels are broadcast."""
    return max(mr * nv * isa.dot_ops / 2, (BROADCAST * mr + nv) / 2 + 0.25, 4.5)


def cost_of_two(mr: int, pixels: int, s: Conv2dShape, quads: int, isa: Isa) -> float:
    """Half the cycles of two output rows that share broadcasts, with ``quads`` of a kernel row."""

    def tile(n: int) -> float:
        steps = s.sh * _step(n, 1, isa) + (s.kh - s.sh) / 2 * _step(n, 2, isa)
        return quads * steps + EPILOGUE * n + 12 if n else 0.0

    return pixels // mr * tile(mr) + tile(pixels % mr)


def cost_of_twos(mr: int, pixels: int, vectors: int, steps: Sequence[int]) -> float:
    """Cycles of an output row of sums by twos, so many ``steps`` of each kind for all vectors."""

    def tile(n: int) -> float:
        sums = sum(k * max(n * c + STEP, LEAST) for k, c in zip(steps, STEPS, strict=True))
        return sums + vectors * (EPILOGUE * n + 12) if n else 0.0

    return pixels // mr * tile(mr) + tile(pixels % mr)


def between(t: Tile, s: Conv2dShape, quads: int, run: int, wide: bool, isa: Isa) -> int:
    """Quads of a tile's first run that each have a part of the former tile's epilogue behind them.

    0 where epilogues follow their own sums. ``quads`` of a sum, ``run`` of its first run. ``wide``:
    results are of 32 bits, functions of floats, whose constants take registers as well.
    """
    sums = t.mr * t.nv
    held = 2 * sums + t.nv + (5 if wide else 1)
    if not isa.interleaves or quads > INTERLEAVED or held >= isa.registers:
        return 0
    along, rest = divmod(s.ow, t.mr)
    if along * (1 if rest else s.oh) < 3:
        return 0
    return min(run, sums if wide else -(-sums // 2))


def interleaved_cost(t: Tile, pixels: int, vectors: int, quads: int, isa: Isa) -> float:
    """Cycles of one output row as of `tile_cost` where `between` is not 0."""

    def tile(nv: int) -> float:
        step = max(_step(t.mr, nv, isa), t.mr * nv / 2 + 0.5)
        alone = 1.5 * t.mr * nv if pixels % t.mr else 0
        return pixels // t.mr * (quads * step + t.mr * nv / 2 + 4) + alone

    full, rest = divmod(vectors, t.nv)
    tail = tile_cost(Tile(t.mr, t.nv), pixels % t.mr, vectors, quads, isa)
    return full * tile(t.nv) + (tile(rest) if rest else 0) + tail


def tile_cost(t: Tile, pixels: int, vectors: int, quads: int, isa: Isa) -> float:
    """Cycles of one output row of `pixels` pixels with `quads` quads of k."""

    def tile(mr: int, nv: int) -> float:
        if mr == 0 or nv == 0:
            return 0.0
        step = _step(mr, nv, isa)
        if isa.lanes == 1:
            # in order, one at a time: a load and what widens it, and the loop's own three
            widen = 3 if isa.dot_ops == 2 else 5
            step = (mr * nv * isa.dot_ops + (mr + nv) * widen + 3) / 2
        elif isa.runs:
            # four quads of four channels: five loads, four sums, the loop's own
            step = 10 * mr * nv / 4
        elif isa.group > 1:
            # what counts is the number of instructions, two at a time: weights come two by two
            products, shuffles = float(mr * nv * isa.dot_ops), 0.0
            if isa.halves:
                products, shuffles = 3.0 * mr * nv, 2.0 * (mr + (nv if isa.registers == 16 else 0))
            if isa.octets:
                products, shuffles = (mr + mr % 2) * nv // 2, mr / isa.group
            step = max((products + shuffles + mr / isa.group + nv / 2 + 1) / 2, 4)
            # sums begin, are scaled and rounded, those of octets moved twice; bytes are stored by
            # four vectors at best
            whole, rest = divmod(nv, 4)
            each = (6 if isa.octets else 4) * nv + 7 * whole + (0, 4, 4, 8)[rest]
            return quads * step + mr * each / 2 + nv / 2 + 8
        elif isa.singles:
            # each counts: a product, a byte of a pixel, and weights with their address
            step = (mr * nv + mr + 3 * nv + 3) / 2
        return quads * step + EPILOGUE * mr * nv + 12

    full_m, tail_m = divmod(pixels, t.mr)
    full_n, tail_n = divmod(vectors, t.nv)
    cycles = full_n * (full_m * tile(t.mr, t.nv) + tile(tail_m, t.nv)) + (
        full_m * tile(t.mr, tail_n) + tile(tail_m, tail_n)
    )
    # a rest is its code once more, which costs a core of one lane more than a few cycles
    rests = (tail_m > 0) + (tail_n > 0)
    return cycles * (1 + 0.1 * rests) if isa.lanes == 1 else cycles


def tile_of_any(isa: Isa, vectors: int = 8) -> tuple[int, int]:
    """(mr, nv) where sizes are not known: what is best for many rows, columns and quads.

    ``vectors``: of columns that a tile takes at most.
    """

    def each(t: Tile) -> float:
        return tile_cost(t, t.mr, t.nv, 64, isa) / (t.mr * t.nv)

    t = min(tiles(32, vectors, isa), key=each)
    return t.mr, t.nv
