"""`sparrow plan`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from sparrow.arguments import (
    budget_of,
    constants_of,
    evaluator,
    pixels_of,
    recipe_of,
    shapes_of,
    states_of,
)
from sparrow.cli.options import (
    BgrOption,
    CalibOption,
    CodeOption,
    ConstantOption,
    DropOption,
    EvaluateOption,
    JsonOption,
    LatencyOption,
    MeanOption,
    PinOption,
    RamOption,
    RecipeOption,
    ShapeOption,
    SizeOption,
    StateOption,
    StdOption,
    TargetOption,
    ThreadsOption,
    progress,
    show,
    show_search,
)
from sparrow.errors import GateFailed, printable


def plan(
    model: Annotated[Path, typer.Argument(help="model.onnx")],
    calib: CalibOption,
    target: TargetOption = "host",
    shape: ShapeOption = None,
    state: StateOption = None,
    constant: ConstantOption = None,
    mean: MeanOption = "0",
    std: StdOption = "255",
    bgr: BgrOption = False,
    evaluate: EvaluateOption = None,
    threads: ThreadsOption = 1,
    drop: DropOption = None,
    latency: LatencyOption = None,
    size: SizeOption = None,
    ram: RamOption = None,
    pin: PinOption = None,
    recipe: RecipeOption = None,
    code: CodeOption = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="recipe.json to write, for build --recipe")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which precision each layer gets within a budget.

    Every layer's time, bytes and error at each precision, the mixes considered, and what binds.
    """
    from sparrow.api import plan_precisions
    from sparrow.publish import check_file, replace_file
    from sparrow.quant.recipe import to_json

    check_file(out, model, calib)
    try:
        record, found = plan_precisions(
            str(model),
            target,
            shapes_of(shape),
            calib,
            evaluator(evaluate),
            threads,
            budget_of(drop, latency, size, ram),
            states=states_of(state),
            constants=constants_of(constant),
            recipe=recipe_of(pin, recipe),
            code=code,
            pixels=pixels_of(mean, std, bgr),
            progress=progress,
        )
    except GateFailed as e:
        if out is None:
            raise
        raise GateFailed(e.message, hint=f"{out} was not written", gate=e.gate) from None
    progress.clear()
    if out is not None:
        replace_file(out, to_json(found))
    if as_json:
        show(record.model_dump(mode="json"))
        return
    # a layer may lack one that others have
    choices = list(dict.fromkeys(p for x in record.layers for p in x.ns))

    def thousands(of: Mapping[str, float]) -> str:
        return " / ".join(f"{of[p] / 1e3:.1f}" if p in of else "-" for p in choices)

    print(f"{'layer':44} {'op':13} {'gets':8} {'us':>30} {'kB':>26} {'dB':>8}")
    for x in record.layers:
        mark = " pinned" if x.pinned else ""
        print(
            f"{printable(x.name)[-44:]:44} {x.op:13} {x.precision:8} {thousands(x.ns):>30} "
            f"{thousands(x.bytes):>26} "
            f"{x.db.get('int8', 999.0):8.1f}{mark}"
        )
    print(f"us and kB at {' / '.join(choices)}; dB of the outputs with this int8 alone")
    show_search(record)
