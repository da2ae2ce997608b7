"""Assign channels-last layout to windowed ops and move the transposes this needs to where they vanish.

    before   y = Conv(x)                                   channels first
    after    y = back(Conv(to(x)))                         channels last between two transposes

    before   z = f(back(y))        after   z = back(f'(y))       f' = f.permuted(..)

A transpose sinks through an op when more of the op's tensors lose one than gain one; what meets its
inverse is removed by `tidy`. The price of what remains is the elements it moves.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparrow.graph import Node, Op
from sparrow.ops.conv import LETTERS
from sparrow.ops.reshape import Reshape
from sparrow.ops.transpose import Transpose
from sparrow.rewrite import Match, Reject, Rewrite


def channels_last(m: Match, n: Node) -> Rewrite | None:
    """Match an op that has a ``channels_last`` flag and does not use it."""
    if getattr(n.op, "channels_last", True):
        return None
    op = replace(n.op, channels_last=True)  # type: ignore[type-var]
    assert isinstance(op, Op)
    rank = m.type(n.inputs[0]).rank
    forward, back = (0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))
    letters = LETTERS.get(rank - 2, "")
    new: list[Node] = []
    moved: dict[str, str] = {}
    for i in _data_inputs(m, n):
        v = n.inputs[i]
        if v not in moved:
            moved[v] = m.fresh()
            new.append(Node(Transpose(forward, letters), (v,), (moved[v],), n.origin))
    picked = set(_data_inputs(m, n))
    inputs = tuple(moved[v] if i in picked else v for i, v in enumerate(n.inputs))
    outs = tuple(m.fresh() for _ in n.outputs)
    new.append(Node(op, inputs, outs, n.origin))
    for y, z in zip(n.outputs, outs, strict=True):
        new.append(Node(Transpose(back), (z,), (y,), n.origin))
    return Rewrite(tuple(new), (n,))


def _data_inputs(m: Match, n: Node) -> tuple[int, ...]:
    """Inputs laid out like the image: the first one, and whatever an epilogue adds to the result."""
    extra = range(3, len(n.inputs)) if getattr(n.op, "epilogue", None) is not None else ()
    return (0, *(i for i in extra if m.type(n.inputs[i]).rank == m.type(n.inputs[0]).rank))


def sink_transpose(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match an op that reads transposed operands; let it read the originals."""
    if isinstance(n.op, (Transpose, Reshape)) or not n.inputs:
        return None
    types = tuple(m.type(x) if x else None for x in n.inputs)
    sources = [m.producer(x, Transpose) if x else None for x in n.inputs]
    movable = n.op.transposable(types)
    found = [(i, s) for i in movable if (s := sources[i]) is not None]
    if not found:
        return None
    first = found[0][1].op
    assert isinstance(first, Transpose)
    perm, rank = first.perm, len(first.perm)
    # y = f(T x) = T f'(x), and f' is f seen through the inverse permutation
    inverse = tuple(int(i) for i in np.argsort(perm))
    if any(m.type(y).rank != rank for y in n.outputs):
        return Reject("the result has another rank than its transposed operand")
    op = n.op.permuted(inverse, types)
    if op is None:
        return Reject(f"{type(n.op).__name__} has no permuted form")
    gain = 0
    new: list[Node] = []
    consts = {}
    inputs = list(n.inputs)
    for i in movable:
        x, t = n.inputs[i], m.type(n.inputs[i])
        s = sources[i]
        if s is not None and isinstance(s.op, Transpose) and s.op.perm == perm:
            gain += t.size
            inputs[i] = s.inputs[0]
            continue
        if t.rank == 0:
            continue
        full = (*(1,) * (rank - t.rank), *t.shape)
        value = m.const(x)
        inputs[i] = m.fresh()
        if value is not None:
            consts[inputs[i]] = np.ascontiguousarray(value.reshape(full).transpose(inverse))
            continue
        if t.rank != rank:
            middle = m.fresh()
            new.append(Node(Reshape(full), (x,), (middle,), n.origin))
            x = middle
        new.append(Node(Transpose(inverse), (x,), (inputs[i],), n.origin))
        gain -= t.size if max(full) != t.size else 0
    if gain <= 0:
        return Reject("as many elements would be transposed on the other operands")
    outs = tuple(m.fresh() for _ in n.outputs)
    new.append(Node(op, tuple(inputs), outs, n.origin))
    for y, z in zip(n.outputs, outs, strict=True):
        new.append(Node(Transpose(perm), (z,), (y,), n.origin))
    return Rewrite(tuple(new), (n,), consts=consts)
