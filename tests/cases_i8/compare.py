"""What runs cases, and the rows that are compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from drawn import Made
from emitted import BYTES_TARGETS, blob, linked
from native_harness import BYTES_ONLY, DOTS, EMULATED, needs_isa
from sparrow.device.host import HostLibrary
from sparrow.device.node import node_library
from sparrow.device.qemu import emulated_library
from sparrow.device.session import ModelLibrary
from sparrow.graph import Module
from sparrow.kernels import (
    attention_i8,
    conv_any,
    conv_twos_i8,
    lookup,
    loop,
    maddubs_i8,
    matmul_any,
    pool_any,
    recurrent_i8,
    reduce,
    resize,
    softmax_i8,
)
from sparrow.kernels.case import Kernel
from sparrow.planner import plan
from sparrow.reference import evaluate
from sparrow.targets import Target, target

PORTABLE = (
    *loop.ROWS,
    *reduce.ROWS,
    *(r for r in conv_any.ROWS if r.name == "conv_any"),
    *matmul_any.ROWS,
    *lookup.ROWS,
    *pool_any.ROWS,
    *resize.ROWS,
    *softmax_i8.ROWS,
    *attention_i8.ROWS,
    *recurrent_i8.ROWS,
)
# The rows of sums by twos, by the instruction sets that have them.
TWOS = {"wasm_maddubs": maddubs_i8.ROWS, "avx2": conv_twos_i8.ROWS}
# Instruction sets beside those of this machine; each multiplies bytes in its own way.
ENGINES = ("wasm", "wasm_simd", *(f"wasm_{kind}" for kind in DOTS))
FOREIGN = ("neon32", "neon", "neon_dot", "neon_i8mm", "rvv")
# RISC-V vectors: what code is compiled for beyond 128 bits, and what runs it
LENGTHS = (("", 128), ("", 256), ("+zvl512b", 512))


def compare(
    cases: list[Made],
    isa: str,
    kernels: tuple[Kernel, ...],
    folder: Path,
    threads: int = 1,
    device: Target | None = None,
) -> set[str]:
    """Compile cases for an instruction set, run them, and hold them against the interpreter.

    Args:
        cases: Graphs whose result is ``y``, and feeds.
        isa: A name of `native_harness`; skipped where this machine has nothing that runs it.
        kernels: Rows to choose from.
        folder: Where libraries go.
        threads: Threads that tasks are cut for.
        device: Another target of this instruction set.

    Returns:
        Names of the rows that were chosen.
    """
    module = Module("m", tuple(g for g, _ in cases))
    row = device or target({**BYTES_TARGETS, **EMULATED, **BYTES_ONLY}[isa])
    p = plan(module, row, kernels=kernels, threads=threads)
    libraries: list[ModelLibrary] = []
    for longer, bits in LENGTHS if isa == "rvv" else (("", 0),):
        cpu = f"rv64,v=true,vext_spec=v1.0,vlen={bits}" if bits else ""
        built = replace(p, target=replace(p.target, cpu=p.target.cpu + longer))
        path = linked(built, folder, parts=True, flags=("-O1",))
        if isa.startswith("wasm"):
            libraries.append(node_library(path))
        elif isa in EMULATED:
            libraries.append(emulated_library(path, p.target.machine, cpu))
        else:
            needs_isa(isa)
            libraries.append(HostLibrary(path))
    sessions = [library.open(blob(p)) for library in libraries]
    for i, (g, feeds) in enumerate(cases):
        want = evaluate(g, feeds)["y"]
        for s in sessions:
            (got,) = s.run(i, [feeds[v] for v in g.inputs])
            np.testing.assert_array_equal(got, want, err_msg=f"{g.name}: {g.nodes[-1].op}")
    return {step.kernel for e in p.entries for step in e.steps}
