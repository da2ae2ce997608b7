"""`sparrow fits`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparrow.arguments import (
    UNITS,
    calib_of,
    constants_of,
    models_of,
    pixels_of,
    quantity,
    shapes_of,
    states_of,
)
from sparrow.cli.options import (
    BgrOption,
    ConstantOption,
    EntriesCalibOption,
    JsonOption,
    MeanOption,
    ModelArgument,
    ShapeOption,
    StateOption,
    StdOption,
    progress,
    show,
)
from sparrow.errors import BadInput, SparrowError, printable


def fits(
    model: ModelArgument,
    target: Annotated[
        list[str] | None, typer.Option(help="target row, see `sparrow targets`; may be repeated")
    ] = None,
    shape: ShapeOption = None,
    state: StateOption = None,
    constant: ConstantOption = None,
    calib: EntriesCalibOption = None,
    mean: MeanOption = "0",
    std: StdOption = "255",
    bgr: BgrOption = False,
    precision: Annotated[str, typer.Option(help="float32, int8 or auto")] = "auto",
    flash: Annotated[str | None, typer.Option(help="flash instead of the row's: 512kB")] = None,
    ram: Annotated[str | None, typer.Option(help="RAM instead of the row's: 64kB")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether models fit targets: flash, RAM, stack, time.

    Exits with 1 where one does not.

    A folder stands for all .onnx and .tflite files in it; what does not compile is a line that says
    why.
    """
    from sparrow.api import fits as fit
    from sparrow.device.here import resolve_target
    from sparrow.fitting import Fit, Refused, table

    flash_bytes, ram_bytes = quantity(flash, "--flash", UNITS), quantity(ram, "--ram", UNITS)
    if not target:
        raise BadInput("no target given", hint="add --target nano33ble; `sparrow targets` lists")
    folder = Path(model[0])
    several: list[Any] = [models_of(model)]
    if len(model) == 1 and folder.is_dir():
        several = sorted(str(p) for p in folder.iterdir() if p.suffix in (".onnx", ".tflite"))
        if not several:
            raise BadInput(f"{folder}: no .onnx or .tflite file")
    for t in target:
        resolve_target(t)
    found: list[Fit | Refused] = []
    for m in several:
        for t in target:
            progress(f"{m} on {t}")
            try:
                found.append(
                    fit(
                        *(m, t, shapes_of(shape), calib_of(calib), precision),
                        states=states_of(state),
                        constants=constants_of(constant),
                        flash=None if flash_bytes is None else int(flash_bytes),
                        ram=None if ram_bytes is None else int(ram_bytes),
                        pixels=pixels_of(mean, std, bgr),
                    )
                )
            except SparrowError as e:
                if len(several) == 1:
                    raise
                found.append(Refused(Path(m).name, t, e.message.removeprefix(f"{m}: ")))
    progress.clear()
    if as_json:
        show([f.as_json() for f in found])
    else:
        alone = len(found) == 1 and isinstance(found[0], Fit)
        shown = str(found[0]) if alone else table(found)
        print("\n".join(printable(line) for line in shown.splitlines()))
    if not all(f.ok for f in found):
        raise typer.Exit(1)
