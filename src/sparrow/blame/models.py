"""Blame for what users have: model files, bundles, samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparrow.blame.explain import explain
from sparrow.blame.judging import split
from sparrow.blame.result import NEAR, Blame, Cure, LayerBlame
from sparrow.errors import BadBundle, BadInput, GateFailed
from sparrow.graph import Graph
from sparrow.importers.imported import Shapes
from sparrow.importers.model import Model, import_model, input_names
from sparrow.input_shapes import check_types, open_inputs, shapes_from_graph, shapes_from_samples
from sparrow.passes import FRONT, optimize
from sparrow.quant.calibrate import digest
from sparrow.quant.engine import with_states
from sparrow.quant.health import Watch
from sparrow.quant.noise import decibels
from sparrow.quant.recipe import Recipe, read_recipe
from sparrow.reference import one_thread
from sparrow.samples import Feeds, Pixels, samples

if TYPE_CHECKING:
    from sparrow.bundle import Bundle

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
        for y in f.outputs:
            if y not in q.types:
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


def blame_bundle(
    bundle: Bundle,
    model: Model | None = None,
    calib: Calib | None = None,
    *,
    shapes: Shapes | None = None,
    constants: Mapping[str, Any] | None = None,
    pixels: Pixels | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Blame:
    """Which layer of a bundle lost the accuracy.

    Args:
        bundle: Built with int8 precision; its ``model.onnx`` says in QDQ form what it computes.
        model: The float model; None takes the one inside the bundle, whose weights are rounded.
        calib: Samples; the golden calls of the bundle when None. States carry over in order.
        shapes: As for `blame_model`.
        constants: As for `blame_model`.
        pixels: As for `blame_model`.
        progress: Told what happens.

    Raises:
        BadInput: The bundle is not quantized or has several entry points, or as for `blame_model`.
        BadBundle: Its files are not those of the receipt, or do not belong together.
    """
    from sparrow.folder import check_hashes, load_evidence

    altered = check_hashes(bundle.folder, bundle.receipt.files)
    if altered:
        raise BadBundle(f"{bundle.folder}: {altered}", hint="build it anew")
    if len(bundle.plan.entries) != 1:
        raise BadInput(f"{bundle.folder}: blame takes bundles of one entry point")
    if not bundle.receipt.quantization:
        raise BadInput(
            f"{bundle.folder}: nothing was quantized when it was built",
            hint="give the quantized file it was built from, or build it with --precision int8",
        )
    (g, *_), golden = load_evidence(bundle.folder, bundle.plan)
    if calib is None:
        calib = [dict(c.feeds) for c in golden.calls]
    calibrated = {x for r in bundle.receipt.quantization or () for x in r.calibrated}
    if g.states:
        types = {x: g.types[x] for x in g.inputs}
        given = list(samples(calib, types, pixels or Pixels()))
        calib = list(with_states(g, given))
        # the receipt knows them without what is carried
        pairs = zip(given, calib, strict=True)
        calibrated |= {digest(c) for x, c in pairs if digest(x) in calibrated}
    quantized = bundle.folder / Path(bundle.plan.entries[0].model).name
    found = blame_model(
        str(quantized),
        model,
        calib,
        recipe=recipe_of_bundle(bundle),
        calibrated=calibrated or None,
        shapes=shapes,
        constants=constants,
        pixels=pixels,
        milliseconds=_milliseconds(bundle),
        progress=progress,
    )
    progress("proving the native code")
    return replace(found, layers=(*_wrong_kernels(bundle), *found.layers))


def _wrong_kernels(bundle: Bundle) -> list[LayerBlame]:
    """The steps whose native code is not within its bound of the reference, fed the same."""
    from sparrow.evidence.layers import layer_failure
    from sparrow.evidence.proof import prove
    from sparrow.folder import hooked_library, load_evidence, weights_of

    graphs, golden = load_evidence(bundle.folder, bundle.plan)
    hooked = hooked_library(bundle.folder, bundle.plan, bundle.runner)
    weights = weights_of(bundle.folder)
    proof = prove(graphs, bundle.plan, golden, bundle.session.library, hooked, weights)
    return [
        LayerBlame(
            *(c.origin, c.op, f"step {c.step}"),
            decibels(c.scale**2, c.own**2),
            decibels(c.scale**2, c.inherited**2),
            None,
            "wrong kernel",
            layer_failure(c),
        )
        for c in proof.layers
        if not c.ok
    ]


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
    from sparrow.publish import replace_file

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


def states_of_bundle(bundle: Bundle) -> dict[str, str]:
    """Model input -> output pairs that a bundle of one entry point carries."""
    from sparrow.folder import load_graphs

    return {s.input: s.output for s in load_graphs(bundle.folder, bundle.plan)[0].states}


def recipe_of_bundle(bundle: Bundle) -> Recipe | None:
    """The recipe that a bundle was quantized by; None where it is not quantized by us."""
    path = bundle.folder / "recipe.json"
    return read_recipe(path) if path.is_file() else None


def _milliseconds(bundle: Bundle) -> dict[str, float]:
    """Time of each source layer in the newest profile of a bundle."""
    profiles = bundle.measurements.get("profiles", ())
    found: dict[str, float] = {}
    for step in profiles[-1].get("steps", ()) if profiles else ():
        name, ns = step.get("origin"), step.get("ns")
        if isinstance(name, str) and isinstance(ns, (int, float)):
            found[name] = found.get(name, 0.0) + ns / 1e6
    return found
