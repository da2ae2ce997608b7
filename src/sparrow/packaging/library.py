"""The bundle of a board or phone as libraries, header, weights and a benchmark, for CMake."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.library import compile_objects
from sparrow.errors import BadBundle
from sparrow.evidence.plan_record import PlanRecord
from sparrow.folder import library_path, machine_of
from sparrow.packaging.naming import MODEL, Name

_CONFIG = """\
# find_package(sparrow_{name} CONFIG) gives sparrow_{name}::static and sparrow_{name}::shared;
# the program maps weights.bin and hands it to {name}_run, see include/sparrow.h.
get_filename_component(_root "${{CMAKE_CURRENT_LIST_DIR}}" ABSOLUTE)
set(SPARROW_{upper}_WEIGHTS "${{_root}}/weights.bin")
foreach(_kind STATIC SHARED)
  string(TOLOWER ${{_kind}} _name)
  if(NOT TARGET sparrow_{name}::${{_name}})
    add_library(sparrow_{name}::${{_name}} ${{_kind}} IMPORTED)
    set_target_properties(sparrow_{name}::${{_name}} PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${{_root}}/include")
  endif()
endforeach()
set_target_properties(sparrow_{name}::static PROPERTIES
  IMPORTED_LOCATION "${{_root}}/lib/libsparrow_{name}.a")
set_target_properties(sparrow_{name}::shared PROPERTIES
  IMPORTED_LOCATION "${{_root}}/lib/{shared}" IMPORTED_NO_SONAME TRUE)
"""


def library(folder: Path, plan: PlanRecord, name: Name) -> dict[str, bytes]:
    """Files of a package.

    Args:
        folder: A bundle for a system that loads libraries.
        plan: Of the bundle.
        name: The package's.

    Raises:
        BadBundle: Sources are missing.
        CompileError: The compiler is missing.
    """
    machine, tools = machine_of(plan), find_toolchain()
    try:
        files = {n: (folder / n).read_bytes() for n in ("model.c", "model.h", "sparrow.h")}
        shared = library_path(folder).read_bytes()
        weights = (folder / "weights.bin").read_bytes()
    except OSError as e:
        raise BadBundle(f"{folder}: {e.filename} cannot be read: {e.strerror}") from None
    files = {n: name.symbols(text.decode()).encode() for n, text in files.items()}
    objects = compile_objects(files, machine, plan.parts)
    if name != MODEL:
        shared = tools.link_shared(objects, machine).read_bytes()
    stem = f"sparrow_{name.text}"
    linked = f"lib{stem}{machine.library_suffix}"
    config = _CONFIG.format(name=name.text, upper=name.upper, shared=linked)
    tree = {
        f"include/{name.file('model.h')}": files["model.h"],
        "include/sparrow.h": files["sparrow.h"],
        f"lib/lib{stem}.a": tools.archive(objects, machine).read_bytes(),
        f"lib/{linked}": shared,
        "weights.bin": weights,
        f"{stem}Config.cmake": config.encode(),
    }
    if machine.os == "linux":
        unit = Unit.from_file(NATIVE / "runtime" / "benchmark.c")
        unit = replace(unit, text=name.symbols(unit.text))
        start = tools.compile_objects([unit], machine, ("-std=gnu99", "-fno-builtin"))
        program = tools.link_program((*start, *objects), machine)
        tree["bin/benchmark"] = program.read_bytes()
    return tree
