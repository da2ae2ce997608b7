"""Several entry points quantized together: samples, judges and a record for each of them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import helper

import sparrow
from small_models import model, recurrent, value
from sparrow.device.here import resolve_target
from sparrow.errors import BadInput, GateFailed
from sparrow.evidence.gate import Gate
from sparrow.request import Budget, Predict
from sparrow.tensor import Array
from sparrow.timing.measure import Ratio
from sparrow.timing.race import race
from sparrow.timing.remembered import Remembered

pytestmark = pytest.mark.usefixtures("won_races")

STATES = {"h": "h_out"}
NEAREST = sparrow.Recipe(rounding="nearest", bias_correction=False)
Samples = dict[str, list[dict[str, Array]]]


@pytest.fixture(scope="module")
def models() -> dict[str, onnx.ModelProto]:
    """Four rows at once, and one."""
    return {"prefill": recurrent(4), "step": recurrent(1)}


@pytest.fixture(scope="module")
def samples() -> Samples:
    """Twenty calls of the one, thirty of the other."""
    rng = np.random.default_rng(0)
    return {
        "prefill": [{"x": rng.standard_normal((4, 16), np.float32)} for _ in range(20)],
        "step": [{"x": rng.standard_normal((1, 16), np.float32)} for _ in range(30)],
    }


@pytest.fixture(scope="module")
def bundle(
    models: dict[str, onnx.ModelProto], samples: Samples, tmp_path_factory: pytest.TempPathFactory
) -> sparrow.Bundle:
    """Both on codes."""
    out = tmp_path_factory.mktemp("entries") / "out"
    return sparrow.build(
        models, out=out, calib=samples, precision="int8", states=STATES, recipe=NEAREST
    )


def test_each_entry_point_has_its_record(bundle: sparrow.Bundle) -> None:
    r = bundle.receipt
    assert r.precision == "int8" and r.quantization is not None
    assert [q.entry for q in r.quantization] == ["prefill", "step"]
    assert [len(q.calibrated) for q in r.quantization] == [16, 24]
    assert [len(q.held) for q in r.quantization] == [4, 6]
    assert all({"into", "outof"} <= set(q.layers) for q in r.quantization)
    exact = [c for c in r.layers if c.op == "MatMul" and c.bound == 0.0]
    assert {c.entry for c in exact} == {"prefill", "step"}
    assert all(c.own == 0.0 for c in exact)


def test_each_entry_point_is_judged(bundle: sparrow.Bundle) -> None:
    assert "4 and 6 held-out samples" in bundle.receipt.drop_meaning
    assert "prefill" in bundle.receipt.drop_meaning and "step" in bundle.receipt.drop_meaning
    twins = [onnx.load(bundle.folder / f"{name}.onnx") for name in ("prefill", "step")]
    assert all("QuantizeLinear" in {n.op_type for n in t.graph.node} for t in twins)
    (gate,) = [g for g in bundle.receipt.gates if "QDQ twin" in g.name]
    codes = sum(
        n.op_type == "QuantizeLinear" and not any(n.input[0] == i.name for i in t.graph.initializer)
        for t in twins
        for n in t.graph.node
    )
    assert gate.ok and gate.expected.startswith(f"{codes} layers")


def test_the_state_stays_float_between_entry_points(
    bundle: sparrow.Bundle, samples: Samples
) -> None:
    (state,) = bundle.plan.states
    assert state.dtype == "float32"
    w, v = (
        next(
            np.asarray(onnx.numpy_helper.to_array(t))
            for t in recurrent().graph.initializer
            if t.name == n
        )
        for n in "wv"
    )
    h = np.zeros((1, 32), np.float32)
    bundle.reset()
    for name, k in (("prefill", 0), ("step", 0), ("step", 1), ("prefill", 1)):
        x = samples[name][k]["x"]
        h = np.tanh(h + (x @ w).sum(0, keepdims=True))
        y = bundle.run({"x": x}, entry=name)["y"]
        assert np.abs(y - h @ v).max() < 0.03 * np.abs(h @ v).max() + 0.02


def test_nearest_codes_of_shared_weights_are_stored_once(
    bundle: sparrow.Bundle,
    models: dict[str, onnx.ModelProto],
    samples: Samples,
) -> None:
    shared = [w for w in bundle.plan.weights if len({u.split(".")[0] for u in w.users}) == 2]
    assert {tuple(w.shape) for w in shared if w.dtype == "int8"}, [
        (w.dtype, w.shape, w.users) for w in bundle.plan.weights
    ]


def test_verifying_again_finds_the_same(bundle: sparrow.Bundle) -> None:
    assert bundle.verify().ok


def test_files_of_both_are_told_apart(bundle: sparrow.Bundle) -> None:
    names = {p.name for p in bundle.folder.iterdir()}
    assert {"calibration_prefill.npz", "calibration_step.npz", "recipe.json"} <= names
    assert "calibration.npz" not in names


def test_an_entry_point_without_samples_is_named(
    models: dict[str, onnx.ModelProto], samples: Samples
) -> None:
    with pytest.raises(BadInput, match="'step' has no samples"):
        sparrow.build(
            models, calib={"prefill": samples["prefill"]}, precision="int8", states=STATES
        )


def test_one_source_that_fits_one_alone_is_refused(
    models: dict[str, onnx.ModelProto], samples: Samples
) -> None:
    with pytest.raises(BadInput, match="entry point 'step': "):
        sparrow.build(models, calib=samples["prefill"], precision="int8", states=STATES)


def test_samples_read_once_serve_one_entry_point(
    models: dict[str, onnx.ModelProto], samples: Samples
) -> None:
    with pytest.raises(BadInput, match="read once, and there are 2"):
        sparrow.build(models, calib=iter(samples["step"]), precision="int8", states=STATES)


def test_one_source_serves_all_that_it_fits(samples: Samples) -> None:
    models = {"a": recurrent(), "b": recurrent()}
    done = sparrow.build(models, calib=samples["step"], states=STATES)
    assert done.receipt.quantization is not None
    a, b = done.receipt.quantization
    assert a.calibrated == b.calibrated and len(a.calibrated) == 24


def test_precisions_are_searched_for_one_entry_point(
    models: dict[str, onnx.ModelProto], samples: Samples
) -> None:
    with pytest.raises(BadInput, match="searched for one entry point"):
        sparrow.build(models, calib=samples, states=STATES, budget=Budget(drop=0.5))


def test_a_slower_build_is_float_under_auto(
    models: dict[str, onnx.ModelProto], samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Gate("not slower than float32", "", "0.5x", False)
    monkeypatch.setattr("sparrow.assemble.race", lambda *_: (lost, {}))
    done = sparrow.build(models, calib=samples, states=STATES)
    assert done.receipt.precision == "float32" and done.receipt.samples.source == "calibration"
    with pytest.raises(GateFailed, match="not slower"):
        sparrow.build(models, calib=samples, states=STATES, precision="int8")


def test_a_slower_build_is_bfloat16_under_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two entry points of a wide product: codes lose the race, bfloat16 wins it where there is."""
    rng = np.random.default_rng(1)
    weights = {"w": rng.standard_normal((256, 256), np.float32) / 16}
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    shapes = {"many": (96, 256), "few": (48, 256)}
    wide = {
        n: model([product], [value("x", s)], [value("y", s)], weights) for n, s in shapes.items()
    }
    calib = {
        n: [{"x": rng.standard_normal(s, np.float32)} for _ in range(10)] for n, s in shapes.items()
    }
    races = iter((False, True))
    monkeypatch.setattr(
        "sparrow.assemble.race", lambda *_: (Gate("not slower", "", "", next(races)), {})
    )
    done = sparrow.build(wide, calib=calib)
    here = resolve_target("host").isa.multiplies_bfloat16
    assert ("bfloat16" in done.receipt.precisions) == here
    assert done.receipt.samples.source == "calibration"


def test_samples_are_named_on_the_command_line(tmp_path: Path) -> None:
    from sparrow.arguments import calib_of

    assert calib_of(None) is None
    assert calib_of(["x.npz"]) == "x.npz"
    assert calib_of(["a=x.npz", "b=y.npz"]) == {"a": "x.npz", "b": "y.npz"}
    odd = tmp_path / "a=b.npz"
    odd.touch()
    assert calib_of([str(odd)]) == str(odd)
    with pytest.raises(BadInput, match="does not name its entry point"):
        calib_of(["x.npz", "b=y.npz"])
    with pytest.raises(BadInput, match="given twice"):
        calib_of(["a=x.npz", "a=y.npz"])


def test_one_model_with_a_state_is_judged_on_what_was_held_out(samples: Samples) -> None:
    done = sparrow.build(recurrent(), calib=samples["step"], states=STATES, precision="int8")
    assert done.receipt.drop_meaning.startswith("share of 6 held-out samples")
    assert done.receipt.drop is not None and done.receipt.drop <= 0.5


def test_evaluate_sees_states_carried_on_both_sides(samples: Samples) -> None:
    seen: list[Array] = []

    def last(predict: Predict) -> float:
        for x in samples["step"][:8]:
            y = predict(x)["y"]
        seen.append(y)
        return 0.0

    sparrow.build(
        recurrent(), calib=samples["step"], states=STATES, precision="int8", evaluate=last
    )
    theirs, ours = seen
    assert np.abs(theirs - ours).max() < 0.05 * np.abs(theirs).max()


def test_evaluate_judges_every_entry_point_that_it_calls(
    models: dict[str, onnx.ModelProto], samples: Samples
) -> None:
    seen: list[Array] = []

    def both(predict: Predict) -> float:
        predict(samples["prefill"][0], "prefill")
        found = [predict(x, "step")["y"] for x in samples["step"][:4]]
        # the first without a name
        seen.append(np.concatenate([*found, predict(samples["prefill"][1])["y"]]))
        return float(len(seen))

    given = {"calib": samples, "states": STATES, "recipe": NEAREST}
    done = sparrow.build(models, precision="int8", evaluate=both, **given)  # type: ignore[arg-type]
    theirs, ours = seen
    assert np.abs(theirs - ours).max() < 0.05 * np.abs(theirs).max()
    meaning = "evaluate (entry point prefill, step): 1 in onnxruntime, 2 here"
    assert done.receipt.drop_meaning == meaning and done.receipt.drop == -1

    def other(predict: Predict) -> float:
        return float(predict(samples["step"][0], "stop")["y"][0, 0])

    with pytest.raises(BadInput, match="entry 'stop' is unknown; entries: prefill, step"):
        sparrow.build(models, precision="int8", evaluate=other, **given)  # type: ignore[arg-type]


def test_every_entry_point_runs_the_race(
    models: dict[str, onnx.ModelProto], samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([Ratio(2.0, 1.9, 2.1, 0.0), Ratio(0.5, 0.4, 0.6, 0.0)])

    class Slower:
        median_ns: ClassVar[dict[str, float]] = {"this": 2.0, "float32": 1.0}
        rounds = 15

        def ratio(self, slow: str, fast: str) -> Ratio:
            return next(times)

    monkeypatch.setattr("sparrow.assemble.race", race)
    monkeypatch.setattr("sparrow.timing.race.compare", lambda *_: Slower())
    # nothing of this is remembered: the race is lost
    monkeypatch.setattr(Remembered, "recall", lambda _: None)
    with pytest.raises(GateFailed, match=r"0\.50x its speed .* \(entry point step\)"):
        sparrow.build(models, calib=samples, states=STATES, precision="int8")
    assert next(times, None) is None


def test_sizes_of_several_entry_points_on_codes(models: dict[str, onnx.ModelProto]) -> None:
    found = [sparrow.fits(models, "host", precision=p, states=STATES) for p in ("float32", "int8")]
    assert [f.precision for f in found] == ["float32", "int8"]
