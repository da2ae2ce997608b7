"""Weights per group of inputs: their scales, their files, and the same integers in C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparrow
from small_models import model, value
from sparrow.blame.models import float_graph
from sparrow.errors import BadInput
from sparrow.evidence.gate import Gate
from sparrow.graph import Graph, retyped
from sparrow.importers.model import import_model
from sparrow.ops.matmul import MatMul
from sparrow.ops.quantize import Dequantize
from sparrow.ort import open_session
from sparrow.passes import FRONT, optimize
from sparrow.passes.integer import integer
from sparrow.quant import Recipe, quantize, report, run
from sparrow.quant.affine import code_limits
from sparrow.quant.engine import literally
from sparrow.quant.recipe import Precision
from sparrow.quant.weights import LARGEST_MULTIPLE, coded, group_scales, group_units
from sparrow.rewrite import Remark
from sparrow.tensor import I8, Array

GROUP = 16


def perceptron(rng: np.random.Generator) -> onnx.ModelProto:
    """72 -> 24 -> 10, weights of the first inputs a hundred times the others."""
    w1 = rng.standard_normal((72, 24)).astype(np.float32)
    w1[:GROUP] *= 100
    constants: dict[str, Array] = {
        "w1": w1,
        "b1": rng.standard_normal(24).astype(np.float32),
        "w2": rng.standard_normal((24, 10)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 72])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 10])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def samples(rng: np.random.Generator, count: int) -> list[dict[str, Array]]:
    scale = np.ones(72, np.float32)
    scale[:GROUP] = 0.01
    return [{"x": rng.standard_normal((3, 72)).astype(np.float32) * scale} for _ in range(count)]


@pytest.mark.parametrize(("shape", "axis"), [((40, 6), 1), ((6, 40), 0), ((33, 5), 1)])
def test_scales_are_exact_multiples_that_hold_their_groups(
    shape: tuple[int, int], axis: int
) -> None:
    rng = np.random.default_rng(1)
    w = (rng.standard_normal(shape) * np.exp(3 * rng.standard_normal(shape))).astype(np.float32)
    w[:, 0] = 0
    units = group_units(w, axis, GROUP)
    scale = group_scales(w, axis, GROUP, units)
    multiples = scale / np.expand_dims(units, 1 - axis)
    assert (multiples == np.rint(multiples)).all()
    assert multiples.min() >= 1 and multiples.max() <= LARGEST_MULTIPLE
    block = tuple(1 if i == axis else GROUP for i in (0, 1))
    c = coded(w, scale, block)
    assert np.abs(c.codes).max() <= code_limits(I8, True)[1]
    assert (np.abs(c.real() - w) <= 0.5001 * np.maximum(scale.max(), 0)).all()


def outputs(g: Graph, feeds: list[dict[str, Array]]) -> Array:
    run = literally(g, g.outputs)
    return np.array([run(f)["y"] for f in feeds])


def test_groups_err_less_where_channels_are_uneven_inside() -> None:
    rng = np.random.default_rng(2)
    g, feeds = optimize(import_model(perceptron(rng)).graph, FRONT), samples(rng, 16)
    real = outputs(g, feeds)
    error = {}
    for recipe in (Recipe(), Recipe(weights="per_group", group=GROUP)):
        recipe = replace(recipe, precision="int16x8")
        found = outputs(quantize(g, feeds, recipe), feeds)
        error[recipe.weights] = float(np.square(found - real).sum())
    assert error["per_group"] < 0.1 * error["per_channel"]


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_the_file_has_blocks_and_the_library_sums_groups_as_integers(
    precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # three small layers may well be faster in float32
    won = Gate("not slower than float32", "", "", True)
    monkeypatch.setattr("sparrow.assemble.race", lambda *_: (won, {}))
    rng = np.random.default_rng(2)
    recipe = Recipe(weights="per_group", group=GROUP, precision=precision)
    bundle = sparrow.build(
        perceptron(rng),
        calib=samples(rng, 16),
        precision="int8",
        recipe=recipe,
        out=tmp_path / "out",
        budget=sparrow.Budget(drop=1.0),
    )
    # every layer of integers is the reference's bit for bit
    assert all(gate.ok for gate in bundle.receipt.gates)
    twin = onnx.load(tmp_path / "out" / "model.onnx")
    assert {o.domain: o.version for o in twin.opset_import}[""] >= 21
    blocks = [a.i for n in twin.graph.node for a in n.attribute if a.name == "block_size"]
    assert blocks == [GROUP, GROUP]


def products(g: Graph) -> list[str]:
    return [str(g.types[n.inputs[0]].dtype) for n in g.nodes if isinstance(n.op, MatMul)]


def rows(shape: Sequence[int]) -> tuple[onnx.ModelProto, list[dict[str, Array]]]:
    """Two products of rows of 64, the last 7 wide, and samples."""
    rng = np.random.default_rng(8)
    weights = {f"w{i}": rng.standard_normal((64, n), np.float32) for i, n in ((1, 64), (2, 7))}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "second"),
    ]
    x, y = value("x", (*shape, 64)), value("y", (*shape, 7))
    feeds = [{"x": rng.standard_normal((*shape, 64), np.float32)} for _ in range(4)]
    return model(nodes, [x], [y], weights), feeds


def test_layers_of_groups_are_compared_as_the_file_says() -> None:
    made, feeds = rows((1, 6))
    q = run(float_graph(made), feeds, Recipe(weights="per_group", group=16))
    found = report(q, feeds)
    assert [r.layer.name for r in found] == ["first", "second"]
    assert all(20 < r.sqnr_db < 80 for r in found)


@pytest.mark.parametrize("shape", [(1,), (6,), (1, 6), (2, 1, 3)])
@pytest.mark.parametrize("fields", [{}, {"bias_correction": False}, {"symmetric": True}])
def test_onnxruntime_runs_the_file_with_all_its_optimizations(
    shape: Sequence[int], fields: dict[str, Any]
) -> None:
    """Of MatMul it makes an operator that refuses the scales."""
    made, feeds = rows(shape)
    recipe = Recipe(weights="per_group", group=16, **fields)
    q = sparrow.quantize(made, feeds, recipe)
    onnx.checker.check_model(q, full_check=True)
    plain, fused = (open_session(q.SerializeToString(), optimized=o) for o in (False, True))
    # a file that is read again computes the same
    ours = outputs(import_model(q).graph, feeds)
    for f, again in zip(feeds, ours, strict=True):
        (want,), (got,) = (s.run(None, f) for s in (plain, fused))
        # sums of floats between the codes in another order
        for y in (got, again):
            np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


def test_scales_of_groups_without_a_unit_stay_float_and_it_says_why() -> None:
    rng = np.random.default_rng(3)
    g = optimize(import_model(perceptron(rng)).graph, FRONT)
    q = quantize(g, samples(rng, 8), Recipe(weights="per_group", group=GROUP, widen=False))
    # 72 inputs are five groups, 24 are two
    assert products(integer(q)) == ["int8"] * 7
    foreign = [
        replace(n, op=replace(n.op, quant=replace(n.op.quant, scale=n.op.quant.scale**1.1)))
        if isinstance(n.op, Dequantize) and max(n.op.quant.block) > 1
        else n
        for n in q.nodes
    ]
    types = {
        n.inputs[0]: replace(q.types[n.inputs[0]], quant=n.op.quant)
        for n in foreign
        if isinstance(n.op, Dequantize)
    }
    remarks: list[Remark] = []
    assert products(integer(retyped(q, foreign, types={**q.types, **types}), remarks)) == (
        ["float32"] * 2
    )
    assert any("no multiples of one per channel" in r.text for r in remarks)


@pytest.mark.parametrize("fields", [{"rounding": "adaround"}, {"scheme": "tflite"}, {"group": 1}])
def test_what_takes_no_groups_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        Recipe(weights="per_group", **fields)  # type: ignore[arg-type]
