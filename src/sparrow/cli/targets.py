"""`sparrow targets`."""

from __future__ import annotations

from typing import Annotated

import typer

from sparrow.cli.options import JsonOption, show
from sparrow.errors import BadInput, printable


def targets(
    what: Annotated[list[str] | None, typer.Argument(help="list, or show NAME")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the targets, or show one with every figure and its source."""
    from dataclasses import asdict

    from sparrow.device.here import resolve_target
    from sparrow.targets import KINDS, device, devices

    words = [w for w in what or () if w not in ("list", "show")]
    if len(words) > 1:
        raise BadInput(f"one target at a time, got {' '.join(words)!r}")
    host = resolve_target("host")
    if words:
        row = device(host.name if words[0] == "host" else words[0])
        if as_json:
            show(asdict(row))
        else:
            for line in str(row).splitlines():
                print(printable(line))
        return
    if as_json:
        show({"host": host.name, "targets": [asdict(d) for d in devices().values()]})
        return
    width = max(map(len, devices()))
    print(f"{'host':{width}} {host.name} on this machine")
    for kind in KINDS:
        print(f"\n{kind}")
        for name, d in devices(kind).items():
            rest = "rules only" if d.rules else "figures only"
            how = f"compiles, {d.target.isa.name}" if d.target else rest
            print(f"{name:{width}} {how:22} {d.title}")
