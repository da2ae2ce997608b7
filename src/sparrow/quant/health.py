"""Whether a calibration set says enough of what a network will see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparrow.errors import BadInput
from sparrow.graph import Graph
from sparrow.tensor import Array

if TYPE_CHECKING:
    from sparrow.quant.calibrate import Statistics

ENOUGH = 32
# A sample this much larger than the middle one sets the scale of all others.
OUTLIER = 8.0


@dataclass(frozen=True, slots=True)
class Health:
    """What was noticed of a calibration set.

    Attributes:
        samples: How many there were.
        of_samples: Of the samples themselves, one line each; empty when nothing is wrong.
        of_values: Of what the network made of them.
        of_codes: Of values that took more bits than was asked for.
        of_recipe: Of what was asked for and found nothing to work on.
    """

    samples: int
    of_samples: tuple[str, ...]
    of_values: tuple[str, ...] = ()
    of_codes: tuple[str, ...] = ()
    of_recipe: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.of_samples, *self.of_values, *self.of_codes, *self.of_recipe)


def dead_channels(values: Mapping[str, Statistics]) -> tuple[str, ...]:
    """A note on channels that are the same in all samples, by where they are; or none."""
    dead = {where: int((s.low == s.high).sum()) for where, s in values.items() if s.count > 1}
    dead = {where: n for where, n in dead.items() if n}
    if not dead:
        return ()
    worst = max(dead, key=lambda where: dead[where])
    return (
        f"{sum(dead.values())} channels in {len(dead)} values never change, "
        f"most at {worst} ({dead[worst]})",
    )


def refuse_not_finite(g: Graph, feeds: Mapping[str, Array], number: int) -> None:
    """Refuse a sample that a graph's float inputs cannot be.

    Raises:
        BadInput: It holds NaN or infinite values.
    """
    for x in g.inputs:
        if g.types[x].dtype.kind == "float":
            with np.errstate(over="ignore"):
                finite = np.isfinite(np.asarray(feeds[x], np.float32)).all()
            if not finite:
                raise BadInput(
                    f"calibration sample {number}: input {x!r} has NaN or infinity",
                    hint="leave that sample out; the first is number 0",
                )


class Watch:
    """Looks at the samples as they pass."""

    def __init__(self, g: Graph) -> None:
        self.graph = g
        self.floats = [x for x in g.inputs if g.types[x].dtype.kind == "float"]
        self.numbers: list[int] = []
        self.peaks: dict[str, list[float]] = {x: [] for x in self.floats}
        self.ranges: dict[str, tuple[float, float]] = {}

    def sample(self, feeds: Mapping[str, Array], index: int) -> None:
        """Take in one sample, whose place in its source is ``index``.

        Raises:
            BadInput: It holds NaN or infinite values.
        """
        refuse_not_finite(self.graph, feeds, index)
        self.numbers.append(index)
        for x in self.floats:
            a = np.asarray(feeds[x], np.float32)
            if not a.size:
                continue
            low, high = float(a.min()), float(a.max())
            self.peaks[x].append(max(-low, high))
            old = self.ranges.get(x, (low, high))
            self.ranges[x] = (min(low, old[0]), max(high, old[1]))

    def verdict(self, digests: Sequence[str]) -> Health:
        """The notes on all samples.

        Raises:
            BadInput: There was none, or they are all one constant.
        """
        if not digests:
            raise BadInput("the calibration set is empty", hint="give at least one sample")
        if self.ranges and all(low == high for low, high in self.ranges.values()):
            name, (low, _) = next(iter(self.ranges.items()))
            raise BadInput(
                f"the calibration data is constant: input {name!r} is {low:g} everywhere",
                hint="give samples of what the model will see",
            )
        notes = []
        if len(digests) < ENOUGH:
            # others may be held out to judge
            used = (
                "1 sample calibrates" if len(digests) == 1 else f"{len(digests)} samples calibrate"
            )
            notes.append(f"only {used}: {ENOUGH} or more give steadier ranges")
        again = sum(n - 1 for n in Counter(digests).values())
        if again:
            notes.append(f"duplicates among {len(digests)} samples: {again}")
        for x, peaks in self.peaks.items():
            middle = float(np.median(peaks)) if peaks else 0.0
            far = [i for i, p in enumerate(peaks) if middle and p > OUTLIER * middle]
            if far:
                notes.append(
                    f"input {x!r}: sample {self.numbers[far[0]]} reaches {peaks[far[0]]:g}, "
                    f"the middle one {middle:g} (such samples: {len(far)})"
                )
        return Health(len(digests), tuple(notes))
