"""`sparrow build`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparrow.arguments import (
    budget_of,
    calib_of,
    constants_of,
    evaluator,
    models_of,
    pixels_of,
    recipe_of,
    seconds_of,
    shapes_of,
    states_of,
)
from sparrow.cli.options import (
    BgrOption,
    CodeOption,
    ConstantOption,
    DropOption,
    EntriesCalibOption,
    EvaluateOption,
    JsonOption,
    LatencyOption,
    MeanOption,
    ModelArgument,
    NoTuneOption,
    PinOption,
    RamOption,
    RecipeOption,
    ShapeOption,
    SizeOption,
    StateOption,
    StdOption,
    TargetOption,
    ThreadsOption,
    TuneOption,
    TuningOption,
    progress,
    show,
    show_search,
)
from sparrow.errors import printable

if TYPE_CHECKING:
    from sparrow.evidence.receipt import ReceiptRecord


def build(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="bundle folder to write")],
    target: TargetOption = "host",
    shape: ShapeOption = None,
    state: StateOption = None,
    constant: ConstantOption = None,
    calib: EntriesCalibOption = None,
    mean: MeanOption = "0",
    std: StdOption = "255",
    bgr: BgrOption = False,
    evaluate: EvaluateOption = None,
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16, int8 (needs --calib) or auto")
    ] = "auto",
    threads: ThreadsOption = 1,
    drop: DropOption = None,
    latency: LatencyOption = None,
    size: SizeOption = None,
    ram: RamOption = None,
    pin: PinOption = None,
    recipe: RecipeOption = None,
    code: CodeOption = "auto",
    tune: TuneOption = None,
    no_tune: NoTuneOption = False,
    tuning: TuningOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="print every decision")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compile models into a proved bundle."""
    from sparrow.api import build as build_bundle

    bundle = build_bundle(
        models_of(model),
        target,
        out,
        shapes_of(shape),
        calib_of(calib),
        evaluator(evaluate),
        precision,
        threads,
        budget_of(drop, latency, size, ram),
        states=states_of(state),
        constants=constants_of(constant),
        recipe=recipe_of(pin, recipe),
        code=code,
        pixels=pixels_of(mean, std, bgr),
        tune=seconds_of(tune, no_tune, tuning),
        tuning=tuning,
        progress=progress,
    )
    progress.clear()
    receipt, measured = bundle.receipt, bundle.measurements
    if precision == "bfloat16" and precision not in receipt.precisions:
        why = f"no product gains by it on {receipt.target}"
        print(f"{receipt.precision} instead of bfloat16: {why}", file=sys.stderr)
    if precision == "auto" and calib is not None and receipt.precision == "float32":
        print(f"float32 instead of int8: {_why_float(receipt)}", file=sys.stderr)
    if as_json:
        show({"receipt": receipt.model_dump(mode="json"), "measurements": measured})
        return
    if explain:
        _explain(bundle)
    _show_receipt(receipt, measured)
    print(f"report: {out / 'report.html'}")


def _show_receipt(receipt: ReceiptRecord, measured: Mapping[str, Any]) -> None:
    """What was proved, what it takes, and how it was found."""
    memory = receipt.memory
    print(receipt.verdict)
    for a in receipt.accuracy:
        print(f"against {a.what}: {printable(a.note or a.distance)}")
    for q in receipt.quantization or ():
        for note in q.notes:
            print(f"note: {printable(note)}")
    print(
        f"{receipt.layers_text}, flash {memory.code_bytes + memory.weights_bytes:,} bytes "
        f"(code {memory.code_bytes:,}), "
        f"RAM {memory.arena_bytes + memory.state_bytes:,} bytes (state {memory.state_bytes:,})"
    )
    if receipt.budget.drop is not None and receipt.drop is not None:
        print(f"drop {receipt.drop:.2%}: {printable(receipt.drop_meaning)}")
    for row in measured.get("latencies", ()):
        low, high = row["low_ns"] / 1e3, row["high_ns"] / 1e3
        print(
            f"{printable(row['entry'])}: {row['median_ns'] / 1e3:.1f} us [{low:.1f}, {high:.1f}], "
            f"{row['threads']} thread(s)"
        )
    if receipt.tuning is not None:
        other = sum(x.taken != x.predicted for x in receipt.tuning.layers)
        print(
            f"tuning: {len(receipt.tuning.layers)} layers chosen by times measured on "
            f"{printable(receipt.tuning.cpu)}, {other} not as predicted"
        )
    if receipt.search is not None:
        show_search(receipt.search)


def _why_float(receipt: ReceiptRecord) -> str:
    """Why a build with samples, asked for the best precision, has no integers."""
    from sparrow.timing.race import FASTER

    s = receipt.search
    if s is not None and s.least == "noise":
        return "the most accurate mix within the goals; with --drop the fastest is taken"
    if s is not None and min(s.mixes, key=lambda m: m.ns).chosen:
        return "no mix that the pins leave is faster" if s.pins else "no mix is faster"
    if s is not None and FASTER.name in s.binds:
        return "the fastest mix that keeps the goals was not shown to be faster by 3 %"
    return "nothing with integers held every gate; --precision int8 says which"


def _explain(bundle: Any) -> None:
    for r in bundle.receipt.passes:
        mark = "+" if r.applied else "-"
        print(f"{mark} {r.rule:20} {printable(r.node)[:60]}: {printable(r.text)}")
    for e in bundle.plan.entries:
        for s in e.steps:
            what = f"{s.kernel} {s.tile}".strip()
            print(f"  {printable(e.name)}.{s.index} {s.op} {printable(s.origin)[:60]}: {what}")
            for other in s.rejected:
                print(f"      not {other.kernel}: {printable(other.reason)}")
