"""Means of images go by rows, which the cores that computed them can read."""

import numpy as np
import pytest

from sparrow import lane
from sparrow.graph import Graph
from sparrow.ops.conv import Conv
from sparrow.ops.reduce import Reduce
from sparrow.passes.row_means import row_means, row_sums
from sparrow.tensor import F32, F64, I8, I32, Array, DType
from unit.passes.check import Net, becomes, refused


def mean(
    *shape: int, kind: str = "mean", axes: tuple[int, ...] = (1, 2), dtype: DType = F32
) -> Graph:
    n = Net()
    return n.done(n.add(Reduce(kind, axes), n.x(*shape, dtype=dtype)))  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_mean_of_an_image_goes_by_rows(batch: int) -> None:
    after = becomes(mean(batch, 7, 9, 80), [row_means], ["Reduce", "Reduce"])
    assert [k.op.axes for k in after.nodes if isinstance(k.op, Reduce)] == [(2,), (1, 2)]


def test_small_images_stay_whole() -> None:
    refused(mean(1, 7, 7, 8), row_means, "few")


@pytest.mark.parametrize(
    "g",
    [
        mean(1, 64, 1, 80),
        mean(1, 1, 64, 80),
        mean(1, 80, 8, 8, axes=(2, 3)),
        mean(1, 8, 8, 80, kind="max"),
        mean(1, 8, 8, 80, dtype=F64),
    ],
    ids=["column", "row", "channels first", "maximum", "double"],
)
def test_what_is_no_mean_of_a_float32_image_stays(g: Graph) -> None:
    becomes(g, [row_means], ["Reduce"])


def code_sum(
    *shape: int, weights: Array | None = None, bias: bool = False, epilogue: bool = False
) -> Graph:
    """A depthwise sum of codes over all pixels."""
    n = Net()
    h, w, c = shape[1:]
    rng = np.random.default_rng(h * w + c)
    if weights is None:
        weights = np.broadcast_to(rng.integers(-128, 128, (c, 1, 1, w)), (c, 1, h, w))
    operands = [n.x(*shape, dtype=I8), n.const(weights.astype(np.int8))]
    if bias or epilogue:
        operands.append(n.const(rng.integers(-9999, 9999, c).astype(np.int32)) if bias else "")
    expr = None
    if epilogue:
        operands.append(n.const(rng.integers(-99, 99, (1, 1, 1, c)).astype(np.int32)))
        expr = lane.call("mul", lane.Arg(0, I32), lane.Arg(1, I32))
    pads = ((0, 0), (0, 0))
    return n.done(n.add(Conv((1, 1), (1, 1), pads, c, True, epilogue=expr, zero=-116), *operands))


@pytest.mark.parametrize("threads", [2, 3, 16])
@pytest.mark.parametrize("height", [2, 7, 14])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("epilogue", [False, True])
def test_a_sum_of_codes_has_a_part_for_each_thread(
    threads: int, height: int, bias: bool, epilogue: bool
) -> None:
    rows = -(-height // min(threads, height))
    parts = -(-height // rows)
    g = code_sum(1, height, 16, 160, bias=bias, epilogue=epilogue)
    after = becomes(g, [row_sums(threads)], ["Conv", *["Slice"] * parts, "Lane"])
    (conv,) = (k for k in after.nodes if isinstance(k.op, Conv))
    assert after.types[conv.outputs[0]].shape == (1, parts, 1, 160)


def test_sums_whose_rows_differ_stay_whole() -> None:
    rng = np.random.default_rng(0)
    uneven = rng.integers(-128, 128, (160, 1, 7, 9))
    becomes(code_sum(1, 7, 9, 160, weights=uneven), [row_sums(2)], ["Conv"])
    becomes(code_sum(2, 7, 9, 160), [row_sums(2)], ["Conv"])
    refused(code_sum(1, 7, 7, 8), row_sums(2), "few")
