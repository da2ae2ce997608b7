"""Small C functions over the native headers, compiled for one instruction set and called by tests.

Freestanding, nothing linked, every warning an error: what emitted code has to compile under. What
this machine cannot run itself runs in an emulator, behind the same two functions.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import shutil
import subprocess
import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

import sparrow
from data import missing
from emulated_avx512 import emulated, emulating_flags
from sparrow.device.build import Unit, find_toolchain
from sparrow.device.cpu import host_isas
from sparrow.device.elf import FUNCTION, Elf
from sparrow.device.firmware import board_command, link_program
from sparrow.device.flags import link_flags
from sparrow.device.here import host_machine
from sparrow.device.node import find_node
from sparrow.device.qemu import emulator_command
from sparrow.errors import BadInput
from sparrow.targets import Machine, target

NATIVE = Path(sparrow.__file__).parent / "native"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror", f"-I{NATIVE}")
COMMON = ("-std=c99", "-ffreestanding", *WARNINGS)

# zig's and gcc's name of the CPU.
ISAS = {
    "scalar": ("x86_64", "x86-64"),
    "avx2": ("x86_64_v3", "x86-64-v3"),
    "avx512": ("x86_64_v4", "x86-64-v4"),
    "avx512vnni": ("x86_64_v4+avx512vnni", "icelake-server"),
    "avx512bf16": ("x86_64_v4+avx512vnni+avx512vbmi+avx512bf16", "sapphirerapids"),
    "amx": (
        *("x86_64_v4+avx512vnni+avx512vbmi+avx512bf16+amx_tile+amx_int8+amx_bf16",),
        *("sapphirerapids",),
    ),
}
# Instruction set headers of other machines, compiled for a target and emulated.
EMULATED = {
    "neon": "aarch64",
    "neon_dot": "aarch64_dotprod",
    "neon_i8mm": "aarch64_i8mm",
    "neon32": "armv7",
    "rvv": "riscv64_v",
    "wasm": "wasm32",
    "wasm_simd": "wasm32_simd",
    "wasm_relaxed": "wasm32_relaxed",
}
# The same for boards without an operating system: linked into a program instead of loaded by one.
FIRMWARE = {"mve": "cortex_m55"}
# What engines' relaxed dot products do, as the loader calls it.
DOTS = ("usdot", "sdot", "maddubs")
# Those that differ from another one in products of bytes alone.
BYTES_ONLY = {"dsp": "armv7", **{f"wasm_{kind}": f"wasm32_{kind}" for kind in DOTS}}
# The same of this machine's: AVX-VNNI in the encoding of AVX-512, which more CPUs have.
NATIVE_BYTES_ONLY = {"avxvnni": ("x86_64_v4+avx512vnni", "icelake-server")}
# Those that multiply bytes each in its own way: avx512bf16 does as avx512vnni.
BYTES = (*(isa for isa in ISAS if isa != "avx512bf16"), *NATIVE_BYTES_ONLY)
# gcc for other machines.
CROSS_GCC = {
    "neon_i8mm": ("aarch64-linux-gnu-gcc", "-march=armv8.2-a+dotprod+i8mm"),
    "neon32": ("arm-linux-gnueabihf-gcc", "-march=armv7-a", "-mfpu=neon", "-mfloat-abi=hard"),
    "rvv": ("riscv64-linux-gnu-gcc", "-march=rv64gcv"),
}
# Every way to compile a file: a header, and gcc instead of zig.
BUILDS = (
    *(*ISAS, *EMULATED, *FIRMWARE),
    *(f"{isa} gcc" for isa in ("avx2", "avx512", "scalar", *CROSS_GCC)),
)

FLUSHES = """
int flushes(void);
int flushes(void) {
#ifdef SP_FLUSHES
  return 1;
#else
  return 0;
#endif
}
"""

_protect = ctypes.CDLL(None).mprotect if sys.platform != "win32" else None


def needs_isa(isa: str, compiler: str = "zig") -> None:
    """Skip the test where this machine does not run a key of `ISAS` or `NATIVE_BYTES_ONLY`."""
    if compiler == "zig" and emulated({**ISAS, **NATIVE_BYTES_ONLY}[isa][0]):
        return
    if ("avx512vnni" if isa in NATIVE_BYTES_ONLY else isa) not in host_isas():
        pytest.skip(f"this CPU has no {isa}")


class Emulated:
    """Functions in an emulator: calls cross two pipes. Arrays end at a page without access."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        weakref.finalize(self, self.process.kill)

    def call(self, name: str, *arguments: NDArray[Any] | int) -> int:
        """Call a function, rewrite the arrays, and return its int result."""
        parts = [_words(len(name)), name.encode(), _words(len(arguments))]
        for a in arguments:
            parts += [_words(0, a)] if isinstance(a, int) else [_words(1, a.nbytes), a.tobytes()]
        to, back = self.process.stdin, self.process.stdout
        assert to is not None and back is not None
        to.write(b"".join(parts))
        to.flush()
        answer = back.read(8)
        assert len(answer) == 8, f"{name}: the emulated program ended"
        for a in arguments:
            if not isinstance(a, int):
                a[...] = np.frombuffer(back.read(a.nbytes), a.dtype).reshape(a.shape)
        return int.from_bytes(answer, "little", signed=True)


def _words(*values: int) -> bytes:
    return np.array(values, np.int64).tobytes()


def _loaded(library: Path, machine: Machine) -> list[str]:
    """The command of a program that loads a library."""
    native = Path(__file__).parent / "native"
    if machine.arch == "wasm32":
        return [node(), str(native / "call_probe.mjs"), str(library)]
    probe = library.with_name("call_probe")
    source = native / "call_probe.c"
    command = [sys.executable, "-m", "ziglang", "cc", *zig_target(machine), "-static", "-O2"]
    freestanding = ["-std=gnu99", "-ffreestanding", "-nostdlib", "-fno-builtin", *WARNINGS]
    subprocess.run([*command, *freestanding, str(source), "-o", str(probe)], check=True)
    return [*emulator(machine), str(probe), str(library)]


def _linked(functions: Path, machine: Machine) -> list[str]:
    """The command of a program that an object is linked into."""
    try:
        command = board_command(machine)
    except BadInput as e:
        missing(str(e))
        raise
    code = Elf(functions.read_bytes()).symbols
    names = sorted(s.name for s in code if s.kind == FUNCTION and s.section and s.external)
    declared = "".join(f"long {n}();\n" for n in names)
    entries = "".join(f'  {{"{n}", {n}}},\n' for n in names)
    table = (
        f"{declared}const struct {{ const char *name; long (*call)(); }} functions[] = {{\n"
        f"{entries}}};\nconst int function_count = {len(names)};\n"
    )
    probe = Unit.from_file(Path(__file__).parent / "native" / "call_firmware.c")
    units = [replace(probe, include_dirs=(*probe.include_dirs, NATIVE)), Unit("table.c", table)]
    unknown = ("-Wno-strict-prototypes", "-Wno-deprecated-non-prototype")
    flags = ("-std=gnu99", "-fno-builtin", *unknown)
    objects = find_toolchain().compile_objects(units, machine, flags)
    return [*command, str(link_program((*objects, functions), machine))]


Library: TypeAlias = ctypes.CDLL | Emulated


def zig_target(machine: Machine) -> list[str]:
    """Compiler options for a machine."""
    return ["-g0", "-target", machine.triple, f"-mcpu={machine.cpu}"]


def emulator(machine: Machine) -> list[str]:
    """The command that runs programs of a machine; without it tests skip, under CI they fail."""
    try:
        return emulator_command(machine)
    except BadInput as e:
        missing(str(e))
        raise


def node() -> str:
    """The Node.js program; without it tests skip, under CI they fail."""
    try:
        return find_node()
    except BadInput as e:
        missing(str(e))
        raise


@functools.cache
def engine_has(feature: str, *flags: str) -> bool:
    """Whether Node.js, run with V8's ``flags``, has a feature of the loader's."""
    loader = (NATIVE / "web" / "model.mjs").as_uri()
    asked = f"const {{ has }} = await import('{loader}'); process.exit(has('{feature}') ? 0 : 1);"
    command = [node(), *flags, "--input-type=module", "-e", asked]
    return subprocess.run(command, check=False).returncode == 0


def engine(name: str) -> None:
    """Node.js, with the relaxed dot product that an instruction set or target takes; else skip."""
    node()
    kind = name.split("_")[-1]
    if kind in DOTS and not engine_has(kind):
        pytest.skip(f"the engine lacks {kind}")


def build(text: str, isa: str, folder: Path, compiler: str = "zig", level: str = "-O2") -> Library:
    """Compile one C file and load it; fails the test on any warning, skips a CPU without ``isa``.

    Args:
        text: The file, without the ISA header, which comes first.
        isa: A key of `ISAS`, `EMULATED`, `FIRMWARE`, `BYTES_ONLY` or `NATIVE_BYTES_ONLY`.
        folder: Where the library goes.
        compiler: ``zig`` or ``gcc``.
        level: Of optimization.
    """
    other = {**EMULATED, **FIRMWARE, **BYTES_ONLY}.get(isa)
    machine = target(other).machine if other else None
    if machine is not None and machine.arch == "wasm32":
        engine(isa)
    zig_cpu, gcc_cpu = {**ISAS, **NATIVE_BYTES_ONLY}.get(isa, ("", ""))
    target_flags = zig_target(machine) if machine else ["-g0", f"-mcpu={zig_cpu}"]
    if compiler == "zig" and emulated(zig_cpu):
        target_flags = ["-g0", *emulating_flags(zig_cpu)]
    command = [sys.executable, "-m", "ziglang", "cc", *target_flags]
    if compiler == "gcc":
        command = [*CROSS_GCC.get(isa, ("gcc", f"-march={gcc_cpu}"))]
        if shutil.which(command[0]) is None:
            missing(f"{command[0]} is not installed")
    if isa == "scalar":
        command.append("-pedantic")
    source, library = folder / f"{isa}.c", folder / f"{isa}.so"
    linked: Sequence[str] = ("-nostdlib", "-shared", "-fPIC")
    if machine is not None and machine.arch == "wasm32":
        # zig hides a module's functions unless told otherwise
        linked = ("-fvisibility=default", *link_flags(machine))
    if isa in FIRMWARE:
        linked = ("-c",)
    if compiler == "gcc":
        # the older symbol table is what the probe looks names up in
        linked = (*linked, "-Wl,--hash-style=both")
    runtime: tuple[str, ...] = ()
    if machine is not None and machine.arch == "arm":
        # it divides, and makes doubles of 64-bit integers, by calls
        runtime = ("-lgcc",) if compiler == "gcc" else ("-rtlib=compiler-rt",)
    if runtime == ("-lgcc",):
        text += "int raise(int);\nint raise(int signal) { return signal; }\n"
    source.write_text(f'#include "isa/{isa}.h"\n{FLUSHES}{text}')
    done = subprocess.run(
        [*command, *COMMON, level, *linked, str(source), *runtime, "-o", str(library)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[:4000]
    if machine is not None:
        return Emulated((_linked if isa in FIRMWARE else _loaded)(library, machine))
    needs_isa(isa, compiler)
    return ctypes.CDLL(str(library))


def call(library: Library, name: str, *arguments: NDArray[Any] | int) -> int:
    """Call a function with array pointers and ``ptrdiff_t`` numbers; its result if it is an int."""
    if isinstance(library, Emulated):
        return library.call(name, *arguments)
    converted = [
        ctypes.c_ssize_t(a) if isinstance(a, int) else ctypes.c_void_p(a.ctypes.data)
        for a in arguments
    ]
    return int(library[name](*converted))


def flushed(values: NDArray[Any]) -> NDArray[Any]:
    """Floats with zeros in place of subnormals."""
    tiny = np.abs(values) < np.finfo(values.dtype).tiny
    return np.where(tiny, np.copysign(values.dtype.type(0), values), values)


def unless_flushed(
    library: Library, error: NDArray[Any], got: NDArray[Any], want: NDArray[Any], *x: NDArray[Any]
) -> NDArray[Any]:
    """Errors in ULP, without those of subnormal operands and results where these count as zero."""
    if not call(library, "flushes"):
        return error
    tiny = float(np.finfo(np.float32).tiny)
    with np.errstate(all="ignore"):
        free = np.abs(got - want) <= tiny
    for operand in x:
        free |= (operand != 0) & (np.abs(operand) < tiny)
    return np.where(free, 0.0, error)


@functools.cache
def _page() -> tuple[mmap.mmap, NDArray[np.uint8]]:
    """One readable page followed by one without access (where the system can do that)."""
    memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    view = np.frombuffer(memory, np.uint8)
    if _protect is not None:
        after = ctypes.c_void_p(view.ctypes.data + mmap.PAGESIZE)
        assert _protect(after, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    return memory, view


def before_guard(values: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of ``values`` whose end is the end of accessible memory.

    There is one such place: the next call overwrites it.
    """
    view = _page()[1]
    end = mmap.PAGESIZE
    copy = view[end - values.nbytes : end].view(values.dtype)
    copy[:] = values
    return copy


def every_exponent(dtype: type[np.float32] | type[np.float64], count: int) -> NDArray[Any]:
    """Random bit patterns: every exponent, both signs, subnormals, infinities and NaN."""
    rng = np.random.default_rng(20)
    if dtype is np.float32:
        return rng.integers(0, 1 << 32, count, dtype=np.uint32).view(np.float32)
    return rng.integers(0, 1 << 64, count, dtype=np.uint64).view(np.float64)


def ulp_error(got: NDArray[Any], want: NDArray[Any]) -> NDArray[np.float64]:
    """Distance from the exact result in units in the last place of the result's type.

    Args:
        got: float32 or float64 results.
        want: The same in a wider type. Infinities, NaN and the signs of zeros must agree with
            ``want`` rounded; if they do not the error is infinite.
    """
    dtype = got.dtype.type
    info = np.finfo(dtype)
    with np.errstate(all="ignore"):
        rounded = want.astype(dtype)
        finite = np.isfinite(want) & (want != 0)
        exponent = np.frexp(np.where(finite, want, 1))[1] - 1
        unit = np.ldexp(np.ones((), want.dtype), np.maximum(exponent, info.minexp) - info.nmant)
        error = (np.abs(got.astype(want.dtype) - want) / unit).astype(np.float64)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    special = ~np.isfinite(rounded) | ~np.isfinite(got)
    error = np.where(special, np.where(same, 0.0, np.inf), error)
    signs = (rounded == 0) & (got == 0) & (np.signbit(got) != np.signbit(rounded))
    return np.where(signs, np.inf, error)


def worst(error: NDArray[np.float64], *arguments: NDArray[Any]) -> str:
    """The largest error and where it is, for messages."""
    at = int(np.argmax(error))
    return f"{error[at]:.3f} at {', '.join(repr(float(a[at])) for a in arguments)}"


def loop(name: str, expression: str, inputs: Sequence[str], output: str) -> str:
    """C function ``name(out, in..., count)`` that applies ``expression`` of a, b, c to vectors.

    Args:
        name: Of the C function.
        expression: In the variables a, b, c.
        inputs: ``f32`` or ``i32`` per variable.
        output: ``f32`` or ``i32``.
    """
    ctypes_of = {"f32": "float", "i32": "int32_t"}
    names = "abc"[: len(inputs)]
    pointers = "".join(f", const {ctypes_of[t]} *p{v}" for v, t in zip(names, inputs, strict=True))
    loads = "".join(
        f"    const sp_{t} {v} = sp_loadn_{t}(p{v} + i, n);\n    (void){v};\n"
        for v, t in zip(names, inputs, strict=True)
    )
    signature = f"void {name}({ctypes_of[output]} *out{pointers}, ptrdiff_t count)"
    return (
        f"{signature};\n{signature} {{\n  ptrdiff_t i;\n"
        f"  for (i = 0; i < count; i += SP_LANES) {{\n"
        f"    const int n = (int)sp_imin(count - i, SP_LANES);\n{loads}"
        f"    sp_storen_{output}(out + i, {expression}, n);\n  }}\n}}\n"
    )


@functools.cache
def pool_library(probe: str) -> ctypes.CDLL:
    """The thread pool together with a file of tests/native that drives it."""
    machine, path = host_machine("scalar"), Path(__file__).parent / "native" / probe
    unit = Unit(path.name, path.read_text(encoding="utf-8"), (NATIVE,))
    sources = [Unit.from_file(NATIVE / "runtime" / "pool.c"), unit]
    objects = find_toolchain().compile_objects(sources, machine, ("-std=c99", *WARNINGS[:4]))
    library = ctypes.CDLL(str(find_toolchain().link_shared(objects, machine)))
    library.sparrow_pool_create.restype = ctypes.c_void_p
    return library
