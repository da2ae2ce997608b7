"""Shapes of dynamic inputs follow from samples or from what is compared with; a given one wins."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import sparrow
from small_models import model
from sparrow.blame import blame_model
from sparrow.cli import main
from sparrow.diff import diff
from sparrow.errors import BadInput
from sparrow.input_shapes import ShapeTaken, shapes_from_samples
from sparrow.tensor import F32
from tflite_files import O, T, write

RNG = np.random.default_rng(5)


def dynamic(*inputs: tuple[str, tuple[int | str | None, ...]]) -> onnx.ModelProto:
    """Relu of every input."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs]
    outs = [helper.make_tensor_value_info(f"{n}_y", TensorProto.FLOAT, s) for n, s in inputs]
    return model([helper.make_node("Relu", [n], [f"{n}_y"]) for n, _ in inputs], infos, outs, {})


def network() -> onnx.ModelProto:
    """[batch, time, 16] through two products."""
    w = {k: RNG.standard_normal((16, 16), np.float32) / 4 for k in ("u", "v")}
    nodes = [
        helper.make_node("MatMul", ["x", "u"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "v"], ["y"], "second"),
    ]
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ("batch", "time", 16)) for n in "xy"
    ]
    return model(nodes, infos[:1], infos[1:], w)


def zeros(*shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("dims", "given", "want"),
    [
        (("batch", 3, 8), zeros(10, 3, 8), (1, 3, 8)),
        (("batch", 3, 8), zeros(10, 1, 3, 8), (1, 3, 8)),
        (("batch", 3, 8), zeros(10, 4, 3, 8), (4, 3, 8)),
        (("batch", 3, "t"), zeros(10, 3, 7), (1, 3, 7)),
        ((1, 3, None), zeros(10, 3, 7), (1, 3, 7)),
        ((5, "t"), zeros(5, 7), (5, 7)),
        ((5, "t"), zeros(10, 5, 7), (5, 7)),
        (("n",), zeros(10), (1,)),
        (("n",), zeros(10, 6), (6,)),
        (("batch", 3, "t"), zeros(1, 3, 7), (1, 3, 7)),
        (("batch", 3, "t"), {"x": zeros(1, 3, 7)}, (1, 3, 7)),
        (("batch", 3, "t"), [zeros(4, 3, 7)], (4, 3, 7)),
        (("batch", 3, "t"), [zeros(3, 7)], (1, 3, 7)),
        (("batch", 3, "t"), [(zeros(3, 7),)], (1, 3, 7)),
        (("batch", 3, "t"), [{"x": zeros(2, 3, 7)}], (2, 3, 7)),
        (("batch", 3, "t"), {"x": zeros(9, 3, 7)}, (1, 3, 7)),
    ],
)
def test_the_shape_is_that_of_a_sample(
    dims: tuple[int | str | None, ...], given: Any, want: tuple[int, ...]
) -> None:
    with pytest.warns(ShapeTaken, match=f"^shape x={'x'.join(map(str, want))} taken from the s"):
        found, _ = shapes_from_samples(dynamic(("x", dims)), {}, given)
    assert found == {"x": want}


def test_nothing_is_taken_where_all_is_said() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fixed = dynamic(("x", (1, 3)))
        assert shapes_from_samples(fixed, {}, zeros(10, 3))[0] == {}
        one = dynamic(("x", ("b", "t")))
        # what is given wins, and samples that do not fit it are refused later
        assert shapes_from_samples(one, {"x": (2, 9)}, zeros(10, 3))[0] == {"x": (2, 9)}
        two = dynamic(("x", ("b", 3)), ("m", ("b", 5)))
        assert shapes_from_samples(two, {"x": (2, 3)}, {"x": zeros(2, 3)})[0] == {"x": (2, 3)}
        assert shapes_from_samples(one, {}, None)[0] == {}
        assert shapes_from_samples(one, {}, [])[0] == {}


def test_a_generator_loses_no_sample() -> None:
    def made() -> Iterator[Any]:
        yield from (zeros(3, 7) + i for i in range(3))

    with pytest.warns(ShapeTaken):
        found, rest = shapes_from_samples(dynamic(("x", ("b", 3, "t"))), {}, made())
    assert found == {"x": (1, 3, 7)} and [v.max() for v in rest] == [0, 1, 2]


def test_images_say_the_batch_alone(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.warns(ShapeTaken, match="x=1x3x8x8"):
        found, _ = shapes_from_samples(dynamic(("x", ("b", 3, 8, 8))), {}, tmp_path)
    assert found == {"x": (1, 3, 8, 8)}
    assert shapes_from_samples(dynamic(("x", ("b", 3, "h", "w"))), {}, tmp_path)[0] == {}


@pytest.mark.parametrize(
    ("inputs", "given", "says"),
    [
        ((("x", ("b", 3)),), {"x": zeros(9, 4)}, r"'x' are 9x4, the model takes bx3 each"),
        ((("x", ("b", 3)),), {"x": zeros()}, r"'x' are scalar, the model takes bx3 each"),
        ((("x", ("b", 3)),), {"y": zeros(9, 3)}, r"no array for input 'x'; it holds y"),
        ((("x", ("b", 3)),), [{"y": zeros(9, 3)}], r"no array for input 'x'; it holds y"),
        ((("x", ("b", 3)),), {"x": zeros(9, 2, 3, 3)}, r"'x' are 9x2x3x3, the model takes bx3"),
        (
            (("x", ("b", 3)), ("m", ("b", 5))),
            {"x": zeros(9, 3), "m": zeros(9, 2, 5)},
            r"dimension 'b' is 2 in the samples of 'm' and 1 by 'x'; --shape",
        ),
        ((("x", ("b", "t")), ("m", ("b", "t"))), {"x": zeros(9, 3), "m": zeros(9, 4)}, "'t' is 4"),
    ],
)
def test_contradictions_are_one_line(inputs: Any, given: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says.replace("; --shape", "")):
        shapes_from_samples(dynamic(*inputs), {}, given)


def test_commands_follow_the_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m, calib, q = tmp_path / "m.onnx", tmp_path / "x.npz", tmp_path / "q.onnx"
    onnx.save(network(), m)
    np.savez(calib, x=RNG.standard_normal((40, 6, 16), np.float32))

    def command(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as e:
            main([*words])
        return int(str(e.value.code)), capsys.readouterr().err

    note = "note: shape x=1x6x16 taken from the samples; --shape sets another\n"
    samples = ("--calib", str(calib))
    assert command("quantize", str(m), "-o", str(q), *samples) == (0, note)
    code, err = command("blame", str(q), "--model", str(m), *samples)
    assert (code, err) == (0, note.replace("the samples", "the quantized model"))
    assert command("build", str(m), "-o", str(tmp_path / "b"), "--precision", "float32",
                   *samples) == (0, note)  # fmt: skip
    code, err = command("diff", str(m), str(tmp_path / "b"))
    assert (code, err) == (0, note.replace("the samples", "the other model"))
    assert command("fits", str(m), "--target", "nano33ble", *samples)[1] == note
    code, err = command("quantize", str(m), "-o", str(q), *samples, "--shape", "x=2x7x16")
    assert code == 2 and err.count("\n") == 1 and "2x7x16" in err


def test_blame_and_diff_of_dynamic_models() -> None:
    m = network()
    x = RNG.standard_normal((40, 6, 16), np.float32)
    with pytest.warns(ShapeTaken):
        q = sparrow.quantize(m, x)
    for info in (*q.graph.input, *q.graph.output):
        info.type.tensor_type.shape.dim[1].dim_param = "time"
    del q.graph.value_info[:]
    with pytest.warns(ShapeTaken):
        assert blame_model(q, m, x).layers
        assert diff(m, m, x).first is None
    with pytest.raises(BadInput, match="'x' is batchxtimex16, in the other model 2x16"):
        diff(m, dynamic(("x", (2, 16))))


def test_the_file_of_a_tflite_model_has_a_shape_of_its_own(tmp_path: Path) -> None:
    def written(signature: tuple[int, ...]) -> str:
        x, y = (T(n, (1, 4), F32, signature=signature) for n in "xy")
        path = tmp_path / "m.tflite"
        path.write_bytes(write([x, y], [O("RELU", ["x"], ["y"])], ["x"], ["y"]))
        return str(path)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shapes_from_samples(written((-1, 4)), {}, zeros(9, 4))[0] == {"x": (1, 4)}
    with pytest.warns(ShapeTaken, match="x=1x7"):
        assert shapes_from_samples(written((-1, -1)), {}, zeros(9, 7))[0] == {"x": (1, 7)}
