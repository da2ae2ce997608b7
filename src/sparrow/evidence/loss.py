"""What a network lost of another's answers where nobody says how to judge it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from sparrow.tensor import Array

# An error of less than this share of one number is what two float32 implementations differ by.
_ROUNDING = 1e-4
# Values this near to the largest of an output are as large.
_EQUAL = 1e-6


class Loss:
    """Of the answers of one network against those of another, over samples.

    Outputs of several floats are taken for scores: what counts is which is the largest. One float
    is always the largest of its output, so that of it the error counts: its root mean square, as a
    share of that of the answers.
    """

    def __init__(self) -> None:
        self._samples = self._apart = 0
        self._errors: dict[str, list[float]] = {}  # squares of errors and of answers, added up

    def add(self, got: Mapping[str, Array], want: Mapping[str, Array]) -> None:
        """Take the answers to one sample, by the names of ``want``."""
        self._samples += 1
        self._apart += any(_apart(got[name], y) for name, y in want.items())
        for name, y in want.items():
            if y.dtype.kind == "f" and y.size == 1 == got[name].size:
                error, power = _squares(float(got[name].item()), float(y.item()))
                sums = self._errors.setdefault(name, [0.0, 0.0])
                sums[0] += error
                sums[1] += power

    @property
    def share(self) -> float:
        """What was lost, from 0 to 1."""
        return self._worst[0]

    def meaning(self, samples: str, reference: str) -> str:
        """What the share is; ``samples`` and ``reference`` in words."""
        name = self._worst[1]
        if name is None:
            return (
                f"share of {samples} whose integers or largest floats differ from those of "
                f"{reference}"
            )
        return (
            f"error of {name!r}, one number, from that of {reference} over {samples}, in root "
            "mean square relative to its values"
        )

    @property
    def _worst(self) -> tuple[float, str | None]:
        """The share, and the output of one number that has it."""
        worst: tuple[float, str | None] = self._apart / max(self._samples, 1), None
        for name, (error, power) in self._errors.items():
            share = math.sqrt(error / power) if power > 0 else float(error > 0)
            share = min(share, 1.0) if share > _ROUNDING else 0.0
            if share > worst[0]:
                worst = share, name
        return worst


def _squares(got: float, want: float) -> tuple[float, float]:
    """Of the error and of the answer; what is infinite or no number is all or nothing."""
    if not math.isfinite(want):
        same = got == want or (math.isnan(got) and math.isnan(want))
        return (0.0 if same else math.inf), 0.0
    error = got - want
    return (error * error if math.isfinite(error) else math.inf), want * want


def _apart(got: Array, want: Array) -> bool:
    if got.shape != want.shape:
        return True
    if not want.size:
        return False
    if want.dtype.kind != "f":
        return not np.array_equal(got, want)
    flat = want.reshape(-1)
    top = float(flat.max())
    # two equal maxima are no disagreement
    return abs(float(flat[int(np.argmax(got))]) - top) > _EQUAL * max(abs(top), 1e-30)
