"""`sparrow tuning`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sparrow.cli.options import JsonOption, show


def tuning(
    file: Annotated[
        Path | None, typer.Argument(help="tuning.json; by default the times of this machine")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show measured times of register tiles.

    `sparrow build --tune` takes them.
    """
    import json

    from sparrow.device.here import resolve_target
    from sparrow.timing.tune import cached_tuning, tuning_path
    from sparrow.tuning import read_tuning, to_json

    isa = resolve_target("host").isa.name
    found = cached_tuning(isa) if file is None else read_tuning(file)
    if as_json:
        show(json.loads(to_json(found)))
        return
    print(f"{file or tuning_path(isa)}: {found.cpu}, {found.isa}, kernels {found.kernels}")
    for name, value in sorted(found.figures.items()):
        print(f"{name} {value:g}")
    if not found.times:
        print("no times yet: sparrow build --tune 30s measures some", file=sys.stderr)
    for w, times in sorted(found.times.items()):
        ranked = sorted(times.items(), key=lambda x: x[1])
        each = ", ".join(f"{tile} {ns / 1e3:.2f}" for tile, ns in ranked)
        print(f"{w.kernel} x{w.threads} {w.shape}\n    us: {each}")
