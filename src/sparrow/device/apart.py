"""Run a built library in a process of its own, so that a crash of it is a result.

Started as ``python -m sparrow.device.apart library weights inputs outputs``: inputs and outputs are
``.npz`` files with one array per tensor, ``x0``, ``x1``, ... and ``y0``, ``y1``, ...
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparrow.device.host import HostLibrary
from sparrow.errors import SparrowError
from sparrow.tensor import Array

# One inference of a part of a network.
LIMIT_S = 120.0
ROOT = str(Path(__file__).resolve().parents[2])


class Crashed(SparrowError):
    """The compiled code ended its process, or did not end."""


def run_apart(
    library: Path, weights: bytes, inputs: Sequence[Array], limit_s: float = LIMIT_S
) -> list[Array]:
    """The outputs of one call of a library's first entry point.

    Args:
        library: For this machine.
        weights: The blob.
        inputs: As of `sparrow.device.host.Session.run`.
        limit_s: Seconds after which it is ended.

    Raises:
        Crashed: A signal ended it, or the limit did.
        SparrowError: It refused the call; the message is its own.
    """
    with tempfile.TemporaryDirectory(prefix="sparrow-") as name:
        folder = Path(name)
        (folder / "weights").write_bytes(weights)
        _save(folder / "in.npz", "x", inputs)
        paths = (library, folder / "weights", folder / "in.npz", folder / "out.npz")
        # where this package came from may be known to this process alone
        found = os.pathsep.join((ROOT, os.environ.get("PYTHONPATH", "")))
        try:
            done = subprocess.run(
                [sys.executable, "-m", "sparrow.device.apart", *map(str, paths)],
                env={**os.environ, "PYTHONPATH": found.rstrip(os.pathsep)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=limit_s,
            )
        except subprocess.TimeoutExpired:
            raise Crashed(f"the compiled code did not end within {limit_s:g} s") from None
        if done.returncode < 0:
            raise Crashed(f"the compiled code crashed: {_signal(-done.returncode)}")
        if done.returncode:
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise SparrowError(" ".join(last) or f"the runner exited with {done.returncode}")
        with np.load(folder / "out.npz") as held:
            return [held[f"y{i}"] for i in range(len(held.files))]


def _save(path: Path, letter: str, arrays: Sequence[Array]) -> None:
    named: Any = {f"{letter}{i}": a for i, a in enumerate(arrays)}
    np.savez(path, **named)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def main(arguments: Sequence[str]) -> int:
    """What the process does; 1 where the library refuses, with the reason on stderr."""
    library, weights, inputs, outputs = map(Path, arguments)
    with np.load(inputs) as held:
        given = [held[f"x{i}"] for i in range(len(held.files))]
    blob = np.fromfile(weights, np.uint8)
    try:
        session = HostLibrary(library).open(blob if blob.size else None)
        found = session.run(0, given)
    except SparrowError as e:
        print(e, file=sys.stderr)
        return 1
    _save(outputs, "y", found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
