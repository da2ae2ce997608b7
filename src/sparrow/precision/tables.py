"""What every layer of a network costs at every precision that it may have, and its pins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from sparrow.bfloat16 import halved
from sparrow.compiler import Compiled
from sparrow.errors import BadInput
from sparrow.evidence.held_out import Lossy, coded
from sparrow.graph import Graph
from sparrow.precision.choice import Cost, Layer, Problem
from sparrow.precision.costs import compiling, measure_costs
from sparrow.precision.memory import Values, moments_of
from sparrow.precision.sensitivity import sensitivities
from sparrow.quant.recipe import Pins, Precision, Recipe, literal, precision_of
from sparrow.quant.run import requantized
from sparrow.request import Request

Compile: TypeAlias = Callable[[Sequence[Graph]], Compiled]
Noise: TypeAlias = Mapping[tuple[str, Precision], float]


@dataclass(frozen=True, slots=True)
class Tables:
    """Time, bytes and noise of the layers of a network.

    Attributes:
        free: Every layer with all its precisions.
        pins: The user's.
        how: Where the times come from, in words.
        names: What a pin may call a layer: its name, its operator and its results.
        noise: Of layers at precisions, whether they may have these or not.
    """

    free: Problem
    pins: Pins
    how: str
    names: Mapping[str, tuple[str, ...]]
    noise: Noise

    def pinned(self, pins: Pins) -> dict[str, Precision]:
        """The layers that pins fit, and what the first of these gives each."""
        found = {x: precision_of(Recipe(pins=pins), *self.names[x]) for x in self.names}
        return {x: p for x, p in found.items() if p is not None}

    @property
    def problem(self) -> Problem:
        """The layers with the precisions that the user's pins leave them."""
        return self.free.pinned(self.pinned(self.pins))


Builds: TypeAlias = Mapping[Precision, Compiled]


def builds_of(plain: Compiled, lossy: Lossy, build: Compile) -> Builds:
    """Whole builds at every precision that has kernels, as C.

    Args:
        plain: The float32 build.
        lossy: Every layer int8, and what it rests on.
        build: From graphs after `FRONT` to C.
    """
    whole = lossy.quantized

    def at(precision: Precision) -> Compiled:
        # what a mix of this alone is: what is no layer stays as it is
        pins = tuple((literal(x.name), precision) for x in whole.layers)
        recipe = replace(whole.recipe, pins=(*pins, *whole.recipe.pins))
        return build((requantized(whole.source, whole.statistics, recipe).graph,))

    builds: dict[Precision, Compiled] = {"float32": plain, "int8": build((whole.graph,))}
    sixteen = at("int16x8")
    # codes of 16 bits are multiplied as bytes: without those, they are floats again
    if coded(sixteen.module.entries):
        builds["int16x8"] = sixteen
    if plain.plan.target.isa.multiplies_bfloat16:
        builds["bfloat16"] = at("bfloat16")
    return builds


def drafts_of(builds: Builds, lossy: Lossy, pins: Pins) -> Tables:
    """The tables with memory alone, for which nothing has to be compiled or run.

    Args:
        builds: At every precision.
        lossy: As of `builds_of`.
        pins: The user's pins.

    Raises:
        BadInput: A pin asks for a precision that the target does not compute.
    """
    whole = lossy.quantized
    # of bfloat16, only layers that gain by it
    halves = halved(builds["bfloat16"].module.entries) if "bfloat16" in builds else frozenset()
    # what one layer of the model was parted into has one name and one precision
    layers = tuple(
        Layer(x, op, {p: Cost(0, 0, 0) for p in builds if p != "bfloat16" or x in halves})
        for x, op in {x.name: x.op for x in whole.layers}.items()
    )
    results: dict[str, list[str]] = {}
    for n in whole.source.nodes:
        results.setdefault(n.origin or n.outputs[0], []).extend(n.outputs)
    names = {x.name: (x.name, x.op, *results.get(x.name, ())) for x in layers}
    values = Values()
    moments = moments_of(builds, list(names), values)
    found = Tables(Problem(layers, values.all({}), 0, 0, moments), pins, "", names, {})
    asked = found.pinned(pins)
    for x in layers:
        if (p := asked.get(x.name)) is not None and p not in x.costs:
            raise BadInput(
                f"pin {x.name}={p}: no kernel of {builds['float32'].plan.target.name} computes it",
                hint=f"use {' or '.join(x.costs)}",
            )
    return found


def tables_of(
    drafts: Tables, builds: Builds, lossy: Lossy, request: Request, noise: Noise | None = None
) -> Tables:
    """The tables, from whole builds at every precision that has kernels.

    Args:
        drafts: What holds without measuring.
        builds: At every precision.
        lossy: As of `builds_of`.
        request: What was asked for.
        noise: What it is, where that is known.
    """
    whole = lossy.quantized
    kinds = {x.name: x.op for x in whole.layers}
    with compiling(builds.values()):
        noises = noise or sensitivities(
            whole, list(kinds), list(builds), lossy.kept, request.progress
        )
    measured = measure_costs(*(builds, kinds, lossy.first[0], request.threads, request.progress))

    def noisy(x: Layer, draft: Layer) -> Layer:
        return replace(
            x, costs={p: replace(x.costs[p], noise=noises[x.name, p]) for p in draft.costs}
        )

    pairs = zip(measured.problem.layers, drafts.free.layers, strict=True)
    problem = replace(measured.problem, layers=tuple(noisy(*pair) for pair in pairs))
    return replace(drafts, free=problem, how=measured.how, noise=noises)
