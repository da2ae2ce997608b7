"""One bad input per message: one clear line, exit code 2, nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import sparrow
from small_models import INT64, classifier, model, strange, value
from sparrow.errors import BadInput, BadModel, GateFailed, SparrowError, UnsupportedOp


def relu(name: str = "x") -> onnx.ModelProto:
    node = helper.make_node("Relu", [name], ["y"], "r")
    return model([node], [value(name, (2,))], [value("y", (2,))])


def one_line(e: SparrowError) -> str:
    text = str(e)
    assert "\n" not in text and len(text) <= 2100
    assert e.exit_code == 2
    return text


def refused(path: object, **options: object) -> str:
    with pytest.raises(SparrowError) as e:
        sparrow.build(path, **options)  # type: ignore[arg-type]
    return one_line(e.value)


def test_missing_file(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(tmp_path / "none.onnx")


def test_a_folder_as_model(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"PK\x03\x04 archive", os.urandom(512)])
def test_not_onnx(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    assert "not an ONNX model" in refused(path)


def test_truncated(tmp_path: Path) -> None:
    whole = classifier().SerializeToString()
    path = tmp_path / "m.onnx"
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises((BadModel, UnsupportedOp)) as e:
            sparrow.build(path)
        one_line(e.value)


def test_dynamic_dimension_without_shape() -> None:
    text = refused(classifier(shape=("N", 3, "H", 12)))
    assert "input 'x'" in text and "dynamic" in text and "--shape x=" in text


def test_every_shape_that_is_missing_is_named_at_once() -> None:
    """Inputs that share a dimension by name need it once; what is given is not asked for."""
    table: tuple[tuple[str, tuple[int | str, ...]], ...] = (
        ("a", (1, "rows")),
        ("b", ("rows", 4)),
        ("c", ("?",)),
        ("d", ("rows", "more")),
    )
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _ in table]
    m = model(
        nodes,
        [value(name, shape) for name, shape in table],
        [value(f"{name}_out", shape) for name, shape in table],
    )
    assert "give --shape a=1xN --shape c=N --shape d=NxN" in refused(m)
    with pytest.raises(BadInput) as e:
        sparrow.build(m, shapes={"d": (3, 5)})
    assert str(e.value).endswith("give --shape c=N")


@pytest.mark.parametrize("unnamed", ["?", -1, "None"])
def test_dimensions_without_a_name_are_no_common_symbol(unnamed: str | int) -> None:
    """As Paddle's exporter writes them: two axes may differ."""
    m = classifier(shape=(unnamed, 3, unnamed, unnamed))
    assert "input 'x' is ?x3x?x?: axis 0 is dynamic" in refused(m)
    bundle = sparrow.build(m, shapes={"x": (1, 3, 12, 16)})
    x = np.random.default_rng(0).random((1, 3, 12, 16), np.float32)
    want = sparrow.build(classifier(shape=(1, 3, 12, 16))).run({"x": x})["y"]
    assert np.array_equal(bundle.run({"x": x})["y"], want)


def test_a_common_symbol_has_one_extent() -> None:
    m = classifier(shape=(1, 3, "S", "S"))
    assert "dimension 'S' is 16 in 'x' and 12 in 'x'" in refused(m, shapes={"x": (1, 3, 12, 16)})


@pytest.mark.parametrize("extent", [-2, 1 << 50])
def test_extents_out_of_range(extent: int) -> None:
    text = refused(classifier(shape=(1, 3, extent, 12)), shapes={"x": (1, 3, 12, 12)})
    assert f"an axis of extent {extent}" in text


def test_wrong_shape_name_and_rank() -> None:
    m = classifier(shape=("N", 3, 12, 12))
    assert "'z', which is no input" in refused(m, shapes={"z": (1, 3, 12, 12)})
    assert "rank 4" in refused(m, shapes={"x": (1, 3)})
    assert "axis 1 is 3" in refused(m, shapes={"x": (1, 4, 12, 12)})
    assert "extent -1" in refused(m, shapes={"x": (-1, 3, 12, 12)})


def test_unsupported_operator_is_named() -> None:
    text = refused(strange())
    assert "odd1" in text and "Frobnicate" in text


def test_string_tensors_are_refused() -> None:
    m = relu()
    m.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    assert "STRING" in refused(m)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a\nb", "\x1b[31mred", "\u202edesrever", "x" * 10_000, "; rm -rf"]
)
def test_hostile_names_build_and_keep_their_names(name: str, tmp_path: Path) -> None:
    b = sparrow.build(relu(name), out=tmp_path / "out")
    x = np.array([-1, 2], np.float32)
    assert b.run({name: x})["y"].tolist() == [0, 2]
    with pytest.raises(BadInput) as e:
        b.run({})
    assert one_line(e.value).isprintable()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_output_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "cannot be written" in refused(relu(), out=tmp_path / "file" / "out")
    assert "not a folder" in refused(relu(), out=tmp_path / "file")
    assert "cannot be written" in refused(relu(), out="/proc/sparrow/out")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "x").write_text("x")
    assert "holds other files" in refused(relu(), out=foreign)
    assert (foreign / "x").read_text() == "x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_parent(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be written" in refused(relu(), out=tmp_path / "out")


def test_index_out_of_range_is_an_error_not_a_crash() -> None:
    table = np.zeros((7, 3), np.float32)
    node = helper.make_node("Gather", ["t", "ids"], ["y"], "lookup")
    b = sparrow.build(
        model([node], [value("ids", (2,), INT64)], [value("y", (2, 3))], {"t": table})
    )
    for bad in ([0, 7], [-8, 0], [2**62, 0]):
        try:
            y = b.run({"ids": np.array(bad)})["y"]
        except BadInput as e:
            one_line(e)
        else:
            assert np.isfinite(y).all()


BUILD = """
import sys, onnx, sparrow
from small_models import classifier
sparrow.build(classifier(), out=sys.argv[1]).verify()
"""


def start(code: str, out: Path, cache: Path) -> subprocess.Popen[bytes]:
    paths = [str(Path(__file__).resolve().parent.parent), *sys.path]
    env = {**os.environ, "SPARROW_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(out)], env=env, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def test_two_builds_at_once_share_cache_and_place(tmp_path: Path) -> None:
    out = tmp_path / "place" / "out"
    running = [start(BUILD, out, tmp_path / "cache") for _ in range(2)]
    for p in running:
        _, err = p.communicate(timeout=300)
        assert p.returncode == 0, err.decode()
    assert sparrow.load_bundle(out).verify().ok
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("moment", ["sparrow.assemble.prove", "sparrow.assemble.publish"])
def test_a_killed_build_leaves_nothing(moment: str, tmp_path: Path) -> None:
    module, name = moment.rsplit(".", 1)
    code = (
        f"import os, {module}\n{module}.{name} = lambda *a, **k: os.kill(os.getpid(), 9)\n{BUILD}"
    )
    (tmp_path / "place").mkdir()
    p = start(code, tmp_path / "place" / "out", tmp_path / "cache")
    p.communicate(timeout=300)
    assert p.returncode == -signal.SIGKILL
    assert list((tmp_path / "place").iterdir()) == []


def test_a_build_killed_while_it_writes_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    code = f"import os, sparrow.publish as p\np._swap = lambda *a: os.kill(os.getpid(), 9)\n{BUILD}"
    out = tmp_path / "place" / "out"
    p = start(code, out, tmp_path / "cache")
    p.communicate(timeout=300)
    assert p.returncode == -signal.SIGKILL
    assert not out.exists()
    left = [q.name for q in out.parent.iterdir()]
    assert len(left) == 1 and re.fullmatch(r"\.sparrow-\d+-.*", left[0])
    sparrow.build(classifier(), out=out)
    assert [q.name for q in out.parent.iterdir()] == ["out"]


def test_an_old_bundle_survives_a_killed_build(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sparrow.build(relu(), out=out)
    code = f"import os, sparrow.publish as p\np._swap = lambda *a: os.kill(os.getpid(), 9)\n{BUILD}"
    start(code, out, tmp_path / "cache").communicate(timeout=300)
    assert sparrow.load_bundle(out).run(np.array([-1, 1], np.float32))["y"].tolist() == [0, 1]
    assert sparrow.load_bundle(out).verify().ok


def test_a_drop_of_more_than_everything() -> None:
    with pytest.raises(BadInput, match=r"drop 5: expected at most 1; write 0\.01 or 1%"):
        sparrow.Budget(drop=5)


def test_drawn_inputs_that_overflow_are_named(tmp_path: Path) -> None:
    """Which of long sums of both signs overflow on their way depends on the order."""
    nodes = [
        helper.make_node("Mul", ["x", "much"], ["h"]),
        helper.make_node("ReduceSum", ["h", "axis"], ["y"], keepdims=0),
    ]
    ends = [value("x", (64, 1000))], [value("y", (64,))]
    m = model(nodes, *ends, {"much": np.array([3e37], np.float32), "axis": np.array([1])})
    with pytest.raises(GateFailed, match=r"drawn from \[-1, 1\): give samples"):
        sparrow.build(m, out=tmp_path / "out")
    x = np.full((64, 1000), 1e-4, np.float32)
    x[0, 0] = 0.0
    assert sparrow.build(m, out=tmp_path / "out", calib=[{"x": x}], precision="float32").receipt.ok


def test_a_mix_is_found_where_outputs_are_infinite() -> None:
    """The logarithm of a rectified value, as of a probability that is 0."""
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Log", ["r"], ["y"]),
    ]
    w = rng.standard_normal((16, 16)).astype(np.float32)
    m = model(nodes, [value("x", (4, 16))], [value("y", (4, 16))], {"w": w})
    calib = [{"x": rng.standard_normal((4, 16)).astype(np.float32)} for _ in range(8)]
    found = sparrow.build(m, calib=calib, budget=sparrow.Budget(drop=1.0)).receipt
    assert found.search is not None
    assert all(np.isfinite(v) for layer in found.search.layers for v in layer.db.values())
