"""The node tests that come with the onnx package, as cases for an ahead-of-time compiler.

ONNX feeds everything at run time; here the operands that determine shapes have to be known when the
model is compiled, so each case says which of its inputs are bound as constants.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests

from conformance.refused import REFUSED
from sparrow.graph import Graph, filled
from sparrow.importers.onnx import import_onnx
from sparrow.importers.onnx.call import ELEM
from sparrow.tensor import BF16, F16, Array, DType

# Operands that decide the shape of an output; all others stay inputs of the compiled code.
SHAPE_OPERANDS: dict[str, Sequence[int]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "DFT": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "Loop": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1),
    "NonMaxSuppression": (2,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "ReduceL1": (1,),
    "ReduceL2": (1,),
    "ReduceLogSum": (1,),
    "ReduceLogSumExp": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceProd": (1,),
    "ReduceSum": (1,),
    "ReduceSumSquare": (1,),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "SplitToSequence": (1,),
    "Squeeze": (1,),
    "STFT": (1, 3),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
# Operands that determine no shape and that the compiler nevertheless takes as constants only.
ATTRIBUTE_OPERANDS: dict[str, Sequence[int]] = {
    "CumProd": (1,),
    "CumSum": (1,),
    "Dropout": (1, 2),
    "Loop": (1,),
    "MelWeightMatrix": (2, 3, 4),
    "Resize": (1,),
}
# Relative tolerance of half types: two units in the last place, as an implementation may keep
# intermediate values in float32 or round each of them.
HALF = {F16: 2**-9, BF16: 2**-6}

# Absolute tolerances above the package's own 1e-7, with the reason.
LOOSER: dict[str, tuple[float, str]] = {
    "test_dft*": (1e-6, "the expected zeros carry the rounding of a float32 FFT"),
}
# What these return depends on the shape of their operand alone.
_SHAPE_ONLY = ("Shape", "Size")


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One node test.

    Attributes:
        name: Name in the onnx package.
        model: The model, usually of one node.
        inputs: Arrays in storage dtypes by input name; absent optional inputs are left out.
        outputs: Expected arrays in order.
        constants: Names of the inputs that determine shapes, bound when importing.
        attributes: Names of further inputs for operands of `ATTRIBUTE_OPERANDS`.
        foreign: Why no tensor of ours can hold the inputs or outputs, or ``""``.
        rtol: Relative tolerance of floats.
        atol: Absolute tolerance of floats.
    """

    name: str
    model: onnx.ModelProto
    inputs: dict[str, Array]
    outputs: tuple[Array, ...]
    constants: frozenset[str]
    attributes: frozenset[str]
    foreign: str
    rtol: float
    atol: float


def value_dtype(v: onnx.ValueInfoProto) -> DType | None:
    """DType of a graph input or output, None where we have none."""
    if v.type.WhichOneof("value") != "tensor_type":
        return None
    return ELEM.get(v.type.tensor_type.elem_type)


def _foreign(model: onnx.ModelProto) -> str:
    for v in (*model.graph.input, *model.graph.output):
        kind = v.type.WhichOneof("value")
        if kind != "tensor_type":
            return f"{kind.removesuffix('_type')} values"
        if v.type.tensor_type.elem_type not in ELEM:
            name = TensorProto.DataType.Name(v.type.tensor_type.elem_type)
            family = "float8" if name.startswith("FLOAT8") else name.lower()
            return f"element type {family}"
    return ""


def _array(value: Any, dtype: DType) -> Array:
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    return np.ascontiguousarray(np.asarray(value).astype(dtype.numpy)).reshape(np.shape(value))


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of a graph and of its subgraphs."""
    for n in graph.node:
        yield n
        for g in _subgraphs(n):
            yield from _all_nodes(g)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Values a node depends on, those that its subgraphs capture or return included."""
    yield from node.input
    for g in _subgraphs(node):
        for inner in g.node:
            yield from _reads(inner)
        yield from (o.name for o in g.output)


def _bound(graph: onnx.GraphProto, operands: Mapping[str, Sequence[int]]) -> frozenset[str]:
    """Graph inputs that these operands are computed from."""
    made = {y: n for n in _all_nodes(graph) for y in n.output}
    todo = [
        n.input[i]
        for n in _all_nodes(graph)
        for i in operands.get(n.op_type, ())
        if i < len(n.input)
    ]
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        node = made.get(name)
        if node is not None and node.op_type not in _SHAPE_ONLY:
            todo.extend(_reads(node))
    return frozenset(i.name for i in graph.input if i.name in seen)


def _case(test: Any) -> Case:
    model: onnx.ModelProto = test.model
    foreign = _foreign(model)
    given, expected = ([], []) if foreign else test.data_sets[0]
    return make_case(test.name, model, given, expected, test.rtol, test.atol)


def make_case(
    name: str,
    model: onnx.ModelProto,
    given: Sequence[Any],
    expected: Sequence[Any],
    rtol: float = 1e-3,
    atol: float = 1e-7,
) -> Case:
    """A case from a model and its values (arrays or TensorProtos; None for an absent input)."""
    graph = model.graph
    inputs: dict[str, Array] = {}
    stored = {i.name for i in graph.initializer}
    free = [v for v in graph.input if v.name not in stored]
    for v, value in zip(free, given, strict=False):
        dtype = value_dtype(v)
        if value is not None and dtype is not None:
            inputs[v.name] = _array(value, dtype)
    found = [(value_dtype(v), a) for v, a in zip(graph.output, expected, strict=False)]
    outputs = tuple(_array(a, d) for d, a in found if d is not None)
    bound = _bound(graph, SHAPE_OPERANDS)
    attributes = _bound(graph, ATTRIBUTE_OPERANDS) - bound
    half = [HALF.get(d, 0.0) for d in map(value_dtype, graph.output) if d]
    rtol = max([rtol, *half])
    return Case(name, model, inputs, outputs, bound, attributes, _foreign(model), rtol, atol)


@cache
def load_suite(kind: str) -> tuple[Case, ...]:
    """A suite of stored models: ``pytorch-converted``, ``pytorch-operator`` or ``simple``."""
    found = []
    for test in sorted(load_model_tests(kind=kind), key=lambda t: t.name):
        if test.model is not None:
            found.append(_case(test))
            continue
        folder = Path(str(test.model_dir))
        model = onnx.load(folder / "model.onnx")
        data = folder / "test_data_set_0"
        given, expected = (
            [onnx.load_tensor(f) for f in sorted(data.glob(f"{what}_*.pb"), key=_number)]
            for what in ("input", "output")
        )
        found.append(make_case(test.name, model, given, expected, test.rtol, test.atol))
    return tuple(found)


def _number(file: Path) -> int:
    return int(file.stem.split("_")[1])


@cache
def load_cases() -> tuple[Case, ...]:
    """All node tests; the package computes their data at every load, so once per process."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return tuple(_case(t) for t in load_model_tests(kind="node"))


def refusal(case: Case) -> str:
    """Why a case is expected to be refused, ``""`` when it must work."""
    if case.foreign:
        return case.foreign
    for reason, patterns in REFUSED.items():
        if any(fnmatchcase(case.name, p) for p in patterns):
            return reason
    return ""


def load(case: Case, attributes: bool = True) -> Graph:
    """Import a case with its shape-determining operands bound.

    Args:
        case: The case.
        attributes: Bind also what determines no shape but must be constant for the compiler.
    """
    shapes = {k: v.shape for k, v in case.inputs.items()}
    bound = case.constants | case.attributes if attributes else case.constants
    constants = {k: v for k, v in case.inputs.items() if k in bound}
    return import_onnx(case.model, shapes, constants=constants).graph


def cut(g: Graph, name: str, values: Mapping[str, Array]) -> Array:
    """An output without its padding."""
    y = values[name]
    for n in g.lengths:
        if n.output == name:
            y = filled(y, n.axis, int(values[n.count]))
    return y


def compare(got: Array, want: Array, case: Case, what: str) -> None:
    """Assert that an output has the expected type and values."""
    assert got.dtype == want.dtype and got.shape == want.shape, (
        f"{what}: {got.dtype}{got.shape}, expected {want.dtype}{want.shape}"
    )
    if got.dtype.kind == "f":
        loose = [atol for p, (atol, _) in LOOSER.items() if fnmatchcase(case.name, p)]
        np.testing.assert_allclose(got, want, case.rtol, max(case.atol, *loose, 0.0), err_msg=what)
    else:
        np.testing.assert_array_equal(got, want, err_msg=what)


def onnxruntime_boundary(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with casts at inputs and outputs whose dtype NumPy does not have.

    They are fed and returned in the storage dtype of `DType`: bfloat16 as float32, int4 as int8.
    """

    def plain(v: onnx.ValueInfoProto) -> int | None:
        dtype = value_dtype(v)
        if dtype == BF16:
            return int(TensorProto.FLOAT)
        if dtype is None or dtype.bits >= 8:
            return None
        return int(TensorProto.INT8 if dtype.kind == "int" else TensorProto.UINT8)

    before: list[onnx.NodeProto] = []
    after: list[onnx.NodeProto] = []
    inner = {
        v.name: f"{v.name}:inner" for v in (*model.graph.input, *model.graph.output) if plain(v)
    }

    def renamed(names: Sequence[str]) -> Iterator[str]:
        return (inner.get(n, n) for n in names)

    nodes = []
    for n in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(n)
        copy.ClearField("input")
        copy.ClearField("output")
        copy.input.extend(renamed(n.input))
        copy.output.extend(renamed(n.output))
        nodes.append(copy)
    ends: tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]] = ([], [])
    for values, found in ((model.graph.input, ends[0]), (model.graph.output, ends[1])):
        for v in values:
            code = plain(v)
            if code is None:
                found.append(v)
                continue
            shape = [d.dim_value for d in v.type.tensor_type.shape.dim]
            found.append(helper.make_tensor_value_info(v.name, code, shape))
            if values is model.graph.input:
                to = v.type.tensor_type.elem_type
                before.append(helper.make_node("Cast", [v.name], [inner[v.name]], to=to))
            else:
                after.append(helper.make_node("Cast", [inner[v.name]], [v.name], to=code))
    graph = helper.make_graph(
        [*before, *nodes, *after], model.graph.name, *ends, model.graph.initializer
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
