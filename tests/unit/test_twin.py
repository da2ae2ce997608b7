"""The gate that compares a quantized bundle with its QDQ twin, layer by layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import sparrow
from small_models import classifier
from sparrow.evidence import twin
from sparrow.evidence.gate import Gate
from sparrow.evidence.plan_record import PlanRecord
from sparrow.evidence.record import load
from sparrow.folder import load_evidence
from sparrow.graph import Graph
from sparrow.passes.integer import integer
from sparrow.tensor import Array


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> sparrow.Bundle:
    m = classifier()
    (x,) = m.graph.input
    shape = [d.dim_value for d in x.type.tensor_type.shape.dim]
    rng = np.random.default_rng(4)
    calls = [{x.name: rng.standard_normal(shape).astype(np.float32)} for _ in range(8)]
    q = tmp_path_factory.mktemp("twin") / "out"
    budget = sparrow.Budget(drop=1.0)
    with pytest.MonkeyPatch.context() as patch:
        # how fast so small a network is says nothing
        won = Gate("not slower than float32", "", "", True)
        patch.setattr("sparrow.assemble.race", lambda *_: (won, {}))
        return sparrow.build(m, out=q, calib=calls, precision="int8", budget=budget)


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
            some = a.reshape(-1)[:count]
            some += np.where(some < 127, 1, -1).astype(a.dtype)
        calls.append(feeds)
        return found

    monkeypatch.setattr(twin, "_run", nudged)
    assert gate_of(bundle.folder).ok is ok
    assert len(calls) > 1
