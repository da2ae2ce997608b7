"""The gate that compares a quantized bundle with its QDQ twin, layer by layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import sparrow
from small_models import classifier, model, value
from sparrow.builder import Builder
from sparrow.evidence import twin
from sparrow.evidence.gate import Gate
from sparrow.evidence.plan_record import PlanRecord
from sparrow.evidence.record import load
from sparrow.folder import load_evidence
from sparrow.graph import Graph
from sparrow.ops.attention import Attention
from sparrow.ops.gather import Gather
from sparrow.ops.matmul import MatMul
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.reduce import Reduce
from sparrow.ops.topk import TopK
from sparrow.passes.integer import integer
from sparrow.tensor import I8, I16, Affine, Array, DType, TensorType


def built(m: onnx.ModelProto, out: Path, recipe: sparrow.Recipe | None = None) -> sparrow.Bundle:
    (x,) = m.graph.input
    shape = [d.dim_value for d in x.type.tensor_type.shape.dim]
    rng = np.random.default_rng(4)
    calls = [{x.name: rng.standard_normal(shape).astype(np.float32)} for _ in range(8)]
    budget = sparrow.Budget(drop=1.0)
    with pytest.MonkeyPatch.context() as patch:
        # how fast so small a network is says nothing
        won = Gate("not slower than float32", "", "", True)
        patch.setattr("sparrow.assemble.race", lambda *_: (won, {}))
        return sparrow.build(
            m, out=out, calib=calls, precision="int8", budget=budget, recipe=recipe
        )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> sparrow.Bundle:
    return built(classifier(), tmp_path_factory.mktemp("twin") / "out")


def gate_of(folder: Path) -> Gate:
    plan = load(PlanRecord, folder / "plan.json")
    graphs, golden = load_evidence(folder, plan)
    (found,) = twin.twin_gates([onnx.load(folder / "model.onnx")], graphs, golden)
    return found


def test_every_layer_is_within_a_step_and_the_receipt_says_so(bundle: sparrow.Bundle) -> None:
    assert twin.NAME in [g.name for g in bundle.receipt.gates if g.ok]
    assert twin.NAME in [g.name for g in bundle.verify().gates if g.ok]


def test_an_integer_layer_that_computes_something_else_fails_it(
    bundle: sparrow.Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(g: Graph) -> Graph:
        w = integer(g)
        name = next(k for k, a in w.consts.items() if a.dtype == np.int8 and a.ndim == 4)
        return replace(w, consts={**w.consts, name: np.roll(w.consts[name], 1)})

    assert gate_of(bundle.folder).ok
    monkeypatch.setattr(twin, "integer", wrong)
    found = gate_of(bundle.folder)
    assert not found.ok and "steps" in found.found


@pytest.mark.parametrize(("count", "ok"), [(1, True), (5, False)])
def test_one_code_of_a_layer_may_be_a_step_apart(
    bundle: sparrow.Bundle, monkeypatch: pytest.MonkeyPatch, count: int, ok: bool
) -> None:
    run = twin._run
    calls: list[dict[str, Array]] = []

    def nudged(g: Graph, feeds: dict[str, Array]) -> dict[str, Array] | str:
        found = run(g, feeds)
        assert not isinstance(found, str)
        for a in found.values() if not calls else ():
            if a.dtype.kind == "f":
                continue
            some = a.reshape(-1)[:count]
            some += np.where(some < 127, 1, -1).astype(a.dtype)
        calls.append(feeds)
        return found

    monkeypatch.setattr(twin, "_run", nudged)
    assert gate_of(bundle.folder).ok is ok
    assert len(calls) > 1


def halves() -> onnx.ModelProto:
    """Means of pairs under the scale of what they are means of, as a filter bank makes them."""
    rng = np.random.default_rng(7)
    constants: dict[str, Array] = {
        "pairs": np.repeat(np.eye(64, dtype=np.float32), 2, 0) / 2,
        "w": rng.standard_normal((192, 4), np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "pairs"], ["low"]),
        helper.make_node("Concat", ["x", "low"], ["both"], axis=1),
        helper.make_node("MatMul", ["both", "w"], ["y"]),
    ]
    return model(nodes, [value("x", (32, 128))], [value("y", (32, 4))], constants)


def test_sums_that_lie_on_ties_may_round_either_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = built(halves(), tmp_path / "out").folder
    assert gate_of(folder).ok
    # half of the means are ties, of which float32 rounds some otherwise
    monkeypatch.setattr(twin, "TIE", -1.0)
    assert not gate_of(folder).ok


def resized(size: int, coordinates: str) -> onnx.ModelProto:
    """A convolution, bilinear resizing, a convolution."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.standard_normal((8, 3, 3, 3), np.float32) / 5,
        "v": rng.standard_normal((4, 8, 1, 1), np.float32) / 3,
        "sizes": np.array([1, 8, size, size]),
    }
    mode = {"mode": "linear", "coordinate_transformation_mode": coordinates}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["a", "", "", "sizes"], ["b"], **mode),
        helper.make_node("Conv", ["b", "v"], ["y"]),
    ]
    inputs, outputs = [value("x", (1, 3, 24, 24))], [value("y", (1, 4, size, size))]
    return model(nodes, inputs, outputs, constants)


@pytest.mark.parametrize(
    ("size", "coordinates"), [(48, "half_pixel"), (48, "align_corners"), (72, "half_pixel")]
)
def test_halves_of_resized_codes_are_ties(tmp_path: Path, size: int, coordinates: str) -> None:
    assert gate_of(built(resized(size, coordinates), tmp_path / "out").folder).ok


def test_errors_of_resized_weights_are_of_ties_alone() -> None:
    quant = Affine(np.full((1,), 0.5, np.float32), np.zeros((1,), np.int32), (-1,))
    x = np.array([0.25, 0.2499, 0.3, -0.75, 0.0], np.float32)
    found = twin._Rounded(Quantize(quant, I8), x, np.array([0, 0, 1, -2, 0], np.int8))
    other = np.array([1, 1, 0, -1, 1], np.int8)
    assert found.steps_from(other, 0.0).tolist() == [0, 0, 1, 0, 1]
    assert found.steps_from(other, 0.11).tolist() == [0, 0, 0, 0, 1]


def neighbours() -> tuple[Graph, dict[str, Array]]:
    """Codes of the four nearest points of each, on a grid on which many are as near."""
    rng, b = np.random.default_rng(3), Builder("neighbours")
    grid = Affine(np.full((1,) * 3, 0.1, np.float32), np.zeros((1,) * 3, np.int32), (-1,) * 3)
    x = b.add(Dequantize(grid), b.input("x", TensorType((1, 96, 16), I8)))
    products = b.add(MatMul(trans_b=True), x, x)
    squares = b.add(Reduce("sum", (2,)), b.call("mul", x, x))
    near = b.call("sub", b.call("add", products, products), squares)
    near = b.call("sub", near, b.transpose(squares, (0, 2, 1)))
    _, at = b.add_n(TopK(2, 4), near)
    theirs = b.add(Gather(0), b.reshape(x, (96, 16)), b.reshape(at, (384,)))
    mixed = b.add(MatMul(), theirs, b.const(rng.standard_normal((16, 8)).astype(np.float32)))
    two = Affine(np.full((1,) * 2, 0.1, np.float32), np.zeros((1,) * 2, np.int32), (-1,) * 2)
    y = b.add(Quantize(two, I8), mixed)
    feeds: dict[str, Array] = {"x": rng.integers(-2, 3, (1, 96, 16)).astype(np.int8)}
    return b.finish({"y": y}, {}), feeds


def test_choices_among_floats_as_large_may_be_others(monkeypatch: pytest.MonkeyPatch) -> None:
    g, feeds = neighbours()
    done = twin._integers(g, feeds)
    (y,) = done.codes

    def compared() -> tuple[Array, list[Array]]:
        found = twin._each(g, feeds, done)
        assert not isinstance(found, str)
        return found[0][y].steps_from(done.codes[y], 0.0), list(found[1].values())

    off, (exchanged,) = compared()
    assert not off.any() and not exchanged.any()
    # others were chosen, of which other codes follow
    monkeypatch.setattr(twin, "AS_LARGE", 1e-12)
    assert 0 < np.count_nonzero(compared()[1][0]) < exchanged.size / 4
    done = replace(done, chosen={})
    assert np.count_nonzero(compared()[0] > 1) > off.size * twin.SHARE


def test_a_choice_of_what_is_smaller_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    g, feeds = neighbours()
    evaluated = TopK.eval
    monkeypatch.setattr(TopK, "eval", lambda op, x: evaluated(op, -x))
    found = twin._each(g, feeds, twin._integers(g, feeds))
    assert not isinstance(found, str)
    (exchanged,) = found[1].values()
    assert exchanged.max() > 1


def test_exchanged_choices() -> None:
    x = np.array([[1.0, 1.00001, -2.0, np.inf, np.inf, np.nan, -np.inf]], np.float32)
    one, other = np.array([[0, 0, 3, 3, 5, 6, 2]]), np.array([[1, 2, 4, 0, 5, 0, 2]])
    assert twin.exchanged(x, 1, one, other).tolist() == [[0, 127, 0, 127, 0, 127, 0]]


def test_functions_that_litert_rounds_twice_are_within_a_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    constants: dict[str, Array] = {
        "v": rng.standard_normal((8, 3, 3, 3), np.float32),
        "w": rng.standard_normal((8, 8, 3, 3), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"], pads=[1] * 4),
        helper.make_node("HardSwish", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["y"], pads=[1] * 4),
    ]
    x, y = value("x", (1, 3, 16, 16)), value("y", (1, 8, 16, 16))
    recipe = sparrow.Recipe(scheme="tflite")
    found = gate_of(built(model(nodes, [x], [y], constants), tmp_path / "out", recipe).folder)
    assert found.ok and "all of LiteRT's means and own functions" in found.expected
    assert not found.found.startswith("0 of")


@pytest.mark.parametrize("dtype", [I8, I16], ids=str)
def test_scores_of_16_bits_are_shortened(dtype: DType) -> None:
    """Of tens: further from float32 than sums of 16 bits are, and still near."""
    rng, b = np.random.default_rng(3), Builder("heads")
    most = dtype.limits[1]
    grid, to = (
        Affine(np.full((1,) * 4, 4 / n, np.float32), np.zeros((1,) * 4, np.int32), (-1,) * 4)
        for n in (most, I16.limits[1])
    )
    shape, feeds = (1, 2, 33, 8), {}
    for x in "qkv":
        feeds[x] = rng.integers(-most, most + 1, shape).astype(dtype.numpy)
    real = [b.add(Dequantize(grid), b.input(x, TensorType(shape, dtype))) for x in "qkv"]
    y = b.add(Quantize(to, I16), b.add(Attention(1.0), *real))
    g = b.finish({y: y}, {})
    done = twin._integers(g, feeds)
    assert done.shortened == frozenset({y} if dtype == I16 else ())
    assert done.fixed_point == frozenset({y})
    again = twin._each(g, feeds, done)
    assert not isinstance(again, str)
    off = again[0][y].steps_from(done.codes[y], 0.0)
    limit = (twin.SHORTENED_STEPS if dtype == I16 else twin.STEPS)[16]
    assert np.mean(off > limit - 1) < twin.FIXED_POINT_SHARE and off.max() <= limit
    assert dtype == I8 or off.max() > twin.STEPS[16]
