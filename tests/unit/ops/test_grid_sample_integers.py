"""Grid sampling of integers: exact where elements are copied, else in a type that holds them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import sparrow


def model(dtype: np.dtype[np.generic], mode: str) -> onnx.ModelProto:
    code = helper.np_dtype_to_tensor_dtype(dtype)
    x = helper.make_tensor_value_info("x", code, [1, 2, 4, 4])
    grid = helper.make_tensor_value_info("grid", onnx.TensorProto.FLOAT, [1, 2, 3, 2])
    y = helper.make_tensor_value_info("y", code, [1, 2, 2, 3])
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], mode=mode)
    graph = helper.make_graph([node], "g", [x, grid], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
def test_nearest_copies_every_value_exactly(name: str) -> None:
    dtype = np.dtype(name)
    rng = np.random.default_rng(0)
    info = np.iinfo(name)
    x = rng.integers(info.min, info.max, (1, 2, 4, 4), dtype, endpoint=True)
    column, row = np.array([[0, 3, 2], [1, 1, 0]]), np.array([[3, 0, 1], [2, 2, 3]])
    grid = np.stack([(2 * column + 1) / 4 - 1, (2 * row + 1) / 4 - 1], -1)[None]
    y = sparrow.build(model(dtype, "nearest")).run({"x": x, "grid": grid.astype(np.float32)})["y"]
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, x[:, :, row, column])


@pytest.mark.parametrize("name", ["int32", "uint32", "int64", "uint64"])
def test_wide_integers_are_interpolated_in_double_precision(name: str) -> None:
    dtype = np.dtype(name)
    # float32 would round the odd ones away
    x = (np.arange(32).reshape(1, 2, 4, 4) * 2 + (1 << 30) + 1).astype(dtype)
    column, row = np.array([[0, 2, 1], [1, 1, 0]]), np.array([[2, 0, 1], [2, 2, 2]])
    # half-way between four neighbours
    grid = np.stack([(column + 1) / 2 - 1, (row + 1) / 2 - 1], -1)[None]
    y = sparrow.build(model(dtype, "bilinear")).run({"x": x, "grid": grid.astype(np.float32)})["y"]
    assert y.dtype == dtype
    corners = [x[:, :, row + i, column + j].astype(np.int64) for i in (0, 1) for j in (0, 1)]
    np.testing.assert_array_equal(y, sum(corners) // 4)
