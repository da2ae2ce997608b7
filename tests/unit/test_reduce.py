"""`sparrow reduce` keeps what it found whatever ends it, and tells a crash from an answer."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from data import REPO
from small_models import classifier, model, value
from sparrow.cli import main
from sparrow.compiler import Source, compile_sources
from sparrow.device.apart import Crashed, run_apart
from sparrow.device.build import Unit, find_toolchain
from sparrow.device.here import resolve_target
from sparrow.device.library import compile_library
from sparrow.errors import BadInput, SparrowError
from sparrow.export import to_onnx
from sparrow.importers.tflite import import_tflite
from sparrow.passes.integer import integer
from sparrow.reduce import NATIVE, Native, Reduced, differs_from_onnxruntime, reduce
from sparrow.reference import evaluate
from sparrow.samples import draw
from sparrow.tensor import I8
from tflite_files import T, one

DIGITS = REPO / "examples" / "digits" / "digits.onnx"


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as e:
        main(list(words))
    return int(str(e.value.code))


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("raise KeyboardInterrupt", 130, "interrupted"),
        ("raise RuntimeError('kaputt')", 2, "kaputt"),
    ],
)
def test_the_smallest_so_far_outlives_the_search(
    ending: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.py").write_text(
        "seen = []\ndef f(m):\n    seen.append(m)\n"
        f"    if len(seen) > 4:\n        {ending}\n"
        "    return any(n.op_type == 'Softmax' for n in m.graph.node)\n"
    )
    out = tmp_path / "small.onnx"
    words = ("reduce", str(DIGITS), "-o", str(out), "--fails", f"{tmp_path / 'p.py'}:f")
    assert command(*words) == code
    err = capsys.readouterr().err
    assert said in err and "nodes still fail" in err and "not yet the smallest" in err
    left = onnx.load(out)
    onnx.checker.check_model(left, full_check=True)
    assert any(n.op_type == "Softmax" for n in left.graph.node)
    assert len(left.graph.node) < len(onnx.load(DIGITS).graph.node)
    assert [p.name for p in tmp_path.glob(".sparrow*")] == []


def test_what_is_kept_fails_and_shrinks() -> None:
    kept: list[Reduced] = []

    def fails(m: onnx.ModelProto) -> bool:
        return any(n.op_type == "Softmax" for n in m.graph.node)

    found = reduce(str(DIGITS), fails, keep=kept.append)
    counts = [k.nodes for k in kept]
    assert counts[0] == found.before and counts[-1] == found.nodes
    assert counts == sorted(counts, reverse=True)
    assert all(fails(k.model) for k in kept)


def test_what_is_left_is_named_as_in_the_whole_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(classifier(), tmp_path / "m.onnx")
    (tmp_path / "p.py").write_text(
        "def f(m):\n    return any(n.op_type in ('Gemm', 'MatMul') for n in m.graph.node)\n"
    )
    words = ("reduce", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "s.onnx"), "--fails")
    assert command(*words, f"{tmp_path / 'p.py'}:f") == 0
    first, *names = capsys.readouterr().out.splitlines()
    assert first.endswith("trials") and names == ["  MatMul fc"]
    assert command(*words, f"{tmp_path / 'p.py'}:f", "--json") == 0
    assert json.loads(capsys.readouterr().out)["left"] == ["MatMul fc"]
    many = Reduced(classifier(), tuple(f"Conv c{i}" for i in range(14)), 20, 3)
    assert str(many).splitlines()[-2:] == ["  Conv c9", "  and 4 more"]


def test_native_code_that_is_right_neither_differs_nor_crashes() -> None:
    assert NATIVE["native-differs"].outcome(classifier()) == "same"
    with pytest.raises(BadInput, match="does not show the failure"):
        reduce(classifier(), NATIVE["native-crashes"])


def test_a_step_of_codes_is_no_difference(tmp_path: Path) -> None:
    """LiteRT rounds a product of codes where its float form may be a step away."""
    rng = np.random.default_rng(2)
    feeds = {x: rng.integers(-128, 128, (1, 3000)).astype(np.int8) for x in "ab"}
    quant = {"a": (0.0117, 3), "b": (0.0039, -128)}
    out = T("y", (1, 3000), I8, scale=[0.0083], zero=[-7])
    path = tmp_path / "m.tflite"
    path.write_bytes(one("MUL", feeds, {"activation": 0}, out=out, quant=quant))
    g = import_tflite(path).graph
    drawn = draw(g, (0,))
    apart = evaluate(g, drawn)["y"] != evaluate(integer(g), drawn)["y"]
    assert apart.any()
    assert NATIVE["native-differs"].outcome(to_onnx(g)) == "same"


def test_a_fused_sum_that_saturates_is_no_difference() -> None:
    weights: dict[str, NDArray[Any]] = {
        "w": np.full((64, 8), 127, np.int8),
        "s": np.array(0.004, np.float32),
        "z": np.array(0, np.uint8),
        "o": np.array(0, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["f"]),
        helper.make_node("DequantizeLinear", ["w", "s", "o"], ["v"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    made = model(nodes, [value("x", (64, 64))], [value("y", (64, 8))], weights)
    assert not differs_from_onnxruntime(made)


@pytest.mark.parametrize("kind", sorted(NATIVE))
def test_a_fault_of_the_native_code_is_found(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that is wrong, or crashes, as soon as a softmax is in the model."""
    import sparrow.device.apart as apart

    right, tried = apart.run_apart, []

    def wrong(library: Path, weights: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
        found = right(library, weights, inputs)
        if b"sp_softmax" not in sources[library]:
            return found
        if kind == "native-crashes":
            raise Crashed("SIGSEGV")
        return [y + 1 for y in found]

    import sparrow.device.library as library

    compiled, sources = library.compile_library, {}

    def noted(files: dict[str, bytes], *rest: Any) -> Path:
        path = compiled(files, *rest)
        sources[path] = files["model.c"]
        tried.append(path)
        return path

    monkeypatch.setattr(library, "compile_library", noted)
    monkeypatch.setattr(apart, "run_apart", wrong)
    found = reduce(str(DIGITS), NATIVE[kind])
    assert [n.op_type for n in found.model.graph.node] == ["Softmax"]
    assert len(tried) == found.tried
    (other,) = set(NATIVE) - {kind}
    with pytest.raises(BadInput, match="does not show the failure") as e:
        reduce(found.model, NATIVE[other])
    assert f"--fails {kind}" in str(e.value)


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_crash_and_a_hang_of_a_library_are_results() -> None:
    c = compile_sources({"main": Source(classifier())}, resolve_target("host"))
    machine = c.plan.target.machine
    path = compile_library(c.artifact.files, machine, c.artifact.parts)
    g = c.module.entries[0]
    inputs = [np.zeros(g.types[x].shape, np.float32) for x in g.inputs]
    (y,) = run_apart(path, c.plan.weights, inputs)
    assert y.shape == g.types[g.outputs[0]].shape
    with pytest.raises(SparrowError, match="weights"):
        run_apart(path, b"", inputs)
    tools, text = find_toolchain(), c.artifact.files["model.c"].decode()
    text = text.replace('#include "sparrow.h"\n', c.artifact.files["sparrow.h"].decode(), 1)
    for body, said in [
        ("*(volatile int *)8 = 1;", signal.Signals.SIGSEGV.name),
        ("for (volatile int i = 0;;) (void)i;", "did not end"),
    ]:
        head = "static void sp_entry_0(const sp_frame *f) {\n"
        bad = text.replace(head, f"{head}  {body}\n", 1)
        assert bad != text
        library = tools.link_shared(tools.compile_objects([Unit("bad.c", bad)], machine), machine)
        with pytest.raises(Crashed, match=said):
            run_apart(library, c.plan.weights, inputs, limit_s=3.0)


def test_a_model_that_is_refused_does_not_differ() -> None:
    m = classifier()
    m.graph.node[0].op_type = "NoSuchOp"
    assert Native("differs").kind == "differs"
    with pytest.raises(SparrowError):
        reduce(m, NATIVE["native-differs"])
