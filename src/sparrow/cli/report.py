"""`sparrow report`, and what else is drawn in one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparrow.cli.options import FolderArgument, progress, show
from sparrow.errors import BadInput, printable

if TYPE_CHECKING:
    from sparrow.bundle import Bundle


def report(
    folder: FolderArgument,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML file to write")] = None,
) -> None:
    """Write report.html anew, with what was measured since the build."""
    print(write_report(folder, out))


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of a bundle; returns where it is."""
    from sparrow.evidence.measurements import MeasurementsRecord
    from sparrow.evidence.plan_record import PlanRecord
    from sparrow.evidence.receipt import ReceiptRecord
    from sparrow.evidence.record import load
    from sparrow.publish import replace_file
    from sparrow.rendering.report import render

    receipt = load(ReceiptRecord, folder / "receipt.json")
    plan = load(PlanRecord, folder / "plan.json")
    measured = load(MeasurementsRecord, folder / "measurements.json").model_dump()
    path = out or folder / "report.html"
    replace_file(path, render(receipt, plan, measured).encode("utf-8", "replace"))
    return path


def show_sustained(bundle: Bundle, entries: list[int], text: str, as_json: bool) -> None:
    """Run entry points for so long each, say what came of it, and write the report anew."""
    from sparrow.arguments import TIMES, quantity
    from sparrow.timing.benchmark import sustain_bundle

    ns = quantity(text, "--sustained", {**TIMES, "m": 60e9, "min": 60e9, "h": 3600e9})
    assert ns is not None
    if not 1e9 <= ns <= 86400e9:
        raise BadInput(f"--sustained {text!r}", hint="write a time from 1s to 24h, such as 10m")
    found = [sustain_bundle(bundle, e, ns / 1e9, progress) for e in entries]
    progress.clear()
    path = write_report(bundle.folder)
    if as_json:
        show([f.as_json() for f in found])
        return
    for f in found:
        print("\n".join(printable(line) for line in str(f).splitlines()))
    print(f"curve: {path}")
