"""Reductions of stacked tensors as elementwise chains, against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from emitted import planned
from sparrow.builder import Builder
from sparrow.graph import Graph
from sparrow.kernels.case import Invoke
from sparrow.ops.concat import Concat
from sparrow.ops.reduce import Reduce, ReduceKind
from sparrow.passes.stacks import MOST, reduced_stack
from sparrow.reference import evaluate
from sparrow.rewrite import apply_rules
from sparrow.tensor import F16, F32, I32, Array, DType, TensorType

RULES = (("reduced_stack", reduced_stack),)


def stacked(
    kind: ReduceKind,
    axes: tuple[int, ...],
    extents: tuple[int, ...] = (1, 1, 1),
    dtype: DType = F32,
) -> tuple[Graph, dict[str, Array]]:
    """A reduction over ``axes`` of tensors [2, extent, 3] joined along axis 1."""
    b, rng = Builder("g"), np.random.default_rng(7)
    feeds = {
        f"x{i}": (4 * rng.standard_normal((2, extent, 3))).astype(dtype.numpy)
        for i, extent in enumerate(extents)
    }
    parts = [b.input(name, TensorType(x.shape, dtype)) for name, x in feeds.items()]
    return b.finish({"y": b.add(Reduce(kind, axes), b.add(Concat(1), *parts))}, {}), feeds


@pytest.mark.parametrize("kind", ["max", "min", "sum", "prod", "mean"])
def test_the_stack_is_gone(kind: ReduceKind) -> None:
    g, feeds = stacked(kind, (1,))
    h = apply_rules(g, RULES)
    assert not any(isinstance(n.op, Concat | Reduce) for n in h.nodes)
    np.testing.assert_allclose(evaluate(h, feeds)["y"], evaluate(g, feeds)["y"], rtol=1e-6)


@pytest.mark.parametrize("kind", ["max", "sum"])
def test_further_axes_are_reduced_afterwards(kind: ReduceKind) -> None:
    g, feeds = stacked(kind, (1, 2))
    h = apply_rules(g, RULES)
    assert [n.op for n in h.nodes if isinstance(n.op, Reduce)] == [Reduce(kind, (2,))]
    np.testing.assert_allclose(evaluate(h, feeds)["y"], evaluate(g, feeds)["y"], rtol=1e-5)


def test_integers_and_no_number() -> None:
    g, feeds = stacked("sum", (1,), dtype=I32)
    h = apply_rules(g, RULES)
    assert not any(isinstance(n.op, Concat) for n in h.nodes)
    np.testing.assert_array_equal(evaluate(h, feeds)["y"], evaluate(g, feeds)["y"])
    g, feeds = stacked("max", (1,))
    feeds["x1"][0, 0, 1] = np.nan
    y = evaluate(apply_rules(g, RULES), feeds)["y"]
    np.testing.assert_array_equal(y, evaluate(g, feeds)["y"])
    assert np.isnan(y).sum() == 1


@pytest.mark.parametrize(
    ("kind", "axes", "extents", "dtype"),
    [
        ("max", (1,), (1, 2, 1), F32),
        ("max", (2,), (1, 1, 1), F32),
        ("mean", (1, 2), (1, 1), F32),
        ("mean", (1,), (1, 1), I32),
        ("sum", (1,), (1, 1), F16),
        ("max", (1,), (1,) * (MOST + 1), F32),
    ],
)
def test_others_stay(
    kind: ReduceKind, axes: tuple[int, ...], extents: tuple[int, ...], dtype: DType
) -> None:
    g, _ = stacked(kind, axes, extents, dtype)
    assert apply_rules(g, RULES).nodes == g.nodes


def test_a_stack_that_is_read_elsewhere_stays() -> None:
    b = Builder("g")
    parts = [b.input(f"x{i}", TensorType((2, 1, 3), F32)) for i in range(2)]
    joined = b.add(Concat(1), *parts)
    g = b.finish({"y": b.add(Reduce("max", (1,)), joined), "z": joined}, {})
    assert apply_rules(g, RULES).nodes == g.nodes


@pytest.mark.parametrize("rows", [16 * 70, 16 * 71 + 5])
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_whole_vectors_of_short_rows(rows: int, threads: int) -> None:
    """Rows that fill no vector are added up in another order: the same ones on all threads."""
    b = Builder("g")
    g = b.finish({"y": b.add(Reduce("sum", (1,)), b.input("x", TensorType((rows, 40), F32)))}, {})
    p = planned(g, isa="avx512", threads=threads)
    (step,) = p.entries[0].steps
    call = step.lowered.calls[0]
    assert isinstance(call, Invoke)
    each = call.params["task_rows"]
    assert isinstance(each, int) and each < rows and each % p.target.isa.lanes == 0
