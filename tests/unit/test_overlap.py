"""Results that run over the input they are made from: how far, where they lie, and the proof."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from sparrow import lane
from sparrow.builder import Builder
from sparrow.graph import Graph, Module
from sparrow.kernels.params_f32 import Window
from sparrow.kernels.walk import lead_of
from sparrow.memory.arena import Item, lower_bound, pack
from sparrow.memory.audit import audit
from sparrow.ops.conv import Conv
from sparrow.planner import plan
from sparrow.targets import target
from sparrow.tensor import I8, I32, TensorType


@given(
    st.lists(
        st.tuples(st.integers(1, 5000), st.integers(-6000, 6000), st.integers(0, 3)),
        min_size=2,
        max_size=14,
    )
)
def test_items_run_over_others_from_as_far_behind_as_they_ask(
    raw: list[tuple[int, int, int]],
) -> None:
    """A chain, of which some links must not overlap, and a buffer that waits at each."""
    items = [Item(size, k, k + 1) for k, (size, _, _) in enumerate(raw)]
    for k, (size, lead, kind) in enumerate(raw[1:], start=1):
        if kind:
            items[k] = replace(items[k], over=k - 1, lead=min(lead, size))
    items += [Item(64 * kind, k, k) for k, (_, _, kind) in enumerate(raw)]
    offsets, total = pack(items)
    assert lower_bound(items) <= total
    for i, a in enumerate(items):
        assert offsets[i] % 64 == 0 and offsets[i] + a.bytes <= total
        for j, b in enumerate(items):
            if i != j and a.first <= b.last and b.first <= a.last and a.bytes and b.bytes:
                lead = a.lead if a.over == j else a.bytes
                before = offsets[j] - offsets[i] >= lead
                other = items[j].lead if items[j].over == i else b.bytes
                assert before or offsets[i] - offsets[j] >= other


def test_a_chain_takes_what_its_largest_layer_does() -> None:
    """Equal buffers that run over one another by a row each, and no two of them beside another."""
    items = [Item(6400, k, k + 1, k - 1, 640) for k in range(4)]
    assert pack(items) == ([64 * 30, 64 * 20, 64 * 10, 0], 6400 + 3 * 640)


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(1, 4), st.integers(1, 9), st.booleans()),
)
def test_the_lead_of_a_walk_is_the_least_that_works(
    sizes: tuple[int, int, int, int],
    window: tuple[int, int, int],
    pads: tuple[int, int],
    walk: tuple[int, int, bool],
) -> None:
    """Against a walk, byte by byte: what a block stores must not be read by it or a later one."""
    (ih, iw, ci, co), (kernel, stride, size) = sizes, window
    pt, pl = (min(p, kernel - 1) for p in pads)
    oh, ow = (ih + pt - kernel) // stride + 1, (iw + pl - kernel) // stride + 1
    assume(oh > 0 and ow > 0)
    rows, pixels, copied = walk
    p = Window(
        ih=ih, iw=iw, oh=oh, ow=ow, kh=kernel, kw=kernel, xn=0, xh=iw * ci, xw=ci, ldy=co,
        sh=stride, sw=stride, pt=pt, pl=pl,
    )  # fmt: skip
    pixels = ow if copied else min(pixels, ow)
    lead = lead_of(p, size, rows, pixels, copied)
    assert lead is not None
    reads: list[set[int]] = []
    stores: list[set[int]] = []
    for oy in range(0, oh, rows):
        for ox in range(0, ow, pixels):
            block = [
                (y, x)
                for y in range(oy, min(oy + rows, oh))
                for x in range(ox, min(ox + pixels, ow))
            ]
            each = [((y * ow + x) * co) * size for y, x in block]
            stores.append({at + i for at in each for i in range(co * size)})
            taps = {
                (y * stride - pt + i, x * stride - pl + j)
                for y, x in block
                for i in range(kernel)
                for j in range(kernel)
            }
            inside = [(y, x) for y, x in taps if 0 <= y < ih and 0 <= x < iw]
            reads.append({(y * iw + x) * ci + i for y, x in inside for i in range(ci)})

    def spoiled(behind: int) -> bool:
        after = reads[1:] if copied else reads
        return any(
            {s - behind for s in done} & set().union(*after[k:]) for k, done in enumerate(stores)
        )

    assert not spoiled(lead)
    if kernel == 1 and stride == 1 and rows == 1 and not copied:
        assert spoiled(lead - 1)


def _depthwise(layers: int) -> Graph:
    """Layers of 3x3 taps over 16 channels of 8x8 codes, kept within their range."""
    b = Builder("codes")
    x = b.input("x", TensorType((1, 8, 8, 16), I8))
    low, high = lane.Imm(-128, I32), lane.Imm(127, I32)
    clipped = lane.call("min", lane.call("max", lane.Arg(0, I32), low), high)
    op = Conv((1, 1), (1, 1), ((1, 1), (1, 1)), 16, True, lane.cast(clipped, I8))
    for _ in range(layers):
        x = b.add(op, x, b.const(np.ones((16, 1, 3, 3), np.int8)))
    return b.finish({"y": x}, {})


def test_the_auditor_knows_how_far_behind_an_input_must_lie() -> None:
    row = 8 * 16
    p = plan(Module("m", (_depthwise(4),)), target("cortex_m4f"))
    first, second, *_ = steps = p.entries[0].steps
    assert second.lowered.lead == 2 * row
    there = first.outputs[0].place.offset - second.outputs[0].place.offset
    assert there == 2 * row and audit(p) == []
    assert p.arena_bytes < 2 * 8 * row
    lowered = replace(second.lowered, lead=there + 1)
    altered = replace(p.entries[0], steps=(first, replace(second, lowered=lowered), *steps[2:]))
    (found,) = audit(replace(p, entries=(altered,)))
    assert "output 0 overwrites input 0 while it is read" in found
