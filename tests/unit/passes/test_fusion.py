"""Folding into weights, epilogues, lanes, padding, pooling, products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sparrow import lane
from sparrow.graph import Graph
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.pad import Pad
from sparrow.ops.pool import Pool
from sparrow.ops.reduce import Reduce
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.passes.affine import fold_affine, fold_affine_before
from sparrow.passes.fuse_epilogue import bias_add, fuse_epilogue
from sparrow.passes.fuse_lanes import fuse_lanes, fuse_unary
from sparrow.passes.global_pool import global_pool
from sparrow.passes.literals import literals
from sparrow.passes.pads import fold_pad, merge_pads
from sparrow.passes.products import (
    absorb_transpose,
    slice_before_reshape,
    slice_before_transpose,
    split_product,
)
from sparrow.passes.simplify import simplify
from sparrow.rewrite import apply_rules
from sparrow.tensor import F32, I8, DType
from unit.passes.check import Net, becomes, kinds, refused, run

SAME = ((1, 1), (1, 1))
NONE = ((0, 0), (0, 0))


def conv(n: Net, x: str, out: int, group: int = 1, pads: tuple[tuple[int, int], ...] = SAME) -> str:
    """A 3x3 convolution with constant weights."""
    w = n.w(out, n.shape(x)[1] // group, 3, 3)
    return n.add(Conv((1, 1), (1, 1), pads, group), x, w)


def upconv(n: Net, x: str, out: int, group: int = 1) -> str:
    """A 2x2 transposed convolution with constant weights."""
    w = n.w(n.shape(x)[1], out // group, 2, 2)
    return n.add(ConvTranspose((2, 2), (1, 1), NONE, group), x, w)


SUMS: dict[str, Callable[[Net], str]] = {
    "conv": lambda n: conv(n, n.x(1, 4, 5, 5), 6),
    "depthwise": lambda n: conv(n, n.x(1, 4, 5, 5), 4, 4),
    "grouped": lambda n: conv(n, n.x(1, 4, 5, 5), 6, 2),
    "transposed": lambda n: upconv(n, n.x(1, 4, 5, 5), 6),
    "transposed, grouped": lambda n: upconv(n, n.x(1, 4, 5, 5), 6, 2),
    "product": lambda n: n.add(MatMul(), n.x(3, 4), n.w(4, 6)),
    "product with b'": lambda n: n.add(MatMul(trans_b=True), n.x(3, 4), n.w(6, 4)),
}


def channels(n: Net, y: str) -> tuple[int, ...]:
    """Shape of one value per channel."""
    shape = n.shape(y)
    return (shape[1], 1, 1) if len(shape) == 4 else (shape[1],)


@pytest.mark.parametrize("kind", SUMS)
def test_batch_norm_folds_into_the_sum_before(kind: str) -> None:
    n = Net()
    y = SUMS[kind](n)
    c = channels(n, y)
    z = n.call("sub", n.call("mul", n.call("add", y, n.w(*c)), n.w(*c)), n.w(*c))
    becomes(n.done(z), [fold_affine], [type(n.nodes[0].op).__name__])


@pytest.mark.parametrize("kind", SUMS)
def test_a_bias_folds(kind: str) -> None:
    n = Net()
    y = SUMS[kind](n)
    g = n.done(n.call("add", n.w(*channels(n, y)), y))
    assert len(becomes(g, [bias_add], [type(n.nodes[0].op).__name__]).nodes[0].inputs) == 3


@pytest.mark.parametrize("kind", ["conv", "grouped", "depthwise", "product", "product with b'"])
def test_an_affine_map_folds_into_the_sum_after(kind: str) -> None:
    n = Net()
    g = SUMS[kind](n)
    op, w = n.nodes[0].op, n.nodes[0].inputs[1]
    if isinstance(op, Conv):
        op = Conv(op.strides, op.dilations, NONE, op.group)
    c = channels(n, "x")
    shifted = n.call("sub", n.call("mul", "x", n.w(*c)), n.w(*c))
    g = n.add(op, shifted, w)
    becomes(n.done(g), [fold_affine_before, fuse_lanes], [type(op).__name__])


def test_a_shift_does_not_fold_through_padding() -> None:
    n = Net()
    y = n.call("add", n.x(1, 4, 5, 5), n.w(4, 1, 1))
    refused(n.done(conv(n, y, 6)), fold_affine_before, "padding is 0")


def test_a_scale_folds_through_padding() -> None:
    n = Net()
    y = n.call("mul", n.x(1, 4, 5, 5), n.w(4, 1, 1))
    becomes(n.done(conv(n, y, 6)), [fold_affine_before], ["Conv"])


def test_no_fold_of_a_shared_sum() -> None:
    n = Net()
    y = SUMS["conv"](n)
    refused(n.done(y, n.call("mul", y, n.w(6, 1, 1))), fold_affine, "used elsewhere")


def test_no_fold_of_what_is_not_finite() -> None:
    n = Net()
    y = SUMS["product"](n)
    refused(n.done(n.call("div", y, n.const(np.zeros(6, np.float32)))), fold_affine, "finite")


def test_no_fold_into_weights_known_at_run_time() -> None:
    n = Net()
    y = n.add(MatMul(), n.x(3, 4), n.x(4, 6, name="w"))
    refused(n.done(n.call("mul", y, n.w(6))), fold_affine, "not constant")


def test_a_value_used_twice_is_no_affine_map() -> None:
    n = Net()
    y = SUMS["product"](n)
    g = n.done(n.call("add", n.call("mul", y, n.w(6)), y))
    assert "MatMul" in kinds(run(g, fuse_lanes, fold_affine)[0])
    assert len(run(g, fuse_lanes, fold_affine)[0].nodes) == 2


def test_activation_and_residual_join_the_sum() -> None:
    n = Net()
    y = n.add(MatMul(), n.x(3, 4), n.w(4, 6))
    g = n.done(n.call("relu", n.call("add", y, n.x(3, 6, name="r"))))
    after = becomes(g, [fuse_epilogue], ["MatMul"])
    assert after.nodes[0].inputs[2:] == ("", "r")


def test_swish_of_a_sum_joins_it() -> None:
    n = Net()
    y = SUMS["conv"](n)
    g = n.done(n.call("mul", y, n.call("sigmoid", y)))
    becomes(g, [fuse_unary, simplify, fuse_epilogue], ["Conv"])


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda n, y: n.call("add", y, n.x(1, 1, 5, 5, name="r")), "channels first"),
        (lambda n, y: n.call("mod", y, n.f(2)), "vector form"),
        (lambda n, y: n.call("add", y, n.x(2, 6, 5, 5, name="r")), "not the float32 shape"),
        (lambda n, y: n.cast(y, n.types["i"].dtype), "not the float32 shape"),
    ],
)
def test_what_does_not_join(make: Callable[[Net, str], str], why: str) -> None:
    n = Net()
    n.const(np.zeros(1, np.int32))
    n.types["i"] = n.types["%1"]
    refused(n.done(make(n, SUMS["conv"](n))), fuse_epilogue, why)


def test_a_residual_that_depends_on_the_sum_makes_no_cycle() -> None:
    n = Net()
    y = n.add(MatMul(), n.x(3, 4), n.w(4, 6))
    g = n.done(n.call("add", y, n.add(Reduce("mean", (1,)), y)))
    refused(g, fuse_epilogue, "used elsewhere")


def test_chains_become_one_loop() -> None:
    n = Net()
    x, z = n.x(2, 3), n.x(3, name="z")
    g = n.done(n.call("mul", n.call("add", n.call("exp", x), z), n.call("neg", x)))
    becomes(g, [fuse_lanes], ["Lane"])


def test_a_cheap_value_is_computed_again() -> None:
    n = Net()
    y = n.call("relu", n.x(64))
    becomes(n.done(n.call("exp", y), n.call("sin", y)), [fuse_lanes], ["Lane", "Lane"])


def test_a_dear_value_is_not() -> None:
    n = Net()
    y = n.call("exp", n.x(64))
    refused(n.done(n.call("sqrt", y), n.call("sin", y)), fuse_lanes, "dear")


def test_a_value_of_many_operands_is_read_instead() -> None:
    n = Net()
    y = n.call("add", n.x(64), n.x(64, name="z"))
    total = n.add(Reduce("sum", (0,)), y)
    refused(n.done(n.call("exp", y), total), fuse_lanes, "less than reading its operands")


def test_a_broadcast_value_is_not_computed_per_element() -> None:
    n = Net()
    y = n.call("exp", n.x(1, 8))
    refused(n.done(n.call("mul", y, n.x(64, 8, name="z"))), fuse_lanes, "broadcast")


def test_unary_functions_join_early_binary_ones_do_not() -> None:
    n = Net()
    x = n.x(8)
    y = n.call("mul", x, n.call("tanh", n.call("softplus", x)))
    g = n.done(n.call("add", y, n.x(8, name="z")))
    becomes(g, [fuse_unary], ["Lane", "Lane"])


def test_several_functions_of_one_value_join() -> None:
    n = Net()
    x = n.x(8)
    less = n.call("lt", x, n.f(0))
    g = n.done(n.call("where", less, n.call("sub", n.call("exp", x), n.f(1)), x))
    becomes(g, [literals, fuse_unary], ["Lane"])


def test_functions_of_two_values_stay() -> None:
    n = Net()
    x, z = n.x(8), n.x(8, name="z")
    g = n.done(n.call("mul", n.call("exp", x), n.call("tanh", z)))
    assert len(run(g, fuse_unary)[0].nodes) == 3


def pool(
    kind: str, kernel: int = 3, pads: tuple[tuple[int, int], ...] = NONE, **more: bool
) -> Pool:
    """A square pooling window of stride 1."""
    return Pool(kind, (kernel, kernel), (1, 1), (1, 1), pads, **more)  # type: ignore[arg-type]


BORDER = ((0, 0), (0, 0), (1, 2), (0, 1))


def _padded(n: Net, value: float = 0.0, dtype: DType = F32) -> str:
    return n.add(Pad(BORDER, value=value), n.x(1, 2, 6, 6, dtype=dtype))


def _codes(n: Net, zero: int, value: int) -> str:
    """A sum over padded codes."""
    w = n.const(n.rng.integers(-9, 9, (4, 2, 3, 3)).astype(np.int8))
    return n.add(Conv((1, 1), (1, 1), SAME, zero=zero), _padded(n, value, I8), w)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: conv(n, _padded(n), 4),
        lambda n: _codes(n, -3, -3),
        lambda n: n.add(pool("average"), _padded(n)),
        lambda n: n.add(pool("average", pads=SAME, count_pads=True, kernel=4), _padded(n)),
        lambda n: n.add(pool("max"), _padded(n, -np.inf)),
        lambda n: n.add(pool("lp"), _padded(n)),
    ],
)
def test_padding_joins_its_reader(make: Callable[[Net], str]) -> None:
    n = Net()
    g = n.done(make(n))
    after, _ = run(g, fold_pad)
    assert "Pad" not in kinds(after)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda n: conv(n, _padded(n, 1.0), 4), "padding with 1"),
        (lambda n: _codes(n, -3, 0), "padding with 0"),
        (lambda n: n.add(pool("max"), _padded(n)), "padding with 0"),
        (lambda n: n.add(pool("average", 4, SAME), _padded(n)), "part does not"),
        (lambda n: n.add(pool("average", kernel=2), _padded(n)), "lie in the padding"),
        (lambda n: conv(n, n.add(Pad(BORDER, "edge"), n.x(1, 2, 6, 6)), 4), "edge padding"),
        (
            lambda n: conv(n, n.add(Pad(((0, 0), (0, 2), (0, 0), (0, 0))), n.x(1, 2, 6, 6)), 4),
            "channels are padded",
        ),
    ],
)
def test_padding_that_stays(make: Callable[[Net], str], why: str) -> None:
    n = Net()
    refused(n.done(make(n)), fold_pad, why)


def test_pads_merge() -> None:
    n = Net()
    becomes(n.done(n.add(Pad(BORDER), _padded(n))), [merge_pads], ["Pad"])
    n = Net()
    refused(n.done(n.add(Pad(BORDER, value=1.0), _padded(n))), merge_pads, "around padding")


@pytest.mark.parametrize("kind", ["average", "max"])
def test_a_whole_window_is_a_reduction(kind: str) -> None:
    n = Net()
    g = n.done(n.add(pool(kind, 5), n.x(1, 3, 5, 5)))
    becomes(g, [global_pool], ["Reduce"])


def test_a_window_with_padding_is_not() -> None:
    n = Net()
    refused(n.done(n.add(pool("max", 5, SAME), n.x(1, 3, 5, 5))), global_pool, "leaves the image")


def test_swapped_operands_are_absorbed() -> None:
    n = Net()
    a, b = (
        n.add(Transpose((0, 2, 1)), n.x(2, *s, name=i)) for i, s in (("a", (3, 4)), ("b", (5, 3)))
    )
    after = becomes(n.done(n.add(MatMul(), a, b)), [absorb_transpose], ["MatMul"])
    assert after.nodes[0].op == MatMul(True, True)


def test_another_order_is_not_absorbed() -> None:
    n = Net()
    a = n.add(Transpose((1, 0, 2)), n.x(3, 2, 4))
    refused(n.done(n.add(MatMul(), a, n.w(4, 5))), absorb_transpose, "only swap")


def _qkv(n: Net, bias: bool = True) -> Graph:
    """One projection to 3 x 2 heads of 4, cut as the vision transformer's exporter cuts it."""
    x, w = n.x(1, 5, 8), n.w(8, 24)
    y = n.add(MatMul(), x, w, n.w(24)) if bias else n.add(MatMul(), x, w)
    y = n.add(Transpose((2, 0, 3, 1, 4)), n.add(Reshape((1, 5, 3, 2, 4)), y))
    parts = [n.add(Slice((i, 0, 0, 0, 0), (1, 1, 2, 5, 4), (1,) * 5), y) for i in range(3)]
    return n.done(*(n.add(Reshape((1, 2, 5, 4)), p) for p in parts))


def test_a_joint_projection_is_cut_where_its_parts_are_reshaped() -> None:
    after, _ = run(_qkv(Net()), slice_before_transpose, slice_before_reshape, split_product)
    assert kinds(after).count("MatMul") == 3 and "Slice" not in kinds(after)


def test_a_projection_read_as_a_whole_stays() -> None:
    n = Net()
    y = n.add(MatMul(), n.x(5, 8), n.w(8, 6))
    part = n.add(Reshape((5, 1, 3)), n.add(Slice((0, 0), (5, 3), (1, 1)), y))
    refused(n.done(part, n.call("exp", y)), split_product, "used elsewhere")


def test_overlapping_parts_stay() -> None:
    n = Net()
    y = n.add(MatMul(), n.x(5, 8), n.w(8, 6))
    cuts = [n.add(Slice((0, i), (5, 4), (1, 1)), y) for i in (0, 2)]
    refused(n.done(*(n.add(Reshape((20,)), c) for c in cuts)), split_product, "overlap")


def test_an_epilogue_over_a_long_expression_is_refused() -> None:
    n = Net()
    y = n.add(MatMul(), n.x(3, 4), n.w(4, 6))
    e: lane.Expr = lane.Arg(0, F32)
    for _ in range(7):
        e = lane.call("mul", e, e)
    g = n.done(n.call("relu", n.add(Lane(e), n.add(Lane(e), y))))
    after = apply_rules(g, (("fuse_epilogue", fuse_epilogue),))
    assert len(after.nodes) > 1
