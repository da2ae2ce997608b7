"""Node tests rewritten for older opsets, judged by ONNX Runtime.

Every single-node test is written for each older version of its operator between opsets 7 and 13:
operands that were attributes then become attributes again. What the checker of the onnx package or
ONNX Runtime does not take in that version is left out; what ONNX Runtime answers is expected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from conformance.onnx_cases import Case, load_cases, make_case, onnxruntime_boundary, refusal
from sparrow.tensor import Array

OPSETS = range(7, 14)
# Attributes that became operands under another name.
_RENAMED = {"constant_value": "value", "K": "k"}
# Here ONNX Runtime gives other answers than the onnx package for the newest version as well, and
# the older version's text says the same as the newest: the package's own values are expected.
RUNTIME_DIFFERS = {
    "test_maxunpool_export_with_output_shape": "indices count in the shape without output_shape",
    "test_resize_downsample_scales_*_align_corners": "the resized length is rounded first",
}
ORT_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


def onnxruntime_answers(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Outputs of ONNX Runtime without optimisation, on one thread.

    Raises:
        ORT_ERRORS: It does not take the model or its inputs.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return [np.asarray(y) for y in session.run(None, dict(feeds))]


def _schema(op: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, opset)
    except onnx.defs.SchemaError:
        return None


def _attribute(value: Array, kind: onnx.defs.OpSchema.AttrType) -> object:
    """A constant operand as the value of an attribute."""
    flat = value.reshape(-1)
    single = kind in (onnx.defs.OpSchema.AttrType.FLOAT, onnx.defs.OpSchema.AttrType.INT)
    plain = [v.item() for v in flat]
    return plain[0] if single else plain


def _node_for(
    case: Case, new: onnx.defs.OpSchema, old: onnx.defs.OpSchema
) -> onnx.NodeProto | None:
    """The node with the operands and attributes of an older version; None where it has more."""
    (node,) = case.model.graph.node
    kept: list[str] = []
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    variadic = (
        bool(old.inputs)
        and old.inputs[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic
    )
    for i, name in enumerate(node.input):
        formal = new.inputs[min(i, len(new.inputs) - 1)].name
        as_attribute = _RENAMED.get(formal, formal)
        if not name:
            kept.append("")
        elif as_attribute in old.attributes:
            if name not in case.inputs or not case.inputs[name].size:
                return None
            attributes[as_attribute] = _attribute(
                case.inputs[name], old.attributes[as_attribute].type
            )
        elif i < len(old.inputs) or variadic:
            kept.append(name)
        elif formal == "steps" and name in case.inputs and np.all(case.inputs[name] == 1):
            continue
        else:
            return None
    while kept and not kept[-1]:
        kept.pop()
    if not attributes.keys() <= old.attributes.keys():
        return None
    return helper.make_node(node.op_type, kept, list(node.output), **attributes)


def _versions(op: str, newest: int) -> Iterator[tuple[int, onnx.defs.OpSchema]]:
    """Each older version of an operator with the first of `OPSETS` that has it."""
    seen = {newest}
    for opset in OPSETS:
        schema = _schema(op, opset)
        if schema is not None and schema.since_version not in seen:
            seen.add(schema.since_version)
            yield opset, schema


def _rewritten(case: Case) -> Iterator[Case]:
    if len(case.model.graph.node) != 1 or case.model.graph.node[0].domain or case.model.functions:
        return
    opset = next((o.version for o in case.model.opset_import if not o.domain), 0)
    op = case.model.graph.node[0].op_type
    new = _schema(op, opset)
    if new is None:
        return
    for version, old in _versions(op, new.since_version):
        node = _node_for(case, new, old)
        if node is None:
            continue
        graph = case.model.graph
        used = set(node.input)
        inputs = [v for v in graph.input if v.name in used]
        inner = helper.make_graph([node], case.name, inputs, list(graph.output))
        opsets = [helper.make_opsetid("", version)]
        model = helper.make_model(inner, opset_imports=opsets, ir_version=8)
        try:
            onnx.checker.check_model(model, full_check=True)
            feeds = {v.name: case.inputs[v.name] for v in inputs if v.name in case.inputs}
            answers = onnxruntime_answers(onnxruntime_boundary(model), feeds)
        except (*ORT_ERRORS, onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
            continue
        given: Sequence[Array | None] = [case.inputs.get(v.name) for v in inputs]
        name = f"{case.name}_opset{version}"
        if any(fnmatchcase(case.name, p) for p in RUNTIME_DIFFERS):
            answers = list(case.outputs)
        yield make_case(name, model, given, answers)


@cache
def load_old_cases() -> tuple[Case, ...]:
    """Every node test for every older version of its operator."""
    cases = sorted((c for c in load_cases() if not refusal(c)), key=lambda c: c.name)
    return tuple(old for c in cases for old in _rewritten(c))
