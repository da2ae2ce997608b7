"""The first value where two models, or a model and a bundle, part.

Values are matched by name and shape; those of a bundle are what its ONNX twin computes, and its
outputs what its native code does.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sparrow.bundle import load_bundle
from sparrow.errors import BadInput
from sparrow.folder import load_graphs
from sparrow.graph import Graph
from sparrow.importers.imported import Shapes
from sparrow.importers.model import Model, import_model, input_names
from sparrow.input_shapes import (
    ONE_NETWORK,
    check_inputs,
    check_types,
    open_inputs,
    shapes_from_graph,
    shapes_from_samples,
)
from sparrow.quant.engine import literally, with_states
from sparrow.samples import Feeds, Pixels, draw, samples
from sparrow.tensor import Array

# Samples that are compared, and how many are drawn when none are given.
COMPARED, DRAWN = 8, 3
# Share of the largest magnitude that two float implementations may be apart in a deep network.
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two models are apart at a value.

    Attributes:
        value: Its name.
        op: Kind of op that makes it in the first model.
        origin: Source node there.
        apart: Largest |a - b|; infinite where one is not finite and the other is.
        scale: Largest magnitude in the first model.
        index: Where that is.
    """

    value: str
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
        tolerance: Share of the largest magnitude from which on a value differs.
        samples: Number of samples.
    """

    values: tuple[Difference, ...]
    tolerance: float
    samples: int

    @property
    def first(self) -> Difference | None:
        """The first value that differs."""
        return next((d for d in self.values if not d.share <= self.tolerance), None)

    def as_json(self) -> dict[str, Any]:
        """The same facts."""
        first = self.first
        return {**asdict(self), "first": None if first is None else asdict(first)}

    def __str__(self) -> str:
        over = f"{len(self.values)} values by the same name, {self.samples} samples"
        d = self.first
        if d is None:
            worst = max((v.share for v in self.values), default=0.0)
            return f"same: {over}, at most {worst:.1e} of the largest magnitude apart"
        return (
            f"they part at {d.value!r} ({d.op}, {d.origin or '?'}): {d.apart:.4g} at "
            f"{list(d.index)} of at most {d.scale:.4g} ({d.share:.1e}, allowed "
            f"{self.tolerance:g}); {over}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>"


def _apart(a: Array, b: Array) -> tuple[float, tuple[int, ...]]:
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        d = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
    d = np.where(np.isnan(d), np.inf, d)
    if not d.size:
        return 0.0, ()
    at = np.unravel_index(int(d.argmax()), d.shape)
    return float(d[at]), tuple(int(i) for i in at)


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

    def read(self, shapes: Shapes, constants: Mapping[str, Any]) -> None:
        """Import the graph."""
        self.graph: Graph = import_model(self.source, shapes, constants=constants).graph
        if self.graph.states:
            raise BadInput(f"{self.graph.name}: models with states cannot be compared yet")

    def values(self, names: Sequence[str], given: Sequence[Feeds]) -> list[dict[str, Array]]:
        """The named values for each sample."""
        run = literally(self.graph, names)
        found = []
        if self.bundle is not None:
            self.bundle.reset()
        for feeds in given:
            row = run(feeds)
            if self.bundle is not None and self.carrying is not None:
                own = self.bundle.run({x: feeds[x] for x in self.carrying.inputs})
                row |= {k: v for k, v in own.items() if k in row}
            found.append(row)
        return found


def diff(
    a: Model,
    b: Model,
    calib: Iterable[Any] | str | Path | None = None,
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
        BadInput: The models have other inputs, or no value in common.
    """
    left, right = _Side(a), _Side(b)
    # the one that says its shapes tells them the other
    first, second = sorted((left, right), key=lambda s: bool(open_inputs(s.source)))
    constants = constants or {}
    theirs = {k: v for k, v in constants.items() if k in input_names(second.source)}
    # what neither has is refused by the first
    ours = {k: v for k, v in constants.items() if k in input_names(first.source) or k not in theirs}
    held = [s.input for x in (left, right) if x.carrying for s in x.carrying.states]
    check_inputs(left.source, right.source, constants)
    known, calib = shapes_from_samples(first.source, shapes or {}, calib, [*constants, *held])
    first.read(known, ours)
    known = shapes_from_graph(
        second.source, shapes or {}, first.graph, "the other model", constants
    )
    second.read(known, theirs)
    f, g = left.graph, right.graph
    types = {x: f.types[x] for x in f.inputs}
    check_types(f, g, "the first model", "the second")
    if set(f.inputs) != set(g.inputs):
        takes = (", ".join(f"{x!r}: {h.types[x]}" for x in h.inputs) or "none" for h in (f, g))
        raise BadInput(
            f"inputs differ: the first model takes {next(takes)}, the second {next(takes)}",
            hint=ONE_NETWORK,
        )
    graphs = [s.carrying for s in (left, right) if s.carrying is not None]
    carrying = next((g for g in graphs if g.states), None)
    carried = [] if carrying is None else [s.input for s in carrying.states]
    free = {x: t for x, t in types.items() if x not in carried}
    if calib is None:
        drawn = (draw(f, (0, k)) for k in range(DRAWN))
        given: list[Feeds] = [{x: d[x] for x in free} for d in drawn]
    else:
        given = list(islice(samples(calib, free, pixels or Pixels()), COMPARED))
    if not given:
        raise BadInput("no sample to compare on")
    if carrying is not None:
        given = list(with_states(carrying, given))
    made = f.producers()
    names = [
        y
        for n in f.nodes
        for y in n.outputs
        # names of ours (%) mean other values in every graph
        if (y in f.outputs or y[:1] != "%") and y in g.types and y not in g.consts
    ]
    names = [y for y in names if f.types[y].shape == g.types[y].shape]
    # codes of other scales or widths are other numbers for the same value
    names = [y for y in names if y in f.outputs or f.types[y].quant == g.types[y].quant]
    if not names:
        raise BadInput("the models have no value of the same name and shape in common")
    worst: dict[str, Difference] = {}
    for x, y in zip(left.values(names, given), right.values(names, given), strict=True):
        for name in names:
            apart, index = _apart(x[name], y[name])
            finite = x[name][np.isfinite(x[name])] if x[name].dtype.kind == "f" else x[name]
            scale = float(np.abs(finite.astype(np.float64)).max(initial=0))
            old = worst.get(name)
            if old is None or apart > old.apart:
                n = made[name]
                worst[name] = Difference(
                    name, type(n.op).__name__, n.origin, apart, max(scale, 0.0), index
                )
    return Diff(tuple(worst[name] for name in names), tolerance, len(given))
