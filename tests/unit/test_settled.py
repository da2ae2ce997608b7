"""Buffers that threads share keep their cores: every byte is written by the same one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_chains import chain
from sparrow.builder import Builder
from sparrow.graph import Module
from sparrow.memory.arena import Item, lower_bound
from sparrow.memory.audit import audit
from sparrow.memory.partition import share
from sparrow.memory.settled import Seams, settle
from sparrow.memory.stages import uses_of
from sparrow.ops.conv import Conv
from sparrow.plan import Plan
from sparrow.planner import plan
from sparrow.targets import target
from sparrow.tensor import F32, TensorType


@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(
            st.integers(0, 5000), st.integers(0, 12), st.integers(0, 5), st.integers(0, 1 << 30)
        ),
        max_size=14,
    ),
)
def test_settled_items_do_not_overlap(columns: int, raw: list[tuple[int, int, int, int]]) -> None:
    items = [Item(size, first, first + more) for size, first, more, _ in raw]
    seams: list[Seams] = []
    for size, _, _, seed in raw:
        cuts = np.sort(np.random.default_rng(seed).integers(0, size + 1, columns))
        seams.append(tuple(cuts.tolist()) if seed % 5 else ())
    offsets, total = settle(items, seams)
    assert lower_bound(items) <= total <= 2 * sum(x.bytes + 64 for x in items)
    for i, a in enumerate(items):
        assert offsets[i] % 64 == 0 and 0 <= offsets[i] <= offsets[i] + a.bytes <= max(total, 0)
        for j, b in enumerate(items[:i]):
            if a.first <= b.last and b.first <= a.last and a.bytes and b.bytes:
                assert offsets[i] + a.bytes <= offsets[j] or offsets[j] + b.bytes <= offsets[i]
    assert settle(items, seams) == (offsets, total)


def test_memory_may_count_for_more_than_bytes_that_change_cores() -> None:
    lives = [(3840, 0, 0), (3840, 1, 2), (5760, 2, 3), (3200, 3, 3), (5120, 4, 5)]
    items = [Item(*life) for life in lives]
    seams = [(1920, 3840), (0, 3840), (1408, 5760), (3200, 3200), (0, 5120)]
    (near, large), (tight, small) = settle(items, seams), settle(items, seams, 4)
    assert small == lower_bound(items) < large
    assert changes(near, seams) < changes(tight, seams)


def test_halves_of_a_chain_meet_at_their_seams() -> None:
    """Sizes that grow and shrink; where all begin at one of two places many bytes change cores."""
    sizes = [6400, 1280, 3840, 640, 5120, 2560]
    items = [Item(s, k, k + 1) for k, s in enumerate(sizes)]
    seams = [(s // 2, s) for s in sizes]
    offsets, total = settle(items, seams)
    assert changes(offsets, seams) < changes([0, 6400] * 3, seams) / 4
    assert total <= 1.25 * lower_bound(items)


def changes(offsets: Sequence[int], seams: Sequence[Seams]) -> int:
    """Bytes that one column writes and another one next, items in order."""
    owner = np.full(1 << 14, -1)
    found = 0
    for at, ends in zip(offsets, seams, strict=True):
        for k, (low, high) in enumerate(pairwise((0, *ends))):
            part = owner[at + low : at + high]
            found += int(((part >= 0) & (part != k)).sum())
            part[:] = k
    return found


def planned(threads: int) -> Plan:
    b, rng = Builder("chain"), np.random.default_rng(1)
    y = b.input("x", TensorType((1, 28, 28, 16), F32))
    for m in (48, 24, 64, 16, 56):
        w = rng.standard_normal((m, b.shape(y)[-1], 1, 1)).astype(np.float32)
        y = b.add(Conv((1, 1), (1, 1), ((0, 0), (0, 0)), 1, True), y, b.const(w))
    near = replace(target("x86_64_v3"), fork_ns=0.0, move_ns_per_byte=0.0)
    return plan(Module("m", (b.finish({"y": y}, {}),)), near, threads=threads)


def test_bytes_of_a_plan_keep_their_core() -> None:
    p = planned(2)
    steps = p.entries[0].steps
    assert audit(p) == [] and all(s.column is None and s.lowered.tasks > 1 for s in steps)
    inner = [s for s in steps if s.outputs[0].place.kind == "arena"]
    seams = []
    for s in inner:
        tasks = share(s.lowered.tasks, 2)
        ends = [max(u.high for u in uses_of(s, t) if u.written) for t in tasks]
        seams.append(tuple(e - s.outputs[0].place.offset for e in ends))
    lines = changes([s.outputs[0].place.offset for s in inner], seams) / 64
    assert len(inner) == 4 and lines <= 16
    assert p.arena_bytes <= 1.05 * planned(1).arena_bytes


@pytest.mark.parametrize("name", ["x86_64_v3", "wasm32_relaxed"])
@pytest.mark.parametrize("threads", [3, 4, 8])
def test_steps_of_fewer_tasks_than_columns_have_seams_that_are_known_of_all(
    name: str, threads: int
) -> None:
    near = replace(target(name), fork_ns=0.0, move_ns_per_byte=0.0)
    for seed in range(8):
        assert audit(plan(Module("m", (chain(seed),)), near, threads=threads)) == []
