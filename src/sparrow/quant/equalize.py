"""Even out the channels between two layers without changing what they compute.

    before   z = Conv2(relu(Conv1(x, w1, b1)), w2)
    after    z = Conv2(relu(Conv1(x, w1 / s, b1 / s)), w2 * s)      s = sqrt(r1 / r2) per channel

r1 and r2 are the largest magnitudes of channel c in w1 and w2: afterwards both are sqrt(r1 r2), so
that one scale for the tensor serves all channels (Nagel et al. 2019, arXiv:1906.04721, section
4.1). r1 counts the bias too: a dead channel, all bias, would otherwise be blown up to the size of
the live ones, and its constant would set the scale of the activations. Only what is positively
homogeneous in each channel may stand in between: Relu and pooling; a clip moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparrow import lane
from sparrow.graph import Graph, Node, retyped
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.pool import Pool
from sparrow.tensor import F32, Array

ROUNDS = 20


@dataclass(frozen=True, slots=True)
class _Pair:
    first: Node
    second: Node


def _pairs(g: Graph) -> list[_Pair]:
    users, made, out = g.users(), g.producers(), g.live_out()
    shared = {x for x, nodes in users.items() if x in g.consts and len(nodes) > 1}

    def only(x: str) -> bool:
        return len(users.get(x, ())) == 1 and x not in out

    found = []
    for n in g.nodes:
        x = n.inputs[0] if n.inputs else ""
        if not isinstance(n.op, Conv) or n.op.epilogue or not only(x) or x not in made:
            continue
        p = made[x]
        while _passes(p) and only(p.inputs[0]) and p.inputs[0] in made:
            p = made[p.inputs[0]]
        if not isinstance(p.op, Conv) or p.op.epilogue:
            continue
        weights = {*p.inputs[1:], n.inputs[1]} - {""}
        if weights <= set(g.consts) and not weights & shared:
            found.append(_Pair(p, n))
    return found


def _passes(n: Node) -> bool:
    """Whether a factor of a channel of the input is one of the result."""
    if isinstance(n.op, Pool):
        return not n.op.indices
    return isinstance(n.op, Lane) and n.op.expr == lane.call("relu", lane.Arg(0, F32))


def _inputs_first(w: Array, group: int) -> Array:
    """Weights of the second layer with the channels they read along axis 0: [C, M / group, ..]."""
    m = w.shape[0]
    split = w.reshape(group, m // group, *w.shape[1:])
    return np.moveaxis(split, 2, 1).reshape(group * w.shape[1], m // group, *w.shape[2:])


def _scaled_inputs(w: Array, group: int, s: NDArray[np.float64]) -> Array:
    each = w.shape[1]
    rows = s.reshape(group, each).repeat(w.shape[0] // group, 0)
    return w * rows.reshape(w.shape[0], each, *(1,) * (w.ndim - 2))


def _peak(rows: Array) -> NDArray[np.float64]:
    peak: NDArray[np.float64] = np.abs(rows.reshape(len(rows), -1)).max(1).astype(np.float64)
    return peak


def equalize(g: Graph) -> Graph:
    """``g`` with even channels: the same function up to rounding in float32.

    ``g`` itself where no two convolutions have nothing but Relu and pooling between them.
    """
    pairs = _pairs(g)
    if not pairs:
        return g
    wide = {x: g.consts[x].astype(np.float64) for p in pairs for x in _constants(p)}
    for _ in range(ROUNDS):
        for p in pairs:
            assert isinstance(p.second.op, Conv)
            w1, w2, group = p.first.inputs[1], p.second.inputs[1], p.second.op.group
            bias = p.first.inputs[2] if len(p.first.inputs) > 2 else ""
            r1, r2 = _peak(wide[w1]), _peak(_inputs_first(wide[w2], group))
            if bias:
                r1 = np.maximum(r1, np.abs(wide[bias]))
            with np.errstate(divide="ignore", invalid="ignore"):
                s = np.sqrt(r1 / r2)
            # a channel that is zero on one side has nothing to share
            s = np.where((r1 > 0) & (r2 > 0) & np.isfinite(s), np.clip(s, 1e-4, 1e4), 1.0)
            back = s.reshape(-1, *(1,) * (wide[w1].ndim - 1))
            wide[w1] = wide[w1] / back
            if bias:
                wide[bias] = wide[bias] / s
            wide[w2] = _scaled_inputs(wide[w2], group, s)
    consts = {**g.consts, **{x: a.astype(np.float32) for x, a in wide.items()}}
    return retyped(g, g.nodes, consts=consts)


def _constants(p: _Pair) -> tuple[str, ...]:
    return tuple(x for x in (*p.first.inputs[1:3], p.second.inputs[1]) if x)
