"""ONNX test cases through import, passes, plan, emitted C and a compiler, many per library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from conformance.onnx_cases import Case, compare, load
from sparrow.device.build import Unit, find_toolchain
from sparrow.device.here import host_machine
from sparrow.device.host import HostLibrary, Session
from sparrow.device.qemu import emulated_library
from sparrow.device.session import ModelSession
from sparrow.emit.c import emit
from sparrow.errors import SparrowError
from sparrow.graph import Graph, Module
from sparrow.passes import optimize
from sparrow.planner import plan
from sparrow.targets import Target
from sparrow.tensor import BF16, Array, DType


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A case that has a plan: its graph before the passes (for types and names) and after."""

    case: Case
    source: Graph
    graph: Graph


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of a case.

    Attributes:
        case: The case.
        kind: ``refused`` with an error for users, or compiled and ``passed`` or ``wrong``.
        reason: The error, or the difference.
    """

    case: Case
    kind: Literal["passed", "refused", "wrong"]
    reason: str = ""


def to_native(x: Array, dtype: DType) -> Array:
    """A value as the library takes it: bfloat16 as its bits."""
    if dtype == BF16:
        return (np.ascontiguousarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.ascontiguousarray(x).reshape(x.shape)


def from_native(x: Array, dtype: DType) -> Array:
    """Inverse of `to_native`."""
    if dtype == BF16:
        return (x.astype(np.uint32) << 16).view(np.float32)
    return x


def prepare(case: Case, target: Target, attributes: bool = False) -> Ready:
    """Import, optimise and plan a case; ``attributes`` as in `load`.

    Raises:
        SparrowError: The importer or the planner refuses the case.
    """
    source = load(case, attributes)
    graph = replace(optimize(source), name=case.name)
    plan(Module(case.name, (graph,)), target)
    return Ready(case, source, graph)


def open_library(ready: Sequence[Ready], target: Target, folder: Path) -> ModelSession:
    """Compile cases as the entry points of one library, and load it, in an emulator if need be."""
    planned = plan(Module("cases", tuple(r.graph for r in ready)), target)
    artifact = emit(planned)
    text = artifact.files["model.c"].decode()
    header = artifact.files["sparrow.h"].decode()
    text = text.replace('#include "sparrow.h"\n', f"{header}\n", 1)
    tools = find_toolchain()
    device = target.machine
    # whole: the headers are read once
    objects = tools.compile_objects([Unit("cases.c", text)], device, ("-O1",))
    library = tools.link_shared(objects, device, folder / f"cases{device.library_suffix}")
    weights = np.frombuffer(planned.weights, np.uint8)
    if device.arch != host_machine("scalar").arch:
        return emulated_library(library, device).open(weights)
    return Session(HostLibrary(library), weights)


def check(session: ModelSession, entry: int, ready: Ready) -> None:
    """Run one entry point and compare its outputs with the expected ones."""
    g, case = ready.source, ready.case
    feeds = [to_native(case.inputs[name], g.types[name].dtype) for name in g.inputs]
    if isinstance(session, Session):
        # NaN or -1 in every type: a kernel that reads what nobody wrote shows
        session._workspace[:] = 0xFF
    found = session.run(entry, feeds)
    for name, y, want in zip(g.outputs, found, case.outputs, strict=False):
        compare(from_native(y, g.types[name].dtype), want, case, name)


def run_cases(group: Sequence[Case], target: Target, folder: Path) -> list[Outcome]:
    """Every case of a group, compiled into one library and run with its run-time inputs.

    Only inputs that determine shapes are bound. A case that is refused for that is tried once more
    with the operands bound that the compiler wants constant, so that these can be wrong, too.
    """
    found: list[Outcome] = []
    ready: list[Ready] = []
    refused: dict[str, str] = {}
    for case in group:
        try:
            ready.append(prepare(case, target))
            continue
        except SparrowError as e:
            refused[case.name] = e.message
        if case.attributes:
            try:
                ready.append(prepare(case, target, attributes=True))
            except SparrowError as e:
                refused[case.name] = e.message
    if ready:
        session = open_library(ready, target, folder)
    for i, r in enumerate(ready):
        try:
            check(session, i, r)
        except AssertionError as e:
            found.append(Outcome(r.case, "wrong", " ".join(str(e).split())[:600]))
            refused.pop(r.case.name, None)
            continue
        if r.case.name not in refused:
            found.append(Outcome(r.case, "passed"))
    by_name = {c.name: c for c in group}
    return found + [Outcome(by_name[k], "refused", reason) for k, reason in refused.items()]
