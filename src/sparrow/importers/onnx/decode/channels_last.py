"""Operators of ONNX Runtime's domain over tensors whose channels are the last axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sparrow import lane
from sparrow.importers.onnx.call import Call, Decoder
from sparrow.importers.onnx.decode import fused, linear, normalize, pooling

# From this version on scale and bias of GroupNormalization are per channel.
_GROUP_NORM_OPSET = 21


def to_first(n: Call, x: str) -> str:
    """[N, .., C] -> [N, C, ..]."""
    rank = len(n.b.shape(x))
    return n.b.transpose(x, (0, rank - 1, *range(1, rank - 1)))


def to_last(n: Call, x: str) -> str:
    """[N, C, ..] -> [N, .., C]."""
    rank = len(n.b.shape(x))
    return n.b.transpose(x, (0, *range(2, rank), 1))


def _conv(n: Call) -> Sequence[str]:
    """activation(x * w + b + z): x, z and the result [N, .., C], w as everywhere."""
    if n.type(0).rank < 3:
        raise n.bad(f"convolution of {n.type(0)}")
    first = replace(n, inputs=(to_first(n, n.x(0)), *n.inputs[1:]))
    y = to_last(n, n.b.add(linear.convolution(first), first.x(0), n.x(1), n.opt(2)))
    if n.has(3):
        y = n.b.call("add", y, n.x(3))
    return [fused.activated(n, y)]


def _max_pool(n: Call) -> Sequence[str]:
    if n.type(0).rank < 3:
        raise n.bad(f"pooling of {n.type(0)}")
    (y,) = pooling.DECODERS["MaxPool"](replace(n, inputs=(to_first(n, n.x(0)),)))
    return [to_last(n, y)]


def _group_norm(n: Call) -> Sequence[str]:
    """Normalized groups of x (and skip and bias): x, gamma, beta[, skip, bias] -> y[, their sum].

    Attribute ``activation`` 1 is SiLU.
    """
    last = bool(n.attr("channels_last", 1))
    if n.type(0).rank != 4 or n.attr("activation", 0) not in (0, 1):
        raise n.bad(f"{n.type(0)} and activation {n.attr('activation', 0)}, expected 0 or 1")
    total = n.x(0)
    if n.has(3):
        shape = n.type(3).shape
        wide = (shape[0], 1, 1, shape[-1]) if last else (*shape[:2], 1, 1)
        total = n.b.call("add", total, n.b.reshape(n.x(3), wide) if len(shape) == 2 else n.x(3))
    if n.has(4):
        wide = (1, 1, 1, n.type(4).size) if last else (1, n.type(4).size, 1, 1)
        total = n.b.call("add", total, n.b.reshape(n.x(4), wide))
    dtype = n.type(0).dtype
    x = to_first(n, total) if last else total
    inputs = (x, n.b.cast(n.x(1), dtype), n.b.cast(n.x(2), dtype))
    attrs = {"num_groups": n.attr("groups", 0), "epsilon": n.attr("epsilon", 1e-5)}
    call = replace(n, version=_GROUP_NORM_OPSET, inputs=inputs, n_outputs=1, attrs=attrs)
    (y,) = normalize.DECODERS["GroupNormalization"](call)
    if n.attr("activation", 0):
        y = n.b.lane(lane.call("silu", n.b.arg(0, y)), y)
    return [to_last(n, y) if last else y, total][: n.n_outputs]


DECODERS: Mapping[str, Decoder] = {
    "com.microsoft.GroupNorm": _group_norm,
    "com.microsoft.NhwcConv": _conv,
    "com.microsoft.NhwcFusedConv": _conv,
    "com.microsoft.NhwcMaxPool": _max_pool,
    "com.microsoft.SkipGroupNorm": _group_norm,
}
