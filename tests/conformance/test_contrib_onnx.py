"""ONNX Runtime's own operators for attention, experts and channels last, against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from conformance.test_runtime_ops import DOMAIN, codes, floats, seven_bits
from conformance.test_sequence_onnx import check, model_of, run
from sparrow.errors import BadModel, UnsupportedOp
from sparrow.importers.onnx import import_onnx
from sparrow.reference import evaluate
from sparrow.tensor import Array


def named(
    op: str, names: list[str], inputs: dict[str, Array], weights: dict[str, Array], **attrs: Any
) -> onnx.ModelProto:
    """A model of one node of ONNX Runtime's domain with output "y"."""
    return model_of(helper.make_node(op, names, ["y"], domain=DOMAIN, **attrs), inputs, weights)


ACTIVATIONS: tuple[tuple[str, dict[str, float]], ...] = (
    ("Elu", {"alpha": 0.7}),
    ("Elu", {}),
    ("Selu", {"alpha": 1.5, "gamma": 1.1}),
    ("Softplus", {}),
    ("Softsign", {}),
    ("ThresholdedRelu", {"alpha": 0.3}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("LeakyRelu", {"alpha": 0.3}),
    ("Tanh", {}),
    ("Sigmoid", {}),
)


@pytest.mark.parametrize(("name", "params"), ACTIVATIONS)
def test_a_product_with_each_activation(name: str, params: dict[str, float]) -> None:
    inputs = {"a": floats(0, 3, 4), "b": floats(1, 4, 5), "c": floats(2, 5)}
    attrs = {f"activation_{k}": v for k, v in params.items()}
    if name in ("Elu", "Selu") and not params:
        attrs = {"activation_alpha": 1.0}
    check(named("FusedGemm", list(inputs), inputs, {}, activation=name, **attrs), inputs)


def test_an_unknown_activation_is_named() -> None:
    inputs = {"a": floats(0, 3, 4), "b": floats(1, 4, 5)}
    with pytest.raises(UnsupportedOp, match=r"activation Bent.*known are Relu"):
        import_onnx(named("FusedGemm", ["a", "b"], inputs, {}, activation="Bent"))


@pytest.mark.parametrize("channels_last", [0, 1])
@pytest.mark.parametrize("group", [1, 4])
def test_convolutions_of_codes_with_channels_last(channels_last: int, group: int) -> None:
    shape = (1, 7, 6, 8) if channels_last else (1, 8, 7, 6)
    weights: dict[str, Array] = {
        "sx": np.array(0.05, np.float32),
        "zx": np.array(120, np.uint8),
        "w": seven_bits(12, 8 // group, 3, 3),
        "sw": np.abs(floats(2, 12)) * 0.01 + 0.001,
        "zw": np.zeros(12, np.int8),
        "sy": np.array(0.5, np.float32),
        "zy": np.array(130, np.uint8),
        "b": np.arange(12, dtype=np.int32) * 50,
    }
    inputs = {"x": codes(np.uint8, *shape)}
    attrs = {"pads": [1, 1, 1, 1], "strides": [2, 1], "group": group}
    m = named("QLinearConv", ["x", *weights], inputs, weights, channels_last=channels_last, **attrs)
    m.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    check(m, inputs)


def test_pooled_codes_with_channels_last() -> None:
    inputs = {"x": codes(np.uint8, 1, 7, 6, 5)}
    m = named("NhwcMaxPool", ["x"], inputs, {}, kernel_shape=[3, 2], strides=[2, 1])
    m.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    check(m, inputs)


def standard(nodes: list[onnx.NodeProto], inputs: dict[str, Array]) -> Array:
    """What standard operators make of ``inputs``, in the reference."""
    m = model_of(nodes[0], inputs, {})
    m.graph.node.extend(nodes[1:])
    m.graph.output[0].name = "y"
    m.opset_import[0].version = 21
    return evaluate(import_onnx(m).graph, inputs)["y"]


@pytest.mark.parametrize("op", ["NhwcConv", "NhwcFusedConv"])
def test_convolutions_with_channels_last(op: str) -> None:
    """ONNX Runtime has no such kernel for x86: compared with transposes around a Conv."""
    inputs = {"x": floats(0, 1, 5, 6, 3), "w": floats(1, 4, 3, 3, 3), "b": floats(2, 4)}
    attrs: dict[str, Any] = {"pads": [1, 0, 1, 0]}
    nodes = [
        helper.make_node("Transpose", ["x"], ["f"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["f", "w", "b"], ["c"], **attrs),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
    ]
    names = list(inputs)
    if op == "NhwcFusedConv":
        attrs |= {"activation": "LeakyRelu", "activation_params": [0.2]}
        inputs["z"] = floats(3, 1, 5, 4, 4)
        names.append("z")
        nodes += [
            helper.make_node("Add", ["t", "z"], ["s"]),
            helper.make_node("LeakyRelu", ["s"], ["y"], alpha=0.2),
        ]
    else:
        nodes[-1].output[0] = "y"
    got = evaluate(import_onnx(named(op, names, inputs, {}, **attrs)).graph, inputs)["y"]
    np.testing.assert_allclose(got, standard(nodes, inputs), 1e-5, 1e-5)


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("skip", [None, (2, 8), (2, 8, 5, 6)])
def test_groups_normalized(last: int, skip: tuple[int, ...] | None) -> None:
    """ONNX Runtime has it for graphics processors only: compared with the standard operator."""
    inputs = {"x": floats(0, 2, 8, 5, 6), "g": floats(1, 8), "b": floats(2, 8)}
    attrs: dict[str, Any] = {"groups": 4, "activation": 1, "epsilon": 1e-3, "channels_last": last}
    total = inputs["x"]
    op = "GroupNorm"
    if skip:
        op, inputs["s"], inputs["c"] = "SkipGroupNorm", floats(3, *skip), floats(4, 8)
        wide = inputs["s"].reshape(2, 8, 1, 1) if len(skip) == 2 else inputs["s"]
        total = total + wide + inputs["c"].reshape(8, 1, 1)
    nodes = [
        helper.make_node("GroupNormalization", ["x", "g", "b"], ["n"], num_groups=4, epsilon=1e-3),
        helper.make_node("Sigmoid", ["n"], ["e"]),
        helper.make_node("Mul", ["n", "e"], ["y"]),
    ]
    want = standard(nodes, {"x": total, "g": inputs["g"], "b": inputs["b"]})
    if last:
        inputs["x"], want = inputs["x"].transpose(0, 2, 3, 1), want.transpose(0, 2, 3, 1)
        if skip and len(skip) == 4:
            inputs["s"] = inputs["s"].transpose(0, 2, 3, 1)
    inputs = {k: np.ascontiguousarray(v) for k, v in inputs.items()}
    got = evaluate(import_onnx(named(op, list(inputs), inputs, {}, **attrs)).graph, inputs)["y"]
    np.testing.assert_allclose(got, want, 1e-5, 1e-5)


@pytest.mark.parametrize("past", [0, 3])
@pytest.mark.parametrize("causal", [0, 1])
def test_attention_after_one_projection_with_a_past(past: int, causal: int) -> None:
    inputs = {"x": floats(0, 2, 4, 8), "w": floats(1, 8, 24), "b": floats(2, 24)}
    names = [*inputs, "", ""]
    if past:
        inputs["past"], names[4] = floats(3, 2, 2, 2, past, 4), "past"
    attrs: dict[str, Any] = {"num_heads": 2, "unidirectional": causal}
    outputs = ["y", "present"]
    m = model_of(helper.make_node("Attention", names, outputs, domain=DOMAIN, **attrs), inputs, {})
    check(m, inputs)


@pytest.mark.parametrize("form", ["encoder", "keys and values", "all"])
def test_packed_and_cached_operands(form: str) -> None:
    inputs: dict[str, Array] = {"q": floats(0, 2, 4, 8)}
    if form == "encoder":
        inputs |= {"k": floats(1, 2, 2, 5, 4), "v": floats(2, 2, 2, 5, 4)}
    elif form == "all":
        inputs = {"q": floats(0, 2, 4, 2, 3, 4)}
    else:
        inputs |= {"k": floats(1, 2, 5, 2, 2, 4)}
    check_or_parts(named("MultiHeadAttention", list(inputs), inputs, {}, num_heads=2), inputs, form)


def check_or_parts(m: onnx.ModelProto, inputs: dict[str, Array], form: str) -> None:
    """ONNX Runtime takes no packed operands on processors: compared with their parts there."""
    if form == "encoder":
        check(m, inputs)
        return
    packed = inputs["q" if form == "all" else "k"]
    parts = {
        name: np.ascontiguousarray(packed[:, :, :, i]).reshape(2, packed.shape[1], 8)
        for i, name in enumerate("qkv" if form == "all" else "kv")
    }
    apart = {**inputs, **parts}
    separate = named("MultiHeadAttention", ["q", "k", "v"], apart, {}, num_heads=2)
    want = evaluate(import_onnx(separate).graph, apart)["y"]
    np.testing.assert_array_equal(evaluate(import_onnx(m).graph, inputs)["y"], want)


def test_operands_of_ranks_that_do_not_fit() -> None:
    inputs = {"q": floats(0, 2, 4, 8), "k": floats(1, 2, 4, 8)}
    with pytest.raises(BadModel, match=r"ranks \[3, 3, 0\]"):
        import_onnx(named("MultiHeadAttention", ["q", "k"], inputs, {}, num_heads=2))


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("past", [0, 3])
def test_attention_over_codes(per_column: bool, past: int) -> None:
    count = 24 if per_column else 1
    weights: dict[str, Array] = {
        "w": codes(np.int8, 8, 24),
        "b": floats(2, 24),
        "sw": np.abs(floats(3, count)) * 0.01 + 0.001,
        "zw": np.zeros(count, np.int8),
    }
    inputs: dict[str, Array] = {
        "x": codes(np.uint8, 2, 4, 8),
        "sx": np.array(0.02, np.float32),
        "zx": np.array(100, np.uint8),
    }
    names = ["x", "w", "b", "sx", "sw", "", "zx", "zw"]
    if not per_column:
        weights |= {"sw": weights["sw"].reshape(()), "zw": weights["zw"].reshape(())}
    outputs = ["y"]
    if past:
        inputs["past"] = floats(4, 2, 2, 2, past, 4)
        names.append("past")
        outputs.append("present")
    attrs: dict[str, Any] = {"num_heads": 2, "unidirectional": 1}
    check(
        model_of(
            helper.make_node("QAttention", names, outputs, domain=DOMAIN, **attrs), inputs, weights
        ),
        inputs,
    )


def test_embeddings_of_codes() -> None:
    tables = {"we": (20, 8), "pe": (6, 8), "se": (2, 8), "g": (8,), "b": (8,)}
    inputs: dict[str, Array] = {
        "ids": np.array([[1, 19, 4, 0]], np.int32),
        "seg": np.array([[0, 0, 1, 1]], np.int32),
    }
    weights: dict[str, Array] = {k: codes(np.uint8, *s) for k, s in tables.items()}
    scales = {f"s_{k}": np.array(0.01 + 0.01 * i, np.float32) for i, k in enumerate(tables)}
    zeros = {f"z_{k}": np.array(120 + i, np.uint8) for i, k in enumerate(tables)}
    names = [*inputs, *weights, "", *scales, *zeros]
    weights |= scales | zeros
    node = helper.make_node("QEmbedLayerNormalization", names, ["y", "kept"], domain=DOMAIN)
    m = model_of(node, inputs, weights)
    m.graph.output[1].type.tensor_type.elem_type = onnx.TensorProto.INT32
    check(m, inputs)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("points", [False, True])
def test_rows_of_a_table_of_codes(bits: int, points: bool) -> None:
    width = 64 * bits // 8
    weights: dict[str, Array] = {
        "t": codes(np.uint8, 9, width),
        "s": np.abs(floats(1, 9, 4)) + 0.01,
    }
    names = ["t", "i", "s"]
    if points:
        weights["z"] = codes(np.uint8, 9, 4 * bits // 8)
        names.append("z")
    inputs: dict[str, Array] = {"i": np.array([[8, 0, 3]], np.int64)}
    m = named("GatherBlockQuantized", names, inputs, weights, bits=bits, block_size=16)
    check(m, inputs)


EXPERTS: tuple[tuple[int, int, dict[str, Any]], ...] = (
    (5, 4, {"activation_type": "relu"}),
    (5, 4, {"activation_type": "gelu", "k": 2}),
    (1, 8, {"activation_type": "silu", "k": 2, "normalize_routing_weights": 1}),
    (3, 8, {"activation_type": "identity", "k": 2, "normalize_routing_weights": 1}),
    (5, 4, {"activation_type": "swiglu", "k": 2, "swiglu_fusion": 1}),
    (
        2,
        4,
        {
            "activation_type": "swiglu",
            "k": 2,
            "swiglu_fusion": 1,
            "swiglu_limit": 1.5,
            "activation_alpha": 1.702,
            "activation_beta": 1.0,
        },
    ),
)


@pytest.mark.parametrize(("tokens", "experts", "attrs"), EXPERTS)
def test_mixtures_of_experts(tokens: int, experts: int, attrs: dict[str, Any]) -> None:
    wide = 64 if attrs["activation_type"] == "swiglu" else 32
    inputs = {"x": floats(0, tokens, 16), "p": floats(1, tokens, experts)}
    weights = {
        "w1": floats(2, experts, wide, 16) / 4,
        "b1": floats(3, experts, wide),
        "w2": floats(4, experts, 16, 32) / 6,
        "b2": floats(5, experts, 16),
    }
    check(named("MoE", [*inputs, *weights], inputs, weights, **attrs), inputs)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [0, 16])
@pytest.mark.parametrize("points", [False, True])
def test_mixtures_of_experts_of_codes(bits: int, block: int, points: bool) -> None:
    tokens, experts, per = 3, 4, 8 // bits
    inputs = {"x": floats(0, tokens, 32), "p": floats(1, tokens, experts)}

    def scale(seed: int, outputs: int, depth: int) -> Array:
        shape = (experts, outputs, depth // block) if block else (experts, outputs)
        return np.abs(floats(seed, *shape)) * 0.003 * per + 0.001

    def zero(outputs: int, depth: int) -> Array:
        each = (outputs, depth // block // per) if block else (outputs // per,)
        return codes(np.uint8, experts, *each)

    weights: dict[str, Array] = {
        "w1": codes(np.uint8, experts, 64, 32 // per),
        "s1": scale(2, 64, 32),
        "w2": codes(np.uint8, experts, 32, 64 // per),
        "s2": scale(4, 32, 64),
    }
    names = ["x", "p", "w1", "s1", "", "w2", "s2", "", "", "", ""]
    if points:
        weights |= {"z1": zero(64, 32), "z2": zero(32, 64)}
        names += ["z1", "z2"]
    while not names[-1]:
        names.pop()
    attrs: dict[str, Any] = {"k": 2, "expert_weight_bits": bits, "activation_type": "silu"}
    if block:
        attrs["block_size"] = block
    m = named("QMoE", names, inputs, weights, **attrs)
    if bits == 4 or not block:
        check(m, inputs)
        return
    # there the tokens are rounded to 8 bits as well
    want, got = run(m, inputs)["y"], evaluate(import_onnx(m).graph, inputs)["y"]
    np.testing.assert_allclose(got, want, 0, 0.01 * np.abs(want).max())
