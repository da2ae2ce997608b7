"""Times of kernels on a device: a file that can be read, shared and given to a build.

A row of the kernel table predicts which register tile is the fastest for a layer. Where times of
some tiles are known, they decide instead: `selection.choose` takes them as a value, `timing.tune`
measures them. The same times give the same code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from sparrow.errors import BadInput, printable
from sparrow.importers.file import read_small
from sparrow.kernels.case import Tile
from sparrow.targets import Target
from sparrow.targets.types import SHARING

# In a bundle: the times that decided.
TUNING = "tuning.json"
SCHEMA = 1
MAX_BYTES = 8 << 20
# Rows of a file, tiles of a row: beyond any device's networks.
MAX_ROWS = 20_000
MAX_TILES = 256
MAX_THREADS = 1024
MAX_NS = 1e12
# A tile is taken instead of the predicted one where it is this much faster: two loads of the same
# code differ by as much, through where their memory lies.
GAIN = 1.03
_KERNEL = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SHAPE = re.compile(r"[a-z0-9_]+=-?[0-9]+( [a-z0-9_]+=-?[0-9]+){0,63}")
_TILE = re.compile(r"([1-9][0-9]?)x([1-9][0-9]?)")
_HASH = re.compile(r"[0-9a-f]{16}")
_WORD = re.compile(r"[a-z0-9_]{1,32}")


@dataclass(frozen=True, slots=True, order=True)
class Work:
    """What a time is of.

    Attributes:
        kernel: Row of the kernel table.
        shape: `Lowered.shape`.
        threads: Threads that share it.
    """

    kernel: str
    shape: str
    threads: int


@dataclass(frozen=True, slots=True)
class Tuning:
    """Times of one device.

    Attributes:
        cpu: The processor they were measured on, in its own words.
        isa: The vocabulary that the code was written in.
        kernels: `kernels_hash` of that code.
        times: Nanoseconds of a layer by register tile.
        figures: Measured figures of the device, some of `SHARING`.
    """

    cpu: str
    isa: str
    kernels: str
    times: Mapping[Work, Mapping[Tile, float]] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)

    def joined(self, other: Tuning) -> Tuning:
        """These times and ``other``'s, which go over these where both know a layer's tile."""
        times = {w: dict(t) for w, t in self.times.items()}
        for w, t in other.times.items():
            times.setdefault(w, {}).update(t)
        return replace(self, times=times, figures={**self.figures, **other.figures})

    def measured(self, target: Target) -> Target:
        """A target with the figures that were measured."""
        fork = self.figures.get("fork_ns", target.fork_ns)
        move = self.figures.get("move_ns_per_byte", target.move_ns_per_byte)
        return replace(target, fork_ns=fork, move_ns_per_byte=move)

    def of(self, works: set[Work], threads: int) -> Tuning:
        """What decides a build of some layers for so many threads."""
        times = {w: t for w, t in self.times.items() if w in works}
        return replace(self, times=times, figures=self.figures if threads > 1 else {})


def fastest(times: Mapping[Tile, float], predicted: Tile | None) -> Tile:
    """The tile to take: the predicted one unless another is faster by `GAIN`."""
    best = min(times, key=times.__getitem__)
    if predicted is not None and predicted in times and times[predicted] <= GAIN * times[best]:
        return predicted
    return best


@cache
def kernels_hash() -> str:
    """Identifies the code of all native kernels; times of other code say little of these."""
    digest = hashlib.sha256()

    def add(folder: Traversable, path: str) -> None:
        for item in sorted(folder.iterdir(), key=lambda i: i.name):
            if item.is_dir():
                add(item, f"{path}{item.name}/")
            elif item.name.endswith(".h"):
                digest.update(f"{path}{item.name}\0".encode())
                digest.update(item.read_bytes())

    for part in ("isa", "kernels"):
        add(resources.files("sparrow") / "native" / part, f"{part}/")
    return digest.hexdigest()[:16]


def to_json(t: Tuning) -> bytes:
    """Text that `from_json` reads, a line for each layer; equal times give equal bytes."""
    rows = [
        {
            "kernel": w.kernel,
            "shape": w.shape,
            "threads": w.threads,
            "ns": {str(tile): ns for tile, ns in sorted(times.items(), key=lambda x: x[1])},
        }
        for w, times in sorted(t.times.items())
    ]
    head = {
        "schema": SCHEMA,
        "cpu": t.cpu,
        "isa": t.isa,
        "kernels": t.kernels,
        "figures": dict(sorted(t.figures.items())),
    }
    lines = ",\n  ".join(json.dumps(r) for r in rows)
    body = f"[\n  {lines}\n ]" if rows else "[]"
    return (json.dumps(head, indent=1)[:-2] + f',\n "layers": {body}\n}}\n').encode()


def read_tuning(path: Path) -> Tuning:
    """The tuning of a file.

    Raises:
        BadInput: It cannot be read or is no tuning.
    """
    return from_json(read_small(path, "tuning", MAX_BYTES), str(path))


def from_json(data: bytes, where: str) -> Tuning:
    """The tuning of a text.

    Raises:
        BadInput: It holds something else, or a value that is none of its kind.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise BadInput(f"{where} is no tuning: {type(e).__name__}: {printable(str(e))}") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise BadInput(f"{where} is no tuning of version {SCHEMA}", hint="measure it again")
    known = ("schema", "cpu", "isa", "kernels", "figures", "layers")
    _fields(found, known, where)
    layers, figures = found["layers"], found["figures"]
    if not isinstance(layers, list) or len(layers) > MAX_ROWS:
        raise BadInput(f"{where}: layers is no list of at most {MAX_ROWS}")
    if not isinstance(figures, dict):
        raise BadInput(f"{where}: figures is no table")
    cpu = found["cpu"]
    if not isinstance(cpu, str) or not 0 < len(cpu) <= 256 or printable(cpu) != cpu:
        raise BadInput(f"{where}: cpu is no name of a processor")
    times: dict[Work, dict[Tile, float]] = {}
    for i, row in enumerate(layers):
        work, of_tiles = _row(row, f"{where}: layers[{i}]")
        if work in times:
            raise BadInput(f"{where}: layers[{i}] is there twice")
        times[work] = of_tiles
    return Tuning(
        cpu,
        _text(found["isa"], _WORD, f"{where}: isa"),
        _text(found["kernels"], _HASH, f"{where}: kernels"),
        times,
        {
            _name(k, SHARING, f"{where}: figures"): _positive(v, f"{where}: figures.{k}")
            for k, v in figures.items()
        },
    )


def _row(row: Any, where: str) -> tuple[Work, dict[Tile, float]]:
    if not isinstance(row, dict):
        raise BadInput(f"{where} is no table")
    _fields(row, ("kernel", "shape", "threads", "ns"), where)
    threads, ns = row["threads"], row["ns"]
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise BadInput(f"{where}.threads: expected a number from 1 to {MAX_THREADS}")
    if not isinstance(ns, dict) or not 0 < len(ns) <= MAX_TILES:
        raise BadInput(f"{where}.ns: expected times of 1 to {MAX_TILES} tiles")
    times: dict[Tile, float] = {}
    for name, value in ns.items():
        _text(name, _TILE, f"{where}.ns")
        mr, nv = name.split("x")
        times[Tile(int(mr), int(nv))] = _positive(value, f"{where}.ns.{name}")
    kernel = _text(row["kernel"], _KERNEL, f"{where}.kernel")
    return Work(kernel, _text(row["shape"], _SHAPE, f"{where}.shape"), threads), times


def _fields(found: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in known:
        if name not in found:
            raise BadInput(f"{where}: {name} is missing")
    strange = [k for k in found if k not in known]
    if strange:
        raise BadInput(f"{where}: {printable(strange[0])[:40]!r} is unknown")


def _text(value: Any, form: re.Pattern[str], where: str) -> str:
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise BadInput(f"{where}: {printable(str(value))[:40]!r} is none")
    return value


def _name(value: str, known: tuple[str, ...], where: str) -> str:
    if value not in known:
        raise BadInput(f"{where}: {printable(value)[:40]!r} is none", hint=", ".join(known))
    return value


def _positive(value: Any, where: str) -> float:
    if type(value) not in (int, float) or not 0 < value <= MAX_NS:
        raise BadInput(f"{where}: expected a number above 0, at most {MAX_NS:g}")
    return float(value)
