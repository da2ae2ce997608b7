"""Layers in overlapping parts, one for each thread: where that gains, and the same answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_chains import assert_threads_change_no_bit, bottleneck, narrowed, runs
from sparrow.builder import Builder
from sparrow.graph import Graph, Module, verify
from sparrow.memory.audit import audit
from sparrow.memory.stages import stages, uses_of
from sparrow.ops.conv import Conv
from sparrow.ops.lookup import Lookup
from sparrow.passes.overlap import Overlap, overlapped, spans_of
from sparrow.passes.patches import ROWS, strippable
from sparrow.plan import Plan
from sparrow.planner import plan
from sparrow.reference import evaluate
from sparrow.rewrite import Remark
from sparrow.schedule.overlapping import OVERLAPPING
from sparrow.schedule.row import rearranged
from sparrow.targets import Target, target
from sparrow.tensor import I8, Array, TensorType

FAR = replace(target("x86_64_v3"), move_ns_per_byte=1.0)


def feeds(g: Graph) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {x: rng.integers(-128, 128, g.types[x].shape).astype(np.int8) for x in g.inputs}


@given(runs(), st.integers(2, 4))
@settings(max_examples=60)
def test_parts_give_the_same_codes(run: tuple[Graph, int, int], parts: int) -> None:
    """Any chain of windows over rows, any run of its layers, any number of threads."""
    g, first, last = run
    o = Overlap(first, last, parts)
    spans = spans_of(g, o)
    if spans is None or not strippable(g, first, last):
        return
    after = overlapped(g, [o])
    verify(after)
    given_ = feeds(g)
    for name, want in evaluate(g, given_).items():
        np.testing.assert_array_equal(evaluate(after, given_)[name], want)
    # the parts of the result are all of it, each row once
    y = g.nodes[last].outputs[0]
    ends = [s[y] for s in spans]
    assert ends[0][0] == 0 and ends[-1][1] == g.types[y].shape[ROWS]
    assert all(a[1] == b[0] for a, b in pairwise(ends))


def test_too_few_rows_are_not_divided() -> None:
    """Each thread has a row at least, and the parts are those of tasks of any other step."""
    g = codes(rows=4)
    assert spans_of(g, Overlap(0, 2, 4)) is not None
    assert spans_of(g, Overlap(0, 2, 3)) is None  # 2, 2 and none
    assert spans_of(g, Overlap(0, 2, 5)) is None


def codes(rows: int = 14, wide: int = 64, taps: int = 5) -> Graph:
    """An inverted bottleneck with a table."""
    b, rng = Builder("codes"), np.random.default_rng(1)

    def conv(x: str, m: int, k: int, group: int = 1) -> str:
        c = b.shape(x)[-1]
        w = b.const(rng.integers(-99, 99, (m, c // group, k, k)).astype(np.int8))
        op = Conv((1, 1), (1, 1), ((k // 2,) * 2,) * 2, group, True, narrowed(0.002), -3)
        return b.add(op, x, w)

    x = b.input("x", TensorType((1, rows, 14, 16), I8))
    table = b.const(rng.integers(-128, 127, 256).astype(np.int8))
    y = b.add(Lookup(), conv(x, wide, 1), table)
    return b.finish({"y": conv(conv(y, wide, taps, wide), 16, 1)}, {})


def found(g: Graph, t: Target = FAR, threads: int = 2) -> tuple[Plan, Plan, list[Remark]]:
    """The plan as it is and that in parts."""

    def planned(m: Module) -> Plan:
        return plan(m, t, threads=threads)

    whole, remarks = planned(Module("m", (g,))), list[Remark]()
    return whole, rearranged(OVERLAPPING, whole, planned, remarks), remarks


def test_a_halo_is_computed_where_moving_it_costs_more() -> None:
    g = codes()
    # sums by twos would cut the layer behind elsewhere
    far = replace(target("x86_64_v3_vnni"), move_ns_per_byte=1.0)
    whole, parts, remarks = found(g, far)
    assert [r.rule for r in remarks] == ["overlap"] and "3 layers" in remarks[0].text
    verify(parts.module.entries[0])
    assert audit(parts) == []
    columns = [s.column for s in parts.entries[0].steps]
    assert columns == [0, 1, 0, 1, 0, 1, None]
    # nobody waits within the parts, nor before the layer behind, which reads rows of its own
    assert len(stages(parts.entries[0].steps, 2)) == 1 < len(stages(whole.entries[0].steps, 2))
    near = replace(far, move_ns_per_byte=0.001)
    assert found(g, near)[2] == [] and found(g, far, threads=1)[2] == []
    # a window of one row has no halo
    assert found(codes(taps=1), far)[2] == []


@pytest.mark.parametrize("threads", (2, 3, 4))
def test_threads_touch_no_bytes_of_one_another(threads: int) -> None:
    """Whatever the order: in a stage nothing is written that another thread reads or writes."""
    _, parts, remarks = found(codes(rows=21), threads=threads)
    assert remarks
    mine: dict[int, list] = {k: [] for k in range(threads)}  # type: ignore[type-arg]
    for s in parts.entries[0].steps:
        if s.column is not None:
            mine[s.column] += uses_of(s, range(s.lowered.tasks))
    assert all(mine.values())
    for a in mine:
        for b in mine:
            assert a == b or not any(u.conflicts(v) for u in mine[a] for v in mine[b])


@pytest.mark.parametrize("g", (codes(), bottleneck((1, 15, 11, 8), 64)), ids=lambda g: g.name)
def test_the_answers_do_not_depend_on_the_threads(g: Graph, tmp_path: Path) -> None:
    assert_threads_change_no_bit(g, lambda threads: found(g, threads=threads)[1:], tmp_path)
