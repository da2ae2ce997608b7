"""Convolutions with few output channels, several pixels of a row at once: which, and the sums."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import native_harness
from emitted import BYTES_TARGETS, blob, compiled, linked, session
from sparrow import lane
from sparrow.builder import Builder
from sparrow.device.qemu import emulated_library
from sparrow.graph import Graph, Module, Node, retyped, verify
from sparrow.memory.audit import audit
from sparrow.ops.conv import Conv
from sparrow.passes.pixel_groups import Whole, group_of, grouped
from sparrow.planner import plan
from sparrow.reference import evaluate
from sparrow.rewrite import Remark, namer, prune
from sparrow.schedule.pixel_groups import in_pixel_groups
from sparrow.targets import target
from sparrow.tensor import F32, I8, I32, U8, TensorType


def convolution(
    shape: tuple[int, ...] = (1, 9, 23, 6),
    kernel: tuple[int, ...] = (5, 5),
    m: int = 1,
    stride: int = 1,
    pads: tuple[int, int] = (2, 2),
    scaled: bool = False,
    grown: bool = False,
) -> Graph:
    """With a bias; the sums are ``scaled`` by channel, or an operand with pixels is added."""
    b, rng = Builder("conv"), np.random.default_rng(0)
    n = len(kernel)
    x = b.input("x", TensorType(shape, F32))
    w, bias, scale = (
        b.const(rng.standard_normal(s).astype(np.float32))
        for s in ((m, shape[-1], *kernel), (m,), (m,))
    )
    expr, operands = lane.call("relu", lane.Arg(0, F32)), [x, w, bias]
    steps, ones = (1,) * (n - 1) + (stride,), (1,) * n
    if scaled:
        expr, operands = lane.call("mul", expr, lane.Arg(1, F32)), [*operands, scale]
    bare = Conv(steps, ones, ((0, 0),) * (n - 1) + (pads,), 1, True)
    if grown:
        expr = lane.call("add", expr, lane.Arg(1, F32))
        operands = [*operands, b.add(bare, x, w)]
    op = Conv(steps, ones, ((0, 0),) * (n - 1) + (pads,), 1, True, expr)
    return b.finish({"y": b.add(op, *operands)}, {})


def feeds(g: Graph) -> dict[str, np.ndarray]:
    x = np.random.default_rng(1).standard_normal(g.types["x"].shape)
    return {"x": x.astype(np.float32)}


def of_codes(
    shape: tuple[int, ...] = (1, 3, 23, 6),
    kernel: tuple[int, ...] = (3, 5),
    m: int = 1,
    stride: int = 1,
    pads: tuple[int, int] = (2, 2),
    zero: int = 131,
) -> Graph:
    """The sums of two bytes of 16-bit codes, the low ones unsigned and around ``zero``."""
    b, rng = Builder("codes"), np.random.default_rng(0)
    low, high = b.input("low", TensorType(shape, U8)), b.input("high", TensorType(shape, I8))
    w = b.const(rng.integers(-127, 128, (m, shape[-1], *kernel)).astype(np.int8))
    bias = b.const(rng.integers(-9999, 9999, m).astype(np.int32))
    n = len(kernel)
    op = Conv((1,) * (n - 1) + (stride,), (1,) * n, ((1, 0),) * (n - 1) + (pads,), 1, True)
    first = b.add(replace(op, zero=zero), low, w, bias)
    both = lane.call("mul", lane.Arg(0, I32), lane.Imm(256, I32))
    expr = lane.call("add", both, lane.Arg(1, I32))
    return b.finish({"y": b.add(replace(op, epilogue=expr), high, w, "", first)}, {})


def byte_feeds(g: Graph) -> dict[str, np.ndarray]:
    rng, shape = np.random.default_rng(1), g.types["low"].shape
    low, high = rng.integers(0, 256, shape), rng.integers(-128, 128, shape)
    return {"low": low.astype(np.uint8), "high": high.astype(np.int8)}


def both_grouped(g: Graph, pixels: int) -> Graph:
    """Both sums in groups of so many pixels, whether that gains or not."""
    nodes, consts, wholes, fresh = list[Node](), dict(g.consts), dict[str, Whole](), namer(g)
    for n in g.nodes:
        made, added, wholes[n.outputs[0]] = grouped(g, n, pixels, fresh, wholes)
        nodes += made
        consts |= added
    return prune(retyped(g, nodes, consts=consts))


# Width, taps, channels, stride, padding.
WINDOWS = (
    st.integers(1, 30),
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 3),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)


@given(
    *WINDOWS,
    st.tuples(st.integers(2, 9), st.integers(1, 2), st.booleans()),
)
def test_groups_give_the_same_sums(
    width: int, k: int, m: int, stride: int, pads: tuple[int, int], more: tuple[int, int, bool]
) -> None:
    pixels, axes, scaled = more
    assume(width + sum(pads) >= k)
    shape, kernel = ((2, 4, width, 3), (3, k)) if axes == 2 else ((2, width, 3), (k,))
    g = convolution(shape, kernel, m, stride, pads, scaled)
    (n,) = g.nodes
    nodes, consts, _ = grouped(g, n, min(pixels, g.types[n.outputs[0]].shape[-2]), namer(g), {})
    after = retyped(g, nodes, consts={**g.consts, **consts})
    verify(after)
    x = feeds(g)
    np.testing.assert_allclose(evaluate(after, x)["y"], evaluate(g, x)["y"], atol=1e-4)


@given(
    *WINDOWS,
    st.tuples(st.integers(2, 9), st.integers(1, 2), st.integers(0, 255)),
)
def test_groups_of_codes_give_the_same_integers(
    width: int, k: int, m: int, stride: int, pads: tuple[int, int], more: tuple[int, int, int]
) -> None:
    pixels, axes, zero = more
    assume(width + sum(pads) >= k)
    shape, kernel = ((2, 4, width, 3), (3, k)) if axes == 2 else ((2, width, 3), (k,))
    g = of_codes(shape, kernel, m, stride, pads, zero)
    after = both_grouped(g, min(pixels, g.types["y"].shape[-2]))
    verify(after)
    x = byte_feeds(g)
    assert evaluate(after, x)["y"].tobytes() == evaluate(g, x)["y"].tobytes()


def found(g: Graph, name: str = "x86_64_v3") -> tuple[Graph, list[Remark]]:
    t, remarks = target(name), list[Remark]()
    return in_pixel_groups(g, t, lambda m: plan(m, t), remarks), remarks


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_few_channels_are_grouped(m: int) -> None:
    g, remarks = found(convolution(m=m))
    assert [r.rule for r in remarks] == ["pixels"]
    verify(g)
    p = plan(Module("m", (g,)), target("x86_64_v3"))
    assert audit(p) == []


def test_what_reads_groups_is_in_the_same_groups() -> None:
    """The sums of low bytes are never cut to pixels: those of high bytes read them in groups."""
    g, remarks = found(of_codes((1, 1, 300, 1), (1, 64), zero=0), "x86_64_v4_vnni")
    assert [r.rule for r in remarks] == ["pixels"] * 2
    ops = [type(n.op).__name__ for n in g.nodes]
    assert ops == ["Conv", "Conv", "Reshape", "Slice"]
    p = plan(Module("m", (g,)), target("x86_64_v4_vnni"))
    assert audit(p) == []


@pytest.mark.parametrize(
    "g",
    [
        convolution(kernel=(1, 1), pads=(0, 0)),
        convolution(m=8),
        convolution(m=33),
        convolution((1, 9, 5, 6), pads=(0, 0)),
    ],
    ids=["one tap", "a full vector", "many vectors", "one pixel a row"],
)
def test_what_gains_nothing_stays(g: Graph) -> None:
    assert found(g)[0] is g


def test_operands_with_pixels_and_firmware_stay() -> None:
    g = convolution(grown=True)
    assert group_of(g, g.nodes[-1], 8, {}) == 1
    g = convolution()
    assert group_of(g, g.nodes[0], 8, {}) > 1
    assert found(g, "nano33ble")[0] is g


@pytest.mark.parametrize("isa", ["x86_64", "x86_64_v3"])
@pytest.mark.parametrize(("m", "stride", "scaled"), [(1, 1, False), (3, 2, True), (4, 1, True)])
def test_the_code_gives_the_reference(
    isa: str, m: int, stride: int, scaled: bool, tmp_path: Path
) -> None:
    """Rows whose last group is cut off, too."""
    g = convolution((2, 9, 23, 6), m=m, stride=stride, scaled=scaled)
    changed = found(g, isa)[0]
    x = feeds(g)
    p = plan(Module("m", (changed,)), target(isa))
    (y,) = session(p, compiled(p, tmp_path)).run(0, [x["x"]])
    np.testing.assert_allclose(y, evaluate(g, x)["y"], atol=1e-4)


@pytest.mark.parametrize("isa", BYTES_TARGETS)
@pytest.mark.parametrize(
    ("shape", "kernel", "m", "stride"),
    [((2, 3, 23, 6), (3, 5), 1, 1), ((1, 1, 131, 1), (1, 32), 3, 2), ((1, 61, 5), (7,), 4, 1)],
)
def test_the_code_gives_the_integers_of_the_reference(
    isa: str, shape: tuple[int, ...], kernel: tuple[int, ...], m: int, stride: int, tmp_path: Path
) -> None:
    g = of_codes(shape, kernel, m, stride)
    p = plan(Module("m", (both_grouped(g, 5),)), target(BYTES_TARGETS[isa]))
    x = byte_feeds(g)
    (y,) = session(p, compiled(p, tmp_path)).run(0, [x["low"], x["high"]])
    assert y.tobytes() == evaluate(g, x)["y"].tobytes()


@pytest.mark.parametrize("name", ["aarch64_dotprod", "armv7", "riscv64_v"])
def test_other_machines_give_the_integers_of_the_reference(name: str, tmp_path: Path) -> None:
    t = target(name)
    native_harness.emulator(t.machine)
    g = of_codes(m=2, stride=2)
    p = plan(Module("m", (both_grouped(g, 4),)), t)
    x = byte_feeds(g)
    library = emulated_library(linked(p, tmp_path), t.machine)
    (y,) = library.open(blob(p), 1).run(0, [x["low"], x["high"]])
    assert np.asarray(y).tobytes() == evaluate(g, x)["y"].tobytes()
