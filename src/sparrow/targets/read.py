"""A target row from TOML text, every field checked."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from typing import Any

from sparrow.errors import BadInput
from sparrow.targets.instruction_sets import ISAS, Isa
from sparrow.targets.types import (
    FIGURES,
    PRECISIONS,
    SHARED,
    SHARING,
    SOURCES,
    Cluster,
    Device,
    Figure,
    Rules,
    Target,
)

SCALES = ("float", "power-of-two")
GRANULARITIES = ("per-tensor", "per-channel")
# Figures beyond this are no bytes, operations or seconds of any device.
LARGEST = 1e18
TRIPLE = re.compile(r"[a-z0-9_]+-[a-z0-9_]+-[a-z0-9_]+")
CPU = re.compile(r"[a-z0-9_.]+([+-][a-z0-9_.]+)*")
SCHEMES = ("f32", "fixed31", "pow2", "tflite", "vendor")


def isa(name: str) -> Isa:
    """The instruction set row of a name.

    Raises:
        BadInput: There is none.
    """
    for row in ISAS:
        if row.name == name:
            return row
    raise BadInput(
        f"instruction set {name!r} is unknown", hint=f"use one of {', '.join(i.name for i in ISAS)}"
    )


def read_device(name: str, kind: str, text: str) -> Device:
    """The row of a TOML text.

    Args:
        name: Row name.
        kind: What sort of device.
        text: Content of the file; see ``docs/targets.md``.

    Raises:
        BadInput: It is no TOML, or a field is missing, unknown or of the wrong type.
    """
    try:
        top = _Table(f"target {name!r}", tomllib.loads(text))
    except (ValueError, RecursionError) as e:
        raise BadInput(f"target {name!r} is no TOML: {e}") from None
    title, note = top.take("title", str), top.take("note", str, "")
    figures = _figures(top.table("figures"), FIGURES)
    peaks = _figures(top.table("peak_gops"), PRECISIONS)
    scores = _figures(top.table("scores"), None)
    clusters = []
    for i, raw in enumerate(top.take("clusters", list, [])):
        t = _Table(f"{top.where}.clusters[{i}]", raw)
        clusters.append(Cluster(t.take("core", str), t.take("count", int), t.figure("ghz")))
        t.finish()
    rules = top.table("rules")
    build = top.table("compile")
    found = Device(
        name=name,
        kind=kind,
        title=title,
        note=note,
        clusters=tuple(clusters),
        figures=figures,
        peak_gops=peaks,
        scores=scores,
        rules=_rules(rules) if rules.rest else None,
        target=None,
    )
    target = _target(build, found) if build.rest else None
    top.finish()
    return replace(found, target=target)


class _Table:
    """Fields of a TOML table that are still to be read."""

    def __init__(self, where: str, raw: object) -> None:
        if not isinstance(raw, dict):
            raise BadInput(f"{where} is no table")
        self.where = where
        self.rest: dict[str, Any] = dict(raw)

    def take(self, key: str, kind: type, default: Any = None) -> Any:
        """A field; required when there is no default. An integer is a float too."""
        if key not in self.rest:
            if default is None:
                raise BadInput(f"{self.where}.{key} is missing")
            return default
        found = self.rest.pop(key)
        if kind is float and type(found) is int:
            found = float(found)
        if type(found) is not kind:
            raise BadInput(
                f"{self.where}.{key}: expected {kind.__name__}, found {type(found).__name__}"
            )
        return found

    def choice(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        """A text that is one of a few."""
        found: str = self.take(key, str, default)
        if found not in allowed:
            raise BadInput(
                f"{self.where}.{key}: {found!r}", hint=f"use one of {', '.join(allowed)}"
            )
        return found

    def names(self, key: str) -> tuple[str, ...]:
        """A list of texts, empty by default."""
        found = self.take(key, list, [])
        if not all(isinstance(x, str) for x in found):
            raise BadInput(f"{self.where}.{key}: expected a list of texts")
        return tuple(found)

    def bits(self, key: str) -> tuple[int, ...]:
        """A list of bit widths, empty by default."""
        found = self.take(key, list, [])
        if not all(type(x) is int and 1 <= x <= 64 for x in found):
            raise BadInput(f"{self.where}.{key}: expected a list of bit widths")
        return tuple(found)

    def figure(self, key: str) -> Figure:
        """``[value, source]`` or ``[value, source, note]``."""
        found = self.take(key, list)
        ok = len(found) in (2, 3) and all(isinstance(x, str) for x in found[1:])
        if (
            not ok
            or type(found[0]) not in (int, float)
            or found[1] not in SOURCES
            or (not 0 <= found[0] <= LARGEST)
        ):
            raise BadInput(
                f"{self.where}.{key}: {found!r}",
                hint=f"write [number, source, note]; sources are {', '.join(SOURCES)}",
            )
        return Figure(float(found[0]), *found[1:])

    def table(self, key: str) -> _Table:
        """An inner table, empty by default."""
        return _Table(f"{self.where}.{key}", self.take(key, dict, {}))

    def finish(self) -> None:
        """Refuse what nothing has read."""
        if self.rest:
            raise BadInput(f"{self.where}.{min(self.rest)} is no field of a target row")


def _figures(table: _Table, allowed: tuple[str, ...] | None) -> dict[str, Figure]:
    for key in table.rest:
        if allowed is not None and key not in allowed:
            raise BadInput(f"{table.where}.{key} is unknown", hint=f"use {', '.join(allowed)}")
    return {key: table.figure(key) for key in list(table.rest)}


def _rules(t: _Table) -> Rules:
    found = Rules(
        weight_bits=t.bits("weight_bits"),
        activation_bits=t.bits("activation_bits"),
        float_dtypes=t.names("float_dtypes"),
        scales=t.choice("scales", SCALES, "float"),
        weights=t.choice("weights", GRANULARITIES, "per-channel"),
        activations=t.choice("activations", GRANULARITIES, "per-tensor"),
        zero_points=t.take("zero_points", bool, True),
        scheme=t.choice("scheme", SCHEMES, "vendor"),
        accumulator_bits=t.take("accumulator_bits", int, 32),
        modes=t.names("modes"),
        parameter_bytes=t.take("parameter_bytes", int, 0),
        compressed=t.names("compressed"),
        one_part=t.take("one_part", bool, False),
        ops=t.names("ops"),
        source=t.choice("source", SOURCES),
    )
    t.finish()
    return found


def _target(t: _Table, row: Device) -> Target:
    """What the compiler takes of a row: its own fields, and figures that every CPU must have."""
    triple, cpu, vocabulary = t.take("triple", str), t.take("cpu", str), isa(t.take("isa", str))
    # words of a command
    for key, text, form in (("triple", triple, TRIPLE), ("cpu", cpu, CPU)):
        if not form.fullmatch(text):
            raise BadInput(f"{t.where}.{key}: {text!r} is none")
    flops = t.take("flops_per_cycle", int, vocabulary.flops_per_cycle)
    cores = t.take("cores", int, row.clusters[0].count if row.clusters else 0)
    if not row.clusters:
        raise BadInput(f"target {row.name!r}: a CPU has at least one of clusters")
    fast = row.clusters[0]
    used = {"ghz": fast.ghz}
    for key in ("l1_bytes", "l1_ways", "l2_bytes", "bandwidth_gbs"):
        if key not in row.figures:
            raise BadInput(f"target {row.name!r}: figures.{key} is missing, which a CPU must have")
        used[key] = row.figures[key]
    # by default more than loads take: two lines a cycle
    used["l2_gbs"] = row.figures.get("l2_gbs", Figure(128 * fast.ghz.value, fast.ghz.source))
    used["cache_gbs"] = row.figures.get("cache_gbs", used["bandwidth_gbs"])
    shared = {key: row.figures.get(key, SHARED[key]) for key in SHARING}
    least = {
        "flops_per_cycle": flops,
        "cores": cores,
        **{k: f.value for k, f in (used | shared).items()},
    }
    for key, value in least.items():
        if not 0 < value <= LARGEST:
            raise BadInput(f"target {row.name!r}: {key} is {value}, expected more than 0")
    found = Target(
        name=row.name,
        triple=triple,
        cpu=cpu,
        isa=replace(vocabulary, flops_per_cycle=flops),
        cores=cores,
        ghz=fast.ghz.value,
        l1_bytes=int(used["l1_bytes"].value),
        l1_ways=int(used["l1_ways"].value),
        l2_bytes=int(used["l2_bytes"].value),
        bandwidth_gbs=used["bandwidth_gbs"].value,
        l2_gbs=used["l2_gbs"].value,
        cache_gbs=used["cache_gbs"].value,
        fpu=t.take("fpu", bool, True),
        source=", ".join(sorted({f.source for f in used.values()})),
        fork_ns=shared["fork_ns"].value,
        move_ns_per_byte=shared["move_ns_per_byte"].value,
        builds=t.names("builds"),
    )
    t.finish()
    return found
