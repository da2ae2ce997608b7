"""Reads a model to the end however many of its nodes cannot be decoded."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from sparrow.errors import UnsupportedOp
from sparrow.importers.imported import Imported, Verdict
from sparrow.importers.onnx.call import ELEM
from sparrow.importers.onnx.decode import DECODERS
from sparrow.importers.onnx.read import Reader, Shapes, decode, freeze
from sparrow.tensor import Array, TensorType

# Constants up to this many elements may say what a shape is; larger ones are only weights.
SHAPE_ELEMENTS = 1024


class _Surveyor(Reader):
    """Gives the outputs of a missing node the type that ONNX infers, and goes on."""

    def __init__(
        self, model: onnx.ModelProto, folder: Path | None, name: str, shapes: Shapes
    ) -> None:
        super().__init__(model, folder, name)
        self.model = model
        self.shapes = shapes
        self.unknown: set[str] = set()
        self.kept: list[str] = []

    @cached_property
    def inferred(self) -> Mapping[str, onnx.ValueInfoProto]:
        """Types of values as ONNX infers them, without copying the weights."""
        m = onnx.ModelProto()
        m.ir_version = self.model.ir_version
        m.opset_import.extend(self.model.opset_import)
        m.graph.name = "g"
        m.graph.node.extend(self.model.graph.node)
        m.graph.output.extend(self.model.graph.output)
        types = dict(freeze(self.model, self.shapes)[0])
        for i in self.model.graph.input:
            if i.name in types:
                shape = types[i.name].shape
                code = i.type.tensor_type.elem_type
                m.graph.input.append(onnx.helper.make_tensor_value_info(i.name, code, shape))
        for t in self.model.graph.initializer:
            if int(np.prod(t.dims)) <= SHAPE_ELEMENTS and not t.external_data:
                m.graph.initializer.append(t)
            else:
                info = onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims))
                m.graph.input.append(info)
        try:
            done = onnx.shape_inference.infer_shapes(m, data_prop=True)
        except (onnx.shape_inference.InferenceError, ValueError):
            # a malformed graph makes it raise either; the nodes are then reported as unchecked
            return {}
        return {v.name: v for v in (*done.graph.value_info, *done.graph.output)}

    def type_of(self, name: str) -> TensorType | None:
        """The inferred type of a value where it is known and static."""
        info = self.inferred.get(name)
        if info is None or not info.type.HasField("tensor_type"):
            return None
        tensor = info.type.tensor_type
        dims = tensor.shape.dim
        static = tensor.HasField("shape") and all(d.HasField("dim_value") for d in dims)
        if tensor.elem_type not in ELEM or not static:
            return None
        return TensorType(tuple(int(d.dim_value) for d in dims), ELEM[tensor.elem_type])

    def node(self, node: onnx.NodeProto, env: dict[str, str]) -> None:
        """Decode a node, or note why not and make up its outputs."""
        if self.depth > 1:
            super().node(node, env)
            return
        if any(x in self.unknown for x in node.input):
            self.verdicts.append(self._unchecked(node))
            self._opaque(node, env)
            return
        count, depth, opsets = len(self.verdicts), self.depth, self.opsets
        try:
            super().node(node, env)
        except UnsupportedOp as e:
            self.depth, self.opsets = depth, opsets
            del self.verdicts[count:]
            where = node.name or (node.output[0] if node.output else node.op_type)
            self.verdicts.append(Verdict(where, self._op(node), "missing", (), str(e)))
            self.kept += [v for x in node.input if x and (v := env[x])]
            self._opaque(node, env)

    def _op(self, node: onnx.NodeProto) -> str:
        plain = node.domain in ("", "ai.onnx")
        return str(node.op_type) if plain else f"{node.domain}.{node.op_type}"

    def _unchecked(self, node: onnx.NodeProto) -> Verdict:
        where = node.name or (node.output[0] if node.output else node.op_type)
        op = self._op(node)
        if op in DECODERS or onnx.defs.has(node.op_type, domain=node.domain):
            why = "the type of its operands follows from a missing node"
            return Verdict(where, op, "unchecked", (), why)
        return Verdict(where, op, "missing", (), f"{where} ({op}): no decoder for this operator")

    def _opaque(self, node: onnx.NodeProto, env: dict[str, str]) -> None:
        for name in node.output:
            if not name or name in env:
                continue
            t = self.type_of(name)
            if t is None:
                self.unknown.add(name)
                env[name] = ""
            else:
                env[name] = self.b.input(self.b.fresh(), t)

    def extra_outputs(self) -> dict[str, str]:
        """What missing nodes read, so that the way to them is checked too."""
        values = [v for v in dict.fromkeys(self.kept) if v not in self.b.consts]
        return {self.b.fresh(): v for v in values}


def survey_onnx(
    source: str | Path | onnx.ModelProto,
    shapes: Shapes | None = None,
    *,
    constants: Mapping[str, Array] | None = None,
    states: Mapping[str, str] | None = None,
    name: str = "main",
) -> Imported:
    """`import_onnx` that does not stop at nodes it cannot decode.

    Their verdict is ``missing``; nodes whose operand types nobody knows for that reason are
    ``unchecked``. The Graph has the outputs of missing nodes as inputs.

    Raises:
        BadInput: The file or the given shapes are wrong.
        BadModel: The model is malformed.
    """

    def make(model: onnx.ModelProto, folder: Path | None, entry: str) -> Reader:
        return _Surveyor(model, folder, entry, shapes or {})

    return decode(source, shapes or {}, constants or {}, states or {}, name, make)
