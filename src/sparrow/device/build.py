"""C sources to objects and shared libraries: ziglang or SPARROW_CC, parallel, cached by content."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from sparrow.device.cache import FileCache, cache_folder, copy_to, file_sha256
from sparrow.device.flags import (
    ANDROID32,
    OLDEST,
    STACK_FLAGS,
    compile_flags,
    gcc_cpu_flags,
    link_flags,
)
from sparrow.errors import CompileError
from sparrow.targets import Machine

NATIVE = Path(__file__).resolve().parent.parent / "native"
# What a file pulls in beside system headers; both must be hashed.
_INCLUDE = re.compile(r'^[ \t]*(?:#[ \t]*include|\.incbin)[ \t]*"([^"\n]+)"', re.MULTILINE)

# A DLL without a C runtime still needs an entry point; zig 0.16 and 0.17 differ in its name.
_DLL_MAIN = """\
int _fltused = 0;
int __stdcall DllMainCRTStartup(void *dll, unsigned long reason, void *reserved);
int __stdcall DllMainCRTStartup(void *dll, unsigned long reason, void *reserved) {
  (void)dll, (void)reason, (void)reserved;
  return 1;
}
int __stdcall _DllMainCRTStartup(void *dll, unsigned long reason, void *reserved);
int __stdcall _DllMainCRTStartup(void *dll, unsigned long reason, void *reserved) {
  return DllMainCRTStartup(dll, reason, reserved);
}
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """One translation unit: C, or assembly when the name ends in ``.S``.

    Attributes:
        name: File name for messages; no folder.
        text: The whole file.
        include_dirs: Searched for ``#include "..."`` and ``.incbin "..."``, in this order.
    """

    name: str
    text: str
    include_dirs: tuple[Path, ...] = ()

    @classmethod
    def from_file(cls, path: Path) -> Unit:
        """Read a file; its own folder is its include folder."""
        return cls(path.name, path.read_text(encoding="utf-8"), (path.parent,))


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A compiler and the cache for what it makes.

    Attributes:
        command: Compiler driver and leading arguments.
        identity: Everything about it that can change its output.
        is_zig: Whether it is zig, which names targets itself; otherwise a gcc or clang driver that
            already aims at the target.
        cache: Where objects, libraries and logs go.
    """

    command: tuple[str, ...]
    identity: str
    is_zig: bool
    cache: FileCache = field(default_factory=lambda: FileCache(cache_folder()))

    def compile_objects(
        self,
        sources: Sequence[Unit],
        target: Machine,
        flags: Sequence[str] = (),
        *,
        jobs: int | None = None,
    ) -> tuple[Path, ...]:
        """Compile every source, in parallel, and return the cached objects in the same order.

        Args:
            sources: Translation units; what they include is part of the cache key.
            target: Device to compile for.
            flags: After the standing `FLAGS`, such as ``-DSPARROW_HOOKS``.
            jobs: Compilers at once; default one per usable core.

        Raises:
            CompileError: A source does not compile; names the first error and the log.
            BadInput: The cache folder cannot be written.
        """
        noted = STACK_FLAGS if self.is_zig and target.arch != "wasm32" else ()
        everything = (*self._target_flags(target), *compile_flags(target), *noted, *flags)
        keys = [self._source_key(s, everything) for s in sources]
        found = [self.cache.get(key, ".o") for key in keys]
        missing = [i for i, path in enumerate(found) if path is None]
        if missing:
            workers = min(len(missing), jobs or usable_cores())
            with ThreadPoolExecutor(workers) as pool:
                jobs_done = pool.map(
                    lambda i: self._compile(sources[i], keys[i], target, everything), missing
                )
                for i, path in zip(missing, jobs_done, strict=True):
                    found[i] = path
            self.cache.tidy()
        return tuple(path for path in found if path is not None)

    def link_shared(
        self,
        objects: Sequence[Path],
        target: Machine,
        out: Path | None = None,
        flags: Sequence[str] = (),
    ) -> Path:
        """Link objects to a shared library that needs no other library.

        Args:
            objects: From `compile_objects`, for the same target.
            target: Device to link for.
            out: Where to put a copy, atomically; None returns the cached file itself.
            flags: Appended, such as ``-lkernel32``.

        Raises:
            CompileError: The linker failed.
            BadInput: ``out`` or the cache folder cannot be written.
        """
        if target.os == "windows":
            objects = (*objects, *self.compile_objects([Unit("dllmain.c", _DLL_MAIN)], target))
        library = self._link(objects, target, (*link_flags(target), *flags), target.library_suffix)
        return library if out is None else copy_to(library, out)

    def archive(self, objects: Sequence[Path], target: Machine, out: Path | None = None) -> Path:
        """Put objects into a static library.

        Args:
            objects: From `compile_objects`.
            target: What they were compiled for.
            out: Where to put a copy, atomically; None returns the cached file itself.

        Raises:
            CompileError: The archiver failed.
            BadInput: ``out`` or the cache folder cannot be written.
        """
        key = self._link_key(objects, ("ar", target.triple))
        library = self.cache.get(key, ".a")
        if library is None:
            with self.cache.scratch() as work:
                names = _copies(objects, work)
                self._run(["rcsD", "linked.a", *names], work, key, "archive", self._archiver())
                library = self.cache.put(key, ".a", work / "linked.a")
            self.cache.tidy()
        return library if out is None else copy_to(library, out)

    def link_program(
        self,
        objects: Sequence[Path],
        target: Machine,
        script: str = "",
        flags: Sequence[str] = (),
    ) -> Path:
        """Link objects to a program that needs no library and brings its own entry point.

        Args:
            objects: From `compile_objects`, and archives of such.
            target: Device to link for.
            script: Linker script; the linker's own when empty. With one, or for a device without
                a system, symbols are kept.
            flags: Appended.

        Raises:
            CompileError: The linker failed.
            BadInput: The cache folder cannot be written.
        """
        kept = "-Wl,--gc-sections" if script or target.bare else "-s"
        everything = ("-static", "-nostdlib", kept, *flags)
        program = self._link(objects, target, everything, ".exe", script)
        if not os.access(program, os.X_OK):
            program.chmod(0o755)
        return program

    def _link(
        self,
        objects: Sequence[Path],
        target: Machine,
        flags: Sequence[str],
        suffix: str,
        script: str = "",
    ) -> Path:
        if target.address_bits == 32 and target.arch != "wasm32":
            # 32-bit CPUs divide 64-bit integers, and some compute floats, by calls of the compiler
            calls = "-rtlib=compiler-rt" if self.is_zig else "-lgcc"
            flags = (*flags, calls, "-Wl,--gc-sections")
        everything = (*self._target_flags(target), *flags)
        key = self._link_key(objects, (*everything, script))
        linked = self.cache.get(key, suffix)
        if linked is None:
            with self.cache.scratch() as work:
                names = _copies(objects, work)
                if script:
                    (work / "link.ld").write_text(script, encoding="utf-8")
                    everything = (*everything, "-Wl,-T,link.ld")
                built = f"linked{suffix}"
                # libraries among the flags come after what needs them
                arguments = [*everything, *names, "-o", built, *flags]
                self._run(arguments, work, key, f"link for {target.triple}")
                linked = self.cache.put(key, suffix, work / built)
            self.cache.tidy()
        return linked

    def _link_key(self, objects: Sequence[Path], arguments: Sequence[str]) -> str:
        digest = hashlib.sha256(repr((self.identity, "link", tuple(arguments))).encode())
        for path in objects:
            digest.update(bytes.fromhex(file_sha256(path)))
        return digest.hexdigest()

    def _archiver(self) -> tuple[str, ...]:
        if self.is_zig:
            return (self.command[0], "ar")
        asked = subprocess.run(
            [*self.command, "-print-prog-name=ar"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return (asked.stdout.decode("utf-8", "replace").strip() or "ar",)

    def _compile(self, source: Unit, key: str, target: Machine, flags: Sequence[str]) -> Path:
        with self.cache.scratch() as work:
            (work / source.name).write_text(source.text, encoding="utf-8", newline="\n")
            includes = [f"-I{folder.absolute()}" for folder in source.include_dirs]
            arguments = [*flags, *includes, "-c", source.name, "-o", "out.o"]
            self._run(arguments, work, key, f"{source.name} for {target.triple}")
            return self.cache.put(key, ".o", work / "out.o")

    def _run(
        self,
        arguments: Sequence[str],
        work: Path,
        key: str,
        what: str,
        program: Sequence[str] | None = None,
    ) -> None:
        # The local zig cache would keep a second, unbounded copy of every object.
        zig_folders = {
            "ZIG_GLOBAL_CACHE_DIR": str(self.cache.folder / "zig"),
            "ZIG_LOCAL_CACHE_DIR": str(work / "zig"),
        }
        command = [*(program or self.command), *arguments]
        try:
            done = subprocess.run(
                command,
                cwd=work,
                env={**os.environ, **zig_folders, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except OSError as e:
            raise CompileError(
                f"compiler {command[0]} does not start: {e.strerror}", hint=_NO_COMPILER
            ) from e
        if done.returncode == 0:
            return
        text = done.stdout.decode("utf-8", "replace")
        log = work / "log"
        log.write_text(f"{shlex.join(command)}\n{text}", encoding="utf-8")
        raise CompileError(
            f"{what}: {_first_error(text, done.returncode)}",
            hint=f"full log: {self.cache.put(key, '.log', log)}",
        )

    def _target_flags(self, target: Machine) -> tuple[str, ...]:
        if self.is_zig:
            oldest = OLDEST.get(target.os, "")
            triple = target.triple.replace(f"-{target.os}", f"-{target.os}{oldest}", 1)
            soft = ANDROID32 if triple == "arm-linux-androideabi" else ()
            return ("-target", triple, f"-mcpu={target.cpu}", *soft)
        return gcc_cpu_flags(target)

    def _source_key(self, source: Unit, flags: Sequence[str]) -> str:
        digest = hashlib.sha256(repr((self.identity, source.name, tuple(flags))).encode())
        digest.update(source.text.encode())
        for name, content in _dependencies(source):
            digest.update(f"\0{name}\0".encode() + content)
        return digest.hexdigest()


_NO_COMPILER = "install the compiler with `pip install ziglang`, or set SPARROW_CC"


def find_toolchain(cache: FileCache | None = None) -> Toolchain:
    """Return the compiler that SPARROW_CC names, else zig from the ziglang wheel.

    Raises:
        CompileError: There is neither.
    """
    cache = cache or FileCache(cache_folder())
    override = os.environ.get("SPARROW_CC")
    if override:
        # on Windows a backslash belongs to a path
        words = shlex.split(override, posix=sys.platform != "win32")
        command = tuple(word.strip('"') for word in words)
        is_zig = Path(command[0]).stem == "zig"
        return Toolchain(command, _identify(command), is_zig, cache)
    return installed_zig(cache)


def installed_zig(cache: FileCache) -> Toolchain:
    """The compiler of the ziglang wheel.

    Raises:
        CompileError: It is not installed.
    """
    spec = importlib.util.find_spec("ziglang")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        # Started directly: `python -m ziglang` would start a second Python first.
        zig = Path(folder) / ("zig.exe" if sys.platform == "win32" else "zig")
        if zig.is_file():
            from importlib.metadata import version  # 30 ms, only where it is needed

            return Toolchain((str(zig), "cc"), f"ziglang {version('ziglang')}", True, cache)
    raise CompileError("no C compiler: the ziglang package is not installed", hint=_NO_COMPILER)


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _identify(command: tuple[str, ...]) -> str:
    binary = shutil.which(command[0])
    if binary is None:
        raise CompileError(f"SPARROW_CC: no program {command[0]!r}", hint=_NO_COMPILER)
    version = subprocess.run(
        [*command, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    stat = os.stat(binary)
    return repr((command, version.stdout, os.path.realpath(binary), stat.st_size, stat.st_mtime_ns))


def _dependencies(source: Unit) -> list[tuple[str, bytes]]:
    """Return name and content of every file included by quotes, in the order of discovery."""
    found: list[tuple[str, bytes]] = []
    seen: set[Path] = set()
    waiting = [(name, source.include_dirs) for name in _INCLUDE.findall(source.text)]
    while waiting:
        name, folders = waiting.pop()
        path = next((f / name for f in folders if (f / name).is_file()), None)
        if path is None or path.resolve() in seen:
            continue
        seen.add(path.resolve())
        content = path.read_bytes()
        found.append((name, content))
        inner = _INCLUDE.findall(content.decode("utf-8", "replace"))
        waiting += [(n, (path.parent, *source.include_dirs)) for n in inner]
    return found


def _copies(objects: Sequence[Path], work: Path) -> list[str]:
    """Copies of objects in a folder, under names that do not depend on where they were."""
    names = [f"{i}.o" for i in range(len(objects))]
    for path, name in zip(objects, names, strict=True):
        shutil.copyfile(path, work / name)
    return names


def _first_error(text: str, returncode: int) -> str:
    if returncode < 0:
        return f"the compiler was killed by signal {-returncode} (is memory short?)"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if "error:" in line or "error(" in line:
            return line
    return lines[-1] if lines else f"the compiler exited with {returncode} and no message"
