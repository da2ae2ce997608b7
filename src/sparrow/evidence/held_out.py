"""A build that trades accuracy for speed: samples that calibrate, samples that judge.

Every fifth sample is held out, up to `HELD`: it calibrates nothing, and what is said of accuracy is
said of it. With fewer than five samples there is nothing to hold out, and the receipt says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparrow.errors import BadInput
from sparrow.graph import Graph
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.quant import Quantized, Recipe, digest, run
from sparrow.quant.few import Few
from sparrow.quant.health import refuse_not_finite
from sparrow.quant.kinds import layers_of_codes, sums_over_codes
from sparrow.quant.place import place
from sparrow.quant.recipe import Pins, precisions
from sparrow.reference import one_thread
from sparrow.samples import PLAIN, Feeds, Pixels, by_entry, samples

EVERY = 5
HELD = 64
# Golden calls are taken from the first samples that calibrate; a search looks at more.
FIRST = 3
KEPT = 32


@dataclass(frozen=True, slots=True, eq=False)
class Lossy:
    """A quantized entry point.

    Attributes:
        quantized: The QDQ graph and what it rests on.
        held: Samples that did not calibrate.
        kept: `KEPT` of those that did, spread over all, the first ones where there are states.
        first: The samples of the golden calls: the first that did.
    """

    quantized: Quantized
    held: tuple[Feeds, ...]
    kept: tuple[Feeds, ...]
    first: tuple[Feeds, ...]


def coded(graphs: Sequence[Graph]) -> bool:
    """Whether some sum of products is over codes."""
    return any(map(sums_over_codes, graphs))


def holds_codes(g: Graph) -> bool:
    """Whether a graph after `sparrow.passes.FRONT` holds codes that its file stores."""
    return coded([g]) or any(isinstance(n.op, Quantize | Dequantize) for n in g.nodes)


def quantizable(g: Graph) -> bool:
    """Whether a graph after `sparrow.passes.FRONT` has sums that can be over codes; none is."""
    return not layers_of_codes(g) and bool(place(g, precisions(g, Recipe()), Recipe()).sums)


def number_in_source(n: int) -> int:
    """Which of the samples that were given is the n-th of those that calibrate; 0 is the first."""
    return n + min(n // (EVERY - 1), HELD)


def quantized_entry(
    g: Graph,
    calib: Iterable[Any] | str | Path,
    recipe: Recipe | None,
    progress: Callable[[str], None],
    pixels: Pixels = PLAIN,
    later: Pins = (),
) -> Lossy:
    """Quantize an entry point that float passes have seen, on the samples that are not held out.

    Args:
        g: After `sparrow.passes.FRONT`.
        calib: See `sparrow.samples.samples`; read once.
        recipe: How; the defaults when None.
        progress: Told what happens.
        pixels: How images become numbers.
        later: See `sparrow.quant.run.run`.

    Raises:
        BadInput: The samples or the recipe are no good, or nothing can be quantized.
    """
    types = {x: g.types[x] for x in g.inputs}
    held: list[Feeds] = []
    first: list[Feeds] = []
    kept: Few[Feeds] = Few(KEPT, in_a_row=bool(g.states))

    def calibrating() -> Iterator[Feeds]:
        for i, f in enumerate(samples(calib, types, pixels)):
            if i % EVERY == EVERY - 1 and len(held) < HELD:
                refuse_not_finite(g, f, i)
                held.append(f)
                continue
            if len(first) < FIRST:
                first.append(f)
            kept.add(f)
            yield f

    with one_thread():
        done = run(
            *(g, calibrating(), recipe), later=later, number=number_in_source, progress=progress
        )
    seen = set(done.calibration.digests)
    # a sample that also calibrates judges nothing
    judges = tuple(f for f in held if digest(f) not in seen)
    return Lossy(done, judges, tuple(kept.taken), tuple(first))


def quantized_entries(
    graphs: Sequence[Graph],
    calib: Iterable[Any] | str | Path,
    recipe: Recipe | None,
    progress: Callable[[str], None],
    pixels: Pixels = PLAIN,
) -> tuple[Lossy, ...]:
    """Quantize every entry point on samples of its own.

    Each starts from the initial states, which stay what they are: no scale of one entry point is
    asked of another. Weights that two share have the same codes where rounding asks no samples.

    Args:
        graphs: After `sparrow.passes.FRONT`.
        calib: Samples, as for `quantized_entry`; of several entry points a mapping from their
            names, or what fits the inputs of each.
        recipe: As for `quantized_entry`; a pin fits some layer of each. One for all, so that no
            values of a single one take more bits than asked for (`Recipe.widen`).
        progress: Told what happens.
        pixels: As for `quantized_entry`.

    Raises:
        BadInput: As for `quantized_entry`, or an entry point has no samples.
    """
    if len(graphs) == 1:
        return (quantized_entry(graphs[0], calib, recipe, progress, pixels),)
    named = by_entry(calib, [g.name for g in graphs])
    if named is None and isinstance(calib, Iterator):
        raise BadInput(
            f"an iterator of samples is read once, and there are {len(graphs)} entry points",
            hint="give calib= a mapping from entry point to samples, or a list",
        )
    recipe = replace(recipe or Recipe(), widen=False)
    found = []
    for g in graphs:
        source = calib if named is None else named.get(g.name)
        if source is None:
            raise BadInput(
                f"entry point {g.name!r} has no samples",
                hint=f"give --calib {g.name}=samples.npz as well",
            )
        try:
            found.append(quantized_entry(g, source, recipe, progress, pixels))
        except BadInput as e:
            hint = e.hint if named else f"give it samples of its own: --calib {g.name}=samples.npz"
            raise BadInput(f"entry point {g.name!r}: {e.message}", hint=hint) from None
    return tuple(found)


def first_samples(entries: Sequence[Lossy]) -> Any:
    """The samples of the golden calls of all entry points, as `evidence.golden` takes them."""
    if len(entries) == 1:
        return entries[0].first
    return {x.quantized.graph.name: x.first for x in entries}
