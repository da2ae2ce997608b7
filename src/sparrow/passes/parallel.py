"""Make one convolution of those that read one input and are added, as RepVGG and MobileOne train.

    before   y = Conv(x, w, b) + Conv(x, v, c)     each tap of v is one of w
    after    y = Conv(x, w + v, b + c)             v with zeros for the other taps

    before   y = Conv(x, w, b) + (x * s + t)       s, t constant, one value per channel
    after    y = Conv(x, w + s, b + t)             s at the tap of the pixel itself

Differences alike. Weights are added in float64 and rounded once. A residual, x without a factor,
stays: its sum is free in an epilogue, and the stream keeps its own codes when it is quantized.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.passes.affine import affine, channel_axis, plain_weights, with_weights
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, Array

_X, _Y = lane.Arg(0, F32), lane.Arg(1, F32)
# What each operand is multiplied by.
_SIGNS: dict[lane.Expr, tuple[int, int]] = {
    lane.call("add", _X, _Y): (1, 1),
    lane.call("add", _Y, _X): (1, 1),
    lane.call("sub", _X, _Y): (1, -1),
    lane.call("sub", _Y, _X): (-1, 1),
}


def add_parallel(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match the sum or difference of a Conv and another function of its input."""
    if not isinstance(n.op, Lane) or n.op.expr not in _SIGNS:
        return None
    signs = _SIGNS[n.op.expr]
    why: Reject | None = None
    for i in (0, 1):
        p = m.producer(n.inputs[i], Conv)
        if p is not None:
            r = _joined(m, n, p, n.inputs[1 - i], (signs[i], signs[1 - i]))
            if r is None or isinstance(r, Rewrite):
                return r
            why = r
    return why


def _joined(
    m: Match, n: Node, p: Node, other: str, signs: tuple[int, int]
) -> Rewrite | Reject | None:
    """``p`` with the taps of ``other`` among its own."""
    x, y = p.inputs[0], p.outputs[0]
    q = m.producer(other)
    if q is None or x not in q.inputs or not isinstance(q.op, (Conv, Lane)):
        return None
    if not m.type(y).shape == m.type(other).shape == m.type(n.outputs[0]).shape:
        return None
    mine = plain_weights(m, p)
    if isinstance(mine, Reject):
        return mine
    theirs = _as_conv(m, p, q, x)
    if theirs is None or isinstance(theirs, Reject):
        return theirs
    assert isinstance(p.op, Conv)
    gone = (p, q, n) if isinstance(q.op, Conv) else (p, n)
    if any(m.only_user(k.outputs[0]) is None for k in gone[:-1]):
        return Reject("a branch is used elsewhere")
    (w, b), (op, v, c) = mine, theirs
    moved = _among(p.op, w.shape, op, v)
    if moved is None:
        return Reject(f"{p.origin}: not every tap of the other branch is one of its own")
    bias = signs[0] * (np.zeros(len(w)) if b is None else b) + signs[1] * (0 if c is None else c)
    with np.errstate(over="ignore"):
        taps = (signs[0] * w.astype(np.float64) + signs[1] * moved).astype(np.float32)
    r = with_weights(m, p, x, n.outputs[0], taps, bias)
    return replace(r, remove=gone) if isinstance(r, Rewrite) else r


def _as_conv(
    m: Match, p: Node, q: Node, x: str
) -> tuple[Conv, Array, Array | None] | Reject | None:
    """A branch beside ``p`` as a convolution of ``x``: op, weights and bias."""
    assert isinstance(p.op, Conv)
    if isinstance(q.op, Conv):
        found = plain_weights(m, q)
        return found if isinstance(found, Reject) else (q.op, *found)
    st = affine(m, q, x, channel_axis(p.op, m.type(x).rank))
    if st is None:
        return None
    if not (np.isfinite(st.s).all() and np.isfinite(st.t).all()):
        return Reject("a factor is not finite")
    ones = (1,) * len(p.op.strides)
    op = replace(p.op, strides=ones, dilations=ones, pads=((0, 0),) * len(ones))
    c, per_group = len(st.s), len(st.s) // op.group
    v = np.zeros((c, per_group, *ones))
    v[range(c), np.arange(c) % per_group] = st.s.reshape(c, *ones)
    return op, v, st.t


def _among(p: Conv, shape: tuple[int, ...], q: Conv, v: Array) -> Array | None:
    """``v`` at the taps of weights of ``shape`` that read the same pixels; None where some do not.

    The results have one shape, so that windows begin alike and as often.
    """
    if (p.strides, p.group, p.channels_last) != (q.strides, q.group, q.channels_last):
        return None
    at: list[slice] = []
    for k, have, d, e, mine, theirs in zip(
        v.shape[2:], shape[2:], q.dilations, p.dilations, p.pads, q.pads, strict=True
    ):
        first, rest = divmod(mine[0] - theirs[0], e)
        if rest or first < 0 or first + k > have or (k > 1 and d != e):
            return None
        at.append(slice(first, first + k))
    y = np.zeros(shape)
    y[(slice(None), slice(None), *at)] = v
    return y
