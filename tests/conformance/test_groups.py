"""Float32 convolutions in groups of few channels are computed several groups at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emitted import compiled, planned, run
from sparrow import lane
from sparrow.builder import Builder
from sparrow.graph import Graph
from sparrow.kernels.case import Invoke
from sparrow.ops.conv import Conv
from sparrow.reference import evaluate
from sparrow.tensor import F32, TensorType

ROUNDS = 16


def grouped(seed: int) -> Graph:
    """Groups that divide evenly or not, of channels that give one result or several."""
    rng = np.random.default_rng(seed)

    def n(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    group, ci, co = n(1, 2) * n(2, 9), n(1, 6), n(1, 6)
    co += ci == co == 1
    kernel, pads = (n(1, 3), n(1, 3)), ((n(0, 2), n(0, 2)), (n(0, 2), n(0, 2)))
    b = Builder(f"grouped{seed}")
    x = b.input("x", TensorType((n(1, 2), n(5, 12), n(5, 12), group * ci), F32, "NHWC"))
    w = rng.standard_normal((group * co, ci, *kernel), np.float32)
    op = Conv((n(1, 2), n(1, 2)), (1, n(1, 2)), pads, group, True)
    bias = rng.standard_normal(group * co, np.float32)
    y = b.add(op, x, b.const(w * np.float32(w[0].size ** -0.5)), b.const(bias))
    rest = b.input("rest", b.type(y))
    y = b.lane(lane.call("relu", lane.call("add", b.arg(0, y), b.arg(1, rest))), y, rest)
    return b.finish({"y": y}, {})


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
@pytest.mark.parametrize("threads", [1, 3])
def test_groups_of_few_channels_are_taken_together(isa: str, threads: int, tmp_path: Path) -> None:
    graphs = [grouped(seed) for seed in range(ROUNDS)]
    p = planned(*graphs, isa=isa, threads=threads)
    library = compiled(p, tmp_path, parts=True, flags=("-O1",))
    fewer = 0
    for i, g in enumerate(graphs):
        rng = np.random.default_rng(i)
        feeds = {n: rng.standard_normal(g.types[n].shape, np.float32) for n in g.inputs}
        one, two = (run(p, library, feeds, i, k) for k in (1, 2))
        np.testing.assert_allclose(one[0], evaluate(g, feeds)["y"], 2e-5, 2e-5, err_msg=g.name)
        assert one[0].tobytes() == two[0].tobytes()
        step = next(s for s in p.entries[i].steps if isinstance(s.node.op, Conv))
        (call,) = step.lowered.calls
        assert isinstance(call, Invoke) and isinstance(step.node.op, Conv)
        fewer += call.params.get("groups", 1) != step.node.op.group
    assert fewer > ROUNDS // 4
