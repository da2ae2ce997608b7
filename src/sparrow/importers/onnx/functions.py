"""Operators that are defined by simpler ones: by ONNX itself, or by the model that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    return _unfolded(bare, body, opsets, types)


def local_body(
    node: onnx.NodeProto,
    functions: Iterable[onnx.FunctionProto],
    opsets: Mapping[str, int],
    types: Sequence[TensorType | None],
) -> onnx.ModelProto | None:
    """The body of a model's own function that wants other opsets than the model has.

    Arguments and result as for `standard_body`; ``functions`` are those of the model.
    """
    for f in functions:
        if function_key(f, f.name) == function_key(node, node.op_type):
            return _unfolded(node, f, opsets, types)
    return None


def function_key(of: onnx.NodeProto | onnx.FunctionProto, name: str) -> tuple[str, str, str]:
    """What tells functions, and calls of them, apart."""
    return "" if of.domain == "ai.onnx" else of.domain, name, of.overload


def _unfolded(
    node: onnx.NodeProto,
    body: onnx.FunctionProto,
    opsets: Mapping[str, int],
    types: Sequence[TensorType | None],
) -> onnx.ModelProto:
    """A call as a model under the opsets of the function it calls."""
    inputs = {x: t for x, t in zip(node.input, types, strict=False) if t is not None}
    graph = helper.make_graph(
        [node],
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


def _with_defaults(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose calls of local functions say every attribute that has a default.

    onnx 1.23 forgets defaults when it inlines.
    """
    defaults = {
        function_key(f, f.name): tuple(f.attribute_proto)
        for f in model.functions
        if f.attribute_proto
    }
    if not defaults:
        return model
    filled = onnx.ModelProto()
    filled.CopyFrom(model)

    def fill(nodes: Iterable[onnx.NodeProto]) -> None:
        for n in nodes:
            given = {a.name for a in n.attribute}
            known = defaults.get(function_key(n, n.op_type), ())
            n.attribute.extend(a for a in known if a.name not in given)
            for a in n.attribute:
                for g in (a.g, *a.graphs) if a.HasField("g") else a.graphs:
                    fill(g.node)

    fill(filled.graph.node)
    for f in filled.functions:
        fill(f.node)
    return filled


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model with the bodies of its local functions in place of their calls.

    Calls of functions that want other opsets than the model are left to `local_body`, and with
    them all functions, which those may call.

    Raises:
        BadModel: A call does not fit its function.
    """
    model = _with_defaults(model)
    try:
        done = inline_local_functions(model)
    except onnx.checker.ValidationError as e:
        raise BadModel(f"local functions: {e}") from None
    except RuntimeError as e:
        # an assertion of the C++ library; what it asserts stands after its place in the source
        said = str(e).partition("failed: ")[2] or str(e)
        raise BadModel(f"a call does not fit its function: {said}") from None
    if done.functions:
        del done.functions[:]
        done.functions.extend(model.functions)
    return done
