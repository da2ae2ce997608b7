"""The folder of a web page: one module in several builds, and its loader.

A build is a row of `targets`: the same plan with another vocabulary of 4 lanes. Builds that are cut
into tasks, or whose sums take other products, have a plan of their own, and where it packs weights
otherwise a file of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np

from sparrow.compiler import Compiled
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.library import compile_objects
from sparrow.device.runners import Runner
from sparrow.emit.c import emit
from sparrow.errors import BadBundle
from sparrow.evidence.gate import Gate
from sparrow.evidence.golden import Golden
from sparrow.evidence.outputs import output_gate, run_calls
from sparrow.graph import Graph
from sparrow.plan import Plan
from sparrow.planner import plan
from sparrow.targets import Target, target
from sparrow.tensor import TensorType

# The line of the loader that a model's own builds replace, and what is read from there again.
_BUILDS = "const BUILDS = {};"
_FILES = re.compile(r"new URL\('(model\.\w+\.wasm)'.*?file: '([\w.]+)'", re.DOTALL)
# What the loader says of a module for other engines.
_LACKS = "the engine lacks"
# Tasks that a step of the threaded build is cut into.
THREADS = 4
_ARRAYS = {
    "float32": "Float32Array",
    "float16": "Uint16Array",
    "bfloat16": "Uint16Array",
    "float64": "Float64Array",
    "int2": "Int8Array",
    "int4": "Int8Array",
    "uint4": "Uint8Array",
    "int8": "Int8Array",
    "uint8": "Uint8Array",
    "int16": "Int16Array",
    "uint16": "Uint16Array",
    "int32": "Int32Array",
    "uint32": "Uint32Array",
    "int64": "BigInt64Array",
    "uint64": "BigUint64Array",
    "bool": "Uint8Array",
}


def path_of(build: str) -> str:
    """What the loader calls a build: ``plain``, ``simd``, ``relaxed``, ``usdot`` and so on."""
    return build.removeprefix("wasm32").removeprefix("_") or "plain"


def write_page(folder: Path, compiled: Compiled) -> None:
    """Write the loader, its types, a page, and every build that the target names.

    Args:
        folder: Where they go, weights and all.
        compiled: For a target with builds.

    Raises:
        CompileError: The compiler is missing or refuses the code.
    """
    web = resources.files("sparrow") / "native" / "web"
    (folder / "index.html").write_bytes((web / "index.html").read_bytes())
    types = declarations((web / "model.d.mts").read_text(encoding="utf-8"), compiled.module.entries)
    (folder / "model.d.mts").write_text(types, encoding="utf-8", newline="\n")
    files = {compiled.plan.weights: "weights.bin"}
    found: list[tuple[str, str]] = []
    # the fastest comes first in the loader, and last to name a file
    for row, planned in reversed([*_plans(compiled)]):
        path = path_of(row.name)
        _write_build(folder / f"model.{path}.wasm", planned)
        file = files.setdefault(planned.weights, f"weights.{path}.bin")
        (folder / file).write_bytes(planned.weights)
        found.insert(0, (path, file))
    loader = (web / "model.mjs").read_text(encoding="utf-8")
    text = loader.replace(_BUILDS, _builds(found))
    assert text != loader
    (folder / "model.mjs").write_text(text, encoding="utf-8", newline="\n")


def _plans(compiled: Compiled) -> Iterator[tuple[Target, Plan]]:
    """The builds that a model has: those for whole bytes where it has sums over bytes, those with
    threads where they share a step.
    """
    for row in map(target, compiled.plan.target.builds):
        whole = row.isa.quads or row.isa.twos or not row.isa.pairs
        if whole and plan(compiled.module, row).weights == compiled.plan.weights:
            continue
        if _threaded(row):
            shared = plan(compiled.module, row, threads=THREADS)
            if any(s.lowered.tasks > 1 and not s.whole for e in shared.entries for s in e.steps):
                yield row, shared
        elif whole:
            yield row, plan(compiled.module, row)
        else:
            yield row, replace(compiled.plan, target=row)


def _threaded(row: Target) -> bool:
    return "atomics" in row.cpu.split("+")


def _builds(found: Sequence[tuple[str, str]]) -> str:
    """The loader's table. Bundlers know files by such expressions, and rename them."""
    rows = (
        f"  {path}: {{\n"
        f"    wasm: new URL('model.{path}.wasm', import.meta.url),\n"
        f"    weights: new URL('{file}', import.meta.url),\n"
        f"    file: '{file}',\n"
        "  },"
        for path, file in found
    )
    return "\n".join(("const BUILDS = {", *rows, "};"))


def _write_build(out: Path, planned: Plan) -> None:
    row = planned.target
    artifact = emit(planned)
    # with hooks: a page can profile, at the price of a test per step
    objects = compile_objects(artifact.files, row.machine, artifact.parts, hooks=True)
    tools = find_toolchain()
    if _threaded(row):
        pool = Unit.from_file(NATIVE / "runtime" / "pool_wasm.c")
        objects = (*objects, *tools.compile_objects([pool], row.machine, ("-std=c99",)))
    tools.link_shared(objects, row.machine, out)


def page_gates(
    folder: Path, graphs: Sequence[Graph], golden: Golden, runner: Runner
) -> tuple[Gate, ...]:
    """A gate for each build in a folder: its outputs against the golden ones."""
    found: list[Gate] = []
    loader = folder / "model.mjs"
    if not loader.is_file():
        return ()
    for path, file in _FILES.findall(loader.read_text(encoding="utf-8")):
        try:
            library = runner.load(folder / path)
        except BadBundle as e:
            if _LACKS not in e.message:
                raise
            found.append(Gate(f"{path}: not run", "", e.message, True))
            continue
        outputs = run_calls(library.open(np.fromfile(folder / file, np.uint8)), graphs, golden)
        gate = output_gate(graphs, golden, outputs)
        found.append(replace(gate, name=f"{path}: {gate.name}"))
    return tuple(found)


def declarations(template: str, graphs: Sequence[Graph]) -> str:
    """The declarations with the model's own tensors; names only ever appear as JSON strings."""
    rows = []
    for g in graphs:
        counts = {n.count for n in g.lengths if n.count.rstrip("_") == f"{n.output}.count"}
        feeds = _fields(g.inputs, g.types)
        outputs = _fields([n for n in g.outputs if n not in counts], g.types)
        only = _ARRAYS[g.types[g.inputs[0]].dtype.name] if len(g.inputs) == 1 else "never"
        rows.append(
            f"{json.dumps(g.name)}: {{ feeds: {feeds}; only: {only}; outputs: {outputs} }};"
        )
    first = f"export type First = {json.dumps(graphs[0].name)};"
    # at once: a name may be a mark
    parts = {"// ENTRIES": "\n  ".join(rows), "// FIRST": first}
    return re.sub("|".join(parts), lambda m: parts[m[0]], template)


def _fields(names: Sequence[str], types: Mapping[str, TensorType]) -> str:
    fields = (f"{json.dumps(n)}: {_ARRAYS[types[n].dtype.name]};" for n in names)
    return f"{{ {' '.join(fields)} }}"
