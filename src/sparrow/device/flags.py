"""Options of the compiler and the linker for each kind of machine."""

from __future__ import annotations

from collections.abc import Sequence

from sparrow.targets import Machine

FLAGS = (
    # zig hands clang -O2 for this. Its real -O3 made GEMM code 29 % larger and no faster.
    "-O3",
    "-g0",
    "-ffreestanding",
    "-fvisibility=hidden",
    "-fomit-frame-pointer",
    "-fno-math-errno",
    "-fno-trapping-math",
    # Kernels say fma where they mean it; contracting the rest would make results depend on the ISA.
    "-ffp-contract=off",
    # One arena holds values of different types one after the other.
    "-fno-strict-aliasing",
    "-fno-asynchronous-unwind-tables",
)
# Android's calls pass no floats in registers; zig takes that as having none, and its features say
# both that there is a NEON and that what it builds on is missing.
ANDROID32 = ("-mfloat-abi=softfp", "-Xclang", "-target-feature", "-Xclang", "+vfp2")
# What is linked into a firmware: small, at fixed addresses, every unused function left out.
BARE_FLAGS = ("-Os", "-fdata-sections")
# What `device.stack` reads; of drivers other than zig's not all know the second one.
STACK_FLAGS = ("-ffunction-sections", "-fstack-size-section")
# gcc's and clang's names of the FPUs of Cortex-M.
CORTEX_M_FPUS = {
    "vfp4d16sp": "fpv4-sp-d16",
    "fp_armv8d16sp": "fpv5-sp-d16",
    "fp_armv8d16": "fpv5-d16",
}
# Systems refuse libraries made for later ones; zig's own choice is one of the last.
OLDEST = {"macos": ".11.0", "ios": ".13.0"}


def compile_flags(target: Machine) -> tuple[str, ...]:
    """Options that every source of a target is compiled with, besides the target's own name."""
    # nothing here is unwound, but Windows walks the stacks of all programs by these tables
    flags = FLAGS if target.os == "windows" else (*FLAGS, "-fno-unwind-tables")
    if target.bare:
        return (*flags, *BARE_FLAGS)
    # a module is its own address space: position-independent code would only cost indirections
    return flags if target.arch == "wasm32" else (*flags, "-fPIC")


# Bytes of a module's stack, and of memory that threads can share at most.
WASM_STACK = 65_536
WASM_MEMORY = 1 << 30


def _wasm_flags(target: Machine) -> tuple[str, ...]:
    exported = ["__heap_base"]
    options = ["--no-entry", "--export-dynamic", "--export-table", "--growable-table"]
    # zig's linker puts it below everything else, so that an overflow traps
    options.append(f"-z,stack-size={WASM_STACK}")
    if "atomics" in target.cpu.split("+"):
        exported.append("__stack_pointer")
        options += ["--import-memory", "--shared-memory", f"--max-memory={WASM_MEMORY}"]
    options += [f"--export={name}" for name in exported]
    return ("-nostdlib", "-s", *(f"-Wl,{option}" for option in options))


def link_flags(target: Machine) -> tuple[str, ...]:
    """Options that link a library which needs no other one."""
    if target.arch == "wasm32":
        return _wasm_flags(target)
    flags: tuple[str, ...] = ("-shared", "-nostdlib", "-s")
    if target.os in ("macos", "ios"):
        # what a program that links it looks for, by the name that packages give it
        flags = (*flags, "-Wl,-install_name,@rpath/libsparrow_model.dylib")
    if target.os == "linux":
        # memcpy and, for the thread pool, pthread_create come from the process that loads it.
        # Programs without a libc find symbols by the older table, which some linkers leave out.
        flags = (*flags, "-Wl,-z,undefs", "-Wl,--hash-style=both")
        if "android" in target.triple:
            flags = (*flags, "-Wl,-z,max-page-size=16384")
    return flags


def gcc_cpu_flags(target: Machine) -> tuple[str, ...]:
    """What gcc and clang call a machine's CPU."""
    if target.arch == "thumb":
        return cortex_m_flags(target.cpu)
    cpu, *features = target.cpu.replace("_", "-").split("+")
    if target.triple.startswith("x86"):
        # where floats go through the registers of x87 by default, results have too many bits
        sse = ("-msse2", "-mfpmath=sse") if target.arch == "x86" else ()
        return (f"-march={cpu}", *sse, *(f"-m{feature}" for feature in features))
    if cpu.startswith("generic"):
        named = _generic_flags(cpu, features)
    else:
        named = (f"-mcpu={'+'.join((cpu, *features))}",)
    # for cores before Armv8.1 both call libgcc for an exchange, which a library has not
    return (*named, "-mno-outline-atomics") if target.arch == "aarch64" else named


def cortex_m_flags(cpu: str) -> tuple[str, ...]:
    """What gcc and clang call a Cortex-M; ``cpu`` is zig's name of it."""
    core, *features = cpu.split("+")
    named = (f"-mcpu={core.replace('_', '-')}", "-mthumb")
    if core == "cortex_m55":
        return (*named, "-mfloat-abi=hard", "-mfpu=auto")
    fpu = next((CORTEX_M_FPUS[f] for f in features if f in CORTEX_M_FPUS), None)
    return (*named, "-mfloat-abi=hard", f"-mfpu={fpu}") if fpu else (*named, "-mfloat-abi=soft")


def _generic_flags(cpu: str, features: Sequence[str]) -> tuple[str, ...]:
    """What gcc and clang call a CPU that is none in particular."""
    if cpu.startswith("generic-rv"):
        abi = ("lp64" if cpu.endswith("64") else "ilp32") + ("d" if "d" in features else "")
        letters = "".join(f for f in features if len(f) == 1)
        words = (f for f in features if len(f) > 1)
        return (
            f"-march={'_'.join((cpu.removeprefix('generic-') + 'i' + letters, *words))}",
            f"-mabi={abi}",
        )
    if "v7a" in features:
        return ("-march=armv7-a", "-mfpu=neon", "-mfloat-abi=hard")
    # gcc has its intrinsics of the options of Armv8.2 under that name alone
    return (f"-march={'+'.join(('armv8.2-a' if features else 'armv8-a', *features))}",)
