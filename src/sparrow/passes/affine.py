"""Fold a per-channel multiply-add (batch normalization) into the weights beside it.

    before   y = Conv(x, w, b) * s + t        s, t constant, one value per output channel
    after    y = Conv(x, w * s, b * s + t)

    before   y = Conv(x * s + t, w, b)        s, t constant, one value per input channel
    after    y = Conv(x, w * s, b + sum(w * t))   t is 0 or the convolution has no padding

The same for ConvTranspose and MatMul. Factors are float64, rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.conv import Conv
from sparrow.ops.conv_transpose import ConvTranspose
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.rewrite import Match, Reject, Rewrite, per_channel
from sparrow.tensor import F32, Array

SUMS = (Conv, ConvTranspose, MatMul)


def channel_axis(op: Conv | ConvTranspose | MatMul, rank: int) -> int:
    """The channel axis of x and y (the column axis of a product)."""
    return rank - 1 if isinstance(op, MatMul) or op.channels_last else 1


def scale_outputs(op: Conv | ConvTranspose | MatMul, w: Array, s: Array) -> Array:
    """float32 weights that give each output channel times ``s`` [M], rounded once."""
    if isinstance(op, MatMul):
        return _product(w, s[:, None] if op.trans_b else s[None, :])
    taps = (1,) * (w.ndim - 2)
    if isinstance(op, Conv):
        return _product(w, s.reshape(-1, 1, *taps))
    g, m = op.group, w.shape[1]
    grouped = _product(w.reshape(g, w.shape[0] // g, *w.shape[1:]), s.reshape(g, 1, m, *taps))
    return grouped.reshape(w.shape)


def _product(w: Array, s: Array) -> Array:
    """float32(w * s), the product in float64; block by block, so no float64 copy of w exists."""
    y = np.empty(w.shape, np.float32)
    with np.errstate(over="ignore"):
        np.multiply(w, s, out=y, dtype=np.float64, casting="same_kind")
    return y


def _factors(e: lane.Expr, consts: dict[int, Array], x: int) -> tuple[Array, Array] | None:
    """(s, t) such that e = arg * s + t, arrays per channel; None for any other expression."""
    one, zero = np.ones(1), np.zeros(1)
    if isinstance(e, lane.Arg):
        if e.index == x:
            return one, zero
        return (zero, consts[e.index]) if e.index in consts else None
    if isinstance(e, lane.Imm):
        return zero, np.full(1, float(e.value))
    parts = [_factors(k, consts, x) for k in e.args]
    a, b = parts[0], parts[-1]
    if a is None or b is None:
        return None
    if e.fn == "neg":
        return -a[0], -a[1]
    if e.fn == "add":
        return a[0] + b[0], a[1] + b[1]
    if e.fn == "sub":
        return a[0] - b[0], a[1] - b[1]
    if e.fn == "mul" and np.any(b[0]) and not np.any(a[0]):
        a, b = b, a
    if e.fn not in ("mul", "div") or np.any(b[0]):
        return None
    with np.errstate(all="ignore"):
        return (a[0] * b[1], a[1] * b[1]) if e.fn == "mul" else (a[0] / b[1], a[1] / b[1])


@dataclass(frozen=True, slots=True)
class Affine:
    """y = x * s + t with one s and t per channel."""

    s: Array
    t: Array


def affine(m: Match, n: Node, x: str, axis: int) -> Affine | None:
    """What a Lane does to its operand ``x`` when that is a multiply-add per index of ``axis``."""
    assert isinstance(n.op, Lane)
    shape = m.type(x).shape
    if not isinstance(n.op.expr, lane.Call) or m.type(n.outputs[0]).shape != shape:
        return None
    i = n.inputs.index(x)
    reads = [a for a in lane.walk(n.op.expr) if isinstance(a, lane.Arg) and n.inputs[a.index] == x]
    if len(reads) != 1 or n.inputs.count(x) != 1:
        return None
    consts: dict[int, Array] = {}
    for k, v in enumerate(n.inputs):
        if k != i:
            value = m.const(v)
            flat = None if value is None else per_channel(value, shape, axis)
            if flat is None or m.type(v).quant is not None:
                return None
            consts[k] = flat.astype(np.float64)
    st = _factors(n.op.expr, consts, i)
    if st is None:
        return None
    s, t = (np.broadcast_to(v, (shape[axis],)) for v in st)
    return Affine(s, t)


def plain_weights(m: Match, p: Node) -> tuple[Array, Array | None] | Reject:
    """Constant float32 weights and bias of a sum without an epilogue."""
    assert isinstance(p.op, SUMS)
    if p.op.epilogue is not None:
        return Reject("the sum already has an epilogue")
    found: list[Array] = []
    for x in p.inputs[1:]:
        value = m.const(x)
        if value is None:
            return Reject("the weights or the bias are not constant")
        if m.type(x).dtype != F32 or m.type(x).quant is not None:
            return Reject(f"weights are {m.type(x)}")
        found.append(value)
    return found[0], found[1].astype(np.float64) if len(found) > 1 else None


def with_weights(m: Match, p: Node, x: str, y: str, w: Array, b: Array) -> Rewrite | Reject:
    with np.errstate(over="ignore"):
        b32 = b.astype(np.float32)
    if not (np.isfinite(w).all() and np.isfinite(b32).all()):
        return Reject("a folded weight is not finite")
    names = m.fresh(), m.fresh()
    new = Node(p.op, (x, *names), (y,), p.origin)
    return Rewrite((new,), (p,), consts=dict(zip(names, (w, b32), strict=True)))


def fold_affine(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Lane after a Conv, ConvTranspose or MatMul with constant weights."""
    if not isinstance(n.op, Lane) or m.type(n.outputs[0]).dtype != F32:
        return None
    for x in n.inputs:
        p = m.producer(x, SUMS)
        if p is None:
            continue
        assert isinstance(p.op, SUMS)
        y = m.type(x)
        axis = channel_axis(p.op, y.rank)
        st = affine(m, n, x, axis)
        if st is None:
            return None
        if m.only_user(x) is None:
            return Reject(f"{p.origin}: its result is used elsewhere")
        weights = plain_weights(m, p)
        if isinstance(weights, Reject):
            return weights
        w, b = weights
        if not np.all(np.isfinite(st.s)) or not np.all(np.isfinite(st.t)):
            return Reject("a factor is not finite")
        bias = (0 if b is None else b) * st.s + st.t
        r = with_weights(m, p, p.inputs[0], n.outputs[0], scale_outputs(p.op, w, st.s), bias)
        return Rewrite(r.nodes, (p, n), consts=r.consts) if isinstance(r, Rewrite) else r
    return None


def fold_affine_before(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Conv or MatMul with constant weights after a Lane."""
    if not isinstance(n.op, (Conv, MatMul)) or m.type(n.inputs[0]).dtype != F32:
        return None
    p = m.producer(n.inputs[0], Lane)
    if p is None or (isinstance(n.op, MatMul) and n.op.trans_a):
        return None
    axis = channel_axis(n.op, m.type(n.inputs[0]).rank)
    x = next((v for v in p.inputs if m.const(v) is None), None)
    st = affine(m, p, x, axis) if x is not None and m.type(x).dtype == F32 else None
    if st is None or x is None:
        return None
    if any(u is not n for u in m.users(p.outputs[0])) or m.is_output(p.outputs[0]):
        return Reject(f"{p.origin}: its result is used elsewhere")
    if isinstance(n.op, Conv) and np.any(st.t) and any(v for pair in n.op.pads for v in pair):
        return Reject("padding is 0 after the shift, not before it")
    if not np.all(np.isfinite(st.s)) or not np.all(np.isfinite(st.t)):
        return Reject("a factor is not finite")
    weights = plain_weights(m, n)
    if isinstance(weights, Reject):
        return weights
    w, b = weights
    scaled, bias = _inputs_scaled(n.op, w, st)
    if bias is None:
        return Reject("the shift is not the same for every matrix of the batch")
    r = with_weights(m, n, x, n.outputs[0], scaled, bias + (0 if b is None else b))
    return Rewrite(r.nodes, (n,), consts=r.consts) if isinstance(r, Rewrite) else r


def _inputs_scaled(op: Conv | MatMul, w: Array, st: Affine) -> tuple[Array, Array | None]:
    """Weights that take x * s for x, and what the shift adds to the bias."""
    if isinstance(op, MatMul):
        if w.ndim != 2:
            return w, None
        columns = w.T if op.trans_b else w
        return scale_inputs(op, w, st.s), st.t @ columns.astype(np.float64)
    g = op.group
    taps = tuple(range(2, w.ndim))
    sums = w.astype(np.float64).sum(taps).reshape(g, w.shape[0] // g, w.shape[1])
    shift = (sums * st.t.reshape(g, 1, w.shape[1])).sum(2).reshape(-1)
    return scale_inputs(op, w, st.s), shift


def scale_inputs(op: Conv | MatMul, w: Array, s: Array) -> Array:
    """float32 weights that take x times ``s`` [C] for x, rounded once."""
    if isinstance(op, MatMul):
        return _product(w, s[None, :] if op.trans_b else s[:, None])
    g = op.group
    grouped = w.reshape(g, w.shape[0] // g, *w.shape[1:])
    return _product(grouped, s.reshape(g, 1, w.shape[1], *(1,) * (w.ndim - 2))).reshape(w.shape)
