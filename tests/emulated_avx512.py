"""AVX-512 on processors without it, for `pytest --emulate-avx512`: tests/native/avx512.h.

Files for AVX-512, with VNNI and BF16, are compiled for x86-64-v3 with each instruction as a C
function. What compilers make of the instructions themselves is not seen, and nothing is timed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sparrow.device.build import Toolchain
from sparrow.targets import Machine

SHIM = Path(__file__).parent / "native" / "avx512.h"
SIMDE = Path("/usr/include/simde")

_active: list[pytest.MonkeyPatch] = []


def emulated(cpu: str) -> bool:
    """Whether what is compiled for zig's CPU ``cpu`` runs here although this CPU lacks AVX-512."""
    return bool(_active) and cpu.startswith("x86_64_v4") and "amx" not in cpu


def emulating_flags(cpu: str) -> tuple[str, ...]:
    """Compiler options for such a file, in place of its CPU's."""
    # the header is no part of a cached object's key, but this name is
    shim = hashlib.sha256(SHIM.read_bytes()).hexdigest()[:16]
    has = [f"-DSP_EMULATE_{name.upper()}" for name in ("vnni", "bf16") if f"avx512{name}" in cpu]
    headers = ("-include", str(SHIM), "-idirafter", str(SIMDE.parent))
    return ("-mcpu=x86_64_v3", *headers, f"-DSP_EMULATED=0x{shim}", *has)


def emulate() -> None:
    """Emulate in this process from now on; fails the run where SIMDe is not installed."""
    if not SIMDE.is_dir():
        raise pytest.UsageError(f"--emulate-avx512: no {SIMDE} (apt-get install libsimde-dev)")
    patch = pytest.MonkeyPatch()
    real = Toolchain._target_flags

    def flags(self: Toolchain, target: Machine) -> tuple[str, ...]:
        if not (self.is_zig and emulated(target.cpu)):
            return real(self, target)
        return ("-target", target.triple, *emulating_flags(target.cpu))

    patch.setattr(Toolchain, "_target_flags", flags)
    _active.append(patch)
