"""Targets are data: one TOML row per device, read into a typed value."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from sparrow.errors import BadInput


@dataclass(frozen=True, slots=True)
class Isa:
    """What selection knows of an instruction set's float32 side.

    Attributes:
        name: Of the vocabulary header ``native/isa/<name>.h``.
        lanes: float32 lanes of a vector.
        registers: Vector registers that a tile may use.
        flops_per_cycle: float32 operations of a core per cycle at best; an FMA lane counts two.
    """

    name: str
    lanes: int
    registers: int
    flops_per_cycle: int


ISAS = (
    Isa("scalar", 1, 14, 4),
    Isa("avx2", 8, 16, 32),
    Isa("avx512", 16, 32, 64),
    Isa("neon", 4, 32, 16),
)


SUFFIXES = {"linux": ".so", "macos": ".dylib", "ios": ".dylib", "windows": ".dll"}


@dataclass(frozen=True, slots=True)
class Machine:
    """What the compiler has to know about a device.

    Attributes:
        triple: ``<arch>-<os>-<abi>`` in zig's words, such as ``x86_64-linux-musl``.
        cpu: zig's ``-mcpu``: a CPU name and ``+feature`` parts, with underscores.
        isa: Name of the vocabulary header, such as ``avx2``.
    """

    triple: str
    cpu: str
    isa: str

    @property
    def arch(self) -> str:
        """The architecture of the triple: x86_64, aarch64, arm, riscv64, wasm32, thumb."""
        return self.triple.split("-")[0]

    @property
    def os(self) -> str:
        """The operating system of the triple: linux, macos, ios, windows, freestanding."""
        return self.triple.split("-")[1]

    @property
    def library_suffix(self) -> str:
        """File suffix of a shared library."""
        return SUFFIXES.get(self.os, ".so")


@dataclass(frozen=True, slots=True)
class Target:
    """A device to compile for.

    Attributes:
        name: Row name.
        triple: zig target triple.
        cpu: zig ``-mcpu`` text.
        isa: Vector vocabulary.
        cores: Cores worth using.
        ghz: Sustained clock of one core.
        l1_bytes: First-level data cache of a core.
        l1_ways: Its associativity.
        l2_bytes: Second-level cache of a core (or its share).
        bandwidth_gbs: Memory bandwidth in GB/s.
        source: Where the figures come from: briefing, public, estimated or measured.
    """

    name: str
    triple: str
    cpu: str
    isa: Isa
    cores: int
    ghz: float
    l1_bytes: int
    l1_ways: int
    l2_bytes: int
    bandwidth_gbs: float
    source: str

    @property
    def machine(self) -> Machine:
        """What the compiler has to know of it."""
        return Machine(self.triple, self.cpu, self.isa.name)


def isa(name: str) -> Isa:
    """The instruction set row of a name."""
    return next(i for i in ISAS if i.name == name)


def _row(name: str, d: dict[str, Any]) -> Target:
    return Target(
        name,
        d["triple"],
        d["cpu"],
        isa(d["isa"]),
        int(d["cores"]),
        float(d["ghz"]),
        int(d["l1_bytes"]),
        int(d["l1_ways"]),
        int(d["l2_bytes"]),
        float(d["bandwidth_gbs"]),
        d["source"],
    )


@cache
def targets() -> dict[str, Target]:
    """Every target row by name, without ``host``."""
    found: dict[str, Target] = {}
    for entry in sorted(resources.files(__package__).iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            name = entry.name.removesuffix(".toml")
            found[name] = _row(name, tomllib.loads(entry.read_text(encoding="utf-8")))
    return found


def target(name: str) -> Target:
    """The target row of a name.

    Raises:
        BadInput: No such row.
    """
    try:
        return targets()[name]
    except KeyError:
        known = ", ".join(["host", *targets()])
        raise BadInput(f"target {name!r} is unknown", hint=f"targets: {known}") from None
