"""Time and stack of a compiled plan that has no bundle yet: measured, emulated, or estimated."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparrow.compiler import Compiled
from sparrow.device.depth import deepest_stack
from sparrow.device.host import Session
from sparrow.device.library import compile_library
from sparrow.device.qemu import count_marks
from sparrow.device.remote import RemoteLibrary
from sparrow.device.runners import find_runner
from sparrow.device.session import to_native
from sparrow.errors import BadInput, DeviceError
from sparrow.evidence.golden import SEED
from sparrow.plan import Plan
from sparrow.samples import draw
from sparrow.tensor import Array
from sparrow.timing.instructions import per_step
from sparrow.timing.latency import latency

_MEASURE_S = 0.1


def timed(compiled: Compiled, library: Path) -> tuple[list[int], float, str]:
    """Instructions of every step, if they are counted; time in ns; what it is."""
    p = compiled.plan
    machine, inputs = p.target.machine, _drawn(p)
    weights = np.frombuffer(p.weights, np.uint8)
    try:
        runner = find_runner(machine)
    except BadInput as e:
        return [], *_roofline(p, e.message)
    if runner.name == "host":
        session = runner.load(library).open(weights)
        assert isinstance(session, Session)
        return [], latency(session, 0, inputs, _MEASURE_S).median_ns, "measured on this machine"
    files, parts = compiled.artifact.files, compiled.artifact.parts
    library = compile_library(files, machine, parts, hooks=True)
    try:
        hooked = runner.load(library)
        if not isinstance(hooked, RemoteLibrary) or hooked.timed:
            return [], *_roofline(p, f"{runner.name} counts no instructions")
        counts = per_step(count_marks(hooked, weights, 0, inputs))
    except DeviceError as e:  # it is larger than what the emulator has
        return [], *_roofline(p, str(e))
    n, mhz = sum(counts), p.target.ghz * 1e3
    text = f"{n:,} instructions counted in the emulator, at one a cycle of {mhz:g} MHz"
    return counts, n / p.target.ghz, text


def _drawn(p: Plan) -> list[Array]:
    """Inputs of the first entry point."""
    g = p.module.entries[0]
    feeds = draw(g, (SEED, 0, 0))
    return [to_native(feeds[n], g.types[n].dtype) for n in g.inputs]


def seen_stack(p: Plan, archive: Path) -> int | None:
    """Bytes of stack that a run of an archive that fits the emulated board takes."""
    machine = p.target.machine
    library = find_runner(machine).load(archive)
    if not isinstance(library, RemoteLibrary):
        return None
    return deepest_stack(library, machine, np.frombuffer(p.weights, np.uint8), 0, _drawn(p))


def _roofline(p: Plan, why: str) -> tuple[float, str]:
    """The larger of arithmetic and traffic at the row's peaks, step by step."""
    t, e = p.target, p.entries[0]
    peak = t.isa.flops_per_cycle * t.ghz
    total = 0.0
    for s in e.steps:
        moved = sum(v.type.bytes for v in (*s.inputs, *s.outputs) if v is not None)
        moved += sum(a.nbytes for a in s.lowered.packed)
        flops = s.node.op.flops(e.graph.in_types(s.node), e.graph.out_types(s.node))
        total += max(flops / peak, moved / t.bandwidth_gbs)
    return total, f"roofline of the row's figures, no less than this ({why})"
