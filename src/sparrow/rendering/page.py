"""The folder of a web page: one module in several builds over the same weights, and its loader.

A build is a row of `targets`: the same plan with another vocabulary of 4 lanes. The threaded build
has a plan of its own, cut into tasks; where it would pack weights otherwise it is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from sparrow.compiler import Compiled
from sparrow.device.build import NATIVE, Unit, find_toolchain
from sparrow.device.library import compile_objects
from sparrow.device.runners import Runner
from sparrow.emit.c import emit
from sparrow.evidence.gate import Gate
from sparrow.evidence.golden import Golden
from sparrow.evidence.outputs import output_gate, run_calls
from sparrow.graph import Graph
from sparrow.plan import plan
from sparrow.targets import Target, target
from sparrow.tensor import Array, TensorType

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
    """What the loader calls a build: ``plain``, ``simd``, ``relaxed`` or ``threads``."""
    return build.removeprefix("wasm32").removeprefix("_") or "plain"


def write_page(folder: Path, compiled: Compiled) -> None:
    """Write the loader, its types, a page, and every build that the target names.

    Args:
        folder: Holds ``weights.bin``.
        compiled: For a target with builds.

    Raises:
        CompileError: The compiler is missing or refuses the code.
    """
    web = resources.files("sparrow") / "native" / "web"
    for name in ("model.mjs", "index.html"):
        (folder / name).write_bytes((web / name).read_bytes())
    types = declarations((web / "model.d.ts").read_text(encoding="utf-8"), compiled.module.entries)
    (folder / "model.d.ts").write_text(types, encoding="utf-8", newline="\n")
    for name in compiled.plan.target.builds:
        _write_build(folder / f"model.{path_of(name)}.wasm", compiled, target(name))


def _write_build(out: Path, compiled: Compiled, row: Target) -> None:
    planned = replace(compiled.plan, target=row)
    threaded = "atomics" in row.cpu.split("+")
    if threaded:
        planned = plan(compiled.module, row, threads=THREADS)
        if planned.weights != compiled.plan.weights:
            return
    artifact = emit(planned)
    # with hooks: a page can profile, at the price of a test per step
    objects = compile_objects(artifact.files, row.machine, artifact.parts, hooks=True)
    tools = find_toolchain()
    if threaded:
        pool = Unit.from_file(NATIVE / "runtime" / "pool_wasm.c")
        objects = (*objects, *tools.compile_objects([pool], row.machine, ("-std=c99",)))
    tools.link_shared(objects, row.machine, out)


def page_gates(
    folder: Path, graphs: Sequence[Graph], golden: Golden, runner: Runner, weights: Array | None
) -> tuple[Gate, ...]:
    """A gate for each build in a folder: its outputs against the golden ones."""
    found = []
    for path in sorted(folder.glob("model.*.wasm")):
        outputs = run_calls(runner.load(path).open(weights), graphs, golden)
        gate = output_gate(graphs, golden, outputs)
        found.append(replace(gate, name=f"{path.name}: {gate.name}"))
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
