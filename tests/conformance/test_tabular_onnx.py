"""Operators of ai.onnx.ml over tables, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from sparrow.errors import BadModel, SparrowError, UnsupportedOp
from sparrow.importers.onnx import import_onnx
from sparrow.reference import evaluate
from sparrow.tensor import Array

DOMAIN = "ai.onnx.ml"


def model_of(
    op: str, *tables: Array, out: int = TensorProto.FLOAT, **attrs: Any
) -> onnx.ModelProto:
    names = [f"x{i}" for i in range(len(tables))]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in zip(names, tables, strict=True)
    ]
    outputs = [helper.make_tensor_value_info("y", out, None)]
    node = helper.make_node(op, names, ["y"], domain=DOMAIN, **attrs)
    graph = helper.make_graph([node], "g", inputs, outputs)
    sets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)


def check(m: onnx.ModelProto, *tables: Array) -> None:
    feeds = {f"x{i}": x for i, x in enumerate(tables)}
    session = ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
    (want,) = session.run(["y"], feeds)
    got = evaluate(import_onnx(m).graph, feeds)["y"]
    assert got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_allclose(got, want, 1e-5, 1e-6)


def table(dtype: type = np.float32, rows: int = 5) -> Array:
    """Numbers of both signs with holes and a row of zeros."""
    x = np.random.default_rng(4).integers(-6, 7, (rows, 3)) * (1 if dtype is np.int64 else 0.37)
    x[1] = 0
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
@pytest.mark.parametrize("values", [1, 3])
def test_scaler(dtype: type, values: int) -> None:
    x = table(dtype)
    attrs: dict[str, Any] = {"offset": [0.5, -1.0, 2.0], "scale": [2.0, 0.25, -3.0]}
    check(model_of("Scaler", x, **{k: v[:values] for k, v in attrs.items()}), x)


@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_normalizer(norm: str) -> None:
    x = table()
    check(model_of("Normalizer", x, norm=norm), x)


def test_binarizer() -> None:
    x = table()
    check(model_of("Binarizer", x, threshold=0.3), x)


@pytest.mark.parametrize("hole", [0.0, float("nan")])
@pytest.mark.parametrize("values", [1, 3])
def test_imputer(hole: float, values: int) -> None:
    x = table()
    x[2, 1] = np.nan
    given = [4.0, 5.0, 6.0][:values]
    check(model_of("Imputer", x, imputed_value_floats=given, replaced_value_float=hole), x)


def test_imputer_of_integers() -> None:
    x = table(np.int64)
    m = model_of(
        "Imputer",
        x,
        out=TensorProto.INT64,
        imputed_value_int64s=[7],
        replaced_value_int64=0,
    )
    check(m, x)


@pytest.mark.parametrize("after", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_regressor(after: str, bias: bool) -> None:
    x = table()
    attrs: dict[str, Any] = {"intercepts": [0.5, -2.0]} if bias else {}
    w = [0.1, -0.4, 1.5, 2.0, 0.3, -0.2]
    check(
        model_of(
            "LinearRegressor",
            x,
            coefficients=w,
            targets=2,
            post_transform=after,
            **attrs,
        ),
        x,
    )


def test_feature_vectorizer() -> None:
    x, y = table(), table(np.float32)[:, :2]
    check(model_of("FeatureVectorizer", x, y, inputdimensions=[3, 2]), x, y)


@pytest.mark.parametrize(
    ("op", "attrs", "error"),
    [
        ("Scaler", {"offset": [1.0, 2.0]}, BadModel),
        ("Scaler", {"scale": "no"}, BadModel),
        ("Normalizer", {"norm": "MAX"}, UnsupportedOp),
        ("Imputer", {}, BadModel),
        ("LinearRegressor", {"coefficients": [1.0, 2.0]}, BadModel),
        (
            "LinearRegressor",
            {"coefficients": [1.0] * 3, "post_transform": "PROBIT"},
            UnsupportedOp,
        ),
        ("TreeEnsembleRegressor", {}, UnsupportedOp),
    ],
)
def test_refusals(op: str, attrs: dict[str, Any], error: type[SparrowError]) -> None:
    with pytest.raises(error, match=op):
        import_onnx(model_of(op, table(), **attrs))
