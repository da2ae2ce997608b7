"""Tasks: among how many threads the tiles of a layer are split, and which of them share one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from sparrow.targets import Target

# Operations that may be split.
LEAST_FLOPS = 50_000
# A line that another core has read or written takes so many times as long to overwrite as to read.
SEAM = 5
# Columns that a panel narrower than the others takes the time of, beyond its own: fewer operations
# for each row that is read.
_TURN = 0.5


@dataclass(frozen=True, slots=True)
class Core:
    """What weighs the work of a task against the bytes that it reads.

    Attributes:
        flops_per_cycle: Operations of a core per cycle in a small task, half of its peak.
        cache_rate: Bytes that a core reads per cycle from behind its second level.
        move_cycles: What a byte takes longer that another core has written last.
    """

    flops_per_cycle: float
    cache_rate: float
    move_cycles: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What the tasks of a layer share: `copies` images or groups, each of `rows` x `columns`.

    Attributes:
        flops: Operations of a copy.
        rows: Rows of pixels, `width` each, which follow on each other.
        columns: Vectors of output channels, or register tiles of them.
        width: Pixels of a row; 1 where a row is never split.
        mr: Pixels of a tile.
        panel: Columns that are computed at once; a task may end in fewer, which take some time
            more.
        input_bytes: Of a copy, of which other cores have written their share.
        output_bytes: Of a copy.
        weight_bytes: Of all columns.
        halo_bytes: Of the inputs, what two neighbouring rows of tasks both read.
    """

    flops: int
    rows: int
    columns: int
    copies: int = 1
    width: int = 1
    mr: int = 1
    panel: int = 1
    input_bytes: int = 0
    output_bytes: int = 0
    weight_bytes: int = 0
    halo_bytes: int = 0


def core_of(target: Target) -> Core:
    """A core of a target as the choice of tasks sees it."""
    return Core(target.isa.flops_per_cycle / 2, target.cache_rate, target.move_cycles)


def part_of(flops: int, rows: int, width: int, threads: int) -> int:
    """Pixels of the first task where `rows` of `width` pixels are shared: whole rows.

    Layers that share rows alike leave each core what it has written itself.
    """
    return -(-rows // min(rows, split_of(flops, threads))) * width


def seam_cycles(core: Core, pixels: int, pixel_bytes: int) -> float:
    """What so many pixels take that a task computes, and its neighbour in the layers around."""
    return SEAM * core.move_cycles * abs(pixels) * pixel_bytes


def task_grid(grid: Grid, threads: int, core: Core | None = None) -> tuple[int, int]:
    """Tiles of rows, and columns, per task, for about `threads` equal tasks over all copies.

    Work below `LEAST_FLOPS` is not split. Every column of tasks reads all of the inputs, of which
    other cores have written their share, and the next layer finds as little of its rows where it
    reads them; every row of tasks reads all of the weights, which nobody writes, and the halo. So
    rows are split as long as that balances nearly as well, best between two rows of the image, and
    successive layers leave each core what it has written itself. Without a `core` only the balance
    counts.
    """
    rows, columns, panel, mr = grid.rows, grid.columns, grid.panel, grid.mr
    wish = -(-split_of(grid.flops * grid.copies, threads) // grid.copies)
    tiles, panels = -(-rows * grid.width // mr), -(-columns // panel)
    cell = grid.flops / (tiles * panels * panel) / (core.flops_per_cycle if core else 1.0)
    moved = grid.input_bytes + grid.output_bytes

    def cycles(task: tuple[int, int]) -> float:
        tail = task[1] % panel
        return task[0] * (task[1] - tail + min(panel, tail + _TURN if tail else 0)) * cell

    best, best_cost = (tiles, panels * panel), cycles((tiles, panels * panel))
    for tn in range(1, min(columns, wish) + 1):
        tm = min(tiles, -(-wish // tn))
        part = -(-rows // min(rows, tm)) * grid.width
        downs = dict.fromkeys((-(-tiles // tm), -(-part // mr)))
        for task in product(downs, (-(-panels // tn) * panel, -(-columns // tn))):
            across, down = -(-columns // task[1]), -(-tiles // task[0])
            cost = -(-across * down // wish) * cycles(task)
            if core is not None:
                again = grid.weight_bytes * (1 - 1 / down) / core.cache_rate
                cost += core.move_cycles * moved * (1 - 1 / across) + again
                if down > 1:
                    pixel_bytes = moved // (rows * grid.width)
                    cost += seam_cycles(core, task[0] * mr - part, pixel_bytes)
                    cost += seam_cycles(core, 1, grid.halo_bytes)
            if cost < best_cost:
                best, best_cost = task, cost
    return best


def split_of(flops: int, threads: int) -> int:
    """Among how many threads so many operations may be split."""
    return max(1, min(threads, flops // (LEAST_FLOPS // 2))) if flops >= LEAST_FLOPS else 1
