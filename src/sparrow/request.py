"""What a build is asked for, beside the models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from sparrow.errors import BadInput
from sparrow.samples import PLAIN, Pixels
from sparrow.tensor import Array


class Predict(Protocol):
    """A model as `Bundle.run` calls it: states go from one call to the next, between entry points,
    too; without a name it is the first of them.
    """

    def __call__(
        self, feeds: Mapping[str, Array], entry: str | None = None, /
    ) -> dict[str, Array]: ...


Evaluate: TypeAlias = Callable[[Predict], float]
Progress: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Budget:
    """Gates of a build.

    Attributes:
        drop: Largest loss of accuracy, as a fraction.
        latency: Largest median latency in nanoseconds.
        size: Largest weights plus code in bytes.
        ram: Largest workspace plus state in bytes.

    Raises:
        BadInput: The drop is no share, or a limit is not above zero.
    """

    drop: float | None = None
    latency: float | None = None
    size: int | None = None
    ram: int | None = None

    def __post_init__(self) -> None:
        if self.drop is not None and not 0 <= self.drop <= 1:
            expected = "expected at most 1" if self.drop > 1 else "expected a share from 0 to 1"
            raise BadInput(f"drop {self.drop:g}: {expected}", hint="write 0.01 or 1%")
        limits = {"latency": self.latency, "size": self.size, "ram": self.ram}
        for name, most in limits.items():
            if most is not None and not 0 < most < math.inf:
                raise BadInput(f"{name} {most:g}: expected more than 0")


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What a build was asked for, beside the models.

    Attributes:
        threads: Threads the bundle will run with.
        precision: Asked-for precision.
        calib: Samples for the golden calls, or the path of some, or None.
        evaluate: Accuracy of a predictor, for the drop; of every entry point that it calls.
        budget: Gates.
        progress: Told what happens, a few words each.
        pixels: How images among the samples become numbers.
    """

    threads: int
    precision: str
    calib: Iterable[Any] | str | Path | None
    evaluate: Evaluate | None
    budget: Budget
    progress: Progress
    pixels: Pixels = PLAIN
