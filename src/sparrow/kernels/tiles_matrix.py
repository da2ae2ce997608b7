"""Tiles of products in matrix registers, and the cycles that they are predicted to take."""

from __future__ import annotations

from collections.abc import Iterator

from sparrow.kernels.case import Tile

UNSIGNED, SIGNED, PAIRS = 0, 1, 2  # SP_MATRIX_U8 and so on
AGAIN = 1.5  # what loading a matrix register from L2 takes more than from L1
SHAPED = 1000.0  # cycles to shape the registers, wake them and let go of them, whatever they do
EPILOGUE = 4.0  # cycles to scale, round and store a vector of sums, which come from memory


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


def matrix_cost(
    t: Tile, pixels: int, vectors: int, steps: int, quads: int, far: bool, taps: int, l1_bytes: int
) -> float:
    """Cycles of one output row with `steps` steps of `quads` in all `taps` of a kernel.

    ``far``: rows cross cache lines.
    """
    # what L1 does not keep comes from L2 again: pixels for every panel, once for all taps
    row = pixels * steps * quads * 4 // taps
    x_load = 8 * (1 + far + (AGAIN / taps if row > l1_bytes // 2 else 0))

    def tile(mr: int, nv: int) -> float:
        if mr == 0 or nv == 0:
            return 0.0
        blocks = -(-mr // 16)
        dots = blocks * nv * max(-(-mr // blocks), quads, 8)
        # and weights for every tile
        w_load = 8 * (1 + (AGAIN if steps * quads * 64 * nv > l1_bytes // 2 else 0))
        loads = w_load * nv + x_load * blocks
        # sums begin, are stored and loaded again, behind the last product
        return steps * max(dots, loads) + 24 * blocks * nv + EPILOGUE * mr * nv + 60

    full_m, tail_m = divmod(pixels, t.mr)
    full_n, tail_n = divmod(vectors, t.nv)
    return full_n * (full_m * tile(t.mr, t.nv) + tile(tail_m, t.nv)) + (
        full_m * tile(t.mr, tail_n) + tile(tail_m, tail_n)
    )
