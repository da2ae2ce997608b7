"""The stack that is proved from objects is the stack that a run takes, to the byte."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from pathlib import Path

import pytest

import sparrow
from conformance.test_emitted import feeds
from emitted import blob, planned
from random_graphs import levels
from small_graphs import GRAPHS
from small_models import classifier
from sparrow.device.build import Unit, find_toolchain
from sparrow.device.here import host_machine
from sparrow.device.host import HostLibrary
from sparrow.device.library import compile_objects
from sparrow.device.stack import read_frames, stack_bytes
from sparrow.emit.c import emit
from sparrow.graph import Module
from sparrow.plan import Plan, plan
from sparrow.targets import target
from sparrow.tensor import Array

PROBE = Path(__file__).parent.parent / "native" / "stack_probe.c"
traceable = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="traces x86-64 Linux"
)


class Span(ctypes.Structure):
    """What the probe finds."""

    _fields_ = (
        ("at_entry", ctypes.c_uint64),
        ("lowest", ctypes.c_uint64),
        ("steps", ctypes.c_uint64),
    )


def objects(p: Plan) -> tuple[Path, ...]:
    """The objects of a plan."""
    artifact = emit(p)
    return compile_objects(artifact.files, p.target.machine, artifact.parts)


def measured(path: Path, weights: Array, inputs: list[Array]) -> int:
    """Bytes of stack from the return address of `model_run` to the lowest stack pointer."""
    machine = host_machine("scalar")
    tools = find_toolchain()
    built = tools.compile_objects([Unit.from_file(PROBE)], machine, ("-std=gnu99",))
    probe = ctypes.CDLL(str(tools.link_shared(built, machine)))
    library = HostLibrary(path)
    session = library.open(weights)
    session.run(0, inputs)
    entry = ctypes.cast(library._run, ctypes.c_void_p).value  # type: ignore[arg-type]
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    spans = [[int(v, 16) for v in m[0].split("-")] for m in maps if m[-1] == str(path)]
    low, high = min(a for a, _ in spans), max(b for _, b in spans)
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None)
        libc.ptrace(0, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        session.run(0, inputs)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(pid, 0)
    found = Span()
    failed = probe.lowest_stack(
        pid,
        ctypes.c_uint64(entry or 0),
        ctypes.c_uint64(low),
        ctypes.c_uint64(high),
        ctypes.byref(found),
    )
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not failed and found.steps > 1000
    # at the first instruction the return address has been pushed
    return int(found.at_entry - found.lowest) + 8


@traceable
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(
    "isa", [pytest.param(i, marks=pytest.mark.slow) if i == "avx2" else i for i in levels()]
)
def test_the_proved_bound_is_reached(isa: str, name: str) -> None:
    p = planned(GRAPHS[name](), isa=isa)
    found = objects(p)
    frames = read_frames(found)
    assert frames is not None
    path = find_toolchain().link_shared(found, p.target.machine)
    values = feeds(p.entries[0].graph)
    run = measured(path, blob(p), [values[n] for n in p.entries[0].graph.inputs])
    assert run == frames.deepest("model_run")
    assert stack_bytes(found, p.target.machine) == run + frames.red_zone


@pytest.mark.parametrize("name", ["armv7", "aarch64", "riscv64"])
def test_frames_of_other_processors_are_read(name: str) -> None:
    p = plan(Module("m", (GRAPHS["network"](),)), target(name))
    found = stack_bytes(objects(p), p.target.machine)
    assert found is not None and 64 < found < 4096


def test_the_receipt_says_the_bound() -> None:
    memory = sparrow.build(classifier(), "x86_64").receipt.memory
    assert memory.stack_bytes is not None and 128 < memory.stack_bytes < 16 << 10


@pytest.mark.parametrize(("kept", "proved"), [("0.0f", True), ("x", False)])
def test_vectors_on_the_stack_have_no_bound(kept: str, proved: bool) -> None:
    registers = ", ".join(f'"v{i}"' for i in range(32))
    text = (
        "typedef float v __attribute__((ext_vector_type(16)));\n"
        "void model_run(v *p);\n"
        "void model_run(v *p) {\n"
        f'  const v x = *p; __asm__ volatile("" ::: {registers}); *p = (v)({kept});\n'
        "}\n"
    )
    machine = target("riscv64_v").machine
    found = stack_bytes(find_toolchain().compile_objects([Unit("keeps.c", text)], machine), machine)
    assert (found is not None) == proved
