"""How far the answers of two networks disagree where nobody says how to judge it.

Of each output the kind is read off what the reference answers (docs/quantization.md, "Drop"):

- *integers*: the share of elements that differ;
- *classes*: rows of scores along one axis; the share of rows whose largest is in another place;
- *numbers*: the error in root mean square, as a share of that of the answers.

The worst output counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sparrow.tensor import Array

# An error of less than this share of numbers is what two float32 implementations differ by.
_ROUNDING = 1e-4
# Values this near to the largest of a row are as large.
_EQUAL = 1e-6
# How far from 1 the probabilities of a row add up to.
_WHOLE = 1e-3
# Rows of so many places in a sequence are coordinates: boxes, key points.
_COORDINATES = 4
# So many rows whose largest is always in one place are no scores.
_STEADY = 8

# What cannot be told from scores of a place by shape and values.
RAW = "; raw heads of a detector look the same: judge those by --evaluate file.py:f"

Shape = tuple[int, ...]


class Disagreement:
    """Of the answers of one network against those of another, over samples.

    Args:
        inputs: Shapes of the network's inputs, which tell images and sequences from classes.
    """

    def __init__(self, inputs: Iterable[Shape] = ()) -> None:
        self._inputs = tuple(inputs)
        self._outputs: dict[str, _Output] = {}

    def add(self, got: Mapping[str, Array], want: Mapping[str, Array]) -> None:
        """Take the answers to one sample, by the names of ``want``."""
        for name, y in want.items():
            self._outputs.setdefault(name, _Output()).add(got[name], y)

    @property
    def share(self) -> float:
        """What was lost, from 0 to 1."""
        return self._worst[0]

    def meaning(self, samples: str, reference: str) -> str:
        """What the share is; ``samples`` and ``reference`` in words."""
        _, name, kind = self._worst
        doubt = RAW if kind == "classes" and self._outputs[name].raw(self._inputs) else ""
        of = f" of {name!r}, the worst output" if len(self._outputs) > 1 else ""
        if kind == "numbers":
            return (
                f"error of {name!r}, numbers, from {reference} over {samples}, in root mean "
                "square relative to its values"
            )
        if kind == "integers":
            return f"share of {samples}, by integers{of}, that are not those of {reference}"
        return (
            f"share of {samples}, by rows of scores{of}, whose largest is not that of {reference}"
            f"{doubt}"
        )

    @property
    def _worst(self) -> tuple[float, str, str]:
        """The share, its output, and of what kind that is."""
        judged = [(*o.lost(self._inputs), name) for name, o in self._outputs.items()]
        if not judged:
            return 0.0, "", "classes"
        share, kind, name = max(judged, key=lambda x: x[0])
        return share, name, kind


@dataclass(slots=True)
class _Rows:
    """Rows of scores along one axis."""

    rows: int = 0
    apart: int = 0
    probabilities: bool = True
    place: int | None = None
    steady: bool = True

    def add(self, got: Array | None, want: Array) -> None:
        """Take rows [row, score]; None where the answer has another shape."""
        self.rows += len(want)
        if got is None:
            self.apart += len(want)
            return
        mine, theirs = got.argmax(1), want.argmax(1)
        each = np.arange(len(want))
        top, taken = want[each, theirs], want[each, mine]
        near = np.abs(taken - top) <= _EQUAL * np.maximum(np.abs(top), 1e-30)
        # NaN is the largest of its row; an infinity is as large as itself
        same = near | (taken == top) | (np.isnan(taken) & np.isnan(top))
        same &= np.isnan(got[each, mine]) == np.isnan(top)
        self.apart += int((~same).sum())
        self.probabilities = self.probabilities and _distributions(want)
        if self.place is None:
            self.place = int(theirs[0])
        self.steady = self.steady and bool((theirs == self.place).all())


@dataclass(slots=True)
class _Output:
    """One output over samples, judged in every way that its shape allows."""

    shape: Shape = ()
    integer: bool = False
    elements: int = 0
    differ: int = 0
    error: float = 0.0
    power: float = 0.0
    along: dict[int, _Rows] = field(default_factory=dict)

    def add(self, got: Array, want: Array) -> None:
        self.shape = want.shape
        self.integer = want.dtype.kind != "f"
        fits = got.shape == want.shape
        if self.integer:
            self.elements += max(want.size, 1)
            self.differ += int((got != want).sum()) if fits else max(want.size, 1)
            return
        x, y = got.astype(np.float64), want.astype(np.float64)
        error, power = _squares(x, y) if fits else (math.inf, 0.0)
        self.error += error
        self.power += power
        for axis in {0} if y.ndim == 1 else {1, y.ndim - 1} if y.ndim else ():
            if y.shape[axis] > 1 and y.size:
                rows = self.along.setdefault(axis, _Rows())
                rows.add(_rows(x, axis) if fits else None, _rows(y, axis))

    def lost(self, inputs: tuple[Shape, ...]) -> tuple[float, str]:
        """The share that was lost, and the kind of the output."""
        if self.integer:
            return self.differ / max(self.elements, 1), "integers"
        axis = self._classes(inputs)
        if axis is not None:
            rows = self.along[axis]
            return rows.apart / max(rows.rows, 1), "classes"
        share = math.sqrt(self.error / self.power) if self.power > 0 else float(self.error > 0)
        return (min(share, 1.0) if share > _ROUNDING else 0.0), "numbers"

    def raw(self, inputs: tuple[Shape, ...]) -> bool:
        """Whether scores of many places, no probabilities, may be undecoded boxes or their kin."""
        axis = self._classes(inputs)
        if axis is None or len(self.shape) < 3 or self.along[axis].probabilities:
            return False
        # tokens and frames have classes at every position; the places of an image are no input's
        return not any(len(s) == 3 or self.shape[1] in s[1:2] for s in inputs)

    def _classes(self, inputs: tuple[Shape, ...]) -> int | None:
        """The axis of the classes; None where the output holds numbers."""
        order = sorted(self.along, reverse=len(self.shape) < 4)
        for axis in order:
            if self.along[axis].probabilities:
                return axis
        axis = self._scores_axis(inputs)
        if axis not in self.along:
            return None
        rows = self.along[axis]
        if len(self.shape) == 3 and self.shape[axis] <= _COORDINATES:
            return None
        if len(self.shape) >= 4:
            # an image of an image
            alike = (len(s) == len(self.shape) and s[axis] == self.shape[axis] for s in inputs)
            return None if any(alike) else axis
        # rows of what an input has as many of: a reconstruction, the state of a system
        if len(self.shape) < 3 and self.shape in inputs:
            return None
        return None if rows.steady and rows.rows >= _STEADY else axis

    def _scores_axis(self, inputs: tuple[Shape, ...]) -> int:
        """Where scores lie that do not add up to 1."""
        rank, last = len(self.shape), len(self.shape) - 1
        if rank == 3:
            # positions are as many as those of an input
            first = any(len(s) > 1 and s[1] == self.shape[1] for s in inputs)
            second = any(len(s) == 3 and s[2] == self.shape[2] for s in inputs)
            return 1 if second and not first else last
        if rank < 4:
            return last
        if len(set(self.shape[2:])) == 1 and self.shape[1] != self.shape[last]:
            return 1
        if len(set(self.shape[1:last])) == 1 and self.shape[1] != self.shape[last]:
            return last
        return 1 if self.shape[1] <= self.shape[last] else last


def _rows(x: Array, axis: int) -> Array:
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])


def _distributions(rows: Array) -> bool:
    """Whether every row holds probabilities, or their logarithms."""
    finite = np.where(np.isnan(rows), np.inf, rows)
    if (finite >= 0).all():
        sums = finite.sum(1)
    elif (finite <= _WHOLE).all():
        sums = np.exp(finite).sum(1)
    else:
        return False
    return bool((np.abs(sums - 1) <= _WHOLE).all())


def _squares(got: Array, want: Array) -> tuple[float, float]:
    """Of the errors and of the answers; what is infinite or no number is all or nothing."""
    finite = np.isfinite(want)
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    if not same[~finite].all() or not np.isfinite(got[finite]).all():
        return math.inf, float((want[finite] ** 2).sum())
    return float(((got[finite] - want[finite]) ** 2).sum()), float((want[finite] ** 2).sum())
