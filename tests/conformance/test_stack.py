"""The stack that is proved from objects is the stack that a run takes, to the byte."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import sparrow
from conformance.test_emitted import feeds
from data import missing
from emitted import blob, planned
from native_harness import engine
from random_graphs import levels
from small_graphs import GRAPHS
from small_models import classifier
from sparrow.device.build import Unit, find_toolchain
from sparrow.device.here import host_machine
from sparrow.device.host import HostLibrary
from sparrow.device.library import compile_objects
from sparrow.device.node import node_library
from sparrow.device.qemu import emulated_library
from sparrow.device.stack import read_frames, stack_bytes
from sparrow.emit.c import emit
from sparrow.graph import Module
from sparrow.plan import Plan
from sparrow.planner import plan
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


# Bits of vectors where the processor decides about them, and by how much what these graphs reach
# may fall short: frames end in padding, or in what these inputs do not need.
EMULATED = {
    "armv7": ((0,), 0),
    "aarch64": ((0,), 16),
    "riscv64": ((0,), 8),
    "riscv64_v": ((128, 256, 512, 1024), 16),
}


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", EMULATED)
def test_the_proved_bound_is_reached_in_an_emulator(name: str, graph: str) -> None:
    machine = target(name).machine
    if shutil.which(f"qemu-{machine.arch}") is None:
        missing(f"qemu-{machine.arch} is not installed")
    p = plan(Module("m", (GRAPHS[graph](),)), target(name))
    found = objects(p)
    path = find_toolchain().link_shared(found, machine)
    values = feeds(p.entries[0].graph)
    inputs = [values[n] for n in p.entries[0].graph.inputs]
    lengths, slack = EMULATED[name]
    if (name, graph) == ("armv7", "arithmetic"):
        slack = 8  # a library's division of 64 bits ends in padding
    bounds = []
    for bits in lengths:
        cpu = f"rv64,v=true,vext_spec=v1.0,vlen={bits}" if bits else ""
        session = emulated_library(path, machine, cpu).open(blob(p))
        run = session.stack_bytes(0, inputs)
        session.close()
        bound = stack_bytes(found, machine, vector_bits=bits)
        assert bound is not None and 0 <= bound - run <= slack, (bits, bound, run)
        bounds.append(bound)
    assert stack_bytes(found, machine) == max(bounds[:3])


# WebAssembly rows, and bytes that a frame is rounded up to.
MODULES, ALIGN = ("wasm32", "wasm32_simd", "wasm32_relaxed"), 16


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", MODULES)
def test_the_proved_bound_is_reached_in_a_module(name: str, graph: str) -> None:
    engine(name)
    p = plan(Module("m", (GRAPHS[graph](),)), target(name))
    found, machine = objects(p), p.target.machine
    values = feeds(p.entries[0].graph)
    session = node_library(find_toolchain().link_shared(found, machine)).open(blob(p))
    run = session.stack_bytes(0, [values[n] for n in p.entries[0].graph.inputs])
    session.close()
    bound = stack_bytes(found, machine)
    # what is in memory of a scalar's array may be less than its frame
    assert bound is not None and 0 <= bound - run <= 2 * ALIGN, (bound, run)


# A frame kept by one that calls; one of a leaf, which leaves the pointer alone; one that aligns;
# a callback; one whose size is not known.
KEPT = """
void use(char *p);
typedef void task(int);
void each(task *f);
static void leaf(volatile char *p) { volatile char a[96]; a[p[0] & 63] = p[1]; p[2] = a[5]; }
static void called(int i) { char a[4000]; a[i & 1023] = 1; use(a); }
void model_run(volatile char *p) {
  char a[1000];
  _Alignas(64) char b[64];
  leaf(p); use(a); use(b); each(called);
}
"""
UNKNOWN = "void use(char *p);\nvoid model_run(int n) { use(__builtin_alloca((unsigned)n)); }\n"


def test_frames_of_modules_are_read_from_their_instructions() -> None:
    machine = target("wasm32_simd").machine
    compile_units = find_toolchain().compile_objects
    flags = ("-fno-inline",)
    found = read_frames(compile_units([Unit("kept.c", KEPT)], machine, flags))
    assert found is not None and found.outside.keys() == {"use", "each"}
    sizes = {name: found.sizes[place] for name, place in found.names.items()}
    assert 96 <= sizes["leaf"] < 128 and sizes["called"] == 4000
    # 1000 and 64, whole sixteens, and what aligning may lose
    assert 1072 + 48 <= sizes["model_run"] <= 1152 + 48
    known = {**found.sizes, **dict.fromkeys(found.outside.values(), 0)}
    deepest = replace(found, sizes=known).deepest("model_run")
    assert deepest == sizes["model_run"] + sizes["called"]
    assert read_frames(compile_units([Unit("unknown.c", UNKNOWN)], machine, flags)) is None


def test_the_receipt_says_the_bound() -> None:
    memory = sparrow.build(classifier(), "x86_64").receipt.memory
    assert memory.stack_bytes is not None and 128 < memory.stack_bytes < 16 << 10


@pytest.mark.parametrize(("kept", "registers"), [("0.0f", 0), ("x", 4)])
def test_vectors_on_the_stack_count_as_the_processor_has_them(kept: str, registers: int) -> None:
    clobbered = ", ".join(f'"v{i}"' for i in range(32))
    text = (
        "typedef float v __attribute__((ext_vector_type(16)));\n"
        "void model_run(v *p);\n"
        "void model_run(v *p) {\n"
        f'  const v x = *p; __asm__ volatile("" ::: {clobbered}); *p = (v)({kept});\n'
        "}\n"
    )
    machine = target("riscv64_v").machine
    found = find_toolchain().compile_objects([Unit("keeps.c", text)], machine)
    short, long = (stack_bytes(found, machine, vector_bits=b) for b in (128, 1024))
    assert short is not None and long is not None
    assert long - short == registers * (1024 - 128) // 8
    assert stack_bytes(found, machine) == stack_bytes(found, machine, vector_bits=512)


# Work that is split hands its tasks to a function that calls them; what is called at once is not
# below that one.
SPLIT = """
void use(char *p);
typedef void task(int);
__attribute__((noinline)) static void sp_split(task *f, int n) {
  char a[64];
  use(a);
  for (int t = 0; t < n; ++t) f(t);
}
__attribute__((noinline)) static void split(int i) { char a[1024]; use(a); use(a + i); }
__attribute__((noinline)) static void other(int i) { char a[8]; use(a); use(a + i); }
__attribute__((noinline)) static void direct(int i) { char a[1056]; use(a); use(a + i); }
void model_run(int n) {
  char a[32];
  use(a); sp_split(split, n); sp_split(other, n); direct(n); use(a);
}
"""


@pytest.mark.parametrize("name", [*EMULATED, *MODULES, "x86", "x86_64", "cortex_m0", "rv32imc"])
def test_tasks_run_below_what_splits_them(name: str) -> None:
    compile_units = find_toolchain().compile_objects
    found = read_frames(compile_units([Unit("split.c", SPLIT)], target(name).machine))
    assert found is not None
    known = replace(found, sizes={**found.sizes, **dict.fromkeys(found.outside.values(), 0)})
    sizes = {n: known.sizes[at] for n, at in known.names.items() if at in known.sizes}
    assert sizes["direct"] < sizes["sp_split"] + sizes["split"]
    assert known.deepest("model_run") == sizes["model_run"] + sizes["sp_split"] + sizes["split"]
    alone = replace(known, handed={})
    assert alone.deepest("model_run") == sizes["model_run"] + sizes["direct"]
