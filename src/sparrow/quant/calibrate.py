"""What the values of a network look like over a set of samples, in one pass and constant memory.

Per value: smallest and largest, a histogram (`sparrow.quant.histogram`), and per channel the
smallest, the largest and the mean; per product, if asked for, the second moments of its inputs.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparrow.errors import BadInput
from sparrow.graph import Graph
from sparrow.npz import parse_arrays
from sparrow.quant.engine import Engine, fastest
from sparrow.quant.health import Health, Watch, dead_channels
from sparrow.quant.histogram import Histogram
from sparrow.quant.moments import Moments, SecondMoments, alike
from sparrow.quant.place import Placement, channel_axes
from sparrow.tensor import Array

SCHEMA = 2
Progress = Callable[[str], None]


@dataclass(slots=True, eq=False)
class Statistics:
    """A value over all samples.

    Attributes:
        histogram: Counts of all elements.
        low: Smallest of each channel.
        high: Largest of each channel.
        total: Sum of each channel.
        count: Elements of each channel.
    """

    histogram: Histogram = field(default_factory=Histogram)
    low: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    high: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    count: int = 0

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each channel."""
        return self.total / max(self.count, 1)

    def add(self, x: Array, axis: int) -> None:
        """Take in one more array, whose channels lie along ``axis``."""
        self.histogram.add(x)
        rows = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) if x.ndim else x.reshape(1, 1)
        if not rows.size:
            return
        low, high = rows.min(1), rows.max(1)
        first = not self.count
        self.low = low if first else np.minimum(self.low, low)
        self.high = high if first else np.maximum(self.high, high)
        total = rows.sum(1, dtype=np.float64)
        self.total = total if first else self.total + total
        self.count += rows.shape[1]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Calibration:
    """What a set of samples told of a graph.

    Attributes:
        values: Statistics of every value that becomes codes.
        moments: Product (by its result) -> moments of its inputs, where they were asked for.
        digests: SHA-256 of every sample, in order.
        health: What was noticed of the set.
    """

    values: Mapping[str, Statistics]
    moments: Mapping[str, Moments]
    digests: tuple[str, ...]
    health: Health

    def only(self, g: Graph, placement: Placement) -> Calibration:
        """What one placement needs of statistics that were taken for more."""
        needed = placement.watched(g)
        values = {x: self.values[x] for x in self.values if x in needed}
        sums = {n.outputs[0] for n in placement.sums}
        notes = dead_channels({place_of(g, x): s for x, s in values.items()})
        return Calibration(
            values,
            {y: m for y, m in self.moments.items() if y in sums},
            self.digests,
            replace(self.health, of_values=notes),
        )


def digest(feeds: Mapping[str, Array]) -> str:
    """SHA-256 over the arrays of a sample."""
    h = hashlib.sha256()
    for name in sorted(feeds):
        a = np.ascontiguousarray(feeds[name])
        h.update(f"{name}:{a.dtype}{a.shape}".encode())
        h.update(a.tobytes())
    return h.hexdigest()


def calibrate(
    g: Graph,
    samples: Iterable[Mapping[str, Array]],
    placement: Placement,
    *,
    also: Sequence[str] = (),
    moments: bool = False,
    evaluation: frozenset[str] = frozenset(),
    number: Callable[[int], int] = lambda n: n,
    engine: Engine = fastest,
    progress: Progress = lambda _: None,
) -> Calibration:
    """Run the float graph over samples and keep statistics of every value that becomes codes.

    Args:
        g: Float graph.
        samples: Feeds for all inputs, see `sparrow.samples.samples`; states carry over in order.
        placement: Says which values.
        also: Further values, of which nothing is known where they are not finite.
        moments: Whether to keep moments of the inputs of products, for rounding.
        evaluation: Digests of samples the result will be judged on.
        number: Of the n-th of ``samples`` in the source that a user knows.
        engine: How the graph is run.
        progress: Told what happens.

    Raises:
        BadInput: There is no sample, all inputs are constant, a value is NaN or infinite, or a
            sample belongs to the evaluation set.
    """
    sums = {n.outputs[0]: n for n in placement.sums}
    needed = placement.watched(g)
    watched = {*needed, *also}
    wanted = [x for x in g.types if x in watched]
    values = {x: Statistics() for x in wanted}
    second = {y: SecondMoments.of(g, n) for y, n in sums.items()} if moments else {}
    second = {y: m for y, m in second.items() if m is not None}
    run = engine(g, list(dict.fromkeys([*values, *g.inputs])))
    watch, axes = Watch(g), channel_axes(g)
    digests: list[str] = []
    for feeds in samples:
        name = digest(feeds)
        if name in evaluation:
            raise BadInput(
                f"calibration sample {number(len(digests))} is also in the evaluation set",
                hint="calibrate on other samples, or the accuracy says nothing",
            )
        watch.sample(feeds, number(len(digests)))
        found = run(feeds)
        for x in wanted:
            if x not in values:
                continue
            a = found[x]
            if not np.isfinite(a).all():
                if x not in needed:
                    del values[x]
                    continue
                raise BadInput(
                    f"sample {number(len(digests))} gives NaN or infinite values "
                    f"at {place_of(g, x)}",
                    hint="leave that sample out, or pin the layer to float32",
                )
            values[x].add(a, axes[x])
        for y, m in second.items():
            assert m is not None
            m.add(found[sums[y].inputs[0]])
        digests.append(name)
        progress(f"calibrating: {len(digests)} samples")
    notes = dead_channels({place_of(g, x): s for x, s in values.items()})
    health = replace(watch.verdict(digests), of_values=notes)
    of_products = {y: m.moments() for y, m in second.items() if m is not None}
    weights = {y: sums[y].inputs[1] for y in of_products}
    return Calibration(values, alike(of_products, weights), tuple(digests), health)


def peaks(
    g: Graph, samples: Iterable[Mapping[str, Array]], values: Sequence[str], engine: Engine
) -> dict[str, NDArray[np.float32]]:
    """Largest magnitude of each channel (last axis) of ``values`` over samples."""
    run = engine(g, values)
    found: dict[str, NDArray[np.float32]] = {}
    for feeds in samples:
        for x, a in run(feeds).items():
            peak = np.abs(a).reshape(-1, a.shape[-1]).max(0)
            found[x] = np.maximum(found.get(x, peak), peak)
    return found


def place_of(g: Graph, value: str) -> str:
    """What a user knows a value by."""
    made = g.producers().get(value)
    return f"{made.origin or value}" if made else f"input {value}"


def to_npz(c: Calibration) -> bytes:
    """The statistics as an ``.npz``; the same calibration gives the same bytes."""
    arrays: dict[str, Any] = {}
    rows = []
    for i, (name, s) in enumerate(c.values.items()):
        h = s.histogram
        rows.append([name, h.first, h.exponent, h.low, h.high, s.count])
        used = np.flatnonzero(h.counts)
        arrays |= {f"{i}.bins": used, f"{i}.counts": h.counts[used]}
        arrays |= {f"{i}.low": s.low, f"{i}.high": s.high, f"{i}.total": s.total}
    for i, m in enumerate(c.moments.values()):
        at = np.triu_indices(m.mean.shape[1])
        arrays |= {f"{i}.mean": m.mean, f"{i}.covariance": m.covariance[:, *at]}
    head = {
        "schema": SCHEMA,
        "values": rows,
        "moments": list(c.moments),
        "digests": c.digests,
        "notes": c.health.notes,
    }
    arrays["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def from_npz(data: bytes) -> Calibration:
    """What `to_npz` wrote.

    Raises:
        BadInput: The bytes are something else.
    """
    f = parse_arrays(io.BytesIO(data), len(data), "calibration statistics")
    try:
        head = json.loads(f["head"].tobytes())
        if head["schema"] != SCHEMA:
            raise BadInput(f"calibration statistics of schema {head['schema']}, not {SCHEMA}")
        values = {}
        for i, (name, first, exponent, low, high, count) in enumerate(head["values"]):
            h = Histogram(first=first, exponent=exponent, low=low, high=high)
            h.counts[f[f"{i}.bins"]] = f[f"{i}.counts"]
            values[name] = Statistics(h, f[f"{i}.low"], f[f"{i}.high"], f[f"{i}.total"], count)
        moments = {
            y: Moments(f[f"{i}.mean"], _symmetric(f[f"{i}.covariance"], f[f"{i}.mean"].shape))
            for i, y in enumerate(head["moments"])
        }
        digests, notes = tuple(head["digests"]), tuple(head["notes"])
    except (ValueError, LookupError, TypeError, RecursionError) as e:
        raise BadInput(f"no calibration statistics: {type(e).__name__}: {e}") from None
    return Calibration(values, moments, digests, Health(len(digests), notes))


def _symmetric(triangle: Array, shape: tuple[int, ...]) -> Array:
    """[group, K, K] from the upper triangles."""
    full = np.zeros((*shape, shape[1]), np.float32)
    row, column = np.triu_indices(shape[1])
    full[:, row, column] = full[:, column, row] = triangle
    return full
