"""Movement that moves nothing."""

from __future__ import annotations

import numpy as np
import pytest

from sparrow import lane
from sparrow.graph import Graph
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.gather import Gather
from sparrow.ops.lane import Lane
from sparrow.ops.pad import Expand, Pad
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.passes.tidy import (
    fold_constants,
    gather_slice,
    lane_before_reshape,
    lane_before_transpose,
    lane_between_reshapes,
    tidy_concat,
    tidy_identity,
    tidy_reshape,
    tidy_slice,
    tidy_transpose,
)
from sparrow.tensor import F32, I8, Affine, TensorType
from unit.passes.check import Net, assert_same, becomes, refused, run


def test_transposes_compose() -> None:
    n = Net()
    x = n.call("exp", n.x(2, 3, 4))
    g = n.done(n.add(Transpose((0, 2, 1)), n.add(Transpose((2, 0, 1)), x)))
    after = becomes(g, [tidy_transpose], ["Lane", "Transpose"])
    assert after.nodes[1].op == Transpose((2, 1, 0))


def test_a_transpose_of_unit_axes_is_a_reshape() -> None:
    n = Net()
    becomes(n.done(n.add(Transpose((0, 3, 1, 2)), n.x(1, 5, 7, 1))), [tidy_transpose], ["Reshape"])


def test_a_transpose_of_per_channel_codes_stays() -> None:
    n = Net()
    g = n.done(n.add(Transpose((1, 0)), n.x(1, 4, dtype=I8)))
    q = Affine(np.ones((1, 4), np.float32), np.zeros((1, 4), np.int32), (-1, 1))
    h = Graph(g.name, g.inputs, g.outputs, g.nodes, {"x": TensorType((1, 4), I8, quant=q)}, {})
    (t,) = h.nodes[0].op.infer(h.types["x"])
    h = Graph(h.name, h.inputs, h.outputs, h.nodes, {**h.types, "y0": t}, {})
    assert run(h, tidy_transpose)[0] is h


def test_reshapes_and_slices_merge() -> None:
    n = Net()
    x = n.call("exp", n.x(4, 6))
    r = n.add(Reshape((8, 3)), n.add(Reshape((24,)), x))
    s = n.add(Slice((6, 0), (2, 3), (-2, 1)), r)
    s = n.add(Slice((0, 2), (2, 2), (1, -1)), s)
    after = becomes(n.done(s), [tidy_reshape, tidy_slice], ["Lane", "Reshape", "Slice"])
    assert after.nodes[-1].op == Slice((6, 2), (2, 2), (-2, -1))


def test_identities_go() -> None:
    n = Net()
    x = n.call("exp", n.x(2, 3))
    y = n.add(Slice((0, 0), (2, 3), (1, 1)), x)
    y = n.add(Pad(((0, 0), (0, 0))), y)
    y = n.add(Expand((2, 3)), y)
    y = n.add(Concat(1), y)
    becomes(n.done(n.call("relu", y)), [tidy_identity], ["Lane", "Lane"])


def test_an_operand_of_another_shape_is_no_identity() -> None:
    n = Net()
    x, z = n.x(2, 3), n.call("exp", n.x(3, name="z"))
    g = n.done(n.call("relu", n.add(Lane(lane.Arg(1, F32)), x, z)))
    assert run(g, tidy_identity)[0] is g


def test_concatenations_flatten_and_lose_empty_operands() -> None:
    n = Net()
    x, y = n.x(2, 3), n.x(2, 1, name="y")
    inner = n.add(Concat(1), x, y)
    g = n.done(n.add(Concat(1), inner, x, n.x(2, 0, name="z")))
    after = becomes(g, [tidy_concat], ["Concat"])
    assert after.nodes[0].inputs == ("x", "y", "x")


def test_a_concatenation_read_twice_stays() -> None:
    n = Net()
    inner = n.add(Concat(1), n.x(2, 3), n.x(2, 1, name="y"))
    g = n.done(n.add(Concat(1), inner, inner))
    assert run(g, tidy_concat)[0] is g


def test_gathers_of_runs_are_slices() -> None:
    n = Net()
    x = n.x(5, 4)
    a = n.add(Gather(0), x, n.ints(4, 2, 0))
    b = n.add(Gather(1), x, n.const(np.array(-1, np.int64)))
    g = n.done(a, b)
    becomes(g, [gather_slice, tidy_identity, tidy_reshape], ["Slice", "Slice", "Reshape"])


def test_a_gather_of_windows_is_slices_side_by_side() -> None:
    n = Net()
    index = n.const(np.add.outer(np.arange(3), np.arange(4)))
    after, _ = run(n.done(n.add(Gather(1), n.x(2, 6), index)), gather_slice)
    assert type(after.nodes[-1].op) is Concat


def test_gathers_of_unequal_steps_stay() -> None:
    n = Net()
    refused(n.done(n.add(Gather(0), n.x(5, 4), n.ints(0, 1, 3))), gather_slice, "spaced")


def test_a_gather_outside_the_axis_stays() -> None:
    n = Net()
    refused(n.done(n.add(Gather(0), n.x(5, 4), n.ints(4, 5))), gather_slice, "outside")


def test_a_lane_moves_before_a_reshape() -> None:
    n = Net()
    y = n.add(Reshape((6,)), n.x(2, 3))
    g = n.done(n.call("exp", y))
    becomes(g, [lane_before_reshape], ["Lane", "Reshape"])


def test_a_lane_that_broadcasts_a_reshape_does_not() -> None:
    n = Net()
    y = n.add(Reshape((1, 6)), n.x(2, 3))
    g = n.done(n.call("add", y, n.add(Reshape((6, 1)), n.x(3, 2, name="z"))))
    assert run(g, lane_before_reshape)[0] is g


@pytest.mark.parametrize(
    ("operand", "want"),
    [
        ((1, 4, 1, 5, 5), (4, 1, 5, 5)),  # the mask of a window, for all heads of it
        ((3, 1, 1), (1, 3, 1, 1)),
        ((5,), (1, 1, 1, 5)),
        ((), (1, 1, 1, 1)),
        ((1, 4, 3, 5, 5), (4, 3, 5, 5)),
    ],
)
def test_a_lane_between_reshapes_is_over_the_shape_around_it(
    operand: tuple[int, ...], want: tuple[int, ...]
) -> None:
    n = Net()
    wide = n.add(Reshape((1, 4, 3, 5, 5)), n.x(4, 3, 5, 5))
    y = n.call("add", n.w(*operand), wide)
    g = n.done(n.add(Reshape((4, 3, 5, 5)), y))
    after = becomes(g, [lane_between_reshapes], ["Reshape", "Lane"])
    assert after.types[after.nodes[0].outputs[0]].shape == want


def test_a_lane_of_computed_operands_between_reshapes_stays() -> None:
    """They may be read where they lie in the shape that they have."""
    n = Net()
    y = n.call("mul", n.add(Reshape((2, 4, 3)), n.x(8, 3)), n.x(2, 4, 3, name="z"))
    g = n.done(n.add(Reshape((8, 3)), y))
    assert run(g, lane_between_reshapes)[0] is g


def test_axes_of_which_an_operand_has_some_do_not_join_again() -> None:
    n = Net()
    wide = n.add(Reshape((2, 4, 3)), n.x(8, 3))
    y = n.call("mul", wide, n.w(1, 4, 1))
    g = n.done(n.add(Reshape((8, 3)), y))
    assert run(g, lane_between_reshapes)[0] is g


def test_a_lane_between_reshapes_to_another_shape_stays() -> None:
    n = Net()
    wide = n.add(Reshape((2, 4, 3)), n.x(8, 3))
    g = n.done(n.add(Reshape((24,)), n.call("mul", wide, n.w(3))))
    assert run(g, lane_between_reshapes)[0] is g


def test_constants_fold_but_not_into_outputs() -> None:
    n = Net()
    c = n.w(2, 3)
    x = n.x(3, 2)
    g = n.done(n.call("add", x, x))
    from sparrow.graph import Node, retyped

    turned = Node(Transpose((1, 0)), ("c",), ("t",))
    g = retyped(
        g,
        [turned, Node(g.nodes[0].op, ("x", "t"), ("y0",))],
        consts={"c": n.consts[c]},
    )
    after = becomes(g, [fold_constants], ["Lane"])
    assert_same(g, after)


def test_a_function_meets_the_sum_behind_a_transpose() -> None:
    n = Net()
    w = n.const(np.ones((4, 3, 1, 1), np.float32))
    y = n.add(Conv((1, 1), (1, 1), ((0, 0), (0, 0))), n.x(1, 3, 5, 5), w)
    g = n.done(n.call("relu", n.add(Transpose((0, 2, 3, 1)), y)))
    becomes(g, [lane_before_transpose], ["Conv", "Lane", "Transpose"])


def test_a_transpose_that_others_read_stays_before_a_function() -> None:
    n = Net()
    w = n.const(np.ones((4, 3, 1, 1), np.float32))
    turned = n.add(
        Transpose((0, 2, 3, 1)), n.add(Conv((1, 1), (1, 1), ((0, 0), (0, 0))), n.x(1, 3, 5, 5), w)
    )
    g = n.done(n.call("relu", turned), n.call("exp", turned))
    after, _ = run(g, lane_before_transpose)
    assert after is g
