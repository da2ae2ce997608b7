"""The proof catches what it must: altered weights, altered code, altered files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import sparrow
from small_models import INT64, classifier, embedding, model, value
from sparrow import lane
from sparrow.builder import Builder
from sparrow.bundle import Bundle
from sparrow.device.cache import file_sha256
from sparrow.errors import BadBundle, GateFailed
from sparrow.evidence import outputs
from sparrow.evidence.golden import make_golden
from sparrow.evidence.layers import gap, tapped
from sparrow.evidence.outputs import CODED_BOUND, OUTPUT_BOUND, _output_bound, output_gate
from sparrow.evidence.plan_record import ValueRecord
from sparrow.folder import load_evidence
from sparrow.tensor import F32, I8, TensorType


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return sparrow.build(classifier(), out=tmp_path_factory.mktemp("proof") / "out")


@pytest.fixture
def copy(built: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built.folder, tmp_path / "copy"))


def rehash(folder: Path) -> None:
    """Make the receipt agree with what lies there, as a forger would."""
    path = folder / "receipt.json"
    receipt = json.loads(path.read_bytes())
    receipt["files"] = {name: file_sha256(folder / name) for name in receipt["files"]}
    path.write_text(json.dumps(receipt))


def test_an_intact_bundle_is_proved_from_its_folder(copy: Path) -> None:
    proof = sparrow.load_bundle(copy).verify()
    assert proof.ok and proof.failure == ""
    assert len(proof.gates) == 6
    assert len(proof.layers) == len(sparrow.load_bundle(copy).plan.entries[0].steps)


def test_an_altered_file_is_named_and_not_run(copy: Path) -> None:
    (copy / "model.so").write_bytes(b"\x7fELF" + bytes(100))
    from sparrow.evidence.verify import verify_bundle

    proof = verify_bundle(copy)
    assert not proof.ok
    assert proof.failure.startswith("files are those of the receipt")
    assert "model.so" in proof.failure
    assert proof.layers == ()


def test_a_missing_and_a_foreign_file_are_named(copy: Path) -> None:
    bundle = sparrow.load_bundle(copy)
    (copy / "extra.txt").write_text("hello")
    assert "extra.txt is not in the receipt" in bundle.verify().failure
    (copy / "graph.txt").unlink()
    assert "graph.txt is missing" in bundle.verify().failure


def test_a_changed_weight_blames_its_own_layer_only(copy: Path) -> None:
    bundle = sparrow.load_bundle(copy)
    step = next(s for s in bundle.plan.entries[0].steps if "conv2" in s.origin or s.op == "Conv")
    later = [s for s in bundle.plan.entries[0].steps if s.op == "Conv"][-1]
    assert later.index != step.index
    blob = bytearray((copy / "weights.bin").read_bytes())
    at = later.packed[0]
    weights = np.frombuffer(blob, np.float32, 64, at)
    weights[:] = weights * np.float32(1.001)
    (copy / "weights.bin").write_bytes(blob)
    rehash(copy)
    proof = sparrow.load_bundle(copy).verify()
    assert not proof.ok
    assert [c.step for c in proof.layers if not c.ok] == [later.index]
    for word in ("expected", "found", "bound", "Conv", f"main.{later.index} "):
        assert word in proof.failure
    # what comes after inherits the difference and is not blamed for it
    after = [c for c in proof.layers if c.step > later.index]
    assert after and all(c.ok and c.inherited > 0 for c in after)


def test_a_finite_number_is_no_infinity(tmp_path: Path) -> None:
    mask = np.array([[0, -np.inf, -np.inf], [0, 0, -np.inf], [0, 0, 0]], np.float32)
    add = helper.make_node("Add", ["x", "mask"], ["y"])
    masked = model([add], [value("x", (3, 3))], [value("y", (3, 3))], {"mask": mask})
    out = tmp_path / "out"
    assert sparrow.build(masked, out=out).verify().ok
    blob = bytearray((out / "weights.bin").read_bytes())
    stored = np.frombuffer(blob, np.float32)
    places = np.flatnonzero(np.isneginf(stored))
    assert len(places) == 3
    stored[places[0]] = -5
    (out / "weights.bin").write_bytes(blob)
    rehash(out)
    proof = sparrow.load_bundle(out).verify()
    assert not proof.layers[0].ok and "expected -inf" in proof.failure


def test_code_of_another_model_does_not_pass(copy: Path, tmp_path: Path) -> None:
    other = sparrow.build(classifier(shape=(1, 3, 12, 12), seed=3), out=tmp_path / "other")
    shutil.copy(other.folder / "weights.bin", copy / "weights.bin")
    rehash(copy)
    assert not sparrow.load_bundle(copy).verify().ok


def test_files_that_do_not_belong_together_are_refused(copy: Path) -> None:
    other = sparrow.build(embedding())
    shutil.copy(other.folder / "graph.txt", copy / "graph.txt")
    rehash(copy)
    with pytest.raises(BadBundle, match=r"graph\.txt"):
        sparrow.load_bundle(copy).verify()


def test_weights_of_another_size_are_refused(copy: Path) -> None:
    file = copy / "receipt.json"
    receipt = json.loads(file.read_bytes())
    receipt["memory"]["weights_bytes"] = 1
    file.write_text(json.dumps(receipt))
    with pytest.raises(BadBundle, match="the receipt says 1; build the model again"):
        sparrow.load_bundle(copy).verify()


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("memory", "arena_bytes"), 1, "memory.arena_bytes = "),
        (("memory", "state_bytes"), 1, "memory.state_bytes = 0"),
        (("memory", "code_bytes"), 1, "memory.code_bytes = "),
        (("layers",), [], "number of layers = "),
        (("layers", 0, "origin"), "forged", "layers[0].origin = "),
        (("layers", 1, "ok"), False, "layers[1].ok = True"),
        (("gates", 1, "name"), "forged", "gates = "),
        (("gates", 0, "ok"), False, "gates[0].ok = True"),
        (("budget", "ram_bytes"), 1, "gates = "),
        (("ok",), False, "number of layers = 0"),
    ],
)
def test_a_receipt_that_contradicts_the_proof_is_named(
    copy: Path, path: tuple[str | int, ...], value: object, named: str
) -> None:
    file = copy / "receipt.json"
    receipt = json.loads(file.read_bytes())
    at = receipt
    for k in path[:-1]:
        at = at[k]
    at[path[-1]] = value
    file.write_text(json.dumps(receipt))
    proof = sparrow.load_bundle(copy).verify()
    assert [g.name for g in proof.gates if not g.ok] == ["receipt agrees with the proof"]
    expected, found = proof.failure.split(", found ", 1)
    assert expected.startswith(f"receipt agrees with the proof: expected {named}")
    assert found.startswith(named.split(" = ")[0])
    if path[0] == "memory" or value == "forged":
        assert str(value) in found


def test_a_bundle_built_elsewhere_claims_no_proof_and_can_be_proved(copy: Path) -> None:
    file = copy / "receipt.json"
    receipt = json.loads(file.read_bytes())
    receipt |= {"ok": False, "layers": []}
    receipt["gates"] = [g for g in receipt["gates"] if g["name"] == "memory plan audited"]
    file.write_text(json.dumps(receipt))
    assert sparrow.load_bundle(copy).verify().ok


def test_budget_gates_are_part_of_what_the_receipt_says(tmp_path: Path) -> None:
    budget = sparrow.Budget(drop=0.5, size=1 << 20, ram=1 << 20, latency=1e9)
    b = sparrow.build(classifier(), out=tmp_path / "out", budget=budget)
    assert b.verify().ok, b.verify().failure


def test_damaged_records_are_refused(copy: Path) -> None:
    (copy / "receipt.json").write_text('{"schema_version": 2}')
    with pytest.raises(BadBundle, match=r"receipt\.json"):
        sparrow.load_bundle(copy).verify()


def record(shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> ValueRecord:
    return ValueRecord(
        name="v", dtype="float32", shape=shape, strides=strides, place="arena", index=0, offset=0,
        bytes=size,
    )  # fmt: skip


def test_taps_are_read_through_their_strides() -> None:
    flat = np.arange(8, dtype=np.float32)
    data = flat.tobytes()
    assert tapped(data, record((2, 4), (4, 1), 32)).tolist() == flat.reshape(2, 4).tolist()
    assert tapped(data[:28], record((2, 3), (4, 1), 28)).tolist() == [[0, 1, 2], [4, 5, 6]]
    assert tapped(data, record((8,), (-1,), 32)).tolist() == flat[::-1].tolist()
    with pytest.raises(BadBundle, match="28 bytes tapped"):
        tapped(data[:28], record((8,), (1,), 32))


def test_gap_treats_nan_and_infinity_as_values() -> None:
    inf, nan = np.inf, np.nan
    a = np.array([1, nan, inf, inf, nan, 2], np.float32)
    b = np.array([1, nan, inf, -inf, 1, 3], np.float32)
    assert gap(a, b).tolist() == [0, 0, 0, inf, inf, 1]
    big = np.array([2**63 - 1], np.int64)
    assert gap(big, big - 1)[0] >= 1


def test_random_indices_stay_inside_the_table() -> None:
    from sparrow.compiler import Source, compile_sources
    from sparrow.targets import target

    module = compile_sources({"main": Source(embedding())}, target("x86_64")).module
    golden = make_golden(module.entries, [[["y"]]])
    for call in golden.calls:
        assert call.feeds["ids"].min() >= 0 and call.feeds["ids"].max() < 7


def test_outputs_of_data_dependent_length(tmp_path: Path) -> None:
    node = helper.make_node("NonZero", ["x"], ["y"], "nz")
    m = model([node], [value("x", (4, 5))], [value("y", (2, "n"), INT64)])
    x = np.eye(4, 5, dtype=np.float32)
    b = sparrow.build(m, calib=[x], out=tmp_path / "out")
    assert b.run(x)["y"].tolist() == [[0, 1, 2, 3]] * 2
    assert b.verify().ok
    assert all(d.max == 0 for a in b.receipt.accuracy for d in a.differences)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_other_float_types_have_their_own_bounds(dtype: int, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "down", to=dtype),
        helper.make_node("Sigmoid", ["h"], ["s"], "sigmoid"),
        helper.make_node("Cast", ["s"], ["y"], "up", to=TensorProto.FLOAT),
    ]
    b = sparrow.build(
        model(nodes, [value("x", (30, 9))], [value("y", (30, 9))]), out=tmp_path / "out"
    )
    assert b.receipt.ok


def test_a_network_that_picks_may_tip_a_few_elements() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["h"], "mm"),
        helper.make_node("ArgMax", ["h"], ["y"], "pick", axis=1),
    ]
    b = sparrow.build(model(nodes, [value("x", (60, 60))], [value("y", (60, 1), INT64)]))
    gate = next(g for g in b.receipt.gates if g.name == "outputs equal the reference")
    assert gate.ok and "may tip" in gate.expected


@pytest.mark.parametrize(("product", "bound"), [(True, CODED_BOUND), (False, OUTPUT_BOUND)])
def test_codes_of_a_sum_with_a_product_may_tip(product: bool, bound: float) -> None:
    b = Builder("g")
    x = b.input("x", TensorType((2, 3), F32))
    v: lane.Expr = lane.Arg(0, F32)
    if product:
        v = lane.call("add", lane.call("mul", v, lane.Imm(0.3, F32)), lane.Imm(0.1, F32))
    steps = lane.call("round", lane.call("div", v, lane.Imm(0.02, F32)))
    y = b.lane(lane.cast(steps, I8), x)
    assert _output_bound([b.finish({"y": y}, {})]) == bound


def cancelling(tmp_path: Path) -> Bundle:
    """A network whose sums lose their last bits: another order of a product shows."""
    rng = np.random.default_rng(2)
    w = rng.standard_normal((512, 64)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "one"),
        helper.make_node("MatMul", ["x", "v"], ["g"], "other"),
        helper.make_node("Relu", ["h"], ["p"], "relu"),
        helper.make_node("Relu", ["g"], ["q"], "relu_"),
        helper.make_node("Sub", ["p", "q"], ["y"], "near"),
    ]
    near = w + 1e-4 * rng.standard_normal(w.shape).astype(np.float32)
    consts = {"w": w, "v": near.astype(np.float32)}
    source = model(nodes, [value("x", (8, 512))], [value("y", (8, 64))], consts)
    return sparrow.build(source, out=tmp_path / "out")


def test_what_rounding_the_inputs_moves_rounding_inside_may_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = cancelling(tmp_path)
    gate = next(g for g in b.receipt.gates if g.name == "outputs equal the reference")
    assert gate.ok and "one more rounding of the inputs" in gate.expected
    assert b.verify().ok
    graphs, golden = load_evidence(b.folder, b.plan)
    wrong = [{k: v * np.float32(1.5) for k, v in c.outputs.items()} for c in golden.calls]
    assert not output_gate(graphs, golden, wrong).ok
    monkeypatch.setattr(outputs, "ROUNDINGS", 0)
    with pytest.raises(GateFailed, match="beyond"):
        cancelling(tmp_path / "again")
