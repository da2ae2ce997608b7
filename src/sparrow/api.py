"""The public functions; ``sparrow`` loads this module on first use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from sparrow.bfloat16 import halved
from sparrow.bundle import Bundle, load_bundle
from sparrow.checker import Check, check_sources
from sparrow.compiler import (
    Compiled,
    Front,
    Shapes,
    Source,
    compile_front,
    compile_sources,
    front,
)
from sparrow.device.build import host_machine
from sparrow.device.cpu import host_isa
from sparrow.errors import BadInput, BadModel, GateFailed
from sparrow.evidence.lossy import (
    coded,
    first_samples,
    quantizable,
    quantized_entries,
    quantized_entry,
)
from sparrow.evidence.receipt import SearchRecord
from sparrow.graph import Graph
from sparrow.importers.model import Model, import_model, input_names
from sparrow.kernels import COMPACT, KERNELS
from sparrow.kernels.case import Kernel
from sparrow.passes import FRONT, optimize
from sparrow.portable import to_portable_onnx
from sparrow.precision.search import Compile, Search
from sparrow.quant import LayerReport, Quantized, Recipe, digest, report, run
from sparrow.quant.recipe import precisions
from sparrow.quant.run import requantized
from sparrow.reference import one_thread
from sparrow.request import Budget, Evaluate, Progress, Request
from sparrow.samples import Feeds, Pixels, draw, samples
from sparrow.targets import SUFFIXES, Target, device, devices
from sparrow.targets import target as target_row
from sparrow.timing.tune import Tuner
from sparrow.tuning import read_tuning

if TYPE_CHECKING:
    from sparrow.fitting import Fit

PRECISIONS = ("float32", "bfloat16", "int8", "auto")
# Kernel tables to try, in this order.
CODES = {"auto": (KERNELS, COMPACT), "fast": (KERNELS,), "compact": (COMPACT,)}
# To measure in.
MAX_TUNE_S = 3600.0
# Samples over which the layers of a quantization are compared.
REPORTED = 4


def resolve_target(name: str) -> Target:
    """The row of a target; ``host`` is the best row this machine can run.

    Raises:
        BadInput: There is no such row, or Sparrow does not compile for it.
    """
    if name != "host":
        return target_row(name)
    here = host_machine(host_isa())
    alike = (here.arch, here.cpu, here.isa)
    for row in (d.target for d in devices("cpu").values()):
        if row is not None and (row.machine.arch, row.cpu, row.isa.name) == alike:
            return replace(row, triple=here.triple)
    raise BadInput(f"no target row describes this machine ({here.triple})", hint="name a target")


def sources_of(
    model: Model | Mapping[str, Model],
    shapes: Shapes | None = None,
    states: Mapping[str, str] | None = None,
) -> dict[str, Source]:
    """Entry points of what a user calls a model: one file or proto, or several by name.

    With several, a shape or state speaks of every entry point that has an input of that name.

    Raises:
        BadInput: It is no model, or a shape or state names an input that no entry point has.
    """
    shapes, states = shapes or {}, states or {}
    if not isinstance(model, Mapping):
        return {"main": Source(_model(model), shapes, states=states)}
    if not model:
        raise BadInput("no model given")
    found: dict[str, Source] = {}
    known: set[str] = set()
    for name, m in model.items():
        if not str(name) or len(str(name)) > 256:
            raise BadInput(f"entry point name {str(name)[:40]!r} is empty or too long")
        inputs = input_names(_model(m))
        known |= inputs
        found[str(name)] = Source(
            m,
            {k: v for k, v in shapes.items() if k in inputs},
            states={k: v for k, v in states.items() if k in inputs},
        )
    unknown = [k for k in (*shapes, *states) if k not in known]
    if unknown:
        raise BadInput(
            f"shape or state given for {unknown[0]!r}, which is no input of any entry point",
            hint=f"inputs: {', '.join(sorted(known))}",
        )
    return found


def _model(model: object) -> Model:
    if not isinstance(model, (str, Path, onnx.ModelProto)):
        raise BadInput(
            f"a model is a path or an onnx.ModelProto, got {type(model).__name__}",
            hint="export a torch module with torch.onnx.export(module, args, 'model.onnx')",
        )
    return model


def build(
    model: Model | Mapping[str, Model],
    target: str = "host",
    out: str | Path | None = None,
    shapes: Shapes | None = None,
    calib: Iterable[Any] | str | Path | None = None,
    evaluate: Evaluate | None = None,
    precision: str = "auto",
    threads: int = 1,
    budget: Budget | None = None,
    *,
    states: Mapping[str, str] | None = None,
    kernels: Sequence[Kernel] = (),
    recipe: Recipe | None = None,
    code: str = "auto",
    tune: float = 0.0,
    tuning: str | Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Compile a model into a verified bundle.

    Args:
        model: Path of an ONNX or .tflite file, ModelProto, or entry name -> model for several entry
            points that share weights.
        target: Name of a target row, a TOML file that is one, or ``host``.
        out: Bundle folder; a temporary one that lives as long as the Bundle when None.
        shapes: Static shapes of inputs with dynamic dimensions.
        calib: Samples to quantize and prove with: arrays, dicts or tuples, a ``.npz``, an image
            folder; read once. Every fifth is held out to judge. None proves with random inputs.
            Of several entry points a mapping from their names to samples, or a source that fits
            the inputs of each.
        evaluate: Accuracy of a predictor, for ``budget.drop``: ``predict(feeds)``, of several entry
            points ``predict(feeds, name)``, gives outputs by name. States go on between calls.
        precision: ``float32``; ``bfloat16``: products over bfloat16 with float32 sums where that is
            predicted to be faster, float32 where the target multiplies no bfloat16; ``int8``, which
            needs ``calib``; either fails when it is slower than float32 on this machine; or
            ``auto``: float32 without ``calib``, else int8, or with a budget the mix of precisions,
            layer by layer, that is the fastest within ``budget.drop`` and the other goals, or
            without a drop the most accurate within those. Never slower than float32.
        threads: Threads the bundle will run with.
        budget: Goals of ``auto`` and gates of all; GateFailed when one does not hold.
        states: Model input -> output pairs carried from call to call.
        kernels: Rows preferred to the built-in table where they cost no more.
        recipe: How to quantize, and pins; the defaults are those of docs/quantization.md, and for a
            CPU without an FPU the scheme ``tflite``. That of a bundle, ``recipe.json``, with
            ``int8`` gives the bundle's bytes again.
        code: Of sums over codes: ``fast``; ``compact``, a third of the bytes in up to twice the
            time; or ``auto``: fast, and compact where ``budget.size`` is not kept otherwise.
        tune: Seconds to measure register tiles and algorithms in, on this machine; times are kept
            in the cache for later builds that tune. 0: kernels are chosen by predictions alone, or
            by ``tuning``.
        tuning: A file of such times, see docs/performance.md. Those that decided are in the bundle,
            ``tuning.json``, which gives the bundle's code again.
        progress: Told what happens, a few words each.

    Raises:
        GateFailed: The proof or a budget does not hold; no bundle is written.
        SparrowError: One line that says where, what was expected and found, and what to do.
    """
    from sparrow.assemble import write_bundle
    from sparrow.publish import check_place

    if precision not in PRECISIONS:
        raise BadInput(
            f"precision {precision!r} is not available", hint=f"use one of {', '.join(PRECISIONS)}"
        )
    if not isinstance(threads, int) or threads < 1:
        raise BadInput(f"threads must be at least 1, got {threads!r}")
    if type(tune) not in (int, float) or not 0 <= tune <= MAX_TUNE_S:
        raise BadInput(f"tune is {tune!r}, expected seconds from 0 to {MAX_TUNE_S:g}")
    if out is not None and not isinstance(out, (str, Path)):
        raise BadInput(f"out must be a path, got {type(out).__name__}")
    if budget is not None and not isinstance(budget, Budget):
        raise BadInput(f"budget is a sparrow.Budget, got {type(budget).__name__}")
    place = None if out is None else Path(out)
    row = resolve_target(target)
    if row.machine.system not in SUFFIXES:
        raise BadInput(
            f"target {row.name!r} has no system that loads libraries ({row.triple}), and other "
            "artifacts are not built yet",
            hint="sparrow check works for it, and sparrow.emit_sources gives its C sources",
        )
    if place is not None:
        check_place(place)
    say = progress or (lambda _: None)
    say("reading the model")
    sources = sources_of(model, shapes, states)
    if precision == "int8" and calib is None:
        raise BadInput("int8 needs samples", hint="give calib=, an .npz or an image folder")
    request = Request(threads, precision, calib, evaluate, budget or Budget(), say)
    table = (*kernels, *KERNELS)
    known = None if tuning is None else read_tuning(Path(tuning))
    tuner = Tuner(row, known, tune, threads, say)

    ram = request.budget.ram

    def compiled_float(share: float, bfloat16: bool = False, ram: int | None = None) -> Compiled:
        return tuner.compiled(
            lambda t: compile_front(
                *(found, row),
                threads=threads,
                kernels=table,
                tuning=t,
                bfloat16=bfloat16,
                ram=ram,
            ),
            share,
        )

    try:
        found = front(sources)
        if precision == "bfloat16":
            plain = compiled_float(0.0)
            compiled = compiled_float(1.0, bfloat16=True, ram=ram)
            if halved(compiled.module.entries):
                return write_bundle(compiled, sources, place, request, rival=plain)
            lacks = f"{row.isa.name} multiplies no bfloat16"
            why = "no product gains by it" if row.isa.multiplies_bfloat16 else lacks
            say(f"float32 instead of bfloat16: {why}")
            return write_bundle(plain, sources, place, request)
        if precision == "float32" or calib is None or coded(found.graphs):
            return write_bundle(compiled_float(1.0, ram=ram), sources, place, request)
        # what of it is float32 in the end is not known yet
        plain = compiled_float(0.0 if precision == "int8" else 0.5)
        if precision == "auto" and not all(map(quantizable, found.graphs)):
            return write_bundle(plain, sources, place, request)
        if recipe is None and not row.fpu:
            recipe = Recipe(scheme="tflite")  # nothing between input and output is a float

        ways = _ways(found, row, threads, kernels, code, tuner, ram)
        if precision == "auto" and request.budget != Budget():
            if len(sources) > 1:
                raise BadInput(
                    "precisions are searched for one entry point, "
                    f"and there are {len(sources)}: {', '.join(sources)}",
                    hint="give a precision, which the budget then judges",
                )
            search = _search(found.graphs[0], plain, ways, recipe, request)
            return _first_that_holds(search, sources, place, request)
        say("calibrating")
        lossy = quantized_entries(found.graphs, calib, recipe, say)
        graphs = [x.quantized.graph for x in lossy]
        for way in ways:
            try:
                return write_bundle(way(graphs), sources, place, request, lossy, plain)
            except GateFailed as e:
                if e.gate == "size" and way is not ways[-1]:
                    say("once more in smaller code")
                    continue
                if precision != "auto":
                    raise
                say(f"not int8 throughout: {e.message}")
                break
        q, pins = lossy[0].quantized, recipe.pins if recipe else ()
        # what 8 bits do not hold was given 16: a search, which pins the user's layers alone, would
        # take that back
        if len(lossy) > 1 or q.recipe.pins != pins:
            asked = replace(request, calib=first_samples(lossy))
            if row.isa.multiplies_bfloat16:
                half = compiled_float(1.0, bfloat16=True, ram=ram)
                try:
                    if halved(half.module.entries):
                        return write_bundle(half, sources, place, asked, rival=plain)
                except GateFailed as e:
                    say(f"not bfloat16: {e.message}")
            return write_bundle(plain, sources, place, asked)
        # a mix has pins of its own
        free = requantized(q.source, q.statistics, replace(q.recipe, pins=()))
        search = Search(plain, replace(lossy[0], quantized=free), pins, request, ways)
        return _first_that_holds(search, sources, place, request)
    except MemoryError:
        raise BadModel(
            "the model's tensors do not fit into the memory of this machine",
            hint="give smaller shapes, or build on a larger machine",
        ) from None


def _ways(
    found: Front,
    row: Target,
    threads: int,
    kernels: Sequence[Kernel],
    code: str,
    tuner: Tuner,
    ram: int | None,
) -> tuple[Compile, ...]:
    """How a quantized graph may become C, the fast way first."""
    if code not in CODES:
        raise BadInput(f"code {code!r}", hint=f"use one of {', '.join(CODES)}")

    def way(table: Sequence[Kernel]) -> Compile:
        def compiled(graphs: Sequence[Graph]) -> Compiled:
            over = replace(found, graphs=tuple(graphs))
            return tuner.compiled(
                lambda t: compile_front(
                    *(over, row), threads=threads, kernels=(*kernels, *table), tuning=t, ram=ram
                )
            )

        return compiled

    return tuple(way(table) for table in CODES[code])


def _search(
    g: Graph,
    plain: Compiled,
    ways: Sequence[Compile],
    recipe: Recipe | None,
    request: Request,
) -> Search:
    """Tables of a network, calibrated with no layer pinned."""
    recipe = recipe or Recipe()
    precisions(g, recipe)  # a pin that fits nothing is said before the work
    assert request.calib is not None
    request.progress("calibrating")
    free = replace(recipe, precision="int8", widen=False, pins=())
    lossy = quantized_entry(g, request.calib, free, request.progress)
    return Search(plain, lossy, recipe.pins, request, ways)


def _first_that_holds(
    search: Search, sources: Mapping[str, Source], place: Path | None, request: Request
) -> Bundle:
    """The bundle of the best mix whose gates hold on what was held out and in a race."""
    from sparrow.assemble import write_bundle

    failed: GateFailed | None = None
    for c in search.candidates():
        asked = request if c.lossy else replace(request, calib=search.lossy.first)
        lossy, rival = ((c.lossy,), search.plain) if c.lossy else ((), None)
        try:
            return write_bundle(c.compiled, sources, place, asked, lossy, rival, c.record)
        except GateFailed as e:
            request.progress(f"another mix of precisions: {e.message}")
            failed = failed or e
    assert failed is not None
    raise failed


def plan_precisions(
    model: Model,
    target: str = "host",
    shapes: Shapes | None = None,
    calib: Iterable[Any] | str | Path | None = None,
    evaluate: Evaluate | None = None,
    threads: int = 1,
    budget: Budget | None = None,
    *,
    states: Mapping[str, str] | None = None,
    recipe: Recipe | None = None,
    code: str = "auto",
    progress: Progress | None = None,
) -> tuple[SearchRecord, Recipe]:
    """What `build` would choose for every layer within a budget, and the recipe that says so.

    Arguments are those of `build`; nothing is written, and what was held out judges nothing.

    Raises:
        GateFailed: No mix of precisions keeps the budget.
        SparrowError: As for `build`.
    """
    say = progress or (lambda _: None)
    if calib is None:
        raise BadInput("a plan needs samples", hint="give calib=, an .npz or an image folder")
    sources, row = sources_of(model, shapes, states), resolve_target(target)
    request = Request(threads, "auto", calib, evaluate, budget or Budget(), say)
    say("reading the model")
    found = front(sources)

    plain = compile_front(found, row, threads=threads)
    ways = _ways(found, row, threads, (), code, Tuner(row, None, 0.0, threads, say), None)
    search = _search(found.graphs[0], plain, ways, recipe, request)
    best = next(search.candidates())
    return best.record, search.recipe_of((x.name, x.precision) for x in best.record.layers)


def check(
    model: Model | Mapping[str, Model],
    target: str = "host",
    shapes: Shapes | None = None,
    *,
    states: Mapping[str, str] | None = None,
) -> Check:
    """What would become of every node on a target; lists all that is missing.

    Args:
        model: As for `build`.
        target: Name of a target row, or ``host``.
        shapes: Static shapes of inputs with dynamic dimensions.
        states: Model input -> output pairs carried from call to call.

    Raises:
        SparrowError: The model cannot be read, or a dynamic dimension has no value.
    """
    return check_sources(sources_of(model, shapes, states), resolve_target(target))


def fits(
    model: Model | Mapping[str, Model],
    target: str,
    shapes: Shapes | None = None,
    calib: Iterable[Any] | str | Path | None = None,
    precision: str = "auto",
    *,
    states: Mapping[str, str] | None = None,
    flash: int | None = None,
    ram: int | None = None,
) -> Fit:
    """What a model takes on a target, to the byte, and whether it fits; no board is needed.

    Args:
        model: As for `build`.
        target: Name of a target row, or ``host``.
        shapes: Static shapes of inputs with dynamic dimensions.
        calib: Samples to quantize with. For int8 without any, drawn ones give the same sizes.
        precision: ``float32``, ``int8``, or ``auto``: int8 with ``calib``, else float32.
        states: Model input -> output pairs carried from call to call.
        flash: Flash in bytes, instead of the row's.
        ram: RAM in bytes, instead of the row's. Where it is not enough, layers are computed in
            strips of rows, and the figures are of that.

    Raises:
        SparrowError: One line that says where, what was expected and found, and what to do.
    """
    from sparrow.evidence.golden import SEED
    from sparrow.fitting import fit, in_strips

    if precision not in ("float32", "int8", "auto"):
        raise BadInput(f"precision {precision!r}", hint="use float32, int8 or auto")
    row = resolve_target(target)
    sources = sources_of(model, shapes, states)
    found = front(sources)
    note = ""
    wanted = precision == "int8" or (precision == "auto" and calib is not None)
    if wanted and not coded(found.graphs):
        if calib is None:
            drawn = {
                g.name: [draw(g, (SEED, e, k)) for k in range(4)]
                for e, g in enumerate(found.graphs)
            }
            calib = drawn if len(drawn) > 1 else drawn[found.graphs[0].name]
            note = "calibrated on drawn inputs: sizes, no accuracy"
        recipe = None if row.fpu else Recipe(scheme="tflite")
        lossy = quantized_entries(found.graphs, calib, recipe, lambda _: None)
        found = replace(found, graphs=tuple(x.quantized.graph for x in lossy))
    name = model if isinstance(model, (str, Path)) else found.graphs[0].name

    def fitted(most: int | None) -> Fit:
        compiled = compile_front(found, row, ram=most)
        return fit(
            compiled,
            Path(name).name,
            "int8" if coded(compiled.module.entries) else "float32",
            {} if target == "host" else device(target).figures,
            flash=flash,
            ram=ram,
            note=note,
        )

    whole = fitted(None)
    room = whole.ram_limit - whole.ram_bytes + whole.arena_bytes + whole.state_bytes
    if not whole.ram_limit or whole.ram_bytes <= whole.ram_limit or room <= 0:
        return whole
    return in_strips(whole, fitted(room))


def quantize_model(
    model: Model,
    calib: Iterable[Any] | str | Path,
    recipe: Recipe | None = None,
    *,
    shapes: Shapes | None = None,
    states: Mapping[str, str] | None = None,
    pixels: Pixels | None = None,
    evaluation: Iterable[Any] | str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[Quantized, list[LayerReport]]:
    """`quantize`, with the statistics behind it and how far every layer is from the float one."""
    if calib is None:
        raise BadInput("quantization needs samples", hint="give calib=, an .npz or an image folder")
    say = progress or (lambda _: None)
    say("reading the model")
    # what loading code says of images is for every source of them
    how = pixels or Pixels()
    ((name, source),) = sources_of(model, shapes, states).items()
    with one_thread():
        g = import_model(source.model, source.shapes, states=source.states, name=name).graph
        g = optimize(g, FRONT)
    types = {x: g.types[x] for x in g.inputs}
    judged = frozenset[str]()
    if evaluation is not None:
        judged = frozenset(digest(f) for f in samples(evaluation, types, how))
        if not judged:
            raise BadInput("the evaluation set is empty", hint="give at least one sample, or none")
    first: list[Feeds] = []

    def feeds() -> Iterator[Feeds]:
        for f in samples(calib, types, how):
            if len(first) < REPORTED:
                first.append(f)
            yield f

    done = run(g, feeds(), recipe, evaluation=judged, progress=say)
    say("comparing layer by layer")
    return done, report(done, first)


def quantize(
    model: Model,
    calib: Iterable[Any] | str | Path,
    recipe: Recipe | None = None,
    *,
    shapes: Shapes | None = None,
    states: Mapping[str, str] | None = None,
    pixels: Pixels | None = None,
    evaluation: Iterable[Any] | str | Path | None = None,
    progress: Progress | None = None,
) -> onnx.ModelProto:
    """A model in QDQ form for any ONNX runtime: int8 weights and activations, float in and out.

    Args:
        model: Path or ModelProto.
        calib: Samples: arrays, dicts or tuples, a ``.npz``, an image folder; read once.
        recipe: How; the defaults are those of docs/quantization.md.
        shapes: Static shapes of inputs with dynamic dimensions.
        states: Model input -> output pairs carried from sample to sample.
        pixels: How images of a folder become numbers; [0, 1] by default.
        evaluation: Samples the result will be judged on: refused among ``calib``.
        progress: Told what happens, a few words each.

    Raises:
        SparrowError: The model, the samples or the recipe are no good; one line says where.
    """
    done, _ = quantize_model(
        model,
        calib,
        recipe,
        shapes=shapes,
        states=states,
        pixels=pixels,
        evaluation=evaluation,
        progress=progress,
    )
    return to_portable_onnx(done.graph)


def emit_sources(
    model: Model | Mapping[str, Model],
    target: str = "x86_64_v3",
    shapes: Shapes | None = None,
    threads: int = 1,
) -> dict[str, bytes]:
    """The emitted files of a model by name, without compiling them."""
    compiled = compile_sources(sources_of(model, shapes), resolve_target(target), threads=threads)
    return dict(compiled.artifact.files)


__all__ = [
    "Budget",
    "Bundle",
    "Check",
    "Pixels",
    "Recipe",
    "build",
    "check",
    "emit_sources",
    "fits",
    "load_bundle",
    "plan_precisions",
    "quantize",
    "quantize_model",
]
