"""Convolutions of one input that are added."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sparrow import lane
from sparrow.ops.conv import Conv
from sparrow.passes.affine import fold_affine
from sparrow.passes.fuse_lanes import fuse_lanes
from sparrow.passes.parallel import add_parallel
from sparrow.rewrite import Remark, apply_rules
from sparrow.tensor import F32
from unit.passes.check import Net, becomes, refused

Pairs = tuple[tuple[int, int], ...]


def conv(
    n: Net,
    x: str,
    out: int,
    kernel: tuple[int, ...],
    *,
    stride: int = 1,
    dilation: int = 1,
    pads: Pairs | None = None,
    group: int = 1,
    bias: bool = False,
) -> str:
    """A convolution whose pads keep the extent unless given."""
    same = tuple(((k - 1) * dilation // 2,) * 2 for k in kernel)
    op = Conv((stride,) * len(kernel), (dilation,) * len(kernel), pads or same, group)
    w = n.w(out, n.shape(x)[1] // group, *kernel)
    return n.add(op, x, w, *([n.w(out)] if bias else []))


@pytest.mark.parametrize("fn", ["add", "sub"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(("group", "stride"), [(1, 1), (2, 2), (4, 1)])
def test_the_taps_of_the_smaller_join_the_larger(
    fn: str, first: int, group: int, stride: int
) -> None:
    n = Net()
    x = n.x(2, 4, 7, 6)
    both = [
        conv(n, x, 8, (3, 5), group=group, stride=stride, bias=True),
        conv(n, x, 8, (1, 3), group=group, stride=stride),
    ]
    y = n.call(fn, both[first], both[1 - first])
    (left,) = becomes(n.done(y), [add_parallel], ["Conv"]).nodes
    assert isinstance(left.op, Conv) and left.op.pads == ((1, 1), (2, 2))


def test_one_tap_joins_dilated_ones_off_the_middle() -> None:
    n = Net()
    x = n.x(1, 3, 20)
    wide = conv(n, x, 5, (4,), dilation=2, pads=((6, 0),))
    becomes(n.done(n.call("add", wide, conv(n, x, 5, (1,)))), [add_parallel], ["Conv"])


def test_three_spatial_axes_and_their_batch_norms() -> None:
    n = Net()
    x = n.x(1, 4, 3, 5, 4)
    parts = [conv(n, x, 4, k, group=4) for k in ((3, 3, 3), (1, 3, 1))]
    scaled = [n.call("add", n.call("mul", p, n.w(4, 1, 1, 1)), n.w(4, 1, 1, 1)) for p in parts]
    g = n.done(n.call("add", *scaled))
    becomes(g, [fuse_lanes, fold_affine, add_parallel], ["Conv"])


@pytest.mark.parametrize("fn", ["add", "sub"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("group", [1, 2, 6])
def test_a_batch_norm_of_the_input_is_a_tap(fn: str, first: int, group: int) -> None:
    n = Net()
    x = n.x(1, 6, 5, 5)
    norm = lane.call("add", lane.call("mul", lane.Arg(0, F32), lane.Arg(1, F32)), lane.Arg(2, F32))
    normed = n.lane(norm, x, n.w(6, 1, 1), n.w(6, 1, 1))
    both = [normed, conv(n, x, 6, (3, 3), group=group)]
    becomes(n.done(n.call(fn, both[first], both[1 - first])), [add_parallel], ["Conv"])


def test_a_scaled_input_that_another_reads_is_a_tap_as_well() -> None:
    n = Net()
    x = n.x(1, 4, 5, 5)
    scaled = n.call("mul", x, n.w(4, 1, 1))
    y = n.call("add", conv(n, x, 4, (3, 3)), conv(n, x, 4, (1, 1)))
    becomes(n.done(n.call("sub", y, scaled), scaled), [add_parallel], ["Lane", "Conv"])


def test_a_residual_stays() -> None:
    n = Net()
    x = n.x(1, 4, 5, 5)
    becomes(n.done(n.call("add", x, conv(n, x, 4, (3, 3)))), [add_parallel], ["Conv", "Lane"])


ELSEWHERE: dict[str, Callable[[Net, str], str]] = {
    "crossed": lambda n, x: conv(n, x, 4, (5, 1)),
    "dilated": lambda n, x: conv(n, x, 4, (3, 3), dilation=2),
    "of other groups": lambda n, x: conv(n, x, 4, (1, 1), group=2),
    "shifted": lambda n, x: conv(n, x, 4, (3, 3), pads=((0, 2), (2, 0))),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_taps_that_lie_elsewhere_stay(kind: str) -> None:
    n = Net()
    x = n.x(1, 4, 9, 9)
    y = n.call("add", conv(n, x, 4, (3, 3)), ELSEWHERE[kind](n, x))
    refused(n.done(y), add_parallel, "tap")


def test_a_scaled_input_of_strided_taps_stays() -> None:
    n = Net()
    x = n.x(1, 4, 1, 1)
    scaled = n.call("mul", x, n.w(4, 1, 1))
    y = n.call("add", conv(n, x, 4, (3, 3), stride=2), scaled)
    refused(n.done(y), add_parallel, "tap")


def test_a_branch_that_another_reads_stays() -> None:
    n = Net()
    x = n.x(1, 4, 5, 5)
    a, b = conv(n, x, 4, (3, 3)), conv(n, x, 4, (1, 1))
    refused(n.done(n.call("add", a, b), b), add_parallel, "used elsewhere")


def test_a_sum_that_broadcasts_stays() -> None:
    n = Net()
    x = n.x(1, 4, 3, 3)
    y = n.call("add", conv(n, x, 4, (3, 3)), conv(n, x, 4, (3, 3), pads=((0, 0), (0, 0))))
    becomes(n.done(y), [add_parallel], ["Conv", "Conv", "Lane"])


def test_sums_of_weights_that_overflow_stay() -> None:
    n = Net()
    x = n.x(1, 2, 1, 1)
    large = [np.full((2, 2, 1, 1), v, np.float32) for v in (3e38, 1e38)]
    op = Conv((1, 1), (1, 1), ((0, 0), (0, 0)))
    g = n.done(n.call("add", *(n.add(op, x, n.const(w)) for w in large)))
    remarks: list[Remark] = []
    assert apply_rules(g, (("add_parallel", add_parallel),), remarks) is g
    assert any("finite" in r.text for r in remarks)
