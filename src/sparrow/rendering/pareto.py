"""The mixes of a search as drawings: error of the outputs against time, and against size."""

from __future__ import annotations

from dataclasses import dataclass

from sparrow.evidence.receipt import MixRecord, SearchRecord

WIDTH, HEIGHT = 480, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 34
# What a mix without error is drawn at, above the best of the others.
EXACT_DB = 999.0
_ABOVE = 6.0


@dataclass(frozen=True, slots=True)
class Dot:
    """A mix, in SVG units; ``best`` where no other has both less error and less cost."""

    x: float
    y: float
    chosen: bool
    best: bool
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One drawing.

    Attributes:
        label: Of the horizontal axis, with its unit.
        dots: Mixes.
        line: Points of the front, for a polyline.
        ticks: (place, label) along the horizontal axis.
        levels: (place, label) along the vertical axis.
    """

    label: str
    dots: tuple[Dot, ...]
    line: str
    ticks: tuple[tuple[float, str], ...]
    levels: tuple[tuple[float, str], ...]


def charts(s: SearchRecord) -> tuple[Chart, ...]:
    """Both drawings of a search."""
    return (
        _chart(s, "predicted ms", [m.ns / 1e6 for m in s.mixes]),
        _chart(s, "weights and code, kB", [m.bytes / 1e3 for m in s.mixes]),
    )


def _title(m: MixRecord) -> str:
    counts = ", ".join(f"{n} {p}" for p, n in m.counts.items())
    error = "no error" if m.db >= EXACT_DB else f"{m.db:.1f} dB"
    drop = "" if m.drop is None else f", drop {m.drop:.2%}"
    return f"{counts}: {m.ns / 1e6:.4g} ms, {m.bytes / 1e3:.1f} kB, {error}{drop}"


def _chart(s: SearchRecord, label: str, costs: list[float]) -> Chart:
    finite = [m.db for m in s.mixes if m.db < EXACT_DB]
    top = max(finite, default=0.0) + _ABOVE
    heights = [min(m.db, top) for m in s.mixes]
    low, high = min(heights, default=0.0) - 1, top + 1
    first, last = min(costs, default=0.0), max(costs, default=1.0)
    margin = 0.06 * (last - first) or 0.06 * (last or 1.0)
    first, last = first - margin, last + margin

    def x(v: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (v - first) / (last - first), 1)

    def y(v: float) -> float:
        return round(_TOP + (HEIGHT - _TOP - _BOTTOM) * (high - v) / (high - low), 1)

    best = [
        not any(
            (c < costs[i] and h >= heights[i]) or (c <= costs[i] and h > heights[i])
            for c, h in zip(costs, heights, strict=True)
        )
        for i in range(len(costs))
    ]
    dots = tuple(
        Dot(x(c), y(h), m.chosen, b, _title(m))
        for m, c, h, b in zip(s.mixes, costs, heights, best, strict=True)
    )
    line = " ".join(f"{d.x},{d.y}" for d in sorted(dots, key=lambda d: (d.x, -d.y)) if d.best)
    at = [first + (last - first) * k / 4 for k in range(5)]
    marks = [low + (high - low) * k / 4 for k in range(4)]
    levels = [*((y(v), f"{v:.0f} dB") for v in marks), (y(top), "exact")]
    return Chart(label, dots, line, tuple((x(v), f"{v:.3g}") for v in at), tuple(levels))


__all__ = ["Chart", "Dot", "charts"]
