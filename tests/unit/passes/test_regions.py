"""Assignments to fixed regions as concatenations, against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from sparrow.builder import Builder
from sparrow.graph import Graph
from sparrow.ops.concat import Concat
from sparrow.ops.reshape import Reshape
from sparrow.ops.scatter import ScatterND
from sparrow.ops.slice import Slice
from sparrow.passes.regions import box_of, scatter_region, slice_of_concat
from sparrow.passes.tidy import TIDY
from sparrow.reference import evaluate
from sparrow.rewrite import apply_rules
from sparrow.tensor import F32, Array, TensorType

RULES = (("scatter_region", scatter_region), ("slice_of_concat", slice_of_concat), *TIDY)


def walk(starts: tuple[int, ...], sizes: tuple[int, ...]) -> Array:
    """Index vectors of a box in order."""
    index: Array = np.moveaxis(np.indices(sizes), 0, -1).astype(np.int64) + np.array(starts)
    return index


def assigned(
    shape: tuple[int, ...], starts: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[Graph, dict[str, Array]]:
    """One assignment of a box to a graph input."""
    b = Builder("g")
    x = b.input("x", TensorType(shape, F32))
    u_shape = (*sizes, *shape[len(sizes) :])
    u = b.input("u", TensorType(u_shape, F32))
    y = b.add(ScatterND(), x, b.const(walk(starts, sizes)), u)
    rng = np.random.default_rng(1)
    feeds = {
        n: rng.standard_normal(s).astype(np.float32) for n, s in (("x", shape), ("u", u_shape))
    }
    return b.finish({"y": y}, {}), feeds


@pytest.mark.parametrize(
    ("shape", "starts", "sizes", "joins"),
    [
        ((4, 3), (1,), (2,), 1),
        ((4, 3), (0, 1), (4, 2), 1),
        ((4, 5, 6), (1, 0, 2), (2, 5, 3), 2),
        ((2, 3, 4), (1, 2, 3), (1, 1, 1), 3),
        ((2, 3), (0, 0), (2, 3), 0),
        ((5,), (-2,), (2,), 1),
    ],
)
def test_box(
    shape: tuple[int, ...], starts: tuple[int, ...], sizes: tuple[int, ...], joins: int
) -> None:
    g, feeds = assigned(shape, starts, sizes)
    h = apply_rules(g, RULES)
    assert sum(isinstance(n.op, Concat) for n in h.nodes) == joins
    assert not any(isinstance(n.op, ScatterND) for n in h.nodes)
    np.testing.assert_array_equal(evaluate(h, feeds)["y"], evaluate(g, feeds)["y"])


def test_only_boxes_in_order() -> None:
    assert box_of(walk((1, 0), (2, 3)), (4, 3)) == ((1, 0), (2, 3))
    assert box_of(walk((1, 0), (2, 3))[::-1], (4, 3)) is None
    assert box_of(walk((3,), (2,)), (4, 3)) is None
    assert box_of(np.array([[[0], [1]]]), (4,)) is None


def test_a_cache_written_whole_is_its_pieces() -> None:
    b = Builder("g")
    cache = b.input("cache", TensorType((1, 6, 3), F32))
    u = [b.input(f"u{i}", TensorType((2, 3), F32)) for i in range(3)]
    x = b.add(Reshape((6, 3)), cache)
    for i in range(3):
        old = b.add(Slice((2 * i, 0), (2, 3), (1, 1)), x)
        x = b.add(ScatterND(), x, b.const(walk((2 * i,), (2,))), b.call("add", old, u[i]))
    g = b.finish({"y": x}, {})
    h = apply_rules(g, RULES)
    (join,) = [n for n in h.nodes if isinstance(n.op, Concat)]
    assert len(join.inputs) == 3
    rng = np.random.default_rng(2)
    feeds = {v: rng.standard_normal(g.types[v].shape).astype(np.float32) for v in g.inputs}
    np.testing.assert_array_equal(evaluate(h, feeds)["y"], evaluate(g, feeds)["y"])


def test_a_dying_tensor_is_written_in_place() -> None:
    b = Builder("g")
    x = b.call("exp", b.input("x", TensorType((4, 3), F32)))
    u = b.input("u", TensorType((2, 3), F32))
    y = b.add(ScatterND(), x, b.const(walk((1,), (2,))), u)
    g = b.finish({"y": y}, {})
    assert any(isinstance(n.op, ScatterND) for n in apply_rules(g, RULES).nodes)
