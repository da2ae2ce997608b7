"""Functions that a model brings along: what they mean where they are called."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from scipy.special import softmax

from small_models import model, value
from sparrow.importers.onnx import import_onnx
from sparrow.reference import evaluate
from sparrow.tensor import Array

MINE = helper.make_opsetid("mine", 1)
X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)


def leak() -> onnx.FunctionProto:
    """LeakyRelu of slope 0.2, unless the call says another."""
    node = helper.make_node("LeakyRelu", ["a"], ["b"])
    node.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    default = [helper.make_attribute("slope", 0.2)]
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_function("mine", "Leak", ["a"], ["b"], [node], opsets, [], default)


def twice() -> onnx.FunctionProto:
    """Both slopes, from within a function."""
    nodes = [
        helper.make_node("Leak", ["a"], ["t"], domain="mine"),
        helper.make_node("Leak", ["t"], ["b"], domain="mine", slope=0.5),
    ]
    opsets = [helper.make_opsetid("", 17), MINE]
    return helper.make_function("mine", "Twice", ["a"], ["b"], nodes, opsets)


def old() -> onnx.FunctionProto:
    """Opset 11, whose Softmax flattens from its axis on; calls a function of opset 17."""
    nodes = [
        helper.make_node("Twice", ["a"], ["t"], domain="mine"),
        helper.make_node("Softmax", ["t"], ["b"], axis=1),
    ]
    opsets = [helper.make_opsetid("", 11), MINE]
    return helper.make_function("mine", "Old", ["a"], ["b"], nodes, opsets)


def computed(*calls: str) -> Array:
    """What the functions, or operators, of these names make of X one after another."""
    nodes = []
    for i, f in enumerate(calls):
        node = helper.make_node(f, [f"v{i}"], [f"v{i + 1}"], domain="mine")
        if f == "Softmax":
            node = helper.make_node(f, [f"v{i}"], [f"v{i + 1}"], axis=1)
        nodes.append(node)
    made = model(nodes, [value("v0", X.shape)], [value(f"v{len(calls)}", X.shape)])
    made.opset_import.append(MINE)
    made.functions.extend([old(), leak(), twice()])
    before = made.SerializeToString()
    (y,) = evaluate(import_onnx(made).graph, {"v0": X}).values()
    assert made.SerializeToString() == before
    return y


def leaky(x: Array, slope: float) -> Array:
    return np.where(x < 0, np.float32(slope) * x, x)


def test_attributes_have_the_defaults_of_the_function() -> None:
    np.testing.assert_array_equal(computed("Leak"), leaky(X, 0.2))


def test_also_where_a_function_calls_another() -> None:
    np.testing.assert_allclose(computed("Twice"), leaky(X, 0.1), rtol=1e-6)


def test_a_function_means_what_its_own_opset_says() -> None:
    first = softmax(leaky(X, 0.1), (1, 2))
    np.testing.assert_allclose(computed("Old"), first, rtol=1e-5)
    np.testing.assert_allclose(computed("Old", "Softmax"), softmax(first, 1), rtol=1e-5)
    again = softmax(leaky(softmax(first, 1), 0.1), (1, 2))
    np.testing.assert_allclose(computed("Old", "Softmax", "Old"), again, rtol=1e-5)
