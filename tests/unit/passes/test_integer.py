"""What the integer rules make of float ops between codes: the same within a step, no float left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from sparrow.builder import Builder
from sparrow.graph import Graph, Scheme
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.softmax import Softmax
from sparrow.passes.integer import integer
from sparrow.portable import to_portable_onnx
from sparrow.quant.affine import per_tensor
from sparrow.reference import evaluate
from sparrow.tensor import I8, U8, Affine, Array, DType, TensorType

SCHEMES: tuple[Scheme, ...] = ("f32", "fixed31")


def affine(low: float, high: float, dtype: DType, rank: int) -> Affine:
    """The quantization whose codes cover a range."""
    return per_tensor((low, high), dtype, rank)


def codes(seed: int, shape: tuple[int, ...], dtype: DType) -> Array:
    low, high = dtype.limits
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(dtype.numpy)


def between_codes(
    x: Array,
    dtypes: tuple[DType, DType],
    ranges: tuple[tuple[float, float], tuple[float, float]],
    op: Callable[[Builder, str], str],
    scheme: Scheme = "f32",
) -> tuple[Graph, Mapping[str, Array]]:
    """(graph, feeds) of Quantize(op(Dequantize(x)))."""
    b = Builder("g")
    codes = b.input("x", TensorType(x.shape, dtypes[0]))
    real = b.add(Dequantize(affine(*ranges[0], dtypes[0], x.ndim)), codes)
    y = op(b, real)
    quant = affine(*ranges[1], dtypes[1], len(b.shape(y)))
    return replace(b.finish({"y": b.add(Quantize(quant, dtypes[1]), y)}, {}), scheme=scheme), {
        "x": x
    }


def check(g: Graph, feeds: Mapping[str, Array], steps: int = 1) -> Graph:
    """The integer form is within ``steps`` of the float one, and ONNX Runtime computes the same."""
    whole = integer(g)
    assert not any(isinstance(n.op, (Dequantize, Quantize)) for n in whole.nodes)
    got, want = evaluate(whole, feeds)["y"], evaluate(g, feeds)["y"]
    assert got.dtype == want.dtype
    off = np.abs(got.astype(np.int64) - want)
    assert off.max(initial=0) <= steps, (off.max(), np.count_nonzero(off > steps))
    assert len(np.unique(got)) > 4
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    data = to_portable_onnx(whole).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, dict(feeds))[0], got)
    return whole


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("to", [I8, U8], ids=str)
@pytest.mark.parametrize("dtype", [I8, U8], ids=str)
@pytest.mark.parametrize("axis", [0, 2])
def test_softmax(axis: int, dtype: DType, to: DType, scheme: Scheme) -> None:
    x = codes(axis, (3, 4, 50), dtype)
    spread = 4.0 * (axis + 1)
    g, feeds = between_codes(
        x,
        (dtype, to),
        ((-spread, spread), (0.0, 0.5)),
        lambda b, v: b.add(Softmax(axis), v),
        scheme,
    )
    check(g, feeds)
