"""Runs one case and judges it: what came out, at what cost, and what was touched on the way."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from sparrow.errors import SparrowError

SECONDS = 1.0
MEMORY_BYTES = 64 << 20
# Address space beyond this is refused, so that a bomb ends in a MemoryError and not in the machine.
SPACE_BYTES = 2 << 30
# A case that takes so much processor time is stopped.
STOP_SECONDS = 8.0
LONGEST_MESSAGE = 2000

# what `targets.prepare` and a campaign put there
LAID_OUT = frozenset(
    ("bundle", "fifo", "link.bin", "linkdir", "sub", "weights.bin", "m.onnx", "m.tflite", "a.npz",
     "a.img", "recipe.json",
     "row.toml", "tuning.json")
)  # fmt: skip
_CHANGES = frozenset(
    ("os.chmod", "os.chown", "os.link", "os.mkdir", "os.mknod", "os.remove", "os.rename",
     "os.rmdir", "os.symlink", "os.truncate", "os.setxattr", "shutil.copyfile", "shutil.move",
     "shutil.rmtree", "tempfile.mkdtemp", "tempfile.mkstemp")
)  # fmt: skip
_ESCAPES = frozenset(
    ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.kill",
     "os.startfile", "pty.spawn", "socket.connect", "socket.bind", "socket.getaddrinfo",
     "socket.sendto", "urllib.Request", "ctypes.dlopen", "pickle.find_class")
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# the code that runs, and what it asks the processor
_READABLE = (
    "/proc/cpuinfo",
    *{os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, *sys.path) if p},
)


class Stopped(BaseException):
    """The case used up its time; nothing may catch this."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case ended.

    Attributes:
        kind: ``accepted``, ``refused``, or how the contract was broken: ``traceback``, ``message``,
            ``slow``, ``memory``, ``write``, ``escape``, ``noise``.
        detail: The message, or the exception and where it came from.
        seconds: Processor time.
    """

    kind: str
    detail: str
    seconds: float

    @property
    def broken(self) -> bool:
        """Whether the contract was broken."""
        return self.kind not in ("accepted", "refused")


def peak_bytes() -> int:
    """The most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def left_behind(folder: Path) -> list[str]:
    """What a command that was refused wrote into its folder: nothing is what it may."""
    return [p.name for p in folder.iterdir() if p.name not in LAID_OUT]


def _where(e: BaseException) -> str:
    """The innermost frame in Sparrow, which tells one defect from another."""
    frames = traceback.extract_tb(e.__traceback__)
    ours = [f for f in frames if f"{os.sep}sparrow{os.sep}" in f.filename] or frames
    last = ours[-1]
    return f"{Path(last.filename).name}:{last.lineno} {last.name}"


@dataclass(slots=True)
class Guard:
    """Judges cases in this process; there is one, since an audit hook stays for good.

    Attributes:
        folder: The case's own files; whatever else is read or written is an escape.
        baseline: Peak memory before the first case.
    """

    folder: Path
    baseline: int = field(default_factory=peak_bytes)
    _active: bool = False
    _may_write: bool = False
    _writes: list[str] = field(default_factory=list)
    _escapes: list[str] = field(default_factory=list)
    _noise: int = 0

    def install(self) -> None:
        """Hook into this process: files, processes, sockets, libraries, time, memory, stderr."""
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGPROF, _stop)
        warnings.simplefilter("always")
        handle = os.open(self.folder.parent / "stderr", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 2)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + SPACE_BYTES, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def run(
        self,
        body: Callable[[bytes, Path], None],
        data: bytes,
        *,
        may_write: bool = False,
        heavy: bool = False,
    ) -> Outcome:
        """Run one case.

        Args:
            body: Raises SparrowError when it refuses.
            data: The case.
            may_write: Whether writes are what the user asked for; they stay in the folder.
            heavy: Whether an accepted case may take time and memory.
        """
        self._writes.clear()
        self._escapes.clear()
        self._may_write = may_write
        kind, detail = "accepted", ""
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, STOP_SECONDS)
        self._active = True
        try:
            body(data, self.folder)
        except SparrowError as e:
            kind, detail = "refused", str(e)
            if e.exit_code != 2:
                kind, detail = "message", f"exit code {e.exit_code}: {detail}"
            elif not detail or len(detail) > LONGEST_MESSAGE or not detail.isprintable():
                kind, detail = "message", f"{len(detail)} characters: {detail!r}"
        except Stopped as e:
            kind, detail = "slow", f"stopped at {_where(e)}"
        except BaseException as e:
            kind, detail = "traceback", f"{type(e).__name__} at {_where(e)}: {e}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._active = False
        seconds = time.process_time() - start
        free = heavy and kind == "accepted"
        return Outcome(*self._judged(kind, detail, 0.0 if free else seconds, free), seconds)

    def _judged(self, kind: str, detail: str, seconds: float, free: bool) -> tuple[str, str]:
        if kind not in ("accepted", "refused"):
            return kind, detail
        noise = os.lseek(2, 0, os.SEEK_CUR)
        if self._escapes:
            return "escape", self._escapes[0]
        if self._writes and (
            not self._may_write or (kind == "refused" and left_behind(self.folder))
        ):
            return "write", self._writes[0]
        if noise != self._noise:
            text = os.pread(2, 300, self._noise).decode("utf-8", "replace")
            self._noise = noise
            return "noise", text
        if seconds > SECONDS:
            return "slow", f"{seconds:.2f} s: {detail}"
        if free:
            # the peak of what was allowed is no measure of the next case
            gc.collect()
            Path("/proc/self/clear_refs").write_text("5")
        elif peak_bytes() - self.baseline > MEMORY_BYTES:
            return "memory", f"{(peak_bytes() - self.baseline) >> 20} MiB: {detail}"
        return kind, detail

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event == "open":
            path, _, flags = arguments
            # a handle, or a file without a name in this folder, gone when it is closed
            if isinstance(path, int) or path is None or os.path.isdir(path):
                return
            self._touched("open", os.fsdecode(path), bool((flags or 0) & _WRITING))
        elif event in _CHANGES:
            first = arguments[0] if arguments else ""
            self._touched(
                event, os.fsdecode(first) if isinstance(first, (str, bytes)) else "", True
            )
        elif event in _ESCAPES:
            self._escapes.append(f"{event} {arguments!r}"[:300])
            raise PermissionError(13, "not in a fuzz case")

    def _touched(self, event: str, path: str, writes: bool) -> None:
        real = os.path.realpath(path)
        inside = real.startswith(f"{self.folder}{os.sep}") or real == str(self.folder)
        if writes:
            (self._writes if inside or self._may_write else self._escapes).append(
                f"{event} {path[:200]}"
            )
            if not inside:
                raise PermissionError(13, "not in a fuzz case", path)
        elif not inside and not real.startswith(_READABLE):
            if not self._may_write:
                self._escapes.append(f"read {path[:200]}")
            raise PermissionError(13, "not in a fuzz case", path)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped
