"""Emitted sources as the library that a device loads, or links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sparrow.device import build as toolchain
from sparrow.device.elf import code_bytes
from sparrow.device.firmware import flash_bytes
from sparrow.targets import Machine

LIBRARY = "model"


def library_sources(source: str, parts: int, hooks: bool = False) -> list[toolchain.Unit]:
    """The parts of ``model.c`` as translation units; part 0 alone depends on the hooks."""
    flag = "#define SPARROW_HOOKS 1\n" if hooks else ""
    found = []
    for k in range(parts):
        head = f"#define SPARROW_PART {k}\n" + (flag if k == 0 else "")
        found.append(toolchain.Unit(f"model_{k}.c", head + source))
    return found


def compile_objects(
    files: Mapping[str, bytes], target: Machine, parts: int, hooks: bool = False
) -> tuple[Path, ...]:
    """Compile emitted sources, or find the objects in the cache; see `compile_library`.

    Where vectors have several lengths, everything but the driver is compiled for each.
    """
    header = files["sparrow.h"].decode()
    text = files["model.c"].decode().replace('#include "sparrow.h"\n', header + "\n", 1)
    compile_units = toolchain.find_toolchain().compile_objects
    rest = []
    if "weights.c" in files:
        rest.append(toolchain.Unit("weights.c", files["weights.c"].decode()))
    if not target.lengths:
        return compile_units([*library_sources(text, parts, hooks), *rest], target)
    driver = library_sources(f"#define SPARROW_LENGTHS 1\n{text}", parts, hooks)[:1]
    objects = compile_units([*driver, *rest], target)
    for bits in target.lengths:
        steps = library_sources(f"#define SPARROW_LENGTH {bits}\n{text}", parts)[1:]
        longer = replace(target, cpu=f"{target.cpu}+zvl{bits}b")
        objects = (*objects, *compile_units(steps, longer))
    return objects


def compile_library(
    files: Mapping[str, bytes],
    target: Machine,
    parts: int,
    folder: Path | None = None,
    hooks: bool = False,
) -> Path:
    """Build the library of emitted sources: shared, or static where nothing loads one.

    Args:
        files: ``model.c``, ``sparrow.h`` and, where it is linked in, ``weights.c``.
        target: What to compile for.
        parts: Translation units of ``model.c``.
        folder: Where to put it as ``model<suffix>``; None leaves it in the cache.
        hooks: Build the tap and profile hooks in.

    Raises:
        CompileError: The compiler is missing or refuses the sources.
    """
    objects = compile_objects(files, target, parts, hooks)
    out = None if folder is None else folder / f"{LIBRARY}{target.library_suffix}"
    tools = toolchain.find_toolchain()
    if target.bare:
        return tools.archive(objects, target, out)
    return tools.link_shared(objects, target, out)


def code_bytes_of(library: Path, target: Machine) -> int:
    """Bytes of code and constants, weights apart, that a library takes where it runs."""
    return flash_bytes(library, target) if target.bare else code_bytes(library)
