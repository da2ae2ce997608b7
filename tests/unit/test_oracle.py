"""ONNX Runtime on the source model: quantized files are computed as they say."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from small_models import model, value
from sparrow.compiler import Source
from sparrow.evidence.golden import Golden, GoldenCall
from sparrow.evidence.oracle import Oracle, oracle_outputs
from sparrow.importers.onnx import import_onnx
from sparrow.ort import open_session
from sparrow.reference import evaluate
from sparrow.tensor import Array

RNG = np.random.default_rng(11)
SHAPE = (3, 64)
CONSTANTS: dict[str, Array] = {
    "s": np.array(0.02, np.float32),
    "z": np.array(0, np.uint8),
    "w": RNG.choice([-127, 127], (64, 8)).astype(np.int8),
    "t": np.array(0.01, np.float32),
    "o": np.array(0, np.int8),
}
FEEDS = {"x": RNG.choice([0, 255], SHAPE).astype(np.float32) * np.float32(0.02)}


def pairs() -> onnx.ModelProto:
    """A product of the largest codes between QuantizeLinear and DequantizeLinear."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["f"]),
        helper.make_node("DequantizeLinear", ["w", "t", "o"], ["v"]),
        helper.make_node("MatMul", ["f", "v"], ["p"]),
        helper.make_node("QuantizeLinear", ["p", "b", "a"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "b", "a"], ["y"]),
    ]
    more: dict[str, Array] = {"b": np.array(3.0, np.float32), "a": np.array(128, np.uint8)}
    return model(nodes, [value("x", SHAPE)], [value("y", (3, 8))], CONSTANTS | more)


def operators() -> onnx.ModelProto:
    """The same as one operator."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearMatMul", ["q", "s", "z", "w", "t", "o", "b", "a"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "b", "a"], ["y"]),
    ]
    more: dict[str, Array] = {"b": np.array(3.0, np.float32), "a": np.array(128, np.uint8)}
    return model(nodes, [value("x", SHAPE)], [value("y", (3, 8))], CONSTANTS | more)


def test_sums_do_not_saturate_where_answers_are_compared() -> None:
    found = Oracle(Source(pairs())).run(FEEDS)["y"]
    np.testing.assert_array_equal(found, evaluate(import_onnx(pairs()).graph, FEEDS)["y"])
    assert len(np.unique(found)) > 8


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("quantized", [False, True])
def test_only_what_is_timed_is_fused(
    timed: bool, quantized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def recorded(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["optimized"])
        return open_session(*args, **kwargs)

    monkeypatch.setattr("sparrow.evidence.oracle.open_session", recorded)
    relu = helper.make_node("Relu", ["x"], ["y"])
    plain = model([relu], [value("x", SHAPE)], [value("y", SHAPE)])
    Oracle(Source(pairs() if quantized else plain), timed=timed)
    assert asked == [timed or not quantized]


@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize("made", [pairs, operators])
def test_operators_that_saturate_are_said(
    made: Any, saturates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparrow.evidence.oracle.adds_in_16_bits", lambda: saturates)
    g = import_onnx(made()).graph
    golden = Golden((GoldenCall(0, FEEDS, {}, {}),), 0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        oracle_outputs({"main": Source(made())}, [g], golden)
    texts = [str(w.message) for w in said if "16 bits" in str(w.message)]
    assert len(texts) == (saturates and made is operators)
    assert all("QLinearMatMul" in x for x in texts)
