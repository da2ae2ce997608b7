"""Chains of layers that are divided among threads or strips, and whether answers stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from emitted import compiled, session
from sparrow import lane
from sparrow.builder import Builder
from sparrow.graph import Graph
from sparrow.ops.conv import Conv
from sparrow.ops.pool import Pool
from sparrow.plan import Plan
from sparrow.rewrite import Remark
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


@st.composite
def runs(draw: st.DrawFn) -> tuple[Graph, int, int]:
    """A chain, and the first and last node of a run of its layers."""
    g = draw(st.integers(0, 10_000).map(chain).filter(lambda g: len(g.nodes) > 1))
    first = draw(st.integers(0, len(g.nodes) - 2))
    return g, first, draw(st.integers(first + 1, len(g.nodes) - 1))


def bottleneck(shape: tuple[int, ...], wide: int) -> Graph:
    """An inverted bottleneck of 5x5 taps over float32."""
    b, rng = Builder("floats"), np.random.default_rng(1)
    relu = lane.call("relu", lane.Arg(0, F32))

    def conv(x: str, m: int, k: int, group: int = 1) -> str:
        w = rng.standard_normal((m, b.shape(x)[-1] // group, k, k)).astype(np.float32)
        return b.add(Conv((1, 1), (1, 1), ((k // 2,) * 2,) * 2, group, True, relu), x, b.const(w))

    x = b.input("x", TensorType(shape, F32))
    return b.finish({"y": conv(conv(conv(x, wide, 1), wide, 5, wide), shape[-1], 1)}, {})


def assert_threads_change_no_bit(
    g: Graph, found: Callable[[int], tuple[Plan, list[Remark]]], folder: Path
) -> None:
    """Compile what is ``found`` for 1 to 3 threads, divided where there are several: one answer.

    Args:
        g: A graph with one input, x, and one output.
        found: Number of threads -> plan, and what was divided.
        folder: An empty folder.
    """
    rng, t = np.random.default_rng(0), g.types["x"]
    x = rng.integers(-128, 128, t.shape).astype(t.dtype.numpy)
    results = []
    for threads in (1, 2, 3):
        p, remarks = found(threads)
        assert bool(remarks) == (threads > 1)
        own = folder / str(threads)
        own.mkdir()
        results += session(p, compiled(p, own)).run(0, [x])
    for y in results[1:]:
        np.testing.assert_array_equal(y, results[0])
