"""What rewrites that give threads nodes of their own (`Node.column`) have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeGuard

from sparrow.graph import Graph, Module
from sparrow.plan import Plan, Step
from sparrow.targets import Target

# A line that one core wrote and others read changes cores up to three times, two at once on the
# whole: measured where halves of 14 x 14 and 7 x 7 pixels took 16 to 35 ns a line longer than parts
# that share nothing, and a line took 8 ns to read, 6 for its owner to read again and 10 to
# overwrite.
MOVES = 2


def by_entry(p: Plan, rewritten: Callable[[int, Graph], Graph]) -> Module:
    """The module of a plan, every entry point rewritten for several threads.

    As it is where they would not compute at once: firmware has one thread, and a page has a region
    for each step, not one for all.

    Args:
        p: The plan of the module as it is.
        rewritten: Given an entry point's index and graph; the graph itself where nothing gains.
    """
    machine = p.target.machine
    if p.threads == 1 or machine.bare or machine.system == "wasm32":
        return p.module
    entries = tuple(rewritten(i, g) for i, g in enumerate(p.module.entries))
    if all(a is b for a, b in zip(entries, p.module.entries, strict=True)):
        return p.module
    return replace(p.module, entries=entries)


def divided(s: Step | None) -> TypeGuard[Step]:
    """Whether a step is one that threads share."""
    return s is not None and s.column is None and s.lowered.tasks > 1


def moved_cycles(t: Target, size: float) -> float:
    """What so many bytes that change cores take."""
    return MOVES * t.move_cycles * size
