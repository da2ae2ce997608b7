"""Carry transposes down or up a graph, to where they meet their inverses or move less.

before   z = f(back(y))        after   z = back(f'(y))       sinking; f' = f.permuted(..)
before   z = to(f(x))          after   z = f'(to(x))         hoisting
before   z = Reshape(T(x))     after   z = T'(Reshape'(x))   axes that stay groups
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparrow.graph import Graph, Node, Op, Types
from sparrow.ops.reshape import Reshape
from sparrow.ops.slice import Slice
from sparrow.ops.transpose import Transpose
from sparrow.passes.tidy import TIDY
from sparrow.rewrite import Match, Reject, Rewrite, Rule
from sparrow.tensor import Array, TensorType, moved


def inverse(perm: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes ``perm``."""
    return tuple(int(i) for i in np.argsort(perm))


def moves(shape: Sequence[int], perm: Sequence[int]) -> bool:
    """Whether transposing moves elements in memory, and not only axes of extent 1."""
    order = [p for p in perm if shape[p] != 1]
    return order != sorted(order)


def moved_elements(g: Graph) -> int:
    """Elements that the transposes of a graph move."""
    return sum(
        g.types[n.outputs[0]].size
        for n in g.nodes
        if isinstance(n.op, Transpose) and moves(g.types[n.inputs[0]].shape, n.op.perm)
    )


def swap_reshape(
    source: tuple[int, ...], perm: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """(s, p) with reshape(transpose(x, perm), shape) == transpose(reshape(x, s), p).

    x has shape ``source``. None when the reshape joins axes that do not follow each other in x.
    """
    groups = _groups([(p, source[p]) for p in perm if source[p] != 1], shape)
    if groups is None:
        return None
    place = {axis: i for i, axis in enumerate(a for a, d in enumerate(source) if d != 1)}
    spots: list[int] = []
    for axes, _ in groups:
        at = [place[a] for a in axes]
        if at != list(range(at[0], at[0] + len(at))):
            return None
        spots.append(at[0])
    order = sorted(range(len(groups)), key=spots.__getitem__)
    lead = next(j for j, d in enumerate(shape) if d != 1)
    flat = [*range(lead), *(j for k in order for j in groups[k][1] if j >= lead)]
    return tuple(shape[j] for j in flat), inverse(flat)


def _groups(
    axes: list[tuple[int, int]], shape: tuple[int, ...]
) -> list[tuple[list[int], list[int]]] | None:
    """Pair runs of (axis, extent > 1) with the runs of axes of ``shape`` over the same elements."""
    if not axes or 0 in shape or any(d == 0 for _, d in axes):
        return None
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(axes):
        left = [axes[i][0]]
        right: list[int] = []
        a, b = axes[i][1], 1
        i += 1
        while a != b or not right:
            if b < a:
                b *= shape[j]
                right.append(j)
                j += 1
            else:
                a *= axes[i][1]
                left.append(axes[i][0])
                i += 1
        while j < len(shape) and shape[j] == 1:
            right.append(j)
            j += 1
        groups.append((left, right))
    return groups


def sink_reshape(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Reshape of a Transpose."""
    if not isinstance(n.op, Reshape):
        return None
    p = m.producer(n.inputs[0], Transpose)
    if p is None:
        return None
    assert isinstance(p.op, Transpose)
    (x,) = p.inputs
    found = swap_reshape(m.type(x).shape, p.op.perm, n.op.shape)
    if found is None:
        return Reject("the reshape joins axes that lie apart")
    middle = m.fresh()
    return Rewrite(
        (
            Node(Reshape(found[0]), (x,), (middle,), n.origin),
            Node(Transpose(found[1]), (middle,), n.outputs, n.origin),
        ),
        (n,),
    )


def hoist_reshape(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Transpose of a Reshape of a Transpose; the two transposes become one."""
    if not isinstance(n.op, Transpose):
        return None
    r = m.producer(n.inputs[0], Reshape)
    if r is None or m.only_user(n.inputs[0]) is None:
        return None
    (x,) = r.inputs
    y = m.type(n.outputs[0]).shape
    found = swap_reshape(y, inverse(n.op.perm), m.type(x).shape)
    if found is None:
        return Reject("the reshape joins axes that lie apart")
    perm = inverse(found[1])
    if m.producer(x, Transpose) is None and moves(m.type(x).shape, perm):
        return None
    middle = m.fresh()
    return Rewrite(
        (
            Node(Transpose(perm), (x,), (middle,), n.origin),
            Node(Reshape(y), (middle,), n.outputs, n.origin),
        ),
        (n,),
    )


def sink_transpose(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match an op that reads transposed operands; let it read the originals."""
    if isinstance(n.op, (Transpose, Reshape)) or not n.inputs:
        return None
    types = tuple(m.type(x) if x else None for x in n.inputs)
    movable = n.op.transposable(types)
    perms: dict[tuple[int, ...], int] = {}
    for i in movable:
        s = m.producer(n.inputs[i], Transpose)
        if s is not None and isinstance(s.op, Transpose):
            perms[s.op.perm] = perms.get(s.op.perm, 0) + m.type(n.inputs[i]).size
    if not perms:
        return None
    perm = max(perms, key=perms.__getitem__)
    gain = perms[perm]
    if any(m.type(y).rank != len(perm) for y in n.outputs):
        return Reject("the result has another rank than its transposed operand")
    # y = f(T x) = T f'(x), and f' is f seen through the inverse permutation
    op = _permuted(n.op, inverse(perm), types)
    if isinstance(op, Reject):
        return op
    carried = _Carried(m, n, inverse(perm), reuse=False)
    for i in movable:
        s = m.producer(n.inputs[i], Transpose)
        if s is not None and isinstance(s.op, Transpose) and s.op.perm == perm:
            carried.inputs[i] = s.inputs[0]
        elif not carried.take(i):
            return Reject("quantization blocks follow the axes")
    # of two equal ways the one that leaves more values channels-last, where windowed ops are near
    if gain < carried.cost or (gain == carried.cost and perm != _to_first(len(perm))):
        return Reject("as many elements would be transposed on the other operands")
    outs = tuple(m.fresh() for _ in n.outputs)
    carried.new.append(Node(op, tuple(carried.inputs), outs, n.origin))
    for y, z in zip(n.outputs, outs, strict=True):
        carried.new.append(Node(Transpose(perm), (z,), (y,), n.origin))
    return carried.rewrite(n)


def hoist_transpose(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a transposed result; transpose the operands instead if that moves less."""
    if not isinstance(n.op, Transpose) or not moves(m.type(n.inputs[0]).shape, n.op.perm):
        return None
    p = m.producer(n.inputs[0])
    if p is None or isinstance(p.op, (Transpose, Reshape)) or len(p.outputs) != 1:
        return None
    perm, types = n.op.perm, tuple(m.type(x) if x else None for x in p.inputs)
    if m.only_user(n.inputs[0]) is None:
        return Reject(f"{p.origin}: its result is used elsewhere")
    op = _permuted(p.op, perm, types)
    if isinstance(op, Reject):
        return op
    carried = _Carried(m, p, perm, reuse=True)
    for i in p.op.transposable(types):
        if not carried.take(i):
            return Reject("quantization blocks follow the axes")
    shared = _transposed_slices(m, p, n.op)
    if carried.cost > shared or (carried.cost == shared and not isinstance(p.op, Slice)):
        return Reject(f"the operands of {type(p.op).__name__} are as large as its result")
    carried.new.append(Node(op, tuple(carried.inputs), n.outputs, p.origin))
    return carried.rewrite(p, n)


def _permuted(op: Op, perm: tuple[int, ...], x: Types) -> Op | Reject:
    turned = op.permuted(perm, x)
    if turned is None:
        return Reject(f"{type(op).__name__} has no permuted form")
    if not getattr(turned, "channels_last", True):
        return Reject(f"{type(op).__name__} would have its channels first")
    return turned


def _to_first(rank: int) -> tuple[int, ...]:
    """Channels-last to channels-first; nothing where that is its own inverse."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 3 else ()


def _transposed_slices(m: Match, p: Node, op: Transpose) -> int:
    """Elements that equal transposes of ``p`` and, if it is a slice, of slices beside it move."""
    beside = m.users(p.inputs[0]) if isinstance(p.op, Slice) else [p]
    total = 0
    for s in beside:
        user = m.only_user(s.outputs[0]) if isinstance(s.op, type(p.op)) else None
        if user is not None and isinstance(user.op, Transpose) and user.op.perm == op.perm:
            total += m.type(s.outputs[0]).size
    return total


class _Carried:
    """Operands of a node being replaced by their transposes, and the elements this moves.

    With ``reuse`` a transpose that is there already serves again; sinking must not count on the one
    that it is about to remove.
    """

    def __init__(self, m: Match, n: Node, perm: tuple[int, ...], reuse: bool) -> None:
        self.m, self.n, self.perm, self.reuse = m, n, perm, reuse
        self.inputs = list(n.inputs)
        self.new: list[Node] = []
        self.consts: dict[str, Array] = {}
        self.types: dict[str, TensorType] = {}
        self.cost = 0
        self._done: dict[str, str] = {}

    def take(self, i: int) -> bool:
        """Transpose operand ``i``; False when its type does not allow it."""
        x = self.n.inputs[i]
        t = self.m.type(x)
        if t.rank == 0:
            return True
        if x not in self._done:
            if t.quant is not None and moved(t.quant, len(self.perm)) is None:
                return False
            self._done[x] = self._transposed(x, t)
        self.inputs[i] = self._done[x]
        return True

    def _transposed(self, x: str, t: TensorType) -> str:
        full = (*(1,) * (len(self.perm) - t.rank), *t.shape)
        value = self.m.const(x)
        for u in self.m.users(x) if self.reuse else ():
            if isinstance(u.op, Transpose) and u.op.perm == self.perm:
                return u.outputs[0]
        name = self.m.fresh()
        if value is not None:
            turned = np.ascontiguousarray(value.reshape(full).transpose(self.perm))
            quant = moved(t.quant, turned.ndim)
            self.consts[name] = turned
            self.types[name] = TensorType(turned.shape, t.dtype, quant=quant)
            return name
        if moves(full, self.perm):
            self.cost += self._price(x, t, full)
        if t.rank != len(full):
            middle = self.m.fresh()
            self.new.append(Node(Reshape(full), (x,), (middle,), self.n.origin))
            x = middle
        self.new.append(Node(Transpose(self.perm), (x,), (name,), self.n.origin))
        return name

    def _price(self, x: str, t: TensorType, full: tuple[int, ...]) -> int:
        """Elements moved that were not before; a transpose that joins one is free."""
        p = self.m.producer(x, Transpose)
        if p is None or t.shape != full:
            return t.size
        assert isinstance(p.op, Transpose)
        joined = tuple(p.op.perm[i] for i in self.perm)
        freed = 0 if self.m.only_user(x) is None else t.size
        return (t.size if moves(self.m.type(p.inputs[0]).shape, joined) else 0) - freed

    def rewrite(self, *remove: Node) -> Rewrite:
        """The finished rewrite."""
        return Rewrite(tuple(self.new), remove, {}, self.consts, self.types)


SINK: tuple[tuple[str, Rule], ...] = (
    *TIDY,
    ("sink_reshape", sink_reshape),
    ("sink_transpose", sink_transpose),
)
HOIST: tuple[tuple[str, Rule], ...] = (
    *TIDY,
    ("hoist_reshape", hoist_reshape),
    ("hoist_transpose", hoist_transpose),
)
