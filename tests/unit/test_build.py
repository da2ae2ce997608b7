"""The compiler driver and its cache."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparrow.device.build import Toolchain, Unit, find_toolchain
from sparrow.device.cache import FileCache
from sparrow.device.flags import gcc_cpu_flags
from sparrow.device.here import host_machine, host_toolchain
from sparrow.errors import BadInput, CompileError
from sparrow.targets import Machine

ANSWER = Unit(
    "answer.c",
    '__attribute__((visibility("default"))) int answer(void); int answer(void) { return 42; }\n',
)


@pytest.fixture
def cache(tmp_path: Path) -> FileCache:
    return FileCache(tmp_path / "cache")


@pytest.fixture
def toolchain(cache: FileCache) -> Toolchain:
    return find_toolchain(cache)


@pytest.fixture
def target() -> Machine:
    return host_machine("scalar")


def entries(cache: FileCache) -> list[Path]:
    return sorted(cache.folder.glob("entries/*/*"))


def forbid_compiling(toolchain: Toolchain) -> Toolchain:
    return Toolchain(
        ("/nonexistent-compiler",), toolchain.identity, toolchain.is_zig, toolchain.cache
    )


def answer_of(library: Path) -> int:
    result: int = ctypes.CDLL(str(library)).answer()
    return result


def test_builds_a_library_that_loads(toolchain: Toolchain, target: Machine, tmp_path: Path) -> None:
    objects = toolchain.compile_objects([ANSWER], target)
    out = tmp_path / f"answer{target.library_suffix}"
    assert toolchain.link_shared(objects, target, out) == out
    assert answer_of(out) == 42


def test_second_build_compiles_nothing(toolchain: Toolchain, target: Machine) -> None:
    objects = toolchain.compile_objects([ANSWER], target)
    library = toolchain.link_shared(objects, target)
    warm = forbid_compiling(toolchain)
    assert warm.compile_objects([ANSWER], target) == objects
    assert warm.link_shared(objects, target) == library


@pytest.mark.parametrize("what", ["text", "flags", "target", "compiler", "include"])
def test_key_covers_everything_that_changes_the_object(
    toolchain: Toolchain, tmp_path: Path, what: str
) -> None:
    (tmp_path / "outer.h").write_text('#include "inner.h"\n')
    (tmp_path / "inner.h").write_text("#define VALUE 1\n")
    source = Unit(
        "s.c", '#include "outer.h"\nint f(void);\nint f(void) { return VALUE; }\n', (tmp_path,)
    )
    target, flags = Machine("x86_64-linux-musl", "x86_64", "scalar"), ["-DA=1"]
    before = toolchain.compile_objects([source], target, flags)
    if what == "text":
        source = Unit(source.name, source.text + "int g(void);\n", source.include_dirs)
    elif what == "flags":
        flags = ["-DA=2"]
    elif what == "target":
        target = Machine("aarch64-linux-musl", "generic", "scalar")
    elif what == "compiler":
        toolchain = Toolchain(toolchain.command, "another version", True, toolchain.cache)
    else:
        (tmp_path / "inner.h").write_text("#define VALUE 2\n")
    assert toolchain.compile_objects([source], target, flags) != before


def test_corrupted_entry_is_rebuilt(
    toolchain: Toolchain, target: Machine, cache: FileCache
) -> None:
    toolchain.link_shared(toolchain.compile_objects([ANSWER], target), target)
    for path in entries(cache):
        path.write_bytes(path.read_bytes()[:100])
    assert (
        answer_of(toolchain.link_shared(toolchain.compile_objects([ANSWER], target), target)) == 42
    )
    for path in entries(cache):
        assert path.stat().st_size > 100


def test_objects_come_back_in_order(toolchain: Toolchain, target: Machine) -> None:
    def source(i: int) -> Unit:
        return Unit(f"f{i}.c", f"int f{i}(void);\nint f{i}(void) {{ return {i}; }}\n")

    middle = toolchain.compile_objects([source(1)], target)[0]
    objects = toolchain.compile_objects([source(i) for i in range(4)], target, jobs=2)
    assert objects[1] == middle
    for i, path in enumerate(objects):
        assert f"f{i}".encode() in path.read_bytes()


def test_incbin_is_part_of_the_key(toolchain: Toolchain, target: Machine, tmp_path: Path) -> None:
    blob = tmp_path / "blob.bin"
    source = Unit("blob.S", '.globl blob\nblob:\n.incbin "blob.bin"\n', (tmp_path,))
    objects = []
    for content in (b"sparrow one", b"sparrow two"):
        blob.write_bytes(content)
        objects.append(toolchain.compile_objects([source], target)[0])
        assert content in objects[-1].read_bytes()


def test_two_processes_build_at_once(cache: FileCache, target: Machine) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from sparrow.device.build import *; from sparrow.device.cache import FileCache\n"
        "from sparrow.device.here import host_machine\n"
        "tc = find_toolchain(FileCache(Path(sys.argv[1]))); t = host_machine('scalar')\n"
        "s = [Unit(f'{i}.c', f'int f{i}(void);\\nint f{i}(void) {{ return {i}; }}\\n')"
        " for i in range(6)]\n"
        "print(tc.link_shared(tc.compile_objects(s, t, jobs=1), t))\n"
    )
    command = [sys.executable, "-c", program, str(cache.folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    libraries = [p.communicate()[0].strip() for p in running]
    assert [p.returncode for p in running] == [0, 0]
    for library in libraries:
        ctypes.CDLL(library)
    assert not list(cache.folder.glob("tmp/*"))


def test_compile_error_is_one_line_with_the_first_error_and_a_log(
    toolchain: Toolchain, target: Machine
) -> None:
    broken = Unit("broken.c", "int f(void) { return nonsense; }\nint g(void) { return more; }\n")
    with pytest.raises(CompileError) as caught:
        toolchain.compile_objects([ANSWER, broken], target)
    message = str(caught.value)
    assert "\n" not in message
    assert "broken.c:1:22: error: use of undeclared identifier 'nonsense'" in message
    log = Path(message.rsplit("full log: ", 1)[1])
    assert "'more'" in log.read_text()


def test_link_error_is_one_line(toolchain: Toolchain, target: Machine) -> None:
    objects = toolchain.compile_objects([ANSWER], target)
    with pytest.raises(CompileError, match=r"link for .*answer"):
        toolchain.link_shared([*objects, *objects], target)


def test_unwritable_places_are_refused(
    toolchain: Toolchain, target: Machine, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(BadInput, match="SPARROW_CACHE"):
        find_toolchain(FileCache(file / "cache")).compile_objects([ANSWER], target)
    objects = toolchain.compile_objects([ANSWER], target)
    with pytest.raises(BadInput, match="cannot be written"):
        toolchain.link_shared(objects, target, file / "answer.so")


def test_sparrow_cc_names_the_compiler(
    cache: FileCache, target: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARROW_CC", "no-such-compiler -m64")
    with pytest.raises(CompileError, match="no-such-compiler"):
        find_toolchain(cache)
    monkeypatch.delenv("SPARROW_CC")
    zig = " ".join(find_toolchain(cache).command)
    monkeypatch.setenv("SPARROW_CC", zig)
    toolchain = find_toolchain(cache)
    assert toolchain.is_zig
    assert (
        answer_of(toolchain.link_shared(toolchain.compile_objects([ANSWER], target), target)) == 42
    )


@pytest.mark.skipif(not os.access("/usr/bin/gcc", os.X_OK), reason="no gcc here")
def test_gcc_builds_too(cache: FileCache, target: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARROW_CC", "gcc")
    toolchain = find_toolchain(cache)
    assert not toolchain.is_zig
    assert (
        answer_of(toolchain.link_shared(toolchain.compile_objects([ANSWER], target), target)) == 42
    )


def test_what_this_machine_runs_is_built_for_it(
    cache: FileCache, target: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = "aarch64" if target.arch != "aarch64" else "riscv64"
    for arch in (other, target.arch):
        driver = tmp_path / f"{arch}-gcc"
        driver.write_text(f"#!/bin/sh\necho {arch}-linux-gnu\n")
        driver.chmod(0o755)
        monkeypatch.setenv("SPARROW_CC", str(driver))
        assert find_toolchain(cache).command == (str(driver),)
        assert host_toolchain(cache).is_zig == (arch == other)
    monkeypatch.delenv("SPARROW_CC")
    assert host_toolchain(cache) == find_toolchain(cache)


# Debian's cross compilers, of which a machine may have any
@pytest.mark.parametrize(
    ("compiler", "triple", "cpu", "says"),
    [
        ("riscv64-linux-gnu-gcc", "riscv64-linux-musl", "generic_rv64+m+a+f+d+c", "rv64imafdc"),
        (
            *("riscv64-linux-gnu-gcc", "riscv64-linux-musl"),
            *("generic_rv64+m+a+f+d+c+v+zvl256b", "rv64imafdcv_zvl256b"),
        ),
        ("aarch64-linux-gnu-gcc", "aarch64-linux-musl", "generic", "armv8-a"),
        ("aarch64-linux-gnu-gcc", "aarch64-linux-musl", "generic+dotprod", "armv8.2-a+dotprod"),
        ("arm-linux-gnueabihf-gcc", "arm-linux-musleabihf", "generic+v7a+neon", "armv7-a"),
    ],
)
def test_gcc_is_told_its_names(
    cache: FileCache,
    monkeypatch: pytest.MonkeyPatch,
    compiler: str,
    triple: str,
    cpu: str,
    says: str,
) -> None:
    found = shutil.which(compiler)
    monkeypatch.setenv("SPARROW_CC", compiler if found else sys.executable)
    toolchain = find_toolchain(cache)
    target = Machine(triple, cpu, "scalar")
    assert f"-march={says}" in toolchain._target_flags(target)
    if found:
        library = toolchain.link_shared(toolchain.compile_objects([ANSWER], target), target)
        assert library.read_bytes().startswith(b"\x7fELF")


@pytest.mark.parametrize(
    ("triple", "cpu", "says"),
    [
        ("thumb-freestanding-eabi", "cortex_m0", "-mcpu=cortex-m0 -mthumb -mfloat-abi=soft"),
        (
            *("thumb-freestanding-eabihf", "cortex_m33+dsp+fp_armv8d16sp"),
            "-mcpu=cortex-m33 -mthumb -mfloat-abi=hard -mfpu=fpv5-sp-d16",
        ),
        ("riscv32-freestanding-none", "generic_rv32+m+c", "-march=rv32imc -mabi=ilp32"),
        ("aarch64-linux-musl", "cortex_a53", "-mcpu=cortex-a53 -mno-outline-atomics"),
        ("arm-linux-musleabihf", "cortex_a7", "-mcpu=cortex-a7"),
        ("x86-linux-musl", "pentium4", "-march=pentium4 -msse2 -mfpmath=sse"),
    ],
)
def test_gcc_is_told_of_cores(triple: str, cpu: str, says: str) -> None:
    assert gcc_cpu_flags(Machine(triple, cpu, "scalar")) == tuple(says.split())


@pytest.mark.parametrize(
    ("triple", "cpu"),
    [
        ("aarch64-linux-musl", "generic+dotprod"),
        ("aarch64-linux-android", "generic"),
        ("x86_64-windows-gnu", "x86_64_v3"),
        ("aarch64-macos-none", "apple_m1"),
    ],
)
def test_links_for_other_systems(toolchain: Toolchain, triple: str, cpu: str) -> None:
    target = Machine(triple, cpu, "scalar")
    library = toolchain.link_shared(toolchain.compile_objects([ANSWER], target), target)
    assert library.suffix == target.library_suffix
    assert library.stat().st_size > 500


def test_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(BadInput, match="use one of"):
        host_machine("mmx")


class TestFileCache:
    @staticmethod
    def put(cache: FileCache, key: str, content: bytes, age: float = 0.0) -> Path:
        with cache.scratch() as work:
            (work / "f").write_bytes(content)
            path = cache.put(key, ".o", work / "f")
        stamp = time.time() - age
        os.utime(path, (stamp, stamp))
        return path

    def test_evicts_the_least_recently_used(self, tmp_path: Path) -> None:
        cache = FileCache(tmp_path, limit_bytes=2500)
        old, used, new = (
            self.put(cache, c * 64, bytes(1000), age)
            for c, age in (("a", 7200.0), ("b", 8000.0), ("c", 3600.0))
        )
        assert cache.get("b" * 64, ".o") == used
        assert cache.evict() == 1000
        assert (old.exists(), used.exists(), new.exists()) == (False, True, True)

    def test_tidies_once_a_minute(self, tmp_path: Path) -> None:
        cache = FileCache(tmp_path, limit_bytes=1000)
        cache.tidy()
        old = self.put(cache, "a" * 64, bytes(2000), 7200.0)
        cache.tidy()
        assert old.exists()
        long_ago = time.time() - 61
        os.utime(tmp_path / "tidied", (long_ago, long_ago))
        cache.tidy()
        assert not old.exists()

    def test_spares_what_a_build_may_be_using(self, tmp_path: Path) -> None:
        cache = FileCache(tmp_path, limit_bytes=1000)
        paths = [self.put(cache, c * 64, bytes(1000)) for c in "abc"]
        assert cache.evict() == 0
        assert all(path.exists() for path in paths)

    def test_removes_scratch_of_killed_builds(self, tmp_path: Path) -> None:
        cache = FileCache(tmp_path)
        stale = tmp_path / "tmp" / "stale"
        stale.mkdir(parents=True)
        os.utime(stale, (0, 0))
        with cache.scratch() as current:
            cache.evict()
            assert current.exists()
        assert not stale.exists()

    def test_suffix_is_part_of_the_key(self, tmp_path: Path) -> None:
        cache = FileCache(tmp_path)
        self.put(cache, "a" * 64, b"object")
        assert cache.get("a" * 64, ".so") is None
