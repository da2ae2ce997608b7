"""Blame for model files and samples, and the cure that is written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from sparrow.blame.explain import explain
from sparrow.blame.judging import split
from sparrow.blame.pairing import strangers
from sparrow.blame.result import NEAR, Blame, Cure
from sparrow.errors import BadInput, GateFailed
from sparrow.graph import Graph
from sparrow.importers.imported import Shapes
from sparrow.importers.model import Model, import_model, input_names
from sparrow.input_shapes import check_types, open_inputs, shapes_from_graph, shapes_from_samples
from sparrow.passes import FRONT, optimize
from sparrow.publish import replace_file
from sparrow.quant.health import Watch
from sparrow.quant.recipe import Recipe
from sparrow.reference import one_thread
from sparrow.samples import Feeds, Pixels, samples

Calib = Iterable[Any] | str | Path


def float_graph(
    model: Model,
    shapes: Shapes | None = None,
    constants: Mapping[str, Any] | None = None,
    states: Mapping[str, str] | None = None,
) -> Graph:
    """A float model as its quantization sees it."""
    with one_thread():
        found = import_model(model, shapes or {}, constants=constants, states=states)
        return optimize(found.graph, FRONT)


def blame_model(
    quantized: Model,
    model: Model | None,
    calib: Calib,
    *,
    recipe: Recipe | None = None,
    calibrated: Collection[str] | None = None,
    shapes: Shapes | None = None,
    constants: Mapping[str, Any] | None = None,
    pixels: Pixels | None = None,
    milliseconds: Mapping[str, float] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Blame:
    """Which layer of a QDQ model lost the accuracy.

    Args:
        quantized: Path or ModelProto in QDQ form.
        model: The float model; None takes the one inside ``quantized``.
        calib: Samples, see `sparrow.quantize`.
        recipe: The one it was made by, if known.
        calibrated: SHA-256 of the samples that it was calibrated on, if known: the others judge
            (`sparrow.blame.judging`).
        shapes: Static shapes of inputs with dynamic dimensions; where not given, the samples say
            those of the quantized model, and that says those of the float one.
        constants: Inputs fixed to a value, such as a sample rate; the quantized model need not
            have them any more.
        pixels: How images of a folder become numbers; [0, 1] by default.
        milliseconds: Measured time of layers by name.
        progress: Told what happens.

    Raises:
        BadInput: Nothing is quantized, the models do not belong together, there is no sample, or
            one is not finite.
    """
    progress("reading the models")
    constants = constants or {}
    # what the float model has may have vanished from the quantized one
    names = input_names(quantized) if model is not None else constants
    left = {k: v for k, v in constants.items() if k in names}
    known, calib = shapes_from_samples(quantized, _of(quantized, shapes), calib, constants)
    q = import_model(quantized, known, constants=left).graph
    if model is None:
        f = None
    else:
        known = shapes_from_graph(model, shapes or {}, q, "the quantized model", constants)
        f = float_graph(model, known, constants)
        check_types(f, q, "the float model", "the quantized one")
        for x in f.inputs:
            if x not in q.inputs:
                raise BadInput(
                    f"the float model takes {x!r}, the quantized one {', '.join(q.inputs)}",
                    hint=f"fix what that has fixed: --constant {x}=.., or give its own float model",
                )
        shapes_of = ([h.types[y].shape for y in h.outputs] for h in (f, q))
        renamed = strangers(f, q) and next(shapes_of) == next(shapes_of)
        for y in f.outputs:
            if y not in q.types and not renamed:
                raise BadInput(
                    f"outputs differ: the float model makes {y!r}, the quantized one "
                    f"{', '.join(q.outputs)}",
                    hint="give the float model that was quantized, values under the same names",
                )
    types = {x: q.types[x] for x in q.inputs}
    feeds: list[Feeds] = list(samples(calib, types, pixels or Pixels()))
    watch = Watch(q)
    for i, sample in enumerate(feeds):
        watch.sample(sample, i)
    parts = split(feeds, calibrated)
    return explain(
        *(q, f, parts.calibrates),
        judges=parts.judges,
        which=parts.kind,
        recipe=recipe,
        milliseconds=milliseconds,
        progress=progress,
    )


def _of(model: Model, shapes: Shapes | None) -> Shapes:
    """The shapes that are of inputs which the model leaves open."""
    left = open_inputs(model)
    return {k: v for k, v in (shapes or {}).items() if k in left}


def apply_cure(
    found: Blame,
    model: Model,
    calib: Calib,
    out: Path,
    *,
    shapes: Shapes | None = None,
    constants: Mapping[str, Any] | None = None,
    states: Mapping[str, str] | None = None,
    pixels: Pixels | None = None,
) -> Cure:
    """Quantize a float model anew by the best cure.

    Args:
        found: What blame said.
        model: The float model.
        calib: Samples to calibrate on.
        out: A ``.onnx`` file to write in QDQ form, or a bundle folder to build.
        shapes: As for `blame_model`.
        constants: As for `blame_model`.
        states: Model input -> output pairs carried from call to call, see `states_of_bundle`.
        pixels: As for `blame_model`.

    Raises:
        GateFailed: No cure gains enough, or the bundle's gates do not hold.
        BadInput: ``out`` cannot be written.
    """
    from sparrow.api import build, quantize

    cure = found.best
    if cure is None:
        raise GateFailed(f"no cure gains more than {NEAR:g} dB; nothing was written")
    if out.suffix == ".onnx":
        done = quantize(
            *(model, calib, cure.recipe),
            shapes=shapes,
            states=states,
            constants=constants,
            pixels=pixels,
        )
        replace_file(out, done.SerializeToString(deterministic=True))
    else:
        unsampled = {**(constants or {}), **(states or {})}
        shapes, calib = shapes_from_samples(model, shapes or {}, calib, unsampled)
        f = float_graph(model, shapes, constants, states)
        feeds = samples(calib, {x: f.types[x] for x in f.inputs}, pixels or Pixels())
        build(
            model,
            out=out,
            shapes=shapes,
            calib=feeds,
            precision="int8",
            states=states,
            constants=constants,
            recipe=cure.recipe,
        )
    return cure
