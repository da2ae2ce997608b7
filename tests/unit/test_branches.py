"""Nodes of a branch that is not taken do not run; layers are proved with all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx.parser
import onnxruntime
import pytest

import sparrow
from emitted import blob, compiled, planned
from sparrow import lane
from sparrow.branches import conditions, sides
from sparrow.builder import Builder
from sparrow.device.host import HostLibrary, Session
from sparrow.graph import Graph, State
from sparrow.memory.audit import audit
from sparrow.memory.stages import stages
from sparrow.ops.matmul import MatMul
from sparrow.ops.reduce import Reduce
from sparrow.ops.softmax import Softmax
from sparrow.passes import optimize
from sparrow.plan import Plan, Step
from sparrow.reference import evaluate
from sparrow.tensor import BOOL, F32, TensorType

C, D = lane.Arg(0, BOOL), lane.Arg(1, BOOL)
A, B = lane.Arg(2, F32), lane.Arg(3, F32)


def weights(b: Builder, k: int, n: int) -> str:
    rng = np.random.default_rng(len(b.consts))
    return b.const(rng.standard_normal((k, n)).astype(np.float32) / k)


def choosing(rows: int = 3, wide: int = 40) -> Graph:
    """One of two products, or of one of them again: a choice within a choice, and what all read."""
    b = Builder("g")
    x = b.input("x", TensorType((rows, 24), F32))
    shared = b.add(Softmax(1), x)
    c = b.call("gt", b.reshape(b.add(Reduce("max", (0, 1)), x), ()), b.scalar(2.0, F32))
    left = b.add(MatMul(), shared, weights(b, 24, wide))
    d = b.call("gt", b.reshape(b.add(Reduce("max", (0, 1)), left), ()), b.scalar(0.05, F32))
    inner = b.call(
        "where",
        d,
        b.add(MatMul(), left, weights(b, wide, 8)),
        b.add(MatMul(), b.add(Softmax(1), left), weights(b, wide, 8)),
    )
    right = b.add(MatMul(), b.add(Softmax(1), shared), weights(b, 24, 8))
    return b.finish({"y": b.call("where", c, inner, right)}, {})


def steps_of(p: Plan) -> list[tuple[str, tuple[bool, ...]]]:
    (entry,) = p.entries
    return [(s.kernel, tuple(g.holds for g in s.guards)) for s in entry.steps]


def test_what_an_operand_is_read_under() -> None:
    e = lane.call("where", C, lane.call("where", D, A, lane.call("add", A, B)), B)
    assert sides(e) == {
        0: frozenset(), 1: {(0, True)}, 2: {(0, True)}, 3: frozenset(),
    }  # fmt: skip
    assert sides(lane.call("where", lane.call("not", C), A, B)) == dict.fromkeys(
        (0, 2, 3), frozenset()
    )


def test_what_both_sides_or_an_output_need_always_runs() -> None:
    b = Builder("g")
    x, c = b.input("x", TensorType((2, 5), F32)), b.input("c", TensorType((1,), BOOL))
    one, two, three = (b.add(Softmax(1), b.call(f, x)) for f in ("tanh", "exp", "neg"))
    y = b.call("where", c, one, two)
    z = b.call("where", c, three, one)
    g = b.finish({"y": y, "z": z, "two": two}, {})
    found = conditions(g)
    assert {g.nodes[i].inputs[0]: found.get(i) for i, n in enumerate(g.nodes)
            if isinstance(n.op, Softmax)} == {
        g.nodes[0].outputs[0]: None, g.nodes[2].outputs[0]: None,
        g.nodes[4].outputs[0]: (("c", True),),
    }  # fmt: skip


def test_a_condition_of_many_elements_is_none() -> None:
    b = Builder("g")
    x, c = b.input("x", TensorType((2, 5), F32)), b.input("c", TensorType((1, 5), BOOL))
    g = b.finish({"y": b.call("where", c, b.add(Softmax(1), x), x)}, {})
    assert conditions(g) == {}


def test_a_node_that_runs_before_its_condition_is_known_always_runs() -> None:
    g = choosing()
    at = next(i for i, n in enumerate(g.nodes) if isinstance(n.op, Reduce))
    product = next(i for i, n in enumerate(g.nodes) if isinstance(n.op, MatMul))
    assert at < product and product in conditions(g)
    nodes = (*g.nodes[:1], g.nodes[product], *g.nodes[1:product], *g.nodes[product + 1 :])
    moved = replace(g, nodes=nodes)
    assert 1 not in conditions(moved)


def test_a_condition_may_be_reshaped_behind_the_branches() -> None:
    b = Builder("g")
    x = b.input("x", TensorType((2, 5), F32))
    c = b.call("gt", b.add(Reduce("max", (0, 1)), x), b.scalar(0.5, F32))
    first, second = b.add(Softmax(1), x), b.add(Softmax(0), x)
    y = b.call("where", b.reshape(b.reshape(c, (1, 1, 1)), ()), first, second)
    g = b.finish({"y": y}, {})
    found = conditions(g)
    assert sorted(found.values()) == [((c, False),), ((c, True),)]
    p = planned(g)
    assert audit(p) == [] and sum(bool(s.guards) for s in p.entries[0].steps) == 2


def test_a_condition_stays_a_value_of_its_own() -> None:
    b = Builder("g")
    x = b.input("x", TensorType((2, 5), F32))
    t = b.input("t", TensorType((), F32))
    c = b.call("gt", t, b.scalar(0.5, F32))
    y = b.call("where", c, b.add(Softmax(1), x), b.add(Softmax(0), x))
    g = optimize(b.finish({"y": y}, {}))
    assert len(conditions(g)) == 2
    # where nothing is saved it joins the loop that reads it
    z = b.call("where", c, x, b.call("neg", x))
    assert len(optimize(b.finish({"z": z}, {})).nodes) == 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, HostLibrary]:
    p = planned(choosing(), isa="scalar")
    return p, compiled(p, tmp_path_factory.mktemp("m"), flags=("-DSPARROW_HOOKS",))


CASES = [(-1.0, False), (4.0, True), (40.0, True)]


def arena_of(s: Step) -> set[int]:
    """Bytes of the arena that a step writes."""
    found: set[int] = set()
    for v in s.outputs:
        if v.place.kind == "arena":
            found |= {v.place.offset + b for b in range(*v.span)}
    if s.scratch is not None:
        found |= {s.scratch.offset + b for b in range(s.lowered.scratch_bytes)}
    return found


@pytest.mark.parametrize(("high", "taken"), CASES)
def test_the_branch_not_taken_does_not_run(
    made: tuple[Plan, HostLibrary], high: float, taken: bool
) -> None:
    p, library = made
    assert audit(p) == []
    (g,) = p.module
    x = np.random.default_rng(0).uniform(-1, 0, (3, 24)).astype(np.float32)
    x[1, 7] = high
    session = Session(library, blob(p))
    session._workspace[:] = 0xA5
    (y,) = session.run(0, [x])
    np.testing.assert_allclose(y, evaluate(g, {"x": x})["y"], 1e-5, 1e-6)
    steps = p.entries[0].steps
    left = {i for i, s in enumerate(steps) if s.guards and s.guards[0].holds}
    others = set().union(*(arena_of(s) for i, s in enumerate(steps) if i not in left))
    own = sorted(set().union(*(arena_of(steps[i]) for i in left)) - others)
    assert len(left) >= 5 and len(own) >= 64
    assert bool((session._workspace[own] == 0xA5).all()) != taken
    # every layer is seen by a tap, and gives what the graph says
    outputs, taps = session.tap(0, [x])
    assert {t.step for t in taps} == set(range(len(steps)))
    assert outputs[0].tobytes() == y.tobytes()


def test_guards_of_a_choice_within_a_choice_come_in_order() -> None:
    found = steps_of(planned(choosing()))
    assert {holds for _, holds in found} == {(), (True,), (True, True), (True, False), (False,)}


def test_the_auditor_looks_at_conditions() -> None:
    p = planned(choosing())
    (entry,) = p.entries
    i = next(i for i, s in enumerate(entry.steps) if s.guards)
    s = entry.steps[i]
    stale = replace(s.guards[0], view=replace(s.guards[0].view, offset=s.outputs[0].offset,
                                              place=s.outputs[0].place))  # fmt: skip
    steps = (*entry.steps[:i], replace(s, guards=(stale,)), *entry.steps[i + 1 :])
    faults = audit(replace(p, entries=(replace(entry, steps=steps),)))
    assert any("is not there any more" in f for f in faults)
    assert any("overwrites condition" in f for f in faults)


def test_a_state_that_decides_keeps_its_old_value_until_all_is_decided(tmp_path: Path) -> None:
    b = Builder("g")
    x = b.input("x", TensorType((2, 40), F32))
    b.types["s"] = TensorType((1,), BOOL)
    b.states.append(State("s", "s", b.call("not", "s"), np.array([False])))
    y = b.call(
        "where", "s", b.add(MatMul(), x, weights(b, 40, 7)), b.add(MatMul(), x, weights(b, 40, 7))
    )
    p = planned(b.finish({"y": y}, {}))
    assert audit(p) == []
    session = Session(compiled(p, tmp_path), blob(p))
    v = np.ones((2, 40), np.float32)
    first, second, third = (session.run(0, [v])[0].copy() for _ in range(3))
    assert first.tobytes() == third.tobytes() != second.tobytes()


def test_threads_wait_for_what_decides(tmp_path: Path) -> None:
    g = choosing(96, 160)
    p = planned(g, isa="avx2", threads=2)
    assert audit(p) == []
    (entry,) = p.entries
    guarded = [s for s in entry.steps if s.guards and s.lowered.tasks > 1 and not s.whole]
    assert guarded
    starts = stages(entry.steps, 2)
    for i, s in enumerate(entry.steps):
        for guard in s.guards:
            made = max(k for k in range(i) if any(v.place == guard.view.place
                       for v in entry.steps[k].outputs))  # fmt: skip
            assert any(made < start <= i for start in starts) or s.whole
    library = compiled(p, tmp_path)
    rng = np.random.default_rng(1)
    for high in (-1.0, 4.0, 40.0):
        x = rng.uniform(-1, 0, (96, 24)).astype(np.float32)
        x[5, 3] = high
        want = evaluate(g, {"x": x})["y"]
        for threads in (1, 2):
            (y,) = library.open(blob(p), threads).run(0, [x])
            np.testing.assert_allclose(y, want, 1e-5, 1e-6)


IF = """<ir_version: 10, opset_import: ["" : 21]>
g (float[4,16] x) => (float[4,9] y) {
  m = ReduceMax<keepdims = 0>(x)
  one = Constant<value = float {1}>()
  c = Greater(m, one)
  y = If (c) <
    then_branch = a () => (float[4,9] p) { s = Softmax<axis = 0>(x)  p = MatMul(s, w) },
    else_branch = b () => (float[4,9] q) { t = Softmax<axis = 1>(x)  q = MatMul(t, v) }>
}"""


def test_a_bundle_proves_both_branches_and_runs_one(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(IF)
    rng = np.random.default_rng(3)
    for name in "wv":
        matrix = rng.standard_normal((16, 9)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(matrix, name))
    bundle = sparrow.build(model, target="host", out=tmp_path / "out")
    (entry,) = bundle.plan.entries
    assert sum(s.kernel == "gemm_f32" for s in entry.steps) == 2
    assert bundle.verify().ok
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for scale in (0.1, 10):
        x = np.abs(rng.standard_normal((4, 16)).astype(np.float32)) * np.float32(scale)
        np.testing.assert_allclose(
            bundle.run(x)["y"], session.run(None, {"x": x})[0], rtol=1e-5, atol=1e-6
        )
