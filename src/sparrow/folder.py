"""What lies in the folder of a bundle, and how it is read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparrow.device.cache import file_sha256
from sparrow.device.library import LIBRARY, compile_library
from sparrow.device.runners import Runner
from sparrow.device.session import ModelLibrary
from sparrow.errors import BadBundle, BadInput, InvalidGraph
from sparrow.targets import SUFFIXES, Machine
from sparrow.tensor import Array

if TYPE_CHECKING:
    from sparrow.evidence.golden import Golden
    from sparrow.evidence.plan_record import PlanRecord
    from sparrow.graph import Graph

# Written after the hashes are taken, or not the same twice.
UNHASHED = ("receipt.json", "measurements.json", "report.html")


def library_path(folder: Path) -> Path:
    """The library in a bundle folder.

    Raises:
        BadBundle: It, or the weight blob, is missing.
    """
    names = [f"{LIBRARY}{suffix}" for suffix in sorted(set(SUFFIXES.values()))]
    found = [folder / name for name in names if os.path.isfile(folder / name)]
    if not found or not os.path.isfile(folder / "weights.bin"):
        raise BadBundle(f"{folder} is no bundle: the library or weights.bin is missing")
    return found[0]


def weights_of(folder: Path) -> Array:
    """The weight blob in a bundle folder, mapped."""
    path = folder / "weights.bin"
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)


def machine_of(plan: PlanRecord) -> Machine:
    """What a bundle's library is built for."""
    return Machine(plan.target.triple, plan.target.cpu, plan.target.isa)


def check_model(library: ModelLibrary, plan: PlanRecord) -> None:
    """Check that a library is of a bundle's model: a board has what was flashed last.

    Raises:
        BadBundle: It is of another one.
    """
    found = [
        (e.n_steps, *((t.name, t.dtype.name, t.shape) for t in (*e.inputs, *e.outputs)))
        for e in library.info.entries
    ]
    known = [
        (len(e.steps), *((t.name, t.dtype, t.shape) for t in (*e.inputs, *e.outputs)))
        for e in plan.entries
    ]
    if found != known:
        raise BadBundle(
            f"the device runs another model, {library.info.name!r}",
            hint="flash a firmware of this bundle",
        )


def hooked_library(folder: Path, plan: PlanRecord, runner: Runner) -> ModelLibrary:
    """The library of a bundle built with tap and profile hooks, from its own sources.

    Raises:
        BadBundle: Sources are missing.
        CompileError: The compiler is missing.
    """
    names = ["model.c", "sparrow.h"]
    names += ["weights.c"] if (folder / "weights.c").exists() else []
    try:
        files = {name: (folder / name).read_bytes() for name in names}
    except OSError as e:
        raise BadBundle(f"{folder}: {e.filename} cannot be read: {e.strerror}") from None
    return runner.load(compile_library(files, machine_of(plan), plan.parts, hooks=True))


def step_values(plan: PlanRecord) -> list[list[list[str]]]:
    """For each entry, the values that each step writes."""
    return [[[v.name for v in s.outputs] for s in e.steps] for e in plan.entries]


def load_graphs(folder: Path, plan: PlanRecord) -> list[Graph]:
    """The graphs of ``graph.txt``; their constants come from the ONNX twins.

    Raises:
        BadBundle: The files do not belong together.
    """
    import onnx
    from google.protobuf.message import DecodeError

    from sparrow.evidence.golden import graph_arrays
    from sparrow.importers.onnx.call import to_array
    from sparrow.text import array_key, parse_graph

    arrays = graph_arrays(folder / "golden.npz")
    try:
        for e in plan.entries:
            model = onnx.ModelProto()
            model.ParseFromString((folder / Path(e.model).name).read_bytes())
            for t in model.graph.initializer:
                a, _ = to_array(t, t.name)
                arrays[array_key(a)] = a
        text = (folder / "graph.txt").read_text(encoding="utf-8")
        graphs = [parse_graph(part, arrays) for part in re.split(r"(?m)^(?=graph )", text) if part]
    except (OSError, UnicodeDecodeError, DecodeError, BadInput, InvalidGraph) as e:
        raise BadBundle(f"{folder}: graph.txt and the ONNX twins do not fit: {e}") from None
    if [g.name for g in graphs] != [e.name for e in plan.entries]:
        raise BadBundle(f"{folder}: graph.txt and plan.json have other entry points")
    return graphs


def load_evidence(folder: Path, plan: PlanRecord) -> tuple[list[Graph], Golden]:
    """Graphs and golden calls of a bundle.

    Raises:
        BadBundle: They do not belong together.
    """
    from sparrow.evidence.golden import load_golden

    graphs = load_graphs(folder, plan)
    return graphs, load_golden(folder / "golden.npz", graphs, step_values(plan))


def check_hashes(folder: Path, files: Mapping[str, str]) -> str:
    """The first file that is missing or altered, in words; empty when all are as recorded."""
    for name, expected in files.items():
        path = folder / name
        if Path(name).name != name or not os.path.isfile(path):
            return f"{name} is missing"
        found = file_sha256(path)
        if found != expected:
            return f"{name} has SHA-256 {found[:16]}.., the receipt says {expected[:16]}.."
    present = {p.name for p in folder.iterdir()}
    extra = sorted(n for n in present - set(files) - set(UNHASHED) if not n.startswith("."))
    return f"{extra[0]} is not in the receipt" if extra else ""


def check_whole(folder: Path) -> None:
    """Check that the library and the weights of a bundle are those of its receipt.

    Raises:
        BadBundle: They are not: what a full disk or a broken copy cut short crashes the process.
    """
    from sparrow.evidence.receipt import ReceiptRecord
    from sparrow.evidence.record import load

    names = [f"{LIBRARY}{s}" for s in SUFFIXES.values()]
    if not any(os.path.isfile(folder / name) for name in names):
        return  # Bundle says so
    receipt = load(ReceiptRecord, folder / "receipt.json")
    for name in names:
        path = folder / name
        if os.path.isfile(path) and file_sha256(path) != receipt.files.get(name):
            raise BadBundle(
                f"{path} is not the library of the receipt", hint="build the model again"
            )
    weights, expected = folder / "weights.bin", receipt.memory.weights_bytes
    if os.path.isfile(weights) and os.path.getsize(weights) != expected:
        raise BadBundle(
            f"{weights} has {os.path.getsize(weights)} bytes, the receipt says {expected}",
            hint="build the model again",
        )
