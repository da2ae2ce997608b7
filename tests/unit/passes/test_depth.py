"""Convolutions and pools over three axes as such over two."""

from __future__ import annotations

import numpy as np
import pytest

from sparrow import lane
from sparrow.graph import Graph
from sparrow.ops.conv import Conv
from sparrow.ops.pool import Pool
from sparrow.passes.depth import flat_depth_conv, flat_depth_pool
from sparrow.tensor import F32, I8, I16, I32, DType
from unit.passes.check import Net, assert_same, feeds, kinds, run

ADDED = lane.call("add", lane.Arg(0, F32), lane.Arg(1, F32))
SCALED = lane.call("mul", lane.cast(lane.Arg(0, I32), F32), lane.Arg(1, F32))


def conv(
    kernel: tuple[int, int, int],
    op: Conv,
    dtype: DType = F32,
    extra: tuple[int, ...] | None = None,
) -> Graph:
    n = Net()
    channels = 3
    shape = (6, channels // op.group, *kernel)
    if dtype == F32:
        w, b = n.w(*shape), n.w(6)
    else:
        w = n.const(n.rng.integers(-127, 128, shape).astype(np.int8), I8)
        b = n.const(n.rng.integers(-99, 99, 6).astype(np.int32), I32)
    x = n.x(2, 5, 7, 6, channels, dtype=dtype)
    y = n.add(op, x, w, b, *([] if extra is None else [n.w(*extra)]))
    return n.done(y)


@pytest.mark.parametrize("extra", [None, (2, 5, 7, 6, 6), (6,), (1, 1, 1, 1, 6), ()])
def test_planes_are_images_of_a_batch(extra: tuple[int, ...] | None) -> None:
    same = Conv(
        (1,) * 3, (1,) * 3, ((0, 0), (1, 1), (1, 1)), 1, True, ADDED if extra is not None else None
    )
    g = conv((1, 3, 3), same, extra=extra)
    after = run(g, flat_depth_conv)[0]
    assert_same(g, after)
    assert next(n.op for n in after.nodes if isinstance(n.op, Conv)).strides == (1, 1)


def test_taps_in_depth_see_rows_of_pixels() -> None:
    op = Conv((2, 1, 1), (2, 1, 1), ((2, 1), (0, 0), (0, 0)), 3, True)
    g = conv((3, 1, 1), op)
    after = run(g, flat_depth_conv)[0]
    assert_same(g, after)
    assert next(n.op for n in after.nodes if isinstance(n.op, Conv)).pads == ((2, 1), (0, 0))


@pytest.mark.parametrize("kernel", [(3, 3, 2), (1, 2, 2), (2, 1, 1), (5, 3, 3)])
@pytest.mark.parametrize("pads", [((0, 0),) * 3, ((1, 2), (1, 0), (0, 1))])
@pytest.mark.parametrize("steps", [(1, 1, 1), (2, 2, 1)])
@pytest.mark.parametrize(("dtype", "zero"), [(I8, 3), (I16, 0)])
def test_taps_in_depth_are_channels_of_codes(
    kernel: tuple[int, int, int],
    pads: tuple[tuple[int, int], ...],
    steps: tuple[int, int, int],
    dtype: DType,
    zero: int,
) -> None:
    """Pads hold the zero point."""
    g = conv(kernel, Conv(steps, (1,) * 3, pads, 1, True, SCALED, zero=zero), dtype, (6,))
    after = run(g, flat_depth_conv)[0]
    assert_same(g, after, {"x": feeds(g)["x"] - 5}, tol=0)
    assert next(n.op for n in after.nodes if isinstance(n.op, Conv)).strides in (
        steps[1:],
        (steps[0], 1),
    )


def test_floats_over_three_axes_have_a_kernel_of_their_own() -> None:
    g = conv((3, 3, 3), Conv((1,) * 3, (1,) * 3, ((1, 1),) * 3, 1, True))
    assert run(g, flat_depth_conv)[0] is g


@pytest.mark.parametrize("dtype", [F32, I8])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(
    ("kernel", "strides", "pads"),
    [
        ((3, 2, 3), (2, 2, 1), ((1, 1), (0, 1), (1, 0))),
        ((1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1))),
        ((2, 1, 1), (2, 1, 1), ((1, 0), (0, 0), (0, 0))),
        ((2, 2, 2), (2, 2, 2), ((0, 0),) * 3),
    ],
)
def test_a_maximum_is_one_of_maxima(
    dtype: DType,
    ceil: bool,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
) -> None:
    n = Net()
    op = Pool("max", kernel, strides, (1, 1, 1), pads, ceil, channels_last=True)
    g = n.done(n.add(op, n.x(2, 5, 7, 6, 3, dtype=dtype)))
    after = run(g, flat_depth_pool)[0]
    assert_same(g, after, tol=0)
    assert all(len(k.op.kernel) == 2 for k in after.nodes if isinstance(k.op, Pool))


@pytest.mark.parametrize(
    ("pads", "counted", "ceil", "parts"),
    [
        (((0, 0),) * 3, False, False, 2),
        (((1, 0), (0, 1), (1, 1)), True, False, 2),
        (((1, 0), (0, 1), (1, 1)), False, False, 1),
        (((0, 0),) * 3, False, True, 1),
    ],
)
def test_a_mean_is_one_of_means_where_all_count_alike(
    pads: tuple[tuple[int, int], ...], counted: bool, ceil: bool, parts: int
) -> None:
    n = Net()
    op = Pool("average", (2, 3, 2), (2, 2, 1), (1,) * 3, pads, ceil, counted, channels_last=True)
    g = n.done(n.add(op, n.x(2, 5, 6, 7, 3)))
    after = run(g, flat_depth_pool)[0]
    assert kinds(after).count("Pool") == parts


def test_a_mean_in_a_plane_is_that_of_an_image() -> None:
    n = Net()
    flat = Pool("average", (1, 2, 2), (1, 2, 2), (1, 1, 1), ((0, 0),) * 3, channels_last=True)
    g = n.done(n.add(flat, n.x(1, 4, 4, 4, 3)))
    after = run(g, flat_depth_pool)[0]
    assert kinds(after).count("Reshape") == 2


def test_norms_stay() -> None:
    n = Net()
    op = Pool("lp", (2, 2, 2), (2, 2, 2), (1, 1, 1), ((0, 0),) * 3, channels_last=True)
    g = n.done(n.add(op, n.x(1, 4, 4, 4, 3)))
    assert run(g, flat_depth_pool)[0] is g
