"""Means of images go by rows, which the cores that computed them can read."""

import pytest

from sparrow.graph import Graph
from sparrow.ops.reduce import Reduce
from sparrow.passes.row_means import row_means
from sparrow.tensor import F32, F64, DType
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
