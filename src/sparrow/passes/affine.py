"""Fold a per-channel multiply-add (batch normalization) into the convolution or product before it.

    before   y = Conv(x, w, b) * s + t        s, t constant, one value per output channel
    after    y = Conv(x, w * s, b * s + t)
"""

from __future__ import annotations

import numpy as np

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.rewrite import Match, Reject, Rewrite, per_channel
from sparrow.tensor import F32, Array


def _factors(e: lane.Expr, consts: dict[int, Array], x: int) -> tuple[Array, Array] | None:
    """(s, t) such that e = arg * s + t, arrays per channel; None for any other expression."""
    one, zero = np.ones(1), np.zeros(1)
    if isinstance(e, lane.Arg):
        if e.index == x:
            return one, zero
        return (zero, consts[e.index]) if e.index in consts else None
    if isinstance(e, lane.Imm):
        return zero, np.full(1, float(e.value))
    if e.fn not in ("add", "sub", "mul", "div"):
        return None
    a, b = (_factors(k, consts, x) for k in e.args)
    if a is None or b is None:
        return None
    if e.fn == "add":
        return a[0] + b[0], a[1] + b[1]
    if e.fn == "sub":
        return a[0] - b[0], a[1] - b[1]
    if np.any(b[0]) and not np.any(a[0]) and e.fn == "mul":
        a, b = b, a
    if np.any(b[0]):
        return None
    return (a[0] * b[1], a[1] * b[1]) if e.fn == "mul" else (a[0] / b[1], a[1] / b[1])


def fold_affine(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Lane after a Conv or MatMul with constant weights."""
    if not isinstance(n.op, Lane) or m.type(n.outputs[0]).dtype != F32:
        return None
    for i, x in enumerate(n.inputs):
        p = m.producer(x, (Conv, MatMul))
        if p is not None:
            return _fold(m, n, i, p)
    return None


def _fold(m: Match, n: Node, i: int, p: Node) -> Rewrite | Reject | None:
    op = p.op
    assert isinstance(op, (Conv, MatMul)) and isinstance(n.op, Lane)
    y = m.type(p.outputs[0])
    axis = y.rank - 1 if isinstance(op, MatMul) or op.channels_last else 1
    if m.type(n.outputs[0]).shape != y.shape or not isinstance(n.op.expr, lane.Call):
        return None
    consts: dict[int, Array] = {}
    for k, v in enumerate(n.inputs):
        if k != i:
            value = m.const(v)
            flat = None if value is None else per_channel(value, y.shape, axis)
            if flat is None:
                return None
            consts[k] = flat.astype(np.float64)
    if n.inputs.count(n.inputs[i]) > 1:
        return None
    st = _factors(n.op.expr, consts, i)
    if st is None:
        return None
    w = m.const(p.inputs[1])
    if w is None:
        return Reject("the weights are not constant")
    if op.epilogue is not None:
        return Reject("the producer already has an epilogue")
    if m.only_user(p.outputs[0]) is None:
        return Reject(f"{p.origin}: its result is used elsewhere")
    channels = y.shape[axis]
    s, t = (np.broadcast_to(v, (channels,)) for v in st)
    if not np.all(np.isfinite(s)) or not np.all(np.isfinite(t)):
        return Reject("a factor is not finite")
    if isinstance(op, Conv):
        scaled = w * s.reshape(-1, *(1,) * (w.ndim - 1))
    else:
        scaled = w * (s[:, None] if op.trans_b else s[None, :])
    bias_name = p.inputs[2] if len(p.inputs) > 2 else ""
    bias = np.zeros(channels)
    if bias_name:
        value = m.const(bias_name)
        if value is None:
            return Reject("the bias is not constant")
        bias = value.astype(np.float64)
    wn, bn = m.fresh(), m.fresh()
    new = Node(op, (p.inputs[0], wn, bn), n.outputs, p.origin)
    arrays = {wn: scaled.astype(np.float32), bn: (bias * s + t).astype(np.float32)}
    return Rewrite((new,), (p, n), consts=arrays)
