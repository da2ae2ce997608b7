"""The first value where two models, or a model and a bundle, part.

Values are matched by name, and by what they hold where names say nothing or are mixed up. Those of
a bundle are what its ONNX twin computes, and its outputs what its native code does.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from sparrow.blame.pairing import counterparts
from sparrow.bundle import load_bundle
from sparrow.errors import BadInput
from sparrow.folder import load_graphs
from sparrow.graph import Graph
from sparrow.importers.imported import Shapes
from sparrow.importers.model import Model, import_model, input_names
from sparrow.input_shapes import (
    ONE_NETWORK,
    by_order,
    check_inputs,
    check_types,
    open_inputs,
    shapes_from_graph,
    shapes_from_samples,
)
from sparrow.quant.engine import literally, with_states
from sparrow.samples import Feeds, Pixels, draw, samples
from sparrow.tensor import Array

Calib: TypeAlias = Iterable[Any] | str | Path | None
# Samples that are compared, and how many are drawn when none are given, or tell what is what.
COMPARED, DRAWN = 8, 3
# Share of the largest magnitude that two float implementations may be apart in a deep network.
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two models are apart at a value.

    Attributes:
        value: Its name in the first model.
        other: Its name in the second.
        op: Kind of op that makes it in the first model.
        origin: Source node there.
        apart: Largest |a - b|; infinite where one is not finite and the other is.
        scale: Largest magnitude in the first model.
        index: Where that is.
    """

    value: str
    other: str
    op: str
    origin: str
    apart: float
    scale: float
    index: tuple[int, ...]

    @property
    def share(self) -> float:
        """``apart`` as a share of ``scale``."""
        return self.apart / self.scale if self.scale else self.apart


@dataclass(frozen=True, slots=True)
class Diff:
    """Two models compared value by value, in the order of the first.

    Attributes:
        values: What both have.
        of: Number of values of the first model.
        tolerance: Share of the largest magnitude from which on a value differs.
        samples: Number of samples.
        inputs: Of inputs that were matched by their order, the name in the second model by that in
            the first.
    """

    values: tuple[Difference, ...]
    of: int
    tolerance: float
    samples: int
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def first(self) -> Difference | None:
        """The first value that differs."""
        return next((d for d in self.values if not d.share <= self.tolerance), None)

    def as_json(self) -> dict[str, Any]:
        """The same facts."""
        first = self.first
        return {**asdict(self), "first": None if first is None else asdict(first)}

    def __str__(self) -> str:
        renamed = sum(d.value != d.other for d in self.values)
        held = f" ({renamed} by what they hold)" if renamed else ""
        over = f"{len(self.values)} of {self.of} values{held}, {self.samples} samples"
        if self.inputs:
            over += f"; inputs by their order: {_each(self.inputs)}"
        d = self.first
        if d is None:
            worst = max((v.share for v in self.values), default=0.0)
            return f"same, at most {worst:.1e} of the largest magnitude apart: {over}"
        other = f", {d.other!r} in the second" if d.other != d.value else ""
        return (
            f"they part at {d.value!r} ({d.op}, {d.origin or '?'}{other}): {d.apart:.4g} at "
            f"{list(d.index)} of at most {d.scale:.4g} ({d.share:.1e}, allowed "
            f"{self.tolerance:g}); {over}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>"


def _each(inputs: Mapping[str, str]) -> str:
    return ", ".join(f"{x!r} is {y!r} in the second" for x, y in inputs.items())


def _apart(a: Array, b: Array) -> tuple[float, tuple[int, ...]]:
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        d = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
    d = np.where(np.isnan(d), np.inf, d)
    if not d.size:
        return 0.0, ()
    at = np.unravel_index(int(d.argmax()), d.shape)
    return float(d[at]), tuple(int(i) for i in at)


def _largest(x: Array) -> float:
    """Largest finite magnitude."""
    finite = x[np.isfinite(x)] if x.dtype.kind == "f" else x
    return float(np.abs(finite.astype(np.float64)).max(initial=0))


def _with_inputs(g: Graph, called: Mapping[str, str]) -> Graph:
    """``g`` with other names for inputs; values of its own that go by these get others, too."""
    taken = {x: f"{x} (second)" for x in called.values() if x in g.types and x not in g.inputs}
    names = {**taken, **called}

    def of(x: str) -> str:
        return names.get(x, x)

    return replace(
        g,
        nodes=tuple(
            replace(n, inputs=tuple(map(of, n.inputs)), outputs=tuple(map(of, n.outputs)))
            for n in g.nodes
        ),
        inputs=tuple(map(of, g.inputs)),
        outputs=tuple(map(of, g.outputs)),
        types={of(x): t for x, t in g.types.items()},
        consts={of(x): a for x, a in g.consts.items()},
    )


class _Side:
    """One of the two: a graph, and a bundle that runs its outputs."""

    def __init__(self, source: Model) -> None:
        folder = Path(source) if isinstance(source, (str, Path)) else None
        self.bundle = None
        # of a bundle, whose twin has its states as inputs
        self.carrying: Graph | None = None
        if folder is not None and folder.is_dir():
            self.bundle = load_bundle(folder)
            if len(self.bundle.plan.entries) != 1:
                raise BadInput(f"{folder}: diff takes bundles of one entry point")
            (self.carrying,) = load_graphs(folder, self.bundle.plan)
            source = str(folder / Path(self.bundle.plan.entries[0].model).name)
        self.source = source
        # own name of an input -> what it is called, where it was matched by its order
        self.called: Mapping[str, str] = {}

    def read(self, shapes: Shapes, constants: Mapping[str, Any]) -> None:
        """Import the graph."""
        self.graph: Graph = import_model(self.source, shapes, constants=constants).graph
        if self.graph.states:
            raise BadInput(f"{self.graph.name}: models with states cannot be compared yet")

    def rename(self, called: Mapping[str, str]) -> None:
        """Call inputs of the graph by other names."""
        self.called = called
        self.graph = _with_inputs(self.graph, called)

    def values(self, names: Iterable[str], given: Sequence[Feeds]) -> list[dict[str, Array]]:
        """The named values for each sample."""
        run = literally(self.graph, list(names))
        found = []
        if self.bundle is not None:
            self.bundle.reset()
        for feeds in given:
            row = run(feeds)
            if self.bundle is not None and self.carrying is not None:
                inputs = {x: feeds[self.called.get(x, x)] for x in self.carrying.inputs}
                own = self.bundle.run(inputs)
                row |= {k: v for k, v in own.items() if k in row}
            found.append(row)
        return found


def diff(
    a: Model,
    b: Model,
    calib: Calib = None,
    *,
    tolerance: float = TOLERANCE,
    shapes: Shapes | None = None,
    constants: Mapping[str, Any] | None = None,
    pixels: Pixels | None = None,
) -> Diff:
    """Compare two models value by value.

    Args:
        a: Model, or bundle folder.
        b: Model, or bundle folder.
        calib: Samples, see `sparrow.quantize`; drawn from a seed when None. States of a bundle
            carry over in order.
        tolerance: Share of a value's largest magnitude from which on it differs.
        shapes: Static shapes of inputs with dynamic dimensions; where not given, those of the
            other model or of the samples.
        constants: Inputs fixed to a value, such as a sample rate, in the model that has them; they
            vanish, as from the file or bundle that was made with them fixed.
        pixels: How images become numbers.

    Raises:
        BadInput: The models have inputs of other shapes or types, or no value in common.
    """
    left, right, calib = _read(a, b, calib, shapes or {}, constants or {})
    f, g = left.graph, right.graph
    given = _given(left, right, calib, pixels or Pixels())
    pairs = counterparts(f, g, given[:DRAWN], literally)
    if not pairs:
        raise BadInput("the models have no value in common")
    made = f.producers()
    worst: dict[str, Difference] = {}
    ran = zip(left.values(pairs, given), right.values(pairs.values(), given), strict=True)
    for x, y in ran:
        for name, other in pairs.items():
            apart, index = _apart(x[name], y[other])
            old = worst.get(name)
            if old is None or apart > old.apart:
                n = made[name]
                kind = type(n.op).__name__
                worst[name] = Difference(
                    name, other, kind, n.origin, apart, _largest(x[name]), index
                )
    values = sum(y[0] != "%" or y in f.outputs for y in made)
    inputs = {x: y for y, x in right.called.items()}
    return Diff(tuple(worst[name] for name in pairs), values, tolerance, len(given), inputs)


def _read(
    a: Model, b: Model, calib: Calib, shapes: Shapes, constants: Mapping[str, Any]
) -> tuple[_Side, _Side, Calib]:
    """Both models with shapes that one of them or the samples say, and the samples."""
    left, right = _Side(a), _Side(b)
    # the one that says its shapes tells them the other
    first, second = sorted((left, right), key=lambda s: bool(open_inputs(s.source)))
    theirs = {k: v for k, v in constants.items() if k in input_names(second.source)}
    # what neither has is refused by the first
    ours = {k: v for k, v in constants.items() if k in input_names(first.source) or k not in theirs}
    held = [s.input for x in (left, right) if x.carrying for s in x.carrying.states]
    called = {} if held else by_order(left.source, right.source, constants)
    check_inputs(left.source, right.source, [*constants, *called, *called.values()])
    # what an input of the one is called in the other
    there = called if first is right else {x: y for y, x in called.items()}
    here = {y: x for x, y in there.items()}
    shapes = {here.get(k, k): v for k, v in shapes.items()}
    known, calib = shapes_from_samples(first.source, shapes, calib, [*constants, *held])
    first.read(known, ours)
    shapes = {there.get(k, k): v for k, v in shapes.items()}
    like = _with_inputs(first.graph, there)
    known = shapes_from_graph(second.source, shapes, like, "the other model", constants)
    second.read(known, theirs)
    f, g = left.graph, right.graph
    types = ((f.types[x], g.types[y]) for y, x in called.items() if y in g.inputs)
    if called and all((a.shape, a.dtype) == (b.shape, b.dtype) for a, b in types):
        right.rename(called)
        g = right.graph
    check_types(f, g, "the first model", "the second")
    if set(f.inputs) != set(g.inputs):
        takes = (", ".join(f"{x!r}: {h.types[x]}" for x in h.inputs) or "none" for h in (f, g))
        raise BadInput(
            f"inputs differ: the first model takes {next(takes)}, the second {next(takes)}",
            hint=ONE_NETWORK,
        )
    return left, right, calib


def _given(left: _Side, right: _Side, calib: Calib, pixels: Pixels) -> list[Feeds]:
    """Samples, or drawn ones, with what the states of a bundle hold when their turn comes."""
    f = left.graph
    graphs = [s.carrying for s in (left, right) if s.carrying is not None]
    carrying = next((g for g in graphs if g.states), None)
    carried = [] if carrying is None else [s.input for s in carrying.states]
    free = {x: f.types[x] for x in f.inputs if x not in carried}
    if calib is None:
        drawn = (draw(f, (0, k)) for k in range(DRAWN))
        given: list[Feeds] = [{x: d[x] for x in free} for d in drawn]
    else:
        given = list(islice(samples(calib, free, pixels), COMPARED))
    if not given:
        raise BadInput("no sample to compare on")
    return given if carrying is None else list(with_states(carrying, given))
