"""Softmax and normalization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparrow import lane
from sparrow.importers.onnx.call import Call, Decoder, elem_type
from sparrow.importers.onnx.decode.indexing import check_indices
from sparrow.importers.onnx.decode.movement import slice_axis
from sparrow.importers.onnx.decode.reduction import norm, reduce, widened
from sparrow.lane import imm_like
from sparrow.ops.gather import Gather
from sparrow.ops.normalize import LocalResponse, Normalize
from sparrow.ops.softmax import Softmax
from sparrow.tensor import F32, F64, I32


def _softmax(log: bool) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        shape = n.type().shape
        if n.version >= 13:
            return [n.b.add(Softmax(n.axis(int(n.attr("axis", -1)), len(shape)), log), n.x())]
        # before opset 13 the axes from `axis` on were one
        axis = n.axis(int(n.attr("axis", 1)), len(shape)) if shape else 0
        rows = int(np.prod(shape[:axis], dtype=np.int64))
        flat = n.b.reshape(n.x(), (rows, n.type().size // max(rows, 1)))
        return [n.b.reshape(n.b.add(Softmax(1, log), flat), shape)]

    return decode


def _epsilon(n: Call, default: float = 1e-5) -> float:
    return float(np.float32(n.attr("epsilon", default)))


def _stash(n: Call) -> int:
    return int(n.attr("stash_type", 1))


def _normalized(n: Call, op: Normalize, x: str, scale: str, bias: str) -> Sequence[str]:
    """``op`` on x: y and statistics; float64 normalized in float32 is scaled in float64 after."""
    dtype = n.b.type(x).dtype
    scale, bias = (n.b.cast(v, dtype) if v else "" for v in (scale, bias))
    if (dtype, op.stash) != (F64, F32):
        return n.b.add_n(op, x, scale, bias)
    y, *stats = n.b.add_n(op, n.b.cast(x, F32))
    y = n.b.cast(y, F64)
    if scale:
        y = n.b.call("mul", y, scale)
    return [n.b.call("add", y, bias) if bias else y, *stats]


def _layer_norm(center: bool) -> Decoder:
    """LayerNormalization; without ``center`` RMSNormalization, in ORT also called Simplified."""

    def decode(n: Call) -> Sequence[str]:
        x = n.type()
        axis = n.axis(int(n.attr("axis", -1)), x.rank)
        if n.has(2) and not center:
            raise n.bad("a third input")
        stash = elem_type(_stash(n), n.where)
        op = Normalize(
            tuple(range(axis, x.rank)), _epsilon(n), center, stash, stats=n.n_outputs > 1
        )
        return _normalized(n, op, n.x(), n.opt(1), n.opt(2))

    return decode


def _skip_norm(center: bool) -> Decoder:
    """ORT's fused residual sum and (RMS) normalization: y, mean, inverse deviation, sum."""

    def decode(n: Call) -> Sequence[str]:
        rank = n.type().rank
        beta, extra = (n.opt(3), n.opt(4)) if center else ("", n.opt(3))
        total = n.b.call("add", n.x(0), n.x(1))
        if extra:
            total = n.b.call("add", total, extra)
        if any(n.wanted[1:3]):
            raise n.unsupported("the statistics outputs are for training")
        y = n.b.add(Normalize((rank - 1,), _epsilon(n, 1e-12), center), total, n.x(2), beta)
        return [y, "", "", total]

    return decode


def _embed_norm(n: Call) -> Sequence[str]:
    """ORT's sum of token, place and segment embeddings, normalized: y, kept tokens, sum."""
    b, ids = n.b, n.type(0)
    if ids.rank != 2 or n.type(3).rank != 2 or n.type(3).shape[0] < ids.shape[1]:
        raise n.bad(f"tokens {ids} and {n.type(3)} places")
    for table, i in ((2, 0), (4, 1), (3, 8)):
        if n.has(i):
            check_indices(n, n.x(i), n.type(table).shape[0])
    rows = b.add(Gather(0), n.x(3), n.x(8)) if n.has(8) else ""
    total = b.call(
        "add", b.add(Gather(0), n.x(2), n.x(0)), rows or slice_axis(n, n.x(3), 0, 0, ids.shape[1])
    )
    if n.has(1):
        total = b.call("add", total, b.add(Gather(0), n.x(4), n.x(1)))
    y = b.add(Normalize((2,), _epsilon(n, 1e-12), True), total, n.x(5), n.x(6))
    if n.has(7):
        kept = b.reshape(reduce(b, "sum", b.cast(n.x(7), I32), (1,)), (ids.shape[0],))
    else:
        b.made(ids.shape[0], "the counts")
        kept = b.const(np.zeros(ids.shape[0], np.int32), I32)
    return [y, kept, total]


def _instance_norm(n: Call) -> Sequence[str]:
    x = n.type()
    if x.rank < 3:
        raise n.bad(f"instance normalization of {x}")
    shape = (1, x.shape[1], *(1,) * (x.rank - 2))
    scale, bias = n.b.reshape(n.x(1), shape), n.b.reshape(n.x(2), shape)
    stash = F64 if x.dtype == F64 else F32
    op = Normalize(tuple(range(2, x.rank)), _epsilon(n), stash=stash)
    return [n.b.add(op, n.x(), scale, bias)]


def _group_norm(n: Call) -> Sequence[str]:
    """Channels in groups; scale and bias per channel, before opset 21 per group."""
    x = n.type()
    groups = int(n.attr("num_groups", 0))
    if x.rank < 2 or groups < 1 or x.shape[1] % groups:
        raise n.bad(f"{groups} groups of {x}")
    each = x.shape[1] // groups
    split = (x.shape[0], groups, each, *x.shape[2:])
    per_channel = n.version >= 21
    shape = (1, groups, each if per_channel else 1, *(1,) * (x.rank - 2))
    scale, bias = (n.b.reshape(n.x(i), shape) for i in (1, 2))
    op = Normalize(tuple(range(2, x.rank + 1)), _epsilon(n), True, elem_type(_stash(n), n.where))
    y, *_ = _normalized(n, op, n.b.reshape(n.x(), split), scale, bias)
    return [n.b.reshape(y, x.shape)]


def _mean_variance(n: Call) -> Sequence[str]:
    """(x - mean) / (deviation + 1e-9)."""
    x = n.type()
    axes = [n.axis(a, x.rank) for a in n.ints("axes") or (0, 2, 3)]
    wide = widened(n.b, n.x())
    centred = n.b.call("sub", wide, reduce(n.b, "mean", wide, axes))
    c = n.b.arg(0, centred)
    variance = reduce(n.b, "mean", n.b.lane(lane.call("mul", c, c), centred), axes)
    v = n.b.arg(1, variance)
    below = lane.call("add", lane.call("sqrt", v), imm_like(1e-9, v))
    return [n.b.cast(n.b.lane(lane.call("div", c, below), centred, variance), x.dtype)]


def _lp_norm(n: Call) -> Sequence[str]:
    """Quotient of x and its norm; where the norm is 0, 0."""
    p = int(n.attr("p", 2))
    if p not in (1, 2):
        raise n.bad(f"p is {p}, expected 1 or 2")
    x = widened(n.b, n.x())
    size = norm(n.b, x, (n.axis(int(n.attr("axis", -1)), n.type().rank),), p)
    v, s = n.b.arg(0, x), n.b.arg(1, size)
    empty = lane.call("eq", s, imm_like(0, s))
    y = lane.call("where", empty, imm_like(0, v), lane.call("div", v, s))
    return [n.b.cast(n.b.lane(y, x, size), n.type().dtype)]


def _lrn(n: Call) -> Sequence[str]:
    if n.attr("size") is None:
        raise n.bad("size is missing")
    alpha, beta, bias = (
        float(np.float32(n.attr(k, v))) for k, v in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    return [n.b.add(LocalResponse(int(n.attr("size")), alpha, beta, bias), n.x())]


DECODERS: Mapping[str, Decoder] = {
    "Softmax": _softmax(False),
    "LogSoftmax": _softmax(True),
    "LayerNormalization": _layer_norm(True),
    "RMSNormalization": _layer_norm(False),
    "SimplifiedLayerNormalization": _layer_norm(False),
    "com.microsoft.SkipLayerNormalization": _skip_norm(True),
    "com.microsoft.SkipSimplifiedLayerNormalization": _skip_norm(False),
    "com.microsoft.EmbedLayerNormalization": _embed_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "MeanVarianceNormalization": _mean_variance,
    "LpNormalization": _lp_norm,
    "LRN": _lrn,
}
