"""The record of a search: what was chosen, at which price, and what kept it from being better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparrow.errors import GateFailed
from sparrow.evidence.receipt import ChoiceRecord, MixRecord, PriceRecord, SearchRecord
from sparrow.precision.choice import Mix, Quantity, binding, front, mix_of, solve, uniform
from sparrow.precision.tables import Tables
from sparrow.quant.noise import decibels
from sparrow.quant.recipe import Precision

UNITS: Mapping[Quantity, tuple[float, str]] = {
    "latency": (1e6, "ms"),
    "size": (1e3, "kB"),
    "ram": (1e3, "kB"),
    "noise": (1.0, ""),
}
SENSITIVITY = "error of the outputs with one layer quantized, measured (arXiv:1511.06393)"
# What stands for no error at all, which no logarithm has, in dB.
EXACT_DB = 999.0


def say(what: Quantity, value: float, up: bool = False) -> str:
    """A value with its unit, in four digits; ``up``: no less than it is, as a goal has to be."""
    scale, unit = UNITS[what]
    if what == "noise":
        return f"{decibels(1.0, value):.1f} dB" if value > 0 else "no error"
    shown = value / scale
    if up and shown > 0:
        step = 10.0 ** (math.floor(math.log10(shown)) - 3)
        shown = math.ceil(shown / step - 1e-9) * step
    return f"{shown:,.4g} {unit}"


@dataclass(frozen=True, slots=True)
class Found:
    """A mix that keeps its goals as built, and the way to it.

    Attributes:
        mix: Its precisions.
        least: What it has least of, among those that keep the goals.
        goals: The limits of sums over layers.
        drop: The most that it may lose of its accuracy; None where nothing is said.
        shown: Mixes of the front, the fastest first.
        drops: Losses that were measured, by the precisions of a mix.
        built: What was measured of its build. Times differ from run to run: there are none.
        refused: The gates that refused bundles of other mixes.
    """

    mix: Mix
    least: Quantity
    goals: Mapping[Quantity, float]
    drop: float | None
    shown: Sequence[Mix]
    drops: Mapping[tuple[Precision, ...], float]
    built: Mapping[Quantity, float]
    refused: Mapping[tuple[Precision, ...], GateFailed]


def record_of(t: Tables, f: Found) -> SearchRecord:
    """What a bundle tells of the search for its mix."""
    every = [f.mix, *f.shown, *front(t.problem, "size", f.goals)]
    ends: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
    unique = {m.precisions: m for m in (*every, *(uniform(t.problem, p) for p in ends))}
    asked: dict[str, float] = {str(k): v for k, v in f.goals.items()}
    asked |= {} if f.drop is None else {"drop": f.drop}
    return SearchRecord(
        times=t.how,
        sensitivity=SENSITIVITY,
        least=f.least,
        goals=asked,
        binds="; ".join(_binds(t, f)) or "nothing: no goal stands in the way of anything better",
        predicted=_mix_record(f.mix, f),
        built={str(k): v for k, v in f.built.items()},
        layers=tuple(
            ChoiceRecord(
                name=x.name,
                op=x.op,
                precision=p,
                pinned=len(y.costs) == 1,
                ns={q: c.ns for q, c in x.costs.items()},
                bytes={q: c.bytes for q, c in x.costs.items()},
                db={q: min(decibels(1.0, c.noise), EXACT_DB) for q, c in x.costs.items()},
            )
            for x, y, p in zip(t.free.layers, t.problem.layers, f.mix.precisions, strict=True)
        ),
        mixes=tuple(_mix_record(m, f) for m in unique.values()),
        pins=_prices(t, f),
    )


def _mix_record(m: Mix, f: Found) -> MixRecord:
    counts: dict[str, int] = {p: m.precisions.count(p) for p in dict.fromkeys(m.precisions)}
    return MixRecord(
        ns=m.latency,
        bytes=m.size,
        ram=m.ram,
        db=min(decibels(1.0, m.noise), EXACT_DB),
        drop=f.drops.get(m.precisions),
        counts=counts,
        chosen=m.precisions == f.mix.precisions,
    )


def _binds(t: Tables, f: Found) -> list[str]:
    """What keeps the result from being better, a line each."""
    # a build differs from what was predicted of it, and its goals were moved by as much
    off = {k: v - f.mix.value(k) for k, v in f.built.items()}
    limits = {k: most - off.get(k, 0.0) for k, most in f.goals.items()}
    found = [
        f"{what}: without it {say(f.least, other.value(f.least))}"
        for what, other in binding(t.problem, f.least, limits, f.mix).items()
    ]
    for m in reversed(f.shown):
        lost = f.drops.get(m.precisions, 0.0)
        if f.drop is not None and lost > f.drop and m.latency < f.mix.latency:
            faster = say("latency", m.latency)
            found.append(f"drop: {faster} would lose {lost:.2%} of at most {f.drop:.2%}")
            break
    if f.refused:
        last, why = list(f.refused.items())[-1]
        # the gate alone: what it measured differs from run to run
        took = say("latency", mix_of(t.problem, last).latency)
        found.append(f"{why.gate or 'proof'}: {took} failed it as built")
    return found


def _prices(t: Tables, f: Found) -> tuple[PriceRecord, ...]:
    """What every pin changes: the mix with it against the mix with this pin alone lifted."""
    found = []
    for pin in t.pins:
        mine = t.pinned((pin,))
        fixed = t.pinned(tuple(p for p in t.pins if p != pin))
        # the mix stays what it is but for the layers of the pin
        for x, p in zip(t.problem.layers, f.mix.precisions, strict=True):
            if x.name not in mine:
                fixed[x.name] = p
        other = solve(t.free.pinned(fixed), f.least, f.goals) or f.mix
        found.append(
            PriceRecord(
                pin=f"{pin[0]}={pin[1]}",
                layers=len(mine),
                ms=(f.mix.latency - other.latency) / 1e6,
                kb=(f.mix.size - other.size) / 1e3,
                db=decibels(max(other.noise, 1e-12), max(f.mix.noise, 1e-12)),
            )
        )
    return tuple(found)
