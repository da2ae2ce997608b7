"""Graphs of many kinds of steps, for tests of emitted code."""

from __future__ import annotations

import numpy as np

from sparrow import lane
from sparrow.builder import Builder
from sparrow.graph import Graph
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.ops.slice import Slice
from sparrow.ops.softmax import Softmax
from sparrow.tensor import F16, F32, I8, I64, TensorType

RELU = lane.call("relu", lane.Arg(0, F32))


def network() -> Graph:
    """Convolutions of every kind, shared bodies, concatenation, residual, product, movement."""
    b = Builder("network")
    rng = np.random.default_rng(0)

    def conv(x: str, m: int, k: int, stride: int = 1, group: int = 1) -> str:
        c = b.shape(x)[-1]
        w = rng.standard_normal((m, c // group, k, k)).astype(np.float32) / (c * k)
        op = Conv((stride, stride), (1, 1), ((k // 2, k // 2),) * 2, group, True, RELU)
        return b.add(op, x, b.const(w), b.const(rng.standard_normal(m).astype(np.float32)))

    x = b.transpose(b.input("image", TensorType((1, 3, 21, 18), F32)), (0, 2, 3, 1))
    y = conv(conv(x, 16, 3, 2), 16, 3, 1, 16)
    y = b.call("add", conv(y, 16, 1), conv(conv(y, 16, 1), 16, 1))
    y = b.add(Concat(3), y, conv(y, 8, 3), conv(y, 5, 1))
    half = b.add(Slice((0, 10, 0, 0), (1, 5, 9, 29), (1, -1, 1, 1)), y)
    flat = b.reshape(b.transpose(half, (0, 3, 1, 2)), (29, 45))
    w = b.const(rng.standard_normal((45, 10)).astype(np.float32) / 7)
    scores = b.add(Softmax(1), b.add(MatMul(), flat, w))
    return b.finish({"scores": scores, "features": b.transpose(y, (0, 3, 1, 2))}, {})


def arithmetic() -> Graph:
    """Loops over many dtypes."""
    b = Builder("arithmetic")
    x = b.input("x", TensorType((7, 19), F32))
    n = b.input("n", TensorType((19,), I64))
    h = b.cast(b.call("tanh", x), F16)

    def codes(v: str) -> str:
        return b.cast(b.call("round", b.call("mul", v, b.scalar(9.0, F32))), I8)

    q = codes(x)
    image = b.input("image", TensorType((3, 9, 17), F32))
    outputs = {
        "half": h,
        "q": q,
        "pixels": b.transpose(codes(image), (1, 2, 0)),
        "less": b.call("lt", b.cast(q, F32), x),
        "mod": b.call("mod", n, b.const(np.array(7))),
        "sum": b.call("add", b.cast(h, F32), b.cast(n, F32)),
        "erf": b.call("erf", b.transpose(x, (1, 0))),
    }
    return b.finish(outputs, {})


GRAPHS = {"network": network, "arithmetic": arithmetic}
