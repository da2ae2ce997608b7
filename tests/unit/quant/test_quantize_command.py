"""`sparrow quantize`: files in, a QDQ file and a report out; every misuse is one line, exit 2."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import sparrow
from small_models import classifier
from sparrow.cli import main
from sparrow.quant import from_npz, to_npz

SHAPE = (1, 3, 12, 12)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    onnx.save(classifier(), tmp_path / "model.onnx")
    x = np.random.default_rng(0).uniform(-1, 1, (32, *SHAPE[1:])).astype(np.float32)
    name = classifier().graph.input[0].name
    np.savez(tmp_path / "calib.npz", **{name: x})  # type: ignore[arg-type]
    return tmp_path


def command(folder: Path, *more: str) -> int:
    words = ["quantize", str(folder / "model.onnx"), "-o", str(folder / "q.onnx")]
    with pytest.raises(SystemExit) as e:
        main([*words, "--calib", str(folder / "calib.npz"), *more])
    return int(str(e.value.code))


def test_it_writes_what_onnxruntime_runs(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(files, "--json", "--statistics", str(files / "s.npz")) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["samples"] == 32 and len(facts["digests"]) == 32
    assert [layer["op"] for layer in facts["layers"]] == ["Conv", "Conv", "MatMul"]
    assert all(layer["sqnr_db"] > 15 for layer in facts["layers"])
    m = onnx.load(files / "q.onnx")
    onnx.checker.check_model(m, full_check=True)
    assert m.opset_import[0].version == facts["opset"] < 21
    assert not any(n.op_type == "Identity" for n in m.graph.node)
    # float weights are gone
    assert all(
        t.data_type != onnx.TensorProto.FLOAT or np.prod(t.dims) <= 16 for t in m.graph.initializer
    )
    session = ort.InferenceSession(str(files / "q.onnx"))
    name = session.get_inputs()[0].name
    assert session.run(None, {name: np.zeros(SHAPE, np.float32)})[0].sum() == pytest.approx(1)
    statistics = (files / "s.npz").read_bytes()
    assert to_npz(from_npz(statistics)) == statistics


def test_two_runs_write_the_same_bytes(files: Path) -> None:
    assert command(files) == 0
    first = (files / "q.onnx").read_bytes()
    assert command(files) == 0
    assert (files / "q.onnx").read_bytes() == first


def test_a_recipe_says_what_options_say_and_options_go_before_it(files: Path) -> None:
    written = []
    (files / "r.json").write_text('{"schema": 1, "weight_bits": 7, "rounding": "nearest"}')
    for more in (
        ["--weight-bits", "7", "--rounding", "nearest"],
        ["--recipe", str(files / "r.json")],
        ["--recipe", str(files / "r.json"), "--weight-bits", "8"],
        ["--rounding", "nearest"],
    ):
        assert command(files, *more) == 0
        written.append((files / "q.onnx").read_bytes())
    assert written[0] == written[1] != written[2] == written[3]


def test_a_recipe_is_not_written_over(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "q.onnx").write_text('{"schema": 1}')
    assert command(files, "--recipe", str(files / "q.onnx")) == 2
    assert "would be written over what is read" in capsys.readouterr().err
    assert (files / "q.onnx").read_text() == '{"schema": 1}'


@pytest.mark.parametrize("isa", ["avx2", "avx512", "avx512vnni", "neon"])
def test_saturating_engines_are_noted_where_they_are(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, isa: str
) -> None:
    monkeypatch.setattr("sparrow.device.cpu.host_isa", lambda: isa)
    assert command(files) == 0
    assert ("--weight-bits 7" in capsys.readouterr().out) == (isa in ("avx2", "avx512"))
    assert command(files, "--weight-bits", "7") == 0
    assert "--weight-bits" not in capsys.readouterr().out
    w = [numpy_helper.to_array(t) for t in onnx.load(files / "q.onnx").graph.initializer]
    assert all(np.abs(x.astype(int)).max() <= 63 for x in w if x.dtype == np.int8 and x.ndim > 1)


def test_the_table_names_every_layer(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(files, "--pin", "Conv=int16x8", "--ranges", "minmax") == 0
    out = capsys.readouterr().out
    assert out.count("int16x8") >= 2 and "SQNR" in out and "opset 21" in out
    assert "which calibrated" in out


def test_layers_are_judged_on_the_evaluation_set(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(files / "calib.npz") as f:
        np.savez(files / "louder.npz", **{name: 40 * x[:4] for name, x in f.items()})
    tables = []
    for more in ((), ("--evaluation", str(files / "louder.npz"))):
        assert command(files, *more) == 0
        tables.append(capsys.readouterr().out)
    assert "those of --evaluation" in tables[1]
    # what is far outside of the ranges saturates
    mine, others = ([float(n) for n in re.findall(r"([0-9.]+) dB", table)] for table in tables)
    assert len(mine) == len(others) > 0
    assert max(others) < min(mine)


def test_an_algorithm_that_finds_nothing_to_do_says_so(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    m = onnx.load(files / "model.onnx")
    for n in m.graph.node:
        n.op_type = {"Relu": "Sigmoid"}.get(n.op_type, n.op_type)
    onnx.save(m, files / "model.onnx")
    assert command(files, "--smooth", "0.5", "--equalize") == 0
    out = capsys.readouterr().out
    assert "note: smooth: no product of constant weights reads a normalization" in out
    assert "note: equalize: no two convolutions have only Relu or pooling between them" in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--pin", "nothing*=float32"), "pin 'nothing*' fits no layer"),
        (("--pin", "float32"), "--pin 'float32'; write --pin"),
        (("--pin", "Conv=int3"), "pin 'Conv' is 'int3'; use one of float32, bfloat16, int8,"),
        (("--ranges", "guess"), "ranges is 'guess'; use one of minmax"),
        (("--smooth", "2"), "smooth is 2.0"),
        (("--mean", "a"), "--mean 'a'"),
        (("--std", "0"), "pixels with mean (0.0,) and std (0.0,)"),
        (("--pin", "*=float32"), "keeps every layer in float32; build it with float32 precision"),
    ],
)
def test_misuse_is_one_line(
    files: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    assert command(files, *more) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not (files / "q.onnx").exists()


def test_evaluation_samples_are_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(files, "--evaluation", str(files / "calib.npz")) == 2
    assert "sample 0 is also in the evaluation set" in capsys.readouterr().err


@pytest.mark.parametrize("bad", ["shape", "name", "nan", "constant", "empty"])
def test_bad_samples_are_one_line(
    files: Path, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    name = classifier().graph.input[0].name
    x = np.ones((4, *SHAPE[1:]), np.float32)
    if bad == "nan":
        x[2] = np.nan
    arrays = {
        "shape": {name: x[:, :2]},
        "name": {"other": x},
        "nan": {name: x},
        "constant": {name: x},
        "empty": {name: x[:0]},
    }[bad]
    np.savez(files / "calib.npz", **arrays)  # type: ignore[arg-type]
    assert command(files) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1


def test_python_says_the_same(files: Path) -> None:
    x = [np.random.default_rng(i).uniform(-1, 1, SHAPE).astype(np.float32) for i in range(4)]
    m = sparrow.quantize(classifier(), x, sparrow.Recipe(ranges="minmax"))
    kinds = {n.op_type for n in m.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds
