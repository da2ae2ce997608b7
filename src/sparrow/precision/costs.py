"""What every layer of a network costs at every precision, from whole builds of each.

A layer is a product, together with the steps behind it up to the next product: activations, pools
and what moves data. Both builds name their steps after the source, which is how they are matched.
Where this machine runs the target, times are medians of interleaved profiles of the builds,
remembered by their code; elsewhere they are the predicted cycles of the kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from sparrow.compiler import Compiled
from sparrow.device.elf import function_bytes
from sparrow.device.host import HostLibrary, Session
from sparrow.device.library import code_bytes_of, compile_library, compile_objects
from sparrow.device.runners import find_runner
from sparrow.device.session import to_native
from sparrow.errors import BadInput
from sparrow.ops.sums import CODES
from sparrow.plan import Step
from sparrow.precision.choice import Cost, Layer, Problem
from sparrow.precision.memory import Values, crossing, flow_of, moments_of
from sparrow.quant.recipe import Precision
from sparrow.samples import Feeds
from sparrow.tensor import BF16, I16
from sparrow.timing.latency import latency
from sparrow.timing.remembered import Remembered
from sparrow.timing.stepped import Stepped, interleaved

# Of each build's profile: seconds of a block, and blocks taken in turn with the other builds'.
PROFILE_S = 0.15
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """Tables of a network.

    Attributes:
        problem: All of it but noise.
        how: Where the times come from, in words.
    """

    problem: Problem
    how: str


def converts(s: Step) -> int:
    """Elements that a step turns from floats into codes, bfloat16, or back, and does no more."""
    if s.kernel != "loop" or len(s.inputs) != 1 or s.inputs[0] is None:
        return 0
    types = s.inputs[0].type, s.outputs[0].type
    before, after = (t.dtype in (BF16, I16, *CODES) for t in types)
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
) -> tuple[dict[Precision, list[float]], float, str]:
    """Time of every step of builds of one entry point, of a call beside them, and where it is from.

    Args:
        builds: At every precision, float32 among them.
        first: A sample to run on.
        threads: Threads per call.
        progress: Told what happens.
    """
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
        return cycles, 0.0, f"predicted for {target.name}"
    key = Remembered(
        "steps and a call", [b.artifact.files["model.c"] for b in builds.values()], threads
    )
    known = key.recall()
    if known is None:
        profiled = {}
        for p, b in builds.items():
            progress(f"profiling {p}")
            profiled[p] = Stepped(b, [first], threads)
        ns = interleaved(profiled, ROUNDS, PROFILE_S)
        calls = call_ns(builds["float32"], first, threads, PROFILE_S)
        beside = max(0.0, calls - sum(ns["float32"][0]))
        known = key.remember({"call": beside, **{p: ns[p][0] for p in builds}})
    how = f"measured, medians of {ROUNDS} interleaved profiles"
    return {p: known[p] for p in builds}, known["call"], how


def call_ns(b: Compiled, feeds: Feeds, threads: int, seconds: float) -> float:
    """Median time of a call of a build of one entry point on this machine, as its bundle has it.

    Raises:
        CompileError: The compiler is missing.
    """
    library = compile_library(b.artifact.files, b.plan.target.machine, b.artifact.parts)
    blob = np.frombuffer(b.plan.weights, np.uint8) if b.plan.weights else None
    session = Session(HostLibrary(library), blob, threads=threads)
    g = b.module.entries[0]
    inputs = [to_native(feeds[x], g.types[x].dtype) for x in g.inputs]
    return latency(session, 0, inputs, seconds).median_ns


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


def measure_costs(
    builds: Mapping[Precision, Compiled],
    layers: Mapping[str, str],
    first: Feeds,
    threads: int,
    progress: Callable[[str], None],
) -> Measured:
    """Tables of time and bytes.

    Args:
        builds: One entry point at every precision, float32 among them.
        layers: Products that may be codes -> kind of op, in order, by name.
        first: A sample to run on.
        threads: Threads per call.
        progress: Told what happens.

    Raises:
        CompileError: The compiler is missing.
    """
    names = list(layers)
    times, call, how = step_ns(builds, first, threads, progress)
    values = Values()
    moments = moments_of(builds, names, values)
    ns: dict[Precision, dict[int, float]] = {}
    size: dict[Precision, dict[int, float]] = {}
    rests: dict[Precision, float] = {}
    rates: list[float] = []
    for p, b in builds.items():
        e = b.plan.entries[0]
        makers = flow_of(e.graph, names).makers
        sizes, rests[p] = _sizes(b)
        every = range(-1, len(names))
        ns[p], size[p] = dict.fromkeys(every, 0.0), dict.fromkeys(every, 0.0)
        for s, t, n in zip(e.steps, times[p], sizes, strict=True):
            mine = makers[s.node.outputs[0]]
            if moved := converts(s):
                rates.append(t / moved)
                if mine < 0:
                    # of the input, for those layers alone that read it as codes
                    continue
            ns[p][mine] += t
            size[p][mine] += n
    plain = builds["float32"].plan
    # where no build converts: five bytes an element through memory
    rate = float(np.median(rates)) if rates else 5.0 / plain.target.bandwidth_gbs
    table = tuple(
        Layer(name, layers[name], {p: Cost(ns[p][i], size[p][i], 0.0) for p in builds})
        for i, name in enumerate(names)
    )
    g = plain.entries[0].graph
    flow = flow_of(g, names)
    converting: dict[int, float] = {}
    for x in crossing(g, flow):
        at = values.place(flow.makers[x], flow.readers[x])
        converting[at] = converting.get(at, 0.0) + rate * g.types[x].size
    problem = Problem(
        table,
        values.all(converting),
        ns["float32"][-1] + call,
        size["float32"][-1] + max(rests.values()),
        moments,
    )
    return Measured(problem, how)
