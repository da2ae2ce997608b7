"""Where layers gain by being computed otherwise: in strips of rows, or by one thread each.

A pass says how a graph is divided (`passes.patches`, `passes.overlap`, ..); a module here says
which of its layers gain by that, from what the steps of a plan take. Whatever is chosen, the number
of threads changes no bit of an answer.
"""

from __future__ import annotations

from typing import Any

from sparrow.plan import Plan
from sparrow.rewrite import Remark
from sparrow.schedule.abreast import ABREAST
from sparrow.schedule.blocking import BLOCKING
from sparrow.schedule.channelwise import CHANNELWISE
from sparrow.schedule.overlapping import OVERLAPPING
from sparrow.schedule.row import Planned, Schedule, rearranged

# In this order, each given the plan of the one before.
FASTER: tuple[Schedule[Any], ...] = (
    BLOCKING,  # strips are shared by all threads: before any layer goes to one of them
    CHANNELWISE,  # images of few rows; what it leaves is divided by rows
    OVERLAPPING,
    ABREAST,  # what cannot be divided
)


def faster(p: Plan, planned: Planned, remarks: list[Remark]) -> Plan:
    """A plan with the layers that gain by a row of `FASTER` computed otherwise.

    Args:
        p: The plan of the module as it is.
        planned: Plans a module.
        remarks: Told which layers were chosen.
    """
    for s in FASTER:
        p = rearranged(s, p, planned, remarks)
    return p


__all__ = ["FASTER", "Planned", "Schedule", "faster", "rearranged"]
