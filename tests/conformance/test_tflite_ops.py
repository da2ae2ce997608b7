"""Each TFLite operator against LiteRT's own kernel, as numbers and as codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparrow.export import to_onnx
from sparrow.importers.tflite import DECODERS, import_tflite
from sparrow.reference import evaluate
from sparrow.tensor import BOOL, F32, I8, I32, Array, DType
from tflite_files import T, constant, litert, one

RNG = np.random.default_rng(5)
F = dict[str, Any]


def f32(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def i32(*values: int) -> Array:
    return np.array(values, np.int32)


@dataclass(frozen=True)
class Case:
    """One operator: inputs, constants behind them, options and the shape of the output."""

    op: str
    inputs: Sequence[Array]
    shape: tuple[int, ...]
    options: F = field(default_factory=dict)
    consts: Sequence[Array] = ()
    dtype: DType = F32
    order: str = ""
    # scale of the inputs, of the output: codes are tested as well
    steps: tuple[float, float] | None = None
    note: str = ""

    @property
    def id(self) -> str:
        return f"{self.op}{'-' if self.note else ''}{self.note}"


SAME, VALID = {"padding": 0}, {"padding": 1}
ONE: F = {"stride_w": 1, "stride_h": 1}
PLAIN: F = {"dilation_w": 1, "dilation_h": 1}
X, W = f32(1, 6, 7, 4), f32(5, 3, 2, 4)
POOL: F = {"filter_w": 3, "filter_h": 2, "stride_w": 2, "stride_h": 2}
PADS = np.array([[1, 1], [0, 3]], np.int32)
SLICE: F = {
    "begin_mask": 0, "end_mask": 0, "ellipsis_mask": 0, "new_axis_mask": 0, "shrink_axis_mask": 0,
}  # fmt: skip

CASES = [
    Case("CONV_2D", [X], (1, 6, 7, 5), SAME | ONE | PLAIN, [W, f32(5)]),
    Case(
        "CONV_2D", [X], (1, 2, 3, 5),
        VALID | PLAIN | {"stride_w": 2, "stride_h": 2, "activation": 1}, [W, f32(5)], note="valid",
    ),
    Case(
        "CONV_2D", [X], (1, 6, 7, 5),
        SAME | ONE | {"dilation_w": 2, "dilation_h": 2, "activation": 3}, [W, f32(5)],
        note="dilated",
    ),
    Case(
        "DEPTHWISE_CONV_2D", [X], (1, 3, 4, 8),
        SAME | {"stride_w": 2, "stride_h": 2, "activation": 0} | PLAIN,
        [f32(1, 3, 3, 8), f32(8)],
    ),
    Case(
        "TRANSPOSE_CONV", [X], (1, 12, 14, 5), SAME | {"stride_w": 2, "stride_h": 2},
        [i32(1, 12, 14, 5), f32(5, 3, 3, 4)], order="bca",
    ),
    Case(
        "TRANSPOSE_CONV", [X], (1, 13, 15, 5), VALID | {"stride_w": 2, "stride_h": 2},
        [i32(1, 13, 15, 5), f32(5, 3, 3, 4)], order="bca", note="valid",
    ),
    Case("FULLY_CONNECTED", [f32(3, 8)], (3, 5), {"activation": 1}, [f32(5, 8), f32(5)]),
    Case("BATCH_MATMUL", [f32(2, 3, 4), f32(2, 5, 4)], (2, 3, 5), {"adj_x": False, "adj_y": True}),
    Case("AVERAGE_POOL_2D", [X], (1, 3, 4, 4), SAME | POOL, steps=(0.03, 0.03)),
    Case("MAX_POOL_2D", [X], (1, 3, 3, 4), VALID | POOL, steps=(0.03, 0.03)),
    Case("L2_POOL_2D", [X], (1, 3, 4, 4), SAME | POOL),
    Case("ADD", [f32(2, 3, 4), f32(3, 1)], (2, 3, 4), {"activation": 1}, steps=(0.03, 0.04)),
    Case("SUB", [f32(2, 3, 4), f32(4)], (2, 3, 4), {"activation": 2}, steps=(0.03, 0.04)),
    Case("MUL", [f32(2, 3, 4), f32(2, 3, 4)], (2, 3, 4), {"activation": 3}, steps=(0.03, 0.05)),
    Case("DIV", [f32(2, 3), 1 + np.abs(f32(2, 3))], (2, 3), {"activation": 0}),
    Case("MAXIMUM", [f32(2, 3), f32(2, 3)], (2, 3), steps=(0.03, 0.03)),
    Case("MINIMUM", [f32(2, 3), f32(2, 3)], (2, 3), steps=(0.03, 0.03)),
    Case("SQUARED_DIFFERENCE", [f32(2, 3), f32(2, 3)], (2, 3), steps=(0.03, 0.1)),
    Case("POW", [1 + np.abs(f32(2, 3)), f32(2, 3)], (2, 3)),
    Case("FLOOR_DIV", [i32(7, -7, 7, -7), i32(2, 2, -2, -2)], (4,), dtype=I32),
    Case("FLOOR_MOD", [i32(7, -7, 7, -7), i32(3, 3, -3, -3)], (4,), dtype=I32),
    Case("ADD_N", [f32(2, 3), f32(2, 3), f32(2, 3)], (2, 3)),
    Case("EQUAL", [i32(1, 2, 3), i32(1, 3, 3)], (3,), dtype=BOOL),
    Case("NOT_EQUAL", [i32(1, 2, 3), i32(1, 3, 3)], (3,), dtype=BOOL),
    Case("LESS", [f32(2, 3), f32(2, 3)], (2, 3), dtype=BOOL),
    Case("GREATER_EQUAL", [f32(2, 3), f32(2, 3)], (2, 3), dtype=BOOL),
    Case("LOGICAL_AND", [np.array([True, False]), np.array([True, True])], (2,), dtype=BOOL),
    Case("LOGICAL_OR", [np.array([True, False]), np.array([False, False])], (2,), dtype=BOOL),
    Case("LOGICAL_NOT", [np.array([True, False])], (2,), dtype=BOOL),
    Case("SELECT", [np.array([True, False]), f32(2, 3), f32(2, 3)], (2, 3)),
    Case("SELECT_V2", [np.array([[True], [False]]), f32(2, 3), f32(1, 3)], (2, 3)),
    Case("ABS", [f32(2, 3)], (2, 3)),
    Case("NEG", [f32(2, 3)], (2, 3)),
    Case("EXP", [f32(2, 3)], (2, 3)),
    Case("LOG", [1 + np.abs(f32(2, 3))], (2, 3)),
    Case("SIN", [f32(2, 3)], (2, 3)),
    Case("COS", [f32(2, 3)], (2, 3)),
    Case("SQRT", [np.abs(f32(2, 3))], (2, 3)),
    Case("RSQRT", [1 + np.abs(f32(2, 3))], (2, 3)),
    Case("SQUARE", [f32(2, 3)], (2, 3)),
    Case("FLOOR", [f32(2, 3)], (2, 3)),
    Case("CEIL", [f32(2, 3)], (2, 3)),
    Case("ROUND", [np.array([0.5, 1.5, -0.5, 2.4], np.float32)], (4,)),
    Case("SIGN", [f32(2, 3)], (2, 3)),
    Case("CAST", [f32(2, 3)], (2, 3), dtype=I32),
    Case("RELU", [f32(2, 30)], (2, 30), steps=(0.03, 0.02)),
    Case("RELU6", [4 * f32(2, 30)], (2, 30), steps=(0.1, 0.05)),
    Case("RELU_N1_TO_1", [f32(2, 30)], (2, 30)),
    Case("RELU_0_TO_1", [f32(2, 30)], (2, 30)),
    Case("LOGISTIC", [3 * f32(2, 50)], (2, 50), steps=(0.08, 1 / 256)),
    Case("TANH", [2 * f32(2, 50)], (2, 50), steps=(0.05, 1 / 128)),
    Case("ELU", [f32(2, 30)], (2, 30), steps=(0.03, 0.03)),
    Case("GELU", [f32(2, 30)], (2, 30), {"approximate": False}, steps=(0.03, 0.03)),
    Case("LEAKY_RELU", [f32(2, 30)], (2, 30), {"alpha": 0.2}, steps=(0.03, 0.02)),
    Case("PRELU", [X], X.shape, {}, [f32(1, 1, 4)]),
    Case("HARD_SWISH", [3 * f32(2, 50)], (2, 50), steps=(0.08, 0.06)),
    Case("SOFTMAX", [f32(2, 10)], (2, 10), {"beta": 1.0}, steps=(0.05, 1 / 256)),
    Case("LOG_SOFTMAX", [f32(2, 10)], (2, 10), steps=(0.05, 16 / 256)),
    Case("L2_NORMALIZATION", [f32(2, 10)], (2, 10), {"activation": 0}, steps=(0.03, 1 / 128)),
    Case("RESHAPE", [X], (1, 42, 4), {"new_shape": [1, -1, 4]}, [i32(1, -1, 4)]),
    Case("SQUEEZE", [f32(1, 3, 1, 2)], (3, 2), {"axes": [0, 2]}),
    Case("EXPAND_DIMS", [f32(3, 2)], (3, 1, 2), {}, [i32(1)]),
    Case("TRANSPOSE", [f32(2, 3, 4)], (4, 2, 3), {}, [i32(2, 0, 1)], steps=(0.03, 0.03)),
    Case("CONCATENATION", [f32(2, 3), f32(2, 4)], (2, 7), {"axis": 1, "activation": 0}),
    Case("PACK", [f32(2, 3), f32(2, 3)], (2, 2, 3), {"axis": 1, "count": 2}),
    Case("SLICE", [f32(4, 5)], (2, 3), {}, [i32(1, 2), i32(2, -1)]),
    Case(
        "STRIDED_SLICE", [f32(4, 5, 6)], (2, 6),
        SLICE | {"shrink_axis_mask": 2, "end_mask": 4},
        [i32(0, 3, -1), i32(4, 0, 0), i32(2, 1, -1)],
    ),
    Case("PAD", [f32(2, 3)], (4, 6), {}, [PADS], steps=(0.03, 0.03)),
    Case(
        "PADV2", [f32(2, 3)], (4, 6), {},
        [PADS, np.array([7], np.float32)],
    ),
    Case("MIRROR_PAD", [f32(4, 3)], (6, 5), {"mode": 0}, [np.array([[1, 1], [0, 2]], np.int32)]),
    Case(
        "MIRROR_PAD", [f32(4, 3)], (8, 6), {"mode": 1}, [np.array([[0, 4], [2, 1]], np.int32)],
        steps=(0.03, 0.03), note="symmetric",
    ),
    Case("GATHER", [f32(4, 3)], (4, 2), {"axis": 1, "batch_dims": 0}, [i32(2, 0)]),
    Case(
        "GATHER", [f32(2, 3, 4)], (2, 2, 4), {"axis": 1, "batch_dims": 1},
        [np.array([[2, 0], [1, 1]], np.int32)], note="batch",
    ),
    Case("GATHER_ND", [f32(4, 3)], (2,), {}, [np.array([[2, 0], [1, 1]], np.int32)]),
    Case("TILE", [f32(2, 3)], (4, 9), {}, [i32(2, 3)]),
    Case("BROADCAST_TO", [f32(1, 3)], (2, 3), {}, [i32(2, 3)]),
    Case("SPACE_TO_DEPTH", [f32(1, 4, 6, 2)], (1, 2, 3, 8), {"block": 2}),
    Case("DEPTH_TO_SPACE", [f32(1, 2, 3, 8)], (1, 4, 6, 2), {"block": 2}),
    Case(
        "SPACE_TO_BATCH_ND", [f32(1, 5, 6, 2)], (6, 3, 3, 2), {},
        [i32(2, 3), np.array([[1, 0], [2, 1]], np.int32)], steps=(0.03, 0.03),
    ),
    Case(
        "BATCH_TO_SPACE_ND", [f32(6, 3, 3, 2)], (1, 5, 6, 2), {},
        [i32(2, 3), np.array([[1, 0], [2, 1]], np.int32)],
    ),
    Case("REVERSE_V2", [f32(4, 3)], (4, 3), {}, [i32(1)]),
    Case("MEAN", [X], (1, 4), {"keep_dims": False}, [i32(1, 2)], steps=(0.03, 0.01)),
    Case("SUM", [f32(4, 3)], (4, 1), {"keep_dims": True}, [i32(1)], steps=(0.03, 0.06)),
    Case("REDUCE_MAX", [f32(2, 3)], (2,), {"keep_dims": False}, [i32(1)]),
    Case("REDUCE_MIN", [f32(2, 3)], (2,), {"keep_dims": False}, [i32(1)]),
    Case("REDUCE_PROD", [f32(2, 3)], (2,), {"keep_dims": False}, [i32(1)]),
    Case("ARG_MAX", [f32(4, 7)], (4,), {"output_type": 2}, [i32(1)], dtype=I32),
    Case("ARG_MIN", [f32(4, 7)], (4,), {"output_type": 2}, [i32(1)], dtype=I32),
    Case("CUMSUM", [f32(4, 7)], (4, 7), {"exclusive": True, "reverse": True}, [i32(1)]),
    *(
        Case(
            f"RESIZE_{kind}", [X], (1, size[0], size[1], 4), {"align_corners": a, "half_pixel": h},
            [i32(*size)], note=f"{size[0]}{'a' * a}{'h' * h}",
        )
        for kind in ("BILINEAR", "NEAREST_NEIGHBOR")
        for a, h in ((False, False), (True, False), (False, True))
        for size in ((11, 13), (3, 4))
    ),
]  # fmt: skip


def file_of(case: Case, quant: tuple[float, float] | None = None) -> tuple[bytes, dict[str, Array]]:
    """The file of a case and its feeds, as codes with the given steps or as numbers."""
    letters = "abcdefgh"
    consts = [constant(letters[len(case.inputs) + i], c) for i, c in enumerate(case.consts)]
    feeds = {letters[i]: x for i, x in enumerate(case.inputs)}
    order = list(case.order)
    # LiteRT fixes the codes of these outputs
    zero = {"LOGISTIC": -128, "SOFTMAX": -128, "LOG_SOFTMAX": 127}.get(case.op, 0)
    if quant is None:
        out = T("y", case.shape, case.dtype)
        return one(case.op, feeds, case.options, out=out, consts=consts, order=order), feeds
    step, written = quant
    feeds = {k: np.clip(np.rint(x / step), -128, 127).astype(np.int8) for k, x in feeds.items()}
    out = T("y", case.shape, I8, scale=[written], zero=[zero])
    codes = dict.fromkeys(feeds, (step, 0))
    data = one(case.op, feeds, case.options, out=out, consts=consts, order=order, quant=codes)
    return data, feeds


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_numbers_are_those_of_litert(case: Case, tmp_path: Path) -> None:
    data, feeds = file_of(case)
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    g = import_tflite(path).graph
    (wanted,) = litert(data, feeds)
    found = evaluate(g, feeds)["y"]
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    if found.dtype.kind == "f":
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-6)
    else:
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("case", [c for c in CASES if c.steps], ids=lambda c: c.id)
def test_codes_are_within_a_step_of_litert(case: Case, tmp_path: Path) -> None:
    data, feeds = file_of(case, case.steps)
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    g = import_tflite(path).graph
    assert g.scheme == "tflite"
    (wanted,) = litert(data, feeds)
    found = evaluate(g, feeds)["y"]
    assert found.dtype == wanted.dtype == np.int8 and found.shape == wanted.shape
    assert len(np.unique(found)) > 2
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
    assert to_onnx(g).graph.node


def test_most_operators_have_a_case() -> None:
    builtin = {k for k in DECODERS if not k.startswith("CUSTOM:")}
    assert len(builtin - {c.op for c in CASES}) <= 25
