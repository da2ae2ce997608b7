"""Layers in parts of channels, one for each thread: where that gains, and the same answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_chains import assert_threads_change_no_bit, bottleneck, narrowed
from sparrow import lane
from sparrow.builder import Builder
from sparrow.graph import Graph, Module, verify
from sparrow.memory.audit import audit
from sparrow.memory.stages import stages, use_of, uses_of
from sparrow.memory.views import Place
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.lookup import Lookup
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.passes.channel_parts import Channels, division_of, in_channels
from sparrow.plan import Plan, View
from sparrow.planner import plan
from sparrow.reference import evaluate
from sparrow.rewrite import Remark
from sparrow.schedule.channelwise import CHANNELWISE
from sparrow.schedule.row import rearranged
from sparrow.targets import target
from sparrow.tensor import I8, I32, TensorType

NEAR = replace(target("x86_64_v3"), move_ns_per_byte=0.02)


def codes(rows: int = 7, wide: int = 384, taps: int = 5, thin: int = 32) -> Graph:
    """An inverted bottleneck with a table, squeeze and excitation, and a channel's own scale."""
    b, rng = Builder("codes"), np.random.default_rng(1)

    def conv(x: str, m: int, k: int, group: int = 1, *more: str) -> str:
        c = b.shape(x)[-1]
        w = b.const(rng.integers(-99, 99, (m, c // group, k, k)).astype(np.int8))
        bias = b.const(rng.integers(-999, 999, m).astype(np.int32))
        e = narrowed(0.002)
        if more:
            scaled = lane.call("mul", lane.cast(e, I32), lane.Arg(1, I32))
            e = lane.cast(lane.call("max", scaled, lane.Imm(-9, I32)), I8)
        op = Conv((1, 1), (1, 1), ((k // 2,) * 2,) * 2, group, True, e, -3)
        return b.add(op, x, w, bias, *more)

    x = b.input("x", TensorType((1, rows, 7, thin), I8))
    table = b.const(rng.integers(-128, 127, 256).astype(np.int8))
    signs = b.const(rng.integers(-1, 2, (1, 1, 1, wide)).astype(np.int32))
    y = b.add(Lookup(), conv(x, wide, 1, 1, signs), table)
    y = conv(y, wide, taps, wide)
    ones = b.const(np.ones((wide, 1, rows, 7), np.int8))
    mean = b.add(Conv((1, 1), (1, 1), ((0, 0), (0, 0)), wide, True, narrowed(0.02)), y, ones)
    mean = b.add(Slice((0, 0, 0, 0), (1, 1, 1, wide), (1, 1, 1, 1)), mean)
    s = b.add(Reshape((1, wide, 1, 1)), conv(conv(mean, 48, 1), wide, 1))
    s = b.add(Reshape((1, 1, 1, wide)), s)
    product = lane.call("mul", lane.cast(lane.Arg(0, I8), I32), lane.cast(lane.Arg(1, I8), I32))
    low, high = lane.Imm(-128, I32), lane.Imm(127, I32)
    y = b.add(Lane(lane.cast(lane.call("min", lane.call("max", product, low), high), I8)), s, y)
    return b.finish({"y": conv(y, thin, 1)}, {})


def found(g: Graph, threads: int = 2, move: float = 0.02) -> tuple[Plan, list[Remark]]:
    """The plan in parts."""
    t = replace(NEAR, move_ns_per_byte=move)

    def planned(m: Module) -> Plan:
        return plan(m, t, threads=threads)

    remarks = list[Remark]()
    return rearranged(CHANNELWISE, planned(Module("m", (g,))), planned, remarks), remarks


@given(
    st.integers(1, 8),
    st.sampled_from((64, 128, 192, 208)),
    st.integers(0, 6),
    st.integers(1, 12),
    st.integers(2, 4),
)
@settings(max_examples=60, deadline=None)
def test_parts_give_the_same_codes(
    rows: int, wide: int, first: int, count: int, parts: int
) -> None:
    """Any run of the layers, any number of threads."""
    g = codes(rows, wide, thin=16)
    c = Channels(first, min(first + count, len(g.nodes) - 1), parts)
    d = division_of(g, c)
    if d is None:
        return
    after = in_channels(g, [c])
    verify(after)
    x = np.random.default_rng(0).integers(-128, 128, g.types["x"].shape).astype(np.int8)
    np.testing.assert_array_equal(evaluate(after, {"x": x})["y"], evaluate(g, {"x": x})["y"])
    for size, cuts in d.cuts.items():
        assert cuts[0] == 0 and cuts[-1] == size and len(cuts) == parts + 1
        assert d.share(size) >= 1 / parts


def test_threads_share_no_line_of_a_pixel() -> None:
    """What is read whole is cut between lines, or not at all."""
    g = codes()
    for last in range(1, len(g.nodes) - 1):
        d = division_of(g, Channels(0, last, 2))
        assert d is not None and set(d.cuts[384]) == {0, 192, 384}
    # three lines and a quarter, which pixels share whatever the cut; or two lines for three threads
    assert division_of(codes(wide=208), Channels(0, 1, 2)) is None
    assert division_of(codes(wide=128), Channels(0, 1, 3)) is None
    # of one pixel there is one seam, which may lie anywhere
    d = division_of(g, Channels(0, len(g.nodes) - 2, 2))
    assert d is not None and d.cuts[48] == (0, 32, 48)
    # the mean and the small product are read whole, and the scaled image
    assert len(d.joined) == 3
    # windows channel by channel begin no run
    assert division_of(g, Channels(2, 3, 2)) is None


def test_images_of_few_rows_are_divided_by_channels() -> None:
    p, remarks = found(codes())
    (r,) = remarks
    assert r.rule == "channels"
    verify(p.module.entries[0])
    assert audit(p) == []
    columns = [s.column for s in p.entries[0].steps]
    assert set(columns) == {0, 1, None} and columns.index(0) == 0
    # one wait for the mean, one for the small products, one for the layer behind
    assert len(stages(p.entries[0].steps, 2)) == 4
    # a seam between rows costs less where there are many, and all does where lines are far
    assert found(codes(rows=56, taps=1))[1] == []
    assert found(codes(), move=5.0)[1] == []
    assert found(codes(), threads=1)[1] == []
    # two parts that L1 does not hold; floats
    assert found(codes(wide=1536))[1] == []
    assert found(bottleneck((1, 7, 7, 32), 128))[1] == []


@pytest.mark.parametrize("threads", (2, 3))
def test_threads_touch_no_bytes_of_one_another(threads: int) -> None:
    """Whatever the order: in a stage nothing is written that another thread reads or writes."""
    p, remarks = found(codes(), threads)
    assert remarks
    steps = p.entries[0].steps
    starts = (*stages(steps, threads), len(steps))
    for low, end in pairwise(starts):
        own = [s for s in steps[low:end] if s.column is not None]
        for a in own:
            for b in own:
                if a.column != b.column:
                    pairs = [
                        (u, v)
                        for u in uses_of(a, range(a.lowered.tasks))
                        for v in uses_of(b, range(b.lowered.tasks))
                    ]
                    assert not any(u.conflicts(v) for u, v in pairs)


def test_channels_of_pixels_lie_apart() -> None:
    """Of an image inside a wider one as well, whose rows have gaps of their own."""

    def view(first: int, channels: int, pitch: int = 4032) -> View:
        t = TensorType((1, 7, 7, channels), I8)
        return View(t, Place("arena", 0, 0), first, (7 * pitch, pitch, 576, 1))

    for pitch in (4032, 8064):
        low, high = (use_of(view(*x, pitch), True) for x in ((0, 256), (256, 320)))
        assert not low.conflicts(high) and not high.conflicts(low)
        assert low.conflicts(use_of(view(255, 320, pitch), True))
    # rows of two images beside each other
    left, right = (use_of(view(x, 576, 8064), True) for x in (0, 4032))
    assert not left.conflicts(right) and left.conflicts(left)


def test_the_answers_do_not_depend_on_the_threads(tmp_path: Path) -> None:
    g = codes()
    assert_threads_change_no_bit(g, lambda threads: found(g, threads), tmp_path)
