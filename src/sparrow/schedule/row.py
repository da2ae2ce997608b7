"""What a way to compute layers otherwise consists of, and how one is applied to a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeAlias, TypeVar

from sparrow.graph import Graph, Module
from sparrow.plan import Plan
from sparrow.rewrite import Remark

Planned: TypeAlias = Callable[[Module], Plan]
"""Plans a module, as the one that is rearranged was planned."""


class Run(Protocol):
    """Layers that are computed otherwise together."""

    @property
    def first(self) -> int:
        """Index of the first node."""
        ...


R = TypeVar("R", bound=Run)


@dataclass(frozen=True, slots=True)
class Schedule(Generic[R]):
    """A way to compute runs of layers otherwise, no bit of whose answers changes by it.

    Attributes:
        name: Of its remarks.
        serves: Whether anything may gain on the target of a plan, with its threads.
        gains: (plan, index of an entry point, what plans a module) -> the runs that are predicted
            to gain, in order, none of which meet.
        rewrite: The pass: a graph with these runs computed otherwise.
        remark: What that does to a run, in words.
    """

    name: str
    serves: Callable[[Plan], bool]
    gains: Callable[[Plan, int, Planned], Sequence[R]]
    rewrite: Callable[[Graph, Sequence[R]], Graph]
    remark: Callable[[Graph, R], str]


def rearranged(s: Schedule[R], p: Plan, planned: Planned, remarks: list[Remark]) -> Plan:
    """A plan with the layers that gain computed otherwise; the same one where none does.

    Args:
        s: How.
        p: The plan of the module as it is.
        planned: Plans a module.
        remarks: Told which layers were chosen.
    """
    if not s.serves(p):
        return p
    entries = list(p.module.entries)
    for i, g in enumerate(p.module.entries):
        if runs := s.gains(p, i, planned):
            entries[i] = s.rewrite(g, runs)
            for r in runs:
                remarks.append(Remark(s.name, g.nodes[r.first].origin, s.remark(g, r), True))
    if all(a is b for a, b in zip(entries, p.module.entries, strict=True)):
        return p
    return planned(replace(p.module, entries=tuple(entries)))
