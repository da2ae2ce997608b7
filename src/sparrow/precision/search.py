"""A precision for every layer, within goals: tables, an integer program, and builds that check it.

The tables predict; what was built is measured. Where a build differs from its prediction, the goal
is moved by the difference and solved for again, so that a mix that is returned keeps the goals as
measured. A drop of accuracy is no sum over layers: mixes of the front are tried in the order of
their time until one keeps it on samples that calibrate; what was held out then judges the build.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import cast

import numpy as np

from sparrow.compiler import Compiled
from sparrow.device.library import code_bytes_of, compile_library
from sparrow.device.runners import find_runner
from sparrow.errors import BadInput, GateFailed
from sparrow.evidence.held_out import Lossy
from sparrow.evidence.receipt import SearchRecord
from sparrow.precision.account import Found, record_of, say
from sparrow.precision.choice import WIDTH, Mix, Quantity, front, nearest, solve, uniform
from sparrow.precision.costs import call_ns
from sparrow.precision.drops import Drops
from sparrow.precision.tables import Compile, Tables, builds_of, drafts_of, tables_of
from sparrow.quant.recipe import Pins, Precision, Recipe, literal
from sparrow.quant.run import Quantized, requantized
from sparrow.request import Budget, Request

# Times that a goal is moved by what a build differs from its prediction.
CORRECTIONS = 4
LATENCY_S = 0.2
# By how much a build may be smaller than predicted: code that layers share is counted with each.
DOUBT = 0.1
# By how much faster: it may run at another clock than the profile did.
CLOCK = 0.5
# Halvings of the decibels between a mix that keeps a drop and one that does not.
HALVINGS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A mix that keeps its goals as built.

    Attributes:
        mix: Its precisions.
        compiled: What to build.
        lossy: The quantization; None where every layer is float32.
        record: How it was found.
    """

    mix: Mix
    compiled: Compiled
    lossy: Lossy | None
    record: SearchRecord


def goals_of(budget: Budget) -> dict[Quantity, float]:
    """The limits of a budget that are sums over layers."""
    given: dict[Quantity, float | None] = {
        "latency": budget.latency,
        "size": budget.size,
        "ram": budget.ram,
    }
    return {k: float(v) for k, v in given.items() if v is not None}


class Search:
    """Tables of one network, and the mixes that keep goals.

    Args:
        plain: The float32 build.
        lossy: Every layer int8, and what it rests on; pins of its recipe are the user's.
        pins: The user's pins.
        request: What was asked for.
        ways: From graphs after `FRONT` to C; a later one where an earlier keeps no size.
        larger: The search of an earlier way, whose accuracy is that of this one.

    Raises:
        BadInput: A pin asks for a precision that the target does not compute.
    """

    def __init__(
        self,
        plain: Compiled,
        lossy: Lossy,
        pins: Pins,
        request: Request,
        ways: Sequence[Compile],
        larger: Search | None = None,
    ) -> None:
        self.plain, self.lossy, self.request, self.pins = plain, lossy, request, pins
        self.build, *self.others = ways
        self.recipe = lossy.quantized.recipe
        self.refused: dict[tuple[Precision, ...], GateFailed] = {}
        self.off: Mapping[Quantity, float] = {}  # what the last build differed from its prediction
        self.drops: Drops = larger.drops if larger else Drops(lossy, request.evaluate)
        self.lost: dict[tuple[Precision, ...], float] = larger.lost if larger else {}
        self.missed = 0.0  # what is nearest to a goal that no mix keeps
        self.reals: dict[tuple[Precision, ...], dict[Quantity, float]] = {}
        builds = builds_of(plain, lossy, self.build)
        self.tables: Tables = drafts_of(builds, lossy, pins)
        self.problem = self.tables.problem
        self.hopeless = self._beyond_memory(goals_of(request.budget))
        if self.hopeless is None:
            noise = larger.tables.noise if larger else None
            self.tables = tables_of(self.tables, builds, lossy, request, noise)
            self.problem = self.tables.problem

    def candidates(self) -> Iterator[Candidate]:
        """Mixes that keep the goals, the best first, more accurate ones after it.

        Raises:
            GateFailed: There is none; says which goal cannot be kept and what is nearest to it.
        """
        try:
            yield from self._candidates()
        except GateFailed as e:
            if e.gate != "size" or not self.others:
                raise
            self.request.progress("once more in smaller code")
            smaller = Search(
                *(self.plain, self.lossy, self.pins, self.request, self.others), larger=self
            )
            self.refused = smaller.refused
            try:
                yield from smaller.candidates()
            except GateFailed as other:
                # of some networks the smaller code is larger
                nearer = other.gate == "size" and self.missed < smaller.missed
                raise (e if nearer else other) from None

    def refuse(self, c: Candidate, why: GateFailed) -> None:
        """Note that a gate of its bundle refused a candidate: the records of others say so."""
        self.refused[c.mix.precisions] = why

    def exact_keeps(self) -> bool:
        """Whether speed is what is asked for, and float32 throughout keeps pins and goals."""
        goals = goals_of(self.request.budget)
        if self.hopeless or self._least != "latency":
            return False
        mix = uniform(self.problem, "float32")
        if set(mix.precisions) != {"float32"}:
            return False
        real = self._real_of(mix, goals)
        return all(real[k] <= most for k, most in goals.items())

    def exact(self) -> Candidate:
        """Float32 throughout, which keeps the goals."""
        goals = goals_of(self.request.budget)
        mix = uniform(self.problem, "float32")
        shown = front(self.problem, "latency", goals)
        return self._candidate(mix, self.plain, None, self._real_of(mix, goals), shown)

    @property
    def _least(self) -> Quantity:
        """What to minimise within the goals."""
        budget = self.request.budget
        return "noise" if goals_of(budget) and budget.drop is None else "latency"

    def _candidate(
        self,
        mix: Mix,
        compiled: Compiled,
        quantized: Quantized | None,
        real: Mapping[Quantity, float],
        shown: Sequence[Mix],
    ) -> Candidate:
        goals, drop = goals_of(self.request.budget), self.request.budget.drop
        built: dict[Quantity, float] = {k: v for k, v in real.items() if k != "latency"}
        way = Found(mix, self._least, goals, drop, shown, self.lost, built, self.refused)
        lossy = None if quantized is None else replace(self.lossy, quantized=quantized)
        return Candidate(mix, compiled, lossy, record_of(self.tables, way))

    def _candidates(self) -> Iterator[Candidate]:
        if self.hopeless is not None:
            raise self.hopeless
        goals, drop = goals_of(self.request.budget), self.request.budget.drop
        least = self._least
        limits: Mapping[Quantity, float] = goals
        shown = front(self.problem, "latency", limits)
        if not shown:
            missed = self._infeasible(goals)
            # where smaller code may do, only that is built
            far = missed.gate == "latency" or (missed.gate == "size" and bool(self.others))
            if far and not self._near(goals):
                raise missed
            # what is predicted to miss a goal may keep it as built, and what is nearest is built
            limits = self._moved(goals)
            shown = front(self.problem, "latency", limits)
        if not shown:
            raise self._infeasible(goals)
        tried: dict[tuple[Precision, ...], float] = {}
        yielded: set[tuple[Precision, ...]] = set()
        if least == "noise":
            tries: Iterable[Mix] = self._most_accurate(shown, limits)
        else:
            tries = self._fastest(shown, limits, tried)
        for first in chain(tries, self._beside(limits)):
            # the cheap question first: a drop needs no compiler
            if not self._keeps(first, tried):
                continue
            found = self._built(first, least, goals)
            if found is None:
                continue
            mix, compiled, quantized, real = found
            if mix.precisions in yielded or not self._keeps(mix, tried):
                continue
            yielded.add(mix.precisions)
            yield self._candidate(mix, compiled, quantized, real, shown)
        if not yielded:
            if drop is not None and tried and min(tried.values()) > drop:
                best = min(tried.values())
                within = " within the other goals" if goals else ""
                raise GateFailed(
                    f"goal drop: no mix of precisions loses at most {drop:.2%}{within}; "
                    f"the nearest loses {best:.2%}",
                    gate="drop",
                )
            raise self._infeasible(goals)

    def _uniform(self, limits: Mapping[Quantity, float]) -> list[Mix]:
        """One precision for all layers, of those within limits."""
        each = (uniform(self.problem, p) for p in WIDTH)
        return [m for m in each if all(m.value(k) <= most for k, most in limits.items())]

    def _beside(self, limits: Mapping[Quantity, float]) -> list[Mix]:
        """What may be within limits as built where nothing better is: the least of each, and
        uniform mixes that are predicted to miss them by little.
        """
        slack = {k: most * (1 + DOUBT) for k, most in limits.items()}
        least = (
            solve(self.problem, k, {j: most for j, most in limits.items() if j != k})
            for k in limits
        )
        inside = {m.precisions for m in self._uniform(limits)}
        near = (m for m in self._uniform(slack) if m.precisions not in inside)
        return [*(m for m in least if m is not None), *near]

    def _most_accurate(
        self, shown: Sequence[Mix], limits: Mapping[Quantity, float]
    ) -> Iterator[Mix]:
        """Mixes within limits, the most accurate first."""
        best = solve(self.problem, "noise", limits)
        assert best is not None
        unique = {m.precisions: m for m in (best, *shown, *self._uniform(limits))}
        yield from sorted(unique.values(), key=lambda m: m.noise)

    def _fastest(
        self,
        shown: Sequence[Mix],
        limits: Mapping[Quantity, float],
        tried: dict[tuple[Precision, ...], float],
    ) -> Iterator[Mix]:
        """Mixes within limits in the order of their time; where one keeps the drop and the one
        before it does not, those between them come first.
        """
        unique = {m.precisions: m for m in (*shown, *self._uniform(limits))}
        order = sorted(unique.values(), key=lambda m: m.latency)
        for i, mix in enumerate(order):
            asked = i > 0 and self.request.budget.drop is not None
            if asked and self._keeps(mix, tried) and not self._keeps(order[i - 1], tried):
                yield from self._between(order[i - 1], mix, limits, tried)
            yield mix

    def _between(
        self,
        noisy: Mix,
        kept: Mix,
        limits: Mapping[Quantity, float],
        tried: dict[tuple[Precision, ...], float],
    ) -> Sequence[Mix]:
        """Mixes that are faster than one that keeps the drop and keep it as well, the fastest
        first, by halving the decibels between it and one that does not.
        """
        found: list[Mix] = []
        high, low = noisy.noise, kept.noise
        for _ in range(HALVINGS):
            if not 0 < low < high:
                break
            middle = float(np.sqrt(high * low))
            mix = solve(self.problem, "latency", {**limits, "noise": middle})
            if mix is None or mix.latency >= kept.latency:
                break
            if self._keeps(mix, tried):
                found.append(mix)
                low = mix.noise
            else:
                high = min(mix.noise, middle)
        return sorted(found, key=lambda m: m.latency)

    def _keeps(self, mix: Mix, tried: dict[tuple[Precision, ...], float]) -> bool:
        """Whether a mix keeps the drop on samples; what it loses is noted in ``tried``."""
        most = self.request.budget.drop
        if most is None:
            return True
        if mix.precisions not in self.lost:
            self.request.progress(f"accuracy of mix {len(self.lost) + 1}")
            self.lost[mix.precisions] = self.drops.of(self._quantized(mix))
        tried[mix.precisions] = self.lost[mix.precisions]
        return tried[mix.precisions] <= most

    def _built(
        self, mix: Mix, least: Quantity, goals: Mapping[Quantity, float]
    ) -> tuple[Mix, Compiled, Quantized | None, dict[Quantity, float]] | None:
        """A mix that keeps the goals as built, starting from one that keeps them as predicted."""
        for _ in range(CORRECTIONS):
            real = self._real_of(mix, goals)
            if all(real[k] <= most for k, most in goals.items()):
                quantized = self._quantized(mix)
                return mix, self._compiled(quantized), quantized, real
            self.off = {k: real[k] - mix.value(k) for k in goals}
            limits = {k: most - self.off[k] for k, most in goals.items()}
            if least != "noise":
                limits["noise"] = mix.noise
            other = solve(self.problem, least, limits)
            if other is None or other.precisions == mix.precisions:
                return None
            mix = other
        return None

    def _quantized(self, mix: Mix) -> Quantized | None:
        """The quantization that is a mix; None where every layer is float32."""
        if set(mix.precisions) == {"float32"}:
            return None
        whole = self.lossy.quantized
        names = (x.name for x in self.problem.layers)
        recipe = self.recipe_of(zip(names, mix.precisions, strict=True))
        return requantized(whole.source, whole.statistics, recipe)

    def recipe_of(self, precisions: Iterable[tuple[str, str]]) -> Recipe:
        """A recipe that gives these precisions, by name of the layer."""
        pins = tuple((literal(name), cast(Precision, p)) for name, p in precisions if p != "int8")
        return replace(self.recipe, precision="int8", pins=(*pins, *self.pins))

    def _real(self, c: Compiled, goals: Mapping[Quantity, float]) -> dict[Quantity, float]:
        """What goals are about, of a build."""
        found: dict[Quantity, float] = {"ram": float(c.plan.arena_bytes + c.plan.state_bytes)}
        if "size" not in goals and "latency" not in goals:
            return found
        path = compile_library(c.artifact.files, c.plan.target.machine, c.artifact.parts)
        found["size"] = float(code_bytes_of(path, c.plan.target.machine) + len(c.plan.weights))
        if "latency" in goals:
            if find_runner(c.plan.target.machine).name != "host":
                raise BadInput(
                    "budget latency cannot be measured for this target on this machine",
                    hint="build without it",
                )
            first = self.lossy.first[0]
            found["latency"] = call_ns(c, first, self.request.threads, LATENCY_S)
        return found

    def _real_of(self, mix: Mix, goals: Mapping[Quantity, float]) -> dict[Quantity, float]:
        """What goals are about, of the build of a mix, which is built once."""
        if mix.precisions not in self.reals:
            self.reals[mix.precisions] = self._real(self._compiled(self._quantized(mix)), goals)
        return self.reals[mix.precisions]

    def _compiled(self, quantized: Quantized | None) -> Compiled:
        return self.plain if quantized is None else self.build((quantized.graph,))

    def _beyond_memory(self, goals: Mapping[Quantity, float]) -> GateFailed | None:
        """What to say of a goal of memory that no mix keeps, whatever the others: no compiler is
        needed for that.
        """
        least = solve(self.problem, "ram", {})
        if "ram" not in goals or least is None or least.ram <= goals["ram"]:
            return None
        alone: dict[Quantity, float] = {"ram": goals["ram"]}
        found = None if least.ram <= self._moved(alone)["ram"] else self._infeasible(alone)
        # of memory alone
        self.reals.clear()
        self.off = {}
        return found

    def _near(self, goals: Mapping[Quantity, float]) -> bool:
        """Whether a size or a latency that no mix keeps as predicted could be kept as built."""
        found = nearest(self.problem, goals)
        doubts: Mapping[Quantity, float] = {"size": DOUBT, "latency": CLOCK}
        return any(k in found and found[k] <= goals[k] * (1 + d) for k, d in doubts.items())

    def _moved(self, goals: Mapping[Quantity, float]) -> dict[Quantity, float]:
        """Goals that no mix keeps as predicted, moved by what a build of the nearest differs."""
        found = nearest(self.problem, goals)
        if not found:
            return dict(goals)
        what = min(found, key=lambda k: found[k] / goals[k])
        mix = solve(self.problem, what, {k: v for k, v in goals.items() if k != what})
        assert mix is not None

        def excess(m: Mix) -> float:
            real = self._real_of(m, goals)
            return max(real[k] / most for k, most in goals.items())

        # conversions, which a bound of memory leaves out, are none where all layers are alike
        best = min((mix, *self._uniform({})), key=excess)
        real = self.reals[best.precisions]
        self.off = {k: real[k] - best.value(k) for k in goals}
        return {k: most - self.off[k] for k, most in goals.items()}

    def _infeasible(self, goals: Mapping[Quantity, float]) -> GateFailed:
        """What to say of goals that no mix keeps: the one that is nearest to being kept."""
        limits = {k: v - self.off.get(k, 0.0) for k, v in goals.items()}
        found = {k: v + self.off.get(k, 0.0) for k, v in nearest(self.problem, limits).items()}
        found = {k: v for k, v in found.items() if v > goals[k]}
        measured: dict[Quantity, float] = {}
        for real in self.reals.values():
            over = [k for k, most in goals.items() if real[k] > most]
            if len(over) == 1:
                (k,) = over
                measured[k] = min(measured.get(k, real[k]), real[k])
        # what was built can be had
        found |= measured
        if not found:
            return self._hopeless(goals)
        what = min(found, key=lambda k: found[k] / goals[k])
        self.missed = found[what]
        within = " within the other goals" if len(goals) > 1 else ""
        return GateFailed(
            f"goal {what}: no mix of precisions keeps {say(what, goals[what])}{within}; "
            f"the nearest is {say(what, found[what], up=True)}",
            gate=what,
        )

    def _hopeless(self, goals: Mapping[Quantity, float]) -> GateFailed:
        """What to say of goals of which no one can be given up for the others."""
        alone = {k: solve(self.problem, k, {}) for k in goals}
        far = {k: m.value(k) for k, m in alone.items() if m is not None and m.value(k) > goals[k]}
        if not far:
            return GateFailed("goals: no mix of precisions keeps more than one of them")
        each = ", ".join(f"{k} {say(k, v, up=True)}" for k, v in far.items())
        return GateFailed(
            f"goals {', '.join(far)}: no mix of precisions keeps one of them; the nearest of each "
            f"alone: {each}",
            gate="size" if "size" in far else next(iter(far)),
        )
