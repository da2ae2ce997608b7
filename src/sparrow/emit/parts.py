"""Steps dealt to parts of about equal effort, which a build compiles in parallel and caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparrow.emit.steps import Body, StepFunction

# Compile effort is counted in bytes of native code that a body inlines. A part takes 0.17 s of a
# Zen 5 for its headers alone: by parts of 100,000 two cores took a quarter more for whole networks.
PART_EFFORT = 250_000
SMALL = 1_000


def _grouped(steps: Sequence[StepFunction]) -> list[list[StepFunction]]:
    """Steps that share a body, directly or over others, in groups; in the order of first steps.

    Where size matters they share what is in the body's header, too.
    """

    def shared(b: Body) -> str:
        return b.header if b.small else b.name

    group: dict[str, list[StepFunction]] = {}
    found: list[list[StepFunction]] = []
    for s in steps:
        joined = {id(g): g for b in s.bodies if (g := group.get(shared(b))) is not None}
        mine = [s]
        for g in joined.values():
            mine = [*g, *mine]
            found.remove(g)
        found.append(mine)
        for member in mine:
            group |= {shared(b): mine for b in member.bodies}
    return found


def _effort(group: Sequence[StepFunction], sizes: Mapping[str, int]) -> int:
    """How long a group takes to compile, in bytes of always-inlined native code."""
    bodies = {b.name: b for s in group for b in s.bodies}
    return sum(SMALL + sizes.get(b.header, 0) for b in bodies.values())


def parts_of(steps: Sequence[StepFunction], sizes: Mapping[str, int]) -> list[list[StepFunction]]:
    """Steps per part, of about equal effort; part 0, the driver, is not among them."""
    groups = sorted(_grouped(steps), key=lambda g: -_effort(g, sizes))
    total = sum(_effort(g, sizes) for g in groups)
    parts: list[list[StepFunction]] = [
        # steps over empty tensors have no body, and are in a part nevertheless
        []
        for _ in range(min(len(groups), max(1, -(-total // PART_EFFORT))))
    ]
    load = [0] * len(parts)
    for g in groups:
        k = load.index(min(load))
        parts[k] += g
        load[k] += _effort(g, sizes)
    place = {s.name: i for i, s in enumerate(steps)}
    return [sorted(p, key=lambda s: place[s.name]) for p in parts]
