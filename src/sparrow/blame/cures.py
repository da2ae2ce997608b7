"""What else could be done, each simulated on the samples: a recipe, its gain and its price."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from sparrow.blame.align import dequantized_weights
from sparrow.blame.interval import interval
from sparrow.blame.measure import Judge
from sparrow.blame.result import NEAR, Cure, LayerBlame
from sparrow.errors import BadInput
from sparrow.graph import Graph
from sparrow.quant.noise import decibels
from sparrow.quant.recipe import Precision, Recipe, literal
from sparrow.quant.run import Quantized, requantized, run
from sparrow.tensor import Array

# Worst layers that are tried at other precisions, one after the other.
PINNED = 3
# A layer in 16 bits or in float takes about as many times as long as in 8 bits: twice the bytes and
# half the products per instruction, or four times and a quarter of them.
SLOWER: Mapping[Precision, float] = {"int16x8": 2.0, "float32": 3.0, "bfloat16": 2.0, "int8": 1.0}
# They are tried together in networks of this many times as many.
FEW = 4
PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "LSTM", "GRU")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Another recipe.

    Attributes:
        what: In words.
        recipe: It.
        layers: Names of those that change precision.
        precision: To which.
    """

    what: str
    recipe: Recipe
    layers: tuple[str, ...] = ()
    precision: Precision = "int8"


def candidates(
    base: Recipe, values: Mapping[str, object], layers: Sequence[LayerBlame]
) -> list[Candidate]:
    """What to try beside a recipe, each once.

    Args:
        base: The recipe.
        values: Of the float graph.
        layers: The worst first.
    """
    found = []
    if base.weights == "per_tensor":
        what = "one scale of the weights per channel"
        found.append(Candidate(what, replace(base, weights="per_channel")))
    found += [
        Candidate(f"ranges by {r}", replace(base, ranges=r))
        for r in ("mse", "minmax", "percentile")
        if r != base.ranges
    ]
    if base.rounding == "nearest":
        what = "weights of a row rounded together"
        found.append(Candidate(what, replace(base, rounding="gptq")))
    if not base.bias_correction:
        found.append(Candidate("bias correction", replace(base, bias_correction=True)))
    if not base.equalize:
        found.append(Candidate("equalize channels across layers", replace(base, equalize=True)))
    products = list(dict.fromkeys(x.name for x in layers if x.op in PRODUCTS))
    worst = products[:PINNED]
    some: list[tuple[tuple[str, ...], Precision]] = []
    some += [((x,), "int16x8") for x in worst]
    # most of a network at another precision is no cure of it
    if len(products) >= FEW * PINNED:
        some.append((tuple(worst), "int16x8"))
    some += [((x,), "float32") for x in worst]
    for names, precision in some:
        pins = (*((literal(x), precision) for x in names), *base.pins)
        what = names[0] if len(names) == 1 else f"these {len(names)}"
        pinned = replace(base, pins=pins)
        found.append(Candidate(f"{what} in {precision}", pinned, names, precision))
    moved = [x for x in layers if x.op not in PRODUCTS and (x.effect_db or 0) > NEAR]
    for x in moved[:PINNED]:
        if x.value in values and x.value not in base.wide:
            wide = replace(base, wide=(*base.wide, x.value))
            found.append(Candidate(f"{x.name} in 16 bits", wide, (x.name,), "int16x8"))
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
    now: NDArray[np.float64],
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
        now: What each sample that judges adds to the error of the outputs now; [samples].
        layers: The worst first.
        recipe: Where to start from; the defaults when None.
        milliseconds: Measured time of layers by name.
        progress: Told what happens.
    """
    found: list[Cure] = []

    def simulated(c: Candidate, done: Quantized) -> None:
        q = dequantized_weights(done.graph).graph
        left = judge.noises(q, judge.names)
        gain = decibels(float(now.sum()), float(left.sum())) if now.any() else 0.0
        size = (constant_bytes(done.graph) - constant_bytes(anew.graph)) / 1e3
        time: float | None = None
        if not c.layers:
            time = 0.0
        elif milliseconds and all(x in milliseconds for x in c.layers):
            time = sum(milliseconds[x] for x in c.layers) * (SLOWER[c.precision] - 1)
        found.append(Cure(c.what, c.recipe, gain, size, time, interval(now, left)))

    def attempt(c: Candidate) -> None:
        progress(f"trying: {c.what}")
        try:
            simulated(c, _quantized(f, samples, anew, c.recipe))
        except BadInput:
            # the last layer in codes, which float would leave no quantization
            if not c.layers:
                raise

    which = "default" if recipe is None else "same"
    what = f"quantize anew by the {which} recipe"
    progress(f"trying: {what}")
    anew = run(f, samples, recipe or Recipe())
    # with the values that want 16 bits, which are looked for once
    base = anew.recipe
    simulated(Candidate(what, base), anew)
    for c in candidates(base, f.types, layers):
        attempt(c)
    free = sorted(
        (c for c in found if (c.recipe.pins, c.recipe.wide) == (base.pins, base.wide)),
        key=lambda c: c.gain_db,
    )
    useful = [c for c in free if c.gain_db > NEAR and c.recipe != base]
    # the best of those that change the same thing
    best = {f: c for c in useful for f in _changed(base, c.recipe)}
    if len(best) > 1:
        joined = replace(base, **{f: getattr(c.recipe, f) for f, c in best.items()})
        names = sorted({c.what: c.gain_db for c in best.values()}.items(), key=lambda x: -x[1])
        attempt(Candidate(" and ".join(what for what, _ in names), joined))
    return tuple(sorted(found, key=lambda c: -c.gain_db))


# What of a recipe needs other statistics than were taken, or another graph.
_ANEW = ("equalize", "smooth", "complete")


def _quantized(
    f: Graph, samples: Sequence[Mapping[str, Array]], known: Quantized, recipe: Recipe
) -> Quantized:
    """`run`, from the statistics of another recipe where they serve."""
    old = known.recipe
    moments = old.rounding != "nearest" or recipe.rounding == "nearest"
    if moments and all(getattr(old, x) == getattr(recipe, x) for x in _ANEW):
        return requantized(known.source, known.statistics, recipe)
    return run(f, samples, recipe)
