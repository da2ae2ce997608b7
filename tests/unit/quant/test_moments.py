"""Second moments say what a change of the weights does to the outputs, in either layout."""

from __future__ import annotations

import numpy as np
import pytest

from sparrow.graph import Graph, Node, infer_types
from sparrow.ops.conv import Conv
from sparrow.ops.matmul import MatMul
from sparrow.quant.adaround import output_error
from sparrow.quant.moments import SecondMoments
from sparrow.tensor import F32, Array, TensorType


def layer(op: Conv | MatMul, x: Array, w: Array) -> tuple[Graph, Node]:
    types = {"x": TensorType(x.shape, F32), "w": TensorType(w.shape, F32)}
    n = Node(op, ("x", "w"), ("y",))
    types["y"] = infer_types(n, types)[0]
    return Graph("g", ("x",), ("y",), (n,), types, {"w": w}), n


@pytest.mark.parametrize(
    ("op", "x", "w"),
    [
        (Conv((1, 2), (1, 1), ((1, 1), (0, 1))), (1, 4, 7, 8), (6, 4, 3, 3)),
        (Conv((1, 1), (2, 1), ((0, 0), (0, 0)), group=2), (1, 4, 7, 8), (6, 2, 3, 2)),
        (Conv((1, 1), (1, 1), ((1, 1), (1, 1)), 4, True), (1, 7, 8, 4), (4, 1, 3, 3)),
        (Conv((2,), (1,), ((1, 0),)), (1, 3, 9), (5, 3, 3)),
        (MatMul(), (2, 5, 4), (4, 3)),
        (MatMul(trans_a=True, trans_b=True), (4, 6), (3, 4)),
    ],
)
def test_the_error_of_the_outputs_is_a_quadratic_form(
    op: Conv | MatMul, x: tuple[int, ...], w: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(3)
    data = rng.standard_normal(x).astype(np.float32)
    delta = rng.standard_normal(w).astype(np.float32)
    g, n = layer(op, data, delta)
    m = SecondMoments.of(g, n)
    assert m is not None
    m.add(data)
    (y,) = op.eval(data, delta)
    last = isinstance(op, MatMul) or op.channels_last
    rows = np.moveaxis(y, -1 if last else 1, 0)
    want = np.square(rows.reshape(len(rows), -1).astype(np.float64)).mean(1)
    first = delta.T if isinstance(op, MatMul) and not op.trans_b else delta
    split = first.reshape(len(m.total), len(first) // len(m.total), -1).astype(np.float64)
    found = m.moments()
    np.testing.assert_allclose(output_error(split, found.second).reshape(-1), want, rtol=1e-4)
    mean = (split @ found.mean[:, :, None]).reshape(-1)
    np.testing.assert_allclose(mean, rows.reshape(len(rows), -1).mean(1), atol=1e-5)
