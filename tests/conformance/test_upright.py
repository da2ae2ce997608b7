"""Float32 convolutions of one output pixel a row are computed as rows of pixels."""

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

ROUNDS = 12


def upright(seed: int) -> Graph:
    """Dense, in groups or depthwise; images one wide, kernels as wide as they are, pads, steps."""
    rng = np.random.default_rng(seed)

    def n(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    group = (1, 1, 2, 0)[seed % 4]
    ci, co = n(1, 20), n(1, 40)
    wide, kh, sh, dh = n(1, 6), n(1, 5), n(1, 3), n(1, 2)
    kw = (wide, n(1, wide))[n(0, 1)]
    pads = ((n(0, 3), n(0, 3)), (0, 0))
    if kw == wide and n(0, 1):
        pads = (pads[0], (n(0, 1), n(0, 1)))
        kw += sum(pads[1])
    channels, depthwise = ci * (group or 1), group == 0
    b = Builder(f"upright{seed}")
    x = b.input("x", TensorType((n(1, 2), n(10, 40), wide, channels), F32, "NHWC"))
    shape = (channels, 1, kh, kw) if depthwise else (co * group, ci, kh, kw)
    w = b.const(rng.standard_normal(shape, np.float32) * np.float32((ci * kh * kw) ** -0.5))
    bias = b.const(rng.standard_normal(shape[0], np.float32))
    op = Conv((sh, wide), (dh, 1), pads, channels if depthwise else group, True)
    y = b.add(op, x, w, bias)
    rest = b.input("rest", b.type(y))
    y = b.lane(lane.call("relu", lane.call("add", b.arg(0, y), b.arg(1, rest))), y, rest)
    return b.finish({"y": y}, {})


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_column_of_pixels_is_a_row(isa: str, threads: int, tmp_path: Path) -> None:
    graphs = [upright(seed) for seed in range(ROUNDS)]
    p = planned(*graphs, isa=isa, threads=threads)
    library = compiled(p, tmp_path, parts=True, flags=("-O1",))
    for i in range(ROUNDS):
        _, call = convolved(p, library, i)
        assert call.struct == "sp_gemm" or call.params["oh"] == 1
