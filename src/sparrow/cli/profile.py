"""`sparrow profile`."""

from __future__ import annotations

from typing import Annotated

import typer

from sparrow.cli.options import (
    CoresOption,
    DeviceOption,
    EntryOption,
    FolderArgument,
    JsonOption,
    SustainedOption,
    ThreadsOption,
    show,
)
from sparrow.cli.report import show_sustained
from sparrow.errors import printable


def profile(
    folder: FolderArgument,
    entry: EntryOption = None,
    runs: Annotated[int, typer.Option(min=0, help="inferences; 0: half a second")] = 0,
    threads: ThreadsOption = 1,
    device: DeviceOption = "auto",
    cores: CoresOption = "",
    sustained: SustainedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time every step of a bundle.

    In an emulator its instructions are counted instead.
    """
    from sparrow.api import load_bundle

    bundle = load_bundle(folder, threads, device, cores)
    if sustained is not None:
        show_sustained(bundle, [bundle.entry_index(entry)], sustained, as_json)
        return
    counted = bundle.device == "qemu"
    found = bundle.instructions(entry) if counted else bundle.profile(entry, runs)
    if as_json:
        show(found.as_json())
        return
    for line in str(found).splitlines():
        print(printable(line))
