"""What schedules that give threads nodes of their own (`Node.column`) have in common."""

from __future__ import annotations

from typing import TypeGuard

from sparrow.plan import Plan, Step
from sparrow.targets import Target

# A line that one core wrote and others read changes cores up to three times, two at once on the
# whole: measured where halves of 14 x 14 and 7 x 7 pixels took 16 to 35 ns a line longer than parts
# that share nothing, and a line took 8 ns to read, 6 for its owner to read again and 10 to
# overwrite.
MOVES = 2


def at_once(p: Plan) -> bool:
    """Whether threads compute nodes of their own at once.

    Firmware has one thread, and a page has a region for each step, not one for all.
    """
    machine = p.target.machine
    return p.threads > 1 and not machine.bare and machine.system != "wasm32"


def divided(s: Step | None) -> TypeGuard[Step]:
    """Whether a step is one that threads share."""
    return s is not None and s.column is None and s.lowered.tasks > 1


def moved_cycles(t: Target, size: float) -> float:
    """What so many bytes that change cores take."""
    return MOVES * t.move_cycles * size
