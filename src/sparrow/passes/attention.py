"""Recognise attention spelled out, and let it read and write projections where they lie.

    before   s = MatMul(q, k') * c + mask;  y = MatMul(Softmax(s), v)     over [B, heads, rows, D];
             q and k may be scaled before the product, what is added may be a sum, and
             all heads may have the keys and values of one
    after    y = Attention(q, k, v, mask)

    before   y = Attention(Transpose(q, 0213), ..)    q [B, rows, heads, D], perhaps reshaped
    after    y = Attention(q, ..) with q interleaved  the kernel walks strides

    before   y = Transpose(Attention(..), 0213)
    after    y = Attention(..) with y interleaved

    before   k = Reshape(Expand(Reshape(k0)))         [B, G, T, D] -> [B, heads, T, D]
    after    Attention reads k0: query head h uses key head h // (heads / G)

The scale is applied to q and the softmax runs over tiles of keys: within rounding. A row whose
scores are -inf everywhere stays NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial, reduce

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.attention import HEADS_SECOND, Attention
from sparrow.ops.attention_codes import AttentionCodes
from sparrow.ops.lane import Lane, broadcast_shape
from sparrow.ops.matmul import MatMul
from sparrow.ops.pad import Expand
from sparrow.ops.reshape import Reshape
from sparrow.ops.softmax import Softmax
from sparrow.ops.transpose import Transpose
from sparrow.passes.polynomial import factors
from sparrow.passes.sinking import swap_reshape
from sparrow.passes.unfold import Unfolded
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, F64


@dataclass(frozen=True, slots=True)
class _Scores:
    """softmax(scale * product + mask), the mask an expression over ``names``."""

    product: Node
    scale: float
    mask: lane.Expr | None
    names: tuple[str, ...]


def _scores(m: Match, value: str) -> _Scores | None:
    """The scores under a softmax: a MatMul, scaled, with masks added."""
    u = Unfolded(m)
    e = u.of(value) if m.only_user(value) is not None else u.leaf(value)
    added = _terms(e)
    for i, term in enumerate(added):
        found = _product(m, u, term)
        if found is not None:
            rest = [*added[:i], *added[i + 1 :]]
            if not rest:
                return _Scores(*found, None, ())
            mask, names = lane.compact(reduce(partial(lane.call, "add"), rest), u.leaves)
            if not names or found[0].outputs[0] in names:
                return None
            return _Scores(*found, mask, names)
    return None


def _terms(e: lane.Expr) -> list[lane.Expr]:
    """What is added in a sum, in order; what multiplies all of it by a number does each term."""
    if isinstance(e, lane.Call) and e.fn == "add":
        return [t for a in e.args for t in _terms(a)]
    if isinstance(e, lane.Call) and e.fn in ("mul", "div") and isinstance(e.args[1], lane.Imm):
        return [lane.call(e.fn, t, e.args[1]) for t in _terms(e.args[0])]
    return [e]


def _product(m: Match, u: Unfolded, e: lane.Expr) -> tuple[Node, float] | None:
    """(MatMul, k) of an expression k * MatMul."""
    k, bases = factors(e)
    if len(bases) != 1 or k == 0:
        return None
    ((base, p),) = bases.items()
    value = u.name(base)
    node = m.producer(value, MatMul) if value is not None and p == 1.0 else None
    if node is None or value is None or m.only_user(value) is None:
        return None
    assert isinstance(node.op, MatMul)
    plain = node.op.epilogue is None and len(node.inputs) == 2 and not node.op.trans_a
    return (node, k) if plain else None


def _scaled(m: Match, value: str) -> tuple[str, float]:
    """(x, k) such that an operand of the scores is k * x."""
    u = Unfolded(m)
    k, bases = factors(u.of(value))
    ((base, p),) = bases.items() if len(bases) == 1 else ((None, 0.0),)
    x = u.name(base) if base is not None and p == 1.0 and k > 0 else None
    return (value, 1.0) if x is None or m.type(x) != m.type(value) else (x, k)


def attention(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match the MatMul with the values."""
    if not isinstance(n.op, MatMul) or n.op != MatMul() or len(n.inputs) != 2:
        return None
    soft = m.producer(n.inputs[0], Softmax)
    if soft is None:
        return None
    assert isinstance(soft.op, Softmax)
    if soft.op.log or soft.op.axis != m.type(soft.outputs[0]).rank - 1:
        return Reject("the softmax is not over the keys")
    if m.only_user(soft.outputs[0]) is None:
        return Reject("the probabilities are used elsewhere")
    s = _scores(m, soft.inputs[0])
    if s is None:
        return Reject("the scores are not a scaled matrix product with a mask")
    (q, q_scale), (k, k_scale) = (_scaled(m, x) for x in s.product.inputs)
    v = n.inputs[1]
    types = [m.type(x) for x in (q, k, v)]
    rank = m.type(n.outputs[0]).rank
    if any(t.rank != rank or t.dtype not in (F32, F64) for t in types) or rank not in (3, 4):
        return Reject(f"operands {types}")
    (*batch, of_q), of_k, of_v = (t.shape[:-2] for t in types)
    if of_k != of_v or of_k not in ((*batch, of_q), (*batch, 1)):
        return Reject("operands broadcast over batch or heads")
    full = m.type(s.product.outputs[0]).shape
    new: list[Node] = []
    masks: tuple[str, ...] = ()
    if s.mask is not None:
        shape = broadcast_shape(*(m.type(x).shape for x in s.names))
        if s.mask.dtype != types[0].dtype or broadcast_shape(shape, full) != full:
            return Reject(f"a mask {shape} does not broadcast to the scores")
        masks = s.names
        if not isinstance(s.mask, lane.Arg):
            masks = (m.fresh(),)
            new.append(Node(Lane(s.mask), s.names, masks, n.origin))
    assert isinstance(s.product.op, MatMul)
    turned = not s.product.op.trans_b
    if turned:
        flat, k = k, m.fresh()
        order = (*range(rank - 2), rank - 1, rank - 2)
        new.append(Node(Transpose(order), (flat,), (k,), n.origin))
    heads = [q, k, v]
    if rank == 3:
        for i, x in enumerate(heads):
            shape = m.type(x).shape if i != 1 or not turned else (*of_k, full[2], types[0].shape[2])
            heads[i] = m.fresh()
            new.append(Node(Reshape((1, *shape)), (x,), (heads[i],), n.origin))
    inputs = (*heads, *masks)
    op = Attention(s.scale * q_scale * k_scale, blind_nan=True)
    if rank == 4:
        new.append(Node(op, inputs, n.outputs, n.origin))
    else:
        y = m.fresh()
        new.append(Node(op, inputs, (y,), n.origin))
        new.append(Node(Reshape(m.type(n.outputs[0]).shape), (y,), n.outputs, n.origin))
    return Rewrite(tuple(new), (n,))


def _ungrouped(m: Match, value: str) -> tuple[str, tuple[int, ...]] | None:
    """Value and shape [B, G, T, D] of which [B, G * r, T, D] repeats each head r times."""
    merged = m.producer(value, Reshape)
    grown = m.producer(merged.inputs[0], Expand) if merged is not None else None
    if merged is None or grown is None:
        return None
    narrow, wide, full = (m.type(x).shape for x in (grown.inputs[0], merged.inputs[0], value))
    if len(wide) != 5 or len(narrow) != 5 or narrow != (*wide[:2], 1, *wide[3:]):
        return None
    if full != (wide[0], wide[1] * wide[2], *wide[3:]):
        return None
    return grown.inputs[0], (*wide[:2], *wide[3:])


def group_heads(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match an Attention over keys and values that repeat heads."""
    if not isinstance(n.op, Attention) or n.op.interleaved[1] or n.op.interleaved[2]:
        return None
    k, v = (_ungrouped(m, x) for x in n.inputs[1:3])
    if k is None and v is None:
        return None
    if k is None or v is None or k[1][1] != v[1][1]:
        return Reject("keys and values repeat different heads")
    names = m.fresh(), m.fresh()
    flat = [
        Node(Reshape(shape), (x,), (name,), n.origin)
        for (x, shape), name in zip((k, v), names, strict=True)
    ]
    return Rewrite((*flat, replace(n, inputs=(n.inputs[0], *names, *n.inputs[3:]))), (n,))


def interleave_inputs(m: Match, n: Node) -> Rewrite | None:
    """Match an Attention over transposed queries, keys or values."""
    if not isinstance(n.op, Attention | AttentionCodes):
        return None
    for i in range(3):
        found = _swapped(m, n.inputs[i])
        if found is None:
            continue
        source, shape = found
        inside = list(n.op.interleaved)
        inside[i] = not inside[i]
        op = replace(n.op, interleaved=(inside[0], inside[1], inside[2], inside[3]))
        rows_first = m.fresh()
        inputs = (*n.inputs[:i], rows_first, *n.inputs[i + 1 :])
        flat = Node(Reshape(shape), (source,), (rows_first,), n.origin)
        return Rewrite((flat, Node(op, inputs, n.outputs, n.origin)), (n,))
    return None


def _swapped(m: Match, value: str) -> tuple[str, tuple[int, ...]] | None:
    """(x, s) such that ``value`` is Transpose(Reshape(x, s), 0213)."""
    outer = m.producer(value, Reshape)
    p = m.producer(value if outer is None else outer.inputs[0], Transpose)
    if p is None:
        return None
    assert isinstance(p.op, Transpose)
    (x,) = p.inputs
    found = swap_reshape(m.type(x).shape, p.op.perm, m.type(value).shape)
    return (x, found[0]) if found is not None and found[1] == HEADS_SECOND else None


def interleave_output(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a transposed Attention."""
    if not isinstance(n.op, Transpose) or n.op.perm != HEADS_SECOND:
        return None
    p = m.producer(n.inputs[0])
    if p is None or not isinstance(p.op, Attention | AttentionCodes):
        return None
    if m.only_user(n.inputs[0]) is None:
        return Reject("the result is used elsewhere")
    a, b, c, d = p.op.interleaved
    op = replace(p.op, interleaved=(a, b, c, not d))
    return Rewrite((Node(op, p.inputs, n.outputs, p.origin),), (p, n))
