"""Inputs fixed to a value when a model is compiled: a sample rate, a length, a flag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

import sparrow
from sparrow.arguments import constants_of
from sparrow.cli import main
from sparrow.compiler import Source
from sparrow.errors import BadInput, SparrowError
from sparrow.evidence.oracle import Oracle
from sparrow.importers.fixed import fixed
from sparrow.importers.model import import_model
from sparrow.input_shapes import ShapeTaken
from sparrow.tensor import BF16, BOOL, F32, I8, I64, U8, TensorType
from tflite_files import T, one

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
# the branch for 8000 takes other extents than the one for 16000
RATES = """
g (float[1,N] x, float[1,4] h, int64 sr) => (float[1,4] y, float[1,4] n) {
  rate = Constant<value = int64 {16000}>()
  wide = Constant<value = int64[2] {1, 8}>()
  narrow = Constant<value = int64[2] {1, 4}>()
  four = Constant<value = int64[1] {4}>()
  zero = Constant<value = int64[1] {0}>()
  one = Constant<value = int64[1] {1}>()
  fast = Equal(sr, rate)
  y = If (fast) <
    then_branch = a () => (float[1,4] p) { r = Reshape(x, wide)  c = Slice(r, zero, four, one)
      p = Add(c, h) },
    else_branch = b () => (float[1,4] q) { s = Reshape(x, narrow)  q = Sub(s, h) }>
  n = Tanh(y)
}"""
TAKE = """
g (float[2,6] x, int64[2] size) => (float[A,B] y) { y = Reshape(x, size) }"""


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + text)


@pytest.mark.parametrize(("rate", "length"), [(16000, 8), (8000, 4)])
def test_a_rate_picks_its_branch_in_a_bundle(rate: int, length: int, tmp_path: Path) -> None:
    proto = parse(RATES)
    shapes = {"x": (1, length)}
    b = sparrow.build(
        proto, out=tmp_path / "b", shapes=shapes, states={"h": "n"}, constants={"sr": rate}
    )
    assert b.verify().ok
    assert any("onnxruntime" in a.what and a.distance for a in b.receipt.accuracy)
    assert f"sr = {rate} as a constant" in b.receipt.sources[0].frozen
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    h, rng = np.zeros((1, 4), np.float32), np.random.default_rng(rate)
    for _ in range(3):
        x = rng.standard_normal((1, length), np.float32)
        want, h = session.run(None, {"x": x, "h": h, "sr": np.array(rate)})
        np.testing.assert_allclose(b.run({"x": x})["y"], want, 1e-5, 1e-6)
    with pytest.raises(BadInput, match="sr"):
        b.run({"x": x, "sr": np.array(rate)})


def test_what_is_to_be_fixed_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for shape in ((1, 8), (1, 4)):
        with pytest.raises(SparrowError, match=r"in a branch .*; fix .*--constant sr=\.\.$"):
            import_model(parse(RATES), {"x": shape})
    with pytest.raises(SparrowError, match=r"must be constant; .*--constant size=\.\.$"):
        import_model(parse(TAKE))
    assert import_model(parse(TAKE), constants={"size": [3, 4]}).graph.types["y"].shape == (3, 4)
    path = tmp_path / "m.onnx"
    onnx.save(parse(RATES), path)
    command = ["check", str(path), "--shape", "x=1x8"]
    with pytest.raises(SystemExit, match="1"):
        main(command)
    assert "--constant sr=.." in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--constant", "sr=16000"])
    assert "frozen      sr = 16000 as a constant" in capsys.readouterr().out


def test_a_comparison_asks_for_what_was_fixed() -> None:
    feeds = {"x": np.zeros((1, 8), np.float32), "h": np.zeros((1, 4), np.float32)}
    with pytest.raises(BadInput, match=r"input 'sr' of the source model; --constant sr=\.\."):
        Oracle(Source(parse(RATES), {"x": (1, 8)})).run(feeds)
    assert Oracle(Source(parse(RATES), {"x": (1, 8)}, {"sr": 16000})).run(feeds)


def test_what_data_decide_is_not_named() -> None:
    text = """g (float[9000] x, bool c) => (float[N] y) {
      big = ReduceMax<keepdims = 0>(x)
      flag = Cast<to = 9>(big)
      both = And(flag, c)
      y = If (both) <
        then_branch = a () => (float[9000] p) { p = Neg(x) },
        else_branch = b () => (float[18000] q) { q = Concat<axis = 0>(x, x) }>
    }"""
    with pytest.raises(SparrowError, match=r"or export the branch you need$"):
        import_model(parse(text))


def test_extents_of_an_array_and_of_a_number() -> None:
    text = """g (float[B,4] x, int64[B] n) => (float[B,4] y) {
      f = Cast<to = 1>(n)  z = Constant<value = int64[1] {1}>()
      u = Unsqueeze(f, z)  y = Mul(x, u) }"""
    from_array = import_model(parse(text), constants={"n": np.array([2, 3])})
    assert from_array.graph.types["x"].shape == (2, 4)
    source = Source(parse(text), {"x": (3, 4)}, {"n": 5})
    y = Oracle(source).run({"x": np.ones((3, 4), np.float32)})["y"]
    np.testing.assert_array_equal(y, np.full((3, 4), 5, np.float32))


@pytest.mark.parametrize(
    ("value", "t", "want"),
    [
        (16000, TensorType((), I64), np.array(16000)),
        (3, TensorType((2, 1), F32), np.array([[3], [3]], np.float32)),
        (True, TensorType((1,), BOOL), np.array([True])),
        (0, TensorType((), BOOL), np.array(False)),
        ([1, 2], TensorType((2,), U8), np.array([1, 2], np.uint8)),
        (np.inf, TensorType((), F32), np.array(np.inf, np.float32)),
        (1 + 2**-12, TensorType((), BF16), np.array(1, np.float32)),
    ],
)
def test_values_take_the_type_of_the_input(value: Any, t: TensorType, want: Any) -> None:
    got = fixed(value, "x", t)
    assert got.dtype == t.dtype.numpy and got.shape == t.shape
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("value", "t"),
    [
        (16000.5, TensorType((), I64)),
        (300, TensorType((), U8)),
        (-129, TensorType((1,), I8)),
        (2, TensorType((), BOOL)),
        (True, TensorType((), I64)),
        (1e300, TensorType((), F32)),
        ([1.0, 2.0], TensorType((3,), F32)),
        ([[1.0]], TensorType((1,), F32)),
        ("16000", TensorType((), I64)),
        (None, TensorType((), F32)),
        (1j, TensorType((), F32)),
    ],
)
def test_other_values_are_refused(value: Any, t: TensorType) -> None:
    with pytest.raises(BadInput, match="constant 'x'"):
        fixed(value, "x", t)


def test_names_are_checked() -> None:
    with pytest.raises(BadInput, match="constant 'rate' is no input"):
        import_model(parse(RATES), {"x": (1, 8)}, constants={"rate": 1})
    with pytest.raises(BadInput, match="'h' is given as a constant and as a state"):
        import_model(parse(RATES), {"x": (1, 8)}, constants={"h": 1}, states={"h": "n"})
    with pytest.raises(BadInput, match="which is no input of any entry point"):
        sparrow.check({"a": parse(TAKE)}, constants={"rate": 1})


def test_a_tflite_input(tmp_path: Path) -> None:
    given = np.array([[1, 2, 3]], np.float32)
    path = tmp_path / "m.tflite"
    path.write_bytes(one("ADD", {"x": given, "k": given}, out=T("y", (1, 3), F32)))
    found = import_model(path, constants={"k": 2})
    assert list(found.graph.inputs) == ["x"] and "k = 2.0, 2.0, 2.0 as a constant" in found.frozen
    y = Oracle(Source(path, {}, {"k": 2})).run({"x": given})
    np.testing.assert_array_equal(next(iter(y.values())), given + 2)


def test_texts_of_the_command_line() -> None:
    assert constants_of(["sr=16000", "a=b=-1.5", "f=true", "n=3,4", "e=1e3"]) == {
        "sr": 16000,
        "a=b": -1.5,
        "f": True,
        "n": [3, 4],
        "e": 1000.0,
    }
    for text in ("sr", "sr=", "=3", "sr=16k", "n=3,", "n=1x3"):
        with pytest.raises(BadInput, match="write --constant sr=16000"):
            constants_of([text])
    with pytest.raises(BadInput, match="given twice"):
        constants_of(["a=1", "a=2"])


def test_samples_lack_what_is_fixed() -> None:
    samples = [(np.full((1, 8), i, np.float32),) for i in range(10)]
    with pytest.warns(ShapeTaken, match="x=1x8"):
        b = sparrow.build(
            parse(RATES),
            states={"h": "n"},
            calib=samples,
            precision="float32",
            constants={"sr": 16000},
        )
    assert b.run({"x": samples[0][0]})["y"].shape == (1, 4)


SCALED = """
g (float[1,8] x, int64 rate) => (float[1,4] y)
<float[8,4] w = {W}> {{
  sixteen = Constant<value = int64 {{16}}>()
  high = Equal(rate, sixteen)
  y = If (high) <
    then_branch = a () => (float[1,4] p) {{ p = MatMul(x, w) }},
    else_branch = b () => (float[1,4] q) {{ s = MatMul(x, w)  q = Neg(s) }}>
}}""".replace("{W}", "{{" + ", ".join(str((7 * i) % 11 - 5) for i in range(32)) + "}}").format()


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as e:
        main([str(w) for w in words])
    return int(str(e.value.code))


def test_models_are_compared_where_one_has_an_input_fixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, q, out = tmp_path / "m.onnx", tmp_path / "q.onnx", tmp_path / "out"
    onnx.save(parse(SCALED), model)
    x = np.random.default_rng(0).standard_normal((40, 1, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    calib = ("--calib", tmp_path / "x.npz")
    assert command("quantize", model, "-o", q, *calib, "--constant", "rate=16") == 0
    sparrow.build(parse(SCALED), out=out, constants={"rate": 16})
    assert command("diff", model, out, "--constant", "rate=16") == 0
    assert command("diff", out, model, *calib, "--constant", "rate=16") == 0
    assert command("diff", model, out, "--constant", "rate=8") == 1
    assert command("diff", model, q, *calib, "--constant", "rate=16", "--tolerance", "0.1") == 0
    capsys.readouterr()
    for a, b in ((model, out), (out, model)):
        assert command("diff", a, b, "--constant", "speed=16") == 2
        err = capsys.readouterr().err
        assert "constant 'speed' is no input of the model" in err and err.count("\n") == 1
    blame = ("blame", q, "--model", model, *calib)
    assert command(*blame) == 2
    assert "takes 'rate', the quantized one x; fix" in capsys.readouterr().err
    assert command(*blame, "--constant", "rate=16", "--apply", tmp_path / "r.onnx") == 0
    assert "MatMul" in capsys.readouterr().out
    assert list(import_model(tmp_path / "r.onnx").graph.inputs) == ["x"]


def test_a_model_with_an_input_fixed_is_reduced(tmp_path: Path) -> None:
    onnx.save(parse(SCALED), tmp_path / "m.onnx")
    (tmp_path / "p.py").write_text(
        "def f(m):\n    return any(n.op_type == 'MatMul' for n in m.graph.node)\n"
    )
    words = ("reduce", tmp_path / "m.onnx", "-o", tmp_path / "s.onnx", "--fails")
    assert command(*words, f"{tmp_path / 'p.py'}:f", "--constant", "rate=16") == 0
    assert [n.op_type for n in onnx.load(tmp_path / "s.onnx").graph.node] == ["MatMul"]
