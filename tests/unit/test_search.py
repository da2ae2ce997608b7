"""The search for a mix of precisions: what is tried, in which order, and what is said of it."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper
from PIL import Image

import small_models
import sparrow
from sparrow import cli
from sparrow.api import plan_precisions
from sparrow.assemble import write_bundle
from sparrow.blame.models import float_graph
from sparrow.errors import BadInput, GateFailed
from sparrow.evidence.receipt import SearchRecord
from sparrow.folder import load_evidence
from sparrow.precision.account import say
from sparrow.precision.choice import Cost, Layer, Mix, Problem, Value, front, mix_of
from sparrow.precision.search import Search
from sparrow.quant.ranges import RANGES
from sparrow.quant.recipe import Precision, Recipe
from sparrow.quant.run import requantized, run
from sparrow.request import Budget
from sparrow.text import print_graph

pytestmark = pytest.mark.usefixtures("won_races")

SHAPE = (1, 8, 12, 12)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Three convolutions and a mean, eight scores."""
    rng = np.random.default_rng(3)
    weights = {f"w{i}": rng.standard_normal((8, 8, 3, 3), np.float32) / 9 for i in range(3)}
    nodes = [
        helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], f"c{i}", pads=[1, 1, 1, 1])
        for i in range(3)
    ]
    nodes.append(helper.make_node("GlobalAveragePool", ["x3"], ["y"], "mean"))
    ends = [small_models.value("x0", SHAPE)], [small_models.value("y", (1, 8, 1, 1))]
    return small_models.model(nodes, *ends, weights)


@pytest.fixture(scope="module")
def calls() -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(4)
    return [rng.standard_normal(SHAPE, np.float32) for _ in range(10)]


def refusal(model: onnx.ModelProto, calls: list[NDArray[np.float32]], budget: Budget) -> str:
    with pytest.raises(GateFailed) as refused:
        plan_precisions(model, calib=calls, budget=budget)
    return str(refused.value)


@given(st.floats(1e-3, 1e12))
def test_what_is_nearest_to_a_goal_is_a_goal_that_can_be_kept(value: float) -> None:
    shown = float(say("size", value, up=True).split()[0].replace(",", "")) * 1e3
    assert value * (1 - 1e-9) <= shown <= value * 1.0011


def test_a_goal_of_what_was_nearest_is_kept(
    model: onnx.ModelProto, calls: list[NDArray[np.float32]]
) -> None:
    said = refusal(model, calls, Budget(size=2_000))
    nearest = float(said.rpartition("the nearest is ")[2].removesuffix(" kB"))
    record, _ = plan_precisions(model, calib=calls, budget=Budget(size=round(nearest * 1e3)))
    assert record.built["size"] <= nearest * 1e3


def test_goals_that_are_hopeless_each_are_all_named(
    model: onnx.ModelProto, calls: list[NDArray[np.float32]]
) -> None:
    said = refusal(model, calls, Budget(size=2_000, latency=500))
    assert said.startswith("goals latency, size: no mix of precisions keeps one of them")
    assert "alone: latency " in said and ", size " in said


@pytest.mark.parametrize(
    "budget", [{"size": 0}, {"ram": -1}, {"latency": 0.0}, {"latency": math.nan}, {"drop": -0.1}]
)
def test_limits_that_are_none(budget: Mapping[str, float]) -> None:
    with pytest.raises(BadInput, match=f"^{next(iter(budget))} .*expected"):
        Budget(**budget)  # type: ignore[arg-type]


def test_a_plan_speaks_of_no_bundle(
    model: onnx.ModelProto,
    calls: list[NDArray[np.float32]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    onnx.save(model, tmp_path / "m.onnx")
    np.save(tmp_path / "c.npy", np.stack(calls))
    words = [str(tmp_path / "m.onnx"), "--calib", str(tmp_path / "c.npy"), "--size", "2kB"]
    recipe, out = tmp_path / "r.json", tmp_path / "out"

    def said(*more: str) -> str:
        with pytest.raises(SystemExit) as done:
            cli.main([more[0], *words, *more[1:]])
        assert done.value.code == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "written" not in said("plan")
    assert said("plan", "-o", str(recipe)).endswith(f"; {recipe} was not written")
    assert said("build", "-o", str(out)).endswith("; no bundle was written")
    assert not recipe.exists() and not out.exists()


def test_the_float_network_is_judged_once(
    model: onnx.ModelProto, calls: list[NDArray[np.float32]]
) -> None:
    seen: list[float] = []

    def accuracy(predict: Any) -> float:
        seen.append(float(predict({"x0": calls[0]})["y"].sum()))
        # all but the float network, which is asked first, are wrong
        return float(seen[-1] == seen[0])

    # what keeps a drop of nothing is the float network itself, after all mixes
    record, _ = plan_precisions(model, calib=calls, evaluate=accuracy, budget=Budget(drop=0.0))
    assert {x.precision for x in record.layers} == {"float32"}
    assert len(seen) > 2 and seen.count(seen[0]) == 1


def test_ranges_are_searched_once_for_all_mixes(
    model: onnx.ModelProto, calls: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, str, bool]] = []
    plain = RANGES["mse"]

    def counted(h: Any, dtype: Any, symmetric: bool) -> Any:
        asked.append((hash(h.counts.tobytes()), str(dtype), symmetric))
        return plain(h, dtype, symmetric)

    monkeypatch.setitem(RANGES, "mse", counted)
    plan_precisions(model, calib=calls, budget=Budget(drop=0.5))
    # once before and once after it is known which values take 16 bits
    assert max(map(asked.count, asked)) <= 3


def test_what_a_bundle_refuses_gives_way_to_a_faster_mix(
    model: onnx.ModelProto, calls: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[SearchRecord] = []

    def refuse_the_first(*args: Any) -> sparrow.Bundle:
        if not refused:
            refused.append(args[6])
            raise GateFailed("budget latency: found more when measured again", gate="latency")
        return write_bundle(*args)

    monkeypatch.setattr("sparrow.attempts.write_bundle", refuse_the_first)
    s = sparrow.build(model, calib=calls, budget=Budget(latency=1e9)).receipt.search
    assert s is not None and s.least == "noise"
    assert s.predicted.ns < refused[0].predicted.ns
    assert s.predicted.db < refused[0].predicted.db


def test_a_layer_that_no_sample_reaches_is_not_taken_for_exact() -> None:
    rng = np.random.default_rng(8)
    weights = {f"w{i}": rng.standard_normal((4, 4, 1, 1), np.float32) for i in range(2)}
    # what the second one makes counts where the mean of the input is above 100
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], "seen"),
        helper.make_node("Conv", ["x", "w1"], ["b"], "shut"),
        helper.make_node("ReduceMean", ["x"], ["m"], "mean", axes=[1, 2, 3], keepdims=1),
        helper.make_node("Greater", ["m", "limit"], ["large"], "large"),
        helper.make_node("Where", ["large", "b", "a"], ["y"], "choose"),
    ]
    shape = (1, 4, 6, 6)
    ends = [small_models.value("x", shape)], [small_models.value("y", shape)]
    m = small_models.model(nodes, *ends, {**weights, "limit": np.array(100, np.float32)})
    given = [rng.standard_normal(shape, np.float32) for _ in range(10)]
    record, _ = plan_precisions(m, calib=given, budget=Budget(drop=0.5))
    seen, shut = (x.db for x in record.layers)
    assert shut["float32"] == 999.0
    assert shut["int8"] == seen["int8"] < 100


def stub(problem: Problem, drop: float, most_noise: float) -> Any:
    """A search whose mixes keep the drop where they have no more than so much noise."""
    found = object.__new__(Search)
    found.problem, found.lost = problem, {}
    found.request = SimpleNamespace(  # type: ignore[assignment]
        budget=Budget(drop=drop), progress=lambda _: None
    )
    found._quantized = lambda m: m  # type: ignore[assignment, return-value, method-assign]
    found.drops = SimpleNamespace(  # type: ignore[assignment]
        of=lambda m: 0.0 if m.noise <= most_noise else 1.0
    )
    return found


@pytest.mark.parametrize("seed", range(6))
def test_the_fastest_that_keeps_a_drop_is_looked_for_between_points_of_the_front(
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    names: tuple[Precision, ...] = ("float32", "int16x8", "int8")
    made = []
    for i in range(24):
        noise = float(10.0 ** rng.uniform(-6, -3))
        costs = zip(names, (4.0, 2.5, 1.0), (0.0, noise / 50, noise), strict=True)
        work = float(rng.uniform(1, 9))
        made.append(Layer(f"l{i}", "Conv", {p: Cost(t * work, 1.0, e) for p, t, e in costs}))
    values = tuple(Value(i - 1, (i,), 0.3) for i in range(24))
    p = Problem(tuple(made), values, 0.0, 0.0)
    shown = front(p, "latency", {})
    bound = float(np.sqrt(shown[2].noise * shown[3].noise))
    search = stub(p, 0.1, bound)
    tried: dict[tuple[Precision, ...], float] = {}
    order: list[Mix] = list(search._fastest(shown, {}, tried))
    kept = [m for m in order if m.noise <= bound]
    of_front = min(m.latency for m in shown if m.noise <= bound)
    assert kept[0].latency == min(m.latency for m in kept) < of_front
    # every mix that was tried on samples was tried once
    assert len(tried) == len(search.lost)


def picture(folder: Path, k: int) -> NDArray[np.float32]:
    """A random image as a file, and its pixels."""
    pixels = np.random.default_rng(k).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / f"{k}.png")
    return pixels.astype(np.float32)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_images_become_what_is_stated(precision: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    first, *_ = [picture(photos, k) for k in range(8)]
    rng = np.random.default_rng(9)
    m = small_models.model(
        [helper.make_node("Conv", ["x", "w"], ["y"], "c")],
        [small_models.value("x", (1, 3, 12, 12))],
        [small_models.value("y", (1, 4, 12, 12))],
        {"w": rng.standard_normal((4, 3, 1, 1), np.float32)},
    )
    onnx.save(m, tmp_path / "m.onnx")
    words = [str(tmp_path / "m.onnx"), "--calib", str(photos), "--precision", precision]
    stated = ["--mean", "10,20,30", "--std", "50", "--bgr"]
    with pytest.raises(SystemExit) as done:
        cli.main(["build", *words, *stated, "-o", str(tmp_path / "out")])
    assert done.value.code == 0
    bundle = sparrow.load_bundle(tmp_path / "out")
    _, golden = load_evidence(bundle.folder, bundle.plan)
    want = (first[:, :, ::-1] - np.array([10, 20, 30], np.float32)) / np.float32(50)
    np.testing.assert_array_equal(golden.calls[0].feeds["x"][0], want.transpose(2, 0, 1))


def test_memory_out_of_reach_is_refused_before_anything_is_compiled(
    model: onnx.ModelProto, calls: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refusal(model, calls, Budget(ram=100))
    nearest = round(float(said.rpartition("the nearest is ")[2].removesuffix(" kB")) * 1e3)

    def never(*_: object, **__: object) -> Any:
        raise AssertionError("compiled")

    with monkeypatch.context() as patch:
        patch.setattr("sparrow.device.build.Toolchain.compile_objects", never)
        patch.setattr("sparrow.precision.tables.sensitivities", never)
        assert refusal(model, calls, Budget(ram=100)) == said
        # other goals are no reason to look further
        assert refusal(model, calls, Budget(ram=100, drop=0.5, size=10_000_000)) == said
    record, _ = plan_precisions(model, calib=calls, budget=Budget(ram=nearest))
    assert record.built["ram"] <= nearest


@pytest.mark.parametrize(
    ("budget", "least"),
    [
        # three times 8 x 8 x 3 x 3 weights
        (
            Budget(size=1_700, drop=0.5),
            "size: .* keeps 1.7 kB; the nearest is above 1.728 kB: ",
        ),
        (Budget(latency=1.0), "latency: .* the nearest is above .* ms: the products alone"),
    ],
    ids=("size", "latency"),
)
def test_what_no_precision_keeps_is_refused_before_anything_is_calibrated(
    model: onnx.ModelProto,
    calls: list[NDArray[np.float32]],
    monkeypatch: pytest.MonkeyPatch,
    budget: Budget,
    least: str,
) -> None:
    monkeypatch.setattr("sparrow.attempts.quantized_entry", None)
    assert re.match(f"goal {least}", refusal(model, calls, budget))
    with pytest.raises(GateFailed, match=r"above .*; no bundle was written$"):
        sparrow.build(model, calib=calls, budget=budget)


def test_a_latency_far_out_of_reach_is_refused_by_the_tables(
    model: onnx.ModelProto, calls: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Search, "_real_of", None)
    said = refusal(model, calls, Budget(latency=500, drop=0.5))
    assert said.startswith("goal latency: no mix of precisions keeps 0.0005 ms; the nearest is ")


def joined() -> onnx.ModelProto:
    """Two convolutions over the first one's result, which a third one adds and a fourth reads."""
    rng = np.random.default_rng(2)
    weights = {f"w{i}": rng.standard_normal((8, 8, 3, 3), np.float32) / 9 for i in range(4)}
    read = {"a": "x", "b": "a", "c": "b", "d": "s"}
    nodes = [
        helper.make_node("Conv", [x, f"w{i}"], [y], f"conv_{y}", pads=[1, 1, 1, 1])
        for i, (y, x) in enumerate(read.items())
    ]
    nodes.insert(3, helper.make_node("Add", ["c", "a"], ["s"], "sum"))
    ends = [small_models.value(x, (1, 8, 32, 32)) for x in "xd"]
    return small_models.model(nodes, [ends[0]], [ends[1]], weights)


def test_the_memory_of_a_mix_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values between layers are as wide as their readers say, which no uniform build shows."""
    rng = np.random.default_rng(4)
    calls = [rng.standard_normal((1, 8, 32, 32), np.float32) for _ in range(8)]
    monkeypatch.setattr("sparrow.precision.search.tables_of", lambda drafts, *_: drafts)
    caught: list[Search] = []

    def kept(*args: Any) -> Search:
        caught.append(Search(*args))
        raise GateFailed("enough")

    monkeypatch.setattr("sparrow.attempts.Search", kept)
    with pytest.raises(GateFailed, match="enough"):
        plan_precisions(joined(), "x86_64_v3", calib=calls, budget=Budget(drop=0.5))
    (search,) = caught
    choices = [tuple(x.costs) for x in search.problem.layers]
    assert len(choices) == 4
    for precisions in itertools.product(*choices):
        mix = mix_of(search.problem, precisions)
        plan = search._compiled(search._quantized(mix)).plan
        real = plan.arena_bytes + plan.state_bytes
        assert 0.9 * real <= mix.ram <= 1.4 * real, precisions


def attending() -> tuple[onnx.ModelProto, list[dict[str, NDArray[np.float32]]]]:
    """Queries, keys and values of one product, of two heads; what softmax makes is masked."""
    rng = np.random.default_rng(6)
    constants: dict[str, NDArray[Any]] = {
        "scale": np.ones(16, np.float32),
        "w": rng.standard_normal((16, 48), np.float32) / 4,
        "v": rng.standard_normal((16, 16), np.float32) / 4,
        "heads": np.array([1, 6, 3, 2, 8]),
        "rows": np.array([1, 6, 16]),
        **{f"i{i}": np.array(i) for i in range(3)},
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale"], ["n"], "norm", axis=-1),
        helper.make_node("MatMul", ["n", "w"], ["all"], "qkv"),
        helper.make_node("Reshape", ["all", "heads"], ["parts"]),
        *(helper.make_node("Gather", ["parts", f"i{i}"], [f"p{i}"], axis=2) for i in range(3)),
        helper.make_node("Transpose", ["p0"], ["q"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["p1"], ["k"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["p2"], ["u"], perm=[0, 2, 1, 3]),
        helper.make_node("MatMul", ["q", "k"], ["s"], "scores"),
        helper.make_node("Softmax", ["s"], ["a"]),
        helper.make_node("Mul", ["a", "mask"], ["m"]),
        helper.make_node("MatMul", ["m", "u"], ["o"], "mixed"),
        helper.make_node("Transpose", ["o"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["t", "rows"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"], "out"),
    ]
    given = [small_models.value("x", (1, 6, 16)), small_models.value("mask", (1, 1, 6, 6))]
    made = small_models.model(nodes, given, [small_models.value("y", (1, 6, 16))], constants)
    samples = [
        {
            "x": rng.standard_normal((1, 6, 16), np.float32),
            "mask": rng.integers(0, 2, (1, 1, 6, 6)).astype(np.float32),
        }
        for _ in range(8)
    ]
    return made, samples


def test_products_of_one_layer_have_one_precision() -> None:
    made, samples = attending()
    record, recipe = plan_precisions(made, calib=samples, budget=Budget(size=10_000_000))
    assert [x.name for x in record.layers] == ["qkv", "out"]
    assert all({"float32", "int8", "int16x8"} <= x.ns.keys() for x in record.layers)
    assert dict(recipe.pins).keys() <= {"qkv", "out"}


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_statistics_serve_a_pin_on_what_stays_float(precision: Precision) -> None:
    """Products of two activations in a stream of 16 bits."""
    made, samples = attending()
    g = float_graph(made)
    plain = run(g, samples, Recipe(widen=False))
    assert "scores" not in {x.name for x in plain.layers}
    pinned = Recipe(widen=False, pins=(("scores", precision),))
    q = requantized(plain.source, plain.statistics, pinned)
    assert "scores" in {x.name for x in q.layers}
    assert print_graph(q.graph)[0] == print_graph(run(g, samples, pinned).graph)[0]


def test_a_pin_that_has_no_kernel_is_refused_before_anything_is_compiled(
    model: onnx.ModelProto, calls: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparrow.precision.search.tables_of", None)
    pinned = sparrow.Recipe(pins=(("c1", "bfloat16"),))
    with pytest.raises(BadInput, match="pin c1=bfloat16: no kernel of"):
        plan_precisions(
            model, target="rpi4", calib=calls, recipe=pinned, budget=Budget(size=10_000_000)
        )


def test_what_a_drop_was_judged_by_is_printed(
    model: onnx.ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(model, tmp_path / "m.onnx")
    words = ["build", str(tmp_path / "m.onnx"), "--precision", "float32", "-o"]

    def lines(*more: str) -> list[str]:
        with pytest.raises(SystemExit) as done:
            cli.main([*words, *more])
        assert done.value.code == 0
        return [x for x in capsys.readouterr().out.splitlines() if x.startswith("drop ")]

    (said,) = lines(str(tmp_path / "a"), "--drop", "50%")
    assert said.startswith("drop 0.00%: ") and "no evaluate function" in said
    assert lines(str(tmp_path / "b")) == []


def test_why_everything_stays_float_is_said(
    model: onnx.ModelProto,
    calls: list[NDArray[np.float32]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    onnx.save(model, tmp_path / "m.onnx")
    np.save(tmp_path / "c.npy", np.stack(calls))
    words = ["build", str(tmp_path / "m.onnx"), "--calib", str(tmp_path / "c.npy")]
    with pytest.raises(SystemExit) as done:
        cli.main([*words, "--drop", "50%", "--pin", "Conv=float32", "-o", str(tmp_path / "out")])
    assert done.value.code == 0
    said = capsys.readouterr().err
    assert said == "float32 instead of int8: no mix that the pins leave is faster\n"
