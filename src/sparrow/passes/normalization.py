"""Recognise normalization spelled out, and give it its scale and shift.

    before   d = x - mean(x);  v = mean(d * d);  y = d / sqrt(v + e)      or d * (1 / sqrt(..)),
    after    y = Normalize(x)                                             d * (v + e) ^ -0.5, d ^ 2

    before   y = x / sqrt(mean(x * x) + e)
    after    y = Normalize(x) without centring                            root mean square

    before   y = x * s + (b - mean * s),  s = g / sqrt(v + e)             as TensorFlow writes it
    after    y = Normalize(x, g, b)

    before   y = Normalize(x) * g + b         g, b constant, of the shape of the normalized axes
    after    y = Normalize(x, g, b)

    before   y = Normalize(Reshape(x))               [N, C, ..] -> [N, G, rest], G groups
    after    y = Reshape(Normalize(Reshape'(x)))     [N, C, ..] -> [N, G, C / G, ..]

Sums of squares are taken in another order than the spelled form takes them: within rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparrow import lane
from sparrow.graph import Node
from sparrow.ops.lane import Lane
from sparrow.ops.normalize import Normalize
from sparrow.ops.reduce import Reduce, around
from sparrow.ops.reshape import Reshape
from sparrow.passes.polynomial import factors
from sparrow.passes.unfold import Unfolded
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import F32, F64


@dataclass(frozen=True, slots=True)
class _Moment:
    """A mean over axes: of which value, and which expression of it."""

    value: str
    axes: tuple[int, ...]


def _mean(m: Match, value: str | None) -> _Moment | None:
    p = m.producer(value, Reduce) if value is not None else None
    if p is None:
        return None
    assert isinstance(p.op, Reduce)
    (x,) = p.inputs
    # kernels normalize over axes that lie together
    if p.op.kind != "mean" or not p.op.axes or around(m.type(x).shape, p.op.axes) is None:
        return None
    return _Moment(x, p.op.axes)


def _difference(m: Match, u: Unfolded, e: lane.Expr) -> tuple[str, str] | None:
    """(x, mean) of an expression x - mean, opened when it is shared."""
    value = u.name(e)
    if value is not None and m.producer(value, Lane) is not None:
        e = u.of(value)
    if isinstance(e, lane.Call) and e.fn == "sub":
        x, mean = (u.name(a) for a in e.args)
        return (x, mean) if x is not None and mean is not None else None
    return None


def _root(e: lane.Expr) -> tuple[lane.Expr, float] | None:
    """(v, epsilon) of an expression v + epsilon."""
    if isinstance(e, lane.Call) and e.fn == "add":
        for a, b in (e.args, e.args[::-1]):
            if isinstance(b, lane.Imm):
                return a, float(b.value)
    return None


def normalization(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match the Lane that divides by the square root."""
    if not isinstance(n.op, Lane) or n.op.expr.dtype not in (F32, F64):
        return None
    u = Unfolded(m)
    k, bases = factors(u.of(n.outputs[0]))
    roots = [b for b, p in bases.items() if p == -0.5]
    rest = [b for b, p in bases.items() if p == 1.0]
    if len(roots) != 1 or len(rest) != 1 or len(bases) != 2:
        return None
    found = _root(roots[0])
    square = None if found is None else _mean(m, u.name(found[0]))
    if found is None or square is None:
        return None
    if k != 1.0:
        return Reject(f"the normalized value is scaled by {k}")
    source = _source(m, u, rest[0], square)
    if source is None:
        return Reject("what is divided is not what the squares are of")
    x, center = source
    if m.type(x).shape != m.type(n.outputs[0]).shape:
        return Reject("the result is broadcast")
    op = Normalize(square.axes, found[1], center, m.type(x).dtype)
    return Rewrite((Node(op, (x,), n.outputs, n.origin),), (n,))


def _source(m: Match, u: Unfolded, e: lane.Expr, square: _Moment) -> tuple[str, bool] | None:
    """(x, centred) when ``square`` is the mean square of ``e`` and e is x - mean(x) or x."""
    k, bases = factors(u.of(square.value))
    if k != 1.0 or len(bases) != 1:
        return None
    ((base, p),) = bases.items()
    if p != 2.0:
        return None
    pairs = [_difference(m, u, v) for v in (base, e)]
    if pairs[0] is not None and pairs[0] == pairs[1]:
        x, mean = pairs[0]
        of = _mean(m, mean)
        if of is not None and of == _Moment(x, square.axes):
            return x, True
    value = u.name(e)
    return (value, False) if base == e and value is not None else None


def shifted_normalization(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match x * s + (b - mean * s) with s = g / sqrt(v + e)."""
    if not isinstance(n.op, Lane) or n.op.expr.dtype not in (F32, F64):
        return None
    u = Unfolded(m)
    e = u.of(n.outputs[0])
    if not (isinstance(e, lane.Call) and e.fn == "add"):
        return None
    for scaled, shift in (e.args, e.args[::-1]):
        if isinstance(shift, lane.Call) and shift.fn == "sub":
            found = _shifted(m, n, u, scaled, shift)
            if found is not None:
                return found
    return None


def _shifted(
    m: Match, n: Node, u: Unfolded, scaled: lane.Expr, shift: lane.Call
) -> Rewrite | Reject | None:
    (_, xs), (_, ms) = _opened(u, scaled), _opened(u, shift.args[1])
    common = {b: p for b, p in xs.items() if ms.get(b) == p}
    left = [b for b in xs if b not in common]
    right = [b for b in ms if b not in common]
    roots = [b for b, p in common.items() if p == -0.5]
    scales = [b for b, p in common.items() if p == 1.0]
    if not (len(left) == len(right) == len(roots) == 1 and len(scales) == len(common) - 1 <= 1):
        return None
    x, mean, bias = u.name(left[0]), u.name(right[0]), u.name(shift.args[0])
    root = _root(roots[0])
    square = _mean(m, u.name(root[0])) if root is not None else None
    if x is None or bias is None or root is None or square is None:
        return None
    if _mean(m, mean) != _Moment(x, square.axes):
        return Reject("what is subtracted is not the mean of what is normalized")
    d = _difference(m, u, next(iter(factors(u.of(square.value))[1]), lane.Imm(0.0, F32)))
    if factors(u.of(square.value))[0] != 1.0 or d is None or d[0] != x or d[1] != mean:
        return Reject("the variance is not that of what is normalized")
    scale = u.name(scales[0]) if scales else None
    if scales and scale is None:
        return None
    op = Normalize(square.axes, root[1], True, m.type(x).dtype)
    y = m.fresh()
    new = [Node(op, (x,), (y,), n.origin)]
    operands = [lane.Arg(i, m.type(x).dtype) for i in (0, 1)]
    if scale is not None:
        new.append(Node(Lane(lane.call("mul", *operands)), (y, scale), (y := m.fresh(),), n.origin))
    new.append(Node(Lane(lane.call("add", *operands)), (y, bias), n.outputs, n.origin))
    return Rewrite(tuple(new), (n,))


def _opened(u: Unfolded, e: lane.Expr) -> tuple[float, dict[lane.Expr, float]]:
    """Factors with shared products opened, as the scale that both terms share is."""
    k, bases = factors(e)
    done: dict[lane.Expr, float] = {}
    for b, p in bases.items():
        value = u.name(b)
        inner: dict[lane.Expr, float] = {b: 1.0}
        if value is not None and u.m.producer(value, Lane) is not None:
            c, opened = factors(u.of(value))
            inner = opened if c == 1.0 else inner
        for v, q in inner.items():
            done[v] = done.get(v, 0.0) + p * q
    return k, done


def scale_norm(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a product with, or a sum of, a Normalize and a constant."""
    if not isinstance(n.op, Lane) or len(n.inputs) != 2:
        return None
    e = n.op.expr
    if not (isinstance(e, lane.Call) and e.fn in ("mul", "add") and _two_args(e)):
        return None
    for x, c in (n.inputs, n.inputs[::-1]):
        p = m.producer(x, Normalize)
        if p is None:
            continue
        assert isinstance(p.op, Normalize)
        if p.op.stats or m.only_user(x) is not n:
            return Reject("the normalized value is used elsewhere")
        t, axes, shape = m.type(x), p.op.axes, m.type(c).shape
        while shape and shape[0] == 1:
            shape = shape[1:]
        if m.const(c) is None or m.type(c).quant is not None or m.type(n.outputs[0]) != t:
            return Reject("the other operand is not constant")
        if axes != tuple(range(axes[0], t.rank)) or shape != t.shape[axes[0] :]:
            return Reject("the constant does not have the shape of the normalized axes")
        have = [*p.inputs[1:], "", ""][:2]
        slot = 0 if e.fn == "mul" else 1
        if have[slot] or (slot == 0 and have[1]):
            return Reject(f"the normalization already has a {('scale', 'bias')[slot]}")
        value = m.const(c)
        assert value is not None
        have[slot] = m.fresh()
        inputs = (p.inputs[0], have[0], have[1]) if have[1] else (p.inputs[0], have[0])
        new = Node(p.op, inputs, n.outputs, p.origin)
        flat = {have[slot]: value.reshape(shape)}
        typed = {have[slot]: type(t)(shape, t.dtype)}
        return Rewrite((new,), (p, n), consts=flat, types=typed)
    return None


def _two_args(e: lane.Call) -> bool:
    return {a.index for a in e.args if isinstance(a, lane.Arg)} == {0, 1}


def grouped_channels(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Normalize over what a Reshape joined: channels of a group and their positions."""
    r = m.producer(n.inputs[0], Reshape)
    if r is None or not isinstance(n.op, Normalize) or n.op.axes != (2,) or n.op.stats:
        return None
    source, shape = m.type(r.inputs[0]).shape, m.type(n.inputs[0]).shape
    if len(shape) != 3 or len(source) < 3 or source[0] != shape[0] or 0 in shape:
        return None
    groups = shape[1]
    if source[1] % groups:
        return Reject("groups are not of whole channels")
    split = (source[0], groups, source[1] // groups, *source[2:])
    x, y = m.fresh(), m.fresh()
    new = [Node(Reshape(split), r.inputs, (x,), r.origin)]
    operands = [x]
    for c in n.inputs[1:]:
        own = m.type(c).shape if c else ()
        if own and own[-1] != 1:
            return Reject("scale or bias varies along positions")
        if own:
            spread = m.fresh()
            full = (*(1,) * (3 - len(own)), *own, *(1,) * (len(split) - 3))
            new.append(Node(Reshape(full), (c,), (spread,), n.origin))
            c = spread
        operands.append(c)
    op = replace(n.op, axes=tuple(range(2, len(split))))
    new += [
        Node(op, tuple(operands), (y,), n.origin),
        Node(Reshape(shape), (y,), n.outputs, n.origin),
    ]
    return Rewrite(tuple(new), (n,))
