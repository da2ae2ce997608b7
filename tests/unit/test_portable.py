"""Files for other runtimes: the lowest opset that can say a graph, and the same answers."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from small_models import classifier, model, value
from sparrow.importers.onnx import import_onnx
from sparrow.passes import FRONT, optimize
from sparrow.portable import to_portable_onnx
from sparrow.reference import evaluate
from sparrow.samples import draw


def one(op: str, shape: tuple[int, ...] = (1, 4, 6), **attrs: int) -> onnx.ModelProto:
    node = helper.make_node(op, ["x"], ["y"], **attrs)  # type: ignore[arg-type]
    return model([node], [value("x", shape)], [value("y", shape)])


@pytest.mark.parametrize(
    ("proto", "opset"),
    [
        (one("Relu"), 13),
        (one("Sigmoid"), 13),
        (one("Softmax", axis=-1), 13),
        # the reduction takes its axes as an operand since 18
        (classifier(), 18),
    ],
)
def test_the_lowest_opset_that_can_say_it(proto: onnx.ModelProto, opset: int) -> None:
    g = optimize(import_onnx(proto).graph, FRONT)
    m = to_portable_onnx(g)
    onnx.checker.check_model(m, full_check=True)
    assert m.opset_import[0].version == opset
    assert m.ir_version <= 8
    feeds = draw(g, (0,))
    (y,) = ort.InferenceSession(m.SerializeToString()).run(None, feeds)
    np.testing.assert_allclose(y, evaluate(g, feeds)[g.outputs[0]], rtol=1e-5, atol=1e-6)


def test_idle_nodes_are_left_out_and_names_kept() -> None:
    g = optimize(import_onnx(classifier()).graph, FRONT)
    m = to_portable_onnx(g)
    assert not any(n.op_type == "Identity" for n in m.graph.node)
    assert [o.name for o in m.graph.output] == list(g.outputs)
    assert [i.name for i in m.graph.input] == list(g.inputs)


def test_an_output_that_is_an_input_stays_a_copy() -> None:
    m = to_portable_onnx(import_onnx(one("Identity")).graph)
    assert [n.op_type for n in m.graph.node] == ["Identity"]
