"""Graph x target -> a kernel row per node, and why the others were not taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparrow.errors import BadInput, UnsupportedOp
from sparrow.graph import Graph, Node
from sparrow.kernels.case import Case, Kernel, Lowered, Reject, Tensor, Tile
from sparrow.targets import Target
from sparrow.tensor import row_major
from sparrow.tuning import Tuning, Work, fastest


@dataclass(frozen=True, slots=True)
class Option:
    """A row of the kernel table that could compute a node, with the tiles it may take.

    Attributes:
        work: What its times are kept under.
        tiles: The one predicted best first.
        cycles: Predicted for that.
    """

    work: Work
    tiles: tuple[Tile, ...]
    cycles: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The row that computes a node, how, and the reasons against the other rows of its op.

    ``options`` are the rows among whose tiles there was something to choose.
    """

    kernel: Kernel
    lowered: Lowered
    rejected: tuple[tuple[str, str], ...]
    options: tuple[Option, ...]


def choose(case: Case, kernels: Sequence[Kernel], tuning: Tuning | None = None) -> Choice | str:
    """The cheapest row that applies; the reasons if none does.

    Rows that were measured on this work are compared by their times; where none was, all rows are
    compared by their predictions.

    Raises:
        BadInput: A measured tile is none that its row can take.
    """
    found: list[tuple[Kernel, Lowered]] = []
    rejected: list[tuple[str, str]] = []
    for row in kernels:
        if row.op is not type(case.op):
            continue
        if row.isas and case.target.isa.name not in row.isas:
            rejected.append((row.name, f"is for {', '.join(row.isas)}"))
            continue
        lowered = row.lower(case)
        if isinstance(lowered, Reject):
            rejected.append((row.name, lowered.reason))
            continue
        found.append((row, lowered))
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in rejected)
        return why or f"no kernel computes {type(case.op).__name__}"
    options = tuple(
        Option(Work(row.name, x.shape, case.threads), x.tiles, x.cycles)
        for row, x in found
        if x.shape
    )
    measured = _measured(case, found, tuning) if tuning else []
    unit = "ns measured" if measured else "cycles"
    costs = measured or [(x.cycles, row, x) for row, x in found]
    best = min(costs, key=lambda c: c[0])
    rejected += [
        (row.name, f"costs more ({cost:.0f} {unit})")
        for cost, row, _ in costs
        if row is not best[1]
    ]
    compared = [row for _, row, _ in costs]
    rejected += [(row.name, "was not measured") for row, _ in found if row not in compared]
    return Choice(best[1], best[2], tuple(rejected), options)


def _measured(
    case: Case, found: Sequence[tuple[Kernel, Lowered]], tuning: Tuning
) -> list[tuple[float, Kernel, Lowered]]:
    """Nanoseconds of the rows that have times of this work, each with its fastest tile."""
    costs: list[tuple[float, Kernel, Lowered]] = []
    for row, plain in found:
        times = tuning.times.get(Work(row.name, plain.shape, case.threads), {})
        strange = [t for t in times if t not in plain.tiles]
        if strange:
            raise BadInput(
                f"tuning: {row.name} of {plain.shape} has no tile {strange[0]}",
                hint="measure it again",
            )
        if times:
            tile = fastest(times, plain.tile)
            lowered = plain if tile == plain.tile else row.lower(replace(case, tile=tile))
            assert isinstance(lowered, Lowered)
            costs.append((times[tile], row, lowered))
    return costs


def tensors(g: Graph, node: Node) -> tuple[tuple[Tensor | None, ...], tuple[Tensor, ...]]:
    """Operands of a node as dense tensors."""
    x = tuple(
        Tensor(g.types[n], row_major(g.types[n].shape), g.consts.get(n)) if n else None
        for n in node.inputs
    )
    y = tuple(Tensor(g.types[n], row_major(g.types[n].shape)) for n in node.outputs)
    return x, y


def refuse(node: Node, reason: str, target: Target) -> UnsupportedOp:
    """The error for a node without a kernel."""
    where = node.origin or node.outputs[0]
    return UnsupportedOp(
        f"{where} ({type(node.op).__name__}): no kernel for {target.name}: {reason}",
        hint="sparrow check lists every such op",
    )
