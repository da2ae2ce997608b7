"""`sparrow verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparrow.cli.options import DeviceOption, FolderArgument, JsonOption, progress, show
from sparrow.errors import GateFailed, printable


def verify(
    folder: FolderArgument,
    device: DeviceOption = "auto",
    targets: Annotated[
        str | None,
        typer.Option(help="rebuild it for these, or all that run here, and compare: all, or a,b"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove a bundle again: hashes, every layer, every output."""
    from dataclasses import asdict

    from sparrow.evidence.verify import verify_bundle

    if targets is not None:
        _compare_targets(folder, targets, as_json)
        return
    progress("proving every layer")
    proof = verify_bundle(folder, device)
    progress.clear()
    if as_json:
        show({"ok": proof.ok, **asdict(proof)})
    else:
        for g in proof.gates:
            print(f"{'ok ' if g.ok else 'BAD'} {g.name}: {printable(g.found)}")
    if not proof.ok:
        raise GateFailed(proof.failure)


def _compare_targets(folder: Path, names: str, as_json: bool) -> None:
    """The same bundle on several targets; exits with 1 where an integer differs or nothing ran."""
    from sparrow.evidence.sameness import compare_targets, table

    rows = compare_targets(folder, names, progress)
    progress.clear()
    if as_json:
        show([r.as_json() for r in rows])
    else:
        print("\n".join(printable(line) for line in table(rows).splitlines()))
    ran = [r for r in rows[1:] if r.device]
    if not ran or not all(r.ok for r in ran):
        raise typer.Exit(1)
