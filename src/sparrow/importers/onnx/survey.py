"""Reads a model to the end however many of its nodes cannot be decoded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from sparrow.errors import UnsupportedOp
from sparrow.export import PROTO
from sparrow.importers.imported import Imported, Shapes, Verdict
from sparrow.importers.onnx.call import ELEM
from sparrow.importers.onnx.decode import DECODERS
from sparrow.importers.onnx.read import Reader, decode
from sparrow.tensor import TensorType, dtype_of

# Constants up to this many elements may say what a shape is; larger ones are only weights.
SHAPE_ELEMENTS = 1024


class _Surveyor(Reader):
    """Gives the outputs of a missing node the type that ONNX infers, and goes on."""

    def __init__(self, model: onnx.ModelProto, folder: Path | None, name: str) -> None:
        super().__init__(model, folder, name)
        self.model = model
        self.unknown: set[str] = set()
        self.kept: list[str] = []

    def inferred(self, node: onnx.NodeProto, env: Mapping[str, str]) -> dict[str, TensorType]:
        """Types of a node's outputs where ONNX infers static ones from operands we have.

        The node stands alone: over a whole model ONNX would also compute what constants come to,
        and of what size is up to the model. What a body reads from around its node is missing then,
        which onnx 1.23 answers by following a null pointer: nodes with bodies are not inferred.
        """
        lists = any(x and env[x] in self.b.sequences for x in node.input)
        if lists or any(a.HasField("g") or a.graphs for a in node.attribute):
            return {}
        m = onnx.ModelProto(ir_version=self.model.ir_version)
        m.opset_import.extend(self.model.opset_import)
        m.graph.name = "g"
        m.graph.node.append(node)
        m.graph.output.extend(onnx.ValueInfoProto(name=y) for y in node.output if y)
        for x in {x: None for x in node.input if x}:
            t, value = self.b.type(env[x]), self.b.value(env[x])
            if value is not None and t.size <= SHAPE_ELEMENTS and dtype_of(value) == t.dtype:
                m.graph.initializer.append(numpy_helper.from_array(value, x))
            else:
                info = onnx.helper.make_tensor_value_info(x, PROTO[t.dtype], t.shape)
                m.graph.input.append(info)
        try:
            done = onnx.shape_inference.infer_shapes(m)
        except (onnx.shape_inference.InferenceError, ValueError):
            # a malformed node makes it raise either; what follows is then reported as unchecked
            return {}
        found = {v.name: _static(v.type) for v in (*done.graph.value_info, *done.graph.output)}
        return {name: t for name, t in found.items() if t is not None}

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
        types = {} if self.unknown.intersection(node.input) else self.inferred(node, env)
        for name in node.output:
            if not name or name in env:
                continue
            t = types.get(name)
            if t is None:
                self.unknown.add(name)
                env[name] = ""
            else:
                env[name] = self.b.input(self.b.fresh(), t)

    def extra_outputs(self) -> dict[str, str]:
        """What missing nodes read, so that the way to them is checked too."""
        gone = self.b.consts.keys() | self.b.sequences.keys()
        values = [v for v in dict.fromkeys(self.kept) if v not in gone]
        return {self.b.fresh(): v for v in values}


def _static(t: onnx.TypeProto) -> TensorType | None:
    """A tensor type of ONNX where it is known and static."""
    dims = t.tensor_type.shape.dim
    static = t.tensor_type.HasField("shape") and all(
        d.HasField("dim_value") and d.dim_value >= 0 for d in dims
    )
    if not t.HasField("tensor_type") or t.tensor_type.elem_type not in ELEM or not static:
        return None
    return TensorType(tuple(int(d.dim_value) for d in dims), ELEM[t.tensor_type.elem_type])


def survey_onnx(
    source: str | Path | onnx.ModelProto,
    shapes: Shapes | None = None,
    *,
    constants: Mapping[str, Any] | None = None,
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
    return decode(source, shapes or {}, constants or {}, states or {}, name, _Surveyor)
