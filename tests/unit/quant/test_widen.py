"""Which values may take 16 bits: by the samples that need it, and as far as memory goes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import NodeProto, helper

import small_models
from sparrow.graph import Graph
from sparrow.importers.model import import_model
from sparrow.passes import FRONT, optimize
from sparrow.quant import Recipe, run
from sparrow.reference import evaluate
from sparrow.tensor import Array

DEPTH, WIDTH, ROWS = 24, 16, 8
# One channel sixteen times the others: most of the error, and no hundredth of the power.
PEAK = 16.0


def products(inputs: int, classes: int) -> tuple[list[NodeProto], dict[str, Array]]:
    """Equal products with Relu behind each, [8, 16] but for the first and the last operands."""
    rng = np.random.default_rng(3)
    weights = {
        f"w{i}": (rng.normal(size=(WIDTH, WIDTH)) * np.sqrt(2 / WIDTH)).astype(np.float32)
        for i in range(DEPTH)
    }
    weights["w0"] = (rng.normal(size=(inputs, WIDTH)) * np.sqrt(2 / inputs)).astype(np.float32)
    weights["w1"][:, 0] *= PEAK
    weights["w2"][0] /= PEAK
    weights["head"] = rng.normal(size=(WIDTH, classes)).astype(np.float32)
    nodes = []
    for i in range(DEPTH):
        x = f"h{i - 1}" if i else "x"
        nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [f"s{i}"]))
        nodes.append(helper.make_node("Relu", [f"s{i}"], [f"h{i}"]))
    nodes.append(helper.make_node("MatMul", [f"h{DEPTH - 1}", "head"], ["logits"]))
    return nodes, weights


def reader(classes: int) -> Graph:
    """A softmax over [8, classes]."""
    nodes, weights = products(WIDTH, classes)
    nodes.append(helper.make_node("Softmax", ["logits"], ["y"]))
    given, made = small_models.value("x", (ROWS, WIDTH)), small_models.value("y", (ROWS, classes))
    m = small_models.model(nodes, [given], [made], weights)
    return optimize(import_model(m).graph, FRONT)


@pytest.mark.parametrize(("classes", "wide"), [(4, ()), (256, ("h1",))])
def test_what_floats_take_anyway_is_room_for_16_bits(classes: int, wide: tuple[str, ...]) -> None:
    """Of two bytes the value is larger than any other code, but not than the logits."""
    rng = np.random.default_rng(1)
    samples = [{"x": rng.normal(size=(ROWS, WIDTH)).astype(np.float32)} for _ in range(8)]
    assert run(reader(classes), samples, Recipe(fidelity=40.0)).recipe.wide == wide


def gated() -> Graph:
    """A gate times products, and a rest: what is rounded shows where the gate is not 0."""
    nodes, weights = products(4 * WIDTH, 4)
    nodes.append(helper.make_node("Mul", ["logits", "gate"], ["open"]))
    nodes.append(helper.make_node("Add", ["open", "rest"], ["y"]))
    given = [
        small_models.value("x", (ROWS, 4 * WIDTH)),
        small_models.value("gate", (1,)),
        small_models.value("rest", (ROWS, 4)),
    ]
    m = small_models.model(nodes, given, [small_models.value("y", (ROWS, 4))], weights)
    return optimize(import_model(m).graph, FRONT)


@pytest.mark.parametrize(("hard", "wide"), [(4, ("h1",)), (None, ())])
def test_few_samples_may_hold_the_error(hard: int | None, wide: tuple[str, ...]) -> None:
    """Of 64 samples the four that are spread evenly lose nothing, and others do."""
    rng = np.random.default_rng(1)
    samples = [
        {
            "x": rng.normal(size=(ROWS, 4 * WIDTH)).astype(np.float32),
            "gate": np.array([float(i % 16 == hard)], np.float32),
            "rest": rng.normal(size=(ROWS, 4)).astype(np.float32),
        }
        for i in range(64)
    ]
    assert run(gated(), samples, Recipe(fidelity=40.0)).recipe.wide == wide


def test_an_output_of_next_to_nothing_asks_for_nothing() -> None:
    """Of one sample in sixteen the rest cancels the products: any rounding is all that is left."""
    rng = np.random.default_rng(1)
    g = gated()
    samples = [
        {
            "x": rng.normal(size=(ROWS, 4 * WIDTH)).astype(np.float32),
            "gate": np.ones(1, np.float32),
            "rest": 30 * rng.normal(size=(ROWS, 4)).astype(np.float32),
        }
        for _ in range(16)
    ]
    silent = {**samples[5], "rest": np.zeros((ROWS, 4), np.float32)}
    samples[5] = {**silent, "rest": -evaluate(g, silent)["y"]}
    assert run(g, samples, Recipe()).recipe.wide == ()


def cell(kind: str, initial: Array | None = None) -> Graph:
    """A recurrent layer of 16 units over 6 steps, and a product of what it makes."""
    rng = np.random.default_rng(2)
    gates = 4 if kind == "LSTM" else 3
    weights: dict[str, Array] = {
        "w": rng.normal(size=(1, gates * WIDTH, WIDTH)).astype(np.float32) * 0.2,
        "r": rng.normal(size=(1, gates * WIDTH, WIDTH)).astype(np.float32) * 0.2,
        "head": rng.normal(size=(WIDTH, 4)).astype(np.float32),
    }
    given = [small_models.value("x", (6, 1, WIDTH))]
    if initial is None:
        given.append(small_models.value("h", (1, 1, WIDTH)))
    else:
        weights["h"] = initial
    nodes = [
        helper.make_node(kind, ["x", "w", "r", "", "", "h"], ["s"], "cell", hidden_size=WIDTH),
        helper.make_node("MatMul", ["s", "head"], ["y"]),
    ]
    m = small_models.model(nodes, given, [small_models.value("y", (6, 1, 1, 4))], weights)
    return optimize(import_model(m).graph, FRONT)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("scale", "codes"), [(0.2, True), (3.0, False)])
def test_a_layer_whose_codes_saturate_what_it_begins_with_stays_float(
    kind: str, constant: bool, scale: float, codes: bool
) -> None:
    rng = np.random.default_rng(1)
    states = [(scale * rng.uniform(-1, 1, (1, 1, WIDTH))).astype(np.float32) for _ in range(40)]
    samples = [
        {"x": rng.normal(size=(6, 1, WIDTH)).astype(np.float32)}
        | ({} if constant else {"h": states[i]})
        for i in range(40)
    ]
    q = run(cell(kind, states[0] if constant else None), samples, Recipe())
    assert ("cell" in {x.name for x in q.layers}) == codes
    notes = [n for n in q.calibration.health.notes if "the state that it begins with reaches" in n]
    assert len(notes) == (not codes) and all(n.startswith("cell stays float: ") for n in notes)
    # what is asked for by name is done
    pinned = run(q.source, samples, Recipe(pins=(("cell", "int8"),)))
    assert "cell" in {x.name for x in pinned.layers}
