"""LSTM, GRU, RNN and ONNX Runtime's attentions with random attributes, against ONNX Runtime itself.

The ONNX node tests cover few attributes of these operators, and ONNX's own reference fewer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from sparrow.errors import SparrowError
from sparrow.export import to_onnx
from sparrow.importers.onnx import import_onnx
from sparrow.ops.recurrent import ACTIVATIONS
from sparrow.passes import optimize
from sparrow.reference import evaluate
from sparrow.tensor import Array

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTS = {"LSTM": 3, "GRU": 2, "RNN": 1}
# ONNX Runtime's Softplus overflows to infinity where exp does
COMPARED = [a for a in ACTIVATIONS if a != "Softplus"]


def model_of(
    node: onnx.NodeProto, inputs: dict[str, Array], weights: dict[str, Array]
) -> onnx.ModelProto:
    """A model of one node."""
    given = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for k, a in inputs.items()
    ]
    found = [
        helper.make_tensor_value_info(o, onnx.TensorProto.FLOAT, None) for o in node.output if o
    ]
    constants = [numpy_helper.from_array(a, k) for k, a in weights.items()]
    graph = helper.make_graph([node], "g", given, found, constants)
    opsets = [helper.make_opsetid("", 14), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run(model: onnx.ModelProto, inputs: dict[str, Array]) -> dict[str, Array]:
    """ONNX Runtime's answers."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def check(model: onnx.ModelProto, inputs: dict[str, Array]) -> None:
    """Interpreter, export and optimised export all give ONNX Runtime's answers."""
    wanted = run(model, inputs)
    g = import_onnx(model).graph
    better = optimize(g)
    for what, found in (
        ("interpreter", evaluate(g, inputs)),
        ("export", run(to_onnx(g), inputs)),
        ("optimised", evaluate(better, inputs)),
        ("optimised export", run(to_onnx(better), inputs)),
    ):
        for name, y in wanted.items():
            np.testing.assert_allclose(found[name], y, 1e-5, 2e-5, err_msg=f"{what} {name}")


class _Random:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.inputs: dict[str, Array] = {}
        self.weights: dict[str, Array] = {}
        self.names: list[str] = []

    def values(self, *shape: int) -> Array:
        return (0.7 * self.rng.standard_normal(shape)).astype(np.float32)

    def give(self, name: str, a: Array, *, constant: bool = False, chance: float = 1.0) -> None:
        """Add an operand, or leave it out by chance."""
        if self.rng.random() < chance:
            (self.weights if constant else self.inputs)[name] = a
            self.names.append(name)
        else:
            self.names.append("")


def recurrent(kind: str, seed: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A random recurrent node."""
    r = _Random(seed)
    direction = str(r.rng.choice(["forward", "reverse", "bidirectional"]))
    dirs, gates = 1 + (direction == "bidirectional"), GATES[kind]
    time, batch, width, hidden = (int(n) for n in r.rng.integers(1, 6, 4))
    r.give("X", r.values(time, batch, width))
    r.give("W", r.values(dirs, gates * hidden, width), constant=True)
    r.give("R", r.values(dirs, gates * hidden, hidden), constant=True)
    r.give("B", r.values(dirs, 2 * gates * hidden), constant=True, chance=0.6)
    r.give("L", r.rng.integers(0, time + 1, batch).astype(np.int32), chance=0.5)
    r.give("h0", r.values(dirs, batch, hidden), chance=0.6)
    if kind == "LSTM":
        r.give("c0", r.values(dirs, batch, hidden), chance=0.6)
        r.give("P", r.values(dirs, 3 * hidden), constant=True, chance=0.5)
    attrs: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if seed % 2:
        names = [str(a) for a in r.rng.choice(COMPARED, ACTS[kind] * dirs)]
        attrs["activations"] = names
        for i, key in enumerate(("activation_alpha", "activation_beta")):
            count = sum(ACTIVATIONS[n][i] for n in names)
            if count:
                attrs[key] = [float(v) for v in r.rng.uniform(0.1, 0.9, count)]
    if r.rng.random() < 0.4:
        attrs["clip"] = float(r.rng.uniform(0.2, 1))
    if kind == "LSTM" and r.rng.random() < 0.4:
        attrs["input_forget"] = 1
    if kind == "GRU" and r.rng.random() < 0.5:
        attrs["linear_before_reset"] = 1
    outputs = [
        o if r.rng.random() < 0.7 else "" for o in ("Y", "Y_h", "Y_c")[: 2 + (kind == "LSTM")]
    ]
    outputs[1] = outputs[1] or ("" if any(outputs) else "Y_h")
    node = helper.make_node(kind, r.names, outputs, **attrs)
    return model_of(node, r.inputs, r.weights), r.inputs


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", GATES)
def test_recurrent_layers_with_random_attributes(kind: str, seed: int) -> None:
    check(*recurrent(kind, seed))


B, S, T, H, D = 2, 5, 7, 4, 8


def _runtime(
    op: str, names: str, outputs: str = "y", **attrs: Any
) -> tuple[onnx.NodeProto, list[str]]:
    node = helper.make_node(
        op, names.split(","), outputs.split(","), domain="com.microsoft", **attrs
    )
    return node, [n for n in names.split(",") if n]


SHAPES = {
    "q": (B, S, H * D),
    "k": (B, T, H * D),
    "v": (B, T, H * D),
    "self_k": (B, S, H * D),
    "self_v": (B, S, H * D),
    "b": (3 * H * D,),
    "bias": (1, H, S, T),
    "past_k": (B, H, 3, D),
    "past_v": (B, H, 3, D),
    "x": (B, S, 6),
    "w": (6, 3 * H * D),
    "x4": (B, H, S, D),
    "cos": (9, D // 2),
    "sin": (9, D // 2),
}
INTEGERS = {
    "mask_t": ((B, T), 2, np.int32),
    "mask_s": ((B, S), 2, np.int32),
    "at": ((B, S), 9, np.int64),
}
NODES = {
    "plain": _runtime("MultiHeadAttention", "q,k,v", num_heads=H),
    "bias": _runtime("MultiHeadAttention", "q,k,v,b,,bias", num_heads=H, scale=0.3),
    "padding": _runtime("MultiHeadAttention", "q,k,v,,mask_t", num_heads=H),
    "past": _runtime(
        "MultiHeadAttention",
        "q,self_k,self_v,,,,past_k,past_v",
        "y,pk,pv",
        num_heads=H,
        unidirectional=1,
    ),
    "packed": _runtime("Attention", "x,w,b,mask_s", num_heads=H),
    "packed_causal": _runtime("Attention", "x,w,b", num_heads=H, unidirectional=1),
    "rotary": _runtime("RotaryEmbedding", "q,at,cos,sin"),
    "rotary_pairs": _runtime("RotaryEmbedding", "x4,at,cos,sin", interleaved=1),
}


@pytest.mark.parametrize("name", NODES)
def test_attentions_of_onnxruntime(name: str) -> None:
    node, used = NODES[name]
    r = _Random(0)
    for n in used:
        if n in INTEGERS:
            shape, high, dtype = INTEGERS[n]
            r.give(n, r.rng.integers(0, high, shape).astype(dtype))
        else:
            r.give(n, r.values(*SHAPES[n]))
    check(model_of(node, r.inputs, {}), r.inputs)


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"direction": "sideways"}, "direction is 'sideways'"),
        ({"hidden_size": 5}, "hidden_size 5 does not fit"),
        ({"activations": ["Cosine", "Tanh", "Tanh"]}, "activation 'Cosine'"),
        ({"activations": ["Tanh"]}, "1 activations, expected 3"),
        ({"activations": ["Affine", "Tanh", "Tanh"]}, "Affine needs activation_alpha"),
        ({"clip": -1.0}, "clip is -1"),
    ],
)
def test_broken_recurrent_nodes_are_refused(attrs: dict[str, Any], message: str) -> None:
    r = _Random(0)
    r.give("X", r.values(3, 1, 4))
    r.give("W", r.values(1, 8, 4), constant=True)
    r.give("R", r.values(1, 8, 2), constant=True)
    node = helper.make_node("LSTM", r.names, ["Y"], **{"hidden_size": 2, **attrs})
    with pytest.raises(SparrowError, match=message):
        import_onnx(model_of(node, r.inputs, r.weights))
