"""A precision for every layer, within goals: tables, an integer program, and builds that check it.

The tables predict; what was built is measured. Where a build differs from its prediction, the goal
is moved by the difference and solved for again, so that a mix that is returned keeps the goals as
measured. A drop of accuracy is no sum over layers: mixes of the front are tried in the order of
their time until one keeps it on samples that calibrate; what was held out then judges the build.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from sparrow.compiler import Compiled
from sparrow.device.host import HostLibrary, Session
from sparrow.device.library import code_bytes_of, compile_library
from sparrow.device.runners import find_runner
from sparrow.device.session import to_native
from sparrow.errors import BadInput, GateFailed
from sparrow.evidence.loss import Loss
from sparrow.evidence.lossy import Lossy
from sparrow.evidence.receipt import SearchRecord
from sparrow.precision.account import Found, record_of, say
from sparrow.precision.choice import Mix, Quantity, front, nearest, solve
from sparrow.precision.tables import Compile, tables_of
from sparrow.quant.engine import literally
from sparrow.quant.recipe import Pins, Precision, Recipe, literal
from sparrow.quant.run import Quantized, requantized
from sparrow.request import Budget, Predict, Request
from sparrow.tensor import Array
from sparrow.timing.latency import latency

# Times that a goal is moved by what a build differs from its prediction.
CORRECTIONS = 4
LATENCY_S = 0.2


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
    ) -> None:
        self.plain, self.lossy, self.request = plain, lossy, request
        self.build, *self.others = ways
        self.recipe = lossy.quantized.recipe
        self.refused: dict[tuple[Precision, ...], GateFailed] = {}
        self.off: Mapping[Quantity, float] = {}  # what the last build differed from its prediction
        self.tables = tables_of(plain, lossy, pins, request, self.build)
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
            smaller = Search(self.plain, self.lossy, self.tables.pins, self.request, self.others)
            self.refused = smaller.refused
            yield from smaller.candidates()

    def refuse(self, c: Candidate, why: GateFailed) -> None:
        """Note that a gate of its bundle refused a candidate: the records of others say so."""
        self.refused[c.mix.precisions] = why

    def _candidates(self) -> Iterator[Candidate]:
        goals, drop = goals_of(self.request.budget), self.request.budget.drop
        least: Quantity = "noise" if goals and drop is None else "latency"
        limits: Mapping[Quantity, float] = goals
        shown = front(self.problem, "latency", limits)
        if not shown and not self.others:
            # what is predicted to miss a goal may keep it as built
            limits = self._moved(goals)
            shown = front(self.problem, "latency", limits)
        if not shown:
            raise self._infeasible(goals, self.off)
        drops: dict[tuple[Precision, ...], float] = {}
        yielded = False
        if least == "noise":
            tries = [solve(self.problem, "noise", limits), *shown[::-1]]
        else:
            tries = list(shown)
        for mix in tries:
            assert mix is not None
            # the cheap question first: a drop needs no compiler
            if not self._keeps(mix, drops):
                continue
            found = self._built(mix, least, goals)
            if found is None:
                continue
            mix, compiled, quantized, real = found
            if not self._keeps(mix, drops):
                continue
            yielded = True
            built: dict[Quantity, float] = {k: v for k, v in real.items() if k != "latency"}
            way = Found(mix, least, goals, drop, shown, drops, built, self.refused)
            lossy = None if quantized is None else replace(self.lossy, quantized=quantized)
            yield Candidate(mix, compiled, lossy, record_of(self.tables, way))
            if least == "noise":
                return
        if not yielded:
            if drop is not None and drops:
                best = min(drops.values())
                within = " within the other goals" if goals else ""
                raise GateFailed(
                    f"goal drop: no mix of precisions loses at most {drop:.2%}{within}; "
                    f"the nearest loses {best:.2%}",
                    hint="no bundle was written",
                    gate="drop",
                )
            raise self._infeasible(goals, self.off)

    def _keeps(self, mix: Mix, drops: dict[tuple[Precision, ...], float]) -> bool:
        """Whether a mix keeps the drop on samples; what was found is noted in ``drops``."""
        most = self.request.budget.drop
        if most is None:
            return True
        if mix.precisions not in drops:
            drops[mix.precisions] = self._drop(self._quantized(mix))
        return drops[mix.precisions] <= most

    def _built(
        self, mix: Mix, least: Quantity, goals: Mapping[Quantity, float]
    ) -> tuple[Mix, Compiled, Quantized | None, dict[Quantity, float]] | None:
        """A mix that keeps the goals as built, starting from one that keeps them as predicted."""
        for _ in range(CORRECTIONS):
            quantized = self._quantized(mix)
            compiled = self.plain if quantized is None else self.build((quantized.graph,))
            real = self._real(compiled, goals)
            if all(real[k] <= most for k, most in goals.items()):
                return mix, compiled, quantized, real
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
        return replace(self.recipe, precision="int8", pins=(*pins, *self.tables.pins))

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
            blob = np.frombuffer(c.plan.weights, np.uint8) if c.plan.weights else None
            session = Session(HostLibrary(path), blob, threads=self.request.threads)
            g, first = c.module.entries[0], self.lossy.first[0]
            inputs = [to_native(first[x], g.types[x].dtype) for x in g.inputs]
            found["latency"] = latency(session, 0, inputs, LATENCY_S).median_ns
        return found

    def _drop(self, q: Quantized | None) -> float:
        """Loss of accuracy of a quantization, on samples that calibrated or by the user's function.

        The integers of the build are those of its QDQ graph but for ties.
        """
        if q is None:
            return 0.0
        f, evaluate = self.lossy.quantized.source, self.request.evaluate
        runs = literally(f, f.outputs), literally(q.graph, q.graph.outputs)

        def predict(at: int) -> Predict:
            def run(feeds: Mapping[str, Array], entry: str | None = None) -> dict[str, Array]:
                if entry not in (None, f.name):
                    raise BadInput(f"entry {entry!r} is unknown", hint=f"entries: {f.name}")
                found = runs[at](feeds)
                return {y: found[y] for y in f.outputs}

            return run

        if evaluate is not None:
            return float(evaluate(predict(0))) - float(evaluate(predict(1)))
        loss = Loss(f.types[x].shape for x in f.inputs)
        for x in self.lossy.kept:
            loss.add(predict(1)(x), predict(0)(x))
        return loss.share

    def _moved(self, goals: Mapping[Quantity, float]) -> dict[Quantity, float]:
        """Goals that no mix keeps as predicted, moved by what a build of the nearest differs."""
        found = nearest(self.problem, goals)
        if not found:
            return dict(goals)
        what = min(found, key=lambda k: found[k] / goals[k])
        mix = solve(self.problem, what, {k: v for k, v in goals.items() if k != what})
        assert mix is not None
        quantized = self._quantized(mix)
        compiled = self.plain if quantized is None else self.build((quantized.graph,))
        real = self._real(compiled, goals)
        self.off = {k: real[k] - mix.value(k) for k in goals}
        return {k: most - self.off[k] for k, most in goals.items()}

    def _infeasible(
        self, goals: Mapping[Quantity, float], off: Mapping[Quantity, float]
    ) -> GateFailed:
        limits = {k: v - off.get(k, 0.0) for k, v in goals.items()}
        found = {k: v + off.get(k, 0.0) for k, v in nearest(self.problem, limits).items()}
        if not found:
            return GateFailed("goals: no two of them can be kept", hint="no bundle was written")
        what = min(found, key=lambda k: found[k] / goals[k])
        within = " within the other goals" if len(goals) > 1 else ""
        return GateFailed(
            f"goal {what}: no mix of precisions keeps {say(what, goals[what])}{within}; "
            f"the nearest is {say(what, found[what])}",
            hint="no bundle was written",
            gate=what,
        )
