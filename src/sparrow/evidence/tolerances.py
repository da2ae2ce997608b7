"""How far a native step may be from the NumPy reference: one row per op, each with its reason.

Both sides compute in the tensor's own precision, each within some error of the exact value, so that
the allowed difference is twice that error. Integers, booleans and data movement are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any, TypeAlias

import numpy as np

from sparrow import lane
from sparrow.evidence.rounding import SMALLEST, UNIT, in_double, lane_error
from sparrow.graph import Op, Types
from sparrow.kernels.winograd import rounding_error
from sparrow.ops.attention import HEADS_SECOND, Attention, exponentials
from sparrow.ops.attention_codes import AttentionCodes
from sparrow.ops.bitcast import BitCast
from sparrow.ops.compress import Compress
from sparrow.ops.concat import Concat
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.deform_conv import DeformConv
from sparrow.ops.det import Det
from sparrow.ops.epilogue import apply_epilogue
from sparrow.ops.gather import Gather
from sparrow.ops.gather_elements import GatherElements
from sparrow.ops.gather_nd import GatherND
from sparrow.ops.grid_sample import GridSample
from sparrow.ops.gru import GRU
from sparrow.ops.gru_codes import GRUCodes
from sparrow.ops.lane import Lane
from sparrow.ops.lookup import Lookup
from sparrow.ops.lookup_linear import LookupLinear
from sparrow.ops.lstm import LSTM
from sparrow.ops.lstm_codes import LSTMCodes
from sparrow.ops.matmul import MatMul
from sparrow.ops.nms import NonMaxSuppression
from sparrow.ops.nonzero import NonZero
from sparrow.ops.normalize import LocalResponse, Normalize
from sparrow.ops.pad import Expand, Pad
from sparrow.ops.pool import Pool
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.reduce import ArgReduce, Cumulate, Reduce
from sparrow.ops.reshape import Reshape
from sparrow.ops.resize import Resize
from sparrow.ops.rnn import RNN
from sparrow.ops.roi import RoiAlign, RoiPool
from sparrow.ops.scatter import ScatterElements, ScatterND
from sparrow.ops.slice import Slice
from sparrow.ops.softmax import Softmax
from sparrow.ops.softmax_codes import SoftmaxCodes
from sparrow.ops.topk import TopK
from sparrow.ops.transpose import Transpose
from sparrow.ops.unique import Unique
from sparrow.ops.unpool import Unpool
from sparrow.tensor import BF16, F16, F32, F64, Array, TensorType


@dataclass(frozen=True, slots=True)
class Judged:
    """Reference outputs of a node and, for each, the allowed difference (broadcasts to it)."""

    outputs: tuple[Array, ...]
    bounds: tuple[Array | float, ...]


# Arrays, None where an optional operand is absent; ops name their own parameters.
Operands: TypeAlias = Sequence[Any]
Judge: TypeAlias = Callable[[Any, Operands, Types, Sequence[TensorType]], Judged]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """A row: the ops it is for, how the bound is computed, and why it is that."""

    ops: tuple[type[Op], ...]
    judge: Judge
    reason: str


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


def _exact(op: Op, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    outputs = op.eval(*x)
    return Judged(outputs, (0.0,) * len(outputs))


_CORRECT = frozenset(("mul", "round", "max", "min", "relu", "abs", "neg", "floor", "ceil", "trunc"))


def _rounds_once(e: lane.Expr) -> bool:
    """Whether every float step of an expression is one correctly rounded operation.

    Then every machine gives the same bits: conversions and products round once by IEEE 754, and no
    product feeds a float sum that a compiler might fuse with it.
    """
    calls = [c for c in lane.walk(e) if isinstance(c, lane.Call) and c.fn != "cast"]
    return all(c.args[-1].dtype.kind != "float" or c.fn in _CORRECT for c in calls)


def _lane(op: Lane, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
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
        return _exact(op, x, tx, ty)
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


def _conv(op: Conv, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    assert tx[1] is not None
    return _dot(op, prod(tx[1].shape[1:]), 3, x, tx, ty)


def _winograd_raw(op: Conv, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    return _winograd(op, x, tx, ty, raw=True)


def _winograd(
    op: Conv, x: Operands, tx: Types, ty: Sequence[TensorType], raw: bool = False
) -> Judged:
    a, w = x[0], x[1]
    assert a is not None and w is not None
    # of one spatial axis or two: the row is of channels-last convolutions with 3x3 weights
    return _dot(op, prod(w.shape[1:]), 3, x, tx, ty, rounding_error(a, w, op.pads, raw=raw))


def _conv_transpose(op: ConvTranspose, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    w = tx[1]
    assert w is not None
    return _dot(op, w.shape[0] // op.group * prod(w.shape[2:]), 3, x, tx, ty)


def _matmul(op: MatMul, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    a = tx[0]
    assert a is not None
    return _dot(op, a.shape[-2 if op.trans_a else -1], 3, x, tx, ty)


def _softmax(op: Softmax, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
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


def _reduce(op: Reduce, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    (y,) = op.eval(*x)
    t, a = ty[0], x[0]
    assert a is not None
    if t.dtype.kind != "float" or op.kind in ("max", "min") or not a.size:
        return Judged((y,), (0.0,))
    terms = prod(a.shape[i] for i in op.axes)
    size = np.abs(y) if op.kind == "prod" else op.eval(np.abs(a))[0]
    error = (terms + 2) * _sum_unit(t) * size.astype(np.float64) + _store(y, t)
    return Judged((y,), (2 * error + _floor(t),))


def _cumulate(op: Cumulate, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    (y,) = op.eval(*x)
    t, a = ty[0], x[0]
    assert a is not None
    if t.dtype.kind != "float":
        return Judged((y,), (0.0,))
    size = op.eval(np.abs(a))[0].astype(np.float64)
    error = (a.shape[op.axis] + 2) * _sum_unit(t) * size + _store(y, t)
    return Judged((y,), (2 * error + _floor(t),))


def _pool(op: Pool, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
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


def _normalize(op: Normalize, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
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


def _scatter(
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


def _refined(op: Op, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
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


def _attention(op: Attention, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    """As `_refined`; weights that are rounded to bfloat16 may tip where they are nearly ties."""
    if op.accumulate is None:
        return _refined(op, x, tx, ty)
    plain = replace(op, accumulate=None, dtype=None)
    sums = replace(ty[0], dtype=op.accumulate)
    (bound,) = _refined(plain, x, tx, (sums,)).bounds
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


def _resize(op: Op, x: Operands, tx: Types, ty: Sequence[TensorType]) -> Judged:
    """As `_refined`; a sum in double that is truncated may tip where it lies on an integer."""
    (a,) = x
    assert isinstance(op, Resize) and a is not None
    if a.dtype.kind not in "iu" or a.dtype.itemsize <= 2 or op.mode == "nearest" or not a.size:
        return _refined(op, x, tx, ty)
    (exact,) = op.eval(a.astype(np.float64))
    count = sum(t.index.shape[1] for t in op.taps(a.shape))
    # cubic weights add up to at most 1.5 for each axis, in magnitude
    error = 4 * (count + 2) * UNIT[F64] * float(np.abs(a.astype(np.float64)).max())
    near = np.abs(exact - np.rint(exact)) <= error
    return Judged(op.eval(a), (np.where(near, 1 + error, 0.0),))


TOLERANCES: tuple[Tolerance, ...] = (
    Tolerance(
        (
            *(ArgReduce, BitCast, Compress, Concat, Expand, Gather, GatherElements, GatherND),
            *(AttentionCodes, Dequantize, GRUCodes, LSTMCodes, Lookup, LookupLinear, Quantize),
            *(SoftmaxCodes,),
            *(NonMaxSuppression, NonZero, Pad, Reshape, Slice, TopK, Transpose, Unique, Unpool),
        ),
        _exact,
        "moves, compares or counts values, or rounds once and correctly",
    ),
    Tolerance(
        (Lane,), _lane, "running error analysis of the expression with the ULPs of each function"
    ),
    Tolerance(
        (Conv,),
        _conv,
        "a sum of K products in any order errs by at most (K+2) u (|x| * |w|), then the epilogue",
    ),
    Tolerance((ConvTranspose,), _conv_transpose, "as Conv, K channels times taps"),
    Tolerance((MatMul,), _matmul, "as Conv, K the inner extent"),
    Tolerance(
        (Softmax,),
        _softmax,
        "exp's argument errs by u |x - max|, the sum by n u, each relative to the result",
    ),
    Tolerance((Reduce,), _reduce, "a sum of n terms errs by (n+2) u sum|x|; max and min are exact"),
    Tolerance((Cumulate,), _cumulate, "as Reduce, n the extent of the axis"),
    Tolerance((Pool,), _pool, "as Reduce over the window; maxima are exact"),
    Tolerance(
        (Normalize,),
        _normalize,
        "errors of the mean and the variance, carried through to the result",
    ),
    Tolerance(
        (ScatterElements, ScatterND),
        _scatter,
        "adds or multiplies at most every update; else exact",
    ),
    Tolerance(
        (
            *(DeformConv, Det, GRU, GridSample, LSTM, LocalResponse, RNN),
            *(RoiAlign, RoiPool),
        ),
        _refined,
        "its conditioning differs: 8 times the reference's own distance from double precision",
    ),
    Tolerance(
        (Attention,),
        _attention,
        "as GRU; over bfloat16 a weight that is a tie but for rounding errors may round either way",
    ),
    Tolerance(
        (Resize,),
        _resize,
        "as GRU; 32 and 64-bit integers are sums of K products in double, truncated",
    ),
)
_BY_OP = {op: row for row in TOLERANCES for op in row.ops}
# Kernel rows that do not sum term by term.
_BY_KERNEL = {
    "winograd_f32": Tolerance(
        (Conv,),
        _winograd,
        "running error analysis of the transforms of F(4x4, 3x3), then the epilogue",
    ),
    "winograd_raw_f32": Tolerance(
        (Conv,),
        _winograd_raw,
        "the same, of the transform of the weights as well",
    ),
}


def tolerance_of(op: Op, kernel: str = "") -> Tolerance:
    """The row of an op that a kernel row computes.

    A user's own op gets the last one, which assumes nothing.
    """
    if kernel in _BY_KERNEL:
        return _BY_KERNEL[kernel]
    return _BY_OP.get(type(op), TOLERANCES[-1])
