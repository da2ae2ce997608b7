"""Layers in strips that stay in L2: where that gains, and the same answers to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emitted import compiled, session
from sparrow.builder import Builder
from sparrow.graph import Graph, Module, verify
from sparrow.memory.audit import audit
from sparrow.ops.conv import Conv
from sparrow.plan import Plan
from sparrow.planner import plan
from sparrow.rewrite import Remark
from sparrow.schedule.blocking import BLOCKING
from sparrow.schedule.row import rearranged
from sparrow.targets import Target, target
from sparrow.tensor import F32, TensorType

# Arithmetic of a kilobyte costs less than to read it from behind a small L2.
NEAR = replace(target("x86_64_v3"), l2_bytes=1 << 16, cache_gbs=1.0)


def bottleneck(rows: int = 40, wide: int = 48, group: bool = True) -> Graph:
    """Expand, filter every channel by itself or all together, project."""
    b = Builder("bottleneck")
    rng = np.random.default_rng(1)

    def conv(x: str, m: int, k: int, groups: int = 1) -> str:
        w = rng.standard_normal((m, b.shape(x)[-1] // groups, k, k)).astype(np.float32)
        pads = ((k // 2, k // 2), (k // 2, k // 2))
        return b.add(Conv((1, 1), (1, 1), pads, groups, True), x, b.const(w))

    x = b.input("x", TensorType((1, rows, 20, 8), F32))
    middle = conv(conv(x, wide, 1), wide, 3, wide if group else 1)
    return b.finish({"y": conv(middle, 8, 1)}, {})


def found(g: Graph, t: Target, threads: int = 1) -> tuple[Plan, Plan, list[Remark]]:
    """The plan as it is and that in strips."""

    def planned(m: Module) -> Plan:
        return plan(m, t, threads=threads)

    whole, remarks = planned(Module("m", (g,))), list[Remark]()
    return whole, rearranged(BLOCKING, whole, planned, remarks), remarks


@pytest.mark.parametrize("threads", (1, 2))
def test_what_leaves_l2_is_computed_in_strips(threads: int) -> None:
    whole, strips, remarks = found(bottleneck(), NEAR, threads)
    assert [r.rule for r in remarks] == ["blocks"] and "strips" in remarks[0].text
    assert strips.arena_bytes < whole.arena_bytes / 2
    assert audit(strips) == []
    verify(strips.module.entries[0])
    # weights are stored once however many strips read them
    assert len(strips.weights) <= 1.05 * len(whole.weights)


def test_the_answers_are_the_same_to_the_bit(tmp_path: Path) -> None:
    """Whatever the number of threads: strips differ with it."""
    g = bottleneck()
    x = np.random.default_rng(0).standard_normal(g.types["x"].shape).astype(np.float32)
    results = []
    for threads in (1, 2):
        for k, p in enumerate(found(g, NEAR, threads)[:2]):
            folder = tmp_path / f"{threads}{k}"
            folder.mkdir()
            (y,) = session(p, compiled(p, folder)).run(0, [x])
            results.append(y)
    for y in results[1:]:
        np.testing.assert_array_equal(y, results[0])


@pytest.mark.parametrize(
    "t",
    (
        replace(NEAR, l2_bytes=1 << 22),
        replace(NEAR, cache_gbs=1000.0),
        replace(NEAR, triple="x86_64-freestanding-none"),
    ),
    ids=("all fits", "memory keeps up", "firmware"),
)
def test_nothing_changes_where_nothing_is_gained(t: Target) -> None:
    whole, same, remarks = found(bottleneck(), t)
    assert same.module is whole.module and not remarks


def test_winograd_layers_stay_whole() -> None:
    """Its tiles are of four rows, which other strips would begin elsewhere."""
    g = bottleneck(rows=400, wide=64, group=False)
    whole, strips, _ = found(g, replace(NEAR, l2_bytes=1 << 20))
    assert "winograd_f32" in {s.kernel for s in whole.entries[0].steps}
    cut = {s.kernel for s in strips.entries[0].steps if " rows " in s.node.origin}
    assert "winograd_f32" not in cut
