"""`sparrow doctor`."""

from __future__ import annotations

import typer

from sparrow.cli.options import JsonOption, show
from sparrow.errors import printable


def doctor(as_json: JsonOption = False) -> None:
    """Say whether this machine has what a build needs."""
    from dataclasses import asdict

    from sparrow.doctor import examine

    found = examine()
    if as_json:
        show([asdict(f) for f in found])
    else:
        for f in found:
            print(f"{'ok ' if f.ok else 'BAD'} {f.name:12} {printable(f.text)}")
    if not all(f.ok for f in found):
        raise typer.Exit(1)
