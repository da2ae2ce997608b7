"""Functions, means and softmax of 16-bit codes: near the float ops they stand for, integers
throughout, and the same in ONNX Runtime.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from sparrow import lane
from sparrow.builder import Builder
from sparrow.errors import InvalidGraph
from sparrow.evidence.twin import FIXED_POINT_SHARE
from sparrow.graph import Graph, Op
from sparrow.ops.lane import Lane
from sparrow.ops.lookup_linear import ENTRIES, LookupLinear
from sparrow.ops.pool import Pool
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.reduce import Reduce
from sparrow.ops.softmax import Softmax
from sparrow.passes.integer import integer
from sparrow.portable import to_portable_onnx
from sparrow.reference import evaluate
from sparrow.rewrite import Remark
from sparrow.tensor import F32, I8, I16, I32, Affine, Array, DType, TensorType


def _affine(scale: float, rank: int) -> Affine:
    ones = (1,) * rank
    return Affine(np.full(ones, scale, np.float32), np.zeros(ones, np.int32), (-1,) * rank)


def _graph(
    op: Op, shape: tuple[int, ...], scale: float, to: DType, step: float, dtype: DType = I16
) -> tuple[Graph, dict[str, Array]]:
    """Quantize(op(Dequantize(x))), with every part of the range among the codes."""
    rng = np.random.default_rng(7)
    b = Builder("g")
    low, high = dtype.limits
    x = rng.integers(low, high + 1, shape).astype(dtype.numpy)
    x.reshape(-1)[:2] = low, high
    name = b.input("x", TensorType(shape, dtype))
    y = b.add(op, b.add(Dequantize(_affine(scale, len(shape))), name))
    return b.finish({"y": b.add(Quantize(_affine(step, b.type(y).rank), to), y)}, {}), {"x": x}


def _check(g: Graph, feeds: dict[str, Array], steps: int) -> Graph:
    """The integer graph, after its answers were compared."""
    codes = integer(g)
    assert not any(isinstance(n.op, Quantize | Dequantize) for n in codes.nodes)
    want, got = (evaluate(h, feeds)["y"].astype(np.int64) for h in (g, codes))
    assert np.abs(got - want).max() <= steps and np.ptp(want) > 40
    session = ort.InferenceSession(
        to_portable_onnx(codes).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    np.testing.assert_array_equal(session.run(None, feeds)[0], got)
    return codes


@pytest.mark.parametrize("to", [I8, I16])
@pytest.mark.parametrize("name", ["silu", "gelu", "sigmoid", "tanh", "hardswish"])
def test_functions_are_tables_between_which_lines_run(name: str, to: DType) -> None:
    call = Lane(lane.call(name, lane.Arg(0, F32)))
    reach = 1.0 if name in ("sigmoid", "tanh") else 8.0
    g, feeds = _graph(call, (4, 3000), 8 / 32768, to, reach / to.limits[1])
    codes = _check(g, feeds, 1 if to == I8 or name != "tanh" else 2)
    assert [type(n.op) for n in codes.nodes] == [LookupLinear]


def test_what_bends_too_much_stays_float() -> None:
    root = lane.call("sqrt", lane.call("abs", lane.Arg(0, F32)))
    g, _ = _graph(Lane(root), (4, 3), 8 / 32768, I16, 3 / 32768)
    remarks: list[Remark] = []
    assert any(isinstance(n.op, Quantize) for n in integer(g, remarks).nodes)
    assert any("a line between every 128th code is" in r.text for r in remarks)


@pytest.mark.parametrize("reach", [16, 32, 64, 136])
def test_few_codes_of_8_bits_are_off_by_lines_between_entries(reach: int) -> None:
    """Of a far reach a function bends within an interval: it stays float."""
    g, feeds = _graph(
        Lane(lane.call("tanh", lane.Arg(0, F32))), (4, 3000), reach / 32768, I8, 1 / 127
    )
    feeds["x"] = np.random.default_rng(1).normal(0, 32768 / reach, (4, 3000)).astype(np.int16)
    codes = integer(g)
    assert any(isinstance(n.op, LookupLinear) for n in codes.nodes) == (reach <= 16)
    off = np.abs(evaluate(codes, feeds)["y"].astype(int) - evaluate(g, feeds)["y"])
    assert off.max() <= 1 and np.mean(off != 0) < FIXED_POINT_SHARE


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (Reduce("mean", (2, 3)), (2, 5, 7, 9)),
        (Reduce("mean", (1, 2)), (2, 7, 9, 300)),
        (
            Pool("average", (3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)), channels_last=True),
            (1, 9, 9, 8),
        ),
    ],
)
@pytest.mark.parametrize("to", [I8, I16])
def test_means_are_sums_of_bytes(op: Op, shape: tuple[int, ...], to: DType) -> None:
    steps = 0.3 / 127 if to == I8 else 0.3 / 32767
    _check(*_graph(op, shape, 1 / 32768, to, steps), 1)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("dtype", [I16, I8])
def test_softmax_is_made_of_powers_of_two(dtype: DType, axis: int) -> None:
    g, feeds = _graph(Softmax(axis), (3, 40, 17), 6 / dtype.limits[1], I16, 2.0**-15, dtype)
    # exponentials are within 1.8e-4 of themselves
    _check(g, feeds, 6)


def test_a_table_has_513_entries_and_codes_within_their_type() -> None:
    x, table = TensorType((3,), I16), TensorType((ENTRIES,), I32)
    assert LookupLinear(0, -128, 127, I8).infer(x, table) == (TensorType((3,), I8),)
    with pytest.raises(InvalidGraph, match="look-up of"):
        LookupLinear(0, -128, 127, I8).infer(x, TensorType((512,), I32))
    with pytest.raises(InvalidGraph, match="codes -129 to 127 of int8"):
        LookupLinear(0, -129, 127, I8).infer(x, table)
    with pytest.raises(InvalidGraph, match="zero point 128 of int8"):
        LookupLinear(128, -128, 127, I8).infer(x, table)
