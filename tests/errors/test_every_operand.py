"""Each operator with every operand and attribute wrong in every way: taken, or one line."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, helper, numpy_helper

from fuzz.corpus import FOLDER
from sparrow.errors import SparrowError
from sparrow.importers.onnx import import_onnx
from sparrow.tensor import Array

FILES = sorted((FOLDER / "onnx").glob("*.onnx"))
SHAPES = ((), (0,), (1,), (2,), (5,), (1, 1), (2, 2), (0, 3), (1, 2, 3), (1, 0, 4, 4))
NUMBERS = (0, 1, -1, 2, 7, 1 << 16, 1 << 31, -(1 << 63), (1 << 63) - 1, np.nan, np.inf, 1e30, 1e-30)
TYPES = (np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_)
A = AttributeProto
ATTRIBUTES = (
    *(A(type=A.INT, i=i) for i in (0, 3, -(1 << 63))),
    *(A(type=A.FLOAT, f=f) for f in (1.5, np.nan)),
    *(A(type=A.STRING, s=s) for s in (b"x", b"\xff")),
    *(A(type=A.INTS, ints=v) for v in ([], [1, 2], [0, 0], [1 << 62] * 3)),
    *(A(type=A.FLOATS, floats=[np.inf] * 2), A(type=A.STRINGS, strings=[b"a"])),
    *(A(type=A.TENSOR, t=helper.make_tensor("t", 1, [2], [1, 2])), A(type=A.TENSOR)),
    *(A(type=A.GRAPH, g=helper.make_graph([], "g", [], [])), A(type=A.GRAPHS)),
    *(A(type=A.TYPE_PROTO), A(), A(type=A.INT), A(type=A.TENSORS)),
)


def copied(m: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.NodeProto]:
    """A copy, and its last node, which is the operator that the file is for."""
    new = onnx.ModelProto()
    new.CopyFrom(m)
    return new, new.graph.node[-1]


def arrays(a: Array) -> Iterator[Array]:
    """The array with other values, of other shapes, of other types."""
    for v in NUMBERS:
        if a.dtype.kind == "f" or (
            isinstance(v, int) and np.can_cast(np.min_scalar_type(v), a.dtype)
        ):
            yield np.full(a.shape, v, a.dtype)
    for shape in (*SHAPES, (*a.shape, 1), a.shape[1:]):
        yield np.resize(a, shape).astype(a.dtype) if a.size else np.zeros(shape, a.dtype)
    for t in TYPES:
        yield np.nan_to_num(a.astype(np.float64)).astype(t)


def operands(m: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    """The model with one operand changed."""
    for i, t in enumerate(m.graph.initializer):
        plain = t.data_type not in (0, onnx.TensorProto.STRING) and not t.external_data
        for a in arrays(numpy_helper.to_array(t)) if plain else ():
            new, _ = copied(m)
            new.graph.initializer[i].CopyFrom(numpy_helper.from_array(a, t.name))
            yield new
    known = [v.name for v in (*m.graph.input, *m.graph.initializer)]
    for i in range(len(m.graph.node[-1].input) + 2):
        for name in (*dict.fromkeys(known), ""):
            new, node = copied(m)
            names = [*node.input, "", ""][: max(i + 1, len(node.input))]
            names[i] = name
            node.ClearField("input")
            node.input.extend(names)
            yield new
    for i in range(len(m.graph.input)):
        for shape in SHAPES:
            for code in (0, 1, 3, 7, 9):
                new, _ = copied(m)
                t = new.graph.input[i].type.tensor_type
                t.elem_type = code or t.elem_type
                t.ClearField("shape")
                t.shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=d) for d in shape)
                yield new


@cache
def names_of(op: str) -> tuple[str, ...]:
    """Attributes that some version of an operator has."""
    every = (s for s in onnx.defs.get_all_schemas_with_history() if s.name == op)
    return tuple(sorted({name for s in every for name in s.attributes}))


def attributes(m: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    """The model in several opsets with one attribute changed."""
    for version in (0, 7, 11, 13, 23):
        for name in names_of(m.graph.node[-1].op_type):
            for a in ATTRIBUTES:
                new, node = copied(m)
                for o in new.opset_import:
                    o.version = version or o.version
                kept = [b for b in node.attribute if b.name != name]
                node.ClearField("attribute")
                node.attribute.extend(kept)
                node.attribute.add().CopyFrom(a)
                node.attribute[-1].name = name
                yield new


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_what_is_wrong_is_one_line(file: Path) -> None:
    m = onnx.load(file, load_external_data=False)
    for case in (*operands(m), *attributes(m)):
        try:
            import_onnx(case)
        except SparrowError as e:
            assert e.exit_code == 2 and str(e).isprintable() and len(str(e)) <= 2000
