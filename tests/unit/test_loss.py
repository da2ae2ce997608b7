"""What a build lost where no function judges it: scores by the largest, numbers by error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import sparrow
from small_models import model, value
from sparrow.evidence.loss import Loss
from sparrow.tensor import Array


def loss(pairs: list[tuple[Array, Array]]) -> Loss:
    found = Loss()
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
    found = loss([(codes, codes), (codes + 1, codes)])
    assert found.share == 0.5
    assert found.meaning("2 samples", "the model").startswith("share of 2 samples whose integers")
    assert loss([(want[:, :2], want)]).share == 1 and loss([]).share == 0


def test_one_number_is_judged_by_its_error() -> None:
    rng = np.random.default_rng(0)
    answers = rng.standard_normal(1000)
    off = rng.standard_normal(1000) * 0.02
    found = loss([(number(y + e), number(y)) for y, e in zip(answers, off, strict=True)])
    assert found.share == pytest.approx(0.02, rel=0.1)
    assert "'y', one number" in found.meaning("1000 samples", "the model")
    assert loss([(number(y * (1 + 1e-6)), number(y)) for y in answers]).share == 0
    assert loss([(number(5 * y), number(y)) for y in answers]).share == 1
    assert loss([(number(0.1), number(0.0))]).share == 1


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_all_or_nothing(odd: float) -> None:
    one = number(1.0)
    assert loss([(number(odd), number(odd)), (one, one)]).share == 0
    assert loss([(one, number(odd)), (one, one)]).share == 1
    assert loss([(number(odd), one), (one, one)]).share == 1


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
