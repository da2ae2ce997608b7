"""Which steps are worth splitting among threads.

A split step saves time, costs a fork and a join, and leaves its result in the caches of several
cores. What lies in another core's cache arrives slowly, so a step that is split between two that
are not (or the reverse) pays for its operands twice. Each step is therefore either *whole* or
*split*, and the cheapest labelling of all steps together is a minimum cut (Boykov, Veksler and
Zabih 2001, binary case): labels cost what the step takes, unequal neighbours what has to move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sparrow.targets import Target

# scipy's capacities are 32-bit integers: in units of 16 cycles.
_SCALE = 16.0
_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Flow:
    """``bytes`` that step ``source`` writes and step ``target`` reads."""

    source: int
    target: int
    bytes: int


def share(tasks: int, columns: int, own: int | None = None) -> list[range]:
    """The tasks of each column, as the pool divides indices: of few column 0 has the first.

    ``own``: the column that has all of them, of a step that is not split.
    """
    if own is not None:
        return [range(tasks if column == own else 0) for column in range(columns)]
    cuts = [-(-tasks * column // columns) for column in range(columns + 1)]
    return [range(low, high) for low, high in pairwise(cuts)]


def split_cycles(cycles: float, tasks: int, threads: int, target: Target) -> float:
    """Time of a step of ``cycles`` on one core, cut into ``tasks`` equal parts."""
    return cycles * -(-tasks // threads) / tasks + target.fork_cycles


def worth_splitting(
    whole: Sequence[float],
    split: Sequence[float | None],
    flows: Sequence[Flow],
    threads: int,
    target: Target,
    apart: frozenset[int] = frozenset(),
) -> frozenset[int]:
    """Indices of the steps to split.

    Args:
        whole: Cycles of each step on one core.
        split: Cycles of each step on all; None where it cannot be split.
        flows: What passes from step to step.
        threads: Threads that share the work, 2 or more.
        target: Says what a fork and a moved byte cost.
        apart: Steps of one core each, which leave their parts of a value where split ones do.
    """
    free = [i for i, s in enumerate(split) if s is not None]
    if not free:
        return frozenset()
    # scipy is loaded where several threads are asked for, not by every import
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    # nodes: 0 is "whole" and the source, 1 is "split" and the sink
    node = dict.fromkeys(apart, 1) | {i: k + 2 for k, i in enumerate(free)}
    capacity: dict[tuple[int, int], float] = {}

    def add(a: int, b: int, cycles: float) -> None:
        if a != b and a != 1 and b != 0:
            capacity[a, b] = capacity.get((a, b), 0.0) + cycles

    for i in free:
        add(0, node[i], split[i] or 0.0)
        add(node[i], 1, whole[i])
    for f in flows:
        a, b = node.get(f.source, 0), node.get(f.target, 0)
        moved = target.move_cycles * f.bytes * (threads - 1) / threads
        add(a, b, moved)
        add(b, a, moved)
    values = [min(_LIMIT, round(v / _SCALE)) for v in capacity.values()]
    rows, columns = zip(*capacity, strict=True)
    size = len(free) + 2
    graph = csr_array((values, (rows, columns)), shape=(size, size), dtype="int32")
    rest = graph - maximum_flow(graph, 0, 1).flow
    rest.eliminate_zeros()
    near = set(breadth_first_order(rest, 0, return_predecessors=False).tolist())
    return frozenset(i for i in free if node[i] not in near)
