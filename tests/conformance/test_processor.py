"""What model_reset says of a processor that lacks instructions and of its buffers."""

from __future__ import annotations

import ctypes
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import native_harness as harness
from emitted import TARGETS, compiled
from sparrow.builder import Builder
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.host import aligned
from sparrow.device.library import compile_library
from sparrow.device.qemu import emulator_command, runner_program
from sparrow.device.remote import RemoteLibrary
from sparrow.emit.c import emit
from sparrow.errors import BadInput, CompileError
from sparrow.graph import Module, State
from sparrow.plan import Plan
from sparrow.planner import plan
from sparrow.targets import target
from sparrow.tensor import F32, TensorType

MISALIGNED, NULL = 3, 2
# A row, and a processor of the emulator that lacks some of what it takes: of AVX-512 it has none,
# and `max` without xsave is a system that does not keep AVX's registers.
LACKING: tuple[tuple[str, str], ...] = (
    ("x86_64_v2", "qemu64"),
    ("x86_64_v3", "Nehalem"),
    ("x86_64_v3", "Haswell,-avx2"),
    ("x86_64_v3", "Haswell,-fma"),
    ("x86_64_v3", "Haswell,-bmi2"),
    ("x86_64_v3", "max,-xsave"),
    *((name, "max") for name in ("x86_64_v3_vnni", "x86_64_v4", "x86_64_v4_vnni")),
    *((name, "max") for name in ("x86_64_v4_bf16", "x86_64_v4_amx")),
)
HAVING = (("x86_64", "qemu64"), ("x86_64_v2", "Nehalem"), ("x86_64_v3", "Haswell"))


def counter(name: str) -> Plan:
    """A state that adds up its input, from 5."""
    b = Builder("counter")
    x, total = b.input("x", TensorType((40,), F32)), "total"
    b.types[total] = TensorType((40,), F32)
    y = b.call("add", x, total)
    b.states.append(State("s", total, y, np.full(40, 5, np.float32)))
    return plan(Module("m", (b.finish({"sum": y}, {}),)), target(name))


def first_sum(name: str, processor: str, folder: Path) -> float:
    """Open a session on an emulated processor, which resets the state, and run once."""
    plain = target("x86_64").machine
    harness.emulator(plain)
    made = emit(counter(name))
    path = compile_library(made.files, target(name).machine, made.parts, folder)
    command = (*emulator_command(plain, processor), str(runner_program(plain)), str(path))
    weights = np.frombuffer(made.files["weights.bin"], np.uint8)
    with closing(RemoteLibrary(path, command).open(weights)) as session:
        (y,) = session.run(0, [np.ones(40, np.float32)])
        return float(y.min())


@pytest.mark.parametrize(("name", "processor"), LACKING)
def test_a_processor_that_lacks_instructions_is_told_before_they_end_the_program(
    name: str, processor: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="reset: the processor, or its system, lacks"):
        first_sum(name, processor, tmp_path)


@pytest.mark.parametrize(("name", "processor"), HAVING)
def test_the_least_processor_of_a_row_is_enough(name: str, processor: str, tmp_path: Path) -> None:
    assert first_sum(name, processor, tmp_path) == 6


def test_reset_refuses_buffers_that_run_would_refuse(tmp_path: Path) -> None:
    library = compiled(counter("x86_64"), tmp_path)
    info = library.info
    state, weights = aligned(info.state_bytes + 64, 64), aligned(info.weights_bytes, 64)
    state[...] = 0xA5
    at = [ctypes.c_void_p(a.ctypes.data) for a in (state, weights)]
    off = ctypes.c_void_p(state.ctypes.data + 8)
    assert library._reset(off, at[1]) == MISALIGNED and (state == 0xA5).all()
    assert library._reset(None, at[1]) == library._reset(at[0], None) == NULL
    assert library._reset(*at) == 0


@pytest.mark.parametrize("isa", ["avx2", "avx512", "avx512vnni", "avx512bf16", "amx"])
def test_sources_name_the_option_that_their_compiler_lacks(isa: str) -> None:
    """One line before any of an intrinsic that cannot be inlined."""
    less = {"avx512vnni": "avx512", "avx512bf16": "avx512vnni", "amx": "avx512bf16"}
    machine = target(TARGETS[less.get(isa, "scalar")]).machine
    unit = Unit("want.c", f'#include "isa/{isa}.h"\n', (NATIVE,))
    with pytest.raises(CompileError, match=r"isa/[a-z0-9_]+\.h needs .*\(-m"):
        find_toolchain().compile_objects([unit], machine, ("-std=gnu99",))
