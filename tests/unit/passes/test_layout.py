"""Channels-last layout, transposes that sink, rise and meet."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparrow.graph import Graph, Op
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.matmul import MatMul
from sparrow.ops.normalize import Normalize
from sparrow.ops.pad import Pad
from sparrow.ops.pool import Pool
from sparrow.ops.reduce import Reduce
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.softmax import Softmax
from sparrow.ops.transpose import Transpose
from sparrow.passes import optimize
from sparrow.passes.layout import assign_layout
from sparrow.passes.normalization import grouped_channels
from sparrow.passes.report import compare, traffic
from sparrow.passes.sinking import (
    hoist_transpose,
    inverse,
    moved_elements,
    moves,
    sink_transpose,
    swap_reshape,
)
from unit.passes.check import Net, assert_same, kinds, refused

SAME = ((1, 1), (1, 1))


def conv(n: Net, x: str, out: int, stride: int = 1) -> str:
    """A 3x3 convolution."""
    return n.add(Conv((stride, stride), (1, 1), SAME), x, n.w(out, n.shape(x)[1], 3, 3))


def transposes(g: Graph) -> int:
    """Transposes that move elements."""
    return traffic(g).transposes


def checked(g: Graph) -> Graph:
    """The graph after layout assignment, with the promises it makes."""
    after = assign_layout(g)
    assert_same(g, after)
    assert assign_layout(after) is after or moved_elements(assign_layout(after)) == moved_elements(
        after
    )
    for k in after.nodes:
        assert getattr(k.op, "channels_last", True)
    return after


THROUGH: dict[str, Op] = {
    "pad": Pad(((0, 0), (0, 1), (2, 0), (0, 0))),
    "slice": Slice((0, 1, 0, 3), (1, 2, 8, 4), (1, 1, 1, 1)),
    "softmax": Softmax(1),
    "mean over channels": Reduce("mean", (1,)),
    "pool": Pool("average", (2, 2), (2, 2), (1, 1), ((0, 0), (0, 0))),
    "normalize": Normalize((2, 3), 1e-5),
}


@pytest.mark.parametrize("name", THROUGH)
def test_nothing_is_left_between_convolutions(name: str) -> None:
    n = Net()
    y = n.add(THROUGH[name], conv(n, n.x(1, 3, 8, 8), 4))
    g = n.done(conv(n, n.call("relu", y), 5))
    assert transposes(checked(g)) == 2


def test_an_hourglass_with_skips_keeps_its_ends_only() -> None:
    n = Net()
    a = conv(n, n.x(1, 3, 8, 8), 4)
    b = conv(n, n.add(Pool("max", (2, 2), (2, 2), (1, 1), ((0, 0), (0, 0))), a), 6)
    up = n.add(ConvTranspose((2, 2), (1, 1), ((0, 0), (0, 0))), b, n.w(6, 4, 2, 2))
    y = conv(n, n.add(Concat(1), up, n.call("add", a, n.w(4, 1, 1))), 3)
    assert transposes(checked(n.done(y))) == 2


def test_a_single_channel_and_single_pixels_are_reshapes() -> None:
    n = Net()
    y = n.add(Reduce("mean", (2, 3)), conv(n, n.x(1, 1, 8, 8), 4))
    assert transposes(checked(n.done(y))) == 0


def _shuffle(n: Net, x: str, groups: int = 2) -> str:
    b, c, h, w = n.shape(x)
    y = n.add(Reshape((b, groups, c // groups, h, w)), x)
    return n.add(Reshape((b, c, h, w)), n.add(Transpose((0, 2, 1, 3, 4)), y))


def test_a_channel_shuffle_stays_one_copy() -> None:
    n = Net()
    y = conv(n, _shuffle(n, conv(n, n.x(1, 3, 8, 8), 6)), 6)
    after = checked(n.done(y))
    assert transposes(after) == 3


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_group_normalization_stays_channels_last(groups: int) -> None:
    n = Net()
    y = conv(n, n.x(2, 3, 6, 10), 16)
    grouped = n.add(Reshape((2, groups, 16 // groups * 60)), y)
    factors = [n.w(groups, 1), n.w(groups, 1)]
    y = n.add(Normalize((2,), 1e-5), grouped, *factors)
    y = n.add(Reshape((2, 16, 6, 10)), n.call("sigmoid", y))
    g = n.done(conv(n, y, 8))
    after = optimize(g)
    assert_same(g, after)
    assert transposes(after) == 2


def test_groups_of_broken_channels_are_refused() -> None:
    n = Net()
    y = n.add(Normalize((2,), 1e-5), n.add(Reshape((1, 4, 30)), n.x(1, 6, 4, 5)))
    refused(n.done(y), grouped_channels, "whole channels")


def test_shuffle_units_with_split_and_concat() -> None:
    """ShuffleNetV2: half of the channels pass by, half are convolved, then all are shuffled."""
    n = Net()
    y = conv(n, n.x(1, 3, 8, 8), 6)
    for _ in range(3):
        halves = [n.add(Slice((0, i, 0, 0), (1, 3, 8, 8), (1,) * 4), y) for i in (0, 3)]
        y = _shuffle(n, n.add(Concat(1), halves[0], conv(n, halves[1], 3)))
    after = checked(n.done(conv(n, y, 4)))
    assert transposes(after) == 2 + 3


def test_depth_to_space_is_one_copy() -> None:
    n = Net()
    y = conv(n, n.x(1, 1, 6, 6), 4)
    y = n.add(Transpose((0, 3, 4, 1, 5, 2)), n.add(Reshape((1, 2, 2, 1, 6, 6)), y))
    after = checked(n.done(n.add(Reshape((1, 1, 12, 12)), y)))
    assert transposes(after) == 1


def test_sinking_that_costs_is_taken_back() -> None:
    """Growing eightfold below the convolution, with no other convolution to meet."""
    n = Net()
    y = conv(n, n.x(1, 1, 4, 4), 2)
    g = n.done(n.add(Pad(((0, 0), (0, 0), (20, 20), (20, 20))), y))
    after = checked(g)
    assert moved_elements(after) == 2 * 4 * 4


def test_a_transpose_rises_above_what_enlarges() -> None:
    n = Net()
    y = n.add(Pad(((0, 9), (0, 9))), n.call("exp", n.x(3, 5)))
    g = n.done(n.add(Transpose((1, 0)), y))
    after = assign_layout(g)
    assert_same(g, after)
    assert moved_elements(after) == 15


def test_refusals() -> None:
    n = Net()
    x = n.add(Transpose((1, 0)), n.x(3, 5))
    refused(n.done(n.add(MatMul(), x, n.w(3, 2))), sink_transpose, "no permuted form")
    n = Net()
    x = n.add(Transpose((1, 0)), n.x(3, 5))
    refused(n.done(n.call("add", x, n.x(5, 3, name="z"))), sink_transpose, "other operands")
    n = Net()
    y = n.call("exp", n.x(3, 5))
    refused(n.done(n.add(Transpose((1, 0)), y), y), hoist_transpose, "used elsewhere")
    n = Net()
    g = n.done(n.add(Transpose((1, 0)), n.call("exp", n.x(3, 5))))
    refused(g, hoist_transpose, "as large as its result")


@given(st.data())
@settings(max_examples=150)
def test_swapped_reshapes_are_equal(data: st.DataObject) -> None:
    """What `swap_reshape` promises holds whenever it gives an answer."""
    dims = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4))
    perm = tuple(data.draw(st.permutations(range(len(dims)))))
    turned = [dims[p] for p in perm]
    shape = data.draw(regrouped(turned))
    found = swap_reshape(tuple(dims), perm, shape)
    if found is not None:
        x = np.arange(int(np.prod(dims))).reshape(dims)
        want = x.transpose(perm).reshape(shape)
        np.testing.assert_array_equal(x.reshape(found[0]).transpose(found[1]), want)


@st.composite
def regrouped(draw: st.DrawFn, dims: list[int]) -> tuple[int, ...]:
    """Another shape of as many elements: axes merged, split, units added."""
    out: list[int] = []
    for d in dims:
        choice = draw(st.integers(0, 9))
        if out and choice < 4:
            out[-1] *= d
        elif d in (4, 6) and choice < 7:
            out += [2, d // 2]
        else:
            out.append(d)
        if choice == 9:
            out.append(1)
    return tuple(out)


def test_every_split_or_merge_of_whole_axes_swaps() -> None:
    x = (2, 3, 4)
    for perm in permutations(range(3)):
        turned = tuple(x[p] for p in perm)
        split = turned if turned[2] == 3 else (*turned[:2], 2, turned[2] // 2)
        assert swap_reshape(x, perm, split)
    assert swap_reshape(x, (1, 2, 0), (12, 2)) == ((2, 12), (1, 0))
    assert swap_reshape(x, (0, 2, 1), (2, 12)) is None


def test_moves_and_inverse() -> None:
    assert not moves((1, 5, 1), (2, 1, 0))
    assert moves((2, 5), (1, 0))
    assert inverse((2, 0, 1)) == (1, 2, 0)


def test_the_report_counts_kernels_and_bytes() -> None:
    n = Net()
    x = n.x(4, 8)
    y = n.call("relu", n.call("add", n.add(MatMul(), x, n.w(8, 8)), n.w(8)))
    g = n.done(n.add(Reshape((2, 16)), y))
    before, after = traffic(g), traffic(optimize(g))
    assert (before.kernels, after.kernels) == (3, 1)
    # x, w, y; y, b, z; z, relu  ->  x, w, b, y
    assert before.bytes == 4 * (32 + 64 + 32 + 32 + 8 + 32 + 32 + 32)
    assert after.bytes == 4 * (32 + 64 + 8 + 32)
    assert compare(g, optimize(g)).startswith("3 -> 1 kernels, 0.00 -> 0.00 MB moved")
    assert kinds(optimize(g)) == ["MatMul", "Reshape"]
