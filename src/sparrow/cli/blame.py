"""`sparrow blame`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparrow.arguments import constants_of, pixels_of, shapes_of
from sparrow.cli.options import (
    BgrOption,
    ConstantOption,
    JsonOption,
    MeanOption,
    ShapeOption,
    StdOption,
    progress,
    show,
)
from sparrow.errors import BadInput, printable


def blame(
    quantized: Annotated[Path, typer.Argument(help="bundle folder, or a model in QDQ form")],
    model: Annotated[
        Path | None, typer.Option(help="the float model; by default the one inside, as rounded")
    ] = None,
    calib: Annotated[
        Path | None, typer.Option(help="samples: .npz, .npy or a folder of images")
    ] = None,
    shape: ShapeOption = None,
    constant: ConstantOption = None,
    mean: MeanOption = "0",
    std: StdOption = "255",
    bgr: BgrOption = False,
    apply: Annotated[
        Path | None,
        typer.Option(help="quantize anew with the best cure: .onnx, or a bundle folder to build"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which layer lost the accuracy to int8, and why.

    And what cures it; --apply does.
    """
    from sparrow.api import load_bundle
    from sparrow.blame import apply_cure, blame_bundle, blame_model, states_of_bundle
    from sparrow.publish import check_file, check_place

    pixels = pixels_of(mean, std, bgr)
    shapes, constants = shapes_of(shape), constants_of(constant)
    source = None if model is None else str(model)
    if apply is not None and (source is None or calib is None):
        raise BadInput("--apply quantizes anew", hint="give --model and --calib as well")
    if apply is not None and apply.suffix == ".onnx":
        check_file(apply, model, calib)
    elif apply is not None:
        check_place(apply)
    states: dict[str, str] = {}
    if quantized.is_dir():
        bundle = load_bundle(quantized)
        states = states_of_bundle(bundle)
        found = blame_bundle(
            *(bundle, source, calib),
            shapes=shapes,
            constants=constants,
            pixels=pixels,
            progress=progress,
        )
    elif not quantized.exists():
        raise BadInput(f"{quantized}: cannot be read: No such file or directory")
    elif calib is None:
        raise BadInput("a model is compared on samples", hint="give --calib")
    else:
        found = blame_model(
            *(str(quantized), source, calib),
            shapes=shapes,
            constants=constants,
            pixels=pixels,
            progress=progress,
        )
    cure = None
    if apply is not None and source is not None and calib is not None:
        cure = apply_cure(
            *(found, source, calib, apply),
            shapes=shapes,
            constants=constants,
            states=states,
            pixels=pixels,
        )
    progress.clear()
    if as_json:
        show({**found.as_json(), "applied": None if cure is None else cure.what})
        return
    for line in found.lines():
        print(printable(line))
    if cure is not None:
        print(f"{apply}: {printable(cure.what)}{cure.doubt}")
