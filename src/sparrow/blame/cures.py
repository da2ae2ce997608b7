"""What else could be done, each simulated on the samples: a recipe, its gain and its price."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace

from sparrow.blame.align import dequantized_weights
from sparrow.blame.measure import Judge
from sparrow.blame.result import NEAR, Cure, LayerBlame
from sparrow.errors import BadInput
from sparrow.graph import Graph
from sparrow.quant.noise import decibels
from sparrow.quant.recipe import Precision, Recipe, literal
from sparrow.quant.run import run
from sparrow.tensor import Array

# Worst layers that are tried at other precisions, one after the other.
PINNED = 3
# A layer in 16 bits or in float takes about as many times as long as in 8 bits: twice the bytes and
# half the products per instruction, or four times and a quarter of them.
SLOWER: Mapping[Precision, float] = {"int16x8": 2.0, "float32": 3.0, "bfloat16": 2.0, "int8": 1.0}


def candidates(known: Recipe | None, layers: Sequence[LayerBlame]) -> list[tuple[str, Recipe, str]]:
    """(in words, recipe, layer that changes precision or ""), each once."""
    recipe = known or Recipe()
    which = "default" if known is None else "same"
    found: list[tuple[str, Recipe, str]] = [(f"quantize anew by the {which} recipe", recipe, "")]
    if recipe.weights == "per_tensor":
        found.append(
            ("one scale of the weights per channel", replace(recipe, weights="per_channel"), "")
        )
    found += [
        (f"ranges by {r}", replace(recipe, ranges=r), "")
        for r in ("mse", "minmax", "percentile")
        if r != recipe.ranges
    ]
    if recipe.rounding == "nearest":
        found.append(("weights of a row rounded together", replace(recipe, rounding="gptq"), ""))
    if not recipe.bias_correction:
        found.append(("bias correction", replace(recipe, bias_correction=True), ""))
    if not recipe.equalize:
        found.append(("equalize channels across layers", replace(recipe, equalize=True), ""))
    worst = [x for x in layers if x.op in ("Conv", "MatMul")][:PINNED]
    others: tuple[Precision, ...] = ("int16x8", "float32")
    for precision in others:
        for x in worst:
            pins = ((literal(x.name), precision), *recipe.pins)
            found.append((f"{x.name} in {precision}", replace(recipe, pins=pins), x.name))
    return found


def _changed(base: Recipe, other: Recipe) -> list[str]:
    return [f.name for f in fields(Recipe) if getattr(other, f.name) != getattr(base, f.name)]


def constant_bytes(g: Graph) -> int:
    """Bytes of the constants of a graph."""
    return sum(g.types[x].size * g.types[x].dtype.bits for x in g.consts) // 8


def cures_of(
    f: Graph,
    judge: Judge,
    samples: Sequence[Mapping[str, Array]],
    whole: float,
    layers: Sequence[LayerBlame],
    recipe: Recipe | None,
    milliseconds: Mapping[str, float] | None,
    progress: Callable[[str], None],
) -> tuple[Cure, ...]:
    """Cures, the best first.

    Args:
        f: Float graph.
        judge: Compares outputs.
        samples: To calibrate on.
        whole: Error of the outputs now.
        layers: The worst first.
        recipe: Where to start from; the defaults when None.
        milliseconds: Measured time of layers by name.
        progress: Told what happens.
    """
    base = recipe or Recipe()
    found: list[Cure] = []
    first: int | None = None

    def attempt(what: str, other: Recipe, layer: str) -> None:
        nonlocal first
        progress(f"trying: {what}")
        try:
            done = run(f, samples, other)
        except BadInput:
            if not layer:
                raise
            return  # the last layer in codes, which float would leave no quantization
        size = constant_bytes(done.graph)
        first = size if first is None else first
        q = dequantized_weights(done.graph).graph
        gain = decibels(whole, judge.noise(q, judge.names)) if whole else 0.0
        precision = other.pins[0][1] if layer else "int8"
        time: float | None = None
        if not layer:
            time = 0.0
        elif milliseconds and layer in milliseconds:
            time = milliseconds[layer] * (SLOWER[precision] - 1)
        found.append(Cure(what, other, gain, (size - first) / 1e3, time))

    for what, other, layer in candidates(recipe, layers):
        attempt(what, other, layer)
    free = sorted((c for c in found if c.recipe.pins == base.pins), key=lambda c: c.gain_db)
    useful = [c for c in free if c.gain_db > NEAR and c.recipe != base]
    # the best of those that change the same thing
    best = {f: c for c in useful for f in _changed(base, c.recipe)}
    if len(best) > 1:
        joined = replace(base, **{f: getattr(c.recipe, f) for f, c in best.items()})
        names = sorted({c.what: c.gain_db for c in best.values()}.items(), key=lambda x: -x[1])
        attempt(" and ".join(what for what, _ in names), joined, "")
    return tuple(sorted(found, key=lambda c: -c.gain_db))
