"""Operators that ONNX Runtime's optimizer writes, with their attributes, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import sparrow
from conformance.test_sequence_onnx import check, model_of, run
from small_models import classifier, model, value
from sparrow.errors import BadModel, UnsupportedOp
from sparrow.importers.onnx import import_onnx
from sparrow.reference import evaluate
from sparrow.tensor import Array

CASES: tuple[tuple[str, tuple[tuple[int, ...], ...], dict[str, Any]], ...] = (
    ("Gelu", ((2, 3, 5),), {}),
    ("QuickGelu", ((2, 7),), {}),
    ("QuickGelu", ((2, 7),), {"alpha": 1.0}),
    ("FastGelu", ((2, 7),), {}),
    ("FastGelu", ((2, 7), (7,)), {}),
    ("BiasGelu", ((2, 3, 7), (7,)), {}),
    ("FusedMatMul", ((2, 3, 4, 5), (2, 3, 4, 6)), {"transA": 1, "alpha": 0.25}),
    ("FusedMatMul", ((2, 3, 4, 5), (5, 6)), {}),
    ("FusedMatMul", ((4, 5), (2, 6, 5)), {"transB": 1}),
    ("FusedMatMul", ((3, 2, 4, 5), (2, 4, 5, 6)), {"transBatchA": 1}),
    ("FusedMatMul", ((2, 3, 4, 5), (6, 2, 3, 5)), {"transBatchB": 1, "transB": 1}),
    ("FusedGemm", ((3, 4), (4, 5), (5,)), {"activation": "Relu"}),
    (
        "FusedGemm",
        ((4, 3), (5, 4), (3, 5)),
        {"activation": "LeakyRelu", "activation_alpha": 0.25, "transA": 1, "transB": 1},
    ),
    ("FusedConv", ((1, 3, 6, 5), (4, 3, 3, 3), (4,)), {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    ("FusedConv", ((1, 4, 9), (4, 1, 3), (4,)), {"activation": "Sigmoid", "group": 4}),
    (
        "FusedConv",
        ((1, 3, 6, 5), (4, 3, 1, 1), (4,), (1, 4, 6, 5)),
        {"activation": "Clip", "activation_params": [-0.5, 0.75]},
    ),
    (
        "FusedConv",
        ((1, 3, 6, 5), (4, 3, 1, 1)),
        {"activation": "HardSigmoid", "activation_params": [0.25, 0.5]},
    ),
)


@pytest.mark.parametrize(("op", "shapes", "attrs"), CASES)
def test_what_the_optimizer_fuses(
    op: str, shapes: tuple[tuple[int, ...], ...], attrs: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    inputs = {f"i{k}": rng.standard_normal(s).astype(np.float32) for k, s in enumerate(shapes)}
    check(
        model_of(
            helper.make_node(op, list(inputs), ["y"], domain="com.microsoft", **attrs), inputs, {}
        ),
        inputs,
    )


def test_a_mask_may_say_how_many_keys_are_kept() -> None:
    rng = np.random.default_rng(0)
    draw = rng.standard_normal
    inputs: dict[str, Array] = {
        "x": draw((2, 5, 8), np.float32),
        "w": draw((8, 24), np.float32),
        "b": draw(24, np.float32),
        "lengths": np.array([5, 3], np.int32),
    }
    node = helper.make_node("Attention", list(inputs), ["y"], domain="com.microsoft", num_heads=2)
    check(model_of(node, inputs, {}), inputs)


def test_a_layout_of_one_processor_is_refused_with_a_way_out() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], domain="com.microsoft.nchwc")
    constants = {"w": np.ones((16, 3, 3, 3), np.float32)}
    m = model([node], [value("x", (1, 3, 8, 8))], [value("y", (1, 16, 6, 6))], constants)
    m.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    with pytest.raises(UnsupportedOp, match="ORT_ENABLE_EXTENDED"):
        import_onnx(m)


def shuffled(m: onnx.ModelProto) -> onnx.ModelProto:
    nodes = list(m.graph.node)[::-1]
    del m.graph.node[:]
    m.graph.node.extend(nodes)
    return m


def test_nodes_may_come_in_any_order() -> None:
    m = classifier()
    x = {"x": np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)}
    wanted = run(m, x)
    again = shuffled(m)
    g = import_onnx(again).graph
    np.testing.assert_allclose(evaluate(g, x)["y"], wanted["y"], 1e-5, 1e-6)
    assert sparrow.check(again).ok


def test_what_a_branch_reads_comes_before_it() -> None:
    outer = helper.make_node("Neg", ["x"], ["late"])
    branches = {
        f"{k}_branch": helper.make_graph(
            [helper.make_node(op, ["late"], [k])], k, [], [value(k, (2, 3))]
        )
        for k, op in (("then", "Abs"), ("else", "Exp"))
    }
    choice = helper.make_node("If", ["c"], ["y"], **branches)
    constants = {"c": np.array(False)}
    m = model([choice, outer], [value("x", (2, 3))], [value("y", (2, 3))], constants)
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    y = evaluate(import_onnx(m).graph, {"x": x})["y"]
    np.testing.assert_allclose(y, np.exp(-x), 1e-6)


def test_a_cycle_is_named() -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    m = model(nodes, [value("x", (2,))], [value("a", (2,))])
    with pytest.raises(BadModel, match="input 'b' is not defined before it"):
        import_onnx(m)
