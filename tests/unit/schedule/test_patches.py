"""Layers in strips of rows: the same answers to the bit, in less memory, or a word why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_chains import runs
from emitted import compiled, session
from sparrow import lane
from sparrow.builder import Builder
from sparrow.graph import Graph, Module, Node, retyped, verify
from sparrow.memory.audit import audit
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.pool import Pool
from sparrow.passes.patches import ROWS, Stage, in_strips, strippable
from sparrow.plan import Plan
from sparrow.planner import plan
from sparrow.reference import evaluate
from sparrow.rewrite import Remark
from sparrow.schedule.patching import within
from sparrow.targets import target
from sparrow.tensor import I8, I32, Array, TensorType

HERE = target("x86_64")
SMALL = replace(HERE, triple="x86_64-freestanding-none")


def feeds(g: Graph, seed: int = 0) -> dict[str, Array]:
    """Random codes."""
    rng = np.random.default_rng(seed)
    return {x: rng.integers(-128, 128, g.types[x].shape).astype(np.int8) for x in g.inputs}


def same(before: Graph, after: Graph) -> None:
    """Equal outputs, bit for bit."""
    verify(after)
    given_ = feeds(before)
    want, got = evaluate(before, given_), evaluate(after, given_)
    for name, y in want.items():
        np.testing.assert_array_equal(got[name], y)


@given(runs(), st.data())
@settings(max_examples=60)
def test_strips_give_the_same_codes(run: tuple[Graph, int, int], data: st.DataObject) -> None:
    """Any chain of windows over rows, any run of its layers, any height of a strip."""
    g, first, last = run
    if not strippable(g, first, last):
        return
    height = g.types[g.nodes[last].outputs[0]].shape[ROWS]
    after = in_strips(g, [Stage(first, last, data.draw(st.integers(1, height), "rows"))])
    same(g, after)
    # no row is computed twice
    flops = [x.flops() for x in (g, after)]
    copies = sum(t.size for n in after.nodes for t in after.out_types(n) if "kept" in n.origin)
    assert flops[1] - copies <= flops[0]


def residual(rows: int = 24) -> Graph:
    """Inverted bottlenecks with residuals, as in MCUNet."""
    b = Builder("residual")
    rng = np.random.default_rng(3)
    low, high = lane.Imm(-128, I32), lane.Imm(127, I32)

    def clipped(x: lane.Expr) -> lane.Expr:
        return lane.cast(lane.call("min", lane.call("max", x, low), high), I8)

    def conv(x: str, m: int, k: int, group: int = 1) -> str:
        c = b.shape(x)[-1]
        w = b.const(rng.integers(-1, 2, (m, c // group, k, k)).astype(np.int8))
        pads = ((k // 2, k // 2), (k // 2, k // 2))
        op = Conv((1, 1), (1, 1), pads, group, True, clipped(lane.Arg(0, I32)), 3)
        return b.add(op, x, w)

    x = conv(b.input("x", TensorType((1, rows, 20, 3), I8)), 8, 3)
    for k in (3, 7):
        wide = conv(conv(x, 48, 1), 48, k, 48)
        total = lane.call("add", lane.cast(lane.Arg(0, I8), I32), lane.cast(lane.Arg(1, I8), I32))
        x = b.lane(clipped(total), conv(wide, 8, 1), x)
    return b.finish({"y": x}, {})


@pytest.mark.parametrize("rows", (1, 2, 5, 11, 23))
def test_residuals_wait_for_the_rows_that_meet_them(rows: int) -> None:
    g = residual()
    last = len(g.nodes) - 1
    assert not strippable(g, 0, 2), "the first result is read behind it"
    assert strippable(g, 0, last)
    same(g, in_strips(g, [Stage(0, last, rows)]))
    both = [Stage(1, 4, rows), Stage(5, last, rows)]
    same(g, in_strips(g, both))


def test_what_is_not_row_by_row_is_no_stage() -> None:
    g = residual()
    first, *rest = g.nodes
    assert isinstance(first.op, Conv)
    transposed = replace(first.op, channels_last=False)
    w = np.zeros((8, 24, 3, 3), np.int8)
    other = retyped(g, [Node(transposed, ("x", "w"), ("z",))], outputs=("z",), consts={"w": w})
    assert not strippable(other, 0, 0)
    shown = replace(g, outputs=(*g.outputs, rest[0].outputs[0]))
    assert not strippable(shown, 1, 4), "an inner value is an output"


def test_a_row_that_all_rows_read_is_made_before_them() -> None:
    """Squeeze and excite: the branch of one row is outside, or the run is no stage."""
    g = residual()
    x = g.nodes[0].outputs[0]
    t = g.types[x]
    pool = Pool("max", t.shape[1:3], (1, 1), (1, 1), ((0, 0), (0, 0)), channels_last=True)
    both = lane.cast(lane.Arg(0, I8), I32), lane.cast(lane.Arg(1, I8), I32)
    joined = lane.cast(lane.call("bitand", *both), I8)
    nodes = [
        g.nodes[0],
        Node(pool, (x,), ("one",)),
        Node(Lane(lane.Arg(0, I8)), ("one",), ("two",)),
        Node(Lane(joined), (x, "two"), ("z",)),
    ]
    other = retyped(g, nodes, outputs=("z",))
    assert not strippable(other, 1, 3) and not strippable(other, 2, 3)
    whole = planned(Module("m", (other,)))
    same(other, within(whole, 1, planned, []).module.entries[0])


def planned(m: Module) -> Plan:
    """Where RAM is short."""
    return plan(m, SMALL)


def test_a_budget_is_kept_with_the_same_answers(tmp_path: Path) -> None:
    g = residual(48)
    whole = planned(Module("m", (g,)))
    remarks: list[Remark] = []
    less = within(whole, whole.arena_bytes // 2, planned, remarks)
    assert less.arena_bytes <= whole.arena_bytes // 2
    assert audit(less) == []
    assert remarks and all("strips" in r.text for r in remarks)
    (entry,) = less.module.entries
    same(g, entry)
    x = feeds(g)["x"]
    run = session(less, compiled(replace(less, target=HERE), tmp_path))
    (y,) = run.run(0, [x])
    np.testing.assert_array_equal(y, evaluate(g, {"x": x})["y"])
    # weights are stored once however many strips read them
    assert len(less.weights) <= 1.05 * len(whole.weights)


def test_what_cannot_be_kept_is_brought_as_low_as_it_goes() -> None:
    whole = planned(Module("m", (residual(48),)))
    less = within(whole, 1, planned, [])
    assert less.arena_bytes < whole.arena_bytes // 2
    assert within(whole, whole.arena_bytes, planned, []) is whole
    assert "Conv" in less.entries[0].fullest
