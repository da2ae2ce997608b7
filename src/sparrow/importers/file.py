"""What importers hold a model to: a regular file of bounded size, operators of bounded inputs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sparrow.errors import BadInput, BadModel

MAX_BYTES = 2 << 30
# Inputs of one operator: sums and concatenations have as many as they like.
MAX_OPERANDS = 1024


def _opener(name: str, flags: int) -> int:
    """Open without waiting for the other end of a pipe."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def read_file(path: Path, first: int = -1) -> bytes:
    """The content of a model file, or its first bytes.

    Raises:
        BadInput: It cannot be read, or is a pipe, a device or a folder.
        BadModel: It is larger than MAX_BYTES.
    """
    try:
        with open(path, "rb", opener=_opener) as f:
            status = os.fstat(f.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadInput(f"{path}: cannot be read: it is no regular file")
            if status.st_size > MAX_BYTES:
                raise BadModel(f"{path}: {status.st_size} bytes; at most {MAX_BYTES} are read")
            return f.read(first)
    except OSError as e:
        raise BadInput(f"{path}: cannot be read: {e.strerror}") from None
    except ValueError as e:  # a name with a NUL in it
        raise BadInput(f"{path}: cannot be read: {e}") from None


def read_small(path: Path, what: str, most: int) -> bytes:
    """The content of a file of a kind that never takes more than ``most`` bytes.

    Raises:
        BadInput: It cannot be read, or is larger.
    """
    data = read_file(path, most + 1)
    if len(data) > most:
        raise BadInput(f"{path} is no {what}: more than {most} bytes")
    return data


def check_operands(where: str, count: int) -> None:
    """Check how many inputs an operator has.

    Raises:
        BadModel: There are more than MAX_OPERANDS.
    """
    if count > MAX_OPERANDS:
        raise BadModel(f"{where}: {count} inputs; at most {MAX_OPERANDS} are read")


__all__ = ["MAX_BYTES", "MAX_OPERANDS", "check_operands", "read_file", "read_small"]
