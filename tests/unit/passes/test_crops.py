"""Convolutions of which a part is read."""

from __future__ import annotations

import pytest

from sparrow.graph import Graph
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.slice import Slice
from sparrow.passes.crops import crop
from unit.passes.check import Net, becomes, refused, run


def cut(n: Net, x: str, *axes: tuple[int, int, int]) -> str:
    """Start, size and step along each of the last axes."""
    shape = n.shape(x)
    lead = len(shape) - len(axes)
    whole = tuple((0, d, 1) for d in shape[:lead])
    starts, sizes, steps = zip(*whole, *axes, strict=True)
    return n.add(Slice(starts, sizes, steps), x)


def line(*, kernel: int, pad: int, dilation: int, stride: int, take: tuple[int, int, int]) -> Graph:
    """One axis of 20 elements."""
    n = Net()
    op = Conv((stride,), (dilation,), ((pad, pad),))
    y = n.add(op, n.x(2, 3, 20), n.w(4, 3, kernel), n.w(4))
    return n.done(cut(n, y, take))


def test_a_causal_convolution_is_padded_in_front_alone() -> None:
    g = line(kernel=3, pad=4, dilation=2, stride=1, take=(0, 20, 1))
    (node,) = becomes(g, [crop], ["Conv"]).nodes
    assert isinstance(node.op, Conv) and node.op.pads == ((4, 0),)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("start", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_what_is_not_read_is_not_computed(stride: int, step: int, start: int, size: int) -> None:
    g = line(kernel=3, pad=2, dilation=2, stride=stride, take=(start, size, step))
    last = run(g, crop)[0].nodes[-1]
    assert isinstance(last.op, Conv) and last.op.strides == (stride * step,)


@pytest.mark.parametrize("stride", [1, 2])
def test_x_is_whole_where_its_rest_makes_no_window(stride: int) -> None:
    count = (20 - 3) // stride + 1
    g = line(kernel=3, pad=0, dilation=1, stride=stride, take=(0, (count + 1) // 2, 2))
    (node,) = becomes(g, [crop], ["Conv"]).nodes
    assert isinstance(node.op, Conv) and node.op.strides == (2 * stride,)


def test_two_axes_are_cut_apart() -> None:
    n = Net()
    op = Conv((1, 2), (1, 1), ((1, 1), (2, 2)), 2)
    y = n.add(op, n.x(1, 4, 9, 11), n.w(6, 2, 3, 5))
    becomes(n.done(cut(n, y, (1, 5, 1), (2, 3, 1))), [crop], ["Slice", "Conv"])


@pytest.mark.parametrize("beyond", [0, 1])
@pytest.mark.parametrize("take", [(0, 9, 1), (3, 4, 1), (2, 11, 1)])
def test_a_transposed_convolution_is_cut_by_its_pads(
    beyond: int, take: tuple[int, int, int]
) -> None:
    n = Net()
    op = ConvTranspose((2, 3), (1, 1), ((0, 0), (1, 1 - beyond)), 2)
    y = n.add(op, n.x(1, 4, 3, 5), n.w(4, 3, 3, 4), n.w(6))
    becomes(n.done(cut(n, y, (1, 6, 1), take)), [crop], ["ConvTranspose"])


def test_a_transposed_convolution_skips_nothing() -> None:
    n = Net()
    y = n.add(ConvTranspose((2,), (1,), ((0, 0),)), n.x(1, 4, 5), n.w(4, 3, 3))
    refused(n.done(cut(n, y, (0, 4, 2))), crop, "skips no")


def test_windows_in_the_padding_stay() -> None:
    refused(line(kernel=1, pad=4, dilation=1, stride=1, take=(0, 3, 1)), crop, "in the padding")
    refused(line(kernel=1, pad=4, dilation=1, stride=1, take=(25, 3, 1)), crop, "in the padding")


@pytest.mark.parametrize("take", [(19, -1), (0, 0)], ids=["backwards", "empty"])
def test_other_slices_stay(take: tuple[int, int]) -> None:
    start, step = take
    g = line(kernel=3, pad=1, dilation=1, stride=1, take=(start, 20 if step else 0, step or 1))
    refused(g, crop, "backwards or is empty")


def test_channels_are_another_matter() -> None:
    n = Net()
    y = n.add(Conv((1,), (1,), ((1, 1),)), n.x(1, 3, 20), n.w(4, 3, 3))
    refused(n.done(cut(n, y, (1, 2, 1), (0, 20, 1))), crop, "some channels")


def test_a_result_that_another_reads_stays() -> None:
    n = Net()
    y = n.add(Conv((1,), (1,), ((1, 1),)), n.x(1, 3, 20), n.w(4, 3, 3))
    refused(n.done(cut(n, y, (0, 7, 1)), y), crop, "used elsewhere")
