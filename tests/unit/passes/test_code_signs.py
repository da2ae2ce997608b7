"""Files of `quantize` hold uint8 activations, and mean to us what int8 ones do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

import small_models
import sparrow
from sparrow.compiler import Source, compile_sources
from sparrow.ops.gru_codes import GRUCodes
from sparrow.portable import to_portable_onnx
from sparrow.quantizing import quantize_model
from sparrow.reference import evaluate
from sparrow.targets import target
from sparrow.tensor import F32, I8, U8, Array, DType

SHAPE = (1, 3, 16, 16)


def forked() -> onnx.ModelProto:
    """Convolutions, pools, a Concat of two branches, a residual sum."""
    rng = np.random.default_rng(1)

    def weights(*shape: int) -> Array:
        return rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))

    def conv(x: str, w: str, y: str) -> list[onnx.NodeProto]:
        same = [1, 1, 1, 1]
        return [
            helper.make_node("Conv", [x, w], [y + ".c"], y, pads=same),
            helper.make_node("Relu", [y + ".c"], [y]),
        ]

    nodes = [
        *conv("x", "w0", "a"),
        helper.make_node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        *conv("p", "w1", "m"),
        helper.make_node("AveragePool", ["m"], ["b"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        *conv("b", "w2", "c"),
        helper.make_node("Add", ["b", "c"], ["s"]),
        helper.make_node("Concat", ["p", "s"], ["j"], axis=1),
        *conv("j", "w3", "d"),
        helper.make_node("Conv", ["d", "w4"], ["y"], "last"),
    ]
    return small_models.model(
        nodes,
        [small_models.value("x", SHAPE)],
        [small_models.value("y", (1, 4, 8, 8))],
        {
            "w0": weights(16, 3, 3, 3),
            "w1": weights(16, 16, 3, 3),
            "w2": weights(16, 16, 3, 3),
            "w3": weights(16, 32, 3, 3),
            "w4": weights(4, 16, 1, 1),
        },
    )


def samples() -> list[Array]:
    rng = np.random.default_rng(2)
    return [rng.standard_normal(SHAPE, np.float32) for _ in range(16)]


def recurrent() -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    return small_models.model(
        [helper.make_node("GRU", ["x", "w", "r"], ["", "y"], hidden_size=8)],
        [small_models.value("x", (5, 1, 8))],
        [small_models.value("y", (1, 1, 8))],
        {k: rng.standard_normal((1, 24, 8), np.float32) / 3 for k in ("w", "r")},
    )


def steps() -> list[Array]:
    rng = np.random.default_rng(4)
    return [rng.standard_normal((5, 1, 8), np.float32) for _ in range(16)]


def points(m: onnx.ModelProto) -> set[str]:
    """Types of the zero points of what is quantized at run time."""
    held = {t.name: numpy_helper.to_array(t) for t in m.graph.initializer}
    writers = (n for n in m.graph.node if n.op_type == "QuantizeLinear")
    return {str(held[n.input[2]].dtype) for n in writers}


def test_activations_are_unsigned_unless_a_recipe_rules_out_zero_points() -> None:
    plain = sparrow.quantize(forked(), samples())
    assert points(plain) == {"uint8"}
    weights = [t for t in plain.graph.initializer if len(t.dims) == 4]
    assert {t.data_type for t in weights} == {onnx.TensorProto.INT8}
    assert points(sparrow.quantize(forked(), samples(), sparrow.Recipe(symmetric=True))) == {"int8"}


def test_onnx_runtime_multiplies_every_code_as_an_integer(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(sparrow.quantize(forked(), samples()).SerializeToString(), options)
    kinds = Counter(n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node)
    # the last convolution's result is float
    assert kinds["QLinearConv"] == 4
    assert kinds["Conv"] + kinds["FusedConv"] == 1
    assert kinds["QLinearAdd"] == kinds["QLinearConcat"] == kinds["QLinearAveragePool"] == 1


@pytest.mark.parametrize("kind", ["feed forward", "recurrent"])
def test_both_signs_give_the_same_bundle(kind: str, tmp_path: Path) -> None:
    m, given = (recurrent(), steps()) if kind == "recurrent" else (forked(), samples())
    done, _ = quantize_model(m, given)
    signed, unsigned = to_portable_onnx(done.graph), sparrow.quantize(m, given)
    assert points(signed) == {"int8"} and points(unsigned) == {"uint8"}
    a, b = (
        sparrow.build(q, out=tmp_path / name).receipt.files
        for name, q in (("signed", signed), ("unsigned", unsigned))
    )
    assert a == b


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("x86_64_v4_vnni", U8),
        ("x86_64_v3_vnni", U8),
        ("x86_64_v3", U8),
        ("x86_64_v4", I8),
        ("x86_64_v4_amx", I8),
        ("aarch64", I8),
    ],
)
def test_codes_are_of_the_kind_that_the_target_multiplies(row: str, kind: DType) -> None:
    sources = {"main": Source(sparrow.quantize(forked(), samples()))}
    (g,) = compile_sources(sources, target(row)).module
    assert {g.types[y].dtype for n in g.nodes for y in n.outputs} == {kind, F32}
    (signed,) = compile_sources(sources, target("aarch64")).module
    for x in samples():
        np.testing.assert_array_equal(evaluate(g, {"x": x})["y"], evaluate(signed, {"x": x})["y"])


def test_recurrent_layers_keep_signed_codes() -> None:
    sources = {"main": Source(sparrow.quantize(recurrent(), steps()))}
    (g,) = compile_sources(sources, target("x86_64_v4_vnni")).module
    assert any(isinstance(n.op, GRUCodes) for n in g.nodes)
    assert U8 not in {g.types[y].dtype for n in g.nodes for y in n.outputs}
