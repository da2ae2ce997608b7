"""Random graphs compiled and judged, layer by layer; what fails is written to a folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from any_graphs import feeds
from emitted import TARGETS, blob, compiled
from sparrow.errors import SparrowError, UnsupportedOp
from sparrow.evidence.describe import describe
from sparrow.evidence.golden import make_golden
from sparrow.evidence.proof import prove
from sparrow.graph import Graph, Module
from sparrow.memory.audit import audit
from sparrow.passes import optimize
from sparrow.plan import Plan
from sparrow.planner import plan
from sparrow.targets import target
from sparrow.text import parse_graph, print_graph

CALLS = 2


def failures() -> Path:
    """Where failing graphs go: SPARROW_FAILURES, or a folder beside other temporary files."""
    return Path(
        os.environ.get("SPARROW_FAILURES") or Path(tempfile.gettempdir()) / "sparrow-failures"
    )


def save(g: Graph, why: str) -> Path:
    """Write a graph that fails as ``graph.txt`` and ``arrays.npz``, with the reason; the folder."""
    text, arrays = print_graph(g)
    folder = failures() / g.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.txt").write_text(text, encoding="utf-8")
    (folder / "why.txt").write_text(why + "\n", encoding="utf-8")
    np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
    return folder


def restore(folder: Path) -> Graph:
    """The graph that `save` wrote."""
    with np.load(folder / "arrays.npz") as arrays:
        text = (folder / "graph.txt").read_text(encoding="utf-8")
        return parse_graph(text, dict(arrays))


def planned(g: Graph, isa: str) -> Plan | None:
    """A plan for two threads; None where `docs/limits.md` says that there is no kernel."""
    try:
        return plan(Module(g.name, (g,)), target(TARGETS[isa]), threads=2)
    except UnsupportedOp:
        return None


def problem(graphs: Sequence[Graph], isa: str, flags: Sequence[str] = ("-O1",)) -> tuple[str, int]:
    """What is wrong with the native code of graphs, compiled into one library, and of which graph.

    Every step is within its bound (integers: bit for bit) of the reference, two threads give the
    bits of one, and the memory of the plan is sound. ``""`` if nothing is wrong; -1 where it cannot
    be said of which.
    """
    module = Module("m", tuple(replace(g, name=f"g{i}") for i, g in enumerate(graphs)))
    p = plan(module, target(TARGETS[isa]), threads=2)
    faults = audit(p)
    if faults:
        return faults[0], -1
    record = describe(p, parts=1, threads=2, models=[""] * len(graphs))
    calib = {g.name: [feeds(g, k) for k in range(CALLS)] for g in module.entries}
    compiled_graphs = [e.graph for e in p.entries]
    steps = [[s.node.outputs for s in e.steps] for e in p.entries]
    single = len(graphs) == 1
    golden = make_golden(compiled_graphs, steps, calib["g0"] if single else calib)
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(p, Path(folder), flags=(*flags, "-DSPARROW_HOOKS"))
        proof = prove(compiled_graphs, record, golden, library, library, blob(p))
    layer = next((c for c in proof.layers if not c.ok), None)
    if layer is not None:
        return proof.failure, int(layer.entry.removeprefix("g"))
    # the outputs' bound is for networks; here every layer answers for itself
    bad = [g for g in proof.gates if not g.ok and not g.name.startswith("outputs")]
    return (f"{bad[0].name}: {bad[0].found}", -1) if bad else ("", -1)


def check(graphs: Sequence[Graph], isa: str, flags: Sequence[str] = ("-O1",)) -> None:
    """Assert that graphs as they are and after the passes are compiled right, else write one down.

    Raises:
        AssertionError: What is wrong, and the folder of the graph.
    """
    every: list[Graph] = []
    for g in graphs:
        after = optimize(g)
        ways = [x for x in (g, after) if planned(x, isa) is not None]
        if len(ways) == 1 and ways[0] is g:
            folder = save(replace(g, name=f"random-{isa}"), "the passes leave no kernel for it")
            raise AssertionError(f"the passes leave no kernel; {isa}, graph in {folder}")
        every += ways
    if not every:
        return
    try:
        found, at = problem(every, isa, flags)
    except SparrowError as e:
        found, at = str(e), -1
    if found:
        folder = save(replace(every[at], name=f"random-{isa}"), found)
        raise AssertionError(f"{found}; {isa}, graph {at} of {len(every)} in {folder}")
