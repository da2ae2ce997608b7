"""Which layer gets which precision: an integer program over tables of cost and noise.

    x[l, p] = 1 where layer l has precision p; one p for each l
    y[v] = 1 where value v, which layer a makes and layers b read, is held as floats and as codes
    w[v] = bytes of an element of v: what its readers read, all of it where they differ

    time  = sum of ns[l, p] x[l, p] + ns[v] y[v]
    bytes = sum of bytes[l, p] x[l, p]
    noise = sum of noise[l, p] x[l, p]
    ram   = per moment, bytes of what is fixed + sum of elements[v] w[v] over what is alive then; a
            moment of layer m as built at p counts where x[m, p] = 1

y and w are the largest of sums over x (`Value.twice`, `Value.widths`), so that the program bounds
them from below.

Noise adds because rounding errors of different layers are as good as uncorrelated (Lin, Talathi,
Annapureddy 2016, arXiv:1511.06393); choosing bit widths by an integer program over measured tables
is HAWQ-V3's (Yao et al. 2021, arXiv:2011.10680).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Literal, TypeAlias

import numpy as np

from sparrow.precision.unheard import unheard
from sparrow.quant.recipe import Precision

Quantity: TypeAlias = Literal["noise", "latency", "size", "ram"]
# Bytes of an activation element.
WIDTH: Mapping[Precision, int] = {"float32": 4, "bfloat16": 2, "int16x8": 2, "int8": 1}
FLOATS: tuple[Precision, ...] = ("float32", "bfloat16")
# Most bytes of one that is kept in two forms.
WIDEST = 6


@dataclass(frozen=True, slots=True)
class Cost:
    """What a layer costs at one precision.

    Attributes:
        ns: Time of the layer and of what follows it up to the next layer.
        bytes: Weights and code.
        noise: Power of the error of the outputs over their own when this layer alone has it.
    """

    ns: float
    bytes: float
    noise: float


@dataclass(frozen=True, slots=True)
class Layer:
    """A product, its name in the source model, and its choices."""

    name: str
    op: str
    costs: Mapping[Precision, Cost]


# A sum over choices: of each, what it adds where a layer has a precision; -1 is float32.
Terms: TypeAlias = tuple[tuple[float, int, Precision], ...]


@dataclass(frozen=True, slots=True)
class Value:
    """Values that one layer makes and others read, by position; the input of the network is -1.

    What an integer layer makes for float layers alone is float at once; what a float layer makes
    for integer ones is converted, once for all of them, and both are kept where layers of both
    kinds read it.

    Attributes:
        source: Layer that makes them.
        readers: Layers that read them.
        ns: Time to convert them.
    """

    source: int
    readers: tuple[int, ...]
    ns: float = 0.0

    @property
    def twice(self) -> tuple[Terms, ...]:
        """Sums of which the largest is 1 where they are converted, else none is above 0."""
        made: list[Terms] = [
            ((1.0, self.source, q), (-1.0, b, q)) for q in FLOATS for b in self.readers
        ]
        return (
            *made,
            *(
                ((1.0, b, "float32"), (-1.0, c, "float32"), (-1.0, self.source, "float32"))
                for b, c in permutations(self.readers, 2)
            ),
        )

    @property
    def widths(self) -> tuple[Terms, ...]:
        """Sums of which the largest is the bytes of an element between the layers."""
        codes = {b: tuple((float(n), b, q) for q, n in WIDTH.items()) for b in self.readers}
        # all readers of what one layer of 16 bits makes or reads have 16 bits
        wide: Terms = ((float(WIDTH["int16x8"]), self.source, "int16x8"),)
        both = (
            ((float(WIDTH["float32"]), b, "float32"), *codes[c][1:])
            for b, c in permutations(self.readers, 2)
        )
        return (*codes.values(), wide, *both)


@dataclass(frozen=True, slots=True)
class Moment:
    """Memory that is held at a step of a layer, where the layer has one precision.

    Attributes:
        layer: Position of the layer; -1 of a step that belongs to none.
        precision: Where the layer has another, there is no such moment; float32 for no layer.
        elements: What goes from layer to layer and is alive: elements by the value's position.
        bytes: All else.
    """

    layer: int
    precision: Precision
    elements: Mapping[int, float]
    bytes: float


@dataclass(frozen=True, slots=True)
class Problem:
    """Tables of a network.

    Attributes:
        layers: In order.
        values: What goes from layer to layer, where precisions may meet.
        ns: Time of what belongs to no layer.
        bytes: Bytes of what belongs to no layer.
        moments: Of the steps of all layers at all their precisions.
    """

    layers: tuple[Layer, ...]
    values: tuple[Value, ...]
    ns: float
    bytes: float
    moments: tuple[Moment, ...] = ()

    def pinned(self, pins: Mapping[str, Precision]) -> Problem:
        """The problem with one choice for some layers."""
        kept = tuple(
            replace(x, costs={pins[x.name]: x.costs[pins[x.name]]}) if x.name in pins else x
            for x in self.layers
        )
        return replace(self, layers=kept)


@dataclass(frozen=True, slots=True)
class Mix:
    """A precision for every layer, and what the tables say of it."""

    precisions: tuple[Precision, ...]
    noise: float
    latency: float
    size: float
    ram: float

    def value(self, what: Quantity) -> float:
        """One of the sums."""
        return float(getattr(self, what))


def mix_of(p: Problem, precisions: Sequence[Precision]) -> Mix:
    """What the tables say of a choice."""
    costs = [x.costs[q] for x, q in zip(p.layers, precisions, strict=True)]

    def at(i: int) -> Precision:
        return "float32" if i < 0 else precisions[i]

    def largest(sums: Sequence[Terms]) -> float:
        return max((sum(c for c, i, q in terms if at(i) == q) for terms in sums), default=0.0)

    width = [largest(v.widths) for v in p.values]
    return Mix(
        tuple(precisions),
        sum(c.noise for c in costs),
        p.ns + sum(c.ns for c in costs) + sum(v.ns * max(largest(v.twice), 0.0) for v in p.values),
        p.bytes + sum(c.bytes for c in costs),
        max(
            (
                m.bytes + sum(n * width[v] for v, n in m.elements.items())
                for m in p.moments
                if at(m.layer) == m.precision
            ),
            default=0.0,
        ),
    )


def uniform(p: Problem, q: Precision) -> Mix:
    """One precision wherever it can be chosen; elsewhere the layer's first."""
    return mix_of(p, [q if q in x.costs else next(iter(x.costs)) for x in p.layers])


def solve(p: Problem, least: Quantity, limits: Mapping[Quantity, float]) -> Mix | None:
    """The mix with the least of one quantity within limits of others; None if there is none.

    Args:
        p: Tables; a layer with one choice is pinned.
        least: What to minimise.
        limits: Most of each quantity.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import lil_array

    choices = [(i, q) for i, x in enumerate(p.layers) for q in x.costs]
    column = {c: k for k, c in enumerate(choices)}
    n, values = len(choices), len(p.values)
    twice, width = n, n + values
    rows: list[tuple[dict[int, float], float, float]] = []
    for i, x in enumerate(p.layers):
        rows.append(({column[i, q]: 1.0 for q in x.costs}, 1.0, 1.0))

    def below(terms: Terms, variable: int) -> None:
        """Keep a sum over choices below a variable."""
        row, above = {variable: -1.0}, 0.0
        for c, i, q in terms:
            if i < 0:
                above -= c * (q == "float32")
            elif (i, q) in column:
                row[column[i, q]] = row.get(column[i, q], 0.0) + c
        rows.append((row, -np.inf, above))

    for k, value in enumerate(p.values):
        for terms in value.twice:
            below(terms, twice + k)
        for terms in value.widths:
            below(terms, width + k)

    def held(m: Moment, most: float) -> tuple[dict[int, float], float]:
        """A row that keeps a moment within ``most``, where there is one, and what is constant."""
        row = {width + v: float(e) for v, e in m.elements.items()}
        constant = m.bytes
        # where there is none, the row is as far below as it could be above
        spare = max(0.0, sum(row.values()) * WIDEST + m.bytes - most)
        if m.layer >= 0:
            row[column[m.layer, m.precision]] = spare
            constant -= spare
        return row, constant

    def sums(what: Quantity, most: float = 0.0) -> list[tuple[dict[int, float], float]]:
        """Rows of coefficients of a quantity, with what is constant in each."""
        if what == "ram":
            found = (m for m in p.moments if m.layer < 0 or (m.layer, m.precision) in column)
            return [held(m, most) for m in found]
        field = {"latency": "ns", "size": "bytes", "noise": "noise"}[what]
        row = {
            column[i, q]: float(getattr(c, field))
            for i, x in enumerate(p.layers)
            for q, c in x.costs.items()
        }
        if what == "latency":
            row |= {twice + k: value.ns for k, value in enumerate(p.values)}
        return [(row, {"latency": p.ns, "size": p.bytes, "noise": 0.0}[what])]

    for what, most in limits.items():
        for row, constant in sums(what, most):
            # scaled, so that nanoseconds and shares weigh alike in the solver's tolerances
            scale = max(map(abs, row.values()), default=1.0) or 1.0
            rows.append(
                ({k: v / scale for k, v in row.items()}, -np.inf, (most - constant) / scale)
            )
    extra = least == "ram"
    objective = np.zeros(n + 2 * values + extra)
    if extra:
        # the largest moment, as a variable above all of them
        objective[-1] = 1.0
        for row, constant in sums("ram"):
            rows.append(({**row, n + 2 * values: -1.0}, -np.inf, -constant))
    else:
        ((row, _),) = sums(least)
        for k, v in row.items():
            objective[k] = v
        objective /= max(np.abs(objective).max(), 1e-300)
    matrix = lil_array((len(rows), len(objective)))
    low, high = np.zeros(len(rows)), np.zeros(len(rows))
    for r, (row, a, b) in enumerate(rows):
        for k, v in row.items():
            matrix[r, k] = v
        low[r], high[r] = a, b
    upper = np.ones(len(objective))
    upper[width:] = np.inf
    with unheard():
        found = milp(
            objective,
            integrality=np.r_[np.ones(n), np.zeros(len(objective) - n)],
            bounds=Bounds(0, upper),
            constraints=LinearConstraint(matrix.tocsr(), low, high),
            options={"mip_rel_gap": 1e-6},
        )
    if found.x is None:
        return None
    taken = {i: q for (i, q), v in zip(choices, found.x[:n], strict=True) if v > 0.5}
    return mix_of(p, [taken[i] for i in range(len(p.layers))])


def binding(
    p: Problem, least: Quantity, limits: Mapping[Quantity, float], done: Mix
) -> dict[Quantity, Mix]:
    """The limits without which the mix would be better, each with that better one, which breaks it.

    A better mix that keeps every limit was passed over for another reason.
    """
    found: dict[Quantity, Mix] = {}
    for what, most in limits.items():
        other = solve(p, least, {k: v for k, v in limits.items() if k != what})
        better = other is not None and other.value(least) < done.value(least) * (1 - 1e-3)
        if other is not None and better and other.value(what) > most:
            found[what] = other
    return found


def nearest(p: Problem, limits: Mapping[Quantity, float]) -> dict[Quantity, float]:
    """Of limits that no mix keeps together: what each alone would have to be, the others kept.

    A limit that is not named could be anything: the others fail without it.
    """
    found: dict[Quantity, float] = {}
    for what in limits:
        best = solve(p, what, {k: v for k, v in limits.items() if k != what})
        if best is not None:
            found[what] = best.value(what)
    return found


def front(
    p: Problem, least: Quantity, limits: Mapping[Quantity, float], points: int = 12
) -> tuple[Mix, ...]:
    """Mixes none of which has both less noise and less of ``least``; the noisiest first."""
    first, last = solve(p, least, limits), solve(p, "noise", limits)
    if first is None or last is None:
        return ()
    found = [first]
    # noise is a power: steps are even in decibels, down to where one layer alone is quantized
    single = [c.noise for x in p.layers for c in x.costs.values() if c.noise > 0]
    low = max(last.noise, min(single, default=0.0))
    if 0 < low < first.noise:
        for bound in np.geomspace(first.noise, low, points)[1:]:
            done = solve(p, least, {**limits, "noise": float(bound)})
            if done is not None and done.noise < found[-1].noise:
                found.append(done)
    if last.noise < found[-1].noise:
        found.append(solve(p, least, {**limits, "noise": last.noise}) or last)
    return tuple(found)
