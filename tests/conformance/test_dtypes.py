"""Every element type that ONNX allows an operator is computed, or stands in a list with the reason.

The node tests of the onnx package use few types. Here each gets all those of its schema, one type
parameter at a time, and must import and plan; the slow test also runs them, against the reference.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

from conformance.onnx_cases import Case, cut, load, load_cases, refusal
from conformance.onnx_native import Ready, from_native, open_library, prepare, to_native
from sparrow.errors import SparrowError
from sparrow.importers.onnx.call import ELEM
from sparrow.reference import evaluate
from sparrow.targets import target as target_row
from sparrow.tensor import BF16, Array, DType, round_bfloat16

ONNX_NAMES = {"float32": "float", "float64": "double"}
TYPES = {f"tensor({ONNX_NAMES.get(d.name, d.name)})": d for d in ELEM.values() if d.bits >= 8}
CODES = {d: code for code, d in ELEM.items()}
CASES_PER_OP = 3
PER_LIBRARY = 60

# Operators whose kernels compute in float32: half types are widened, float64 is refused.
FLOAT32_ONLY = frozenset({"Attention", "DeformConv", "GRU", "LRN", "LSTM", "RNN", "RoiAlign"})
# A type of another width is no case of these: the shape would have to change with it.
OTHER_SHAPE = frozenset({"BitCast"})


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """A node test with one type parameter of its operator bound to another type."""

    case: Case
    op: str
    dtype: DType


def _formal(
    declared: Sequence[onnx.defs.OpSchema.FormalParameter], names: Sequence[str], parameter: str
) -> set[str]:
    """Those of a node's inputs or outputs whose type is the parameter's."""
    last = len(declared) - 1
    return {x for i, x in enumerate(names) if x and declared[min(i, last)].type_str == parameter}


def _cast(x: Array, dtype: DType) -> Array:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        y = (x if dtype.kind in ("float", "int") else np.abs(x)).astype(dtype.numpy)
    return round_bfloat16(y) if dtype == BF16 else y


def _retyped(case: Case, parameter: str, schema: onnx.defs.OpSchema, dtype: DType) -> Case | None:
    """``case`` with the parameter bound to ``dtype``; None when it is already."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    (node,) = model.graph.node
    inputs = _formal(schema.inputs, node.input, parameter)
    changed = False
    for v in (*model.graph.input, *model.graph.output):
        if v.name in inputs | _formal(schema.outputs, node.output, parameter):
            changed |= v.type.tensor_type.elem_type != CODES[dtype]
            v.type.tensor_type.elem_type = CODES[dtype]
    if not inputs:  # the type of the output is an attribute
        for a in node.attribute:
            if a.name in ("dtype", "to", "output_datatype"):
                a.i = CODES[dtype]
    arrays = {k: _cast(x, dtype) if k in inputs else x for k, x in case.inputs.items()}
    name = f"{case.name}_{parameter}_{dtype}"
    return replace(case, name=name, model=model, inputs=arrays) if changed else None


def _variants(case: Case) -> Iterator[Variant]:
    (node,) = case.model.graph.node
    version = next(o.version for o in case.model.opset_import if o.domain in ("", "ai.onnx"))
    schema = onnx.defs.get_schema(node.op_type, version)
    for c in schema.type_constraints:
        for text in sorted(set(c.allowed_type_strs) & set(TYPES)):
            made = _retyped(case, c.type_param_str, schema, TYPES[text])
            if made is not None:
                yield Variant(made, node.op_type, TYPES[text])


@cache
def variants() -> tuple[Variant, ...]:
    """Variants of the first few supported one-node tests of every operator."""
    found: list[Variant] = []
    seen: Counter[str] = Counter()
    for case in sorted(load_cases(), key=lambda c: c.name):
        if case.foreign or refusal(case) or len(case.model.graph.node) != 1:
            continue
        (node,) = case.model.graph.node
        graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        if node.domain not in ("", "ai.onnx") or any(a.type in graphs for a in node.attribute):
            continue
        seen[node.op_type] += 1
        if seen[node.op_type] <= CASES_PER_OP and node.op_type not in OTHER_SHAPE:
            found += _variants(case)
    return tuple(found)


def test_every_type_of_the_schema_is_computed() -> None:
    target = target_row("x86_64")
    problems: list[str] = []
    refused: set[str] = set()
    for v in variants():
        try:
            prepare(v.case, target, attributes=True)
        except SparrowError as e:
            if v.dtype.name == "float64" and v.op in FLOAT32_ONLY:
                refused.add(v.op)
            else:
                problems.append(f"{v.case.name}: {e.message}")
    assert not problems, "\n".join(problems)
    assert refused == FLOAT32_ONLY
    assert len({v.op for v in variants()}) > 120


def _differs(ready: Ready, got: Sequence[Array], want: Sequence[Array]) -> str:
    for name, a, b in zip(ready.source.outputs, got, want, strict=True):
        dtype = ready.source.types[name].dtype
        a = from_native(a, dtype)
        if dtype.kind != "float":
            if not np.array_equal(a, b):
                return f"{ready.case.name}: {name} is {a.ravel()[:6]}, expected {b.ravel()[:6]}"
            continue
        b = b.astype(np.float64)
        rtol = {"float64": 1e-6, "float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2}[dtype.name]
        close = np.isclose(a.astype(np.float64), b, rtol, rtol, equal_nan=True)
        if not close.all():
            return f"{ready.case.name}: {name} is {a[~close][:6]}, expected {b[~close][:6]}"
    return ""


@pytest.mark.slow
def test_every_type_gives_the_reference_answer(tmp_path: Path) -> None:
    target = target_row("x86_64")
    ready: list[Ready] = []
    for v in variants():
        if v.dtype.name != "float64" or v.op not in FLOAT32_ONLY:
            ready.append(prepare(v.case, target, attributes=True))
    problems: list[str] = []
    for at in range(0, len(ready), PER_LIBRARY):
        group = ready[at : at + PER_LIBRARY]
        folder = tmp_path / str(at)
        folder.mkdir()
        session = open_library(group, target, folder)
        for entry, r in enumerate(group):
            feeds = {name: r.case.inputs[name] for name in r.source.inputs}
            with np.errstate(all="ignore"):
                want = evaluate(load(r.case), feeds)
            given = [
                to_native(x, r.source.types[n].dtype).reshape(x.shape) for n, x in feeds.items()
            ]
            got = session.run(entry, given)
            problems.append(_differs(r, got, [cut(r.source, n, want) for n in r.source.outputs]))
    problems = [p for p in problems if p]
    assert not problems, "\n".join(problems)
