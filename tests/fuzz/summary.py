"""Totals of a campaign log as a table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """A Markdown table: cases, how they ended, processor time and the slowest, per target."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    slowest: dict[str, float] = defaultdict(float)
    seconds: dict[str, float] = defaultdict(float)
    for r in rows:
        name = str(r["target"])
        counts[name].update(
            {k: int(r[k]) for k in ("cases", "accepted", "refused")}
            | {"broken": len(r["violations"])}
        )
        seconds[name] += float(r["seconds"])
        slowest[name] = max(slowest[name], float(r["slowest"]))
    lines = [
        "| target | cases | accepted | refused | broken | slowest | mean |",
        "|---|" + "---:|" * 6,
    ]
    total: Counter[str] = Counter()
    for name, c in counts.items():
        total.update(c)
        lines.append(_row(name, c, slowest[name], seconds[name]))
    lines.append(_row("all", total, max(slowest.values(), default=0), sum(seconds.values())))
    return "\n".join(lines)


def _row(name: str, c: Mapping[str, int], slowest: float, seconds: float) -> str:
    cells = [f"{c[k]:,}" for k in ("cases", "accepted", "refused", "broken")]
    mean = 1e3 * seconds / max(c["cases"], 1)
    return f"| {name} | {' | '.join(cells)} | {slowest:.2f} s | {mean:.2f} ms |"
