"""The public functions; ``sparrow`` loads this module on first use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from sparrow.bundle import Bundle, load_bundle
from sparrow.checker import Check, check_sources
from sparrow.compiler import (
    compile_front,
    compile_sources,
    front,
)
from sparrow.device.here import resolve_target
from sparrow.errors import BadInput, BadModel
from sparrow.evidence.held_out import (
    coded,
    holds_codes,
    quantizable,
    quantized_entries,
)
from sparrow.evidence.receipt import SearchRecord
from sparrow.importers.imported import Shapes
from sparrow.importers.model import AnyModel
from sparrow.kernels.case import Kernel
from sparrow.quant import Recipe
from sparrow.quantizing import Given, qdq_file, quantize_model
from sparrow.request import Budget, Evaluate, Progress, Request
from sparrow.samples import Pixels, draw
from sparrow.sources import sources_and_samples, sources_of
from sparrow.targets import SUFFIXES, device
from sparrow.tuning import read_tuning

if TYPE_CHECKING:
    from sparrow.fitting import Fit

PRECISIONS = ("float32", "bfloat16", "int8", "auto")
# To measure in.
MAX_TUNE_S = 3600.0


def build(
    model: AnyModel | Mapping[str, AnyModel],
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
    constants: Mapping[str, Any] | None = None,
    kernels: Sequence[Kernel] = (),
    recipe: Recipe | None = None,
    code: str = "auto",
    pixels: Pixels | None = None,
    tune: float = 0.0,
    tuning: str | Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Compile a model into a verified bundle.

    Args:
        model: Path of an ONNX or .tflite file, ModelProto, ``torch.nn.Module`` (exported for the
            shapes given or those of the first sample, in inference mode), or entry name -> model
            for several entry points that share weights.
        target: Name of a target row, a TOML file that is one, or ``host``.
        out: Bundle folder; a temporary one that lives as long as the Bundle when None.
        shapes: Static shapes of inputs with dynamic dimensions; the samples' where not given.
        calib: Samples to quantize and prove with: arrays, dicts or tuples, a ``.npz``, an image
            folder; read once. Every fifth is held out to judge. None proves with random inputs.
            Of several entry points a mapping from their names to samples, or a source that fits
            the inputs of each.
        evaluate: Accuracy of a predictor, for ``budget.drop``: ``predict(feeds)``, of several entry
            points ``predict(feeds, name)``, gives outputs by name. States go on between calls.
        precision: ``float32``; ``bfloat16``: products over bfloat16 with float32 sums where that is
            predicted to be faster, float32 where the target multiplies no bfloat16; ``int8``, which
            needs ``calib``; either fails when it is slower than float32 on this machine; or
            ``auto``: float32 without ``calib``, else int8, or where a gate refuses that the fastest
            mix of precisions, layer by layer. With a budget the mix that is the fastest within
            ``budget.drop`` and the other goals, or without a drop the most accurate within those.
            Never slower than float32.
        threads: Threads the bundle will run with.
        budget: Goals of ``auto`` and gates of all; GateFailed when one does not hold.
        states: Model input -> output pairs carried from call to call.
        constants: Inputs fixed to a value, such as a sample rate; they vanish from the model.
        kernels: Rows preferred to the built-in table where they cost no more.
        recipe: How to quantize, and pins; the defaults are those of docs/quantization.md, and for a
            CPU without an FPU the scheme ``tflite``. That of a bundle, ``recipe.json``, with
            ``int8`` gives the bundle's bytes again.
        code: Of sums over codes: ``fast``; ``compact``, a third of the bytes in up to twice the
            time; or ``auto``: fast, and compact where ``budget.size`` is not kept otherwise.
        pixels: How images of ``calib`` become numbers; [0, 1] by default.
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
    from sparrow.attempts import Attempts, write_first_that_holds
    from sparrow.publish import check_place
    from sparrow.timing.tune import Tuner

    if precision not in PRECISIONS:
        choices = f"one of {', '.join(PRECISIONS)}"
        raise BadInput(
            f"precision {precision!r} is not available",
            hint=f"use {'int8 and pin *=int16x8' if precision == 'int16x8' else choices}",
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
    sources, calib = sources_and_samples(model, shapes, states, calib, constants)
    if calib is None and recipe is not None:
        raise BadInput(
            "a recipe or a pin needs samples", hint="give calib=, an .npz or an image folder"
        )
    request = Request(
        threads, precision, calib, evaluate, budget or Budget(), say, pixels or Pixels()
    )
    known = None if tuning is None else read_tuning(Path(tuning))
    tuner = Tuner(row, known, tune, threads, say)
    try:
        attempts = Attempts(front(sources), row, request, tuner, kernels, request.budget.ram)
        return write_first_that_holds(attempts, sources, place, recipe, code)
    except MemoryError:
        raise BadModel(
            "the model's tensors do not fit into the memory of this machine",
            hint="give smaller shapes, or build on a larger machine",
        ) from None


def plan_precisions(
    model: AnyModel,
    target: str = "host",
    shapes: Shapes | None = None,
    calib: Iterable[Any] | str | Path | None = None,
    evaluate: Evaluate | None = None,
    threads: int = 1,
    budget: Budget | None = None,
    *,
    states: Mapping[str, str] | None = None,
    constants: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    code: str = "auto",
    pixels: Pixels | None = None,
    progress: Progress | None = None,
) -> tuple[SearchRecord, Recipe]:
    """What `build` would choose for every layer within a budget, and the recipe that says so.

    Arguments are those of `build`; nothing is written, and what was held out judges nothing.

    Raises:
        GateFailed: No mix of precisions keeps the budget.
        SparrowError: As for `build`.
    """
    from sparrow.attempts import Attempts, search_of
    from sparrow.timing.tune import Tuner

    say = progress or (lambda _: None)
    if calib is None:
        raise BadInput("a plan needs samples", hint="give calib=, an .npz or an image folder")
    sources, calib = sources_and_samples(model, shapes, states, calib, constants)
    row = resolve_target(target)
    request = Request(threads, "auto", calib, evaluate, budget or Budget(), say, pixels or Pixels())
    say("reading the model")
    tuner = Tuner(row, None, 0.0, threads, say)
    attempts = Attempts(front(sources), row, request, tuner, ram=request.budget.ram)
    search = search_of(attempts, attempts.in_floats(0.0), attempts.in_codes(code), recipe)
    best = next(search.candidates())
    return best.record, search.recipe_of((x.name, x.precision) for x in best.record.layers)


def check(
    model: AnyModel | Mapping[str, AnyModel],
    target: str = "host",
    shapes: Shapes | None = None,
    *,
    states: Mapping[str, str] | None = None,
    constants: Mapping[str, Any] | None = None,
) -> Check:
    """What would become of every node on a target; lists all that is missing.

    Args:
        model: As for `build`.
        target: Name of a target row, or ``host``.
        shapes: Static shapes of inputs with dynamic dimensions.
        states: Model input -> output pairs carried from call to call.
        constants: Inputs fixed to a value, such as a sample rate; they vanish from the model.

    Raises:
        SparrowError: The model cannot be read, or a dynamic dimension has no value.
    """
    return check_sources(sources_of(model, shapes, states, constants), resolve_target(target))


def fits(
    model: AnyModel | Mapping[str, AnyModel],
    target: str,
    shapes: Shapes | None = None,
    calib: Iterable[Any] | str | Path | None = None,
    precision: str = "auto",
    *,
    states: Mapping[str, str] | None = None,
    constants: Mapping[str, Any] | None = None,
    flash: int | None = None,
    ram: int | None = None,
    pixels: Pixels | None = None,
) -> Fit:
    """What a model takes on a target, to the byte, and whether it fits; no board is needed.

    Args:
        model: As for `build`.
        target: Name of a target row, or ``host``.
        shapes: Static shapes of inputs with dynamic dimensions; the samples' where not given.
        calib: Samples to quantize with. For int8 without any, drawn ones give these sizes but
            for some bytes of code, whose constants are scales, and values that want 16 bits.
        precision: ``float32``, ``int8``, or ``auto``: int8 with ``calib``, else float32.
        states: Model input -> output pairs carried from call to call.
        constants: Inputs fixed to a value, such as a sample rate; they vanish from the model.
        flash: Flash in bytes, instead of the row's.
        ram: RAM in bytes, instead of the row's. Where it is not enough, layers are computed in
            strips of rows, and the figures are of that.
        pixels: How images of ``calib`` become numbers; [0, 1] by default.

    Raises:
        SparrowError: One line that says where, what was expected and found, and what to do.
    """
    from sparrow.evidence.golden import SEED
    from sparrow.fitting import fit, in_strips

    if precision not in ("float32", "int8", "auto"):
        raise BadInput(f"precision {precision!r}", hint="use float32, int8 or auto")
    row = resolve_target(target)
    sources, calib = sources_and_samples(model, shapes, states, calib, constants)
    found = front(sources)
    note = ""
    wanted = precision == "int8" or (precision == "auto" and calib is not None)
    if precision == "auto" or any(map(holds_codes, found.graphs)):
        wanted = wanted and all(map(quantizable, found.graphs))
    if wanted:
        if calib is None:
            drawn = {
                g.name: [draw(g, (SEED, e, k)) for k in range(4)]
                for e, g in enumerate(found.graphs)
            }
            calib = drawn if len(drawn) > 1 else drawn[found.graphs[0].name]
            note = "calibrated on drawn inputs: sizes, no accuracy"
        recipe = None if row.fpu else Recipe(scheme="tflite")
        how = pixels or Pixels()
        lossy = quantized_entries(found.graphs, calib, recipe, lambda _: None, how)
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
    if whole.flash_limit and whole.flash_bytes > whole.flash_limit:
        return replace(whole, strips="not searched: they would take more flash, which is short")
    return in_strips(whole, fitted(room))


def quantize(
    model: AnyModel,
    calib: Iterable[Any] | str | Path,
    recipe: Recipe | None = None,
    *,
    shapes: Shapes | None = None,
    states: Mapping[str, str] | None = None,
    constants: Mapping[str, Any] | None = None,
    pixels: Pixels | None = None,
    evaluation: Iterable[Any] | str | Path | None = None,
    progress: Progress | None = None,
) -> onnx.ModelProto:
    """A model in QDQ form for any ONNX runtime: int8 weights, 8-bit activations, float in and out.

    Activations are uint8, the codes of int8 plus 128, which is what runtimes for x86 are fast with.
    A recipe that rules out zero points (``symmetric``, for one) leaves them int8.

    Args:
        model: Path, ModelProto or ``torch.nn.Module``, as for `build`.
        calib: Samples: arrays, dicts or tuples, a ``.npz``, an image folder; read once.
        recipe: How; the defaults are those of docs/quantization.md.
        shapes: Static shapes of inputs with dynamic dimensions.
        states: Model input -> output pairs carried from sample to sample.
        constants: Inputs fixed to a value, such as a sample rate; they vanish from the model.
        pixels: How images of a folder become numbers; [0, 1] by default.
        evaluation: Samples the result will be judged on: refused among ``calib``.
        progress: Told what happens, a few words each.

    Raises:
        SparrowError: The model, the samples or the recipe are no good; one line says where.
    """
    given = Given(
        shapes=shapes,
        states=states,
        constants=constants,
        pixels=pixels,
        evaluation=evaluation,
        progress=progress,
    )
    done, _ = quantize_model(model, calib, recipe, given)
    return qdq_file(done)


def emit_sources(
    model: AnyModel | Mapping[str, AnyModel],
    target: str = "x86_64_v3",
    shapes: Shapes | None = None,
    threads: int = 1,
) -> dict[str, bytes]:
    """The emitted files of a model by name, without compiling them.

    Args:
        model: As for `build`; a quantized ONNX file gives code over its integers.
        target: Name of a target row, a TOML file that is one, or ``host``.
        shapes: Static shapes of inputs with dynamic dimensions.
        threads: Threads that tasks are cut for; results do not depend on it.

    Returns:
        ``model.c``, ``model.h``, ``sparrow.h``, ``weights.bin``, and what else the target takes.

    Raises:
        SparrowError: One line that says where, what was expected and found, and what to do.
    """
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
]
