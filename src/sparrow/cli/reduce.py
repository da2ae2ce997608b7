"""`sparrow reduce`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sparrow.arguments import constants_of, failure_of, shapes_of
from sparrow.cli.options import ConstantOption, JsonOption, ShapeOption, progress, show
from sparrow.errors import printable


def reduce(
    model: Annotated[Path, typer.Argument(help="model that fails")],
    out: Annotated[Path, typer.Option("--out", "-o", help="smallest model, .onnx")],
    fails: Annotated[
        str,
        typer.Option(
            help="differs-from-onnxruntime, native-differs, native-crashes, fails-to-build, or "
            "file.py:function of an onnx.ModelProto"
        ),
    ] = "native-differs",
    shape: ShapeOption = None,
    constant: ConstantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cut a model down to the smallest one that still shows a failure."""
    from sparrow.publish import check_file, replace_file
    from sparrow.reduce import Reduced
    from sparrow.reduce import reduce as cut_down

    check_file(out, model)
    best: list[Reduced] = []

    def keep(smaller: Reduced) -> None:
        replace_file(out, smaller.model.SerializeToString(deterministic=True))
        best[:] = [smaller]

    try:
        found = cut_down(
            *(str(model), failure_of(fails)),
            shapes=shapes_of(shape),
            constants=constants_of(constant),
            keep=keep,
            progress=progress,
        )
    except BaseException:
        progress.clear()
        for left in best:
            print(f"{out}: {left.count}, not yet the smallest", file=sys.stderr)
        raise
    progress.clear()
    if as_json:
        facts = {"nodes": found.nodes, "before": found.before, "tried": found.tried}
        show({**facts, "left": found.left})
    else:
        for line in f"{out}: {found}".splitlines():
            print(printable(line))
