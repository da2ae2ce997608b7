"""The receipt says what was built and proved, and reads back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import sparrow
from small_models import classifier, model, value
from sparrow.bundle import Bundle
from sparrow.errors import BadBundle, GateFailed, UnsupportedOp
from sparrow.evidence.accuracy import against_oracle
from sparrow.evidence.describe import buffers
from sparrow.evidence.plan_record import PlanRecord
from sparrow.evidence.receipt import AgainstRecord, DifferenceRecord, ReceiptRecord
from sparrow.evidence.record import MAX_BYTES, MAX_VALUES, dump, load
from sparrow.request import Budget


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return sparrow.build(
        classifier(shape=("N", 3, 12, 12)),
        shapes={"x": (1, 3, 12, 12)},
        out=tmp_path_factory.mktemp("receipt") / "out",
        budget=Budget(drop=0.01, size=10**7, ram=10**7, latency=10**10),
    )


def test_it_holds_the_facts(bundle: Bundle) -> None:
    r = bundle.receipt
    assert r.ok and r.verdict.startswith("proved: ")
    assert r.schema_version == 1 and r["threads"] == 1
    (source,) = r.sources
    assert source.model == "small" and source.opset == 17 and len(source.sha256) == 64
    assert "x[0] (N) = 1" in source.frozen[0]
    assert {n.name for n in source.nodes} >= {"conv1", "fc"}
    assert len(r.samples.ids) == 3 and all(len(i) == 64 for i in r.samples.ids)
    assert any(p.applied for p in r.passes)
    assert {a.what.split()[0] for a in r.accuracy} == {"the", "onnxruntime"}
    assert all(d.max < 1e-5 for a in r.accuracy for d in a.differences)
    assert r.memory.weights_bytes == (bundle.folder / "weights.bin").stat().st_size
    assert 0 < r.memory.code_bytes <= (bundle.folder / "model.so").stat().st_size
    assert {g.name for g in r.gates} >= {"drop", "size", "ram"}
    assert r.drop == 0 and "no evaluate function" in r.drop_meaning
    assert {"sparrow", "numpy", "onnx", "onnxruntime", "compiler"} == set(r.versions)
    assert set(r.tolerances) == {s.op for s in bundle.plan.entries[0].steps} | set(r.tolerances)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_whose_products_come_before_are_counted(kind: str) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    rng = np.random.default_rng(3)
    weights = {x: rng.normal(size=(1, gates * 8, 8)).astype(np.float32) for x in ("w", "r")}
    layer = helper.make_node(kind, ["x", "w", "r"], ["y"], "cell", hidden_size=8)
    given, made = value("x", (5, 1, 8)), value("y", (5, 1, 1, 8))
    r = sparrow.build(model([layer], [given], [made], weights)).receipt
    assert r.precision == "float32" and r.precisions == {"float32": 1}


def test_a_float16_that_overflows_here_and_not_in_the_oracle_is_said() -> None:
    eye = np.eye(4, dtype=np.float32)
    m = model(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"]),
            helper.make_node("MatMul", ["h", "b"], ["y"]),
        ],
        [value("x", (4, 4), TensorProto.FLOAT16)],
        [value("y", (4, 4), TensorProto.FLOAT16)],
        {"a": (6e4 * eye).astype(np.float16), "b": (1e-4 * eye).astype(np.float16)},
    )
    r = sparrow.build(m, calib=[{"x": (3 * eye).astype(np.float16)}]).receipt
    assert r.verdict.endswith(
        "; BUT infinitely far away (output 'y' overflows in one of them) "
        "from onnxruntime on the source model"
    )
    assert r.accuracy[0].distance == "no bit away"


def test_the_verdict_tells_samples_that_calibrated_from_others() -> None:
    def against(what: str, rms: float) -> AgainstRecord:
        row = DifferenceRecord(
            entry="main", output="y", max=rms, mean=rms, scale=1.0, rms=rms, level=1.0
        )
        return AgainstRecord(what=what, differences=(row,))

    seen, held = "onnxruntime on the source model", "onnxruntime on the source model over 3 samples"
    near, far = (
        against_oracle((against(seen, 0.01), against(held, rms)), "quantized")
        for rms in (0.015, 0.1)
    )
    assert near.startswith("; quantized: 36.5 dB") and near.endswith(f"from {held}")
    assert far.startswith("; quantized: 20.0 dB")
    assert f"from {held} (40.0 dB over samples that calibrated: " in far


def test_a_difference_beyond_all_measure_has_decibels() -> None:
    far = DifferenceRecord(
        entry="main", output="y", max=1e308, mean=1e308, scale=0.0, rms=1e308, level=0.0
    )
    assert far.db == pytest.approx(-20 * (300 + 308))
    record = AgainstRecord(what="onnxruntime", differences=(far,))
    assert record.db == far.db and "infinitely far" in record.distance


def test_records_read_back_as_written(bundle: Bundle, tmp_path: Path) -> None:
    for kind, name in ((ReceiptRecord, "receipt.json"), (PlanRecord, "plan.json")):
        record = load(kind, bundle.folder / name)
        (tmp_path / name).write_bytes(dump(record))
        assert (tmp_path / name).read_bytes() == (bundle.folder / name).read_bytes()


def test_unknown_fields_and_schemas_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    plain = json.loads((bundle.folder / "plan.json").read_bytes())
    path = tmp_path / "plan.json"
    for change in ({"schema_version": 2}, {"surprise": 1}, {"threads": "many"}):
        path.write_text(json.dumps({**plain, **change}))
        with pytest.raises(BadBundle, match="build the model again"):
            load(PlanRecord, path)
    with pytest.raises(BadBundle):
        load(PlanRecord, tmp_path / "none.json")


def test_more_than_is_read_is_neither_read_nor_written(bundle: Bundle, tmp_path: Path) -> None:
    (entry,) = bundle.plan.entries
    many = entry.model_copy(update={"steps": entry.steps * (MAX_VALUES // 50)})
    with pytest.raises(UnsupportedOp, match="too many steps"):
        dump(bundle.plan.model_copy(update={"entries": (many,)}))
    path = tmp_path / "plan.json"
    plain = json.loads((bundle.folder / "plan.json").read_bytes())
    for name, large in (("states", [{}] * MAX_VALUES), ("target", "x" * MAX_BYTES)):
        path.write_text(json.dumps({**plain, name: large}))
        with pytest.raises(BadBundle, match="at most"):
            load(PlanRecord, path)


def test_the_plan_tells_memory_over_time(bundle: Bundle) -> None:
    (entry,) = bundle.plan.entries
    assert max(b.offset + b.bytes for b in entry.buffers) <= entry.arena_bytes
    for i, a in enumerate(entry.buffers):
        for b in entry.buffers[i + 1 :]:
            together = a.first <= b.last and b.first <= a.last
            overlap = a.offset < b.offset + b.bytes and b.offset < a.offset + a.bytes
            assert not (together and overlap), (a, b)
    assert all(s.flops >= 0 and s.bytes > 0 and s.tasks >= 1 for s in entry.steps)
    ends = [w.offset + w.bytes for w in bundle.plan.weights]
    assert max(ends) <= bundle.plan.weights_bytes
    assert callable(buffers)


@pytest.mark.parametrize("budget", [Budget(size=10), Budget(ram=1), Budget(latency=1.0)])
def test_a_budget_that_does_not_hold_leaves_nothing(budget: Budget, tmp_path: Path) -> None:
    with pytest.raises(GateFailed, match=r"budget \w+: expected at most .* found"):
        sparrow.build(classifier(), out=tmp_path / "out", budget=budget)
    assert list(tmp_path.iterdir()) == []


def test_evaluate_measures_the_drop(tmp_path: Path) -> None:
    import numpy as np

    calls = []

    def accuracy(predict: object) -> float:
        assert callable(predict)
        calls.append(predict({"x": np.ones((1, 3, 12, 12), np.float32)})["y"])
        return float(len(calls) == 1)

    b = sparrow.build(classifier(), out=tmp_path / "out", evaluate=accuracy)
    assert b.receipt.drop == 1.0 and b.receipt.drop_meaning.startswith("evaluate: 1")
    np.testing.assert_allclose(calls[0], calls[1], atol=1e-5)
    with pytest.raises(GateFailed, match="drop"):
        calls.clear()
        budget = Budget(drop=0.01)
        sparrow.build(classifier(), out=tmp_path / "worse", evaluate=accuracy, budget=budget)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_model_onnxruntime_refuses_still_builds(tmp_path: Path) -> None:
    from onnx import helper

    m = model([helper.make_node("Relu", ["x"], ["y"], "r")], [value("x", (2,))], [value("y", (2,))])
    m.ir_version = 99
    r = sparrow.build(m, out=tmp_path / "out").receipt
    assert r.ok
    assert any("onnxruntime refuses" in a.note for a in r.accuracy)
