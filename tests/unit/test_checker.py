"""check lists everything that is missing, with a way out, and fast."""

from __future__ import annotations

import time

import numpy as np
import pytest
from onnx import helper

import sparrow
from small_models import classifier, model, strange, value
from sparrow.errors import BadInput, BadModel
from sparrow.importers.nearest import nearest
from sparrow.importers.onnx.decode import SUPPORTED


def test_a_fine_model_is_ok() -> None:
    found = sparrow.check(classifier())
    assert found.ok
    assert {n.name for n in found.nodes} >= {"conv1", "softmax"}
    assert all(n.verdict in ("ok", "decomposed", "folded") for n in found.nodes)


def test_it_goes_on_after_the_first_missing_node() -> None:
    found = sparrow.check(strange())
    verdicts = {n.name: n.verdict for n in found.nodes}
    assert not found.ok
    assert [verdicts[n] for n in ("odd1", "odd2", "odd3")] == ["missing"] * 3
    assert verdicts["fine1"] == verdicts["fine2"] == "ok"
    # the model declares the type of `c`, not of `b`: what reads `b` cannot be judged
    assert verdicts["after"] == "unchecked"
    hints = {n.name: n.hint for n in found.nodes}
    assert "Conv" in hints["odd3"]
    assert all(hints[n] for n in ("odd1", "odd2", "odd3"))
    reasons = {n.name: n.reason for n in found.nodes}
    assert reasons["odd1"] == "no decoder for this operator"


def test_types_that_onnx_infers_let_the_rest_be_judged() -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["r"], "noise"),
        helper.make_node("Relu", ["r"], ["y"], "after"),
    ]
    found = sparrow.check(model(nodes, [value("x", (2, 3))], [value("y", (2, 3))]))
    assert {n.name: n.verdict for n in found.nodes} == {"noise": "missing", "after": "ok"}
    assert "make the random tensor a model input" in found.nodes[0].hint


def test_frozen_dimensions_are_reported() -> None:
    m = classifier(shape=("N", 3, 12, 12))
    with pytest.raises(BadInput, match="dynamic"):
        sparrow.check(m)
    found = sparrow.check(m, shapes={"x": (1, 3, 12, 12)})
    assert found.ok and "x[0] (N) = 1" in found.frozen[0]


def test_malformed_models_are_refused_at_once() -> None:
    m = classifier()
    m.graph.node[3].input[0] = "nowhere"
    with pytest.raises(BadModel, match="'nowhere' is not defined"):
        sparrow.check(m)


def test_hints_name_what_is_near() -> None:
    assert nearest(
        "com.example.LayerNorm", SUPPORTED
    ) == "nearest supported: LayerNormalization" or (
        "LayerNormalization" in nearest("com.example.LayerNormalisation", SUPPORTED)
    )
    assert "outside the model" in nearest("Zzzzqqq", SUPPORTED)


def test_a_large_model_is_checked_within_a_second() -> None:
    rng = np.random.default_rng(0)
    nodes, constants, last = [], {}, "x"
    for i in range(30):
        constants[f"w{i}"] = rng.standard_normal((256, 256, 3, 3), np.float32)
        nodes.append(
            helper.make_node("Conv", [last, f"w{i}"], [f"y{i}"], f"n{i}", pads=[1, 1, 1, 1])
        )
        last = f"y{i}"
    big = model(nodes, [value("x", (1, 256, 14, 14))], [value(last, (1, 256, 14, 14))], constants)
    sparrow.check(classifier())  # the imports
    start = time.process_time()
    assert sparrow.check(big).ok
    assert time.process_time() - start < 1


def test_groups_of_channels_and_axes_apart_have_kernels() -> None:
    make = helper.make_node
    rng = np.random.default_rng(0)
    nodes = [
        make("Conv", ["x", "w"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        make("GroupNormalization", ["a", "g", "b"], ["c"], "groups", num_groups=4),
        make("Relu", ["c"], ["d"], "relu"),
        make("Conv", ["d", "v"], ["e"], "conv2", pads=[1, 1, 1, 1]),
        # statistics over the batch and the rows
        make("ReduceMean", ["e", "axes"], ["mean"], "mean"),
        make("Sub", ["e", "mean"], ["f"], "centred"),
        make("Mul", ["f", "f"], ["h"], "square"),
        make("ReduceMean", ["h", "axes"], ["variance"], "variance"),
        make("Add", ["variance", "epsilon"], ["i"], "shifted"),
        make("Sqrt", ["i"], ["root"], "root"),
        make("Div", ["f", "root"], ["y"], "normalized"),
    ]
    constants = {
        "w": rng.standard_normal((8, 3, 3, 3), np.float32),
        "v": rng.standard_normal((8, 8, 3, 3), np.float32),
        "g": rng.standard_normal(8, np.float32),
        "b": rng.standard_normal(8, np.float32),
        "axes": np.array([0, 2]),
        "epsilon": np.array(1e-5, np.float32),
    }
    m = model(nodes, [value("x", (2, 3, 6, 5))], [value("y", (2, 8, 6, 5))], constants)
    m.opset_import[0].version = 21
    assert {n.verdict for n in sparrow.check(m).nodes} == {"ok", "decomposed"}
