"""`sparrow package`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparrow.cli.options import FolderArgument


def package(
    folder: FolderArgument,
    kind: Annotated[
        str,
        typer.Option(
            "--as",
            help="arduino, cmake, esp-idf, platformio, stm32cube or zephyr; library; android",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write")],
    name: Annotated[
        str, typer.Option(help="of functions and files, for programs of several models")
    ] = "model",
) -> None:
    """Write a bundle as a library of another build system.

    For a firmware with a self-test, and with what lets the board answer over a serial line.
    """
    from sparrow.packaging import package as write

    write(folder, kind, out, name)
    print(f"{kind} package: {out}")
