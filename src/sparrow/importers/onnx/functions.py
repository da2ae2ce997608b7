"""Standard operators that ONNX itself defines by simpler ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import helper
from onnx.inliner import inline_local_functions

from sparrow.errors import BadModel
from sparrow.export import PROTO
from sparrow.tensor import TensorType


def _typed(name: str, t: TensorType) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, PROTO[t.dtype], t.shape)


def standard_body(
    node: onnx.NodeProto, opsets: Mapping[str, int], types: Sequence[TensorType | None]
) -> onnx.ModelProto | None:
    """The definition of a node's operator, as a model with the node's present inputs and outputs.

    Args:
        node: A node of a standard domain.
        opsets: Opset version of every domain the model imports.
        types: Input types, None where absent.

    Returns:
        None when ONNX defines the operator in words only.
    """
    version = opsets.get(node.domain, 0)
    try:
        # the type stubs of onnx lack what speaks of function bodies
        schema: Any = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return None
    bare = onnx.NodeProto()
    bare.CopyFrom(node)
    given = {a.name for a in node.attribute}
    bare.attribute.extend(
        a.default_value
        for a in schema.attributes.values()
        if a.name not in given and a.default_value.name
    )
    # an input without a type is an absent one
    protos = [
        (onnx.TypeProto() if t is None else _typed("", t).type).SerializeToString() for t in types
    ]
    body = onnx.FunctionProto()
    # a body for an older opset holds for later ones until the operator changes
    if schema.has_function:
        at = max((v for v in schema.function_opset_versions if v <= version), default=0)
        text = schema.get_function_with_opset_version(at) if at else b""
    elif schema.has_context_dependent_function:
        known = schema.context_dependent_function_opset_versions
        at = max((v for v in known if v <= version), default=0)
        text = (
            schema.get_context_dependent_function_with_opset_version(
                at, bare.SerializeToString(), protos
            )
            if at
            else b""
        )
    else:
        return None
    body.ParseFromString(text)
    if not body.node:
        return None
    inputs = {x: t for x, t in zip(node.input, types, strict=False) if t is not None}
    graph = helper.make_graph(
        [bare],
        node.op_type,
        [_typed(x, t) for x, t in inputs.items()],
        [onnx.ValueInfoProto(name=y) for y in node.output if y],
    )
    needed = {**opsets, **{o.domain: o.version for o in body.opset_import}}
    model = helper.make_model(
        graph,
        functions=[body],
        opset_imports=[helper.make_opsetid(d, v) for d, v in needed.items()],
    )
    return inlined(model)


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model with the bodies of its local functions in place of their calls.

    Raises:
        BadModel: A call does not fit its function.
    """
    try:
        return inline_local_functions(model)
    except onnx.checker.ValidationError as e:
        raise BadModel(f"local functions: {e}") from None
    except RuntimeError as e:
        # an assertion of the C++ library; what it asserts stands after its place in the source
        said = str(e).partition("failed: ")[2] or str(e)
        raise BadModel(f"a call does not fit its function: {said}") from None
