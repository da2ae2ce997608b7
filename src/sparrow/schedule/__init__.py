"""Where layers gain by being computed otherwise: in strips of rows, or by one thread each.

A pass says how a graph is divided (`passes.patches`, `passes.overlap`, ..); a module here says
which of its layers gain by that, from what the steps of a plan take. Whatever is chosen, the number
of threads changes no bit of an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from sparrow.graph import Module
from sparrow.plan import Plan
from sparrow.rewrite import Remark
from sparrow.schedule.abreast import abreast
from sparrow.schedule.blocking import blocked
from sparrow.schedule.channelwise import by_channels
from sparrow.schedule.overlapping import in_parts

Schedule: TypeAlias = Callable[[Plan, Callable[[Module], Plan], list[Remark]], Module]
"""(a plan, what plans a module, told what was chosen) -> the module of the plan, rearranged."""

# In this order, each given the plan of the one before.
FASTER: tuple[Schedule, ...] = (
    blocked,  # strips are shared by all threads: before any layer goes to one of them
    by_channels,  # images of few rows; what it leaves is divided by rows
    in_parts,
    abreast,  # what cannot be divided
)

__all__ = ["FASTER", "Schedule"]
