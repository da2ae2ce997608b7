"""Random chains of layers over 8-bit codes."""

from __future__ import annotations

import numpy as np

from sparrow import lane
from sparrow.builder import Builder
from sparrow.graph import Graph
from sparrow.ops.conv import Conv
from sparrow.ops.pool import Pool
from sparrow.tensor import F32, I8, I32, TensorType


def narrowed(scale: float) -> lane.Expr:
    """A sum brought to 8 bits."""
    f = lane.call("mul", lane.cast(lane.Arg(0, I32), F32), lane.Imm(scale, F32))
    low, high = lane.Imm(-128.0, F32), lane.Imm(127.0, F32)
    return lane.cast(lane.call("min", lane.call("max", lane.call("round", f), low), high), I8)


def chain(seed: int, layers: int = 6) -> Graph:
    """Depthwise, pointwise and full convolutions and pooling; any strides, pads and tails."""
    rng = np.random.default_rng(seed)

    def pick(*options: int) -> int:
        return int(rng.choice(options))

    b = Builder(f"chain{seed}")
    shape = (1, pick(9, 14, 23), pick(7, 12, 17), pick(3, 4, 8, 13))
    x = b.input("x", TensorType(shape, I8))
    for _ in range(layers):
        c = b.shape(x)[-1]
        kind = pick(0, 0, 1, 1, 2, 3)
        k = 1 if kind == 1 else pick(2, 3, 3, 5)
        pads = tuple((int(rng.integers(0, k)), int(rng.integers(0, k))) for _ in range(2))
        strides = (pick(1, 1, 1, 2), pick(1, 1, 2))
        if min(n + sum(p) - k for n, p in zip(b.shape(x)[1:3], pads, strict=True)) < 0:
            break
        if kind == 3:
            x = b.add(Pool("max", (k, k), strides, (1, 1), pads, channels_last=True), x)
            continue
        m = c if kind == 0 else pick(4, 8, 13, 24)
        each = 1 if kind == 0 else c
        zero, scale = pick(-128, 0, 5), 1 / (60 * np.sqrt(each * k * k))
        w = b.const(rng.integers(-99, 99, (m, each, k, k)).astype(np.int8))
        group = c if kind == 0 else 1
        op = Conv(strides, (1, 1), pads, group, True, narrowed(float(scale)), zero)
        x = b.add(op, x, w)
    return b.finish({"y": x}, {})
