"""Is everything here that a build needs: one line per thing."""

from __future__ import annotations

import os
import platform
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sparrow import __version__
from sparrow.device.build import Unit, find_toolchain, usable_cores
from sparrow.device.cache import DEFAULT_LIMIT_BYTES, cache_folder
from sparrow.device.cpu import host_isa
from sparrow.device.here import host_machine
from sparrow.errors import SparrowError
from sparrow.targets import Machine
from sparrow.timing.measure import cpu

PACKAGES = ("numpy", "scipy", "onnx", "onnxruntime", "ziglang", "pydantic", "jinja2", "pillow")
_PROBE = "int sparrow_probe(int x);\nint sparrow_probe(int x) { return x + 1; }\n"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing, whether it is as it should be, and what it is."""

    name: str
    ok: bool
    text: str


def _compiler() -> Finding:
    try:
        tools = find_toolchain()
        target: Machine = host_machine("scalar")
        with tempfile.TemporaryDirectory() as folder:
            objects = tools.compile_objects([Unit("probe.c", _PROBE)], target)
            tools.link_shared(objects, target, Path(folder) / "probe.so")
        return Finding("compiler", True, f"{tools.identity[:80]} builds for {target.triple}")
    except SparrowError as e:
        return Finding("compiler", False, str(e))


def _cache() -> Finding:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        total = sum(p.stat().st_size for p in folder.glob("entries/*/*"))
    except OSError as e:
        return Finding("cache", False, f"{folder}: {e.strerror}; set SPARROW_CACHE")
    text = f"{folder}, {total / 1e6:.1f} MB of at most {DEFAULT_LIMIT_BYTES / 1e6:.0f} MB"
    return Finding("cache", True, text)


def examine() -> list[Finding]:
    """Look at compiler, cache, processor, threads and packages."""
    found = [
        Finding("sparrow", True, __version__),
        Finding("python", True, f"{platform.python_version()} on {platform.platform(terse=True)}"),
        _compiler(),
        _cache(),
        Finding("processor", True, f"{cpu()}, instruction set {host_isa()}"),
        Finding("threads", True, f"{usable_cores()} usable of {os.cpu_count() or 1}"),
    ]
    for name in PACKAGES:
        try:
            found.append(Finding(name, True, version(name)))
        except PackageNotFoundError:
            found.append(Finding(name, False, f"not installed; pip install {name}"))
    return found
