"""Half types reach kernels as float32, and only where kernels need it."""

from __future__ import annotations

import numpy as np
import pytest

from sparrow.builder import Builder
from sparrow.graph import Graph
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.resize import Axis, Resize
from sparrow.ops.transpose import Transpose
from sparrow.passes.legalize import legalize
from sparrow.reference import evaluate
from sparrow.rewrite import apply_rules
from sparrow.tensor import BF16, F16, F32, DType, TensorType, round_bfloat16

RULES = (("legalize", legalize),)


def product(dtype: DType) -> Graph:
    """[3, 4] @ [4, 5] with constant weights, then a transpose."""
    b = Builder("g")
    x = b.input("x", TensorType((3, 4), dtype))
    w = np.arange(20, dtype=np.float32).reshape(4, 5) / np.float32(7)
    w = round_bfloat16(w).astype(dtype.numpy)
    y = b.add(MatMul(), x, b.const(w, dtype))
    return b.finish({"y": b.add(Transpose((1, 0)), y)}, {})


@pytest.mark.parametrize("dtype", [F16, BF16])
def test_product_in_float32(dtype: DType) -> None:
    g = product(dtype)
    h = apply_rules(g, RULES)
    assert [type(n.op) for n in h.nodes] == [Lane, MatMul, Lane, Transpose]
    assert h.types[h.nodes[1].outputs[0]].dtype == F32
    assert all(h.types[w].dtype == F32 for w in h.consts)
    assert h.types["y"].dtype == dtype
    x = round_bfloat16(np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)).astype(dtype.numpy)
    np.testing.assert_array_equal(evaluate(h, {"x": x})["y"], evaluate(g, {"x": x})["y"])
    assert apply_rules(h, RULES) is h


def test_float32_and_movement_stay() -> None:
    assert apply_rules(product(F32), RULES).nodes == product(F32).nodes
    b = Builder("g")
    x = b.input("x", TensorType((1, 2, 4, 4), F16))
    moved = b.add(Resize((Axis(2, 8, 2.0),)), x)
    g = b.finish({"y": moved}, {})
    assert apply_rules(g, RULES).nodes == g.nodes
