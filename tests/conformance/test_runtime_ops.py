"""ONNX Runtime's operators of quantized and of language models, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from conformance.test_sequence_onnx import check, model_of, run
from sparrow.errors import SparrowError
from sparrow.importers.onnx import import_onnx
from sparrow.importers.onnx.decode.dynamic_recurrent import MAX_STEPS
from sparrow.ops.lstm_codes import LSTMCodes
from sparrow.reference import evaluate
from sparrow.tensor import Array

DOMAIN = "com.microsoft"


def floats(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def codes(dtype: type, *shape: int) -> Array:
    limits = np.iinfo(dtype)
    return np.random.default_rng(1).integers(limits.min, limits.max, shape, dtype, endpoint=True)


def seven_bits(*shape: int) -> Array:
    """Weights that ONNX Runtime multiplies exactly without VNNI too: it adds twos in 16 bits."""
    return codes(np.int8, *shape) // 2


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("bias", [False, True])
def test_products_quantized_as_they_come(per_column: bool, dtype: type, bias: bool) -> None:
    count = 7 if per_column else 1
    weights: dict[str, Array] = {
        "w": codes(dtype, 13, 7),
        "s": np.abs(floats(2, count)) * 0.01 + 0.001,
        "z": codes(dtype, count) // 8,
        **({"b": floats(3, 7)} if bias else {}),
    }
    node = helper.make_node("DynamicQuantizeMatMul", ["x", *weights], ["y"], domain=DOMAIN)
    inputs = {"x": floats(0, 2, 5, 13)}
    check(model_of(node, inputs, weights), inputs)


@pytest.mark.parametrize("a", [np.int8, np.uint8])
def test_integer_products_to_float(a: type) -> None:
    inputs = {"a": codes(a, 5, 13), "sa": np.full(1, 0.02, np.float32), "za": codes(a, 1) // 4}
    weights = {"w": seven_bits(13, 7), "sw": np.abs(floats(2, 7)) * 0.01, "b": floats(3, 7)}
    names = ["a", "w", "sa", "sw", "za", "", "b"]
    node = helper.make_node("MatMulIntegerToFloat", names, ["y"], domain=DOMAIN)
    check(model_of(node, inputs, weights), inputs)


def lstm_of_codes(
    kind: type = np.int8,
    per_column: bool = False,
    *,
    states: bool = False,
    lengths: bool = False,
    zero: int = 0,
    steps: int = 6,
    **attrs: Any,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A bidirectional DynamicQuantizeLSTM of 8 units; uint8 weights have the zero point 128."""
    scale = (2, 32) if per_column else (2,)
    point: Array = np.full(scale, (128 if kind is np.uint8 else 0) + zero, kind)
    weights: dict[str, Array] = {
        "w": codes(kind, 2, 4, 32),
        "r": codes(kind, 2, 8, 32),
        "b": floats(2, 2, 64),
        "ws": np.full(scale, 0.004, np.float32),
        "wz": point,
        "rs": np.full(scale, 0.003, np.float32),
        "rz": point,
    }
    inputs: dict[str, Array] = {"x": floats(0, steps, 2, 4)}
    names = ["x", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz"]
    if states:
        inputs |= {"h0": np.tanh(floats(5, 2, 2, 8)), "c0": floats(6, 2, 2, 8)}
        names[5:7] = ["h0", "c0"]
    if lengths:
        inputs["lens"], names[4] = np.array([steps, steps - 2], np.int32), "lens"
    attrs = {"hidden_size": 8, "direction": "bidirectional", **attrs}
    node = helper.make_node("DynamicQuantizeLSTM", names, ["y", "h", "c"], domain=DOMAIN, **attrs)
    return model_of(node, inputs, weights), inputs


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("states", [False, True])
def test_an_lstm_of_codes_is_near_one_whose_steps_are_rounded(
    kind: type, per_column: bool, states: bool
) -> None:
    m, inputs = lstm_of_codes(kind, per_column, states=states)
    want, g = run(m, inputs), import_onnx(m).graph
    assert sum(isinstance(n.op, LSTMCodes) for n in g.nodes) == 2
    got = evaluate(g, inputs)
    for name, y in want.items():
        assert got[name].shape == y.shape
        # the 8 bits of h over six steps
        np.testing.assert_allclose(got[name], y, 0, 0.02)


@pytest.mark.parametrize(
    "other",
    [
        {"lengths": True},
        {"zero": 3},
        {"steps": MAX_STEPS},
        {"activations": ["Relu", "Tanh", "Tanh"] * 2},
    ],
)
def test_other_lstms_of_codes_have_real_weights(other: dict[str, Any]) -> None:
    m, inputs = lstm_of_codes(**other)
    g = import_onnx(m).graph
    assert not any(isinstance(n.op, LSTMCodes) for n in g.nodes)
    if other.get("steps", 0) < MAX_STEPS:
        got = evaluate(g, inputs)
        for name, y in run(m, inputs).items():
            np.testing.assert_allclose(got[name], y, 0.05, 0.03)


@pytest.mark.parametrize("optional", ["", "segments", "mask", "places"])
def test_embeddings(optional: str) -> None:
    inputs: dict[str, Array] = {"ids": np.array([[1, 19, 4, 0], [7, 7, 2, 3]], np.int32)}
    weights = {"we": floats(0, 20, 8), "pe": floats(1, 6, 8), "g": floats(2, 8), "b": floats(3, 8)}
    names = ["ids", "", "we", "pe", "", "g", "b", "", ""]
    if optional == "segments":
        inputs["seg"], weights["se"] = np.array([[0, 0, 1, 1]] * 2, np.int32), floats(4, 2, 8)
        names[1], names[4] = "seg", "se"
    elif optional == "mask":
        inputs["mask"], names[7] = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32), "mask"
    elif optional == "places":
        inputs["at"], names[8] = np.array([[5, 0, 1, 2]] * 2, np.int32), "at"
    while not names[-1]:
        names.pop()
    node = helper.make_node("EmbedLayerNormalization", names, ["y", "kept", "sum"], domain=DOMAIN)
    m = model_of(node, inputs, weights)
    m.graph.output[1].type.tensor_type.elem_type = onnx.TensorProto.INT32
    check(m, inputs)


def query_groups(
    rows: int,
    past: int,
    total: int,
    lens: list[int],
    *,
    constant: bool = True,
    packed: bool = False,
    rotary: bool = False,
    **attrs: Any,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A GroupQueryAttention of 4 heads of 16 over 2 groups."""
    heads, groups, width, batch = 4, 2, 16, len(lens)
    inputs: dict[str, Array] = {"q": floats(0, batch, rows, heads * width)}
    names = ["q", "", "", "", "", "lens", "total"]
    if packed:
        inputs["q"] = floats(0, batch, rows, (heads + 2 * groups) * width)
    else:
        inputs |= {k: floats(i, batch, rows, groups * width) for i, k in ((1, "k"), (2, "v"))}
        names[1:3] = ["k", "v"]
    if past:
        inputs |= {k: floats(i, batch, groups, past, width) for i, k in ((3, "pk"), (4, "pv"))}
        names[3:5] = ["pk", "pv"]
    weights: dict[str, Array] = {"total": np.array([total], np.int32)}
    if rotary:
        angles = np.arange(32)[:, None] * 0.3 ** np.arange(width // 2)
        weights |= {k: f(angles).astype(np.float32) for k, f in (("cos", np.cos), ("sin", np.sin))}
        names += ["cos", "sin"]
        attrs["do_rotary"] = 1
    (weights if constant else inputs)["lens"] = np.array(lens, np.int32)
    node = helper.make_node(
        "GroupQueryAttention",
        names,
        ["y", "nk", "nv"],
        domain=DOMAIN,
        num_heads=heads,
        kv_num_heads=groups,
        **attrs,
    )
    return model_of(node, inputs, weights), inputs


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize(
    ("rows", "past", "total", "lens"),
    [(5, 0, 5, [4]), (1, 9, 10, [9]), (1, 16, 16, [11, 15]), (1, 16, 12, [11]), (3, 6, 9, [8])],
)
def test_query_groups_over_a_cache(
    constant: bool, packed: bool, rotary: bool, rows: int, past: int, total: int, lens: list[int]
) -> None:
    m, inputs = query_groups(
        rows, past, total, lens, constant=constant, packed=packed, rotary=rotary
    )
    want, got = run(m, inputs), evaluate(import_onnx(m).graph, inputs)
    for name in ("nk", "nv"):
        assert got[name].shape == want[name].shape
        for a, b, last in zip(got[name], want[name], lens, strict=True):
            # behind these ONNX Runtime has zeros, or what was there where buffers are shared
            np.testing.assert_allclose(a[:, : last + 1], b[:, : last + 1], 1e-5, 2e-5)
    del m.graph.output[1:]
    check(m, inputs)


@pytest.mark.parametrize(
    "attrs",
    [{"local_window_size": 3}, {"softcap": 1.5}, {"scale": 0.7}, {"rotary_interleaved": 1}],
)
def test_query_groups_with_attributes(attrs: dict[str, Any]) -> None:
    rotary = "rotary_interleaved" in attrs
    check(*query_groups(1, 9, 10, [9], rotary=rotary, **attrs))
    check(*query_groups(6, 0, 6, [5], rotary=rotary, **attrs))


def test_query_groups_that_do_not_fit_are_refused() -> None:
    m, _ = query_groups(1, 9, 10, [19])
    with pytest.raises(SparrowError, match="start at"):
        import_onnx(m)
