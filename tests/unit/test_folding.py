"""What is computed from constants is paid for by what it costs, not by what it writes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sparrow.builder import Builder
from sparrow.errors import BadModel
from sparrow.folding import SMALL_WORK, SPARE_WORK, Folding, evaluation_work
from sparrow.graph import Op
from sparrow.ops.conv import Conv
from sparrow.ops.gru_codes import GRUCodes
from sparrow.ops.lstm import LSTM
from sparrow.ops.matmul import MatMul
from sparrow.ops.nms import NonMaxSuppression
from sparrow.ops.pad import Pad
from sparrow.ops.reduce import Reduce
from sparrow.ops.resize import Axis, Resize
from sparrow.ops.roi import RoiPool
from sparrow.ops.topk import TopK
from sparrow.tensor import F32, I8, I32, TensorType


def floats(*shape: int) -> TensorType:
    return TensorType(shape, F32)


# Each writes less than a thousand elements.
COSTLY: tuple[tuple[Op, tuple[TensorType, ...]], ...] = (
    (MatMul(), (floats(1, 1 << 22), floats(1 << 22, 1))),
    (Conv((1,), (1,), ((0, 0),)), (floats(1, 1, 1 << 22), floats(1, 1, 1 << 22))),
    (Reduce("sum", (0,)), (floats(1 << 23),)),
    (TopK(0, 1, True), (floats(1 << 22),)),
    (Resize((Axis(0, 1, 1 / (1 << 20)),), "cubic", antialias=True), (floats(1 << 20),)),
    (LSTM(sequence=False), (floats(1 << 12, 1, 1), floats(4, 1), floats(4, 1))),
    (
        GRUCodes(0, 1.0, sequence=False),
        (TensorType((1 << 7, 1, 3), I32), TensorType((3, 1), I8), floats(3)),
    ),
    (NonMaxSuppression(1), (floats(1, 1 << 12, 4), floats(1, 1, 1 << 12))),
    (Pad(((0, 900),), "wrap"), (floats(1),)),
    (RoiPool((1, 1)), (floats(1, 1, 1 << 10, 1 << 10), floats(10, 5))),
)


@pytest.mark.parametrize(("op", "x"), COSTLY, ids=lambda v: type(v).__name__)
def test_the_cost_counts(op: Op, x: tuple[TensorType, ...]) -> None:
    y = op.infer(*x)
    assert sum(t.size for t in y) < 1000
    assert evaluation_work(op, x, y) > SMALL_WORK
    spent = Folding()
    count = 0
    while spent.takes(op, x, y):
        count += 1
    assert count * evaluation_work(op, x, y) <= SPARE_WORK


def test_extents_beside_a_zero_count() -> None:
    x = floats(1 << 24, 0, 2)
    op = Resize((Axis(2, 4, 2.0),))
    assert not Folding().takes(op, (x,), op.infer(x))
    with pytest.raises(BadModel, match="out of range"):
        Builder("g").input("x", replace(x, shape=(1 << 24, 0, 1 << 8)))


def test_small_evaluations_are_counted_apart() -> None:
    b = Builder("g")
    x = b.const(np.ones(8, np.float32))
    before = b.effort
    b.add(Resize((Axis(0, 16, 2.0),), "cubic"), x)
    assert not b.nodes and b.effort > before + 5
