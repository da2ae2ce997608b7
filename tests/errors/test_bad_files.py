"""Files of samples that are broken, or hold something else: one clear line, exit code 2."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import sparrow
from small_models import INT64, classifier, model, value
from sparrow.cli import main
from sparrow.errors import BadInput, BadModel
from sparrow.quant import from_npz
from sparrow.quant.recipe import from_json
from sparrow.samples import fit
from sparrow.tensor import F16, Array, TensorType

X = np.random.default_rng(0).uniform(-1, 1, (4, 3, 12, 12)).astype(np.float32)


def npz(**arrays: Array) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def with_one(number: float) -> Array:
    x = X.astype(np.float64)
    x[2, 0, 0, 0] = number
    return x


def altered(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


# name of the file -> its content and what the one line says; content None makes a folder
BAD: dict[str, tuple[bytes | None, str]] = {
    "half.npz": (npz(x=X)[: X.nbytes // 2], "not a zip file"),
    "short.npz": (npz(x=X)[:-9], "not a zip file"),
    "altered.npz": (altered(npz(x=X), 600), "Bad CRC-32"),
    "start.npz": (b"PK\x03\x04", "not a zip file"),
    "nothing.npz": (b"", "not a zip file"),
    "text.npz": (b"x = 1", "not a zip file"),
    "empty.npz": (npz(), "no array for input 'x'; it holds nothing"),
    "objects.npz": (npz(x=np.array([{}, 1], object)), "not that of a plain array"),
    "strings.npz": (npz(x=np.array(["a"] * 4)), "not that of a plain array"),
    "records.npz": (npz(x=np.zeros(4, [("a", "f4")])), "not that of a plain array"),
    "complex.npz": (npz(x=X.astype(np.complex64)), "not that of a plain array"),
    "scalar.npz": (npz(x=np.array(3, np.float32)), "'x' is float32[], expected samples of"),
    "zero.npz": (npz(x=X[:0]), "the calibration set is empty"),
    "nan.npz": (npz(x=with_one(np.nan)), "sample 2: input 'x' has NaN or infinity"),
    "infinite.npz": (npz(x=with_one(-np.inf)), "sample 2: input 'x' has NaN or infinity"),
    "large.npz": (npz(x=with_one(1e300)), "do not fit float32"),
    "half.png": (b"\x89PNG\r\n\x1a\n\0\0", "no readable image"),
    "nothing.jpg": (b"", "no readable image"),
    "folder": (None, "no images in this folder"),
    "missing.npz/x": (None, "cannot be read"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    onnx.save(classifier(), made / "model.onnx")
    for name, (content, _) in BAD.items():
        if content is not None:
            (made / name).write_bytes(content)
    (made / "folder").mkdir()
    (made / "good.npz").write_bytes(npz(x=X))
    assert command("quantize", made / "model.onnx", "-o", made / "q.onnx", "--calib",
                   made / "good.npz") == 0  # fmt: skip
    return made


def command(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as e:
        main([str(w) for w in words])
    return int(str(e.value.code))


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("what", ["quantize", "blame", "build"])
def test_bad_samples(
    what: str, name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words: dict[str, tuple[str | Path, ...]] = {
        "quantize": ("quantize", folder / "model.onnx", "-o", tmp_path / "q.onnx"),
        "blame": ("blame", folder / "q.onnx", "--model", folder / "model.onnx"),
        "build": ("build", folder / "model.onnx", "-o", tmp_path / "out", "--precision", "int8"),
    }
    assert command(*words[what], "--calib", f"{folder}/{name}") == 2
    err = one_line(capsys)
    message = "no sample" if (what, name) == ("blame", "zero.npz") else BAD[name][1]
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [n for n in BAD if n not in ("nan.npz", "infinite.npz")])
def test_bad_evaluation_samples(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("quantize", folder / "model.onnx", "-o", tmp_path / "q.onnx")
    good = ("--calib", folder / "good.npz")
    assert command(*words, *good, "--evaluation", f"{folder}/{name}") == 2
    message = "the evaluation set is empty" if name == "zero.npz" else BAD[name][1]
    assert message in one_line(capsys)


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(np.asfortranarray, id="fortran"),
        pytest.param(lambda x: x.astype(">f4"), id="big endian"),
        pytest.param(lambda x: x.astype(np.float64), id="float64"),
    ],
)
def test_other_forms_of_the_same_samples(
    stored: Callable[[Array], Array], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.npz").write_bytes(npz(x=stored(X)))
    words = ("quantize", folder / "model.onnx", "-o", tmp_path / "q.onnx")
    assert command(*words, "--calib", tmp_path / "x.npz") == 0
    assert (tmp_path / "q.onnx").read_bytes() == (folder / "q.onnx").read_bytes()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((3, 5), "expected as many samples of each input, got 3 of 'a', 5 of 'b'"),
        ((3, 0), "expected as many samples of each input, got 3 of 'a', 0 of 'b'"),
        ((1, 0), "the calibration set is empty"),
    ],
)
def test_unlike_numbers_of_samples(
    counts: tuple[int, int], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [
        helper.make_node("Add", ["a", "b"], ["c"], "add"),
        helper.make_node("MatMul", ["c", "w"], ["y"], "fc"),
    ]
    shape = (1, 4, 4)
    inputs = [value("a", shape), value("b", shape)]
    weights = {"w": np.eye(4, dtype=np.float32)}
    onnx.save(model(nodes, inputs, [value("y", shape)], weights), tmp_path / "m.onnx")
    a, b = (np.ones((n, *shape[1:]), np.float32) for n in counts)
    (tmp_path / "x.npz").write_bytes(npz(a=a, b=b))
    words = ("quantize", tmp_path / "m.onnx", "-o", tmp_path / "q.onnx")
    assert command(*words, "--calib", tmp_path / "x.npz") == 2
    assert message in one_line(capsys)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (np.zeros((3, 4), np.float32), "expected int64[1x4], got float32[1, 4]"),
        (np.full((3, 4), 1 << 63, np.uint64), "do not fit int64"),
        (np.full((3, 4), 99), "onnxruntime cannot run a sample"),
        (np.full((3, 4), -99), "onnxruntime cannot run a sample"),
    ],
)
def test_bad_indices(
    indices: Array, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["c"], "look"),
        helper.make_node("MatMul", ["c", "w"], ["y"], "fc"),
    ]
    weights = {n: rng.standard_normal((k, 4), np.float32) for n, k in (("table", 9), ("w", 4))}
    inputs, outputs = [value("i", (1, 4), INT64)], [value("y", (1, 4, 4))]
    onnx.save(model(nodes, inputs, outputs, weights), tmp_path / "m.onnx")
    (tmp_path / "x.npz").write_bytes(npz(i=indices))
    words = ("quantize", tmp_path / "m.onnx", "-o", tmp_path / "q.onnx")
    assert command(*words, "--calib", tmp_path / "x.npz") == 2
    assert message in one_line(capsys)


def test_a_number_too_large_for_half_precision() -> None:
    t = TensorType((2,), F16)
    np.testing.assert_array_equal(fit(np.array([1, np.inf]), "x", t), [1, np.inf])
    with pytest.raises(BadInput, match=r"values 1\.0\.\.70000\.0 do not fit float16"):
        fit(np.array([1, 7e4]), "x", t)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npz(head=np.zeros(3, np.uint8))[:-30], "not a .npy or .npz file"),
        (b"", "not a .npy or .npz file"),
        (npz(), "KeyError: 'head'"),
        (npz(head=np.array([{}], object)), "not that of a plain array"),
        (npz(head=np.frombuffer(b"{", np.uint8)), "JSONDecodeError"),
        (npz(head=np.frombuffer(b"[" * 100_000, np.uint8)), "RecursionError"),
        (npz(head=np.frombuffer(b'{"schema": 1}', np.uint8)), "of schema 1, not 2"),
        (
            npz(head=np.frombuffer(b'{"schema": 2, "values": [], "moments": []}', np.uint8)),
            "KeyError: 'digests'",
        ),
    ],
)
def test_bad_calibration_statistics(data: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        from_npz(data)


def test_a_recipe_whose_alpha_is_a_truth_value() -> None:
    with pytest.raises(BadInput, match="smooth is True"):
        from_json(b'{"schema": 1, "smooth": true}', "recipe.json")


@pytest.mark.parametrize(
    "data, message",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "text of a web page"),
        (b"PK\x03\x04" + bytes(40), "torch.onnx.export"),
        (gzip.compress(classifier().SerializeToString()), "gunzip"),
        (b"no model at all", "protobuf does not parse"),
    ],
)
def test_what_lies_in_the_place_of_a_model_is_named(
    tmp_path: Path, data: bytes, message: str
) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(BadModel, match=message):
        sparrow.check(tmp_path / "m.onnx")


def test_weights_that_are_no_numbers_are_named_and_not_the_sample() -> None:
    made = classifier()
    w = onnx.numpy_helper.to_array(made.graph.initializer[0]).copy()
    w[0, 0, 0, 0] = np.nan
    made.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(w, "w1"))
    with pytest.raises(BadInput, match="conv1: its weights or bias hold NaN"):
        sparrow.quantize(made, X)


def test_samples_of_a_batch_are_asked_for_with_an_axis_more() -> None:
    with pytest.raises(BadInput, match=r"\['N', 2, 3, 12, 12\]"):
        sparrow.quantize(classifier(shape=(2, 3, 12, 12)), X)
