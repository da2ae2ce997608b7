"""Targets are data: one TOML row per device, read into a typed value."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from sparrow.errors import BadInput
from sparrow.targets.instruction_sets import ISAS, Isa
from sparrow.targets.read import isa, read_device
from sparrow.targets.types import SUFFIXES, Cluster, Device, Figure, Machine, Rules, Target

# A row takes less than a thousand; tomllib takes the square of them for a key of many parts.
MAX_BYTES = 6000
# Folders of rows, in the order they are listed.
KINDS = ("cpu", "board", "phone", "microcontroller", "browser", "accelerator")


def _files(kind: str) -> Iterator[Traversable]:
    folder = resources.files(__package__) / kind
    yield from sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=_name)


def _name(file: Traversable) -> str:
    return file.name.removesuffix(".toml")


@cache
def devices(kind: str | None = None) -> dict[str, Device]:
    """Every row by name, or those of one kind; without ``host``."""
    return {
        _name(f): read_device(_name(f), k, f.read_text(encoding="utf-8"))
        for k in (KINDS if kind is None else (kind,))
        for f in _files(k)
    }


def device(name: str) -> Device:
    """The row of a name, or of a TOML file of one's own.

    Raises:
        BadInput: There is no such row or file, or the file is no row.
    """
    if name.endswith(".toml"):
        from sparrow.importers.file import read_small

        path = Path(name)
        try:
            text = read_small(path, "target row", MAX_BYTES).decode("utf-8")
        except UnicodeDecodeError as e:
            raise BadInput(f"target file {name}: {e}") from None
        return read_device(path.stem, "own", text)
    wanted = name.replace("-", "_")
    for kind in KINDS:
        for f in _files(kind):
            if _name(f) == wanted:
                return read_device(wanted, kind, f.read_text(encoding="utf-8"))
    names = ["host", *(_name(f) for kind in KINDS for f in _files(kind))]
    like = ", ".join(get_close_matches(wanted, names))
    nearest = f"nearest: {like}; " if like else ""
    raise BadInput(f"target {name!r} is unknown", hint=f"{nearest}`sparrow targets` lists all")


@cache
def targets() -> dict[str, Target]:
    """Every row that Sparrow compiles for, by name, without ``host``."""
    return {name: d.target for name, d in devices().items() if d.target is not None}


def target(name: str) -> Target:
    """How to compile for a row, or for a TOML file of one's own.

    Raises:
        BadInput: There is no such row or file, or Sparrow does not compile for it.
    """
    found = device(name)
    if found.target is None:
        own = f"`sparrow quantize --target {name}` writes its file; " if found.rules else ""
        raise BadInput(
            f"target {name!r} ({found.title}) is no CPU that Sparrow compiles for",
            hint=f"{own}build for the CPU beside it; `sparrow targets` marks those that compile",
        )
    return found.target


__all__ = [
    "ISAS",
    "KINDS",
    "SUFFIXES",
    "Cluster",
    "Device",
    "Figure",
    "Isa",
    "Machine",
    "Rules",
    "Target",
    "device",
    "devices",
    "isa",
    "target",
    "targets",
]
