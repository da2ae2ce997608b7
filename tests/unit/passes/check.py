"""What the tests of passes share: graphs from a few lines, and equality before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sparrow.builder import Builder
from sparrow.graph import Graph, verify
from sparrow.reference import evaluate
from sparrow.rewrite import Remark, Rule, apply_rules
from sparrow.tensor import F32, Array, DType, TensorType


class Net(Builder):
    """A Builder with a seeded source of weights."""

    def __init__(self) -> None:
        super().__init__("net")
        self.rng = np.random.default_rng(1)

    def x(self, *shape: int, name: str = "x", dtype: DType = F32) -> str:
        """A graph input."""
        return self.input(name, TensorType(shape, dtype))

    def w(self, *shape: int) -> str:
        """A float32 constant."""
        return self.const(self.rng.standard_normal(shape).astype(np.float32))

    def f(self, value: float) -> str:
        """A float32 scalar."""
        return self.scalar(value, F32)

    def done(self, *values: str) -> Graph:
        """The graph with outputs y0, y1, .."""
        return self.finish({f"y{i}": v for i, v in enumerate(values)}, {})


def feeds(g: Graph, seed: int = 0) -> dict[str, Array]:
    """One random array per input; whole numbers for integers, both for bool."""
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for name in g.inputs:
        t = g.types[name]
        if t.dtype.kind == "float":
            found[name] = rng.standard_normal(t.shape).astype(t.dtype.numpy)
        else:
            found[name] = rng.integers(0, 3, t.shape).astype(t.dtype.numpy)
    return found


def assert_same(
    before: Graph, after: Graph, given: Mapping[str, Array] | None = None, tol: float = 1e-5
) -> None:
    """Same interface, valid, and equal answers within ``tol`` of the largest magnitude."""
    verify(after)
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    given = feeds(before) if given is None else given
    want, got = evaluate(before, given), evaluate(after, given)
    assert want.keys() == got.keys()
    for name, w in want.items():
        a, b = before.types[name], after.types[name]
        assert (a.shape, a.dtype, a.quant) == (b.shape, b.dtype, b.quant), name
        g = got[name]
        if w.dtype.kind != "f":
            np.testing.assert_array_equal(g, w, err_msg=name)
            continue
        finite = np.abs(w[np.isfinite(w)])
        scale = float(finite.max()) if finite.size else 1.0
        np.testing.assert_allclose(g, w, rtol=tol, atol=tol * scale, err_msg=name)


def run(g: Graph, *rules: Rule) -> tuple[Graph, list[Remark]]:
    """The graph after some rules, checked against before, and their remarks."""
    remarks: list[Remark] = []
    named = tuple((r.__name__, r) for r in rules)
    after = apply_rules(g, named, remarks)
    assert_same(g, after)
    assert apply_rules(after, named) is after, "a second application changes something"
    return after, remarks


def kinds(g: Graph) -> list[str]:
    """Operator names in order."""
    return [type(n.op).__name__ for n in g.nodes]


def becomes(g: Graph, rules: Sequence[Rule], want: Sequence[str]) -> Graph:
    """Assert which ops are left; returns the graph."""
    after, _ = run(g, *rules)
    assert kinds(after) == list(want)
    return after


def refused(g: Graph, rule: Rule, why: str) -> None:
    """Assert that nothing changes and a reason contains ``why``."""
    after, remarks = run(g, rule)
    assert after is g
    assert any(why in r.text for r in remarks), [r.text for r in remarks]


Build = Callable[[Net], Graph]
