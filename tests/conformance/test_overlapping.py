"""Chains of layers over codes, planned where RAM is short and compiled here, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from code_chains import chain
from emitted import TARGETS, compiled, session
from sparrow.graph import Module
from sparrow.kernels import COMPACT, KERNELS
from sparrow.kernels.case import Kernel
from sparrow.memory.audit import audit
from sparrow.plan import View, plan
from sparrow.reference import evaluate
from sparrow.targets import target

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
