"""This machine as a target, and the compiler for it."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from dataclasses import replace

from sparrow.device.build import Toolchain, find_toolchain, installed_zig
from sparrow.device.cache import FileCache
from sparrow.device.cpu import host_isa
from sparrow.errors import BadInput
from sparrow.targets import Machine, Target, devices
from sparrow.targets import target as target_row

# Instruction sets of an architecture's own header, and the CPU that has them.
CPUS = {
    "x86_64": {
        "scalar": "x86_64",
        "avx2": "x86_64_v3",
        "avxvnni": "x86_64_v3+avxvnni",
        "avx512": "x86_64_v4",
        "avx512vnni": "x86_64_v4+avx512vnni",
        "avx512bf16": "x86_64_v4+avx512vnni+avx512vbmi+avx512bf16",
        "amx": "x86_64_v4+avx512vnni+avx512vbmi+avx512bf16+amx_tile+amx_int8+amx_bf16",
    },
    "aarch64": {
        "scalar": "generic",
        "neon": "generic",
        "neon_dot": "generic+dotprod",
        "neon_i8mm": "generic+dotprod+i8mm",
    },
    "arm": {"scalar": "generic+v7a+neon", "neon32": "generic+v7a+neon"},
    "riscv64": {"scalar": "generic_rv64+m+a+f+d+c"},
}
# Systems' and compilers' other names of an architecture.
_ARCHES = {"amd64": "x86_64", "arm64": "aarch64", "armv7l": "arm"}


def host_machine(isa: str) -> Machine:
    """Return the Machine of the machine this runs on, for one instruction set it has.

    Raises:
        BadInput: ``isa`` does not belong to this kind of machine.
    """
    machine = platform.machine().lower()
    arch = _ARCHES.get(machine, machine)
    system = {
        "darwin": "macos-none",
        "win32": "windows-gnu",
    }.get(sys.platform, "linux-musleabihf" if arch == "arm" else "linux-musl")
    cpus = CPUS.get(arch, {"scalar": "baseline"})
    if isa not in cpus:
        raise BadInput(f"instruction set {isa!r} on {arch}", hint=f"use one of {', '.join(cpus)}")
    return Machine(f"{arch}-{system}", cpus[isa], isa)


def resolve_target(name: str) -> Target:
    """The row of a target; ``host`` is the best row this machine can run.

    Raises:
        BadInput: There is no such row, or Sparrow does not compile for it.
    """
    if name != "host":
        return target_row(name)
    here = host_machine(host_isa())
    alike = (here.arch, here.cpu, here.isa)
    rows = (d.target for d in devices("cpu").values())
    found = [t for t in rows if t is not None and (t.machine.arch, t.cpu, t.isa.name) == alike]
    if found:
        # of other systems' rows only where this one has none
        return replace(max(found, key=lambda t: t.triple == here.triple), triple=here.triple)
    raise BadInput(f"no target row describes this machine ({here.triple})", hint="name a target")


def host_toolchain(cache: FileCache | None = None) -> Toolchain:
    """A compiler for what this machine runs itself, whatever a bundle is built for.

    That is `find_toolchain`'s, unless SPARROW_CC names one for another kind of machine.

    Raises:
        CompileError: There is none.
    """
    tools = find_toolchain(cache)
    if tools.is_zig or _aims_here(tools.command):
        return tools
    return installed_zig(tools.cache)


@functools.cache
def _aims_here(command: tuple[str, ...]) -> bool:
    asked = subprocess.run(
        [*command, "-dumpmachine"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    arch = asked.stdout.decode("utf-8", "replace").strip().partition("-")[0]
    # a driver that does not say is taken for one of this machine
    return not arch or _ARCHES.get(arch, arch) == host_machine("scalar").arch
