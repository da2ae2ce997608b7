"""Every pass keeps the answers of graphs over the whole op table, in every dtype, and is done."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from any_graphs import any_graphs, feeds
from sparrow.evidence.outputs import may_tip
from sparrow.graph import Graph, verify
from sparrow.passes import PIPELINE
from sparrow.reference import evaluate
from sparrow.tensor import BF16, F16, Array

# Of the largest magnitude: a chain of sums in another order; half types are rounded elsewhere.
SHARE, HALF_SHARE = 2e-4, 0.05


def apart(a: Array, b: Array, share: float) -> bool:
    """Whether two answers differ by more than rounding; integers by anything."""
    if a.dtype.kind != "f":
        return not np.array_equal(a, b)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return True
    scale = max(1.0, float(np.abs(a[finite]).max(initial=0)))
    return bool((np.abs(a[finite] - b[finite]) > share * scale).any())


@pytest.mark.parametrize("alone", [False, True], ids=["after the others", "alone"])
@given(g=any_graphs(8))
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_each_pass_keeps_the_answers_and_is_done(alone: bool, g: Graph) -> None:
    given_ = feeds(g)
    with np.errstate(all="ignore"):
        wanted = evaluate(g, given_)
    half = any(t.dtype in (F16, BF16) for t in g.types.values())
    # where a network rounds or picks, a difference in the last bit may move a value by a step
    tips = may_tip([g])
    for p in PIPELINE:
        after = p(g)
        verify(after)
        again = p(after)
        assert again is after or again.nodes == after.nodes, p.name
        with np.errstate(all="ignore"):
            found = evaluate(after, given_)
        for name, want in wanted.items():
            y = found[name]
            assert (y.shape, y.dtype) == (want.shape, want.dtype), f"{p.name}: {name}"
            assert tips or not apart(want, y, HALF_SHARE if half else SHARE), f"{p.name}: {name}"
        g = g if alone else after
