"""`sparrow diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparrow.arguments import constants_of, numbers, shapes_of
from sparrow.cli.options import ConstantOption, JsonOption, ShapeOption, show
from sparrow.errors import printable


def diff(
    a: Annotated[Path, typer.Argument(help="model, or bundle folder")],
    b: Annotated[Path, typer.Argument(help="model, or bundle folder")],
    calib: Annotated[
        Path | None, typer.Option(help="samples: .npz, .npy or a folder of images; else drawn")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="share of a value's largest magnitude")
    ] = 1e-3,
    shape: ShapeOption = None,
    constant: ConstantOption = None,
    mean: Annotated[str, typer.Option(help="of image pixels 0..255: 127 or 124,116,104")] = "0",
    std: Annotated[str, typer.Option(help="of image pixels, divided by after mean")] = "255",
    bgr: Annotated[bool, typer.Option("--bgr", help="images are given blue first")] = False,
    as_json: JsonOption = False,
) -> None:
    """Name the first value where two models, or a model and a bundle, part; exits with 1 if so."""
    from sparrow.api import Pixels
    from sparrow.diff import diff as compare

    found = compare(
        *(str(a), str(b), calib),
        tolerance=tolerance,
        shapes=shapes_of(shape),
        constants=constants_of(constant),
        pixels=Pixels(numbers(mean, "--mean"), numbers(std, "--std"), bgr),
    )
    if as_json:
        show(found.as_json())
    else:
        print(printable(str(found)))
    if found.first is not None:
        raise typer.Exit(1)
