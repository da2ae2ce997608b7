"""Reference outputs of a node, and how far a native step may be from them: a function per op.

Both sides compute in the tensor's own precision, each within some error of the exact value, so that
the allowed difference is twice that error. Integers, booleans and data movement are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any, TypeAlias

import numpy as np

from sparrow.evidence.rounding import SMALLEST, UNIT, in_double, lane_error
from sparrow.graph import Op, Types
from sparrow.kernels.winograd import rounding_error
from sparrow.lane import Call, Expr, walk
from sparrow.ops.attention import HEADS_SECOND, Attention, exponentials
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.epilogue import apply_epilogue
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.normalize import Normalize
from sparrow.ops.pool import Pool
from sparrow.ops.reduce import Cumulate, Reduce
from sparrow.ops.resize import Resize
from sparrow.ops.scatter import ScatterElements, ScatterND
from sparrow.ops.softmax import Softmax
from sparrow.tensor import BF16, F16, F32, F64, Array, TensorType


@dataclass(frozen=True, slots=True)
class Judged:
    """Reference outputs of a node and, for each, the allowed difference (broadcasts to it)."""

    outputs: tuple[Array, ...]
    bounds: tuple[Array | float, ...]


# Arrays, None where an optional operand is absent; ops name their own parameters.
Operands: TypeAlias = Sequence[Any]
Judge: TypeAlias = Callable[[Any, Operands, Types, Sequence[TensorType]], Judged]


def _unit(t: TensorType) -> float:
    return UNIT.get(t.dtype, 0.0)


def _floor(t: TensorType) -> float:
    return SMALLEST.get(t.dtype, 0.0)


def _sum_unit(t: TensorType) -> float:
    """Rounding unit of a running sum: half types accumulate in float32."""
    return min(_unit(t), UNIT[F32])


def _store(y: Array, t: TensorType) -> Array | float:
    """Error of rounding a wider result to a half type."""
    return _unit(t) * np.abs(y.astype(np.float64)) if t.dtype in (F16, BF16) else 0.0


def exact(op: Op, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    outputs = op.eval(*x)
    return Judged(outputs, (0.0,) * len(outputs))


_CORRECT = frozenset(("mul", "round", "max", "min", "relu", "abs", "neg", "floor", "ceil", "trunc"))


def _rounds_once(e: Expr) -> bool:
    """Whether every float step of an expression is one correctly rounded operation.

    Then every machine gives the same bits: conversions and products round once by IEEE 754, and no
    product feeds a float sum that a compiler might fuse with it.
    """
    calls = [c for c in walk(e) if isinstance(c, Call) and c.fn != "cast"]
    return all(c.args[-1].dtype.kind != "float" or c.fn in _CORRECT for c in calls)


def lane(op: Lane, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    (y,) = op.eval(*x)
    if ty[0].dtype.kind != "float" and _rounds_once(op.expr):
        return Judged((y,), (0.0,))
    _, error = lane_error(op.expr, [a for a in x if a is not None], [None] * len(x))
    return Judged((y,), (0.0 if error is None else 2 * error + _floor(ty[0]),))


def _absolute(x: Operands) -> list[Array | None]:
    return [None if a is None else np.abs(a) for a in x]


def _dot(
    op: Any,
    terms: int,
    n: int,
    x: Operands,
    tx: Types,
    ty: Sequence[TensorType],
    native: Array | None = None,
) -> Judged:
    """Sums of ``terms`` products of the first ``n`` operands, then the epilogue over the rest.

    ``native`` is the error of the native sum where it is not taken term by term as the reference's.
    """
    first = tx[0]
    assert first is not None
    if first.dtype.kind != "float" and (op.epilogue is None or _rounds_once(op.epilogue)):
        return exact(op, x, tx, ty)
    bare = replace(op, epilogue=None)
    (total,) = bare.eval(*x[:n])
    if first.dtype.kind != "float":
        error = np.zeros(total.shape)
    else:
        (size,) = bare.eval(*_absolute(x[:n]))
        error = (terms + 2) * _sum_unit(first) * size.astype(np.float64)
        if getattr(op, "accumulate", None) is None:
            error = error + _store(total, first)
        # vdpbf16ps and the vectors of Armv7 take subnormal operands, products and sums for zero
        finite = (np.abs(a[np.isfinite(a)]) for a in x[:2] if a is not None)
        largest = max(float(a.max(initial=0.0)) for a in finite)
        error = error + 2 * terms * (1 + largest) * SMALLEST[F32]
    if native is not None:
        error = (error + native) / 2
    if op.epilogue is None:
        return Judged((total,), (2 * error + _floor(first),))
    extras = [a for a in x[n:] if a is not None]
    y = apply_epilogue(op.epilogue, total, extras)
    _, after = lane_error(op.epilogue, (total, *extras), (error, *(None for _ in extras)))
    return Judged((y,), (0.0 if after is None else 2 * after + _floor(ty[0]),))


def conv(op: Conv, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    assert tx[1] is not None
    return _dot(op, prod(tx[1].shape[1:]), 3, x, tx, ty)


def winograd_raw(op: Conv, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    return winograd(op, x, tx, ty, raw=True)


def winograd(
    op: Conv, x: Operands, tx: Types, ty: Sequence[TensorType], raw: bool = False
) -> Judged:
    a, w = x[0], x[1]
    assert a is not None and w is not None
    # of one spatial axis or two: the row is of channels-last convolutions with 3x3 weights
    return _dot(op, prod(w.shape[1:]), 3, x, tx, ty, rounding_error(a, w, op.pads, raw=raw))


def conv_transpose(op: ConvTranspose, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    w = tx[1]
    assert w is not None
    return _dot(op, w.shape[0] // op.group * prod(w.shape[2:]), 3, x, tx, ty)


def matmul(op: MatMul, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    a = tx[0]
    assert a is not None
    return _dot(op, a.shape[-2 if op.trans_a else -1], 3, x, tx, ty)


def softmax(op: Softmax, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    (y,) = op.eval(*x)
    t, a = ty[0], x[0]
    assert a is not None
    if not a.size:
        return Judged((y,), (0.0,))
    wide = a.astype(np.float64)
    with np.errstate(all="ignore"):
        shifted = np.abs(wide - wide.max(op.axis, keepdims=True))
    relative = (shifted + a.shape[op.axis] + 12) * _sum_unit(t)
    if op.log:
        error = relative + 4 * _sum_unit(t) * np.abs(y.astype(np.float64))
    else:
        error = relative * y.astype(np.float64)
    return Judged((y,), (2 * (error + _store(y, t)) + _floor(t),))


def reduce(op: Reduce, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    (y,) = op.eval(*x)
    t, a = ty[0], x[0]
    assert a is not None
    if t.dtype.kind != "float" or op.kind in ("max", "min") or not a.size:
        return Judged((y,), (0.0,))
    terms = prod(a.shape[i] for i in op.axes)
    size = np.abs(y) if op.kind == "prod" else op.eval(np.abs(a))[0]
    error = (terms + 2) * _sum_unit(t) * size.astype(np.float64) + _store(y, t)
    return Judged((y,), (2 * error + _floor(t),))


def cumulate(op: Cumulate, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    (y,) = op.eval(*x)
    t, a = ty[0], x[0]
    assert a is not None
    if t.dtype.kind != "float":
        return Judged((y,), (0.0,))
    size = op.eval(np.abs(a))[0].astype(np.float64)
    error = (a.shape[op.axis] + 2) * _sum_unit(t) * size + _store(y, t)
    return Judged((y,), (2 * error + _floor(t),))


def pool(op: Pool, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    outputs = op.eval(*x)
    t, a = ty[0], x[0]
    assert a is not None
    if op.kind == "max" or t.dtype.kind != "float":
        return Judged(outputs, (0.0,) * len(outputs))
    size = op.eval(np.abs(a))[0].astype(np.float64)
    # p-norms add two powers, each within pow's own bound times p
    terms = prod(op.kernel) + (0 if op.kind == "average" else 16 * op.p)
    error = (terms + 3) * _sum_unit(t) * size + _store(outputs[0], t)
    return Judged(outputs, (2 * error + _floor(t),))


def normalize(op: Normalize, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    outputs = op.eval(*x)
    t, a = ty[0], x[0]
    assert a is not None
    u = max(_sum_unit(t), UNIT.get(op.stash, 0.0))
    wide = a.astype(np.float64)
    n = prod(a.shape[i] for i in op.axes)
    mean = wide.mean(op.axes, keepdims=True) if op.center else np.zeros(())
    centred = wide - mean
    inverse = 1 / np.sqrt((centred**2).mean(op.axes, keepdims=True) + op.epsilon)
    shift = (n + 3) * u * np.abs(wide).mean(op.axes, keepdims=True) if op.center else np.zeros(())
    shift = shift + u * np.abs(wide)
    # the mean's error moves the variance in second order; what is left is its own sum and the
    # roundings of what is squared
    slack = (n + 8) * u + np.max(shift, axis=op.axes, keepdims=True, initial=0) * inverse
    y = np.abs(centred) * inverse
    error = inverse * shift + slack * y
    if len(x) > 1 and x[1] is not None:
        scale = np.abs(x[1].astype(np.float64))
        error, y = error * scale, y * scale
    if len(x) > 2 and x[2] is not None:
        y = y + np.abs(x[2].astype(np.float64))
    bounds: list[Array | float] = [2 * (error + 4 * _unit(t) * y) + _floor(t)]
    stats = (
        [shift.max(axis=op.axes, keepdims=True, initial=0) + np.abs(mean) * u] if op.center else []
    )
    stats.append(2 * slack * inverse)
    stored = UNIT.get(op.stash, 0.0)
    for s, out in zip(stats, outputs[1:], strict=False):
        bounds.append(2 * (s + stored * np.abs(out.astype(np.float64))))
    return Judged(outputs, tuple(bounds))


def scatter(
    op: ScatterElements | ScatterND, x: Operands, tx: Types, ty: Sequence[TensorType]
) -> Judged:
    (y,) = op.eval(*x)
    t = ty[0]
    if t.dtype.kind != "float" or op.reduction in ("none", "max", "min"):
        return Judged((y,), (0.0,))
    data, index, updates = x
    assert data is not None and updates is not None
    (size,) = op.eval(np.abs(data), index, np.abs(updates))
    error = (updates.size + 2) * _unit(t) * size.astype(np.float64)
    return Judged((y,), (2 * error + _floor(t),))


def _widened(op: Op) -> Op:
    """The op with its inner float types widened, so that a double evaluation stays double."""
    changes = {f.name: F64 for f in fields(op) if getattr(op, f.name) == F32}  # type: ignore[arg-type]
    return replace(op, **changes) if changes else op  # type: ignore[type-var]


def refined(op: Op, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    """Eight times the distance of the reference from its own double-precision evaluation."""
    outputs = op.eval(*x)
    wide = [None if a is None else in_double(a) for a in x]
    with np.errstate(all="ignore"):
        exact = _widened(op).eval(*wide)
    bounds: list[Array | float] = []
    for y, e, t in zip(outputs, exact, ty, strict=True):
        if t.dtype.kind != "float" or not y.size:
            bounds.append(0.0)
            continue
        finite = np.isfinite(y) & np.isfinite(e)
        off = np.abs(y.astype(np.float64) - e)[finite].max(initial=0.0)
        size = np.abs(e)[finite].max(initial=0.0)
        bounds.append(float(8 * off + 16 * _unit(t) * size + _floor(t)))
    return Judged(outputs, tuple(bounds))


def attention(op: Attention, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    """As `refined`; weights that are rounded to bfloat16 may tip where they are nearly ties."""
    if op.accumulate is None:
        return refined(op, x, tx, ty)
    plain = replace(op, accumulate=None, dtype=None)
    sums = replace(ty[0], dtype=op.accumulate)
    (bound,) = refined(plain, x, tx, (sums,)).bounds
    q, k, v = op.heads(*x[:3])
    scores = op.scores(q, k, *x[3:])
    e = exponentials(scores)
    # scores err by (D + 4) u |q| |k|, the greatest of a row and so all differences by as much again
    size = abs(op.scale) * (np.abs(q) @ np.swapaxes(np.abs(k), -1, -2)) * (q.shape[-1] + 4)
    size = size + np.abs(np.where(np.isfinite(scores), scores, 0)) * 4 + 8 * op.softcap
    error = UNIT[F32] * (2 * size.max(-1, keepdims=True, initial=0.0) + 8)
    # in units of the last place, which are at least 2^-24 of e
    from_tie = np.abs((e.view(np.uint32) & 0xFFFF).astype(np.int64) - 0x8000)
    tips = np.where(from_tie * UNIT[F32] <= error, 2 * UNIT[BF16] * e.astype(np.float64), 0.0)
    off = tips @ np.abs(v) / np.maximum(e.sum(-1, keepdims=True, dtype=np.float64), SMALLEST[F32])
    if op.interleaved[3]:
        off = off.transpose(HEADS_SECOND)
    (y,) = op.eval(*x)
    return Judged((y,), (bound + off + 2 * _store(y, ty[0]),))


def resize(op: Op, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    """As `refined`; a sum in double that is truncated may tip where it lies on an integer."""
    (a,) = x
    assert isinstance(op, Resize) and a is not None
    if a.dtype.kind not in "iu" or a.dtype.itemsize <= 2 or op.mode == "nearest" or not a.size:
        return refined(op, x, tx, ty)
    (exact,) = op.eval(a.astype(np.float64))
    count = sum(t.index.shape[1] for t in op.taps(a.shape))
    # cubic weights add up to at most 1.5 for each axis, in magnitude
    error = 4 * (count + 2) * UNIT[F64] * float(np.abs(a.astype(np.float64)).max())
    near = np.abs(exact - np.rint(exact)) <= error
    return Judged(op.eval(a), (np.where(near, 1 + error, 0.0),))
