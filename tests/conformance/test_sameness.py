"""`sparrow verify --targets`: one int8 bundle, the same integers on every target that runs here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import native_harness as harness
import sparrow
from data import data, missing
from small_models import classifier
from sparrow.cli import main
from sparrow.device.runners import Runner
from sparrow.device.session import ModelLibrary, Tap
from sparrow.errors import BadBundle, BadInput
from sparrow.evidence import sameness
from sparrow.evidence.layers import tapped
from sparrow.evidence.plan_record import EntryRecord
from sparrow.graph import Graph
from sparrow.targets import target

SOME = ("x86_64", "aarch64", "riscv64_v", "cortex_m4f")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 bundle."""
    out = tmp_path_factory.mktemp("bundle") / "out"
    samples = np.random.default_rng(1).standard_normal((8, 3, 12, 12)).astype(np.float32)
    sparrow.build(classifier(), "cortex_m4f", out, calib=samples, precision="int8")
    return out


def test_every_target_computes_the_same_integers(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in SOME[:3]:
        harness.emulator(target(name).machine)
    with pytest.raises(SystemExit) as e:
        main(["verify", str(bundle), "--targets", ",".join(SOME), "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert e.value.code == 0
    lengths = {"riscv64_v": (128, 256, 512)}
    ran = [(name, bits) for name in ("reference", *SOME) for bits in lengths.get(name, (0,))]
    assert [(r["target"], r["vector_bits"]) for r in rows] == ran
    assert all(r["ok"] and r["equal"] == r["layers"] > 3 for r in rows)
    assert len({r["digest"] for r in rows}) == 1
    assert all(r["instructions"] > 10_000 for r in rows[1:])
    # longer vectors take fewer of them
    assert rows[3]["instructions"] > rows[4]["instructions"]
    assert all(r["code_bytes"] > 1_000 and r["arena_bytes"] > 0 for r in rows[1:])


def test_a_compiler_for_another_machine_leaves_counting_as_it_is(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulator's counter is a program of this machine."""
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        missing("aarch64-linux-gnu-gcc is not installed")
    harness.emulator(target("aarch64").machine)
    _, ours = sameness.compare_targets(bundle, "aarch64")
    monkeypatch.setenv("SPARROW_CC", "aarch64-linux-gnu-gcc")
    _, row = sameness.compare_targets(bundle, "aarch64")
    assert row.ok and row.digest == ours.digest
    assert 0.5 < row.instructions / ours.instructions < 2


def test_a_difference_is_found_and_named(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoiled(*arguments: object) -> object:
        y = tapped(*arguments)  # type: ignore[arg-type]
        return y + 1 if y.dtype == np.int8 else y

    monkeypatch.setattr(sameness, "tapped", spoiled)
    with pytest.raises(SystemExit) as e:
        main(["verify", str(bundle), "--targets", "x86_64"])
    assert e.value.code == 1 and "differs" in capsys.readouterr().out


def test_integers_behind_floats_are_judged_on_what_the_target_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a fused multiply-add tips a code, the layers behind it answer for themselves alone."""
    rng = np.random.default_rng(7)
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> m (float[64, 96] x) => (float[64, 40] y) {
             a = MatMul(x, w)  n = LayerNormalization(a, s)  y = MatMul(n, v) }"""
    )
    for name, shape in (("w", (96, 48)), ("s", (48,)), ("v", (48, 40))):
        weights = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    samples = rng.standard_normal((4, 64, 96)).astype(np.float32)
    sparrow.build(model, "cortex_m4f", tmp_path / "out", calib=samples, precision="int8")
    rows = sameness.compare_targets(tmp_path / "out", "x86_64,x86_64_v3,cortex_m4f")
    assert all(r.ok and 0 < r.behind < r.layers and not r.reason for r in rows)
    # each is exactly the reference's over the floats of its target: one hash
    assert len({r.digest for r in rows}) == 1
    assert "4 layers follow from floats" in sameness.table(rows)

    def spoiled(*arguments: Any) -> Any:
        y = tapped(*arguments)
        return y + 1 if y.dtype == np.uint8 and y.shape == (64, 48) else y

    monkeypatch.setattr(sameness, "tapped", spoiled)
    (reference, row) = sameness.compare_targets(tmp_path / "out", "x86_64")
    assert row.equal < row.layers and row.reason.endswith(" differs")
    # what its bound allows is no failure, and has another hash
    monkeypatch.setattr(sameness, "judge_step", lambda *_: (0, 0, 1.0, 1.0, True, 0.0, 0.0))
    (_, row) = sameness.compare_targets(tmp_path / "out", "x86_64")
    assert row.ok and "within its bound" in row.reason and row.digest != reference.digest


def test_every_entry_point_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    samples = rng.standard_normal((8, 3, 12, 12)).astype(np.float32)
    models = {"near": classifier(), "far": classifier(seed=1)}
    calib = dict.fromkeys(models, samples)
    sparrow.build(models, "cortex_m4f", tmp_path / "both", calib=calib, precision="int8")
    sparrow.build(models["near"], "cortex_m4f", tmp_path / "one", calib=samples, precision="int8")
    one, _ = sameness.compare_targets(tmp_path / "one", "x86_64")
    rows = sameness.compare_targets(tmp_path / "both", "x86_64")
    assert all(r.ok and r.layers == 2 * one.layers for r in rows)
    assert rows[0].digest == rows[1].digest != one.digest
    compare = sameness._compare

    def spoiled(g: Graph, record: EntryRecord, taps: Sequence[Tap], w: Any) -> Any:
        seen = compare(g, record, taps, w)
        return replace(seen, differing=w.integers[:1]) if w.entry == 1 else seen

    monkeypatch.setattr(sameness, "_compare", spoiled)
    _, row = sameness.compare_targets(tmp_path / "both", "x86_64")
    assert row.equal == row.layers - 1 and "differs" in row.reason


def test_what_does_not_run_says_why(bundle: Path, tmp_path: Path) -> None:
    (_, row) = sameness.compare_targets(bundle, "aarch64_ios")
    assert not row.device and "not run: " in sameness.table([row])
    with pytest.raises(BadInput, match="unknown"):
        sameness.compare_targets(bundle, "moon")
    sparrow.build(classifier(), "x86_64", tmp_path / "float")
    with pytest.raises(BadInput, match="integer"):
        sameness.compare_targets(tmp_path / "float", "all")


def test_why_it_does_not_run_names_no_file_of_this_machine(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: Path) -> ModelLibrary:
        raise BadBundle(f"{path}: the program that runs it ended: out of memory")

    monkeypatch.setattr(sameness, "find_runner", lambda machine: Runner("qemu", load))
    (_, row) = sameness.compare_targets(bundle, "x86_64")
    assert row.reason == "the library: the program that runs it ended: out of memory"


def test_all_stands_for_every_kind_of_code_once() -> None:
    rows = sameness.runnable("all")
    assert len({t.machine for t in rows}) == len(rows) >= 20
    assert {"aarch64", "arm", "riscv64", "thumb", "wasm32"} <= {t.machine.arch for t in rows}


@pytest.mark.slow
def test_a_keyword_spotter_is_the_same_everywhere(tmp_path: Path) -> None:
    path = data("models/mlperf_tiny/kws_dscnn_int8.tflite")
    sparrow.build(path, "x86_64", tmp_path / "out")
    rows = sameness.compare_targets(tmp_path / "out", "all")
    ran = [r for r in rows if r.device]
    assert len(ran) > 12 and all(r.ok for r in ran)
    assert len({r.digest for r in ran}) == 1
