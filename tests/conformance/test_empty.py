"""Operators over tensors without elements: built and proved, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import sparrow
from fuzz import nodes
from sparrow.errors import SparrowError


def one_of_each_operator() -> list[onnx.ModelProto]:
    """The first node test of every single operator."""
    found: dict[str, onnx.ModelProto] = {}
    for data in nodes.seeds():
        model = onnx.load_from_string(data)
        if len(model.graph.node) == 1:
            found.setdefault(model.graph.node[0].op_type, model)
    return list(found.values())


def emptied(model: onnx.ModelProto, axis: int) -> onnx.ModelProto:
    """The model with the first or last extent of every input 0."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {t.name for t in copy.graph.initializer}
    for v in copy.graph.input:
        dims = v.type.tensor_type.shape.dim
        if v.name not in stored and len(dims):
            dims[axis].dim_value = 0
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, -1])
def test_every_operator_of_nothing(axis: int, tmp_path: Path) -> None:
    built = 0
    for i, model in enumerate(one_of_each_operator()):
        try:
            sparrow.build(emptied(model, axis), out=tmp_path / str(i))
            built += 1
        except SparrowError as e:
            assert e.exit_code == 2 and str(e).isprintable(), (model.graph.name, str(e))
    assert built > 50


@pytest.mark.parametrize("op", ["Resize", "LayerNormalization", "Relu", "Concat"])
def test_some_operators_of_nothing(op: str, tmp_path: Path) -> None:
    model = next(m for m in one_of_each_operator() if m.graph.node[0].op_type == op)
    for axis in (0, -1):
        try:
            assert sparrow.build(emptied(model, axis), out=tmp_path / str(axis)).verify().ok
        except SparrowError as e:
            assert e.exit_code == 2 and str(e).isprintable()
