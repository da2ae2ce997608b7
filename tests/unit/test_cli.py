"""The command line: what it prints where, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from PIL import Image

import sparrow
from small_models import accumulator, classifier, embedding, model, strange, value
from sparrow import cli
from sparrow.arguments import TIMES, UNITS, evaluator, quantity, shapes_of, states_of
from sparrow.errors import BadInput


def command(*arguments: str) -> int:
    """Exit code of ``sparrow arguments``."""
    with pytest.raises(SystemExit) as e:
        cli.main(list(arguments))
    return int(e.value.code or 0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    for name, m in (
        *(("m", classifier()), ("ids", embedding()), ("strange", strange())),
        *(("state", accumulator()), ("dynamic", classifier(shape=("N", 3, 12, 12)))),
    ):
        (folder / f"{name}.onnx").write_bytes(m.SerializeToString())
    assert command("build", str(folder / "m.onnx"), "-o", str(folder / "out")) == 0
    np.save(folder / "x.npy", np.ones((1, 3, 12, 12), np.float32))
    Image.new("RGB", (20, 20), (9, 9, 9)).save(folder / "p.png")
    return folder


def test_build_prints_the_verdict_and_keeps_stderr_quiet(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = str(files / "dynamic.onnx"), str(files / "again")
    options = ["--shape", "x=1x3x12x12", "--threads", "2", "--drop", "1%", "--ram", "64MB"]
    assert command("build", model, "-o", out, *options, "--explain") == 0
    done = capsys.readouterr()
    assert "proved: " in done.out and "flash " in done.out and "conv1" in done.out
    assert done.err == ""


def test_samples_that_lead_to_no_integers_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A single ReLU gains nothing by 8 bits: `auto` builds float32 and says so."""
    relu = helper.make_node("Relu", ["x"], ["y"])
    data = model([relu], [value("x", (1, 16))], [value("y", (1, 16))])
    (tmp_path / "m.onnx").write_bytes(data.SerializeToString())
    np.savez(tmp_path / "x.npz", x=np.ones((8, 1, 16), np.float32))
    options = ["--calib", str(tmp_path / "x.npz"), "-o", str(tmp_path / "out")]
    assert command("build", str(tmp_path / "m.onnx"), *options) == 0
    done = capsys.readouterr()
    assert "float32, flash " in done.out
    assert done.err.startswith("float32 instead of int8: ") and done.err.count("\n") == 1


def test_json_is_one_document(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(files / "out")
    assert command("build", str(files / "m.onnx"), "-o", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["receipt"]["ok"] is True
    assert command("verify", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert command("profile", out, "--runs", "3", "--json") == 0
    profile = json.loads(capsys.readouterr().out)
    assert profile["runs"] == 3 and profile["steps"][0]["kernel"]
    assert command("check", str(files / "strange.onnx"), "--json") == 1
    assert json.loads(capsys.readouterr().out)["counts"]["missing"] == 3
    assert command("targets", "--json") == 0
    assert json.loads(capsys.readouterr().out)["targets"]
    assert command("run", out, str(files / "x.npy"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["y"]["shape"] == [1, 5]


def test_entry_points_and_states(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = files / "two"
    texts = [f"image={files / 'm.onnx'}", f"lookup={files / 'ids.onnx'}"]
    assert command("build", *texts, "-o", str(out)) == 0
    np.save(files / "ids.npy", np.arange(5))
    run = ["run", str(out), str(files / "ids.npy"), "--entry", "lookup", "-o", str(files / "y.npz")]
    assert command(*run) == 0
    with np.load(files / "y.npz") as z:
        assert z["y"][4].tolist() == [12, 13, 14]
    state = ["--state", "total=total_out"]
    assert command("build", str(files / "state.onnx"), *state, "-o", str(files / "s")) == 0
    assert command("verify", str(files / "s")) == 0
    assert "verdict" not in capsys.readouterr().err


def test_run_reads_arrays_and_images(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(files / "x.npz", x=np.ones((3, 12, 12)))
    for text in ("x.npy", "x.npz", "p.png"):
        assert command("run", str(files / "out"), str(files / text)) == 0
        assert "y: float32[1x5]" in capsys.readouterr().out
    assert command("run", str(files / "out"), f"x={files / 'x.npy'}") == 0
    capsys.readouterr()
    shown = []
    np.save(files / "zeros.npy", np.zeros((1, 3, 12, 12), np.float32))
    # p.png is 9 everywhere
    for words in (["zeros.npy"], ["p.png", "--mean", "9", "--std", "3,4,5"], ["p.png"]):
        assert command("run", str(files / "out"), str(files / words[0]), *words[1:]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] != shown[2]
    assert command("run", str(files / "out")) == 2
    assert capsys.readouterr().err.startswith("error: input 'x' is missing")


def test_bench_takes_the_shapes_of_a_bundle(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(files / "dynamic.onnx"), str(tmp_path / "out")
    assert command("build", source, "-o", out, "--shape", "x=2x3x12x12") == 0
    capsys.readouterr()
    assert command("bench", out, "--rounds", "5", "--source", source) == 0
    done = capsys.readouterr()
    assert "onnxruntime" in done.out and done.err == ""


def test_profile_bench_targets_doctor_report(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(files / "out")
    assert command("profile", out) == 0
    assert "GFLOP/s" in capsys.readouterr().out
    assert command("bench", out, "--rounds", "5", "--source", str(files / "m.onnx")) == 0
    assert "onnxruntime" in capsys.readouterr().out
    assert command("bench", out) == 2
    assert "give --source" in capsys.readouterr().err
    assert command("bench", out, "--source", str(files / "ids.onnx")) == 2
    assert "was built from a model of SHA-256" in capsys.readouterr().err
    assert command("bench", str(files / "m.onnx"), "--rounds", "5") == 0
    capsys.readouterr()
    measured = json.loads((files / "out" / "measurements.json").read_bytes())
    assert measured["comparisons"] and len(measured["profiles"]) >= 2
    assert command("verify", out) == 0
    assert command("targets") == 0 and command("targets", "show", "x86_64_v3") == 0
    assert "avx2" in capsys.readouterr().out
    assert command("targets") == 0
    # what a row compiles to stands below one another
    rows = capsys.readouterr().out.splitlines()
    assert len({r.index(" compiles, ") for r in rows if " compiles, " in r}) == 1
    assert command("doctor") == 0
    assert capsys.readouterr().out.count("ok ") >= 8
    assert command("report", out) == 0
    assert "Against other engines" in (files / "out" / "report.html").read_text()


def test_check_prints_every_node(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check", str(files / "m.onnx")) == 0
    assert "conv1" in capsys.readouterr().out
    assert command("check", str(files / "strange.onnx"), "--target", "x86_64") == 1
    printed = capsys.readouterr().out
    assert printed.count("missing") >= 3 and "nearest supported: Conv" in printed


def test_a_failing_gate_exits_with_1(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["build", str(files / "m.onnx"), "-o", str(files / "small"), "--size", "1kB"]
    assert command(*arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: budget size") and err.count("\n") == 1
    assert not (files / "small").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("build",),
        ("build", "nope.onnx", "-o", "out"),
        ("build", "a.onnx", "b.onnx", "-o", "out"),
        ("build", "a=x.onnx", "a=y.onnx", "-o", "out"),
        ("build", "m.onnx", "-o", "out", "--shape", "x"),
        ("build", "m.onnx", "-o", "out", "--drop", "much"),
        ("build", "m.onnx", "-o", "out", "--threads", "0"),
        ("build", "m.onnx", "-o", "out", "--evaluate", "nofile.py:f"),
        ("verify", "nowhere"),
        ("run", "nowhere"),
        ("report", "nowhere"),
        ("profile", "nowhere"),
        ("bench", "nope.onnx", "--against", "magic"),
        ("targets", "show", "toaster"),
        ("dance",),
        ("--what",),
    ],
)
def test_bad_use_is_one_line_and_exit_2(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(*arguments) == 2
    done = capsys.readouterr()
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["quantize", "m.onnx", "--calib", "x.npy", "-o", "m.onnx"],
        ["quantize", "m.onnx", "--calib", "x.npy", "-o", "q.onnx", "--statistics", "x.npy"],
        ["plan", "m.onnx", "--calib", "x.npy", "-o", "x.npy"],
        ["reduce", "m.onnx", "-o", "m.onnx"],
        ["blame", "out", "--model", "m.onnx", "--calib", "x.npy", "--apply", "link.onnx"],
    ],
    ids=" ".join,
)
def test_nothing_is_written_over_what_is_read(
    words: list[str],
    files: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files)
    Path("link.onnx").unlink(missing_ok=True)
    Path("link.onnx").symlink_to("m.onnx")
    before = {p: p.read_bytes() for p in files.iterdir() if p.is_file()}
    assert command(*words) == 2
    err = capsys.readouterr().err
    assert "would be written over what is read" in err and err.count("\n") == 1
    assert {p: p.read_bytes() for p in files.iterdir() if p.is_file()} == before


def test_a_bug_is_one_line_with_a_saved_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise ZeroDivisionError("no\nway")

    assert cli.run_command(broken) == 3
    err = capsys.readouterr().err
    assert (
        err.startswith("error: internal error: ZeroDivisionError: no way") and err.count("\n") == 1
    )
    saved = Path(err.strip().rsplit("traceback: ", 1)[1])
    assert "def broken" in saved.read_text() or "broken" in saved.read_text()
    saved.unlink()


def test_16_bits_everywhere_are_a_pin(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", str(files / "m.onnx"), "-o", str(tmp_path / "out"), "--precision", "int16x8"]
    assert command(*words) == 2
    assert "use int8 and pin *=int16x8" in capsys.readouterr().err


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert command() == 0
    assert "Commands" in capsys.readouterr().out


def test_an_interrupt_is_clean(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    assert cli.run_command(stopped) == 130
    assert capsys.readouterr().err == "interrupted\n"
    monkeypatch.setattr("sparrow.doctor.examine", stopped)
    assert command("doctor") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_help_needs_no_heavy_imports() -> None:
    code = (
        "import sys\nfrom sparrow import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit as e: assert e.code == 0\n"
        "print(sorted({'onnx', 'numpy', 'scipy', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]") and "build" in done.stdout


def test_a_reader_that_leaves_is_no_error(files: Path) -> None:
    code = f"{sys.executable} -m sparrow.cli check {files / 'm.onnx'} --json | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {code}"], capture_output=True, check=False
    )
    assert done.stderr == b""


def test_evaluate_file(tmp_path: Path) -> None:
    path = tmp_path / "score.py"
    path.write_text("def f(predict):\n    return 0.5\ndef g(predict):\n    raise ValueError('x')\n")
    f = evaluator(f"{path}:f")
    assert f is not None and f(lambda *_: {}) == 0.5
    g = evaluator(f"{path}:g")
    assert g is not None
    with pytest.raises(BadInput, match="g: ValueError: x"):
        g(lambda *_: {})
    with pytest.raises(BadInput, match="no function 'h'"):
        evaluator(f"{path}:h")
    path.write_text("1 / 0")
    with pytest.raises(BadInput, match="ZeroDivisionError"):
        evaluator(f"{path}:f")


def test_options_read_their_units() -> None:
    assert quantity("1%", "--drop", {"%": 0.01, "": 1.0}) == 0.01
    assert quantity("15MB", "--size", UNITS) == 15e6
    assert quantity("2.5ms", "--latency", TIMES) == 2.5e6
    assert shapes_of(["a=b=1x2", "s=scalar"]) == {"a=b": (1, 2), "s": ()}
    assert states_of(["in=out"]) == {"in": "out"}
    for text in ("", "x=", "x=1x", "x=-1", "x=1e3"):
        with pytest.raises(BadInput):
            shapes_of([text])


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sparrow", "targets"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "x86_64" in done.stdout


def test_outputs_are_saved_under_any_name(tmp_path: Path) -> None:
    names = ["file", "allow_pickle", "../up", "日本"]
    nodes = [helper.make_node("Relu", ["self"], [n]) for n in names]
    proto = model(nodes, [value("self", (2, 3))], [value(n, (2, 3)) for n in names])
    sparrow.build(proto, out=tmp_path / "out")
    x = np.arange(-2, 4, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "x.npy", x)
    saved = tmp_path / "y.npz"
    assert command("run", str(tmp_path / "out"), str(tmp_path / "x.npy"), "-o", str(saved)) == 0
    with np.load(saved) as z:
        assert z.files == names
        np.testing.assert_array_equal(z["file"], np.maximum(x, 0))


def test_help_shows_whole_sentences_and_version_a_version(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("--help") == 0
    text = capsys.readouterr().out
    assert "..." not in text[text.index("Commands:") :]
    assert command("--version") == 0
    assert capsys.readouterr().out == f"sparrow {sparrow.__version__}\n"
