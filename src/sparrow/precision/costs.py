"""What every layer of a network costs at every precision, from whole builds of each.

A layer is a product, together with the steps behind it up to the next product: activations, pools
and what moves data. Both builds name their steps after the source, which is how they are matched.
Where this machine runs the target, times are medians of interleaved profiles of the builds,
remembered by their code; elsewhere they are the predicted cycles of the kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from sparrow.compiler import Compiled
from sparrow.device.elf import function_bytes
from sparrow.device.library import code_bytes_of, compile_library, compile_objects
from sparrow.device.runners import find_runner
from sparrow.errors import BadInput
from sparrow.evidence.describe import buffers, live_bytes
from sparrow.graph import Graph
from sparrow.ops.sums import CODES
from sparrow.plan import Step
from sparrow.precision.choice import Cost, Edge, Layer, Moment, Problem
from sparrow.quant.recipe import Precision
from sparrow.samples import Feeds
from sparrow.tensor import BF16
from sparrow.timing.remembered import Remembered
from sparrow.timing.stepped import Stepped, interleaved

# Of each build's profile: seconds of a block, and blocks taken in turn with the other builds'.
PROFILE_S = 0.15
ROUNDS = 5
# Owner of the steps before the first layer.
OUTSIDE = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """Tables of a network.

    Attributes:
        problem: All of it but noise.
        how: Where the times come from, in words.
    """

    problem: Problem
    how: str


def owners(g: Graph, layers: frozenset[str]) -> dict[str, str]:
    """The layer that each node belongs to, by the node's first result; `OUTSIDE` for none.

    A node that the source calls a layer is that layer; any other belongs to the last layer before
    it that it reads from.
    """
    order: dict[str, int] = {OUTSIDE: -1}
    owner: dict[str, str] = {}
    found: dict[str, str] = {}
    for i, n in enumerate(g.nodes):
        if n.origin in layers:
            mine = n.origin
            order[mine] = i
        else:
            mine = max((owner.get(x, OUTSIDE) for x in n.inputs), key=order.__getitem__, default="")
        owner.update(dict.fromkeys(n.outputs, mine))
        found[n.outputs[0]] = mine
    return found


def converts(s: Step) -> int:
    """Elements that a step turns from floats into codes, bfloat16, or back, and does no more."""
    if s.kernel != "loop" or len(s.inputs) != 1 or s.inputs[0] is None:
        return 0
    types = s.inputs[0].type, s.outputs[0].type
    before, after = (t.dtype == BF16 or t.dtype in CODES for t in types)
    return types[1].size if before != after else 0


@contextmanager
def compiling(builds: Iterable[Compiled]) -> Iterator[None]:
    """The libraries of builds are compiled beside what is done meanwhile.

    Raises:
        CompileError: The compiler is missing.
    """
    pool = ThreadPoolExecutor(1)
    try:
        jobs = [
            pool.submit(compile_library, b.artifact.files, b.plan.target.machine, b.artifact.parts)
            for b in builds
        ]
        yield
        for job in jobs:
            job.result()
    finally:
        pool.shutdown(cancel_futures=True)


def step_ns(
    builds: Mapping[Precision, Compiled],
    first: Feeds,
    threads: int,
    progress: Callable[[str], None],
) -> tuple[dict[Precision, list[float]], str]:
    """Time of every step of builds of one entry point, and where it comes from."""
    any_build = next(iter(builds.values()))
    target = any_build.plan.target
    try:
        runner = find_runner(target.machine)
    except BadInput:
        runner = None
    if runner is None or runner.name != "host":
        cycles = {
            p: [s.lowered.cycles / target.ghz for s in b.plan.entries[0].steps]
            for p, b in builds.items()
        }
        return cycles, f"predicted for {target.name}"
    key = Remembered("steps", [b.artifact.files["model.c"] for b in builds.values()], threads)
    known = key.recall()
    if known is None:
        profiled = {}
        for p, b in builds.items():
            progress(f"profiling {p}")
            profiled[p] = Stepped(b, [first], threads)
        ns = interleaved(profiled, ROUNDS, PROFILE_S)
        known = key.remember({p: ns[p][0] for p in builds})
    return {p: known[p] for p in builds}, f"measured, medians of {ROUNDS} interleaved profiles"


def _stored(s: Step) -> dict[int, int]:
    """Place in the weights -> bytes of what a step reads there, packed or as it is."""
    found = {at: a.nbytes for at, a in zip(s.packed, s.lowered.packed, strict=True)}
    views = (v for v in s.inputs if v is not None and v.place.kind == "weights")
    return {**{v.place.offset: v.type.bytes for v in views}, **found}


def _sizes(b: Compiled) -> tuple[list[float], float]:
    """Weights and code of every step, and what belongs to none."""
    steps, target = b.plan.entries[0].steps, b.plan.target.machine
    stored = [_stored(s) for s in steps]
    readers = Counter(at for found in stored for at in found)
    weights = [sum(n / readers[at] for at, n in found.items()) for found in stored]
    objects = compile_objects(b.artifact.files, target, b.artifact.parts)
    code = function_bytes(objects)
    found = [w + code.get(f"model_e0_s{i}", 0.0) for i, w in enumerate(weights)]
    library = code_bytes_of(compile_library(b.artifact.files, target, b.artifact.parts), target)
    return found, library + len(b.plan.weights) - sum(found)


def edges_of(g: Graph, layers: Sequence[str], ns_per_element: float) -> tuple[Edge, ...]:
    """Where values go from one layer to another, through whatever lies between them.

    Args:
        g: The float graph before it is fused.
        layers: Names, in order.
        ns_per_element: Of a conversion.
    """
    place = {name: i for i, name in enumerate(layers)}
    sources: dict[str, frozenset[int]] = {x: frozenset((-1,)) for x in g.inputs}
    sources |= {s.input: frozenset((-1,)) for s in g.states}
    found: dict[tuple[int, int], float] = {}
    for n in g.nodes:
        read: frozenset[int] = frozenset().union(*(sources.get(x, frozenset()) for x in n.inputs))
        mine = place.get(n.origin or n.outputs[0])
        if mine is not None:
            size = sum(g.types[x].size for x in n.inputs[:2] if x and x not in g.consts)
            for i in read - {mine}:
                found[i, mine] = max(found.get((i, mine), 0.0), size * ns_per_element)
            read = frozenset((mine,))
        sources.update(dict.fromkeys(n.outputs, read))
    return tuple(Edge(a, b, ns) for (a, b), ns in found.items())


def _moments(p: Precision, b: Compiled, layers: Sequence[str]) -> Iterator[Moment]:
    """What the steps of each layer hold in a build of all layers at one precision."""
    e = b.plan.entries[0]
    place = {name: i for i, name in enumerate(layers)}
    owner = {y: place.get(x, -1) for y, x in owners(e.graph, frozenset(layers)).items()}
    maker = {y: owner[n.outputs[0]] for n in e.graph.nodes for y in n.outputs}
    held = buffers(e)
    for i, s in enumerate(e.steps):
        layer = owner[s.node.outputs[0]]
        if layer < 0 and p != "float32":
            continue
        elements: dict[int, float] = {}
        alive = [v for v in held if v.first <= i <= v.last]
        # results may run over what they are made of
        fixed = float(live_bytes(held, i) - sum(v.bytes for v in alive) + b.plan.state_bytes)
        for v in alive:
            at = maker.get(v.values[0], -1)
            if at in (-1, layer):
                fixed += v.bytes
            else:
                width = e.graph.types[v.values[0]].dtype.bits / 8
                elements[at] = elements.get(at, 0.0) + v.bytes / width
        yield Moment(layer, p, elements, fixed)


def moments_of(builds: Mapping[Precision, Compiled], layers: Sequence[str]) -> tuple[Moment, ...]:
    """What the steps of builds of one entry point hold, by layer and precision."""
    return tuple(m for p, b in builds.items() for m in _moments(p, b, layers))


def measure_costs(
    g: Graph,
    builds: Mapping[Precision, Compiled],
    layers: Mapping[str, str],
    first: Feeds,
    threads: int,
    progress: Callable[[str], None],
) -> Measured:
    """Tables of time and bytes.

    Args:
        g: The float graph before it is fused.
        builds: One entry point at every precision, float32 among them.
        layers: Products that may be codes -> kind of op, in order, by name.
        first: A sample to run on.
        threads: Threads per call.
        progress: Told what happens.

    Raises:
        CompileError: The compiler is missing.
    """
    names = list(layers)
    times, how = step_ns(builds, first, threads, progress)
    ns: dict[Precision, dict[str, float]] = {}
    size: dict[Precision, dict[str, float]] = {}
    rests: dict[Precision, float] = {}
    rates: list[float] = []
    for p, b in builds.items():
        e = b.plan.entries[0]
        owner = owners(e.graph, frozenset(names))
        sizes, rests[p] = _sizes(b)
        ns[p], size[p] = (
            dict.fromkeys((*names, OUTSIDE), 0.0),
            dict.fromkeys((*names, OUTSIDE), 0.0),
        )
        for s, t, n in zip(e.steps, times[p], sizes, strict=True):
            moved = converts(s)
            if moved:
                rates.append(t / moved)
                continue
            mine = owner[s.node.outputs[0]]
            ns[p][mine] += t
            size[p][mine] += n
    target = builds["float32"].plan.target
    # where no build converts: five bytes an element through memory
    rate = float(np.median(rates)) if rates else 5.0 / target.bandwidth_gbs
    table = tuple(
        Layer(name, op, {p: Cost(ns[p][name], size[p][name], 0.0) for p in builds})
        for name, op in layers.items()
    )
    problem = Problem(
        table,
        edges_of(g, names, rate),
        ns["float32"][OUTSIDE],
        size["float32"][OUTSIDE] + max(rests.values()),
        moments_of(builds, names),
    )
    return Measured(problem, how)
