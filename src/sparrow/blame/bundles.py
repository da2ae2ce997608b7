"""Blame for bundles: what they were made by and from, and native code that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparrow.blame.models import Calib, blame_model
from sparrow.blame.result import Blame, LayerBlame
from sparrow.bundle import Bundle
from sparrow.errors import BadBundle, BadInput
from sparrow.evidence.layers import layer_failure
from sparrow.evidence.proof import prove
from sparrow.folder import (
    check_hashes,
    hooked_library,
    load_evidence,
    load_graphs,
    weights_of,
)
from sparrow.importers.imported import Shapes
from sparrow.importers.model import Model
from sparrow.quant.calibrate import digest
from sparrow.quant.engine import with_states
from sparrow.quant.noise import decibels
from sparrow.quant.recipe import Recipe, read_recipe
from sparrow.samples import Pixels, samples


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


def states_of_bundle(bundle: Bundle) -> dict[str, str]:
    """Model input -> output pairs that a bundle of one entry point carries."""
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
