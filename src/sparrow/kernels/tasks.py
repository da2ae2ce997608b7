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


def task_grid(
    flops: int,
    rows: int,
    columns: int,
    copies: int,
    threads: int,
    core: Core | None = None,
    a: int = 0,
    b: int = 0,
    panel: int = 1,
    *,
    y: int = 0,
    halo: int = 0,
    width: int = 1,
    mr: int = 1,
) -> tuple[int, int]:
    """Tiles of rows, and columns, per task, for about `threads` equal tasks over all copies.

    `panel` columns are computed at once; a task may end in fewer, which take some time more. A tile
    is `mr` pixels of `rows` rows, `width` pixels each, which follow on each other.

    Work below `LEAST_FLOPS` is not split. Every column of tasks reads all of the inputs (`a`
    bytes), of which other cores have written their share, and the next layer finds as little of
    its rows (`y` bytes) where it reads them; every row all of the weights (`b` bytes), which
    nobody writes, and of the inputs `halo` bytes that its neighbour reads too. So rows are
    split as long as that balances nearly as well, best between two rows of the image, and
    successive layers leave each core what it has written itself. Without a `core` only the
    balance counts.
    """
    wish = split_of(flops * copies, threads)
    wish = -(-wish // copies)
    tiles, panels = -(-rows * width // mr), -(-columns // panel)
    cell = flops / (tiles * panels * panel) / (core.flops_per_cycle if core else 1.0)

    def work(task: tuple[int, int]) -> float:
        tail = task[1] % panel
        return task[0] * (task[1] - tail + min(panel, tail + _TURN if tail else 0)) * cell

    best, best_cost = (tiles, panels * panel), work((tiles, panels * panel))
    for tn in range(1, min(columns, wish) + 1):
        tm = min(tiles, -(-wish // tn))
        part = -(-rows // min(rows, tm)) * width
        downs = dict.fromkeys((-(-tiles // tm), -(-part // mr)))
        for task in product(downs, (-(-panels // tn) * panel, -(-columns // tn))):
            across, down = -(-columns // task[1]), -(-tiles // task[0])
            cost = -(-across * down // wish) * work(task)
            if core is not None:
                again = b * (1 - 1 / down) / core.cache_rate
                cost += core.move_cycles * (a + y) * (1 - 1 / across) + again
                if down > 1:
                    cost += seam_cycles(core, task[0] * mr - part, (a + y) // (rows * width))
                    cost += seam_cycles(core, 1, halo)
            if cost < best_cost:
                best, best_cost = task, cost
    return best


def split_of(flops: int, threads: int) -> int:
    """Among how many threads so many operations may be split."""
    return max(1, min(threads, flops // (LEAST_FLOPS // 2))) if flops >= LEAST_FLOPS else 1
