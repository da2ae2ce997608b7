"""Every ONNX node test through emitted and compiled C, many entry points per library.

A case whose plan needs a kernel that does not exist must be refused when it is planned, and stand
in `NO_KERNEL`; one that stands there and works fails, so that the table stays true.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

from conformance.no_kernel import NO_KERNEL
from conformance.onnx_cases import Case, compare, load, load_cases, refusal
from sparrow.api import resolve_target
from sparrow.bundle import library_sources
from sparrow.device.build import find_toolchain
from sparrow.device.host import HostLibrary, Session
from sparrow.emit.c import emit
from sparrow.errors import SparrowError, UnsupportedOp
from sparrow.graph import Graph, Module
from sparrow.passes import optimize
from sparrow.plan import plan
from sparrow.targets import Target
from sparrow.targets import target as target_row
from sparrow.tensor import BF16, Array, DType

Record = Callable[[str, object], None]
PER_LIBRARY = 60
CASES = tuple(sorted((c for c in load_cases() if not c.foreign), key=lambda c: c.name))
GROUPS = [CASES[i : i + PER_LIBRARY] for i in range(0, len(CASES), PER_LIBRARY)]


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A case that has a plan: its graph before the passes (for types and names) and after."""

    case: Case
    source: Graph
    graph: Graph


def listed(name: str) -> str:
    """The reason for which a case has no kernel, ``""`` when it must have one."""
    for reason, patterns in NO_KERNEL.items():
        if any(fnmatchcase(name, p) for p in patterns):
            return reason
    return ""


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


def prepare(case: Case, target: Target) -> Ready | str:
    """Import, optimise and plan a case; the refusal of the planner as a text.

    Raises:
        SparrowError: The importer refuses the case.
    """
    source = load(case)
    graph = replace(optimize(source), name=case.name)
    try:
        plan(Module(case.name, (graph,)), target)
    except UnsupportedOp as e:
        return e.message
    return Ready(case, source, graph)


def open_library(ready: Sequence[Ready], target: Target, folder: Path) -> Session:
    """Compile cases as the entry points of one library."""
    planned = plan(Module("cases", tuple(r.graph for r in ready)), target)
    artifact = emit(planned)
    text = artifact.files["model.c"].decode()
    header = artifact.files["sparrow.h"].decode()
    text = text.replace('#include "sparrow.h"\n', f"{header}\n", 1)
    tools = find_toolchain()
    device = target.machine
    objects = tools.compile_objects(library_sources(text, artifact.parts), device, ("-O1",), jobs=1)
    library = tools.link_shared(objects, device, folder / f"cases{device.library_suffix}")
    return Session(HostLibrary(library), np.frombuffer(planned.weights, np.uint8))


def check(session: Session, entry: int, ready: Ready) -> None:
    """Run one entry point and compare its outputs with the expected ones."""
    g, case = ready.source, ready.case
    feeds = [to_native(case.inputs[name], g.types[name].dtype) for name in g.inputs]
    # NaN or -1 in every type: a kernel that reads what nobody wrote shows
    session._workspace[:] = 0xFF
    found = session.run(entry, feeds)
    for name, y, want in zip(g.outputs, found, case.outputs, strict=False):
        compare(from_native(y, g.types[name].dtype), want, case, name)


def run_group(group: Sequence[Case], target: Target, folder: Path, record: Record) -> list[str]:
    """What is wrong with a group of cases, one line each."""
    problems: list[str] = []
    ready: list[Ready] = []
    for case in group:
        reason = listed(case.name)
        try:
            found = prepare(case, target)
        except SparrowError as e:
            record("native", f"not imported: {refusal(case) or e.message}")
            continue
        if isinstance(found, Ready):
            if reason:
                problems.append(f"{case.name}: has a kernel, but no_kernel.py says {reason!r}")
            ready.append(found)
        elif reason:
            record("native", f"refused: {reason}")
        else:
            problems.append(f"{case.name}: {found}")
    if not ready:
        return problems
    session = open_library(ready, target, folder)
    for i, r in enumerate(ready):
        try:
            check(session, i, r)
            record("native", "passed")
        except AssertionError as e:
            problems.append(f"{r.case.name}: {' '.join(str(e).split())[:600]}")
    return problems


@pytest.mark.parametrize("k", range(len(GROUPS)))
def test_group(k: int, tmp_path: Path, record_property: Record) -> None:
    problems = run_group(GROUPS[k], target_row("x86_64"), tmp_path, record_property)
    assert not problems, "\n".join(problems)


@pytest.mark.slow
@pytest.mark.parametrize("k", range(len(GROUPS)))
def test_group_best_isa(k: int, tmp_path: Path) -> None:
    problems = run_group(GROUPS[k], resolve_target("host"), tmp_path, lambda key, value: None)
    assert not problems, "\n".join(problems)


def test_every_row_of_the_table_is_needed() -> None:
    names = [c.name for c in CASES]
    rows = [p for patterns in NO_KERNEL.values() for p in patterns]
    assert not [p for p in rows if not any(fnmatchcase(n, p) for n in names)]
