"""Bounds hold for honest arithmetic and catch dishonest one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparrow import lane
from sparrow.evidence.rounding import UNIT, lane_error
from sparrow.evidence.tolerances import TOLERANCES, tolerance_of
from sparrow.ops import OPS
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.normalize import Normalize
from sparrow.ops.reduce import Reduce
from sparrow.ops.resize import Axis, Resize
from sparrow.ops.softmax import Softmax
from sparrow.tensor import BF16, F16, F32, I8, I32, Array, DType, TensorType

X = lane.Arg(0, F32)
UNARY = ("exp", "tanh", "sigmoid", "relu", "gelu", "silu", "abs", "sqrt", "sin", "hardswish")


def typed(*arrays: Array) -> tuple[TensorType, ...]:
    return tuple(TensorType(a.shape, F32) for a in arrays)


def test_every_op_has_one_row_with_a_reason() -> None:
    listed = [op for row in TOLERANCES for op in row.ops]
    assert sorted(o.__name__ for o in listed) == sorted(o.__name__ for o in OPS)
    assert all(len(row.reason) > 10 for row in TOLERANCES)


def chain(names: list[str]) -> lane.Expr:
    e: lane.Expr = X
    for k, name in enumerate(names):
        e = lane.call("add" if k % 2 else "mul", lane.call(name, e), lane.Imm(0.75, F32))
    return e


@settings(max_examples=60)
@given(st.lists(st.sampled_from(UNARY), min_size=1, max_size=4), st.integers(0, 1000))
def test_lane_bound_holds_and_is_not_vacuous(names: list[str], seed: int) -> None:
    x = np.random.default_rng(seed).uniform(-3, 3, 256).astype(np.float32)
    e = chain(names)
    single = lane.evaluate(e, (x,)).astype(np.float64)
    exact, error = lane_error(e, (x,), (None,))
    assert error is not None
    ok = np.isfinite(single) & np.isfinite(exact)
    off = np.abs(single[ok] - exact[ok])
    bound = np.broadcast_to(error, exact.shape)[ok]
    assert (off <= bound).all()
    if names.count("exp") < 2:  # the exponential of an exponential makes any rounding large
        assert (bound <= 2e-3 * np.maximum(np.abs(exact[ok]), 1)).all()


@pytest.mark.parametrize("block", [1, 5, 16, 100])
@pytest.mark.parametrize("erring", [False, True])
def test_large_tensors_are_analysed_in_blocks(
    block: int, erring: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(block)
    a, b, c = (
        rng.uniform(-3, 3, shape).astype(np.float32) for shape in [(1, 3, 5, 7), (7,), (3, 1, 1)]
    )
    joined = lane.call("add", lane.call("mul", X, lane.Arg(1, F32)), lane.Arg(2, F32))
    over = lane.call("gt", joined, lane.Imm(0.0, F32))
    errors = (np.full((5, 1), 1e-3), None, None) if erring else (None,) * 3
    for e in (lane.call("silu", joined), over):
        y, error = lane_error(e, (a, b, c), errors)
        with monkeypatch.context() as patched:
            patched.setattr("sparrow.evidence.rounding.BLOCK", block)
            cut, off = lane_error(e, (a, b, c), errors)
        np.testing.assert_allclose(cut, y, rtol=1e-12)
        assert error is not None and off is not None
        np.testing.assert_allclose(off, np.broadcast_to(error, off.shape), rtol=1e-9)
    exact = lane.call("relu", X)
    monkeypatch.setattr("sparrow.evidence.rounding.BLOCK", block)
    assert lane_error(exact, (a,), (None,))[1] is None


@pytest.mark.parametrize("half", [F16, BF16])
def test_half_types_err_like_float32_until_they_are_stored(half: DType) -> None:
    x = np.array([0.5, 0.0], np.float32)
    grown = lane.call("mul", lane.Arg(0, half), lane.Imm(0.421875, half))
    for e, unit in ((lane.cast(grown, F32), UNIT[F32]), (grown, UNIT[half])):
        _, error = lane_error(e, (x,), (None,))
        bound = np.broadcast_to(np.asarray(error), x.shape)
        assert unit * 0.21 <= bound[0] < 3 * unit * 0.211 and bound[1] < 1e-30


def test_a_comparison_may_tip_only_where_the_error_reaches() -> None:
    e = lane.call("gt", X, lane.Imm(0.0, F32))
    x = np.array([1.0, 1e-9, -1.0], np.float32)
    _, error = lane_error(e, (x,), (np.full(3, 1e-6),))
    assert error is not None and error.tolist() == [0, 1, 0]
    assert lane_error(e, (x,), (None,))[1] is None


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        (Conv((1, 1), (1, 1), ((1, 1), (1, 1))), [(1, 8, 9, 9), (4, 8, 3, 3), (4,)]),
        (MatMul(), [(5, 64), (64, 7)]),
        (Softmax(1), [(6, 50)]),
        (Reduce("sum", (1,)), [(4, 300)]),
        (Reduce("mean", (0, 1)), [(40, 30)]),
        (Normalize((1,), 1e-5), [(6, 128), (128,), (128,)]),
    ],
    ids=lambda v: type(v).__name__ if not isinstance(v, list) else "",
)
def test_bound_holds_against_double_and_catches_a_small_fault(
    op: Conv | MatMul | Softmax | Reduce | Normalize, shapes: list[tuple[int, ...]]
) -> None:
    rng = np.random.default_rng(0)
    # a mean away from zero: sums that cancel have no relative bound
    x = [(rng.standard_normal(s) + 0.5).astype(np.float32) for s in shapes]
    types = op.infer(*typed(*x))
    judged = tolerance_of(op).judge(op, x, typed(*x), types)
    (y,), (bound,) = judged.outputs, judged.bounds
    exact = op.eval(*(a.astype(np.float64) for a in x))[0]
    off = np.abs(y - exact)
    assert (off <= np.asarray(bound) / 2 + 1e-30).all()
    assert (np.asarray(bound) < 1e-3 * np.abs(exact).max()).all()


def test_data_movement_and_integers_are_exact() -> None:
    op = Lane(lane.call("relu", X))
    x = np.linspace(-1, 1, 9, dtype=np.float32)
    judged = tolerance_of(op).judge(op, [x], typed(x), typed(x))
    assert np.max(judged.bounds[0]) == 0


@pytest.mark.parametrize("fn", ["softplus", "exp", "tanh", "sqrt", "sin"])
def test_a_scalar_has_the_bound_of_a_vector(fn: str) -> None:
    """NumPy hands out numbers where arrays have no axes."""
    e = lane.call(fn, X)
    found = []
    for shape in ((), (1,)):
        x, moved = np.full(shape, 0.5, np.float32), np.full(shape, 1e-6)
        _, error = lane_error(e, (x,), (moved,))
        assert error is not None
        found.append(np.ravel(error))
    assert found[0] == found[1] > 1e-7


def test_wide_integers_may_tip_only_on_a_whole_number() -> None:
    """Weights that add up to 1 but for rounding give 27 or, truncated, 26."""
    op = Resize((Axis(0, 4, 4 / 6),), "linear", antialias=True)

    def bound(x: Array, dtype: DType) -> Array:
        types = (TensorType(x.shape, dtype),)
        judged = tolerance_of(op).judge(op, (x.astype(dtype.numpy),), types, op.infer(*types))
        return np.asarray(judged.bounds[0])

    flat, steep = np.full(6, 27), 2 ** np.arange(6)
    assert (bound(flat, I32) >= 1).all() and (bound(flat, I32) < 1.1).all()
    assert (bound(steep, I32) == 0).all()
    assert bound(flat, I8) == 0
