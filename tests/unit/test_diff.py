"""`sparrow diff` names the first value that differs; `sparrow reduce` keeps the node that fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparrow
from data import REPO
from small_models import classifier, model, renamed, value
from sparrow.blame import blame_model
from sparrow.blame.align import cuts, dequantized_weights
from sparrow.cli import main
from sparrow.diff import diff
from sparrow.errors import BadInput
from sparrow.importers.model import import_model
from sparrow.input_shapes import ShapeTaken
from sparrow.passes import FRONT, optimize
from sparrow.reduce import differs_from_onnxruntime, reduce

DIGITS = REPO / "examples" / "digits" / "digits.onnx"


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as e:
        main(list(words))
    return int(str(e.value.code))


def altered(k: int) -> tuple[onnx.ModelProto, str]:
    """The digits model with other weights in its convolution number ``k``, and its name."""
    m = onnx.load(DIGITS)
    conv = [n for n in m.graph.node if n.op_type == "Conv"][k]
    for t in m.graph.initializer:
        if t.name == conv.input[1]:
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t) * np.float32(1.1), t.name))
    return m, conv.name


def test_equal_models_do_not_part() -> None:
    found = diff(str(DIGITS), str(DIGITS))
    assert found.first is None and str(found).startswith("same")
    assert all(d.apart == 0 for d in found.values) and len(found.values) > 20


@pytest.mark.parametrize("k", [0, 3, 7])
def test_the_first_altered_layer_is_named(k: int) -> None:
    model, name = altered(k)
    first = diff(str(DIGITS), model).first
    assert first is not None and first.origin == name


def test_values_under_other_names_are_found() -> None:
    m = onnx.load(DIGITS)
    found = diff(m, renamed(m))
    assert found.first is None and len(found.values) == found.of > 20
    assert all(d.value != d.other and d.apart == 0 for d in found.values)
    assert "39 of 39 values (39 by what they hold)" in str(found)


@pytest.mark.parametrize("k", [0, 3, 7])
def test_the_first_altered_layer_is_named_where_names_say_nothing(k: int) -> None:
    m, name = altered(k)
    first = diff(str(DIGITS), renamed(m)).first
    assert first is not None and first.origin == name and first.other[0] == "v"


def test_a_quantized_model_whose_names_are_all_new() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (6, 3, 12, 12)).astype(np.float32)
    q = sparrow.quantize(classifier(), x)
    made = [y for n in q.graph.node for y in n.output]
    found = diff(classifier(), renamed(q), x, tolerance=0.2)
    assert found.first is None
    # each is what went by its name, before it became codes
    was = {f"v{i}": y for i, y in enumerate(made)}
    assert [was[d.other].removesuffix(".f") for d in found.values] == list("abcdefghy")
    assert [d.value for d in found.values] == list("abcdefghy")


def test_names_that_are_mixed_up_are_put_right() -> None:
    # both are relus of one shape
    first = [helper.make_node("Mul", ["x", "s"], ["a"]), helper.make_node("Neg", ["x"], ["b"])]
    last = [helper.make_node("Sub", ["a", "b"], ["y"])]
    shape = (1, 64)
    m = model(
        [*first, *last], [value("x", shape)], [value("y", shape)], {"s": np.full(1, 3, np.float32)}
    )
    found = diff(m, renamed(m, {"a": "b", "b": "a"}))
    assert found.first is None
    assert [(d.value, d.other) for d in found.values] == [("a", "b"), ("b", "a"), ("y", "y")]


def test_results_are_compared_though_nothing_inside_is_alike() -> None:
    found = diff(classifier(), renamed(classifier(seed=1)))
    assert found.first is not None
    assert [d.value for d in found.values][-1] == "y" and found.values[-1].share > 0.01


def test_inputs_of_other_names_are_matched_by_their_order() -> None:
    """An input may go by the name of a value inside of the other model."""
    for names in ({"x": "image"}, {"x": "image", "a": "x"}):
        found = diff(classifier(), renamed(classifier(), names))
        assert found.first is None and found.inputs == {"x": names["x"]}
        assert f"inputs by their order: 'x' is '{names['x']}' in the second" in str(found)
    altered = diff(renamed(classifier(seed=1), {"x": "image"}), classifier())
    assert altered.first is not None and altered.inputs == {"image": "x"}
    assert not diff(classifier(), classifier()).inputs


def joined(names: Sequence[str], shapes: Sequence[tuple[int | str, ...]]) -> onnx.ModelProto:
    """The sum of the first input and twice the second, which broadcast."""
    nodes = [
        helper.make_node("Add", [names[1]] * 2, ["t"]),
        helper.make_node("Add", [names[0], "t"], ["y"]),
    ]
    ends = [value(n, s) for n, s in zip(names, shapes, strict=True)]
    return model(nodes, ends, [value("y", ("n", 3))], {})


def test_the_first_of_several_inputs_stands_for_the_first() -> None:
    shapes: list[tuple[int | str, ...]] = [(2, 3), (1, 3)]
    found = diff(joined("ab", shapes), joined("pq", shapes))
    assert found.first is None and found.inputs == {"a": "p", "b": "q"}
    # names that both have win
    found = diff(joined("ab", shapes), joined(["c", "b"], shapes))
    assert found.first is None and found.inputs == {"a": "c"}
    with pytest.raises(BadInput, match=r"differ: .* 'a': float32\[2x3\].*, the second 'p': "):
        diff(joined("ab", shapes), joined("pq", shapes[::-1]))


@pytest.mark.parametrize("names", [("x", "z"), ("z", "x")])
def test_open_shapes_of_inputs_of_other_names_are_told_by_either(names: tuple[str, str]) -> None:
    a, b = map(opened, names)
    for shape in ({names[0]: (2, 3)}, {names[1]: (2, 3)}):
        assert diff(a, b, shapes=shape).inputs == {names[0]: names[1]}
    samples = [np.ones((2, 3), np.float32)]
    for pair in [(a, b), (closed(names[0]), b), (a, closed(names[1]))]:
        with pytest.warns(ShapeTaken):
            assert diff(*pair, samples).first is None


def closed(name: str) -> onnx.ModelProto:
    """The model of `opened` with two rows."""
    m = opened(name)
    m.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    return m


def test_a_bundle_of_inputs_of_other_names(tmp_path: Path) -> None:
    sparrow.build(renamed(classifier(), {"x": "image"}), out=tmp_path / "out")
    found = diff(classifier(), tmp_path / "out")
    assert found.first is None and found.inputs == {"x": "image"}
    found = diff(tmp_path / "out", classifier())
    assert found.first is None and found.inputs == {"image": "x"}


def test_inputs_of_other_shapes_are_shown() -> None:
    with pytest.raises(BadInput, match=r"differ: .* 'x': float32\[1x3x12x12\], the second 'qx': "):
        diff(classifier(), classifier("q", shape=(1, 3, 16, 16)))
    wanted = r"'x' is float32\[1x3x12x12\] in the first model, float32\[1x3x16x16\] in the second"
    with pytest.raises(BadInput, match=wanted):
        diff(classifier(), classifier(shape=(1, 3, 16, 16)))


def opened(name: str, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Relu of an input with an open extent."""
    x, y = (helper.make_tensor_value_info(v, kind, ("n", 3)) for v in (name, "y"))
    return helper.make_model(
        helper.make_graph([helper.make_node("Abs", [name], ["y"])], "g", [x], [y]),
        opset_imports=[helper.make_opsetid("", 17)],
    )


def test_inputs_that_differ_are_no_lack_of_a_shape(tmp_path: Path) -> None:
    other = opened("z")
    other.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    for pair in [(opened("x"), other), (closed("x"), other), (other, closed("x"))]:
        with pytest.raises(BadInput, match=r"^inputs differ: .*'x'.*") as e:
            diff(*pair)
        assert "'z'" in str(e.value) and "--shape" not in str(e.value)
    with (
        pytest.warns(ShapeTaken, match="x=2x3 taken from the other model"),
        pytest.raises(BadInput, match=r"'x' is .*int32\[2x3\]"),
    ):
        diff(closed("x"), opened("x", TensorProto.INT32))
    # what only lacks an extent is told the way out
    with pytest.raises(BadInput, match="--shape"):
        diff(opened("x"), opened("x"))


def test_blame_says_which_inputs_differ() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (6, 3, 12, 12)).astype(np.float32)
    quantized = sparrow.quantize(classifier(), x)
    wanted = r"^inputs differ: 'x' is float32\[1x3x16x16\] in the float model, float32\[1x3x12x12\]"
    with pytest.raises(BadInput, match=wanted):
        blame_model(quantized, classifier(shape=(1, 3, 16, 16)), x)
    with pytest.raises(BadInput, match=r"^inputs differ: 'z' \(nx3\) is none of the quantized"):
        blame_model(quantized, opened("z"), x)


def test_codes_of_other_widths_do_not_count_as_other_values() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (4, 3, 12, 12)).astype(np.float32)
    narrow = sparrow.quantize(classifier(), x)
    wide = sparrow.quantize(classifier(), x, sparrow.Recipe(pins=(("conv*", "int16x8"),)))
    rounded = [d for d in diff(narrow, wide, x).values if d.op in ("Quantize", "Dequantize")]
    assert len(rounded) > 5 and max(d.share for d in rounded) < 0.1


def test_a_model_and_its_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(classifier(), tmp_path / "m.onnx")
    sparrow.build(classifier(), out=tmp_path / "out")
    assert command("diff", str(tmp_path / "m.onnx"), str(tmp_path / "out")) == 0
    assert "same" in capsys.readouterr().out
    assert command("diff", str(DIGITS), str(tmp_path / "out")) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_reduce_keeps_the_node_that_fails() -> None:
    def fails(m: onnx.ModelProto) -> bool:
        return any(n.op_type == "GlobalAveragePool" or "Reduce" in n.op_type for n in m.graph.node)

    found = reduce(str(DIGITS), fails)
    assert found.nodes == 1 < found.before
    onnx.checker.check_model(found.model, full_check=True)
    assert fails(found.model)


def test_reduce_takes_pairs_that_fail_together() -> None:
    def fails(m: onnx.ModelProto) -> bool:
        kinds = [n.op_type for n in m.graph.node]
        return "Softmax" in kinds and "Resize" in kinds

    assert reduce(str(DIGITS), fails).nodes == 2


def test_reduce_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.py").write_text(
        "def f(m):\n    return any(n.op_type == 'Softmax' for n in m.graph.node)\n"
    )
    out = tmp_path / "small.onnx"
    words = ["reduce", str(DIGITS), "-o", str(out), "--fails"]
    assert command(*words, f"{tmp_path / 'p.py'}:f") == 0
    assert "Softmax" in [n.op_type for n in onnx.load(out).graph.node]
    assert command(*words, "differs-from-onnxruntime") == 2
    assert "does not show the failure" in capsys.readouterr().err
    assert command(*words, "nonsense") == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('kaputt')", "RuntimeError: kaputt"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import numpy; return numpy.zeros(2)", "neither true nor false"),
    ],
)
def test_what_a_user_says_about_a_failure_may_fail(
    body: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.py").write_text(f"def f(m):\n    {body}\n")
    out = tmp_path / "small.onnx"
    assert command("reduce", str(DIGITS), "-o", str(out), "--fails", f"{tmp_path / 'p.py'}:f") == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert not out.exists()


def test_the_reference_agrees_with_onnxruntime_on_digits() -> None:
    assert not differs_from_onnxruntime(onnx.load(DIGITS))


def streaming() -> onnx.ModelProto:
    """A network whose input h is to carry its output n: y = relu(x w + h) v, n = tanh(x w + h)."""
    rng = np.random.default_rng(3)
    w = {k: rng.standard_normal((256, 256), np.float32) / 16 for k in ("w", "v")}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Add", ["a", "h"], ["b"], "sum"),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        helper.make_node("MatMul", ["c", "v"], ["y"], "second"),
        helper.make_node("Tanh", ["b"], ["n"], "tanh"),
    ]
    info = {
        k: helper.make_tensor_value_info(k, TensorProto.FLOAT, (1, 256))
        for k in ("x", "h", "y", "n")
    }
    return model(nodes, [info["x"], info["h"]], [info["y"], info["n"]], w)


def test_a_bundle_that_carries_a_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m, out, calib = tmp_path / "m.onnx", tmp_path / "out", tmp_path / "x.npz"
    onnx.save(streaming(), m)
    np.savez(calib, x=np.random.default_rng(0).standard_normal((40, 1, 256)).astype(np.float32))
    sparrow.build(str(m), out=out, states={"h": "n"})
    for words in ([m, out], [out, m], [m, out, "--calib", calib]):
        assert command("diff", *map(str, words)) == 0, capsys.readouterr()
    small = tmp_path / "small"
    sparrow.build(str(m), out=small, calib=str(calib), precision="int8", states={"h": "n"})
    assert command("diff", str(m), str(small), "--tolerance", "0.2") == 0
    assert command("diff", str(m), str(small), "--tolerance", "1e-6") == 1
    capsys.readouterr()
    assert command("blame", str(small)) == 0
    blame = ("blame", str(small), "--model", str(m), "--calib", str(calib))
    assert command(*blame) == 0
    found = capsys.readouterr().out
    assert "first" in found and "second" in found
    assert command(*blame, "--apply", str(tmp_path / "again.onnx")) == 0
    states = {"h": "n"}
    graph = import_model(tmp_path / "again.onnx", states=states).graph
    assert [s.input for s in graph.states] == ["h"]


def test_values_of_states_are_cut_like_inputs() -> None:
    states = {"h": "n"}
    x = np.random.default_rng(0).standard_normal((40, 1, 256)).astype(np.float32)
    q = import_model(sparrow.quantize(streaming(), x, states=states), states=states).graph
    f = optimize(import_model(streaming(), states=states).graph, FRONT)
    names = [c.name for c in cuts(f, dequantized_weights(q).graph)]
    assert names.index("h") < names.index("y")
