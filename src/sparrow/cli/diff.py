"""`sparrow diff`."""

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
    show,
)
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
    mean: MeanOption = "0",
    std: StdOption = "255",
    bgr: BgrOption = False,
    as_json: JsonOption = False,
) -> None:
    """Name the first value where two models or bundles part.

    Exits with 1 where they do.
    """
    from sparrow.diff import diff as compare

    found = compare(
        *(str(a), str(b), calib),
        tolerance=tolerance,
        shapes=shapes_of(shape),
        constants=constants_of(constant),
        pixels=pixels_of(mean, std, bgr),
    )
    if as_json:
        show(found.as_json())
    else:
        print(printable(str(found)))
    if found.first is not None:
        raise typer.Exit(1)
