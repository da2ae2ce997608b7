"""Elements of a dtype as C: types, literals, scalar loads and stores."""

from __future__ import annotations

import math

import numpy as np

from sparrow.tensor import BF16, F16, F32, F64, I8, I16, I32, U8, DType
from sparrow.vectors import WIDE

C_TYPES = {
    "float16": "uint16_t",
    "bfloat16": "uint16_t",
    "float32": "float",
    "float64": "double",
    "bool": "uint8_t",
    "int2": "int8_t",
    "int4": "int8_t",
    "uint4": "uint8_t",
}


def storage(dtype: DType) -> str:
    """C type of an element in memory."""
    return C_TYPES.get(dtype.name, f"{dtype.name}_t")


def compute(dtype: DType) -> str:
    """C type a value is computed in: half types in float."""
    return "float" if dtype in WIDE else storage(dtype)


def float_literal(v: float) -> str:
    """A float32 literal; infinities and NaN come from lane.h."""
    if math.isnan(v):
        return "SP_NAN"
    if math.isinf(v):
        return "SP_INF" if v > 0 else "(-SP_INF)"
    text = float(np.float32(v)).hex()
    return f"({text}f)" if text.startswith("-") else f"{text}f"


def literal(value: float | int | bool, dtype: DType) -> str:
    """A C literal of the compute type."""
    if dtype in WIDE:
        with np.errstate(over="ignore"):
            return float_literal(float(np.float32(value)))
    if dtype == F64:
        v = float(value)
        if math.isnan(v):
            return "(double)SP_NAN"
        if math.isinf(v):
            return "(double)SP_INF" if v > 0 else "(double)(-SP_INF)"
        return f"({v.hex()})"
    v = int(value)
    if dtype.name == "uint64":
        return f"UINT64_C({v})"
    if dtype.name == "int64":
        return (
            "INT64_MIN" if v == -(1 << 63) else f"INT64_C({v})" if v >= 0 else f"(-INT64_C({-v}))"
        )
    if v == -(1 << 31):
        return "INT32_MIN"
    return (
        f"({storage(dtype)}){v}"
        if dtype.bits < 32
        else f"{v}u"
        if dtype.kind == "uint"
        else f"({v})"
    )


def suffix(dtype: DType) -> str:
    """What names of the vocabulary end in for a dtype that it has."""
    names = {F16: "f16", BF16: "bf16", F32: "f32", I8: "i8", U8: "u8", I16: "i16", I32: "i32"}
    return names[dtype]


def scalar_load(dtype: DType, p: str) -> str:
    """The element at pointer ``p`` in its compute type."""
    return f"sp_get_{suffix(dtype)}({p})" if dtype in (F16, BF16) else f"*({p})"


def scalar_store(dtype: DType, p: str, v: str) -> str:
    """Statement that stores a value of the compute type at pointer ``p``."""
    if dtype in (F16, BF16):
        return f"sp_put_{suffix(dtype)}({p}, {v});"
    return f"*({p}) = {v};"
