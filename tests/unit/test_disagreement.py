"""What a build lost where no function judges it: scores by the largest, numbers by error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import sparrow
from small_models import model, value
from sparrow.evidence.disagreement import Disagreement
from sparrow.tensor import Array


def loss(pairs: list[tuple[Array, Array]]) -> Disagreement:
    found = Disagreement()
    for got, want in pairs:
        found.add({"y": got}, {"y": want})
    return found


def number(x: float) -> Array:
    return np.full((1, 1), x, np.float32)


def test_scores_are_judged_by_the_largest_and_integers_by_all() -> None:
    want = np.array([[0.1, 0.7, 0.2]], np.float32)
    assert loss([(want[:, ::-1] * 2, want)] * 3 + [(want[:, [1, 0, 2]], want)]).share == 0.25
    assert loss([(want + 1e-7, want)]).share == 0
    codes = np.arange(3)
    found = loss([(codes, codes), (codes * 2, codes)])
    assert found.share == pytest.approx(2 / 6)
    assert found.meaning("2 samples", "the model").startswith("share of 2 samples, by integers")
    assert loss([(want[:, :2], want)]).share == 1 and loss([]).share == 0


def test_one_number_is_judged_by_its_error() -> None:
    rng = np.random.default_rng(0)
    answers = rng.standard_normal(1000)
    off = rng.standard_normal(1000) * 0.02
    found = loss([(number(y + e), number(y)) for y, e in zip(answers, off, strict=True)])
    assert found.share == pytest.approx(0.02, rel=0.1)
    assert "'y', numbers" in found.meaning("1000 samples", "the model")
    assert loss([(number(y * (1 + 1e-6)), number(y)) for y in answers]).share == 0
    assert loss([(number(5 * y), number(y)) for y in answers]).share == 1
    assert loss([(number(0.1), number(0.0))]).share == 1


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_all_or_nothing(odd: float) -> None:
    one = number(1.0)
    assert loss([(number(odd), number(odd)), (one, one)]).share == 0
    assert loss([(one, number(odd)), (one, one)]).share == 1
    assert loss([(number(odd), one), (one, one)]).share == 1


def kind(want: Array, inputs: tuple[tuple[int, ...], ...] = (), samples: int = 1) -> str:
    """What an output is taken for; ``want`` holds samples along axis 0."""
    found = Disagreement(inputs)
    for y in np.array_split(want, samples):
        found.add({"y": y}, {"y": y})
    text = found.meaning("s", "m")
    return "numbers" if "numbers" in text else "integers" if "integers" in text else "classes"


def drawn(*shape: int) -> Array:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def softmax(x: Array, axis: int) -> Array:
    e = np.exp(x)
    return np.asarray(e / e.sum(axis, keepdims=True), np.float32)


@pytest.mark.parametrize(
    ("want", "inputs", "meant"),
    [
        (drawn(1, 10), (), "classes"),
        (drawn(10), (), "classes"),
        (drawn(4, 1), (), "numbers"),
        (np.full((1, 1), 2, np.float32), (), "numbers"),
        (drawn(1, 21, 16, 16), ((1, 3, 64, 64),), "classes"),
        (drawn(1, 16, 16, 21), ((1, 64, 64, 3),), "classes"),
        (drawn(1, 1, 16, 16), ((1, 3, 16, 16),), "numbers"),
        (drawn(1, 16, 16), ((1, 3, 16, 16),), "classes"),
        # an image of an image, or three classes of one: the stricter of both
        (drawn(1, 3, 32, 32), ((1, 3, 16, 16),), "numbers"),
        (softmax(drawn(1, 3, 32, 32), 1), ((1, 3, 32, 32),), "classes"),
        (drawn(1, 40, 4), ((1, 3, 64, 64),), "numbers"),
        (softmax(drawn(1, 40, 2), 2), ((1, 3, 64, 64),), "classes"),
        (np.log(softmax(drawn(1, 40, 9), 2)), (), "classes"),
        (drawn(1, 12, 50), ((1, 12),), "classes"),
        # hidden states, one feature of which is always the largest
        (drawn(1, 12, 50) + 9 * (np.arange(50) == 3), ((1, 12),), "numbers"),
        (softmax(drawn(1, 12, 50) + 9 * (np.arange(50) == 3), 2), (), "classes"),
        (np.arange(6).reshape(1, 6), (), "integers"),
        # a reconstruction, and classes of a vector of as many
        (drawn(1, 12), ((1, 12),), "numbers"),
        (drawn(12), ((12,), (3,)), "numbers"),
        (softmax(drawn(1, 12), 1), ((1, 12),), "classes"),
    ],
)
def test_kinds_of_outputs(want: Array, inputs: tuple[tuple[int, ...], ...], meant: str) -> None:
    assert kind(want, inputs) == meant


def test_vectors_whose_largest_never_moves_are_numbers() -> None:
    points = drawn(8, 10) + 9 * (np.arange(10) == 4)
    assert kind(points, samples=8) == "numbers"
    assert kind(points[:7], samples=7) == "classes"
    assert kind(softmax(points, 1), samples=8) == "classes"


@pytest.mark.parametrize("axis", [1, 3])
def test_a_map_of_classes_is_judged_at_each_place(axis: int) -> None:
    shape = (1, 5, 20, 20) if axis == 1 else (1, 20, 20, 5)
    want = drawn(*shape)
    got = want * 1.2 + 0.01  # larger everywhere, no class altered: it was the place of the peak
    assert loss([(got, want)]).share == 0
    flipped = np.moveaxis(got.copy(), axis, -1)
    flipped[0, :3, 0] *= -1
    assert loss([(np.moveaxis(flipped, -1, axis), want)]).share == pytest.approx(3 / 400)


def test_classes_of_frames_lie_where_the_input_has_frames_too() -> None:
    want = drawn(1, 6, 30)
    for inputs, axis, rows in (((1, 8, 30),), 1, 30), (((1, 6),), 2, 6):
        got = want.copy()
        at = np.moveaxis(got, axis, -1)
        at[0, 0] = -at[0, 0]
        found = Disagreement(inputs)
        found.add({"y": got}, {"y": want})
        assert found.share == pytest.approx(1 / rows)


@pytest.mark.parametrize(
    ("shape", "inputs", "told"),
    [
        ((1, 84, 30), ((1, 3, 64, 64),), True),  # boxes and classes of each place
        ((1, 255, 8, 8), ((1, 3, 64, 64),), True),
        ((1, 30, 12), ((1, 30),), False),  # a class of each token
        ((1, 10), ((1, 3, 64, 64),), False),
        ((1, 3, 64, 64), ((1, 3, 64, 64),), False),  # numbers: an image
    ],
)
def test_what_may_be_raw_heads_is_told_the_way_out(
    shape: tuple[int, ...], inputs: tuple[tuple[int, ...], ...], told: bool
) -> None:
    want = drawn(*shape)
    found = Disagreement(inputs)
    found.add({"y": want}, {"y": want})
    assert ("--evaluate" in found.meaning("s", "m")) == told
    # probabilities are classes, whatever makes them
    sure = Disagreement(inputs)
    sure.add({"y": softmax(want, 1)}, {"y": softmax(want, 1)})
    assert "--evaluate" not in sure.meaning("s", "m")


def test_the_worst_output_counts() -> None:
    a, b = drawn(1, 10), drawn(1, 12, 4)
    found = Disagreement()
    found.add({"a": a, "b": b * 1.02}, {"a": a, "b": b})
    assert found.share == pytest.approx(0.02, rel=1e-3)
    assert "'b', numbers" in found.meaning("1 sample", "the model")
    other = Disagreement()
    other.add({"a": -a, "b": b * 1.02}, {"a": a, "b": b})
    assert other.share == 1 and "'a', the worst output" in other.meaning("1 sample", "the model")


def test_outputs_of_other_or_no_extent() -> None:
    for want in (drawn(1, 10), drawn(2, 3, 4), np.zeros((0, 4), np.float32), np.arange(4)):
        assert loss([(want, want)]).share == 0
        assert loss([(np.concatenate([want, want]) if want.size else want[:, :1], want)]).share == 1


def test_a_drop_of_a_regression_is_kept(tmp_path: Path) -> None:
    """It was 0 whatever the build answered: the only number is the largest."""
    rng = np.random.default_rng(3)
    weights = {
        "w1": rng.standard_normal((64, 256), np.float32) / 8,
        "w2": rng.standard_normal((256, 256), np.float32) / 16,
        "w3": rng.standard_normal((256, 1), np.float32) / 16,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "w2"], ["c"], "second"),
        helper.make_node("Relu", ["c"], ["d"], "relu2"),
        helper.make_node("MatMul", ["d", "w3"], ["y"], "third"),
    ]
    network = model(nodes, [value("x", (1, 64))], [value("y", (1, 1))], weights)
    x = rng.standard_normal((80, 1, 64), np.float32)
    want = np.maximum(np.maximum(x @ weights["w1"], 0) @ weights["w2"], 0) @ weights["w3"]

    def error(b: sparrow.Bundle) -> float:
        off = np.ravel([b.run(v)["y"] for v in x]) - want.ravel()
        return float(np.sqrt((off**2).mean() / (want**2).mean()))

    codes = sparrow.build(network, "host", tmp_path / "a", calib=x, precision="int8")
    assert error(codes) > 0.004
    assert codes.receipt.drop == pytest.approx(error(codes), rel=0.5)
    budget = sparrow.Budget(drop=0.002)
    kept = sparrow.build(network, "host", tmp_path / "b", calib=x, budget=budget)
    assert error(kept) < 0.004 and kept.receipt.drop is not None and kept.receipt.drop <= 0.002
