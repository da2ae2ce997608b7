"""The text of a graph: what it looks like, and what a broken one is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sparrow import lane
from sparrow.builder import Builder
from sparrow.errors import SparrowError
from sparrow.export import to_onnx
from sparrow.graph import retyped
from sparrow.importers.onnx import import_onnx
from sparrow.ops.lstm import LSTM
from sparrow.ops.recurrent import Activation
from sparrow.tensor import F32, TensorType
from sparrow.text import parse_graph, print_graph

TEXT = """\
graph main
input x: float32[2x3]
const %1: float32[] = [0.5]
y: float32[2x3] = Lane(x, %1) {expr=max(add(%0, 1.0f32), %1)}  # y
output y
"""
CODES = (
    "y: int8[2x3] affine(float32[1x1] [0.5], int32[1x1] [3], (-1, -1)) = "
    "Lane(x, %1) {expr=cast(add(%0, %1), i8)}"
)


def test_a_small_graph_reads_well() -> None:
    b = Builder("main")
    x, half = b.input("x", TensorType((2, 3), F32)), b.scalar(0.5, F32)
    b.origin = "y"
    one = lane.call("add", lane.Arg(0, F32), lane.Imm(1.0, F32))
    y = b.lane(lane.call("max", one, lane.Arg(1, F32)), x, half)
    assert print_graph(b.finish({"y": y}, {})) == (TEXT, {})


def test_large_constants_are_kept_beside() -> None:
    b = Builder("main")
    x = b.input("x", TensorType((2, 1, 3), F32))
    w, r = (b.const(np.ones(s, np.float32)) for s in ((8, 3), (8, 2)))
    y = b.add_n(LSTM(f=Activation("Affine", 0.5, 1.0), sequence=False), x, w, r)[0]
    text, arrays = print_graph(b.finish({"y": y}, {}))
    assert '{sequence=false, f=Activation(name="Affine", alpha=0.5, beta=1.0)}' in text
    assert sorted(a.shape for a in arrays.values()) == [(8, 2), (8, 3)]
    with pytest.raises(SparrowError, match=r"line \d+: array #[0-9a-f]{16} should be float32\["):
        parse_graph(text, {})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("graph main\n", "", "line 1: expected 'graph <name>'"),
        ("float32[2x3]\n", "float33[2x3]\n", "line 2: expected a tensor type"),
        ("[0.5]", "[0.5, 1.0]", "line 3: expected 1 values"),
        ("[0.5]", "[half]", "line 3: expected values of float32"),
        ("Lane(", "Line(", 'line 4: expected an operator, found "Line'),
        ("max(", "most(", "line 4: expected a lane function or value"),
        ("1.0f32", "1i64", "line 4: add mixes dtypes"),
        ("expr=", "expression=", "line 4: expected an attribute of Lane"),
        ("{expr=max(add(%0, 1.0f32), %1)}", "{expr=1}", "line 4: expected a value of expr"),
        ("{expr=max(add(%0, 1.0f32), %1)}", "", "line 4: expected attribute expr of Lane"),
        ("add(%0", "add(%7", "an operand that is not there"),
        ("output y", "output z", "output 'z' is not defined"),
        ("y: float32[2x3]", "y: float32[3x2]", "its node infers float32"),
        ("y: float32[2x3]", "x: float32[2x3]", "line 4: 'x' is declared a second time"),
        ("max(add(%0", "abs(" * 300 + "max(add(%0", "line 4: expected at most 200 levels"),
    ],
)
def test_broken_texts_say_where(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(SparrowError) as e:
        parse_graph(TEXT.replace(old, new, 1))
    assert message in str(e.value)


def test_the_rounding_scheme_survives_text_and_onnx() -> None:
    g = replace(parse_graph(TEXT), scheme="tflite")
    assert "scheme tflite\n" in print_graph(g)[0]
    assert parse_graph(print_graph(g)[0]).scheme == "tflite"
    assert import_onnx(to_onnx(g)).graph.scheme == "tflite"
    with pytest.raises(SparrowError, match="line 2: scheme 'odd', expected one of f32"):
        parse_graph(TEXT.replace("graph main\n", "graph main\nscheme odd\n"))


def test_codes_may_declare_what_they_mean() -> None:
    text = TEXT.replace("y: float32[2x3] = Lane(x, %1) {expr=max(add(%0, 1.0f32), %1)}", CODES)
    g = parse_graph(text)
    assert g.types["y"].quant is not None
    assert parse_graph(print_graph(g)[0]).types["y"] == g.types["y"]
    assert retyped(g, g.nodes).types["y"] == g.types["y"]
