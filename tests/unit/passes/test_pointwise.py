"""Convolutions of single pixels between channels-first values as products of rows as they lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from emitted import assert_equals_reference, compiled, planned
from sparrow import lane
from sparrow.graph import Graph
from sparrow.memory.audit import audit
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.passes import optimize
from sparrow.passes.pointwise import FEW_WEIGHTS, pointwise
from sparrow.tensor import F32
from unit.passes.check import Net, assert_same, becomes, kinds, refused

WANT = ["Reshape", "MatMul", "Reshape"]
S, A, B = (lane.Arg(k, F32) for k in range(3))
RELU = lane.call("relu", S)
SCALED = lane.call("add", lane.call("mul", S, A), lane.call("mul", B, S))


def conv(
    channels: tuple[int, int] = (5, 7),
    image: tuple[int, ...] = (149,),
    *,
    op: Conv | None = None,
    extras: tuple[tuple[int, ...], ...] = (),
    bias: bool = True,
    batch: int = 1,
    used: bool = False,
) -> Graph:
    """A channels-first convolution as layout leaves it."""
    n, (c, m), k = Net(), channels, len(image)
    op = op or Conv((1,) * k, (1,) * k, ((0, 0),) * k, 1, True)
    x = n.transpose(n.x(batch, c, *image), (0, *range(2, k + 2), 1))
    w = n.w(m, c // op.group, *(1,) * k)
    y = n.add(op, x, w, n.w(m) if bias else "", *(n.w(*e) for e in extras))
    outputs = [n.transpose(y, (0, k + 1, *range(1, k + 1)))]
    return n.done(*outputs, *([y] if used else []))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("image", [(149,), (11, 13), (3, 5, 10)])
@pytest.mark.parametrize("channels", [(1, 1), (5, 7), (64, 64)])
def test_few_channels_become_a_product(
    channels: tuple[int, int], image: tuple[int, ...], bias: bool
) -> None:
    becomes(conv(channels, image, bias=bias), [pointwise], WANT)


@pytest.mark.parametrize("bias", [False, True])
def test_an_epilogue_goes_along(bias: bool) -> None:
    op = Conv((1,), (1,), ((0, 0),), 1, True)
    becomes(conv(op=replace(op, epilogue=RELU), bias=bias), [pointwise], WANT)
    scaled = replace(op, epilogue=SCALED)
    for extras in (((7,), (1, 1, 7)), ((), (7,)), ((1, 1, 1), (1,))):
        becomes(conv(op=scaled, extras=extras, bias=bias), [pointwise], WANT)


def test_what_is_no_product_of_rows_stays() -> None:
    op = Conv((1,), (1,), ((0, 0),), 1, True)
    refused(conv(batch=2), pointwise, "many images")
    refused(conv((64, FEW_WEIGHTS // 64 + 1)), pointwise, "channels")
    refused(conv(image=(100,)), pointwise, "few pixels")
    refused(conv((6, 6), op=replace(op, group=2)), pointwise, "one group")
    refused(conv(op=replace(op, pads=((1, 0),))), pointwise, "several pixels")
    refused(conv(op=replace(op, strides=(2,)), image=(300,)), pointwise, "a stride")
    refused(conv(used=True), pointwise, "read as it is")
    varying = replace(op, epilogue=lane.call("add", S, A))
    refused(conv(op=varying, extras=((1, 149, 7),)), pointwise, "pixel to pixel")


def test_other_orders_of_axes_are_left_alone() -> None:
    n = Net()
    x = n.transpose(n.x(1, 5, 12, 13), (0, 3, 2, 1))
    y = n.add(Conv((1, 1), (1, 1), ((0, 0),) * 2, 1, True), x, n.w(7, 5, 1, 1), n.w(7))
    g = n.done(n.transpose(y, (0, 3, 1, 2)))
    assert kinds(optimize(g)).count("Conv") == 1
    assert_same(g, optimize(g))


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_compiled_with_what_follows_in_the_epilogue(isa: str, tmp_path: Path) -> None:
    n = Net()
    x = n.x(1, 24, 167)
    op = Conv((1,), (1,), ((0, 0),), 1, False)
    y = n.call("relu", n.add(op, x, n.w(24, 24, 1), n.w(24)))
    g = optimize(n.done(n.call("add", y, x)))
    assert sum(isinstance(v.op, MatMul) for v in g.nodes) == 1 and "Transpose" not in kinds(g)
    p = planned(g, isa=isa)
    assert audit(p) == []
    assert_equals_reference(compiled(p, tmp_path), p, g)
