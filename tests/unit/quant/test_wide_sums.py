"""Sums that may leave int32: float where nobody asked for integers, refused where somebody did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from sparrow.api import build
from sparrow.builder import Builder
from sparrow.errors import BadInput
from sparrow.graph import Graph
from sparrow.ops.matmul import MatMul
from sparrow.passes import BACK, optimize
from sparrow.portable import to_portable_onnx
from sparrow.quant import Recipe, run
from sparrow.quant.run import Quantized
from sparrow.rewrite import Remark
from sparrow.samples import Feeds
from sparrow.tensor import F32, TensorType

# of weights that are all alike, whose codes are 127, and of inputs of up to 255 steps
LARGEST = 66_310


def product(k: int) -> Graph:
    b = Builder("wide")
    x = b.input("x", TensorType((1, k), F32))
    return b.finish({"y": b.add(MatMul(), x, b.const(np.ones((k, 2), np.float32)))}, {})


def quantized(k: int, pins: tuple[tuple[str, str], ...] = ()) -> Quantized:
    calls: list[Feeds] = [{"x": np.linspace(0, 1 + i, k, dtype=np.float32)[None]} for i in range(4)]
    return run(product(k), calls, Recipe(ranges="minmax", rounding="nearest", pins=pins))  # type: ignore[arg-type]


def test_a_sum_that_just_fits_is_of_codes() -> None:
    q = quantized(LARGEST, (("MatMul", "int8"),))
    assert [layer.beyond for layer in q.layers] == [""]
    assert not any("stays float" in note for note in q.calibration.health.notes)


def test_a_larger_one_stays_float_and_says_why() -> None:
    q = quantized(LARGEST + 7)
    (note,) = [n for n in q.calibration.health.notes if "stays float" in n]
    assert "sums of 66,317 products may reach 2,147,6" in note and "2,147,483,647" in note
    remarks: list[Remark] = []
    done = optimize(q.graph, BACK, remarks)
    assert any("sums of 66,317 products" in r.text for r in remarks)
    assert [done.types[n.inputs[0]].dtype for n in done.nodes if isinstance(n.op, MatMul)] == [F32]


def test_a_pin_to_int8_is_refused_in_one_line() -> None:
    with pytest.raises(BadInput, match=r"pinned to int8, but sums of 66,317 products") as e:
        quantized(LARGEST + 7, (("MatMul", "int8"),))
    assert "int16x8" in str(e.value) and "\n" not in e.value.message
    assert [x.beyond for x in quantized(LARGEST + 7, (("MatMul", "int16x8"),)).layers] == [""]


def test_a_quantized_file_is_refused_where_integers_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "wide.onnx"
    onnx.save(to_portable_onnx(quantized(LARGEST + 7).graph), path)
    with pytest.raises(BadInput, match="int8 is asked for, but sums of 66,317 products"):
        build(path, precision="int8")
    assert build(path).receipt.ok
