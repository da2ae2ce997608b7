"""A build with samples: int8 that is proved, judged on what was held out, and never slower."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

import sparrow
from data import REPO
from native_harness import emulator
from small_models import classifier
from sparrow import cli
from sparrow.arguments import recipe_of
from sparrow.errors import BadInput, GateFailed
from sparrow.evidence.gate import Gate
from sparrow.evidence.held_out import EVERY, HELD, number_in_source, quantized_entry
from sparrow.importers.model import import_model
from sparrow.passes import FRONT, optimize
from sparrow.request import Budget
from sparrow.targets import target

pytestmark = pytest.mark.usefixtures("won_races")

MODEL = REPO / "examples" / "digits" / "digits.onnx"


@pytest.fixture(scope="module")
def samples() -> list[NDArray[np.float32]]:
    """Digits as the classifier takes them."""
    from sklearn.datasets import load_digits

    shape = onnx.load(MODEL).graph.input[0].type.tensor_type.shape.dim
    extents = [d.dim_value or 1 for d in shape]
    images = load_digits().images[:60].astype(np.float32) / 16
    return [im.reshape(extents) for im in images]


@pytest.fixture(scope="module")
def bundle(
    samples: list[NDArray[np.float32]], tmp_path_factory: pytest.TempPathFactory
) -> sparrow.Bundle:
    """The digit classifier on codes."""
    out = tmp_path_factory.mktemp("int8") / "out"
    return sparrow.build(MODEL, out=out, calib=samples, precision="int8")


def test_quantized_layers_are_exact_and_recorded(bundle: sparrow.Bundle) -> None:
    r = bundle.receipt
    assert r.ok and r.quantization is not None
    assert r.precision == "int8"
    kinds = {n.op for n in r.layers}
    assert "Conv" in kinds or "MatMul" in kinds
    exact = [c for c in r.layers if c.op in ("Conv", "MatMul") and c.bound == 0.0]
    assert exact and all(c.own == 0.0 for c in exact)


def test_layers_of_several_precisions_are_called_mixed_and_counted(
    bundle: sparrow.Bundle,
    samples: list[NDArray[np.float32]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bundle.receipt.quantization is not None
    layers = list(bundle.receipt.quantization[0].layers)
    assert bundle.receipt.precisions == {"int8": len(layers)}
    (name,) = (v.name for v in bundle.plan.entries[0].inputs)
    np.savez(tmp_path / "x.npz", **{name: np.concatenate(samples)})  # type: ignore[arg-type]
    words = ["build", str(MODEL), "--calib", str(tmp_path / "x.npz"), "-o", str(tmp_path / "out")]
    pins = [f"{layers[0]}=float32", f"{layers[1]}=int16x8"]
    with pytest.raises(SystemExit) as done:
        cli.main([*words, "--precision", "int8", *(w for p in pins for w in ("--pin", p))])
    assert done.value.code in (0, None)
    receipt = sparrow.load_bundle(tmp_path / "out").receipt
    assert receipt.precision == "mixed"
    counts = receipt.precisions
    assert counts["float32"] == 1 and counts["int16x8"] >= 1 and sum(counts.values()) == len(layers)
    said = "mixed (" + ", ".join(f"{n} {p}" for p, n in counts.items()) + "), flash "
    assert said in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "--precision int8 --recipe recipe.json" in page


def test_held_out_samples_judge(bundle: sparrow.Bundle, samples: list[NDArray[np.float32]]) -> None:
    assert bundle.receipt.quantization is not None
    (q,) = bundle.receipt.quantization
    assert len(q.held) == 12 and len(q.calibrated) == 48
    assert not set(q.held) & set(q.calibrated)
    assert "12 held-out samples" in bundle.receipt.drop_meaning
    record = bundle.receipt.accuracy[-1]
    assert record.what == "onnxruntime on the source model over 12 held-out samples"
    assert f"{record.distance} from {record.what}" in bundle.receipt.verdict
    session = ort.InferenceSession(MODEL)
    (name,) = (i.name for i in session.get_inputs())
    signal = noise = 0.0
    for x in samples[4::5]:
        (want,) = session.run(None, {name: x})
        (found,) = bundle.run({name: x}).values()
        signal += float(np.square(want, dtype=np.float64).sum())
        noise += float(np.square(found - want, dtype=np.float64).sum())
    assert record.db == pytest.approx(10 * np.log10(signal / noise))


def test_a_slower_build_is_refused_with_what_may_be_faster(
    samples: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Gate("not slower than float32", "", "0.5x", False)
    monkeypatch.setattr("sparrow.assemble.race", lambda *_: (lost, {}))
    with pytest.raises(GateFailed, match=r"found 0.5x.*`sparrow build --precision auto --drop 1%`"):
        sparrow.build(MODEL, calib=samples, precision="int8")


def test_the_twin_is_in_qdq_form(bundle: sparrow.Bundle) -> None:
    twin = onnx.load(bundle.folder / "model.onnx")
    kinds = {n.op_type for n in twin.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds


def test_verifying_again_finds_the_same(bundle: sparrow.Bundle) -> None:
    assert bundle.verify().ok


def test_the_same_samples_give_the_same_bytes(
    bundle: sparrow.Bundle, samples: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    again = sparrow.build(MODEL, out=tmp_path / "out", calib=samples, precision="int8")
    assert again.receipt.files == bundle.receipt.files


def test_threads_change_the_split_of_work_and_nothing_else(
    bundle: sparrow.Bundle, samples: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    two = sparrow.build(MODEL, out=tmp_path / "out", calib=samples, precision="int8", threads=2)
    mine, other = bundle.receipt.files, two.receipt.files
    # cores that have scratch memory of their own make the workspace larger
    changed = {x for x in mine if mine[x] != other[x]} - {"model.h"}
    assert changed == {"model.c", "model.so", "plan.json"}
    (name,) = (v.name for v in bundle.plan.entries[0].inputs)
    for x in samples:
        (a,), (b,) = (run.run({name: x}).values() for run in (bundle, two))
        assert a.tobytes() == b.tobytes()


# a build on some of the cores, whose race is won
ON_CORES = """
import os, sys
import sparrow, sparrow.assemble
from sparrow.evidence.gate import Gate
from sparrow.evidence.held_out import EVERY, HELD, number_in_source, quantized_entry
from sparrow.importers.model import import_model
from sparrow.passes import FRONT, optimize
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
sparrow.assemble.race = lambda *_: (Gate("not slower than float32", "", "", True), {})
sparrow.build(sys.argv[2], out=sys.argv[4], calib=sys.argv[3], precision="int8")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a process is kept on a core")
def test_one_core_writes_the_bytes_of_two(
    bundle: sparrow.Bundle, samples: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    (name,) = (v.name for v in bundle.plan.entries[0].inputs)
    np.savez(tmp_path / "x.npz", **{name: np.concatenate(samples)})  # type: ignore[arg-type]
    for cores in "12":
        out = tmp_path / cores
        arguments = [cores, str(MODEL), str(tmp_path / "x.npz"), str(out)]
        seed = {**os.environ, "PYTHONHASHSEED": cores}
        subprocess.run([sys.executable, "-c", ON_CORES, *arguments], check=True, env=seed)
    one, two = (sparrow.load_bundle(tmp_path / cores).receipt for cores in "12")
    assert one == two
    assert one.files == bundle.receipt.files


def test_a_quantized_file_is_compiled_as_it_is_and_samples_only_judge(
    samples: list[NDArray[np.float32]],
) -> None:
    proto = sparrow.quantize(MODEL, samples, sparrow.Recipe(widen=False))
    alone = sparrow.build(proto)
    for asked in ({"precision": "int8"}, {"budget": Budget(drop=0.01)}):
        built = sparrow.build(proto, calib=samples, **asked)
        assert built.receipt.files["weights.bin"] == alone.receipt.files["weights.bin"]
    pinned = sparrow.Recipe(pins=(("*", "float32"),))
    with pytest.raises(BadInput, match=r"quantized already: no recipe or pin"):
        sparrow.build(proto, calib=samples, recipe=pinned)


def test_int8_needs_samples() -> None:
    with pytest.raises(BadInput, match="int8 needs samples"):
        sparrow.build(MODEL, precision="int8")
    with pytest.raises(BadInput, match="a recipe or a pin needs samples"):
        sparrow.build(MODEL, recipe=sparrow.Recipe())


def test_a_code_that_does_not_exist_is_refused_where_nothing_is_quantized() -> None:
    with pytest.raises(BadInput, match="use one of auto, fast, compact"):
        sparrow.build(MODEL, code="small")


def test_a_command_line_that_says_nothing_of_a_recipe_leaves_it_to_the_target() -> None:
    assert recipe_of(None, None, rounding=None) is None
    assert recipe_of(["head*=float32"], None) == sparrow.Recipe(pins=(("head*", "float32"),))


def test_a_drop_that_is_too_large_writes_nothing(
    samples: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    def worse(predict: object) -> float:
        # 1 for the float model, which is asked first, then 0
        worse.calls += 1  # type: ignore[attr-defined]
        return float(worse.calls % 2)  # type: ignore[attr-defined]

    worse.calls = 0  # type: ignore[attr-defined]
    budget, out = Budget(drop=0.5), tmp_path / "out"
    with pytest.raises(GateFailed, match="drop"):
        sparrow.build(
            MODEL, out=out, calib=samples, precision="int8", evaluate=worse, budget=budget
        )
    assert not out.exists()


@pytest.mark.parametrize(
    "name",
    [
        "aarch64_dotprod",
        pytest.param("aarch64", marks=pytest.mark.slow),
        pytest.param("armv7", marks=pytest.mark.slow),
        pytest.param("riscv64_v", marks=pytest.mark.slow),
    ],
)
def test_other_processors_give_the_same_integers(
    name: str, samples: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    emulator(target(name).machine)
    r = sparrow.build(MODEL, name, tmp_path / "out", calib=samples, precision="int8").receipt
    sums = [c for c in r.layers if c.op in ("Conv", "MatMul", "Lookup")]
    assert len(sums) > 10 and all(c.bound == 0.0 and c.own == 0.0 for c in sums)


@pytest.mark.parametrize("bad", [3, 4, 14, 17, 22])
def test_a_sample_that_is_no_number_is_named_by_its_place_in_the_source(bad: int) -> None:
    g = optimize(import_model(classifier()).graph, FRONT)
    x = np.random.default_rng(0).uniform(-1, 1, (25, 3, 12, 12)).astype(np.float32)
    x[bad, 0, 1, 2] = np.nan
    with pytest.raises(sparrow.SparrowError, match=f"^calibration sample {bad}: input 'x' has NaN"):
        quantized_entry(g, x, None, lambda _: None)


def test_places_in_the_source_are_those_of_what_is_not_held_out() -> None:
    kept, held = [], 0
    for i in range(500):
        if i % EVERY == EVERY - 1 and held < HELD:
            held += 1
        else:
            kept.append(i)
    assert [number_in_source(n) for n in range(len(kept))] == kept
