"""Tables that are looked up in: stored as codes, with a scale per row, and picked as codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emitted import compiled, planned
from emitted import run as native
from sparrow.builder import Builder
from sparrow.errors import BadInput
from sparrow.graph import Graph
from sparrow.ops.gather import Gather
from sparrow.ops.matmul import MatMul
from sparrow.ops.quantize import Dequantize
from sparrow.passes import BACK, FRONT, PIPELINE, optimize
from sparrow.quant import Recipe, run
from sparrow.quant.recipe import Pins
from sparrow.reference import evaluate
from sparrow.samples import Feeds
from sparrow.tensor import F32, I8, I64, U8, Affine, Array, DType, TensorType

ROWS, WIDTH = 300, 24
HALVES = np.full(WIDTH, 0.5, np.float32)


def indices(seed: int) -> Array:
    return np.random.default_rng(seed).integers(-ROWS, ROWS, (2, 7))


def stored(g: Graph, dtype: DType) -> list[int]:
    """Elements of the constants as large as a table."""
    sizes = [t.size for x, t in g.types.items() if x in g.consts and t.dtype == dtype]
    return [n for n in sizes if n >= ROWS * WIDTH]


def coded_table(dtype: DType, axis: int, scales: int, zeros: bool) -> Graph:
    """Rows picked along an axis from codes of one scale, or of one per row."""
    rng = np.random.default_rng(3)
    shape = (ROWS, WIDTH) if axis == 0 else (5, ROWS, WIDTH)
    low, high = dtype.limits
    codes = rng.integers(low, high + 1, shape).astype(dtype.numpy)
    spread = tuple(d if i == scales else 1 for i, d in enumerate(shape))
    zero = rng.integers(low, high, spread) if zeros else np.zeros(spread, int)
    block = tuple(1 if i == scales else -1 for i in range(len(shape)))
    scale = rng.uniform(1e-3, 1, spread).astype(np.float32)
    quant = Affine(scale, zero.astype(np.int32), block)
    b = Builder("table")
    at = b.input("at", TensorType((2, 7), I64))
    real = b.add(Dequantize(quant), b.const(codes))
    return b.finish({"y": b.add(Gather(axis), real, at)}, {})


@pytest.mark.parametrize("dtype", [I8, U8], ids=str)
@pytest.mark.parametrize(("axis", "scales"), [(0, 0), (0, 9), (0, 1), (1, 1), (1, 0), (1, 2)])
@pytest.mark.parametrize("zeros", [False, True])
def test_rows_are_picked_as_codes_with_the_same_bits(
    dtype: DType, axis: int, scales: int, zeros: bool, tmp_path: Path
) -> None:
    g = coded_table(dtype, axis, scales, zeros)
    done = optimize(g, PIPELINE)
    assert stored(done, dtype) == [ROWS * WIDTH * (1 if axis == 0 else 5)]
    assert not stored(done, F32)
    feeds = {"at": indices(1)}
    want = evaluate(g, feeds)["y"]
    np.testing.assert_array_equal(evaluate(done, feeds)["y"], want)
    p = planned(done)
    (found,) = native(p, compiled(p, tmp_path), feeds)
    np.testing.assert_array_equal(found, want)


def embedded(rows: int) -> Graph:
    """A product over embeddings, as a float graph."""
    rng = np.random.default_rng(4)
    b = Builder("embedded")
    at = b.input("at", TensorType((2, 7), I64))
    # rows of very unlike sizes, as of rare and of common words
    table = rng.standard_normal((rows, WIDTH)) * rng.uniform(0.01, 1, (rows, 1))
    x = b.add(Gather(0), b.const(table.astype(np.float32)), at)
    w = b.const(rng.standard_normal((WIDTH, 16)).astype(np.float32))
    row = b.call("mul", x, b.const(HALVES))
    return optimize(b.finish({"y": b.add(MatMul(), x, w), "row": row}, {}), FRONT)


def samples(n: int) -> list[Feeds]:
    return [{"at": indices(i)} for i in range(n)]


def test_an_embedding_is_stored_as_codes() -> None:
    g = embedded(ROWS)
    q = run(g, samples(16))
    assert ("Gather", "int8") in [(x.op, x.precision) for x in q.layers]
    done = optimize(q.graph, BACK)
    assert not [
        x
        for x, t in done.types.items()
        if x in done.consts and t.size == ROWS * WIDTH and t.dtype == F32
    ]
    feeds = samples(17)[-1]
    want, found = evaluate(g, feeds)["row"], evaluate(done, feeds)["row"]
    steps = np.abs(want).max(-1, keepdims=True) / 127
    assert (np.abs(found - want) <= 0.501 * steps).all()
    power = np.square(want).sum() / np.square(found - want).sum()
    one = optimize(run(g, samples(16), Recipe(weights="per_tensor")).graph, BACK)
    coarse = np.square(want).sum() / np.square(evaluate(one, feeds)["row"] - want).sum()
    assert power > 1e4 and power > 2 * coarse


@pytest.mark.parametrize(
    ("rows", "pins"), [(ROWS, (("Gather", "float32"),)), (30, ()), (30, (("Gather", "int8"),))]
)
def test_a_pinned_or_small_table_stays_float(rows: int, pins: Pins) -> None:
    feeds = [{"at": indices(i) % rows} for i in range(8)]
    assert [x.op for x in run(embedded(rows), feeds, Recipe(pins=pins)).layers] == ["MatMul"]


def test_a_table_that_holds_no_numbers_is_refused() -> None:
    g = embedded(ROWS)
    (table,) = (x for x, a in g.consts.items() if a.shape == (ROWS, WIDTH))
    g.consts[table][5] = np.nan
    with pytest.raises(BadInput, match="NaN"):
        run(g, [{"at": np.zeros((2, 7), np.int64)} for _ in range(8)])


def test_a_network_of_coded_weights_alone_keeps_its_table() -> None:
    g = coded_table(I8, 0, 0, False)
    front = optimize(g, FRONT)
    assert not [n for n in front.nodes if isinstance(n.op, Dequantize)]
    assert [
        t.dtype for x, t in front.types.items() if x in front.consts and t.size == ROWS * WIDTH
    ] == [I8]
