"""What a library prints past Python."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unheard() -> Iterator[None]:
    """What C code writes to standard output meanwhile goes nowhere.

    HiGHS has a line of debugging that no option silences ("transformNewIntegerFeasibleSolution",
    scipy 1.17), which would stand in the middle of `--json`. C buffers it, so that its buffers are
    written before the descriptor is put back.
    """
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    library = ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        library.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
