"""`sparrow bench`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparrow.arguments import constants_of, models_of, shapes_of, states_of
from sparrow.cli.options import (
    ConstantOption,
    CoresOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    ShapeOption,
    StateOption,
    SustainedOption,
    TargetOption,
    ThreadsOption,
    progress,
    show,
)
from sparrow.cli.report import show_sustained
from sparrow.errors import BadInput, printable

if TYPE_CHECKING:
    from sparrow.bundle import Bundle


def bench(
    model: ModelArgument,
    against: Annotated[
        str, typer.Option(help="engine to compare with: onnxruntime, or none")
    ] = "onnxruntime",
    target: TargetOption = "host",
    shape: ShapeOption = None,
    state: StateOption = None,
    constant: ConstantOption = None,
    threads: ThreadsOption = 1,
    rounds: Annotated[int, typer.Option(min=5, max=10000)] = 20,
    source: Annotated[
        list[str] | None,
        typer.Option(help="source model of a bundle: model.onnx or name=model.onnx"),
    ] = None,
    device: DeviceOption = "auto",
    cores: CoresOption = "",
    sustained: SustainedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time a model or a bundle, beside another engine or alone.

    Here or on a device, for a moment or minutes.
    """
    from sparrow.api import build as build_bundle
    from sparrow.api import load_bundle
    from sparrow.sources import sources_of
    from sparrow.timing.profiling import against_onnxruntime, as_built, check_sources_of

    if against not in ("onnxruntime", "none"):
        raise BadInput(f"--against {against!r}", hint="there are onnxruntime and none")
    constants = constants_of(constant)
    alone = against == "none" or sustained is not None or device not in ("auto", "host")
    folder = Path(model[0])
    if len(model) == 1 and os.path.isdir(folder):
        if not source and not alone:
            raise BadInput(
                f"{folder}: onnxruntime needs the source model to be at its best",
                hint="give --source model.onnx, or --against none",
            )
        bundle = load_bundle(folder, threads, device, cores)
        sources = sources_of(models_of(source), constants=constants) if source and not alone else {}
        if sources:
            check_sources_of(bundle, sources)
            sources = as_built(bundle, sources)
    elif alone:
        raise BadInput(
            "a device and --sustained time a bundle", hint="`sparrow build -o out` first"
        )
    else:
        shapes, states = shapes_of(shape), states_of(state)
        sources = sources_of(models_of(model), shapes, states, constants)
        bundle = build_bundle(
            models_of(model),
            target,
            shapes=shapes,
            states=states,
            constants=constants,
            threads=threads,
            progress=progress,
        )
        progress.clear()
    if alone:
        _time_alone(bundle, sustained, as_json)
        return
    rows = [against_onnxruntime(bundle, s, i, rounds) for i, s in enumerate(sources.values())]
    if as_json:
        show([r.as_json() for r in rows])
        return
    for r in rows:
        print(printable(str(r)))


def _time_alone(bundle: Bundle, sustained: str | None, as_json: bool) -> None:
    from dataclasses import asdict

    from sparrow.timing.benchmark import bench_bundle

    if sustained is not None:
        show_sustained(bundle, [*bundle.entries.values()], sustained, as_json)
        return
    found: list[Any] = [bench_bundle(bundle, i) for i in bundle.entries.values()]
    if as_json:
        show([asdict(f) for f in found])
        return
    for f in found:
        print("\n".join(printable(line) for line in str(f).splitlines()))
