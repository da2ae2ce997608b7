"""Which instruction sets this machine has."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def host_isa() -> str:
    """The widest instruction set with a vocabulary header that this machine runs."""
    return host_isas()[0]


def adds_in_16_bits() -> bool:
    """Whether ONNX Runtime and OpenVINO add two products of bytes in 16 bits here, which saturate.

    They do by `vpmaddubsw`, on x86 without VNNI.
    """
    return host_isa() in ("avx2", "avx512")


def host_isas() -> tuple[str, ...]:
    """The instruction sets with a vocabulary header that this machine runs, the widest first.

    ``avx512`` means F, BW, CD, DQ and VL (x86-64-v4), ``avx512vnni`` VNNI as well,
    ``avx512bf16`` VNNI, VBMI and BF16, ``amx`` AMX as well, which Linux has to allow;
    ``avx2`` includes FMA and F16C (x86-64-v3), ``avxvnni``
    AVX-VNNI as well, which CPUs with AVX-512 VNNI need not have.
    Machines that cannot be asked answer ``scalar``, or ``avx2`` where only that is certain.
    """
    if platform.machine().lower() in ("aarch64", "arm64"):
        return _arm_isas()
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ("scalar",)
    if sys.platform == "linux":
        try:
            found = isas_of_flags(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        except OSError:
            return ("scalar",)
        return found if "amx" not in found or _may_use_matrices() else found[1:]
    if sys.platform == "darwin":
        names = ["machdep.cpu.features", "machdep.cpu.leaf7_features", "machdep.cpu.extfeatures"]
        try:
            found = subprocess.run(
                ["/usr/sbin/sysctl", "-n", *names], capture_output=True, check=False
            )
        except OSError:
            return ("scalar",)
        return isas_of_flags(f"flags : {found.stdout.decode('ascii', 'replace')}")
    # 40 is PF_AVX2_INSTRUCTIONS_AVAILABLE; Windows does not tell AVX-512 BW, DQ and VL.
    if sys.platform == "win32" and ctypes.windll.kernel32.IsProcessorFeaturePresent(40):
        return ("avx2", "scalar")
    return ("scalar",)


def _arm_isas() -> tuple[str, ...]:
    """NEON, with dot products and i8mm where Linux says so; every Mac has the former."""
    if sys.platform == "darwin":
        return ("neon_dot", "neon", "scalar")
    features: list[str] = []
    if sys.platform == "linux":
        try:
            features = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
        except OSError:
            features = []
    dot = "asimddp" in features
    more = ("neon_i8mm",) * (dot and "i8mm" in features) + ("neon_dot",) * dot
    return (*more, "neon", "scalar")


_V3 = frozenset(("avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"))
_V4 = _V3 | frozenset(("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"))
_VNNI = _V4 | {"avx512_vnni"}
_BF16 = _VNNI | {"avx512vbmi", "avx512_bf16"}
_LEVELS = (
    ("amx", _BF16 | {"amx_tile", "amx_int8", "amx_bf16"}),
    ("avx512bf16", _BF16),
    ("avx512vnni", _VNNI),
    ("avx512", _V4),
    ("avxvnni", _V3 | {"avx_vnni"}),
    ("avx2", _V3),
)


def _may_use_matrices() -> bool:
    """Whether Linux gives this process matrix registers, which it keeps from then on."""
    # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
    refused: int = _LIBC.syscall(158, 0x1023, 18) if _LIBC else 1
    return refused == 0


def isas_of_flags(cpuinfo: str) -> tuple[str, ...]:
    """Return the instruction sets for the first ``flags`` line of a Linux cpuinfo text."""
    for line in cpuinfo.splitlines():
        if line.startswith("flags") and ":" in line:
            flags = frozenset(line.split(":", 1)[1].lower().split())
            return (*(isa for isa, needs in _LEVELS if flags >= needs), "scalar")
    return ("scalar",)
