"""The bundle's contract: its files, the same bytes twice, atomic replacement, running."""

from __future__ import annotations

import copy
import getpass
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import sparrow
from small_models import accumulator, classifier, embedding, model, value
from sparrow.assemble import file_names
from sparrow.bundle import Bundle
from sparrow.errors import BadBundle, BadInput
from sparrow.evidence.golden import thin
from sparrow.folder import UNHASHED

FILES = {
    *("model.c", "model.h", "sparrow.h", "weights.bin", "model.so", "model.onnx", "graph.txt"),
    *("golden.npz", "plan.json", "receipt.json", "measurements.json", "report.html"),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return sparrow.build(classifier(), out=tmp_path_factory.mktemp("bundle") / "out")


def content(folder: Path) -> dict[str, bytes]:
    kept = set(UNHASHED) - {"receipt.json"}
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in kept}


def test_folder_holds_the_files_of_the_contract(bundle: Bundle) -> None:
    names = {p.name for p in bundle.folder.iterdir()}
    assert names == FILES
    assert set(bundle.receipt.files) == FILES - set(UNHASHED)


def test_building_twice_gives_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    again = sparrow.build(classifier(), out=tmp_path / "deep" / "elsewhere")
    assert content(again.folder) == content(bundle.folder)


def test_file_and_memory_give_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "renamed.onnx"
    path.write_bytes(classifier().SerializeToString(deterministic=True))
    again = sparrow.build(path)
    assert content(again.folder) == content(bundle.folder)


def test_threads_change_only_what_speaks_of_threads(bundle: Bundle) -> None:
    parallel = sparrow.build(classifier(), threads=2)
    two = content(parallel.folder)
    one = content(bundle.folder)
    same = {"weights.bin", "golden.npz", "graph.txt", "model.onnx", "sparrow.h", "model.h"}
    assert {n for n in one if one[n] == two[n]} >= same


def test_hashed_files_name_no_place_and_no_user(bundle: Bundle) -> None:
    words = {str(bundle.folder), str(Path.cwd()), str(Path.home())}
    user = getpass.getuser()
    if len(user) > 5:
        words.add(user)
    for name, data in content(bundle.folder).items():
        for word in words:
            assert word.encode() not in data, (name, word)


def test_outputs_equal_onnxruntime(bundle: Bundle) -> None:
    import onnxruntime

    x = np.random.default_rng(1).standard_normal((1, 3, 12, 12), np.float32)
    session = onnxruntime.InferenceSession(classifier().SerializeToString())
    want = session.run(None, {"x": x})[0]
    np.testing.assert_allclose(bundle.run({"x": x})["y"], want, atol=1e-5)
    np.testing.assert_allclose(bundle.run(x)["y"], want, atol=1e-5)


def test_twin_gives_the_same_answers(bundle: Bundle) -> None:
    import onnxruntime

    x = np.random.default_rng(1).standard_normal((1, 3, 12, 12), np.float32)
    session = onnxruntime.InferenceSession(bundle.folder / "model.onnx")
    np.testing.assert_allclose(session.run(None, {"x": x})[0], bundle.run(x)["y"], atol=1e-5)


def test_nan_inputs_run(bundle: Bundle) -> None:
    y = bundle.run(np.full((1, 3, 12, 12), np.nan, np.float32))["y"]
    assert y.shape == (1, 5)


def test_another_model_at_the_same_place_runs_its_own_code(tmp_path: Path) -> None:
    out = tmp_path / "out"
    x = np.ones((1, 3, 12, 12), np.float32)
    first = sparrow.build(classifier(seed=0), out=out)
    before = first.run(x)["y"]
    second = sparrow.build(accumulator(), out=out)
    assert second.run({"x": np.ones(4, np.float32), "total": np.ones(4, np.float32)})["y"][0] == 4
    np.testing.assert_array_equal(first.run(x)["y"], before)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_state_is_carried_and_reset(tmp_path: Path) -> None:
    b = sparrow.build(accumulator(), states={"total": "total_out"}, out=tmp_path / "out")
    x = np.ones(4, np.float32)
    assert [b.run(x)["y"][0] for _ in range(3)] == [2, 4, 6]
    b.reset()
    assert b.run(x)["y"][0] == 2
    assert b.receipt.memory.state_bytes >= 16
    assert b.verify().ok


def test_entry_points_share_one_bundle(tmp_path: Path) -> None:
    b = sparrow.build({"big one": classifier(), "ids": embedding()}, out=tmp_path / "out")
    assert b.run({"ids": np.arange(5)}, "ids")["y"][3, 0] == 9
    assert b.run({"x": np.zeros((1, 3, 12, 12), np.float32)})["y"].shape == (1, 5)
    assert {"big_one.onnx", "ids.onnx"} <= set(b.receipt.files)
    assert b.verify().ok


def test_names_of_twins_are_regenerated() -> None:
    assert file_names(["anything/../x"]) == ["model.onnx"]
    names = file_names(["../etc/passwd", "A b", "a_b", "", "\u202e"])
    assert len(set(names)) == 5
    assert all(n.isascii() and "/" not in n and ".." not in n for n in names)


def test_calibration_data_become_the_golden_calls(tmp_path: Path) -> None:
    x = np.random.default_rng(2).random((5, 1, 3, 12, 12), np.float32)
    b = sparrow.build(classifier(), calib=x, out=tmp_path / "out")
    assert b.receipt.samples.source == "calibration"
    assert b.receipt.samples.ids[0] != b.receipt.samples.ids[1]
    with np.load(tmp_path / "out" / "golden.npz") as z:
        np.testing.assert_array_equal(z["call1_in0"], x[1])


def test_thinning_is_evenly_spaced() -> None:
    y = np.arange(10).reshape(2, 5)
    assert thin(y, 0).tolist() == list(range(10))
    assert thin(y, 20).tolist() == list(range(10))
    assert thin(y, 4).tolist() == [0, 2, 5, 7]


def test_run_says_what_is_wrong(bundle: Bundle) -> None:
    x = np.zeros((1, 3, 12, 12), np.float32)
    with pytest.raises(BadInput, match="'x' is missing; the model takes 'x'"):
        bundle.run({})
    with pytest.raises(BadInput, match="'X' is unknown; the model takes 'x'"):
        bundle.run({"X": x})
    with pytest.raises(BadInput, match="'z' is unknown"):
        bundle.run({"x": x, "z": x})
    with pytest.raises(BadInput, match=r"expected float32 of shape \(1, 3, 12, 12\)"):
        bundle.run(x[:, :1])
    with pytest.raises(BadInput, match="got float64"):
        bundle.run(x.astype(np.float64))
    with pytest.raises(BadInput, match="entry 'no' is unknown; entries: main"):
        bundle.run(x, "no")


def test_a_folder_without_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match="no bundle"):
        sparrow.load_bundle(tmp_path)


def test_loading_again_needs_only_the_folder(bundle: Bundle) -> None:
    x = np.ones((1, 3, 12, 12), np.float32)
    again = sparrow.load_bundle(bundle.folder, threads=2)
    np.testing.assert_array_equal(again.run(x)["y"], bundle.run(x)["y"])


def test_a_bundle_goes_to_other_processes_and_is_copied(bundle: Bundle, tmp_path: Path) -> None:
    x = np.ones((1, 3, 12, 12), np.float32)
    want = bundle.run(x)["y"]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(bundle.run, x).result()["y"], want)
    counting = sparrow.build(
        accumulator(), states={"total": "total_out"}, out=tmp_path / "out", threads=2
    )
    ones = np.ones(4, np.float32)
    assert counting.run(ones)["y"][0] == 2
    again = copy.deepcopy(counting)
    assert again.threads == counting.threads and again.folder == counting.folder
    assert [b.run(ones)["y"][0] for b in (again, counting)] == [2, 4]


def test_bundle_and_results_show_in_a_notebook(bundle: Bundle) -> None:
    assert "proved" in bundle._repr_html_()
    assert "<table>" in bundle.verify()._repr_html_()
    assert "<table>" in bundle.profile(runs=3)._repr_html_()
    assert "<table>" in sparrow.check(classifier())._repr_html_()


def test_temporary_bundle_goes_with_its_object() -> None:
    b = sparrow.build(embedding())
    folder = b.folder
    assert folder.is_dir()
    del b
    assert not folder.exists()


def test_model_is_not_changed_by_a_build() -> None:
    m = classifier()
    before = m.SerializeToString(deterministic=True)
    sparrow.build(m)
    assert m.SerializeToString(deterministic=True) == before
    assert isinstance(m, onnx.ModelProto)


def test_permissions_are_those_of_a_new_folder(bundle: Bundle) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert bundle.folder.stat().st_mode & 0o777 == 0o777 & ~mask


def test_an_output_named_like_a_count_is_the_models_own() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["a"]),
        helper.make_node("Relu", ["x"], ["a.count"]),
    ]
    outputs = [value("a", (2, "n"), onnx.TensorProto.INT64), value("a.count", (2, 3))]
    x = np.eye(2, 3, dtype=np.float32)
    found = sparrow.build(model(nodes, [value("x", (2, 3))], outputs)).run(x)
    assert list(found) == ["a", "a.count"]
    np.testing.assert_array_equal(found["a"], [[0, 1], [0, 1]])
    np.testing.assert_array_equal(found["a.count"], x)
