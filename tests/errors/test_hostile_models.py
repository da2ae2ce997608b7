"""Models made to exhaust or confuse the importer end in one line, at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import sparrow
from sparrow.errors import BadInput, BadModel, SparrowError
from sparrow.importers.onnx import import_onnx

OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]


def model(nodes: list[onnx.NodeProto], **more: Any) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph(nodes, "g", [x], [y], more.pop("initializer", []))
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=9, **more)


def function(name: str, calls: list[str]) -> onnx.FunctionProto:
    nodes, last = [], "a"
    for k, op in enumerate(calls):
        domain = "local" if op.startswith("F") else ""
        out = "b" if k == len(calls) - 1 else f"t{k}"
        nodes.append(helper.make_node(op, [last], [out], domain=domain))
        last = out
    return helper.make_function("local", name, ["a"], ["b"], nodes, OPSETS)


def test_functions_that_double_forty_times_are_refused_before_they_expand() -> None:
    functions = [function("F0", ["Relu"])]
    functions += [function(f"F{k}", [f"F{k - 1}", f"F{k - 1}"]) for k in range(1, 41)]
    bomb = model([helper.make_node("F40", ["x"], ["y"], domain="local")], functions=functions)
    with pytest.raises(BadModel, match="expand to"):
        import_onnx(bomb)


def test_a_function_that_calls_itself_is_refused() -> None:
    nodes = [helper.make_node("F", ["x"], ["y"], domain="local")]
    with pytest.raises(BadModel, match="calls itself"):
        import_onnx(model(nodes, functions=[function("F", ["F"])]))


def test_a_model_that_computes_nothing_is_refused() -> None:
    silent = model([helper.make_node("Relu", ["x"], ["y"])])
    del silent.graph.output[:]
    with pytest.raises(BadModel, match="the model has no output"):
        import_onnx(silent)


def test_negative_extents_of_a_constant_are_refused() -> None:
    w = helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])
    w.dims[0] = -2
    with pytest.raises(BadModel, match="has shape"):
        import_onnx(model([helper.make_node("Add", ["x", "w"], ["y"])], initializer=[w]))


@pytest.mark.parametrize("rank", [33, 61, 64, 65, 1000])
def test_more_axes_than_can_be_broadcast_are_refused(rank: int) -> None:
    shape = helper.make_tensor("s", TensorProto.INT64, [rank], [1] * rank)
    w = helper.make_tensor("w", TensorProto.FLOAT, [1] * rank, [1])
    made = helper.make_node("ConstantOfShape", ["s"], ["c"])
    grown = helper.make_node("Expand", ["x", "s"], ["c"])
    total = helper.make_node("Add", ["x", "c"], ["y"])
    cases = [model([first, total], initializer=[shape]) for first in (made, grown)]
    cases.append(model([helper.make_node("Add", ["x", "w"], ["y"])], initializer=[w]))
    for case in cases:
        with pytest.raises(SparrowError, match=r"axes|dimension"):
            import_onnx(case)


def test_shapes_must_be_integers() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    with pytest.raises(BadInput, match="expected integers"):
        sparrow.build(model(nodes), shapes={"x": (2.5,)})  # type: ignore[dict-item]


def test_scalars_go_in_and_out() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "g", [x], [y])
    bundle = sparrow.build(helper.make_model(graph, opset_imports=OPSETS[:1], ir_version=9))
    found = bundle.run({"x": np.array(1, np.float32)})["y"]
    assert found.shape == () and abs(float(found) - np.e) < 1e-6


def test_names_that_are_not_utf8_are_refused_wherever_they_stand(tmp_path: Path) -> None:
    f = helper.make_function(
        "local.", "call.", ["a."], ["b."], [helper.make_node("Relu", ["a."], ["b."])],
        [helper.make_opsetid("", 17)], ["attr."],
    )  # fmt: skip
    nodes = [
        helper.make_node("call.", ["x."], ["h."], domain="local."),
        helper.make_node("LeakyRelu", ["h."], ["y."], name="node.", alpha=1.0),
    ]
    x, y = (
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n.", 2]) for n in ("x.", "y.")
    )
    graph = helper.make_graph(nodes, "graph.", [x], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local.", 1)]
    made = helper.make_model(graph, opset_imports=opsets, functions=[f], ir_version=10)
    data = made.SerializeToString()
    names = [i for i, c in enumerate(data) if c == ord(".")]
    assert len(names) == 20
    for i in names:
        (tmp_path / "m.onnx").write_bytes(data[:i] + b"\xff" + data[i + 1 :])
        for shapes in ({}, {"x.": (1, 2)}):
            with pytest.raises(SparrowError) as e:
                import_onnx(tmp_path / "m.onnx", shapes)
            assert e.value.exit_code == 2 and str(e.value).isprintable()


@pytest.mark.parametrize("shape", [[0, 1 << 27], [1 << 27, 0]])
def test_an_empty_tensor_does_not_make_its_other_extent_free(shape: list[int]) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    k = helper.make_tensor_value_info("k", TensorProto.INT64, [])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Trilu", ["x", "k"], ["y"])], "g", [x, k], [y])
    with pytest.raises(SparrowError, match="the triangle would be a constant"):
        import_onnx(helper.make_model(graph, opset_imports=OPSETS, ir_version=9))


def test_zero_points_are_integers_and_scales_are_not() -> None:
    for name, scale, zero, message in (
        ("nan", 1.0, np.float32(np.nan), "a zero point of"),
        ("wide", np.float64(1e300), np.uint8(0), "a scale of"),
    ):
        stored = [
            onnx.numpy_helper.from_array(np.asarray(v), k)
            for k, v in (("s", scale if name == "wide" else np.float32(scale)), ("z", zero))
        ]
        nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])]
        with pytest.raises(SparrowError, match=message):
            import_onnx(model(nodes, initializer=stored))


def test_an_operator_has_a_bounded_number_of_inputs() -> None:
    with pytest.raises(BadModel, match="2000 inputs; at most 1024"):
        import_onnx(model([helper.make_node("Sum", ["x"] * 2000, ["y"])]))
