"""Graph x target -> a kernel row per node, and why the others were not taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparrow.errors import UnsupportedOp
from sparrow.graph import Graph, Node
from sparrow.kernels.case import Case, Kernel, Lowered, Reject, Tensor
from sparrow.targets import Target
from sparrow.tensor import row_major

CostTable = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class Choice:
    """The row that computes a node, how, and the reasons against the other rows of its op."""

    kernel: Kernel
    lowered: Lowered
    rejected: tuple[tuple[str, str], ...]


def signature(case: Case) -> str:
    """What identifies a case in a CostTable: op with attributes and operand types."""
    operands = ", ".join(repr(t.type) if t else "-" for t in (*case.x, *case.y))
    return f"{case.op!r}({operands}) {case.target.name} x{case.threads}"


def choose(case: Case, kernels: Sequence[Kernel], costs: CostTable | None = None) -> Choice | str:
    """The cheapest row that applies, measured before predicted; the reasons if none does."""
    best: tuple[float, Kernel, Lowered] | None = None
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
        cost = (costs or {}).get((row.name, signature(case)), lowered.cycles)
        if best is not None:
            loser = row.name if cost >= best[0] else best[1].name
            rejected.append((loser, f"costs more ({max(cost, best[0]):.0f} cycles)"))
        if best is None or cost < best[0]:
            best = (cost, row, lowered)
    if best is None:
        why = "; ".join(f"{name}: {reason}" for name, reason in rejected)
        return why or f"no kernel computes {type(case.op).__name__}"
    return Choice(best[1], best[2], tuple(rejected))


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
