"""What blame found, for people and for machines."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from sparrow.quant.recipe import Recipe

# Decibels that a gain must differ by to count.
NEAR = 1.0


@dataclass(frozen=True, slots=True)
class LayerBlame:
    """A layer's part in the error.

    Attributes:
        name: In the source model.
        op: Kind of op.
        value: Its result in the float graph.
        own_db: Power of its float result over that of the error it adds.
        inherited_db: The same of the error it is handed.
        effect_db: By how much the error of the outputs falls when the layer alone is float; None
            where that was not tried.
        cause: What went wrong, a name of docs/blame.md.
        detail: The figures that say so.
    """

    name: str
    op: str
    value: str
    own_db: float
    inherited_db: float
    effect_db: float | None
    cause: str
    detail: str


@dataclass(frozen=True, slots=True)
class Cure:
    """Another recipe and what it would bring.

    Attributes:
        what: In words.
        recipe: The whole recipe.
        gain_db: Fall of the error of the outputs, simulated on the samples.
        size_kb: Growth of the constants.
        latency_ms: Growth of the time of a call; None without measured layers.
        within_db: 95 % interval of the gain over samples; None of fewer than two.
    """

    what: str
    recipe: Recipe
    gain_db: float
    size_kb: float
    latency_ms: float | None
    within_db: tuple[float, float] | None = None

    @property
    def doubt(self) -> str:
        """That the cure may gain nothing on other samples, or nothing at all."""
        if self.within_db is None or self.within_db[0] > 0:
            return ""
        return (
            f"; {_db(self.gain_db)} is within {_within(self)}: it may lose on other samples, "
            "more samples that judge narrow it"
        )


@dataclass(frozen=True, slots=True)
class Blame:
    """Which layer lost the accuracy, why, and what cures it.

    Attributes:
        reference: Which float network it was compared with.
        samples: Number of samples that judge.
        judged: In words, which samples these are.
        output_db: Power of the float outputs over that of their error.
        layers: The worst first.
        cures: The best first.
    """

    reference: str
    samples: int
    judged: str
    output_db: float
    layers: tuple[LayerBlame, ...]
    cures: tuple[Cure, ...]

    @property
    def culprit(self) -> LayerBlame:
        """The layer to look at first."""
        return self.layers[0]

    @property
    def best(self) -> Cure | None:
        """The cure to apply: of those within `NEAR` of the greatest gain the cheapest, if it gains.

        A layer or value at another precision costs time and size, so what does without comes
        first.
        """
        useful = [c for c in self.cures if c.gain_db > NEAR]
        near = [c for c in useful if c.gain_db > useful[0].gain_db - NEAR]

        def price(c: Cure) -> tuple[int, float]:
            return len(c.recipe.pins) + len(c.recipe.wide), -c.gain_db

        return min(near, key=price, default=None)

    def as_json(self) -> dict[str, Any]:
        """The same facts; what has no error has null for its decibels."""

        def plain(x: Any) -> Any:
            if isinstance(x, float):
                return x if isfinite(x) else None
            if isinstance(x, dict):
                return {k: plain(v) for k, v in x.items()}
            return [plain(v) for v in x] if isinstance(x, (list, tuple)) else x

        found: dict[str, Any] = plain(asdict(self))
        return found

    def lines(self, most: int = 12) -> list[str]:
        """The report, at most that many layers."""
        out = [
            f"outputs {_db(self.output_db)} above their error, over {self.samples} samples"
            f"{self.judged and ' ' + self.judged}, against {self.reference}",
            f"{'layer':40} {'op':13} {'own':>9} {'inherited':>9} {'effect':>9}  cause",
        ]
        for x in self.layers[:most]:
            effect = "" if x.effect_db is None else _db(x.effect_db)
            out.append(
                f"{x.name[-40:]:40} {x.op:13} {_db(x.own_db):>9} {_db(x.inherited_db):>9} "
                f"{effect:>9}  {x.cause}: {x.detail}"
            )
        if len(self.layers) > most:
            out.append(f"... and {len(self.layers) - most} more layers")
        if self.cures:
            out.append(f"{'cure':56} {'gain':>9} {'95 % within':>15} {'size':>10} {'time':>10}")
        for c in self.cures:
            time = "" if c.latency_ms is None else f"{c.latency_ms:+.3f} ms"
            out.append(
                f"{c.what:56} {_db(c.gain_db):>9} {_within(c):>15} {c.size_kb:+7.1f} kB {time:>10}"
            )
        return out

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        def row(*cells: object) -> str:
            return "<tr>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in cells) + "</tr>"

        layers = "".join(
            row(
                *(x.name, x.op, _db(x.own_db), _db(x.inherited_db)),
                "" if x.effect_db is None else _db(x.effect_db),
                f"{x.cause}: {x.detail}",
            )
            for x in self.layers[:20]
        )
        cures = "".join(
            row(
                *(c.what, _db(c.gain_db), _within(c), f"{c.size_kb:+.1f} kB"),
                "" if c.latency_ms is None else f"{c.latency_ms:+.3f} ms",
            )
            for c in self.cures
        )
        heads = ("layer", "op", "own", "inherited", "effect", "cause")
        return (
            f"<p>outputs {_db(self.output_db)} above their error, against "
            f"{html.escape(self.reference)}</p><table><tr>"
            + "".join(f"<th>{h}</th>" for h in heads)
            + f"</tr>{layers}</table><table><tr><th>cure</th><th>gain</th>"
            f"<th>95 % within</th><th>size</th><th>time</th></tr>{cures}</table>"
        )


def _within(c: Cure) -> str:
    """The interval of a gain."""
    if c.within_db is None:
        return ""
    low, high = (_db(x).removesuffix(" dB") for x in c.within_db)
    return f"[{low}, {high}]"


def _db(x: float) -> str:
    return f"{x:.1f} dB" if isfinite(x) else "exact"
