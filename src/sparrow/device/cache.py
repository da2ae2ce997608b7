"""A folder of files found by content hash: safe for concurrent builds, verified, bounded."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_dir

from sparrow.errors import BadInput

DEFAULT_LIMIT_BYTES = 2 << 30
# An entry used this recently is never evicted: a build may be about to read it.
GRACE_SECONDS = 600.0
# Eviction looks at every entry: tens of thousands after a while. What a minute adds is little.
TIDY_SECONDS = 60.0
# Scratch folders of builds that were killed go after a day.
SCRATCH_SECONDS = 86400.0


def cache_folder() -> Path:
    """Return SPARROW_CACHE where it is set, else the platform's cache folder for Sparrow."""
    return Path(os.environ.get("SPARROW_CACHE") or user_cache_dir("sparrow")).absolute()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class FileCache:
    """Files by key, each named ``<key>-<sha256 of content><suffix>``.

    The name carries the hash, so that one ``os.replace`` publishes an entry whole and every
    read can verify it. Processes need no lock: the worst case is that two do the same work.

    Attributes:
        folder: Root; made when first written to.
        limit_bytes: Least recently used entries are deleted beyond this size.
    """

    folder: Path
    limit_bytes: int = DEFAULT_LIMIT_BYTES

    def get(self, key: str, suffix: str) -> Path | None:
        """Return the verified file stored under ``key``, or None; a corrupted one is deleted."""
        try:
            names = os.listdir(self._shard(key))
        except OSError:
            return None
        for name in names:
            if not (name.startswith(f"{key}-") and name.endswith(suffix)):
                continue
            path = self._shard(key) / name
            # Another process may evict the entry, and a read-only cache cannot be touched.
            with contextlib.suppress(OSError):
                if file_sha256(path) == name[len(key) + 1 : len(name) - len(suffix)]:
                    with contextlib.suppress(PermissionError):
                        os.utime(path)
                    return path
                path.unlink()
        return None

    def put(self, key: str, suffix: str, file: Path) -> Path:
        """Move ``file``, which lies in a `scratch` folder, into the cache and return its place."""
        entry = self._shard(key) / f"{key}-{file_sha256(file)}{suffix}"
        with self._writing():
            entry.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.replace(file, entry)
            except PermissionError:  # Windows keeps a loaded library; the content is the same
                if not entry.is_file():
                    raise
        return entry

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield an empty folder on the cache's file system; deleted afterwards.

        Raises:
            BadInput: The cache folder cannot be written to.
        """
        with self._writing():
            parent = self.folder / "tmp"
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def tidy(self) -> None:
        """`evict`, unless some process did within the last `TIDY_SECONDS`."""
        marker = self.folder / "tidied"
        with contextlib.suppress(FileNotFoundError):
            if 0 <= time.time() - marker.stat().st_mtime < TIDY_SECONDS:
                return
        self.evict()
        with self._writing():
            marker.touch()

    def evict(self) -> int:
        """Delete the least recently used entries until nine tenths of the limit hold; return bytes.

        Entries used within the last `GRACE_SECONDS` stay even when that exceeds the limit.
        """
        now = time.time()
        entries: list[tuple[float, int, Path]] = []
        for path in self.folder.glob("entries/*/*"):
            with contextlib.suppress(OSError):
                stat = path.stat()
                entries.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        freed = 0
        if total > self.limit_bytes:
            for mtime, size, path in sorted(entries):
                if total - freed <= self.limit_bytes * 9 // 10 or now - mtime < GRACE_SECONDS:
                    break
                with contextlib.suppress(OSError):
                    path.unlink()
                    freed += size
        for path in self.folder.glob("tmp/*"):
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > SCRATCH_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)
        return freed

    def _shard(self, key: str) -> Path:
        return self.folder / "entries" / key[:2]

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise BadInput(
                f"cache folder {self.folder} cannot be written: {e.strerror}",
                hint="set SPARROW_CACHE to a writable folder",
            ) from e


def copy_to(file: Path, out: Path) -> Path:
    """Copy a file, atomically, as one that may be executed, and return where to.

    Raises:
        BadInput: ``out`` cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    except OSError as e:
        raise BadInput(f"{out} cannot be written: {e.strerror}") from e
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as to, file.open("rb") as source:
            shutil.copyfileobj(source, to)
        temporary.chmod(0o755)
        os.replace(temporary, out)
    except OSError as e:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise BadInput(f"{out} cannot be written: {e.strerror}") from e
    return out
