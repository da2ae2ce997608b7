"""`sparrow report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparrow.cli.options import FolderArgument


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
