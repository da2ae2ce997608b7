"""Independent layers, each by a thread of its own: which, in what order, and the same answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emitted import compiled, session
from sparrow.builder import Builder
from sparrow.graph import Graph, Module, verify
from sparrow.memory.audit import audit
from sparrow.memory.stages import stages, use_of, uses_of
from sparrow.memory.views import Place
from sparrow.ops.concat import Concat
from sparrow.ops.lstm import LSTM
from sparrow.passes import BACK, optimize
from sparrow.plan import Plan, View
from sparrow.planner import plan
from sparrow.reference import evaluate
from sparrow.rewrite import Remark
from sparrow.schedule.abreast import ABREAST
from sparrow.schedule.row import rearranged
from sparrow.targets import target
from sparrow.tensor import F32, I8, TensorType


def layer(b: Builder, x: str, hidden: int, *, reverse: bool, seed: int) -> str:
    rng = np.random.default_rng(seed)
    weights = (
        b.const(rng.standard_normal((4 * hidden, n)).astype(np.float32) / 8)
        for n in (b.shape(x)[-1], hidden)
    )
    return b.add_n(LSTM(reverse=reverse), x, *weights)[0]


def directions(count: int = 2, hidden: int = 65, time: int = 40) -> Graph:
    """Layers over one sequence, their results side by side."""
    b = Builder("directions")
    x = b.input("x", TensorType((time, 1, 16), F32))
    parts = [layer(b, x, hidden, reverse=k % 2 == 1, seed=k) for k in range(count)]
    return optimize(b.finish({"y": b.add(Concat(2), *parts)}, {}), BACK)


def stacked() -> Graph:
    """A layer over another one."""
    b = Builder("stacked")
    y = b.input("x", TensorType((40, 1, 16), F32))
    for k in range(2):
        y = layer(b, y, 65, reverse=False, seed=k)
    return optimize(b.finish({"y": y}, {}), BACK)


def found(g: Graph, threads: int = 2, isa: str = "x86_64_v3") -> tuple[Plan, list[Remark]]:
    """The plan with layers beside each other."""

    def planned(m: Module) -> Plan:
        return plan(m, target(isa), threads=threads)

    remarks: list[Remark] = []
    return rearranged(ABREAST, planned(Module("m", (g,))), planned, remarks), remarks


def columns(p: Plan) -> list[int | None]:
    return [s.column for s in p.entries[0].steps if isinstance(s.node.op, LSTM)]


def test_directions_are_computed_at_once() -> None:
    p, remarks = found(directions())
    (remark,) = remarks
    assert remark.rule == "abreast" and remark.applied
    verify(p.module.entries[0])
    assert audit(p) == []
    steps = p.entries[0].steps
    first, second = (i for i, s in enumerate(steps) if isinstance(s.node.op, LSTM))
    assert columns(p) == [0, 1] and second == first + 1
    # nobody waits between the two
    assert second not in stages(steps, 2)
    mine = [list(uses_of(steps[i], range(1))) for i in (first, second)]
    assert not any(a.conflicts(b) for a in mine[0] for b in mine[1])


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_no_more_layers_than_threads(threads: int) -> None:
    p, _ = found(directions(5), threads)
    assert [c for c in columns(p) if c is not None][:threads] == list(range(threads))
    assert audit(p) == []


def test_what_waits_or_is_small_stays_in_order() -> None:
    g = stacked()
    p, remarks = found(g)
    assert remarks == [] and p.module.entries[0] is g
    assert found(directions(hidden=4, time=3))[1] == []
    assert found(directions(), threads=1)[1] == []
    assert found(directions(), isa="nano33ble")[1] == []


@pytest.mark.parametrize("threads", [2, 3])
def test_the_answers_are_those_of_one_thread(threads: int, tmp_path: Path) -> None:
    g = directions(3)
    x = {"x": np.random.default_rng(9).standard_normal((40, 1, 16)).astype(np.float32)}
    p, remarks = found(g, threads)
    assert remarks
    library = compiled(p, tmp_path)
    want = session(p, library).run(0, [x["x"]])[0]
    for _ in range(20):
        assert session(p, library, threads).run(0, [x["x"]])[0].tobytes() == want.tobytes()
    np.testing.assert_allclose(want, evaluate(g, x)["y"], atol=1e-5)


@st.composite
def views(draw: st.DrawFn) -> tuple[View, set[int]]:
    """A view of bytes, and those that it takes."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    strides = [draw(st.sampled_from([-12, -6, 0, 1, 2, 3, 6, 8, 12, 24])) for _ in shape]
    first = 200 + draw(st.integers(0, 30))
    taken = {
        first + sum(i * s for i, s in zip(at, strides, strict=True)) for at in np.ndindex(*shape)
    }
    place = Place("arena", 0, 0)
    return View(TensorType(tuple(shape), I8), place, first, tuple(strides)), taken


@given(views(), views())
def test_what_meets_is_never_taken_for_apart(
    one: tuple[View, set[int]], other: tuple[View, set[int]]
) -> None:
    uses = [use_of(v, True) for v, _ in (one, other)]
    if one[1] & other[1]:
        assert uses[0].conflicts(uses[1]) and uses[1].conflicts(uses[0])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 5))
def test_columns_of_a_matrix_are_apart(left: int, right: int, rows: int) -> None:
    whole = left + right
    parts = [
        View(TensorType((rows, n), I8), Place("arena", 0, 0), at, (whole, 1))
        for n, at in ((left, 0), (right, left))
    ]
    assert not use_of(parts[0], True).conflicts(use_of(parts[1], True))
