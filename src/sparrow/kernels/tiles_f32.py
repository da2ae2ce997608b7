"""Register tiles of the float32 products, and the cycles that they are predicted to take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sparrow.kernels.case import Tile
from sparrow.kernels.params_f32 import Simd

# Vectors of weights that one row reads side by side, each a stream that a processor follows by
# itself, and lines that it is asked for ahead: what was fastest on a Zen 5 (128 to 4096 rows and
# columns), but for weights of these many times L2, where two streams with 16 lines were.
_STREAMS, _AHEAD = 4, 0
_PASSING = (1.5, 6.0)
_PASSING_STREAMS, _PASSING_AHEAD = 2, 16

# Cycles that each row beyond eight adds where rows meet one vector of eight lanes, of which a load
# for every sum is the most: 9, 10, 11, 12 and 13 of them took 5.5, 6.5, 7.2, 9.0 and 9.5 cycles on
# a Zen 3, eight 4.6.
_CROWDED = 0.5


@dataclass(frozen=True, slots=True)
class RegisterTile:
    """`mr` rows x `nv` vectors, in `ku` sets of partial sums; rows may share the last vector."""

    mr: int
    nv: int
    ku: int
    shared: bool = False

    def sums(self, vectors: int, last: bool) -> int:
        """Of one set, in a panel of so many vectors that is the last one or not."""
        return self.mr * vectors - self.mr // 2 * (self.shared and last)


@dataclass(frozen=True, slots=True)
class Sums:
    """`rows` x `vectors` sums of `k` products, of rows that lie `row_bytes` apart.

    Attributes:
        pair: Of pairs of bfloat16.
        shared: Two rows may share the last vector, of which the columns fill half at most.
    """

    rows: int
    vectors: int
    k: int
    row_bytes: int
    pair: bool = False
    shared: bool = False


def choose_tile(
    s: Sums,
    cpu: Simd,
    *,
    tile: Tile | None = None,
    parts: int = 1,
    part: int | None = None,
    seam: float = 0.0,
) -> RegisterTile:
    """A register tile; that of the least predicted time unless it is given.

    Args:
        s: What is computed.
        cpu: Of one core.
        tile: Of `ranked_tiles`.
        parts: One row of as many or more vectors leaves as many tiles, of few vectors where L1 does
            not hold the weights.
        part: Rows of a task, all by default.
        seam: Cycles more for each row that the tiles of a task compute beyond its own.
    """
    tiles = list(_tiles(s, cpu))
    if tile is not None:
        return next(t for t in tiles if Tile(t.mr, t.nv) == tile)
    if s.rows == 1:
        weights = 4 * s.k * s.vectors * cpu.lanes // parts
        most = _PASSING_STREAMS if _passing(weights, cpu) else _STREAMS
        side = min(s.vectors // parts, most if weights > cpu.l1_bytes else s.vectors)
        tiles = [t for t in tiles if t.nv <= max(1, side)]
    own = s if part is None else replace(s, rows=part)

    def cycles(t: RegisterTile) -> float:
        beyond = -own.rows % t.mr if own.rows < s.rows else 0
        return tile_cycles(t, own, cpu) + seam * beyond

    return min(tiles, key=cycles)


def ranked_tiles(s: Sums, cpu: Simd) -> tuple[Tile, ...]:
    """All register tiles, by predicted time."""
    tiles = sorted(_tiles(s, cpu), key=lambda t: tile_cycles(t, s, cpu))
    return tuple(Tile(t.mr, t.nv) for t in tiles)


def _tiles(s: Sums, cpu: Simd) -> Iterator[RegisterTile]:
    for nv in range(1, min(s.vectors, 8) + 1):
        for mr in range(1, min(s.rows, cpu.registers) + 1):
            t = RegisterTile(mr, nv, 1, s.shared and mr > 1)
            # rows that share a vector are taken by twos, and put together
            operands = nv + (3 if t.shared else mr if cpu.both_held else 1)
            sums = t.sums(nv, s.vectors <= nv)
            if sums + operands >= cpu.registers:  # one to spare: an exact fill spills in places
                break
            ku = 1  # partial sums are for tiles that cannot be larger
            while (
                mr == s.rows
                and ku < 8
                and ku * mr * nv < 10
                and 2 * ku * mr * nv + operands < cpu.registers
            ):
                ku *= 2
            yield replace(t, ku=ku)


def tile_cycles(t: RegisterTile, s: Sums, cpu: Simd) -> float:
    """Cycles of a core with two FMAs of latency 4 and two loads per cycle (chains get near 4.7)."""
    sets = 4096 // int(np.gcd(s.row_bytes, 4096))
    dot = cpu.dot2_ops if s.pair else 1
    # no second row of tiles finds a panel in L1, however narrow it is
    once = s.rows <= t.mr and 4 * s.k * s.vectors * cpu.lanes > cpu.l1_bytes

    def tile(mr: int, nv: int, last: bool) -> float:
        if mr == 0 or nv == 0:
            return 0.0
        # rows and vectors that share too few cache sets come from L2 more than once a line
        evicted = 0.5 * max(0, mr + nv - cpu.ways * sets)
        beyond_l1 = once or 4 * s.k * (nv * cpu.lanes + mr) > cpu.l1_bytes
        lines = 4 * (nv * cpu.lanes + mr) / cpu.l2_rate if beyond_l1 else 0.0
        sums = replace(t, mr=mr).sums(nv, last)
        loads = (mr + nv) / 2 + 0.25
        if nv == 1 and cpu.lanes == 8:
            loads += max(0, mr - 8) * _CROWDED
        step = max(sums * dot / 2, loads, lines, (6 if s.pair else 4.7) / t.ku)
        return s.k * (step + evicted) + 1.5 * mr * nv + 20

    full_m, tail_m = divmod(s.rows, t.mr)
    full_n, tail_n = divmod(s.vectors, t.nv)
    if tail_n == 0:  # what may be shared is in the last one
        full_n, tail_n = full_n - 1, t.nv
    return full_n * (full_m * tile(t.mr, t.nv, False) + tile(tail_m, t.nv, False)) + (
        full_m * tile(t.mr, tail_n, True) + tile(tail_m, tail_n, True)
    )


def weight_cycles(size: int, cpu: Simd) -> float:
    """Cycles that as many bytes of weights take to come.

    The other layers of a network have driven them out of L2; where a layer's fit there, a network
    of such layers stays in the level behind it.
    """
    return size / (cpu.core.cache_rate if size <= cpu.l2_bytes else cpu.memory_rate)


def block_of(rows: int, unit: int, read: int, written: int, weights: int, cpu: Simd) -> int:
    """How many of `rows`, a multiple of `unit`, are finished for all columns before the next ones.

    `read` and `written` are bytes of a row, `weights` of all weights. Results that L2 does not hold
    leave it in order, and faster, when as few rows as L1 holds are finished at a time; that takes
    weights that L2 holds beside them. Else as many rows as stay in L2 use a panel of weights.
    """
    if rows * (read + written) > cpu.l2_bytes and weights <= cpu.l2_bytes // 4:
        most = cpu.l1_bytes // (read + written)
    else:
        most = cpu.l2_bytes // 2 // read
    return min(rows, max(unit, most // unit * unit))


def prefetch_of(
    t: RegisterTile, tiles: int, rest: int, k: int, n: int, cpu: Simd, parts: int = 1
) -> tuple[int, int]:
    """What is prefetched of k x n weights, and every how many k, while `tiles` tiles read a panel.

    `rest` is bytes of the rows that they read and write; each of `parts` cores reads its share.

    Of weights of one row that pass through L2, some lines: elsewhere a processor asks for what
    comes next by itself, and lines that are there already would take turns with those that are
    read. Else the next panel, if it fits beside the present one in L2 and the weights as a whole do
    not stay in L1. It comes as evenly as two tiles for each of its vectors allow.
    """
    if t.mr == 1:
        return (_PASSING_AHEAD if _passing(4 * k * n // parts, cpu) else _AHEAD), 1
    panel = 4 * k * t.nv * cpu.lanes
    if 2 * panel + rest > cpu.l2_bytes or 4 * k * n <= cpu.l1_bytes:
        return 0, 1
    return -1, 2 if tiles >= 2 * t.nv else 1


def _passing(weights: int, cpu: Simd) -> bool:
    """Whether so many bytes, read in order again and again, come from behind L2 and leave it."""
    least, most = _PASSING
    return least * cpu.l2_bytes < weights <= most * cpu.l2_bytes
