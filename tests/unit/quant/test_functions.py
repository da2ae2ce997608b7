"""Functions of one value: which read floats, and what range their input has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from small_models import model, value
from sparrow.graph import Graph
from sparrow.importers.model import import_model
from sparrow.passes import FRONT, optimize
from sparrow.quant import Recipe, functions, run
from sparrow.quant.affine import round_trip
from sparrow.quant.engine import literally
from sparrow.quant.histogram import Histogram
from sparrow.quant.mse import mse
from sparrow.quant.noise import apart, power
from sparrow.quant.place import place
from sparrow.quant.recipe import precisions
from sparrow.quant.run import requantized
from sparrow.tensor import I8

Feeds = dict[str, NDArray[np.float32]]


def network(function: str = "HardSwish", sizes: tuple[int, ...] = (16, 4)) -> onnx.ModelProto:
    """Convolutions of 8 channels, each followed by a function, on maps of these extents."""
    rng = np.random.default_rng(0)
    nodes, consts, x = [], {}, "x"
    count = 3
    for i, size in enumerate(sizes):
        stride = 1 if i == 0 else sizes[i - 1] // size
        consts[f"w{i}"] = (rng.normal(size=(8, count, 3, 3)) / 2).astype(np.float32)
        nodes.append(
            onnx.helper.make_node(
                *("Conv", [x, f"w{i}"], [f"c{i}"]), pads=[1] * 4, strides=[stride] * 2
            )
        )
        nodes.append(onnx.helper.make_node(function, [f"c{i}"], [f"a{i}"]))
        x, count = f"a{i}", 8
    consts["w"] = rng.normal(size=(8, 8, 1, 1)).astype(np.float32)
    nodes.append(onnx.helper.make_node("Conv", [x, "w"], ["y"]))
    first, last = sizes[0], sizes[-1]
    given, made = value("x", (1, 3, first, first)), value("y", (1, 8, last, last))
    return model(nodes, [given], [made], consts)


def graph(m: onnx.ModelProto) -> Graph:
    return optimize(import_model(m).graph, FRONT)


def samples(count: int, size: int = 16) -> list[Feeds]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(1, 3, size, size)).astype(np.float32)} for _ in range(count)]


def coded(m: onnx.ModelProto, recipe: Recipe | None = None) -> set[str]:
    """The values that became codes."""
    return set(run(graph(m), samples(8), recipe or Recipe(widen=False)).calibration.values)


def test_small_maps_stay_float_between_a_sum_and_its_function() -> None:
    # of 4,480 elements a twentieth are 224: c1 has 128, c0 2,048
    assert {"c0", "a0", "a1"} <= coded(network()) and "c1" not in coded(network())


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(scheme="fixed31"),
        Recipe(scheme="tflite"),
        Recipe(scales="power_of_two"),
        Recipe(complete=True),
    ],
)
def test_integers_alone_keep_their_codes(recipe: Recipe) -> None:
    assert "c1" in coded(network(), recipe)


def test_functions_that_cost_much_keep_their_table() -> None:
    assert "c1" in coded(network("Sigmoid"))


def test_a_sum_that_something_else_reads_keeps_its_codes() -> None:
    m = network()
    m.graph.node.append(onnx.helper.make_node("Conv", ["c1", "w"], ["z"]))
    m.graph.output.append(value("z", (1, 8, 4, 4)))
    assert "c1" in coded(m)
    p = place(graph(m), precisions(graph(m), Recipe()), Recipe())
    assert "c1" not in p.functions and "c0" in p.functions


@pytest.mark.parametrize("pin", ["c1", "a1", "c0", "a0", "Lane", "Conv"])
@pytest.mark.parametrize("to", ["float32", "int16x8"])
def test_statistics_serve_every_pin(pin: str, to: str) -> None:
    g = graph(network())
    done = run(g, samples(8), Recipe(widen=False))
    pins = ((pin, to), ("y", "int8"))
    requantized(g, done.statistics, replace(done.recipe, pins=pins))  # type: ignore[arg-type]


def test_outputs_are_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    g = graph(network(sizes=(16, 8, 4)))
    judges = samples(24)[16:]
    run_float = literally(g, ("y",))

    def noise() -> float:
        q = run(g, samples(16), Recipe(widen=False)).graph
        run_q = literally(q, q.outputs)
        return sum(power(apart(run_q(f)[q.outputs[0]], run_float(f)["y"])) for f in judges)

    monkeypatch.setattr(functions, "ELEMENTS", 0.0)
    none = noise()
    monkeypatch.setattr(functions, "ELEMENTS", 1.0)
    assert noise() < none


def hardswish(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * np.clip(x / 6 + 0.5, 0, 1)


def test_codes_are_spent_where_the_function_tells_values_apart() -> None:
    x = np.random.default_rng(0).normal(-4, 6, 40000)
    h = Histogram()
    h.add(x.astype(np.float32))
    plain, own = mse(h, I8, False), mse(h, I8, False, lambda v: hardswish(v)[None])
    assert plain[0] < -10 and -4 < own[0] < -2.5

    def error(limits: tuple[float, float]) -> float:
        return float(np.square(hardswish(round_trip(x, limits, I8)) - hardswish(x)).mean())

    assert error(own) < 0.7 * error(plain)


def test_a_function_that_is_undefined_somewhere_changes_no_range() -> None:
    h = Histogram()
    h.add(np.random.default_rng(0).normal(size=1000).astype(np.float32))

    def root(v: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            return np.sqrt(v)[None]

    assert mse(h, I8, False, root) == mse(h, I8, False)


def test_larger_maps_are_read_as_floats_where_asked_or_where_their_codes_make_the_error() -> None:
    assert "c0" not in coded(network(), Recipe(widen=False, wide=("c0",)))
    g = graph(network(sizes=(32, 16, 16)))  # c1 is 0.07 of all elements
    found = run(g, samples(16, 32), Recipe(fidelity=60.0))
    assert "c1" in found.recipe.wide and "c1" not in found.calibration.values
    notes = found.calibration.health.of_codes
    assert any("is no code: a cheap function reads it" in note for note in notes)
    enough = run(g, samples(16, 32), Recipe(fidelity=1.0))
    assert enough.recipe.wide == () and "c1" in enough.calibration.values


def spectrum() -> onnx.ModelProto:
    """Logarithms of the power of filtered signals, filtered again."""
    rng = np.random.default_rng(0)
    consts = {
        "w": rng.normal(size=(8, 1, 5)).astype(np.float32),
        "least": np.array(1e-12, np.float32),
        "v": rng.normal(size=(4, 8, 3)).astype(np.float32),
    }
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["s"]),
        onnx.helper.make_node("Mul", ["s", "s"], ["p"]),
        onnx.helper.make_node("Add", ["p", "least"], ["q"]),
        onnx.helper.make_node("Log", ["q"], ["l"]),
        onnx.helper.make_node("Conv", ["l", "v"], ["y"]),
    ]
    return model(nodes, [value("x", (1, 1, 64))], [value("y", (1, 4, 58))], consts)


def loud_and_quiet(count: int) -> list[Feeds]:
    rng = np.random.default_rng(2)
    scales = 10.0 ** rng.uniform(-5, 0, count)
    return [{"x": (k * rng.normal(size=(1, 1, 64))).astype(np.float32)} for k in scales]


def test_what_16_bits_spoil_is_no_code() -> None:
    g = graph(spectrum())
    done = run(g, loud_and_quiet(24), Recipe())
    assert done.recipe.exact
    assert any("rounding it to 16 bits alone" in n for n in done.calibration.health.of_codes)
    run_float, judges = literally(g, ("y",)), loud_and_quiet(40)[24:]

    def noise(recipe: Recipe) -> float:
        q = requantized(g, done.statistics, recipe).graph
        run_q = literally(q, q.outputs)
        error = sum(power(apart(run_q(f)[q.outputs[0]], run_float(f)["y"])) for f in judges)
        return error / sum(power(run_float(f)["y"]) for f in judges)

    assert noise(done.recipe) < 0.01
    assert noise(replace(done.recipe, exact=())) > 0.1
    pinned = run(g, loud_and_quiet(24), Recipe(pins=(("*", "int8"),)))
    assert pinned.recipe.exact == ()
