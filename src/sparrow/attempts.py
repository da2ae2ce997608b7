"""A model in the precision asked for: what is tried, and in which order, until every gate holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sparrow.assemble import write_bundle
from sparrow.bfloat16 import halved
from sparrow.bundle import Bundle
from sparrow.compiler import Compiled, Front, Source, compile_front
from sparrow.errors import BadInput, GateFailed
from sparrow.evidence.held_out import (
    Lossy,
    first_samples,
    holds_codes,
    quantizable,
    quantized_entries,
    quantized_entry,
)
from sparrow.graph import Graph
from sparrow.kernels import COMPACT, KERNELS
from sparrow.kernels.case import Kernel
from sparrow.passes.integer.sums import wide_sums
from sparrow.precision.bounds import refuse_hopeless
from sparrow.precision.search import Candidate, Search, goals_of
from sparrow.precision.tables import Compile
from sparrow.quant import Recipe
from sparrow.quant.kinds import layers_of_codes
from sparrow.quant.recipe import precisions
from sparrow.quant.run import requantized
from sparrow.request import Budget, Request
from sparrow.targets import Target
from sparrow.timing.race import FASTER, NOT_SLOWER, UNDECIDED, Bar
from sparrow.timing.tune import Tuner

# Kernel tables to try for sums over codes, in this order.
CODES = {"auto": (KERNELS, COMPACT), "fast": (KERNELS,), "compact": (COMPACT,)}


@dataclass(frozen=True, slots=True, eq=False)
class Attempts:
    """What every attempt at a model shares.

    Attributes:
        front: The model, read and optimized.
        row: Target.
        request: What was asked for.
        tuner: Chooses tiles and algorithms.
        kernels: Rows preferred to the built-in table.
        ram: Arena and states in bytes to keep to, by strips of rows where they must.
    """

    front: Front
    row: Target
    request: Request
    tuner: Tuner
    kernels: Sequence[Kernel] = ()
    ram: int | None = None

    def in_floats(self, share: float, bfloat16: bool = False, ram: int | None = None) -> Compiled:
        """The model with no integers but its own; ``share`` of the time to tune goes to it."""
        return self._compiled(self.front, KERNELS, share, bfloat16, ram)

    def in_codes(self, code: str) -> tuple[Compile, ...]:
        """How quantized graphs may become C, the fast way first.

        Raises:
            BadInput: There is no such code.
        """
        if code not in CODES:
            raise BadInput(f"code {code!r}", hint=f"use one of {', '.join(CODES)}")

        def way(table: Sequence[Kernel]) -> Compile:
            def compiled(graphs: Sequence[Graph]) -> Compiled:
                over = replace(self.front, graphs=tuple(graphs))
                return self._compiled(over, table, 1.0, False, self.ram)

            return compiled

        return tuple(way(table) for table in CODES[code])

    def _compiled(
        self, front: Front, table: Sequence[Kernel], share: float, bfloat16: bool, ram: int | None
    ) -> Compiled:
        return self.tuner.compiled(
            lambda tuning: compile_front(
                *(front, self.row),
                threads=self.request.threads,
                kernels=(*self.kernels, *table),
                tuning=tuning,
                bfloat16=bfloat16,
                ram=ram,
            ),
            share,
        )


def write_first_that_holds(
    attempts: Attempts,
    sources: Mapping[str, Source],
    place: Path | None,
    recipe: Recipe | None,
    code: str,
) -> Bundle:
    """Write the first attempt whose gates hold.

    Args:
        attempts: What they share.
        sources: The models, for the receipt.
        place: Bundle folder; a temporary one when None.
        recipe: How to quantize, and pins.
        code: Of sums over codes: ``fast``, ``compact`` or ``auto``.

    Raises:
        GateFailed: No attempt holds; the first gate that failed.
        BadInput: The recipe, the code or the samples are no good.
    """
    a, request = attempts, attempts.request
    graphs, calib, precision = a.front.graphs, request.calib, request.precision
    ways = a.in_codes(code)
    if precision == "int8":
        _check_integers(graphs, calib is not None)
    if precision == "bfloat16":
        return _write_bfloat16(a, sources, place)
    if all(map(layers_of_codes, graphs)):
        if recipe is not None:
            raise BadInput(
                "this model is quantized already: no recipe or pin changes what it computes",
                hint="leave them out, or give the float model it was made of",
            )
        request.progress("quantized already: compiled as it is, samples only judge")
        calib = None
    if precision == "float32" or calib is None:
        return write_bundle(a.in_floats(1.0, ram=a.ram), sources, place, request)
    # what of it is float32 in the end is not known yet
    plain = a.in_floats(0.0 if precision == "int8" else 0.5)
    if precision == "auto" and not all(map(quantizable, graphs)):
        return write_bundle(plain, sources, place, request)
    if recipe is None and not a.row.fpu:
        recipe = Recipe(scheme="tflite")  # nothing between input and output is a float
    if precision == "auto" and request.budget != Budget():
        if len(sources) > 1:
            raise BadInput(
                "precisions are searched for one entry point, "
                f"and there are {len(sources)}: {', '.join(sources)}",
                hint="give a precision, which the budget then judges",
            )
        with _nothing_written():
            search = search_of(a, plain, ways, recipe)
        return _write_mix(search, sources, place)

    request.progress("calibrating")
    lossy = quantized_entries(graphs, calib, recipe, request.progress, request.pixels)
    for way in ways:
        try:
            compiled = way([x.quantized.graph for x in lossy])
            bar = FASTER if precision == "auto" else NOT_SLOWER
            return write_bundle(compiled, sources, place, request, lossy, plain, bar=bar)
        except GateFailed as e:
            if e.gate == "size" and way is not ways[-1]:
                request.progress("once more in smaller code")
                continue
            if precision != "auto":
                raise
            request.progress(f"not int8 throughout: {e.message}")
            break
    if len(lossy) > 1:
        return _write_floats(a, plain, sources, place, lossy)
    # a mix has pins of its own; values that want 16 bits keep them
    q, pins = lossy[0].quantized, recipe.pins if recipe else ()
    free = requantized(q.source, q.statistics, replace(q.recipe, pins=()))
    search = Search(plain, replace(lossy[0], quantized=free), pins, request, ways)
    return _write_mix(search, sources, place)


def _check_integers(graphs: Sequence[Graph], calibrated: bool) -> None:
    """Refuse a demand for int8 that graphs cannot meet.

    Raises:
        BadInput: There are neither samples nor codes, or int32 may not hold a sum over codes.
    """
    if not calibrated and not any(map(holds_codes, graphs)):
        raise BadInput("int8 needs samples", hint="give calib=, an .npz or an image folder")
    for g in graphs:
        for name, extent in wide_sums(g).items():
            raise BadInput(
                f"{name}: int8 is asked for, but {extent}",
                hint="without --precision int8 the layer is computed in float32",
            )


def _write_bfloat16(a: Attempts, sources: Mapping[str, Source], place: Path | None) -> Bundle:
    """Products over bfloat16 where some gain by it, else float32."""
    plain = a.in_floats(0.0)
    compiled = a.in_floats(1.0, bfloat16=True, ram=a.ram)
    if halved(compiled.module.entries):
        return write_bundle(compiled, sources, place, a.request, rival=plain)
    lacks = f"{a.row.isa.name} multiplies no bfloat16"
    why = "no product gains by it" if a.row.isa.multiplies_bfloat16 else lacks
    a.request.progress(f"float32 instead of bfloat16: {why}")
    return write_bundle(plain, sources, place, a.request)


def _write_floats(
    a: Attempts,
    plain: Compiled,
    sources: Mapping[str, Source],
    place: Path | None,
    lossy: Sequence[Lossy],
) -> Bundle:
    """Products over bfloat16 where some gain by it and every gate holds, else float32."""
    asked = replace(a.request, calib=first_samples(lossy))
    if a.row.isa.multiplies_bfloat16:
        half = a.in_floats(1.0, bfloat16=True, ram=a.ram)
        try:
            if halved(half.module.entries):
                return write_bundle(half, sources, place, asked, rival=plain, bar=FASTER)
        except GateFailed as e:
            a.request.progress(f"not bfloat16: {e.message}")
    return write_bundle(plain, sources, place, asked)


def search_of(
    attempts: Attempts, plain: Compiled, ways: Sequence[Compile], recipe: Recipe | None
) -> Search:
    """A search over the precisions of a network's layers, calibrated with no layer pinned.

    Args:
        attempts: Of one entry point, with samples.
        plain: The network in float32.
        ways: How quantized graphs become C.
        recipe: How to quantize, and the pins to keep to.

    Raises:
        BadInput: A pin fits no layer, or the samples are no good.
        GateFailed: A goal is out of reach of any precision.
    """
    g, request, recipe = attempts.front.graphs[0], attempts.request, recipe or Recipe()
    precisions(g, recipe)  # a pin that fits nothing is said before the work
    refuse_hopeless(g, attempts.row, request.threads, goals_of(request.budget))
    assert request.calib is not None
    request.progress("calibrating")
    free = replace(recipe, precision="int8", pins=())
    lossy = quantized_entry(
        *(g, request.calib, free, request.progress, request.pixels), later=recipe.pins
    )
    return Search(plain, lossy, recipe.pins, request, ways)


@contextmanager
def _nothing_written() -> Iterator[None]:
    """A goal that a search cannot keep is refused with what came of the build."""
    try:
        yield
    except GateFailed as e:
        raise GateFailed(e.message, hint="no bundle was written", gate=e.gate) from None


def _within_goals(search: Search) -> Iterator[Candidate]:
    """The candidates of a search whose bundle is to be written."""
    with _nothing_written():
        yield from search.candidates()


def _write_mix(search: Search, sources: Mapping[str, Source], place: Path | None) -> Bundle:
    """The bundle of the best mix whose gates hold on what was held out and in a race.

    Where float32 keeps the goals, too, a mix that is no faster yields to it.
    """
    failed: GateFailed | None = None
    exact = search.exact_keeps()
    bar = FASTER if exact else NOT_SLOWER
    for c in _within_goals(search):
        try:
            return _write_candidate(search, c, sources, place, bar)
        except GateFailed as e:
            search.request.progress(f"another mix of precisions: {e.message}")
            search.refuse(c, e)
            failed = failed or e
            if exact and e.gate in (FASTER.name, FASTER.name + UNDECIDED):
                return _write_candidate(search, search.exact(), sources, place, bar)
    assert failed is not None
    raise failed


def _write_candidate(
    search: Search, c: Candidate, sources: Mapping[str, Source], place: Path | None, bar: Bar
) -> Bundle:
    """The bundle of a mix; of one of floats alone there is nothing to race."""
    if c.lossy is None:
        asked = replace(search.request, calib=search.lossy.first)
        return write_bundle(c.compiled, sources, place, asked, (), None, c.record)
    lossy, plain = (c.lossy,), search.plain
    return write_bundle(c.compiled, sources, place, search.request, lossy, plain, c.record, bar)
