"""Einsum equations against numpy.einsum, and the forms that must be refused."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from sparrow.errors import BadModel
from sparrow.graph import Graph
from sparrow.importers.onnx import import_onnx
from sparrow.reference import evaluate


def build(equation: str, *shapes: tuple[int, ...]) -> Graph:
    names = [f"x{i}" for i in range(len(shapes))]
    node = helper.make_node("Einsum", names, ["y"], equation=equation)
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in zip(names, shapes, strict=True)
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", inputs, [output])
    opset = helper.make_opsetid("", 13)
    return import_onnx(helper.make_model(graph, opset_imports=[opset])).graph


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", ((2, 3), (3, 4))),
        ("ij,jk->ki", ((2, 3), (3, 4))),
        ("ij,kj->ik", ((2, 3), (4, 3))),
        ("bhid,bhjd->bhij", ((2, 3, 4, 5), (2, 3, 6, 5))),
        ("bhij,bhjd->bihd", ((2, 3, 4, 6), (2, 3, 6, 5))),
        ("b i j , b j k -> b k i", ((2, 3, 4), (2, 4, 5))),
        ("ii->i", ((3, 3),)),
        ("ii->", ((3, 3),)),
        ("iji->j", ((3, 2, 3),)),
        ("iii->i", ((3, 3, 3),)),
        ("ij->", ((2, 3),)),
        ("ij", ((2, 3),)),
        ("ba", ((2, 3),)),
        ("ij,jk", ((2, 3), (3, 4))),
        ("i,j->ij", ((2,), (3,))),
        ("i,i->", ((3,), (3,))),
        ("i,i->i", ((3,), (3,))),
        (",ij->ij", ((), (2, 3))),
        ("...ij,...jk->...ik", ((2, 1, 3, 4), (5, 4, 6))),
        ("...i,...i->...", ((2, 3, 4), (4,))),
        ("i...->...", ((2, 3, 4),)),
        ("...->...", ((2, 3),)),
        ("a...b,b...->...a", ((2, 3, 4, 5), (5, 3, 4))),
        ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 5))),
        ("ij,ik,il->i", ((2, 3), (2, 4), (2, 5))),
        ("abc,cd,def->abef", ((2, 3, 4), (4, 5), (5, 6, 7))),
        ("ij,jk->ik", ((2, 1), (3, 4))),
        ("ij,ij->j", ((2, 3), (1, 3))),
        ("ij,jk->ik", ((0, 3), (3, 4))),
        ("ij,jk->ik", ((2, 0), (0, 4))),
    ],
)
def test_matches_numpy(equation: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    rng = np.random.default_rng(0)
    xs = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    g = build(equation, *shapes)
    got = evaluate(g, {f"x{i}": x for i, x in enumerate(xs)})["y"]
    want = np.einsum(equation.replace(" ", ""), *xs)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, 1e-5, 1e-5)


def test_transposed_operands_are_read_in_place() -> None:
    g = build("bhid,bhjd->bhij", (2, 3, 4, 5), (2, 3, 6, 5))
    assert [type(n.op).__name__ for n in g.nodes] == ["MatMul"]


@pytest.mark.parametrize(
    ("equation", "shapes", "says"),
    [
        ("ij,jk->ik", ((2, 3),), "1 operands"),
        ("ij->i", ((2, 3, 4),), "rank 3"),
        ("i1->i", ((2, 3),), "term 'i1'"),
        ("ij->ik", ((2, 3),), "output 'ik'"),
        ("ij->ii", ((2, 3),), "output 'ii'"),
        ("ij,jk->ik", ((2, 3), (4, 5)), "stands for 3 and 4"),
        ("ii->i", ((2, 3),), "stands for 2 and 3"),
        ("...ij->ij", ((2,),), "rank 1"),
    ],
)
def test_refuses(equation: str, shapes: tuple[tuple[int, ...], ...], says: str) -> None:
    with pytest.raises(BadModel, match=says):
        build(equation, *shapes)
