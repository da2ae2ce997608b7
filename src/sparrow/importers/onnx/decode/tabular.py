"""Operators of ai.onnx.ml over tables of numbers: what stands before and behind a network.

Values are float32 whatever they were before, as the domain has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparrow import lane
from sparrow.importers.onnx.call import Call, Decoder
from sparrow.ops.concat import Concat
from sparrow.ops.matmul import MatMul
from sparrow.ops.reduce import Reduce
from sparrow.ops.softmax import Softmax
from sparrow.tensor import F32, F64, I32, I64, Array


def _numbers(n: Call, name: str, kind: type = float) -> list[float]:
    """A list attribute, empty where it is absent."""
    values = n.attrs.get(name) or []
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, kind) for v in values):
        raise n.bad(f"attribute {name!r} is {type(values).__name__}, expected numbers")
    return list(values)


def _table(n: Call, i: int = 0) -> tuple[str, int]:
    """Input ``i`` as float32 and the features of its last axis."""
    t = n.type(i)
    if t.dtype not in (F32, F64, I32, I64) or t.rank not in (1, 2):
        raise n.bad(f"input {i} is {t}, expected numbers [rows, features]")
    return n.b.cast(n.x(i), F32), t.shape[-1]


def _each(n: Call, values: Sequence[float], features: int, what: str) -> Array:
    """One number for all features, or one of each, as float32."""
    if len(values) not in (1, features):
        raise n.bad(f"{len(values)} values of {what} for {features} features")
    return np.array(values, np.float32)


def _scaler(n: Call) -> Sequence[str]:
    """(x - offset) * scale."""
    x, features = _table(n)
    for name, call, absent in (("offset", "sub", 0.0), ("scale", "mul", 1.0)):
        values = _each(n, _numbers(n, name) or [absent], features, name)
        x = n.b.call(call, x, n.b.const(values))
    return [x]


def _imputer(n: Call) -> Sequence[str]:
    """What equals the replaced value, or is no number where that is none, gets another one."""
    t = n.type()
    if t.dtype in (I32, I64):
        given = _numbers(n, "imputed_value_int64s", int)
        hole: float = int(n.attr("replaced_value_int64", 0))
    else:
        given, hole = (
            _numbers(n, "imputed_value_floats"),
            float(n.attr("replaced_value_float", 0.0)),
        )
    if t.rank not in (1, 2) or len(given) not in (1, t.shape[-1]):
        raise n.bad(f"{len(given)} imputed values for {t}")
    x = lane.Arg(0, t.dtype)
    none = lane.call("isnan", x) if hole != hole else lane.call("eq", x, lane.imm_like(hole, x))
    values = n.b.const(np.array(given, t.dtype.numpy))
    return [n.b.lane(lane.call("where", none, lane.Arg(1, t.dtype), x), n.x(), values)]


def _binarizer(n: Call) -> Sequence[str]:
    """1 above the threshold, else 0."""
    x = lane.Arg(0, n.type().dtype)
    one, zero = lane.imm_like(1, x), lane.imm_like(0, x)
    limit = lane.imm_like(float(n.attr("threshold", 0.0)), x)
    return [n.b.lane(lane.call("where", lane.call("gt", x, limit), one, zero), n.x())]


def _normalizer(n: Call) -> Sequence[str]:
    """Rows over their sum of magnitudes or their length; rows of zeros stay."""
    x, _ = _table(n)
    norm = n.attr("norm", "MAX")
    if norm not in ("L1", "L2"):
        raise n.unsupported(f"norm {norm!r}", "L1 and L2 are compiled")
    b, axis = n.b, n.type().rank - 1
    square = b.call("abs", x) if norm == "L1" else b.call("mul", x, x)
    total = b.add(Reduce("sum", (axis,)), square)
    s = lane.Arg(1, F32)
    length = s if norm == "L1" else lane.call("sqrt", s)
    safe = lane.call("where", lane.call("eq", s, lane.Imm(0.0, F32)), lane.Imm(1.0, F32), length)
    return [b.lane(lane.call("div", lane.Arg(0, F32), safe), x, total)]


def _vectorizer(n: Call) -> Sequence[str]:
    """Columns of several tables side by side."""
    parts = []
    for i in range(len(n.inputs)):
        x, features = _table(n, i)
        rows = n.type(i).shape[0] if n.type(i).rank == 2 else 1
        parts.append(n.b.reshape(x, (rows, features)))
    return [n.b.add(Concat(1), *parts)]


def _regressor(n: Call) -> Sequence[str]:
    """Targets x @ coefficients' + intercepts, [rows, targets]."""
    x, features = _table(n)
    b, targets = n.b, int(n.attr("targets", 1))
    weights, biases = _numbers(n, "coefficients"), _numbers(n, "intercepts")
    if targets < 1 or len(weights) != targets * features or len(biases) not in (0, targets):
        raise n.bad(f"{len(weights)} coefficients of {targets} targets over {features} features")
    w = b.const(np.array(weights, np.float32).reshape(targets, features))
    y = b.add(
        MatMul(trans_b=True),
        b.reshape(x, (n.type().size // max(features, 1), features)),
        w,
    )
    if biases:
        y = b.call("add", y, b.const(np.array(biases, np.float32)))
    match n.attr("post_transform", "NONE"):
        case "NONE":
            return [y]
        case "LOGISTIC":
            return [b.call("sigmoid", y)]
        case "SOFTMAX":
            return [b.add(Softmax(1), y)]
        case other:
            raise n.unsupported(f"post_transform {other!r}", "NONE, LOGISTIC, SOFTMAX are compiled")


DECODERS: Mapping[str, Decoder] = {
    "ai.onnx.ml.Binarizer": _binarizer,
    "ai.onnx.ml.FeatureVectorizer": _vectorizer,
    "ai.onnx.ml.Imputer": _imputer,
    "ai.onnx.ml.LinearRegressor": _regressor,
    "ai.onnx.ml.Normalizer": _normalizer,
    "ai.onnx.ml.Scaler": _scaler,
}
