"""Float32 convolutions in groups of few channels are computed several groups at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emitted import compiled, convolved, planned
from sparrow import lane
from sparrow.builder import Builder
from sparrow.graph import Graph
from sparrow.ops.conv import Conv
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
    calls = [convolved(p, library, i) for i in range(ROUNDS)]
    fewer = sum(call.params.get("groups", 1) != op.group for op, call in calls)
    assert fewer > ROUNDS // 4
