"""`sparrow bench`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sparrow.arguments import models_of, shapes_of, states_of
from sparrow.cli.options import (
    JsonOption,
    ModelArgument,
    ShapeOption,
    StateOption,
    TargetOption,
    ThreadsOption,
    progress,
    show,
)
from sparrow.errors import BadInput, printable


def bench(
    model: ModelArgument,
    against: Annotated[str, typer.Option(help="engine to compare with")] = "onnxruntime",
    target: TargetOption = "host",
    shape: ShapeOption = None,
    state: StateOption = None,
    threads: ThreadsOption = 1,
    rounds: Annotated[int, typer.Option(min=5, max=10000)] = 20,
    source: Annotated[
        list[str] | None,
        typer.Option(help="source model of a bundle: model.onnx or name=model.onnx"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time a model, or a bundle, against another engine: interleaved, with intervals."""
    from sparrow.api import build as build_bundle
    from sparrow.api import load_bundle, sources_of
    from sparrow.timing.profiling import against_onnxruntime, check_sources_of

    if against != "onnxruntime":
        raise BadInput(f"--against {against!r}", hint="there is onnxruntime")
    folder = Path(model[0])
    if len(model) == 1 and os.path.isdir(folder):
        if not source:
            raise BadInput(
                f"{folder}: onnxruntime needs the source model to be at its best",
                hint="give --source model.onnx",
            )
        bundle = load_bundle(folder, threads)
        sources = sources_of(models_of(source))
        check_sources_of(bundle, sources)
    else:
        shapes, states = shapes_of(shape), states_of(state)
        sources = sources_of(models_of(model), shapes, states)
        bundle = build_bundle(
            models_of(model),
            target,
            shapes=shapes,
            states=states,
            threads=threads,
            progress=progress,
        )
        progress.clear()
    rows = [against_onnxruntime(bundle, s, i, rounds) for i, s in enumerate(sources.values())]
    if as_json:
        show([r.as_json() for r in rows])
        return
    for r in rows:
        print(printable(str(r)))
