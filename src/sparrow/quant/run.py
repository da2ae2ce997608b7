"""The whole of a quantization: prepare, calibrate, place codes, code the weights, write it down."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparrow.errors import BadInput
from sparrow.graph import Graph
from sparrow.ops.lane import Lane
from sparrow.quant.bfloat16 import rounded
from sparrow.quant.calibrate import Calibration, calibrate, peaks, place_of
from sparrow.quant.complete import spelled
from sparrow.quant.engine import Engine, fastest
from sparrow.quant.equalize import equalize
from sparrow.quant.kinds import LAYERS, layers_of_codes
from sparrow.quant.layers import (
    activation_codes,
    cell_constants,
    constant_codes,
    constants_of,
    shaped,
    table_codes,
)
from sparrow.quant.place import Placement, place
from sparrow.quant.qdq import insert
from sparrow.quant.recipe import Pins, Recipe, pin_of, pinned, precisions
from sparrow.quant.smoothquant import normalised, smooth
from sparrow.quant.widen import cut_states, few_of, readers, too_fine, too_wide
from sparrow.tensor import F32, Array

Samples = Iterable[Mapping[str, Array]]


@dataclass(frozen=True, slots=True)
class Layer:
    """What became of a product.

    Attributes:
        name: Its name in the source model.
        op: Kind of op.
        value: Its result as codes, after the clamp that belongs to it.
        precision: ``int8`` or ``int16x8``.
        wide: Whether its sums could leave int32.
        beyond: How far, where it stays float for that; else empty.
    """

    name: str
    op: str
    value: str
    precision: str
    wide: bool
    beyond: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """A quantization and what it rests on.

    Attributes:
        graph: The QDQ graph.
        source: The float graph it stands for, after equalization and smoothing.
        statistics: Of every value of ``source`` that could become codes.
        calibration: Of those that did.
        layers: The products in order.
        recipe: What was asked for.
    """

    graph: Graph
    source: Graph
    statistics: Calibration
    calibration: Calibration
    layers: tuple[Layer, ...]
    recipe: Recipe


def _nothing(g: Graph) -> tuple[str, str]:
    """Why there is nothing to quantize, and what to do."""
    types = {g.types[n.outputs[0]].dtype for n in g.nodes if isinstance(n.op, LAYERS)}
    others = sorted(t.name for t in types if t.kind == "float" and t != F32)
    if others:
        return f"its layers compute in {', '.join(others)}", "quantize the float32 model"
    return (
        "no convolution, product or recurrent layer of constant weights to quantize",
        "build it with float32 precision",
    )


def _refuse_codes(g: Graph) -> None:
    codes = layers_of_codes(g)
    if codes:
        every = sum(isinstance(n.op, LAYERS) for n in g.nodes)
        raise BadInput(
            f"this model is quantized already: {len(codes)} of its {every} layers read codes",
            hint="give the float model it was made of; `sparrow build` compiles this one as it is",
        )


def apply(g: Graph, p: Placement, c: Calibration, recipe: Recipe) -> tuple[Graph, list[Layer]]:
    """The QDQ graph that statistics give: no samples, no engine, the same bytes anywhere."""
    codes = activation_codes(p, c, recipe)
    constants = {}
    layers = []
    for n in p.sums:
        found = constants_of(g, n, codes, c, recipe)
        constants[n.outputs[0]] = found.operands
        bits = max(codes[x][0].bits for x in n.inputs[:2] if x in codes)
        precision = "int8" if bits == 8 else "int16x8"
        name, kind = n.origin or n.outputs[0], type(n.op).__name__
        value = p.stored(n.outputs[0])
        layers.append(Layer(name, kind, value, precision, found.wide, found.beyond))
    for n in p.cells:
        constants[n.outputs[0]] = cell_constants(g, n, codes, recipe)
        name, kind = n.origin or n.outputs[0], type(n.op).__name__
        layers.append(Layer(name, kind, n.outputs[0], "int8", wide=False))
    for n in p.tables:
        constants[n.outputs[0]] = {0: table_codes(g, n, recipe)}
        name = n.origin or n.outputs[0]
        layers.append(Layer(name, "Gather", n.outputs[0], "int8", wide=False))
    if recipe.complete:
        for n in g.nodes:
            y = p.stored(n.outputs[0])
            if isinstance(n.op, Lane) and y in codes:
                constants[n.outputs[0]] = {
                    i: constant_codes(g.consts[x], recipe, codes[y][0])
                    for i, x in enumerate(n.inputs)
                    if x in g.consts
                }
    g = rounded(g, precisions(g, recipe), codes)
    return insert(g, shaped(g, codes), constants, p.coded), layers


def run(
    g: Graph,
    samples: Samples,
    recipe: Recipe | None = None,
    *,
    evaluation: frozenset[str] = frozenset(),
    later: Pins = (),
    number: Callable[[int], int] = lambda n: n,
    engine: Engine = fastest,
    progress: Callable[[str], None] = lambda _: None,
) -> Quantized:
    """Quantize a float graph.

    Args:
        g: A graph after `sparrow.passes.FRONT`.
        samples: Feeds for its inputs; read once and not kept, but for smoothing, which needs
            them twice.
        recipe: How; `Recipe()` when None.
        evaluation: Digests (`digest`) of samples the result will be judged on; refused here.
        later: Pins that will be put on the result: what they fit is not widened either.
        number: See `sparrow.quant.calibrate.calibrate`.
        engine: What runs the float graph.
        progress: Told what happens.

    Raises:
        BadInput: Nothing can be quantized, or is already, a pin fits no layer, or the samples are
            no good.
    """
    recipe = recipe or Recipe()
    _refuse_codes(g)
    if recipe.complete:
        g = spelled(g)
    idle = []
    if recipe.equalize:
        uneven, g = g, equalize(g)
        if g is uneven:
            idle.append("equalize: no two convolutions have only Relu or pooling between them")
    if recipe.smooth is not None and normalised(g):
        samples = list(samples)
        g = smooth(g, peaks(g, samples, normalised(g), engine), recipe.smooth)
    elif recipe.smooth is not None:
        idle.append("smooth: no product of constant weights reads a normalization")
    wanted = precisions(g, recipe)
    p = _placed(g, recipe)
    # how ONNX Runtime fuses a graph depends on the values that are watched: always the same ones,
    # all that a pin could ask for, so that statistics do not depend on pins
    plain = precisions(g, replace(recipe, precision="int8", residual="int8", pins=()))
    free = place(g, plain, replace(recipe, wide=()))
    if not p.sums and not p.cells and "bfloat16" not in wanted.values():
        if free.sums or free.cells:
            why, hint = "its recipe keeps every layer in float32", "build it with float32 precision"
        else:
            why, hint = _nothing(g)
        raise BadInput(f"{g.name}: {why}", hint=hint)
    for n in (*p.sums, *p.cells, *p.tables):
        if any(x in g.consts and not np.isfinite(g.consts[x]).all() for x in n.inputs):
            raise BadInput(
                f"{n.origin}: its weights or bias hold NaN or infinite values",
                hint="train or export the model again, or pin the layer to float32",
            )
    few = few_of(g)
    c = calibrate(
        g,
        few.passing(samples),
        p,
        also=sorted(free.watched(g)),
        moments=recipe.rounding != "nearest",
        evaluation=evaluation,
        number=number,
        engine=engine,
        progress=progress,
    )
    c = replace(c, health=replace(c.health, of_recipe=tuple(idle)))
    if _may_widen(recipe):
        progress("looking for values that want 16 bits")

        recipe, notes = _widened(g, c, recipe, few.taken, later)
        c = replace(c, health=replace(c.health, of_codes=notes))
    progress("quantizing weights")
    q = requantized(g, c, recipe)
    asked = replace(recipe, pins=(*recipe.pins, *later))
    demanded = {n.origin or n.outputs[0] for n in g.nodes if pin_of(n, asked) == "int8"}
    floats = []
    for layer in q.layers:
        if layer.beyond and layer.name in demanded:
            raise BadInput(
                f"{layer.name}: pinned to int8, but {layer.beyond}",
                hint="pin it to int16x8, whose sums have 64 bits, or to float32",
            )
        if layer.beyond:
            floats.append(f"{layer.name} stays float: {layer.beyond}")
    notes = (*q.statistics.health.of_codes, *floats)
    health = replace(q.calibration.health, of_codes=notes)
    return replace(q, calibration=replace(q.calibration, health=health)) if floats else q


def _widened(
    g: Graph, c: Calibration, recipe: Recipe, few: Sequence[Mapping[str, Array]], later: Pins
) -> tuple[Recipe, tuple[str, ...]]:
    """A recipe that names what wants more than 8 bits and looks for no more, and notes of it."""
    fixed = pinned(g, replace(recipe, pins=(*recipe.pins, *later)))
    p = _placed(g, recipe)
    every = replace(recipe, wide=tuple(p.sources))
    cut = cut_states(g, p, activation_codes(p, c, recipe), c, fixed)
    p = _placed(g, every)
    fine = too_fine(g, p, activation_codes(p, c, every), few, fixed)
    exact = tuple(dict.fromkeys(y for root in fine for y in readers(g, p, root)))
    exact = tuple(dict.fromkeys((*cut, *exact)))
    floats = replace(recipe, exact=(*recipe.exact, *exact))
    p = _placed(g, floats)
    if p.sums or p.cells:
        recipe = floats
    else:
        cut, fine, p = {}, {}, _placed(g, recipe)
    asked = recipe

    def with_wide(values: Collection[str]) -> Graph:
        return requantized(g, c, replace(asked, wide=(*asked.wide, *values))).graph

    codes, enough = activation_codes(p, c, recipe), 10 ** (-recipe.fidelity / 10)
    wide = too_wide(g, p, codes, with_wide, few, enough, fixed, recipe.fuses)
    found = (*recipe.wide, *(x for w in wide for x in w.all))
    notes = [
        f"{place_of(g, x)} is no code: rounding it to 16 bits alone makes an error of {power:.0%} "
        "of the outputs' power"
        for x, power in fine.items()
    ]
    notes += [
        f"{place_of(g, y)} stays float: the state that it begins with reaches {begins:.2g}, and "
        f"its codes hold what it makes, up to {made:.2g}"
        for y, (begins, made) in cut.items()
    ]
    for w in wide:
        takes = "is no code: a cheap function reads it" if w.fused else "takes 16 bits"
        part = (
            f"an error of {w.power:.0%} of the outputs' power"
            if w.part is None
            else f"{w.part:.0%} of the outputs' error"
        )
        notes.append(f"{place_of(g, w.value)} {takes}: rounding it to 8 alone makes {part}")
    return replace(recipe, widen=False, wide=tuple(dict.fromkeys(found))), tuple(notes)


def _placed(g: Graph, recipe: Recipe) -> Placement:
    narrow = pinned(g, recipe, ("int8",))
    wanted = precisions(g, recipe)
    return place(g, wanted, recipe, narrow)


def _may_widen(recipe: Recipe) -> bool:
    """Whether values may take more than the 8 bits that were asked for."""
    plain = recipe.scheme != "tflite" and recipe.scales == "float" and not recipe.complete
    return recipe.widen and plain and recipe.precision == "int8" and recipe.residual != "int8"


def requantized(g: Graph, c: Calibration, recipe: Recipe) -> Quantized:
    """The quantization that statistics give for another recipe; see `run`.

    Args:
        g: `Quantized.source`: what equalization and smoothing of the recipe made of the graph.
        c: `Quantized.statistics`.
        recipe: Equalizes, smooths and completes as theirs does, and rounds with moments only where
            theirs did.
    """
    p = _placed(g, recipe)
    graph, layers = apply(g, p, c, recipe)
    graph = replace(graph, scheme=recipe.scheme)
    return Quantized(graph, g, c, c.only(g, p), tuple(layers), recipe)


def quantize(g: Graph, samples: Samples, recipe: Recipe | None = None) -> Graph:
    """`run`, the graph only."""
    return run(g, samples, recipe).graph
