"""A long run as drawings: time of a call, clock and temperature over minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparrow.evidence.measurements import SustainedRecord

WIDTH, HEIGHT = 480, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 26, 12, 34


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity over time, in SVG units.

    Attributes:
        label: What it is, with its unit.
        line: For a polyline.
        ticks: (place, label) along the time axis.
        levels: (place, label) along the other.
    """

    label: str
    line: str
    ticks: tuple[tuple[float, str], ...]
    levels: tuple[tuple[float, str], ...]


def curves(s: SustainedRecord) -> tuple[Curve, ...]:
    """The drawings of a run: those of what its device told."""
    at = [p.seconds for p in s.points]
    found = [_curve("time of a call, us", at, [p.median_ns / 1e3 for p in s.points], 0.0)]
    clocks = [float(p.mhz) for p in s.points]
    if any(clocks):
        found.append(_curve("clock, MHz", at, clocks, 0.0))
    heat = [(p.seconds, p.celsius) for p in s.points if p.celsius is not None]
    if heat:
        low = min(c for _, c in heat) - 5
        found.append(
            _curve("temperature, degrees Celsius", [t for t, _ in heat], [c for _, c in heat], low)
        )
    return tuple(found)


def _curve(label: str, at: Sequence[float], values: Sequence[float], low: float) -> Curve:
    last = max(at[-1], 1e-9)
    high = max(*values, low + 1e-9) * 1.05

    def x(t: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * t / last, 1)

    def y(v: float) -> float:
        return round(_TOP + (HEIGHT - _TOP - _BOTTOM) * (high - v) / (high - low), 1)

    line = " ".join(f"{x(t)},{y(v)}" for t, v in zip(at, values, strict=True))
    ticks = tuple((x(last * k / 4), _clock(last * k / 4)) for k in range(5))
    levels = tuple(
        (y(v), f"{v:.3g}" if v < 1000 else f"{v:.0f}")
        for v in (low + (high - low) * k / 4 for k in range(5))
    )
    return Curve(label, line, ticks, levels)


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


__all__ = ["Curve", "curves"]
