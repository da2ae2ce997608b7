"""The bundle of a board or phone as libraries, header, weights and a benchmark, for CMake."""

from __future__ import annotations

from pathlib import Path

from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.library import compile_objects
from sparrow.errors import BadBundle
from sparrow.evidence.plan_record import PlanRecord
from sparrow.folder import library_path, machine_of

_CONFIG = """\
# find_package(sparrow_model CONFIG) gives sparrow_model::static and sparrow_model::shared; the
# program maps weights.bin and hands it to model_run, see include/sparrow.h.
get_filename_component(_root "${{CMAKE_CURRENT_LIST_DIR}}" ABSOLUTE)
set(SPARROW_MODEL_WEIGHTS "${{_root}}/weights.bin")
foreach(_kind STATIC SHARED)
  string(TOLOWER ${{_kind}} _name)
  if(NOT TARGET sparrow_model::${{_name}})
    add_library(sparrow_model::${{_name}} ${{_kind}} IMPORTED)
    set_target_properties(sparrow_model::${{_name}} PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${{_root}}/include")
  endif()
endforeach()
set_target_properties(sparrow_model::static PROPERTIES
  IMPORTED_LOCATION "${{_root}}/lib/libsparrow_model.a")
set_target_properties(sparrow_model::shared PROPERTIES
  IMPORTED_LOCATION "${{_root}}/lib/{shared}" IMPORTED_NO_SONAME TRUE)
"""


def library(folder: Path, plan: PlanRecord) -> dict[str, bytes]:
    """Files of a package.

    Args:
        folder: A bundle for a system that loads libraries.
        plan: Of the bundle.

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
    objects = compile_objects(files, machine, plan.parts)
    name = f"libsparrow_model{machine.library_suffix}"
    tree = {
        "include/model.h": files["model.h"],
        "include/sparrow.h": files["sparrow.h"],
        "lib/libsparrow_model.a": tools.archive(objects, machine).read_bytes(),
        f"lib/{name}": shared,
        "weights.bin": weights,
        "sparrow_modelConfig.cmake": _CONFIG.format(shared=name).encode(),
    }
    if machine.os == "linux":
        unit = Unit.from_file(NATIVE / "runtime" / "benchmark.c")
        start = tools.compile_objects([unit], machine, ("-std=gnu99", "-fno-builtin"))
        program = tools.link_program((*start, *objects), machine)
        tree["bin/benchmark"] = program.read_bytes()
    return tree
