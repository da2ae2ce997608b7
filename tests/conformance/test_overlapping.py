"""Chains of layers over codes, planned where RAM is short and compiled here, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from code_chains import chain
from emitted import TARGETS, compiled, session
from sparrow.builder import Builder
from sparrow.graph import Module
from sparrow.kernels import COMPACT, KERNELS
from sparrow.kernels.case import Kernel
from sparrow.memory.audit import audit
from sparrow.ops.pool import Pool
from sparrow.plan import View
from sparrow.planner import plan
from sparrow.reference import evaluate
from sparrow.targets import target
from sparrow.tensor import I16, TensorType

CHAINS = 12


def _meets(x: View | None, y: View) -> bool:
    """Whether two values lie on the same bytes of the arena."""
    if x is None or x.place.kind != "arena" or y.place.kind != "arena":
        return False
    a, b = ((v.place.offset + v.span[0], v.place.offset + v.span[1]) for v in (x, y))
    return a[0] < b[1] and b[0] < a[1]


@pytest.mark.parametrize("isa", ("scalar", "avx2"))
@pytest.mark.parametrize("table", (KERNELS, COMPACT), ids=("fast", "compact"))
def test_results_run_over_what_they_are_made_from(
    table: Sequence[Kernel], isa: str, tmp_path: Path
) -> None:
    here = target(TARGETS[isa])
    there = replace(here, triple="x86_64-freestanding-none")
    graphs = tuple(chain(seed) for seed in range(CHAINS))
    p = plan(Module("m", graphs), there, kernels=table)
    assert audit(p) == []
    run = session(p, compiled(replace(p, target=here), tmp_path))
    shared = 0
    for e, g in enumerate(graphs):
        rng = np.random.default_rng(e)
        x = rng.integers(-128, 128, g.types["x"].shape).astype(np.int8)
        want = evaluate(g, {"x": x})["y"]
        assert np.unique(want).size > 8 or want.size < 32
        (y,) = run.run(e, [x])
        np.testing.assert_array_equal(y, want, err_msg=str(e))
        shared += sum(_meets(s.inputs[0], s.outputs[0]) for s in p.entries[e].steps)
    assert shared >= CHAINS // 2


def test_maxima_of_16_bits_lie_as_far_apart_as_their_bytes_ask(tmp_path: Path) -> None:
    here = target(TARGETS["scalar"])
    there = replace(here, triple="x86_64-freestanding-none")
    b = Builder("maxima")
    x = y = b.input("x", TensorType((1, 12, 9, 5), I16))
    for _ in range(3):
        y = b.add(Pool("max", (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), channels_last=True), y)
    g = b.finish({"y": y}, {})
    p = plan(Module("m", (g,)), there)
    assert audit(p) == []
    steps = p.entries[0].steps
    assert any(_meets(s.inputs[0], s.outputs[0]) for s in steps)
    run = session(p, compiled(replace(p, target=here), tmp_path))
    values = np.random.default_rng(0).integers(-(1 << 15), 1 << 15, g.types[x].shape)
    feeds = {x: values.astype(np.int16)}
    (got,) = run.run(0, [feeds[x]])
    np.testing.assert_array_equal(got, evaluate(g, feeds)["y"])
