"""Tiles of products in matrix registers, and the cycles that they are predicted to take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sparrow.kernels.case import Tile

UNSIGNED, SIGNED, PAIRS = 0, 1, 2  # SP_MATRIX_U8 and so on
AGAIN = 1.5  # what loading a matrix register from L2 takes more than from L1
BEHIND = 12.0  # cycles of it that products do not hide
SHAPED = 1000.0  # cycles to shape the registers, wake them and let go of them, whatever they do
SUMS = 3.3  # cycles for a vector of sums to begin and to be stored
EPILOGUE = 2.0  # cycles to scale, round and store a vector of sums, which come from memory
SERIAL = 0.2  # part of the shorter of two that are done at once which the longer does not hide
# Of the clock at which vectors are multiplied: it falls when matrix registers are used at all, for
# up to 0.1 ms of what follows as well.
CLOCK = 0.9
# Cycles of a layer from which epilogues are computed between products. The clock falls further the
# denser these are, which smaller layers do not make up for: a ResNet-8 took 8 % fewer cycles at
# 17 % less, attention in a ViT-tiny 1.15 of the time.
DENSE = 150_000.0


def step_of(quads: int, kind: int) -> int:
    """Quads of a step of a run, 16 at most, which matrix registers hold.

    The last step may read bytes behind the run, which meet zeros; what is no number must not be
    met, so of bfloat16 steps are whole.
    """
    if kind == PAIRS:
        return max(d for d in range(1, 17) if quads % d == 0)
    steps = -(-quads // 16)
    return -(-quads // steps)


def matrix_tiles(pixels: int, vectors: int) -> Iterator[Tile]:
    """Every tile that four matrix registers hold the sums of."""
    for mr in range(1, min(pixels, 64) + 1):
        blocks = -(-mr // 16)
        for nv in range(1, min(vectors, 4 // blocks if blocks < 3 else 1) + 1):
            yield Tile(mr, nv)


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """Rows of pixels that tiles in matrix registers go over.

    Attributes:
        pixels, vectors: Of an output row.
        steps, quads: Steps in all taps of the kernel, and quads of one.
        taps: Of the kernel.
        far: Whether a pixel's bytes cross cache lines.
        l1_bytes, l2_bytes: Of the caches.
    """

    pixels: int
    vectors: int
    steps: int
    quads: int
    taps: int
    far: bool
    l1_bytes: int
    l2_bytes: int

    @property
    def weights(self) -> int:
        """Bytes of a vector of weights."""
        return self.steps * self.quads * 64


def panels_across(t: Tile, w: Walk) -> int:
    """Panels of weights that the pixels of a tile are multiplied with before the next pixels.

    L2 holds as many while all pixels pass. One panel at a time for all pixels, where L1 holds it,
    or all that there are, or where loading less of it than of pixels takes less.
    """
    panels = w.vectors // t.nv
    group = min(panels, w.l2_bytes // 2 // (w.weights * t.nv))
    if group < 2 or w.weights * w.vectors <= w.l1_bytes // 2:
        return 1
    return group if matrix_cost(t, w, True) <= matrix_cost(t, w, False) else 1


def matrix_cost(t: Tile, w: Walk, across: bool, *, alone: bool = False) -> float:
    """Cycles of one output row.

    ``across``: a tile's pixels pass all weights before the next. ``alone``: a tile's epilogue is
    not computed while the next is multiplied.
    """
    # what L1 does not keep comes from L2 again: pixels for every panel, once for all taps
    kept = t.mr * w.weights // 16 // w.taps if across else w.pixels * w.weights // 16 // w.taps
    x_again = (kept > (3 * w.l1_bytes // 4 if across else w.l1_bytes // 2)) / w.taps
    x_load = 8 * (1 + w.far + AGAIN * x_again)

    def tile(mr: int, nv: int) -> float:
        if mr == 0 or nv == 0:
            return 0.0
        blocks = -(-mr // 16)
        dots = blocks * nv * max(-(-mr // blocks), w.quads, 8)
        # and weights for every tile
        w_again = across or w.weights * nv > w.l1_bytes // 2
        loads = 8 * (1 + AGAIN * w_again) * nv + x_load * blocks
        step = _at_once(dots, loads) + BEHIND * (w_again * nv + x_again * blocks)
        products, rest = w.steps * step + SUMS * mr * nv, EPILOGUE * mr * nv
        return (products + rest if alone else _at_once(products, rest)) + 40

    full_m, tail_m = divmod(w.pixels, t.mr)
    full_n, tail_n = divmod(w.vectors, t.nv)
    panel = full_m * tile(t.mr, t.nv) + tile(tail_m, t.nv)
    last = full_m * tile(t.mr, tail_n) + tile(tail_m, tail_n)
    return (full_n * panel + last) / CLOCK


def _at_once(a: float, b: float) -> float:
    return max(a, b) + SERIAL * min(a, b)
