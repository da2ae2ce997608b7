"""Tasks: among how many threads the tiles of a layer are split, and which of them share one."""

from __future__ import annotations

from dataclasses import dataclass

from sparrow.targets import Target

# Operations that may be split.
LEAST_FLOPS = 50_000
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
) -> tuple[int, int]:
    """Rows and columns of tiles per task, for about `threads` equal tasks over all copies.

    `panel` columns are computed at once; a task may end in fewer, which take some time more.

    Work below `LEAST_FLOPS` is not split. Every column of tasks reads all of the inputs (`a`
    bytes), of which other cores have written their share; every row all of the weights (`b` bytes),
    which nobody writes. So rows are split as long as that balances nearly as well, and successive
    layers leave each core what it has written itself. Without a `core` only the balance counts.
    """
    wish = split_of(flops * copies, threads)
    wish = -(-wish // copies)
    panels = -(-columns // panel)
    cell = flops / (rows * panels * panel) / (core.flops_per_cycle if core else 1.0)

    def work(task: tuple[int, int]) -> float:
        tail = task[1] % panel
        return task[0] * (task[1] - tail + min(panel, tail + _TURN if tail else 0)) * cell

    best, best_cost = (rows, panels * panel), work((rows, panels * panel))
    for tn in range(1, min(columns, wish) + 1):
        tm = min(rows, -(-wish // tn))
        for task_n in (-(-panels // tn) * panel, -(-columns // tn)):
            task = (-(-rows // tm), task_n)
            across, down = -(-columns // task[1]), -(-rows // task[0])
            cost = -(-across * down // wish) * work(task)
            if core is not None:
                again = b * (1 - 1 / down) / core.cache_rate
                cost += core.move_cycles * a * (1 - 1 / across) + again
            if cost < best_cost:
                best, best_cost = task, cost
    return best


def split_of(flops: int, threads: int) -> int:
    """Among how many threads so many operations may be split."""
    return max(1, min(threads, flops // (LEAST_FLOPS // 2))) if flops >= LEAST_FLOPS else 1
