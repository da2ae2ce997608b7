"""Put a finished folder in place in one step: whole, or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from sparrow.errors import BadInput
from sparrow.folder import UNHASHED

MARK = "receipt.json"
# What file managers leave in any folder they show.
_LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")
_PREFIX = ".sparrow-"
_OWNER = re.compile(re.escape(_PREFIX) + r"(\d+)-")
# Where nobody can be asked whether the owner lives, a folder of a killed build goes after a day.
_STALE_SECONDS = 86400.0
_RETRIES = 1000
_EXCHANGE = 2
_AT_FDCWD = -100


def check_place(out: Path) -> None:
    """Refuse a place that `publish` would refuse, before any work is done.

    Raises:
        BadInput: ``out`` is a file, a folder that is no bundle or holds files of others, or its
            parent cannot be written.
    """
    try:
        if out.is_symlink() or (out.exists() and not out.is_dir()):
            raise BadInput(f"{out} is not a folder", hint="give another -o")
        if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
            raise BadInput(
                f"{out} holds other files and no bundle; it is left as it is",
                hint="give another -o, or empty the folder",
            )
        if out.is_dir() and (others := _of_others(out)):
            raise BadInput(
                f"{out} holds {others[0]!r}, which is not of the bundle there; it is left as it is",
                hint="give another -o, or move the file away",
            )
        # a build that is refused later leaves no folder behind
        above = next(p for p in out.absolute().parents if p.exists())
        with tempfile.TemporaryFile(dir=above):
            pass
    except (OSError, ValueError) as e:
        raise BadInput(f"{out} cannot be written: {_reason(e)}") from None


def _of_others(out: Path) -> list[str]:
    """What lies in the folder of a bundle and is not named by its receipt."""
    names = {p.name for p in out.iterdir()}
    if MARK not in names:
        return []
    try:
        own = set(json.loads((out / MARK).read_bytes())["files"])
    except (ValueError, KeyError, TypeError, RecursionError):
        own = set()
    return sorted(names - own - {*UNHASHED, *_LITTER})


def publish(files: Mapping[str, bytes | Path], out: Path) -> None:
    """Write files into a folder beside ``out`` and put it in the place of ``out``.

    A bundle that is already there is swapped out; readers that have it open keep the old one. Of
    two builds at once the last one stays. What killed builds left behind is removed.

    Args:
        files: Content, or a file to copy, by name or relative path.
        out: The folder; must pass `check_place`.

    Raises:
        BadInput: It cannot be written.
    """
    check_place(out)
    remove_stale(out.parent)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=out.parent))
        try:
            for name, data in files.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                if isinstance(data, bytes):
                    (temporary / name).write_bytes(data)
                else:
                    shutil.copyfile(data, temporary / name)
            temporary.chmod(0o777 & ~_umask())
            _swap(temporary, out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as e:
        raise BadInput(f"{out} cannot be written: {e.strerror}") from None


def check_file(path: Path | None, *read: Path | None) -> None:
    """Refuse a file that `replace_file` would refuse, before any work is done, or that is read.

    Args:
        path: None is fine.
        read: What the command reads, and would lose.

    Raises:
        BadInput: It cannot be written, or is one of those.
    """
    if path is None:
        return
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} cannot be written: it is no regular file")
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
        if path.exists() and any(x and x.exists() and path.samefile(x) for x in read):
            raise BadInput(
                f"{path} would be written over what is read from it", hint="give another -o"
            )
    except (OSError, ValueError) as e:
        raise BadInput(f"{path} cannot be written: {_reason(e)}") from None


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        BadInput: It cannot be written, or is a pipe or device.
    """
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} cannot be written: it is no regular file")
        handle, name = tempfile.mkstemp(prefix=_PREFIX, dir=path.absolute().parent)
        try:
            with os.fdopen(handle, "wb") as f:
                f.write(data)
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except (OSError, ValueError) as e:
        raise BadInput(f"{path} cannot be written: {_reason(e)}") from None


def _reason(e: OSError | ValueError) -> str:
    """Why a path cannot be used; a name with a NUL in it is a ValueError."""
    return (e.strerror or str(e)) if isinstance(e, OSError) else str(e)


def remove_stale(parent: Path) -> None:
    """Remove temporary folders beside bundles whose process no longer runs."""
    with contextlib.suppress(OSError):
        for path in parent.iterdir():
            owner = _OWNER.match(path.name)
            if owner and path.is_dir() and not path.is_symlink() and _gone(int(owner[1]), path):
                shutil.rmtree(path, ignore_errors=True)


def _gone(pid: int, path: Path) -> bool:
    if sys.platform == "win32":
        return time.time() - path.stat().st_mtime > _STALE_SECONDS
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _swap(temporary: Path, out: Path) -> None:
    """Make ``temporary`` the folder ``out``; ``temporary`` holds what was there, if anything."""
    for _ in range(_RETRIES):
        try:
            if not out.exists() or not any(out.iterdir()):
                with contextlib.suppress(FileNotFoundError):
                    if sys.platform == "win32":
                        out.rmdir()
                os.replace(temporary, out)
                return
            check_place(out)
            if _exchange is not None and _exchange(temporary, out):
                return
            # Without an exchange there is a moment without a bundle.
            aside = temporary.with_name(f"{temporary.name}-old")
            os.replace(out, aside)
            try:
                os.replace(temporary, out)
            finally:
                os.replace(aside, temporary) if not temporary.exists() else None
            return
        except OSError as e:
            # another build was faster, or took the folder away: look again
            if e.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
    raise BadInput(f"{out} keeps changing while it is being written")


def _find_exchange() -> Callable[[Path, Path], bool] | None:
    """Swap two folders atomically, where the system can (Linux): returns whether it did."""
    if sys.platform != "linux":
        return None
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return None

    def exchange(a: Path, b: Path) -> bool:
        ours, theirs = os.fsencode(a), os.fsencode(b)
        if call(_AT_FDCWD, ours, _AT_FDCWD, theirs, ctypes.c_uint(_EXCHANGE)) == 0:
            return True
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS):
            return False  # this file system cannot
        raise OSError(code, os.strerror(code))

    return exchange


_exchange = _find_exchange()

__all__ = ["MARK", "check_place", "publish", "remove_stale", "replace_file"]
