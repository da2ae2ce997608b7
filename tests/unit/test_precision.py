"""A precision for every layer: the program against all mixes, and builds that keep their goals."""

from __future__ import annotations

import ctypes
import itertools
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

import small_models
import sparrow
from data import REPO
from sparrow import cli
from sparrow.api import plan_precisions
from sparrow.assemble import write_bundle
from sparrow.device.elf import code_bytes
from sparrow.device.here import resolve_target
from sparrow.errors import BadInput, GateFailed
from sparrow.evidence.held_out import Lossy
from sparrow.evidence.receipt import SearchRecord
from sparrow.precision.choice import (
    WIDTH,
    Cost,
    Layer,
    Mix,
    Moment,
    Problem,
    Quantity,
    Value,
    binding,
    front,
    mix_of,
    nearest,
    solve,
)
from sparrow.precision.unheard import unheard
from sparrow.quant.recipe import Pins, Precision, from_json, to_json
from sparrow.request import Budget

pytestmark = pytest.mark.usefixtures("won_races")

MODEL = REPO / "examples" / "digits" / "digits.onnx"
QUANTITIES: tuple[Quantity, ...] = ("noise", "latency", "size", "ram")


def problem(seed: int, layers: int = 5) -> Problem:
    """Random tables; some layers are pinned."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(layers):
        costs = {
            p: Cost(rng.uniform(1, 9), rng.uniform(1, 9) * w, 0.0 if w == 4 else rng.uniform() / w)
            for p, w in WIDTH.items()
        }
        if rng.uniform() < 0.2:
            costs = {"float32": costs["float32"]}
        made.append(Layer(f"l{i}", "Conv", costs))
    values = []
    for source in range(-1, layers - 1):
        readers = [i for i in range(source + 1, layers) if rng.uniform() < 0.4] or [layers - 1]
        values.append(Value(source, tuple(readers), rng.uniform(0, 4)))
    moments = tuple(
        Moment(
            at,
            q,
            {v: rng.uniform(0, 9) for v in range(len(values)) if rng.uniform() < 0.6},
            rng.uniform(-2, 30),
        )
        for at in range(-1, layers)
        for q in WIDTH
        if at >= 0 or q == "float32"
    )
    return Problem(tuple(made), tuple(values), 2.0, 3.0, moments)


def mixes(p: Problem) -> list[Mix]:
    return [mix_of(p, q) for q in itertools.product(*(x.costs for x in p.layers))]


@pytest.mark.parametrize("seed", range(12))
def test_the_program_finds_what_trying_all_mixes_finds(seed: int) -> None:
    p = problem(seed)
    every = mixes(p)
    for least in QUANTITIES:
        for bounded in QUANTITIES:
            if bounded == least:
                continue
            most = float(np.quantile([m.value(bounded) for m in every], 0.3))
            kept = [m for m in every if m.value(bounded) <= most]
            found = solve(p, least, {bounded: most})
            assert found is not None
            assert found.value(bounded) <= most * (1 + 1e-6)
            best = min(m.value(least) for m in kept)
            assert found.value(least) == pytest.approx(best, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    ("precisions", "conversions", "width"),
    [
        ("float32 float32 float32", 0, 4),
        ("float32 int8 int8", 1, 1),  # once for both readers
        ("float32 int16x8 int8", 1, 2),
        ("float32 float32 int8", 1, 5),  # kept in both forms
        ("int8 float32 float32", 0, 4),  # floats at once
        ("int8 int8 int8", 0, 1),
        ("int8 float32 int8", 1, 5),
        ("int16x8 int8 int8", 0, 2),  # all readers have 16 bits
        ("int8 int16x8 int8", 0, 2),
        ("int16x8 float32 float32", 0, 4),
    ],
)
def test_a_value_is_as_wide_as_its_readers_say(
    precisions: str, conversions: int, width: int
) -> None:
    """One layer, and two that read what it makes."""
    names: tuple[Precision, ...] = ("float32", "int16x8", "int8")
    layers = tuple(Layer(f"l{i}", "Conv", {q: Cost(0, 0, 0) for q in names}) for i in range(3))
    held = tuple(Moment(2, q, {0: 10.0}, 3.0) for q in names)
    p = Problem(layers, (Value(0, (1, 2), 7.0),), 0.0, 0.0, held)
    mix = mix_of(p, [q for text in precisions.split() for q in names if q == text])
    assert (mix.latency, mix.ram) == (7.0 * conversions, 3.0 + 10.0 * width)
    # the program says so, too
    pins = dict(zip(("l0", "l1", "l2"), mix.precisions, strict=True))
    assert solve(p.pinned(pins), "ram", {"latency": mix.latency, "ram": mix.ram}) == mix
    assert solve(p.pinned(pins), "ram", {"ram": mix.ram - 0.5}) is None


def test_limits_that_no_mix_keeps_name_what_is_nearest() -> None:
    p = problem(3)
    every = mixes(p)
    fast = min(m.latency for m in every)
    assert solve(p, "noise", {"latency": fast * 0.9}) is None
    assert nearest(p, {"latency": fast * 0.9})["latency"] == pytest.approx(fast)
    small = min(m.size for m in every)
    both = nearest(p, {"latency": fast * 0.9, "size": small * 1.2})
    assert both["latency"] == pytest.approx(
        min(m.latency for m in every if m.size <= small * 1.2), rel=1e-5
    )


def test_a_limit_binds_where_lifting_it_helps() -> None:
    p = problem(6)
    every = mixes(p)
    tight = 1.01 * min(m.latency for m in every)
    loose = 2 * max(m.size for m in every)
    limits: dict[Quantity, float] = {"latency": tight, "size": loose}
    done = solve(p, "noise", limits)
    assert done is not None
    assert set(binding(p, "noise", limits, done)) == {"latency"}
    # a better mix that keeps them all was refused for another reason, and no limit binds
    slower = max(every, key=lambda m: m.noise)
    assert slower.noise > 1.01 * done.noise
    loose_ones: dict[Quantity, float] = {
        "latency": 2 * max(m.latency for m in every),
        "size": loose,
    }
    assert not binding(p, "noise", loose_ones, slower)


def test_a_front_only_ever_gains_accuracy_by_time() -> None:
    found = front(problem(5, 6), "latency", {})
    assert len(found) > 3
    for a, b in itertools.pairwise(found):
        assert a.noise > b.noise and a.latency <= b.latency * (1 + 1e-6)


@pytest.fixture(scope="module")
def samples() -> list[NDArray[np.float32]]:
    """Digits as the classifier takes them."""
    from sklearn.datasets import load_digits

    shape = onnx.load(MODEL).graph.input[0].type.tensor_type.shape.dim
    extents = [d.dim_value or 1 for d in shape]
    return [im.reshape(extents).astype(np.float32) / 16 for im in load_digits().images[:100]]


@pytest.fixture(scope="module")
def mixed(
    samples: list[NDArray[np.float32]], tmp_path_factory: pytest.TempPathFactory
) -> sparrow.Bundle:
    """The digit classifier within a size between those of float32 and int8, one block pinned."""
    out = tmp_path_factory.mktemp("mixed") / "out"
    recipe = sparrow.Recipe(pins=(("*blocks.1*", "float32"),))
    return sparrow.build(MODEL, out=out, calib=samples, budget=Budget(size=60_000), recipe=recipe)


def search_of(bundle: sparrow.Bundle) -> SearchRecord:
    found = bundle.receipt.search
    assert found is not None
    return found


def test_a_goal_is_kept_as_built_and_what_binds_is_said(mixed: sparrow.Bundle) -> None:
    s, memory = search_of(mixed), mixed.receipt.memory
    assert memory.code_bytes + memory.weights_bytes <= 60_000
    assert memory.code_bytes == code_bytes(mixed.library_path)
    assert s.least == "noise" and s.binds.startswith("size: without it")
    got = {x.name: x.precision for x in s.layers}
    assert len(set(got.values())) > 1
    assert all(x.precision == "float32" for x in s.layers if "blocks.1" in x.name)
    assert mixed.receipt.quantization is not None
    for name, precision in mixed.receipt.quantization[0].layers.items():
        assert got[name] == precision


def test_integer_layers_of_a_mix_are_exact(mixed: sparrow.Bundle) -> None:
    exact = [c for c in mixed.receipt.layers if c.bound == 0.0]
    assert exact and all(c.own == 0.0 for c in exact)
    assert mixed.verify().ok


def test_a_pin_has_a_price(mixed: sparrow.Bundle) -> None:
    (price,) = search_of(mixed).pins
    assert price.pin == "*blocks.1*=float32" and price.layers == 2
    # what a pin keeps from being chosen can only have been better
    assert price.db <= 1e-6


def test_the_report_draws_the_front(mixed: sparrow.Bundle) -> None:
    page = (mixed.folder / "report.html").read_text(encoding="utf-8")
    s = search_of(mixed)
    assert page.count("<circle") >= 2 * len(s.mixes)
    assert "Precision of every layer" in page and "Binds: size" in page
    assert len(re.findall("<polyline", page)) == 2


def test_the_recipe_of_a_mix_gives_its_bytes_again(
    mixed: sparrow.Bundle, samples: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    path = mixed.folder / "recipe.json"
    recipe = from_json(path.read_bytes(), str(path))
    again = sparrow.build(
        MODEL,
        out=tmp_path / "out",
        calib=samples,
        precision="int8",
        recipe=recipe,
        # which may ask for compact code
        budget=Budget(size=60_000),
    )
    assert again.receipt.files == mixed.receipt.files


def test_the_same_inputs_give_the_same_mix(
    mixed: sparrow.Bundle, samples: list[NDArray[np.float32]]
) -> None:
    recipe = sparrow.Recipe(pins=(("*blocks.1*", "float32"),))
    record, found = plan_precisions(MODEL, calib=samples, budget=Budget(size=60_000), recipe=recipe)
    assert record == search_of(mixed)
    assert to_json(found) == (mixed.folder / "recipe.json").read_bytes()


def test_bfloat16_is_chosen_where_a_target_multiplies_it(
    samples: list[NDArray[np.float32]],
) -> None:
    found = {}
    for name in ("x86_64_v3", "x86_64_v4_bf16"):
        record, _ = plan_precisions(MODEL, name, calib=samples, budget=Budget(size=70_000))
        found[name] = record
    assert not any("bfloat16" in x.ns for x in found["x86_64_v3"].layers)
    layers = found["x86_64_v4_bf16"].layers
    assert any(x.precision == "bfloat16" for x in layers)
    for x in layers:
        if "bfloat16" in x.ns:
            assert x.db["int8"] < x.db["bfloat16"] < x.db["float32"]
        if "pointwise" in x.name:
            # half of each weight, and half as many instructions
            assert x.bytes["bfloat16"] < x.bytes["float32"]


def test_layers_pinned_to_bfloat16_are_proved_and_built_again(
    samples: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    recipe = sparrow.Recipe(pins=(("*blocks.[34]*", "bfloat16"),))
    bundle = sparrow.build(
        MODEL, out=tmp_path / "out", calib=samples, precision="int8", recipe=recipe
    )
    assert bundle.verify().ok
    kernels = {s.kernel for e in bundle.plan.entries for s in e.steps}
    assert {"conv2d_i8", "conv2d_twos_i8"} & kernels
    half = {"conv2d_bf16", "conv2d_bf16_matrix"} & kernels
    assert bool(half) == resolve_target("host").isa.multiplies_bfloat16
    # the file says what is rounded, whatever multiplies it
    twin = onnx.load(bundle.folder / "model.onnx")
    kinds = [a.i for n in twin.graph.node if n.op_type == "Cast" for a in n.attribute]
    assert onnx.TensorProto.BFLOAT16 in kinds
    path = bundle.folder / "recipe.json"
    read = from_json(path.read_bytes(), str(path))
    again = sparrow.build(MODEL, out=tmp_path / "b", calib=samples, precision="int8", recipe=read)
    assert again.receipt.files == bundle.receipt.files


def nearest_size(samples: list[NDArray[np.float32]], code: str = "auto") -> int:
    """Bytes of the least mix of precisions."""
    with pytest.raises(GateFailed, match="goal size") as refused:
        plan_precisions(MODEL, calib=samples, budget=Budget(size=20_000), code=code)
    found = re.search(r"the nearest is ([\d.]+) kB", refused.value.message)
    assert found is not None
    return round(float(found[1]) * 1000)


def test_a_small_size_takes_smaller_code(
    samples: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    small, large = (nearest_size(samples, code) for code in ("compact", "fast"))
    assert small < large
    size = (small + large) // 2
    bundle = sparrow.build(MODEL, out=tmp_path / "out", calib=samples, budget=Budget(size=size))
    memory = bundle.receipt.memory
    assert memory.code_bytes + memory.weights_bytes <= size
    kernels = {s.kernel for e in bundle.plan.entries for s in e.steps}
    assert "conv2d_compact_i8" in kernels and "conv2d_i8" not in kernels
    with pytest.raises(GateFailed, match="goal size"):
        plan_precisions(MODEL, calib=samples, budget=Budget(size=size), code="fast")
    with pytest.raises(BadInput, match="code 'tiny'"):
        plan_precisions(MODEL, calib=samples, budget=Budget(size=size), code="tiny")


def test_the_nearest_size_is_what_is_built(
    samples: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    least = nearest_size(samples)
    bundle = sparrow.build(MODEL, out=tmp_path / "out", calib=samples, budget=Budget(size=least))
    memory = bundle.receipt.memory
    assert least - 16 <= memory.code_bytes + memory.weights_bytes <= least


def test_the_fastest_mix_within_a_drop(samples: list[NDArray[np.float32]]) -> None:
    record, _ = plan_precisions(MODEL, calib=samples, budget=Budget(drop=0.05))
    assert record.least == "latency" and record.predicted.drop is not None
    assert record.predicted.drop <= 0.05
    fastest = min(m.ns for m in record.mixes if m.drop is not None and m.drop <= 0.05)
    assert record.predicted.ns == pytest.approx(fastest)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(size=20_000), r"goal size: no mix .* keeps 20 kB; the nearest is [\d.]+ kB"),
        (Budget(ram=1_000), r"goal ram: no mix .* keeps 1 kB; the nearest is [\d.]+ kB"),
        (Budget(latency=100), r"goal latency: no mix .* keeps 0\.0001 ms; the nearest is"),
    ],
    ids=("size", "ram", "latency"),
)
def test_goals_out_of_reach(
    budget: Budget, message: str, samples: list[NDArray[np.float32]]
) -> None:
    with pytest.raises(GateFailed, match=message):
        plan_precisions(MODEL, calib=samples, budget=budget)


def test_what_a_bundle_refuses_is_said_and_no_goal_is_blamed(
    samples: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[SearchRecord] = []

    def refuse_the_first(*args: Any) -> sparrow.Bundle:
        if not refused:
            refused.append(args[6])
            raise GateFailed("budget drop: found 3% where nobody looked", gate="drop")
        return write_bundle(*args)

    monkeypatch.setattr("sparrow.attempts.write_bundle", refuse_the_first)
    budget = Budget(drop=0.5, latency=1e9, size=10_000_000, ram=10_000_000)
    s = search_of(sparrow.build(MODEL, calib=samples, budget=budget))
    first = refused[0].predicted
    assert first.ns < s.predicted.ns
    assert s.binds == f"drop: {first.ns / 1e6:,.4g} ms failed it as built"


def test_no_time_of_a_build_is_in_its_receipt(samples: list[NDArray[np.float32]]) -> None:
    s = search_of(sparrow.build(MODEL, calib=samples, budget=Budget(drop=0.5, latency=1e9)))
    assert s.goals["latency"] == 1e9 and set(s.built) == {"ram", "size"}


def test_a_drop_out_of_reach(samples: list[NDArray[np.float32]]) -> None:
    def worse(predict: object) -> float:
        # 1 for the float model, which is asked first and once, then 0
        worse.calls += 1  # type: ignore[attr-defined]
        return float(worse.calls == 1)  # type: ignore[attr-defined]

    worse.calls = 0  # type: ignore[attr-defined]
    # float32 loses nothing, but is too large
    budget = Budget(drop=0.5, size=60_000)
    with pytest.raises(GateFailed, match=r"goal drop: .* loses at most 50\.00% within the other"):
        plan_precisions(MODEL, calib=samples, evaluate=worse, budget=budget, code="compact")


def test_a_search_widens_no_value_of_a_pinned_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found(Exception):
        pass

    def stop(plain: object, lossy: Lossy, *_: object) -> None:
        raise Found(lossy.quantized.recipe.wide)

    monkeypatch.setattr("sparrow.attempts.Search", stop)
    rng = np.random.default_rng(5)
    sizes = np.ones(8, np.float32)
    sizes[0] = 500.0  # one channel beside which 8 bits leave nothing of the others
    m = small_models.model(
        [
            helper.make_node("MatMul", ["x", "first"], ["wide"], "a"),
            helper.make_node("MatMul", ["wide", "second"], ["y"], "b"),
        ],
        [small_models.value("x", (16, 8))],
        [small_models.value("y", (16, 4))],
        {
            "first": np.diag(sizes),
            "second": rng.standard_normal((8, 4)).astype(np.float32) / sizes[:, None] ** 2,
        },
    )
    calls = [rng.standard_normal((16, 8), np.float32) for _ in range(10)]

    def widened(pins: Pins) -> tuple[str, ...]:
        recipe = sparrow.Recipe(pins=pins)
        with pytest.raises(Found) as e:
            plan_precisions(m, calib=calls, budget=Budget(drop=0.5), recipe=recipe)
        (found,) = e.value.args
        return tuple(found)

    assert "wide" in widened(())
    assert widened((("a", "int8"),)) == ()


def test_pins_that_fit_nothing(samples: list[NDArray[np.float32]]) -> None:
    recipe = sparrow.Recipe(pins=(("heads*", "float32"),))
    with pytest.raises(BadInput, match=r"pin 'heads\*' fits no layer"):
        plan_precisions(MODEL, calib=samples, budget=Budget(drop=0.1), recipe=recipe)


def test_the_command(
    samples: list[NDArray[np.float32]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "calib.npy", np.concatenate(samples))
    out = tmp_path / "recipe.json"
    words = ["plan", str(MODEL), "--calib", str(tmp_path / "calib.npy"), "-o", str(out)]
    with pytest.raises(SystemExit) as done:
        cli.main([*words, "--size", "60kB", "--pin", "*blocks.1*=float32"])
    text = capsys.readouterr().out
    assert done.value.code == 0
    assert "binds: size" in text and "pin *blocks.1*=float32: 2 layers" in text
    assert from_json(out.read_bytes(), "r").pins[-1] == ("*blocks.1*", "float32")
    for words_of_goal, code in ((["--size", "20kB"], 1), (["--pin", "x*=float32"], 2)):
        with pytest.raises(SystemExit) as done:
            cli.main([*words, *words_of_goal])
        assert done.value.code == code
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is no JSON"),
        ("{", "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ("[]", "it holds list, expected an object; write {"),
        ("{}", "schema is None, expected 1"),
        ('{"schema": 9}', "schema is 9, expected 1"),
        ('{"schema": 1, "rangs": 1}', "has no 'rangs'; it has ranges"),
        ('{"schema": 1, "ranges": "foo"}', "ranges is 'foo'; use one of minmax"),
        ('{"schema": 1, "ranges": ["mse"]}', "ranges is .*; use one of minmax"),
        ('{"schema": 1, "pins": 3}', r"pins are a list of \[pattern, precision\]"),
        ('{"schema": 1, "pins": [["a"]]}', r"pins are a list of \[pattern, precision\]"),
        ('{"schema": 1, "pins": ["ab"]}', r"pins are a list of \[pattern, precision\]"),
        ('{"schema": 1, "pins": {"a": "int8"}}', r"pins are a list of \[pattern, precision\]"),
        ('{"schema": 1, "pins": [["a", "int4"]]}', "pin 'a' is 'int4'; use one of float32"),
        ('{"schema": 1, "wide": [1]}', "wide is a list of names"),
        ('{"schema": 1, "wide": "abc"}', "wide is a list of names"),
        ('{"schema": 1, "fidelity": NaN}', "fidelity is nan, expected decibels"),
    ],
)
def test_files_that_are_no_recipe(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=rf"^r\.json.*{says}"):
        from_json(text.encode(), "r.json")


def test_what_a_solver_prints_past_python_is_not_heard(capfd: pytest.CaptureFixture[str]) -> None:
    c = ctypes.CDLL(None)
    c.puts(b"before")
    c.fflush(None)
    with unheard():
        c.puts(b"debugging")
    print("after")
    assert capfd.readouterr().out == "before\nafter\n"


def test_memory_counts_the_scratch_of_what_is_chosen(tmp_path: Path) -> None:
    # Winograd's scratch in float32 is several times what codes take in compact code, which has none
    rng = np.random.default_rng(7)
    weights = {f"w{i}": rng.standard_normal((32, 32, 3, 3), np.float32) / 17 for i in range(3)}
    nodes = [
        helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], f"c{i}", pads=[1, 1, 1, 1])
        for i in range(3)
    ]
    shape = (1, 32, 16, 16)
    ends = [small_models.value("x0", shape)], [small_models.value("x3", shape)]
    m = small_models.model(nodes, *ends, weights)
    calls = [rng.standard_normal(shape, np.float32) for _ in range(8)]

    def memory(precision: Literal["float32", "int8"]) -> int:
        built = sparrow.build(
            m, out=tmp_path / precision, calib=calls, precision=precision, code="compact"
        )
        return built.receipt.memory.arena_bytes

    least = memory("int8")
    assert memory("float32") > 2 * least
    record, _ = plan_precisions(m, calib=calls, budget=Budget(ram=least), code="compact")
    assert {x.precision for x in record.layers} != {"float32"}
    assert record.built["ram"] <= least
