"""``op.permuted(perm)(t(x)) == t(op(x))`` for every op that says so."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from sparrow.graph import Op
from sparrow.ops.normalize import LocalResponse, Normalize
from sparrow.ops.pad import Expand, Pad
from sparrow.ops.pool import Pool
from sparrow.ops.reduce import ArgReduce, Cumulate, Reduce
from sparrow.ops.resize import Axis, Resize
from sparrow.tensor import type_of

SHAPE = (2, 3, 5, 4)
OPS: list[Op] = [
    Pool("max", (3, 2), (2, 1), (1, 2), ((1, 0), (0, 1)), indices="row"),
    Pool("average", (3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)), ceil=True, count_pads=True),
    Pool("lp", (2, 2), (1, 1), (1, 1), ((0, 0), (0, 0)), p=3),
    Reduce("mean", (2, 3)),
    Reduce("prod", (1,)),
    ArgReduce("min", 1, last=True),
    Cumulate("sum", 2, exclusive=True, reverse=True),
    Normalize((1, 2), 1e-5, stats=True),
    LocalResponse(3, 0.1, 0.5, 1.0),
    Pad(((0, 1), (2, 0), (1, 3), (0, 0)), "reflect"),
    Expand(SHAPE),
    Resize((Axis(2, 7, 1.4), Axis(3, 2, 0.5)), "cubic", antialias=True),
    Resize((Axis(1, 4, 4 / 3),), "nearest", "asymmetric", "floor"),
]


@pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)
def test_permuted_op_gives_permuted_outputs(op: Op) -> None:
    x = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    want = op.eval(x)
    moved_somewhere = False
    for perm in permutations(range(4)):
        moved = op.permuted(perm, (type_of(x),))
        if moved is None:
            continue
        moved_somewhere = perm != (0, 1, 2, 3) or moved_somewhere
        got = moved.eval(np.ascontiguousarray(x.transpose(perm)))
        types = moved.infer(type_of(x.transpose(perm)))
        for g, w, t in zip(got, want, types, strict=True):
            np.testing.assert_allclose(g, w.transpose(perm), 2e-6, 2e-6)
            assert g.shape == t.shape and g.dtype == t.dtype.numpy
    assert moved_somewhere


def test_normalize_with_scale_of_lower_rank_does_not_move() -> None:
    x, scale = np.zeros((2, 3), np.float32), np.ones(3, np.float32)
    assert Normalize((1,), 1e-5).permuted((1, 0), (type_of(x), type_of(scale))) is None
