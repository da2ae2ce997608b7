"""Golden calls: inputs, and what the NumPy reference gives for outputs and for every step.

The calls run one after the other from the initial state, so that models with state are covered.
``golden.npz`` names its arrays by position, never by the model's names.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sparrow.errors import BadBundle, BadInput
from sparrow.graph import Graph, Node
from sparrow.npz import read_arrays
from sparrow.reference import evaluate
from sparrow.samples import PLAIN, Feeds, Pixels, by_entry, draw, samples
from sparrow.tensor import I64, Array, TensorType

SEED = 0
CALLS = 3
# The reference is NumPy: a large network gets fewer calls, but always one.
FLOPS = 4e9
LAYER_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, eq=False)
class GoldenCall:
    """One call of entry point ``entry``.

    Attributes:
        entry: Index of the entry point.
        feeds: Input name -> array.
        outputs: Reference outputs by name, at their largest extent.
        layers: Reference results by value name, flat, thinned out as `thin` says.
    """

    entry: int
    feeds: Feeds
    outputs: Mapping[str, Array]
    layers: Mapping[str, Array]

    @property
    def digest(self) -> str:
        """SHA-256 of entry and inputs."""
        h = hashlib.sha256(str(self.entry).encode())
        for name, x in self.feeds.items():
            h.update(f"{name}\0{x.dtype.str}{x.shape}".encode("utf-8", "replace"))
            h.update(np.ascontiguousarray(x).tobytes())
        return h.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Golden calls in order.

    Attributes:
        calls: The calls.
        cap: Elements kept of each layer; 0 keeps all.
        arrays: Arrays that ``graph.txt`` names by hash and ``model.onnx`` does not hold.
    """

    calls: tuple[GoldenCall, ...]
    cap: int
    arrays: Mapping[str, Array] = field(default_factory=dict)

    @property
    def layers_text(self) -> str:
        """How complete the stored layers are."""
        if not self.cap:
            return "every element of every step"
        return f"at most {self.cap} evenly spaced elements of every step"


def thin(y: Array, cap: int) -> Array:
    """``y`` flat; with ``cap`` > 0 at most that many elements, number i from i * size // cap."""
    flat = y.reshape(-1)
    if not cap or flat.size <= cap:
        return flat
    return flat[np.arange(cap, dtype=np.int64) * flat.size // cap]


def _feeds(
    graphs: Sequence[Graph], calib: Any, count: int, pixels: Pixels
) -> list[tuple[int, Feeds]]:
    """Entry and inputs of each call: given samples where there are some, drawn ones elsewhere."""
    given: dict[int, list[Feeds]] = {}
    if calib is not None:
        named = by_entry(calib, [g.name for g in graphs])
        for e, g in enumerate(graphs):
            source = calib if named is None else named.get(g.name)
            if source is not None and (e == 0 or named is not None):
                types = {n: g.types[n] for n in g.inputs}
                given[e] = list(islice(samples(source, types, pixels), count))
                if not given[e]:
                    raise BadInput(
                        f"the calibration data of entry point {g.name!r} hold no sample",
                        hint="give at least one, or none at all for random ones",
                    )
    calls = []
    for k in range(count):
        for e, g in enumerate(graphs):
            if e in given:
                calls += [(e, f) for f in given[e][k : k + 1]]
            else:
                calls.append((e, draw(g, (SEED, e, k))))
    return calls


def make_golden(
    graphs: Sequence[Graph],
    steps: Sequence[Sequence[Sequence[str]]],
    calib: Any = None,
    pixels: Pixels = PLAIN,
) -> Golden:
    """Run the reference on a few samples.

    Args:
        graphs: Optimised graph of each entry point.
        steps: For each entry, the output values of each step.
        calib: See `samples`; for several entry points it feeds the first, or is a mapping from
            entry name to samples. Random inputs where None.
        pixels: How images become numbers.
    """
    work = sum(g.flops() for g in graphs)
    count = max(1, min(CALLS, int(FLOPS / max(work, 1))))
    feeds = _feeds(graphs, calib, count, pixels)
    cap = _cap(graphs, steps, [e for e, _ in feeds])
    states: dict[str, Array] = {}
    calls = []
    for e, x in feeds:
        g = graphs[e]
        wanted = {y for outputs in steps[e] for y in outputs}
        layers: dict[str, Array] = {}

        def keep(
            n: Node,
            out: tuple[Array, ...],
            wanted: set[str] = wanted,
            layers: dict[str, Array] = layers,
        ) -> None:
            for y, a in zip(n.outputs, out, strict=True):
                if y in wanted:
                    layers[y] = thin(a, cap).copy()

        result = evaluate(g, x, states, keep)
        states |= {s.name: result[s.output] for s in g.states}
        calls.append(GoldenCall(e, x, {y: result[y] for y in g.outputs}, layers))
    return Golden(tuple(calls), cap)


def _cap(
    graphs: Sequence[Graph], steps: Sequence[Sequence[Sequence[str]]], entries: Sequence[int]
) -> int:
    """Elements to keep of each layer so that all layers fit LAYER_BYTES; 0 for all of them."""
    types = [graphs[e].types[y] for e in entries for outputs in steps[e] for y in outputs]
    sizes = [(t.size, t.dtype.numpy.itemsize) for t in types]
    if sum(n * width for n, width in sizes) <= LAYER_BYTES:
        return 0
    cap = LAYER_BYTES // 4
    while cap > 16 and sum(min(n, cap) * width for n, width in sizes) > LAYER_BYTES:
        cap //= 2
    return cap


def dump_golden(
    golden: Golden, graphs: Sequence[Graph], steps: Sequence[Sequence[Sequence[str]]]
) -> bytes:
    """The bytes of ``golden.npz``; equal calls give equal bytes."""
    arrays: dict[str, Array] = {"cap": np.array(golden.cap, np.int64)}
    for k, c in enumerate(golden.calls):
        g = graphs[c.entry]
        arrays[f"call{k}_entry"] = np.array(c.entry, np.int64)
        arrays |= {f"call{k}_in{i}": c.feeds[n] for i, n in enumerate(g.inputs)}
        arrays |= {f"call{k}_out{i}": c.outputs[n] for i, n in enumerate(g.outputs)}
        for s, values in enumerate(steps[c.entry]):
            arrays |= {f"call{k}_step{s}_{i}": c.layers[y] for i, y in enumerate(values)}
    arrays |= {f"array_{key}": a for key, a in golden.arrays.items()}
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def graph_arrays(path: Path) -> dict[str, Array]:
    """The arrays of ``golden.npz`` that ``graph.txt`` names by hash.

    Raises:
        BadBundle: The file cannot be read.
    """
    found = _read(path)
    return {k.removeprefix("array_"): a for k, a in found.items() if k.startswith("array_")}


def load_golden(
    path: Path, graphs: Sequence[Graph], steps: Sequence[Sequence[Sequence[str]]]
) -> Golden:
    """Read ``golden.npz`` of a bundle with these graphs.

    Raises:
        BadBundle: It is missing or does not belong to the graphs.
    """
    z = _read(path)

    def take(name: str, t: TensorType | None = None) -> Array:
        a = z.get(name)
        if a is None or (t is not None and (a.shape, a.dtype) != (t.shape, t.dtype.numpy)):
            found = "none" if a is None else f"{a.dtype}{list(a.shape)}"
            raise BadBundle(f"{path}: array {name} should be {t or 'there'}, have {found}")
        return a

    def integer(name: str) -> int:
        return int(take(name, TensorType((), I64)))

    calls: list[GoldenCall] = []
    while f"call{len(calls)}_entry" in z:
        k = len(calls)
        e = integer(f"call{k}_entry")
        if not 0 <= e < min(len(graphs), len(steps)):
            raise BadBundle(f"{path}: call {k} is of entry point {e}, there are {len(graphs)}")
        g = graphs[e]
        layers = {
            y: take(f"call{k}_step{s}_{i}")
            for s, values in enumerate(steps[e])
            for i, y in enumerate(values)
        }
        unknown = [y for y in layers if y not in g.types]
        if unknown:
            raise BadBundle(f"{path}: step output {unknown[0]!r} is no value of graph.txt")
        feeds = {n: take(f"call{k}_in{i}", g.types[n]) for i, n in enumerate(g.inputs)}
        outputs = {n: take(f"call{k}_out{i}", g.types[n]) for i, n in enumerate(g.outputs)}
        calls.append(GoldenCall(e, feeds, outputs, layers))
    return Golden(tuple(calls), integer("cap"))


def _read(path: Path) -> dict[str, Array]:
    try:
        return read_arrays(path)
    except BadInput as e:
        raise BadBundle(e.message) from None


__all__ = [
    "CALLS",
    "SEED",
    "Golden",
    "GoldenCall",
    "dump_golden",
    "graph_arrays",
    "load_golden",
    "make_golden",
    "thin",
]
