"""Which lane expressions have a vector form over the vocabulary of ``native/isa``."""

from __future__ import annotations

from sparrow import lane
from sparrow.tensor import BF16, BOOL, F16, F32, I8, I16, I32, I64, U8, DType

WIDE = (F16, BF16, F32)
NARROW = (I8, U8, I16)
VECTOR_INTS = (*NARROW, I32)
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
    if vector_type(e.dtype) is None:
        return False
    if not isinstance(e, lane.Call):
        return True
    factors = high_product(e)
    if factors is not None:
        return all(map(vectorizable, factors))
    return _has_vector(e) and all(map(vectorizable, e.args))


def high_product(e: lane.Expr) -> tuple[lane.Expr, lane.Expr] | None:
    """(a, b) of ``int32(rshr(int64(a) * int64(b), 31))``, which vectors compute without int64."""
    if not isinstance(e, lane.Call) or (e.fn, e.dtype) != ("cast", I32):
        return None
    shift = e.args[0]
    if not isinstance(shift, lane.Call) or shift.fn != "rshr" or shift.args[1] != lane.Imm(31, I64):
        return None
    product = shift.args[0]
    if not isinstance(product, lane.Call) or product.fn != "mul":
        return None
    a, b = (_narrow(x) for x in product.args)
    return None if a is None or b is None else (a, b)


def _narrow(e: lane.Expr) -> lane.Expr | None:
    """The int32 behind an int64."""
    if isinstance(e, lane.Imm) and I32.limits[0] <= e.value <= I32.limits[1]:
        return lane.Imm(e.value, I32)
    if isinstance(e, lane.Call) and e.fn == "cast" and e.args[0].dtype == I32:
        return e.args[0]
    return None


def _has_vector(e: lane.Expr) -> bool:
    if not isinstance(e, lane.Call) or e.fn in ("cast", "where"):
        return True
    if any(a.dtype != e.args[0].dtype for a in e.args):
        return False
    if e.fn == "rshr":
        return e.dtype == I32
    if e.args[0].dtype == BOOL:
        return e.fn in ("and", "or", "xor", "not", "eq")
    return e.fn in (_FLOAT_VECTORS if e.args[0].dtype in WIDE else _INT_VECTORS)
