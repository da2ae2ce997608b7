"""What a quantized network is judged by: its outputs, or what a choice is made from."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparrow.graph import Graph
from sparrow.importers.model import import_model
from sparrow.passes import FRONT, optimize
from sparrow.quant import Recipe
from sparrow.quant.judged import judged
from sparrow.quant.run import run
from sparrow.tensor import Array

CLASSES, PLACES = 5, 300


def detector(rng: np.random.Generator, *behind: tuple[str, list[str], list[str]]) -> Graph:
    """Scores and boxes [1, 300, 4] of a sequence x [1, 300, 8], and what nodes make of them."""
    constants: dict[str, Array] = {
        "w1": rng.standard_normal((8, 32)).astype(np.float32),
        "ws": rng.standard_normal((32, CLASSES)).astype(np.float32),
        "wb": rng.standard_normal((32, 4)).astype(np.float32),
        "k": np.array([100]),
        "half": np.array(0.5, np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "ws"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("MatMul", ["r", "wb"], ["boxes"]),
        helper.make_node("ReduceMax", ["scores"], ["best"], axes=[2], keepdims=0),
        *(helper.make_node(op, x, y) for op, x, y in behind),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, PLACES, 8])],
        [helper.make_empty_tensor_value_info(y) for y in behind[-1][2]],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return optimize(import_model(model).graph, FRONT)


RANKED = [
    ("TopK", ["best", "k"], ["values", "at"]),
    ("Squeeze", ["boxes"], ["rows"]),
    ("Squeeze", ["at"], ["places"]),
    ("Gather", ["rows", "places"], ["y"]),
]

PEAKS = [
    ("ReduceMax", ["scores"], ["top"]),
    ("Equal", ["scores", "top"], ["peak"]),
    ("Where", ["peak", "scores", "half"], ["y"]),
]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_outputs_are_judged() -> None:
    g = detector(rng(), ("Neg", ["boxes"], ["y"]))
    assert judged(g) == ("y",)


@pytest.mark.parametrize(
    ("behind", "read"),
    [
        ([("ArgMax", ["scores"], ["y"])], {"scores"}),
        (RANKED, {"best", "rows"}),
        (PEAKS, {"scores", "top"}),
        (
            [("Greater", ["best", "half"], ["kept"]), ("NonZero", ["kept"], ["y"])],
            {"best"},
        ),
    ],
)
def test_what_a_choice_reads_is_judged(
    behind: list[tuple[str, list[str], list[str]]], read: set[str]
) -> None:
    g = detector(rng(), *behind)
    sizes = {"scores": PLACES * CLASSES, "best": PLACES, "rows": PLACES * 4, "top": 1}
    assert sorted(g.types[x].size for x in judged(g)) == sorted(sizes[x] for x in read)


def test_places_that_change_widen_nothing() -> None:
    """One rounding swaps boxes of nearly equal scores, which is no cause to spend 16 bits."""
    g = detector(rng(), *RANKED)
    samples = [
        {"x": np.random.default_rng(i).standard_normal((1, PLACES, 8)).astype(np.float32)}
        for i in range(4)
    ]
    assert run(g, samples, Recipe()).recipe.wide == ()
