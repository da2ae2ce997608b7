"""`sparrow check`."""

from __future__ import annotations

import typer

from sparrow.arguments import constants_of, models_of, shapes_of, states_of
from sparrow.cli.options import (
    ConstantOption,
    JsonOption,
    ModelArgument,
    ShapeOption,
    StateOption,
    TargetOption,
    show,
    show_residency,
)
from sparrow.errors import BadInput, printable


def check(
    model: ModelArgument,
    target: TargetOption = "host",
    shape: ShapeOption = None,
    state: StateOption = None,
    constant: ConstantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what would become of every node of a model.

    Each is ok, decomposed, folded or missing; exits with 1 where one is missing.

    For an accelerator: which operators it runs, which its host, and why.
    """
    from dataclasses import asdict

    from sparrow.api import check as check_model
    from sparrow.targets import device

    row = device(target) if target != "host" else None
    constants = constants_of(constant)
    if row is not None and row.rules is not None:
        from sparrow.offload import inspect

        if len(model) != 1:
            raise BadInput("an accelerator takes one model at a time")
        there = inspect(model[0], row, shapes_of(shape), states_of(state), constants)
        show_residency(there, as_json)
        return
    found = check_model(
        *(models_of(model), target, shapes_of(shape)),
        states=states_of(state),
        constants=constants,
    )
    if as_json:
        show({"ok": found.ok, **asdict(found), "counts": found.counts})
    else:
        for f in found.frozen:
            print(f"frozen      {printable(f)}")
        for n in found.nodes:
            text = f"{n.verdict:11} {n.op:20.40} {printable(n.name)[:120]}"
            if n.verdict == "decomposed":
                text += f": {', '.join(n.parts[:8])}{' ...' if len(n.parts) > 8 else ''}"
            print(f"{text}{': ' + printable(n.reason) if n.reason else ''}{_hint(n.hint)}")
        counts = ", ".join(f"{v} {k}" for k, v in found.counts.items()) or "no nodes"
        print(f"{found.target}: {counts}")
    if not found.ok:
        raise typer.Exit(1)


def _hint(text: str) -> str:
    return f"; {printable(text)}" if text else ""
