"""``parse_graph(*print_graph(g)) == g`` for random graphs, names, expressions and constants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sparrow import lane
from sparrow.errors import SparrowError
from sparrow.graph import Graph, Node, State
from sparrow.ops.lane import Lane
from sparrow.tensor import (
    BF16,
    BOOL,
    F16,
    F32,
    F64,
    I4,
    I8,
    I64,
    U8,
    Affine,
    Array,
    DType,
    TensorType,
)
from sparrow.text import parse_graph, print_graph
from strategies import any_exprs, graphs, names

DTYPES = (F32, F64, I64, U8, BOOL)


def assert_same(a: Graph, b: Graph) -> None:
    """Assert that two graphs are equal in every field, arrays bit by bit."""
    for f in ("name", "inputs", "outputs", "nodes", "states", "lengths"):
        assert getattr(a, f) == getattr(b, f), f
    assert dict(a.types) == dict(b.types)
    assert list(a.consts) == list(b.consts)
    pairs = [(a.consts[k], b.consts[k]) for k in a.consts]
    pairs += [(s.initial, t.initial) for s, t in zip(a.states, b.states, strict=True)]
    for x, y in pairs:
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


@given(graphs())
def test_random_graphs_read_back(g: Graph) -> None:
    assert_same(parse_graph(*print_graph(g)), g)


@given(any_exprs(DTYPES))
def test_random_expressions_read_back(e: lane.Expr) -> None:
    inputs = tuple(f"x{i}" for i in range(len(DTYPES)))
    types = {x: TensorType((2,), t) for x, t in zip(inputs, DTYPES, strict=True)}
    types["y"] = TensorType((2,), e.dtype)
    g = Graph("main", inputs, ("y",), (Node(Lane(e), inputs, ("y",)),), types, {})
    assert_same(parse_graph(*print_graph(g)), g)


@given(names(), names(), names(), names())
def test_any_name_and_origin_reads_back(x: str, y: str, graph: str, origin: str) -> None:
    if x == y:
        y += "'"
    t = TensorType((1,), F32)
    node = Node(Lane(lane.Arg(0, F32)), (x,), (y,), origin)
    g = Graph(graph, (x,), (y,), (node,), {x: t, y: t}, {})
    assert_same(parse_graph(*print_graph(g)), g)


@st.composite
def constants(draw: st.DrawFn) -> tuple[DType, np.ndarray]:
    dtype = draw(st.sampled_from([F16, F32, F64, I4, I8, I64, U8, BOOL]))
    shape = draw(npst.array_shapes(min_dims=0, max_dims=3, max_side=4))
    elements = st.integers(-8, 7) if dtype == I4 else None
    return dtype, draw(npst.arrays(dtype.numpy, shape, elements=elements))


@given(constants(), st.booleans())
def test_any_constant_and_state_reads_back(c: tuple[DType, np.ndarray], state: bool) -> None:
    dtype, array = c
    t = TensorType(array.shape, dtype)
    if not state:
        g = Graph("main", (), ("c",), (), {"c": t}, {"c": array})
    else:
        node = Node(Lane(lane.Arg(0, dtype)), ("s",), ("t",))
        g = Graph("main", (), ("t",), (node,), {"s": t, "t": t}, {}, (State("h", "s", "t", array),))
    assert_same(parse_graph(*print_graph(g)), g)


def test_quantized_and_bfloat16_types_read_back() -> None:
    scale = np.linspace(0.1, 0.9, 12, dtype=np.float32).reshape(12, 1)
    quant = Affine(scale, np.zeros((12, 1), np.int32), (1, -1))
    codes = TensorType((12, 5), I8, "OI", quant)
    wide = TensorType((3,), BF16)
    consts: dict[str, Array] = {
        "w": np.ones((12, 5), np.int8),
        "b": np.array([1, 2, 3], np.float32),
    }
    g = Graph("q", (), ("w", "b"), (), {"w": codes, "b": wide}, consts)
    assert_same(parse_graph(*print_graph(g)), g)


@given(graphs(max_nodes=3), st.data())
def test_broken_texts_are_refused_in_one_line(g: Graph, data: st.DataObject) -> None:
    text, arrays = print_graph(replace(g, name="main"))
    at = data.draw(st.integers(0, len(text) - 1))
    junk = data.draw(st.sampled_from(["", "(", ")", "%", "_", '"', "9", "x", " ", "\n", "=", "#"]))
    try:
        parse_graph(text[:at] + junk + text[at + 1 :], arrays)
    except SparrowError as e:
        assert "\n" not in str(e)
