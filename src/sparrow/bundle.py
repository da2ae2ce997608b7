"""The bundle: a folder with sources, library, weights and evidence; and running it."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparrow.compiler import Compiled, Source
from sparrow.device import build as toolchain
from sparrow.device.host import HostLibrary, Session
from sparrow.errors import BadBundle, BadInput
from sparrow.tensor import Array

if TYPE_CHECKING:
    from sparrow.api import Budget

LIBRARY = "model"


class Bundle:
    """A built model in a folder.

    Args:
        folder: Holds ``model.c``, the library, ``weights.bin``, ``receipt.json`` and the rest.
        threads: Threads per call.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.folder = folder
        library = next(iter(sorted(folder.glob(f"{LIBRARY}.so"))), None)
        weights = folder / "weights.bin"
        if library is None or not weights.is_file():
            raise BadBundle(f"{folder} is no bundle: the library or weights.bin is missing")
        blob = np.memmap(weights, np.uint8, "r") if weights.stat().st_size else np.zeros(0, np.uint8)
        self.session = Session(HostLibrary(library), blob, threads=threads)
        self.entries = {e.name: i for i, e in enumerate(self.session.library.info.entries)}
        self._info = self.session.library.info.entries

    def run(
        self, feeds: Mapping[str, Array] | Array, entry: str | None = None
    ) -> dict[str, Array]:
        """Outputs of one call.

        Args:
            feeds: Input name -> array of its exact shape and dtype; a bare array for one input.
            entry: Entry point; the first by default.

        Returns:
            Output name -> array.

        Raises:
            BadInput: Unknown entry or input names, missing inputs, wrong shape or dtype.
        """
        if entry is None:
            index = 0
        elif entry in self.entries:
            index = self.entries[entry]
        else:
            raise BadInput(f"entry {entry!r} is unknown", hint=f"entries: {', '.join(self.entries)}")
        info = self._info[index]
        if not isinstance(feeds, Mapping):
            if len(info.inputs) != 1:
                raise BadInput(f"one array for {len(info.inputs)} inputs", hint="pass a dict by name")
            feeds = {info.inputs[0].name: np.asarray(feeds)}
        try:
            arrays = [feeds[t.name] for t in info.inputs]
        except KeyError as e:
            names = ", ".join(repr(t.name) for t in info.inputs)
            raise BadInput(f"input {e.args[0]!r} is missing", hint=f"the model takes {names}") from None
        if len(feeds) != len(arrays):
            unknown = sorted(set(feeds) - {t.name for t in info.inputs})
            raise BadInput(f"input {unknown[0]!r} is unknown")
        outputs = self.session.run(index, arrays)
        return {t.name: y for t, y in zip(info.outputs, outputs, strict=True)}

    def reset(self) -> None:
        """Set all states to their initial values."""
        self.session.reset()


def library_sources(source: str, parts: int, hooks: bool = False) -> list[toolchain.Source]:
    """The parts of ``model.c`` as translation units; part 0 alone depends on the hooks."""
    flag = "#define SPARROW_HOOKS 1\n" if hooks else ""
    found = []
    for k in range(parts):
        head = f"#define SPARROW_PART {k}\n" + (flag if k == 0 else "")
        found.append(toolchain.Source(f"model_{k}.c", head + source))
    return found


def compile_library(compiled: Compiled, folder: Path, hooks: bool = False) -> Path:
    """Build the shared library of emitted sources into ``folder``."""
    row = compiled.plan.target
    target = toolchain.Target(row.triple, row.cpu, row.isa.name)
    tools = toolchain.find_toolchain()
    header = compiled.artifact.files["sparrow.h"].decode()
    text = compiled.artifact.files["model.c"].decode().replace('#include "sparrow.h"\n', header + "\n", 1)
    objects = tools.compile_objects(
        library_sources(text, compiled.artifact.parts, hooks), target
    )
    name = f"{LIBRARY}{'.hooks' if hooks else ''}{target.library_suffix}"
    return tools.link_shared(objects, target, folder / name)


def write_bundle(
    compiled: Compiled,
    sources: Mapping[str, Source],
    out: Path | None,
    *,
    threads: int,
    calib: Iterable[Any] | None,
    evaluate: Callable[..., float] | None,
    budget: Budget | None,
) -> Bundle:
    """Write, build and prove a bundle, then move it into place in one step."""
    del sources, calib, evaluate, budget
    parent = None if out is None else out.absolute().parent
    temporary = Path(tempfile.mkdtemp(prefix=".sparrow-", dir=parent))
    try:
        for name, data in compiled.artifact.files.items():
            (temporary / name).write_bytes(data)
        compile_library(compiled, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if out is not None:
        os.replace(temporary, out)
        return Bundle(out, threads)
    bundle = Bundle(temporary, threads)
    weakref.finalize(bundle, shutil.rmtree, temporary, ignore_errors=True)
    return bundle


def load_bundle(folder: str | Path, threads: int = 1) -> Bundle:
    """Open a bundle folder. A bundle is a program: this loads and runs its native code."""
    return Bundle(Path(folder), threads)
