"""Libraries of systems that are not here: what they export and need, and that others link them."""

from __future__ import annotations

import functools
from pathlib import Path

import lief
import pytest

from small_graphs import GRAPHS
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.here import host_machine
from sparrow.device.library import compile_library
from sparrow.emit.c import emit
from sparrow.graph import Module
from sparrow.planner import plan
from sparrow.targets import Machine, target

ABI = {"model_info", "model_run", "model_reset"}
POOL = {
    *(f"sparrow_pool_{name}" for name in ("create", "destroy", "threads", "parallel_for")),
    "sparrow_profile_hook",
}
# What zig's linker adds to every library for Apple's systems, and the loader's own helper.
APPLE = {"_mh_dylib_header", "__dso_handle"}
APPLE_NEEDS = {"dyld_stub_binder"}
APPLES = ("aarch64_macos", "x86_64_macos", "aarch64_ios")
LINUX = ("x86_64", "armv7", "aarch64_android")

CALLER = """\
#include "sparrow.h"
SPARROW_DECLARE(model);
SPARROW_API int caller(const sparrow_call *call);
int caller(const sparrow_call *call) {
  return model_info()->abi_version == SPARROW_ABI_VERSION ? model_run(call) : -1;
}
"""


@functools.cache
def library(name: str, graph: str = "network") -> Path:
    """The library of a network for a target."""
    artifact = emit(plan(Module("m", (GRAPHS[graph](),)), target(name)))
    return compile_library(artifact.files, target(name).machine, artifact.parts)


def parsed(path: Path) -> lief.PE.Binary | lief.MachO.Binary | lief.ELF.Binary:
    found = lief.parse(str(path))
    assert isinstance(found, lief.PE.Binary | lief.MachO.Binary | lief.ELF.Binary), path
    return found


def exports(path: Path) -> set[str]:
    """Names that others can link: of the export table, the export trie, the dynamic symbols."""
    found = parsed(path)
    if isinstance(found, lief.PE.Binary):
        table = found.get_export()
        assert table is not None
        return {str(e.name) for e in table.entries}
    if isinstance(found, lief.MachO.Binary):
        assert found.dyld_info is not None
        names = {str(e.symbol.name) for e in found.dyld_info.exports if e.symbol is not None}
        assert names == {str(s.name) for s in found.symbols if s.raw_type == 0xF}
        return {n.removeprefix("_") for n in names}
    return {str(s.name) for s in found.exported_symbols}


def imports(path: Path) -> set[str]:
    """Names that it takes from others."""
    found = parsed(path)
    if isinstance(found, lief.PE.Binary):
        return {f"{i.name!s}!{e.name!s}" for i in found.imports for e in i.entries}
    if isinstance(found, lief.MachO.Binary):
        return {str(s.name).removeprefix("_") for s in found.imported_symbols}
    return {str(s.name) for s in found.imported_symbols}


def pool(machine: Machine) -> Path:
    tools = find_toolchain()
    units = [Unit.from_file(NATIVE / "runtime" / n) for n in ("pool.c", "profile.c")]
    objects = tools.compile_objects(units, machine, ("-std=c99",))
    system = {"windows": ("-lkernel32",), "macos": ("-lSystem",)}.get(machine.os, ())
    return tools.link_shared(objects, machine, flags=system)


@pytest.mark.parametrize("graph", ["network", pytest.param("arithmetic", marks=pytest.mark.slow)])
def test_a_windows_library_exports_the_interface_and_needs_nothing(graph: str) -> None:
    path = library("x86_64_windows", graph)
    assert exports(path) == ABI and not imports(path)
    found = parsed(path)
    assert isinstance(found, lief.PE.Binary)
    assert found.header.has_characteristic(lief.PE.Header.CHARACTERISTICS.DLL)
    assert found.optional_header.addressof_entrypoint != 0
    protections = lief.PE.OptionalHeader.DLL_CHARACTERISTICS
    assert found.optional_header.has(protections.DYNAMIC_BASE)
    assert found.optional_header.has(protections.NX_COMPAT)
    # the code can be moved, which takes the table of what to change
    assert found.has_relocations


@pytest.mark.parametrize("name", APPLES)
def test_an_apple_library_exports_the_interface_and_needs_the_loader_alone(name: str) -> None:
    path = library(name)
    assert exports(path) == ABI | APPLE
    assert imports(path) <= APPLE_NEEDS
    found = parsed(path)
    assert isinstance(found, lief.MachO.Binary)
    own, *others = (str(x.name) for x in found.libraries)
    assert own == "@rpath/libsparrow_model.dylib"
    assert others == ["/usr/lib/libSystem.B.dylib"]
    version = found.build_version
    assert version is not None
    assert list(version.minos) == ([13, 0, 0] if name.endswith("ios") else [11, 0, 0])
    # Apple's own processors run signed code only; apps for iOS are signed as a whole
    assert found.has_code_signature or name != "aarch64_macos"


@pytest.mark.parametrize("name", LINUX)
def test_a_linux_or_android_library_exports_the_interface(name: str) -> None:
    path = library(name)
    assert exports(path) == ABI
    assert imports(path) <= {"memcpy", "memmove", "memset", "memcmp"}
    found = parsed(path)
    assert isinstance(found, lief.ELF.Binary)
    assert not found.libraries


def test_the_pool_for_windows_needs_the_kernel_alone() -> None:
    path = pool(target("x86_64_windows").machine)
    assert exports(path) == POOL
    assert {name.split("!")[0] for name in imports(path)} == {"KERNEL32.dll"}


def test_the_pool_for_macos_needs_the_system_alone() -> None:
    path = pool(target("aarch64_macos").machine)
    assert exports(path) == POOL | APPLE
    assert {n for n in imports(path) - APPLE_NEEDS if not n.startswith("pthread_")} == {
        "calloc",
        "clock_gettime",
        "free",
        "sched_yield",
    }


# zig brings no stubs of iOS's own libraries, which linking against another one takes
@pytest.mark.parametrize("name", ["x86_64_windows", "aarch64_macos", "x86_64_macos"])
def test_another_library_links_against_it(name: str) -> None:
    machine, tools = target(name).machine, find_toolchain()
    unit = Unit("caller.c", CALLER, (NATIVE,))
    objects = tools.compile_objects([unit], machine, ("-std=c99",))
    linked = tools.link_shared((*objects, library(name)), machine)
    assert {"model_info", "model_run"} <= {n.split("!")[-1] for n in imports(linked)}
    found = parsed(linked)
    if isinstance(found, lief.MachO.Binary):
        assert "@rpath/libsparrow_model.dylib" in [str(x.name) for x in found.libraries][1:]


def test_hosts_of_other_systems_find_their_own_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform, arch, triple in (
        ("win32", "AMD64", "x86_64-windows-gnu"),
        ("darwin", "arm64", "aarch64-macos-none"),
        ("linux", "armv7l", "arm-linux-musleabihf"),
    ):
        monkeypatch.setattr("sys.platform", platform)
        monkeypatch.setattr("platform.machine", lambda arch=arch: arch)
        assert host_machine("scalar").triple == triple
