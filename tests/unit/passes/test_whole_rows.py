"""Indices repeated along rows, against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from sparrow.graph import Graph
from sparrow.ops.gather_elements import GatherElements
from sparrow.ops.pad import Expand
from sparrow.ops.scatter import Reduction, ScatterElements
from sparrow.passes.whole_rows import whole_rows
from sparrow.rewrite import apply_rules
from sparrow.tensor import I64, Array
from unit.passes.check import Net, assert_same

RULES = (("whole_rows", whole_rows),)


def same(g: Graph, op: str, index: Array) -> None:
    rng = np.random.default_rng(0)
    feeds = {
        x: index if x == "i" else rng.standard_normal(g.types[x].shape).astype(np.float32)
        for x in g.inputs
    }
    after = apply_rules(g, RULES)
    assert type(after.nodes[-1].op).__name__ == op
    assert_same(g, after, feeds, tol=0)


@pytest.mark.parametrize(
    ("x", "i", "full", "axis", "op"),
    [
        ((7, 5), (4, 1), (4, 5), 0, "GatherND"),
        ((2, 3, 7, 5), (2, 3, 4, 1), (2, 3, 4, 5), 2, "GatherND"),
        ((7, 5, 2), (4, 1, 1), (4, 5, 2), 0, "GatherND"),
        ((7, 5), (4, 1), (4, 3), 0, "GatherElements"),  # rows that are not whole
        ((7, 5), (5,), (4, 5), 0, "GatherElements"),  # indices of columns
        ((3, 7, 5), (1, 4, 1), (3, 4, 5), 1, "GatherElements"),  # one list for all matrices
    ],
)
def test_rows_are_gathered_whole(
    x: tuple[int, ...], i: tuple[int, ...], full: tuple[int, ...], axis: int, op: str
) -> None:
    n = Net()
    index = n.add(Expand(full), n.x(*i, name="i", dtype=I64))
    g = n.done(n.add(GatherElements(axis), n.x(*x), index))
    size = x[axis]
    # negative ones count from the end, and what is outside is clamped
    same(g, op, np.random.default_rng(1).integers(-size - 2, size + 2, i))


@pytest.mark.parametrize("reduction", ["none", "add", "max"])
def test_rows_are_scattered_whole(reduction: Reduction) -> None:
    n = Net()
    index = n.add(Expand((9, 5)), n.x(9, 1, name="i", dtype=I64))
    g = n.done(n.add(ScatterElements(0, reduction), n.x(4, 5), index, n.x(9, 5, name="u")))
    same(g, "ScatterND", np.random.default_rng(1).integers(-6, 6, (9, 1)))
    n = Net()
    index = n.add(Expand((2, 9, 5)), n.x(2, 9, 1, name="i", dtype=I64))
    x, u = n.x(2, 4, 5), n.x(2, 9, 5, name="u")
    g = n.done(n.add(ScatterElements(1, reduction), x, index, u))
    same(g, "ScatterElements", np.random.default_rng(1).integers(0, 4, (2, 9, 1)))


@pytest.mark.parametrize(
    ("x", "i", "full", "axis", "op"),
    [
        ((7, 5), (4, 1), (4, 5), 0, "GatherND"),
        ((2, 3, 7, 5), (2, 3, 4, 1), (2, 3, 4, 5), 2, "GatherND"),
        ((7, 5), (4, 1), (4, 3), 0, "GatherElements"),  # rows that are not whole
        ((7, 5), (5,), (4, 5), 0, "GatherElements"),  # indices of columns
        ((5, 7), (2, 4), (2, 4), 1, "GatherElements"),  # nothing behind the axis
        ((7, 5), (0, 1), (0, 5), 0, "GatherND"),
    ],
)
def test_constant_indices_of_rows_are_stored_once(
    x: tuple[int, ...], i: tuple[int, ...], full: tuple[int, ...], axis: int, op: str
) -> None:
    n = Net()
    index = np.broadcast_to(np.random.default_rng(1).integers(-9, 9, i), full)
    g = n.done(n.add(GatherElements(axis), n.x(*x), n.const(index.copy())))
    same(g, op, index)


@pytest.mark.parametrize("reduction", ["none", "add", "max"])
def test_constant_indices_of_scattered_rows_are_stored_once(reduction: Reduction) -> None:
    n = Net()
    index = np.random.default_rng(1).integers(-6, 6, (9, 1, 1)).repeat(5, 1).repeat(2, 2)
    x, u = n.x(4, 5, 2), n.x(9, 5, 2, name="u")
    same(n.done(n.add(ScatterElements(0, reduction), x, n.const(index), u)), "ScatterND", index)
    n = Net()
    index[3, 2, 1] += 1
    x, u = n.x(4, 5, 2), n.x(9, 5, 2, name="u")
    g = n.done(n.add(ScatterElements(0, reduction), x, n.const(index), u))
    same(g, "ScatterElements", index)
