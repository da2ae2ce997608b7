"""Which lane expressions have a vector form over the vocabulary of ``native/isa``."""

from __future__ import annotations

from sparrow import lane
from sparrow.tensor import BF16, BOOL, F16, F32, I8, I32, U8, DType

WIDE = (F16, BF16, F32)
VECTOR_INTS = (I8, U8, I32)
_FLOAT_VECTORS = frozenset(
    [
        "add",
        "sub",
        "mul",
        "div",
        "max",
        "min",
        "sqrt",
        "abs",
        "neg",
        "floor",
        "ceil",
        "round",
        "trunc",
        "relu",
        "sign",
        "exp",
        "expm1",
        "log",
        "log1p",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "acosh",
        "atanh",
        "erf",
        "sigmoid",
        "softplus",
        "pow",
        "gelu",
        "gelu_tanh",
        "silu",
        "hardswish",
        "lt",
        "le",
        "gt",
        "ge",
        "eq",
        "isnan",
    ]
)
_INT_VECTORS = frozenset(
    [
        "add",
        "sub",
        "mul",
        "max",
        "min",
        "abs",
        "neg",
        "relu",
        "sign",
        "lt",
        "le",
        "gt",
        "ge",
        "eq",
        "bitand",
        "bitor",
        "bitxor",
        "bitnot",
        "rshr",
    ]
)


def vector_type(dtype: DType) -> str | None:
    """C type of a vector of values, or None where the vocabulary has none."""
    if dtype in WIDE:
        return "sp_f32"
    return "sp_i32" if dtype in VECTOR_INTS else "sp_mask" if dtype == BOOL else None


def vectorizable(e: lane.Expr) -> bool:
    """Whether every step of ``e`` has a vector form."""
    return all(vector_type(s.dtype) is not None and _has_vector(s) for s in lane.walk(e))


def _has_vector(e: lane.Expr) -> bool:
    if not isinstance(e, lane.Call) or e.fn in ("cast", "where"):
        return True
    if any(a.dtype != e.args[0].dtype for a in e.args):
        return False
    if e.fn == "rshr":
        return e.dtype == I32 and isinstance(e.args[1], lane.Imm)
    if e.args[0].dtype == BOOL:
        return e.fn in ("and", "or", "xor", "not", "eq")
    return e.fn in (_FLOAT_VECTORS if e.args[0].dtype in WIDE else _INT_VECTORS)
