"""Runs native code under sanitizers: a program of its own, because they come first in a process.

`run` starts it with the sanitizers' run-time libraries loaded before everything else, so that every
buffer NumPy hands to a model ends at poisoned memory, and with a compiler that checks addresses,
bounds, alignment, overflow, shifts and conversions. The first complaint ends the process.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparrow.tensor import Array

REPO = Path(__file__).resolve().parent.parent
CHECKS = "address,undefined,float-cast-overflow,bounds-strict"
COMPILER = f"gcc -fsanitize={CHECKS} -fno-sanitize-recover=all"
# What sanitizers add to the code confuses warnings.
FLAGS = ("-O1", "-Wno-error")
LIBRARIES = ("libasan.so", "libubsan.so")


@functools.cache
def available() -> bool:
    """Whether gcc and the sanitizers' libraries are here."""
    return shutil.which("gcc") is not None and all(os.path.isabs(p) for p in _preload())


def _preload() -> list[str]:
    found = []
    for name in LIBRARIES:
        command = ["gcc", f"-print-file-name={name}"]
        found.append(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        )
    return found


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `main` with these arguments in a process with sanitizers."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPO / "tests"), str(REPO / "src")]),
        "SPARROW_CC": COMPILER,
        "LD_PRELOAD": ":".join(_preload()),
        # Python itself leaks, and keeps its memory to itself
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-m", "sanitized", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def exact(size: int, alignment: int = 64) -> NDArray[np.uint8]:
    """As `device.host.aligned`, but nothing behind the last byte may be touched."""
    libc = ctypes.CDLL(None)
    address = ctypes.c_void_p()
    failed = libc.posix_memalign(ctypes.byref(address), alignment, max(size, 1))
    assert not failed and address.value is not None
    block = (ctypes.c_uint8 * size).from_address(address.value)
    return np.ctypeslib.as_array(block)


def nodes(part: int, parts: int, isa: str) -> int:
    """Run one of ``parts`` shares of the ONNX node tests; how many passed."""
    from conformance.onnx_cases import load_cases, refusal
    from conformance.onnx_native import run_cases
    from emitted import TARGETS
    from sparrow.targets import target

    cases = sorted((c for c in load_cases() if not refusal(c)), key=lambda c: c.name)
    with tempfile.TemporaryDirectory() as folder:
        found = run_cases(cases[part::parts], target(TARGETS[isa]), Path(folder))
    wrong = [f"{o.case.name}: {o.reason}" for o in found if o.kind == "wrong"]
    assert not wrong, wrong
    return sum(o.kind == "passed" for o in found)


def model(path: str, isa: str, precision: str) -> int:
    """Prove a real model on a recorded call, as `sparrow build` does; how many steps it has.

    ``int8`` quantizes a float32 model by what it was recorded with.
    """
    import sparrow
    from data import data
    from emitted import TARGETS, compiled
    from sparrow.compiler import Source, compile_sources
    from sparrow.evidence.describe import describe
    from sparrow.evidence.golden import make_golden
    from sparrow.evidence.proof import prove
    from sparrow.targets import target

    calib = recorded_inputs(path)
    source = Source(data(path))
    if precision == "int8":
        assert calib is not None, path
        source = Source(sparrow.quantize(data(path), calib))
    p = compile_sources({"main": source}, target(TARGETS[isa]), threads=2).plan
    graphs = [e.graph for e in p.entries]
    steps = [[s.node.outputs for s in e.steps] for e in p.entries]
    golden = make_golden(graphs, steps, calib)
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(p, Path(folder), flags=(*FLAGS, "-DSPARROW_HOOKS"))
        record = describe(p, parts=1, threads=2, models=[""])
        weights = exact(len(p.weights))
        weights[:] = np.frombuffer(p.weights, np.uint8)
        proof = prove(graphs, record, golden, library, library, weights)
    assert all(c.ok for c in proof.layers) and all(g.ok for g in proof.gates), proof.failure
    return len(p.entries[0].steps)


def recorded_inputs(path: str) -> list[dict[str, Array]] | None:
    """The first recorded call of a real model; None where nothing is recorded."""
    from conformance import test_real_models, test_real_tflite

    stem = path.removesuffix(".tflite")
    if path.endswith(".onnx"):
        return [test_real_models.recorded(path).sample(0)[0]]
    if stem in test_real_tflite.UNRECORDED:
        return None
    return [test_real_tflite.Recorded(stem).sample(0)[0]]


def broken() -> None:
    """Write one byte behind a buffer: this process must not survive it."""
    from sparrow.device.build import Unit, find_toolchain
    from sparrow.device.here import host_machine

    text = "void spill(char *p, int n);\nvoid spill(char *p, int n) { p[n] = 1; }\n"
    tools, machine = find_toolchain(), host_machine("scalar")
    flags = ("-O1", "-fvisibility=default")
    library = tools.link_shared(
        tools.compile_objects([Unit("spill.c", text)], machine, flags), machine
    )
    block = exact(100)
    ctypes.CDLL(str(library)).spill(ctypes.c_void_p(block.ctypes.data), 100)


def main(what: str, *arguments: str) -> None:
    """``nodes PART PARTS ISA``, ``model PATH ISA PRECISION`` or ``broken``; prints a count."""
    import sparrow.device.host

    sparrow.device.host.aligned = exact
    if what == "nodes":
        print(nodes(int(arguments[0]), int(arguments[1]), arguments[2]))
    elif what == "model":
        print(model(*arguments))
    else:
        broken()


if __name__ == "__main__":
    main(*sys.argv[1:])
