"""Fuse chains of elementwise ops into one loop.

before   y = f(a, b);  z = g(y, c)
after    z = g(f(a, b), c)                  y is read by nothing else

before   y = f(a);  u = g(y);  v = h(y)
after    u = g(f(a));  v = h(f(a))          f is cheap, and fewer bytes move

before   a = x + 3;  b = clip(a, 0, 6);  c = x * b;  y = c / 6
after    y = hardswish(x)                   `fuse_unary`: functions of one value become one early
"""

from __future__ import annotations

from sparrow import lane
from sparrow.branches import sides
from sparrow.graph import Node
from sparrow.ops.lane import Lane
from sparrow.passes.literals import spans
from sparrow.rewrite import Match, Reject, Rewrite
from sparrow.tensor import BOOL

MAX_CALLS = 48
MAX_OPERANDS = 12
MAX_TREE = 256
"""Subexpressions of an expression, repeated ones counted again: walking it takes that long."""
CLONE_COST = 4
"""Cost (`lane.cost`) up to which computing a value twice is less than storing and loading it."""


def fuse_lanes(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Lane one of whose operands is a Lane."""
    if not isinstance(n.op, Lane):
        return None
    why: Reject | None = None
    for x in dict.fromkeys(n.inputs):
        p = m.producer(x, Lane)
        if p is None:
            continue
        r = _fuse(m, n, x, p)
        if isinstance(r, Rewrite):
            return r
        why = r
    return why


def fuse_unary(m: Match, n: Node) -> Rewrite | Reject | None:
    """Match a Lane over another one that together are a function of one value."""
    if not isinstance(n.op, Lane):
        return None
    for x in dict.fromkeys(n.inputs):
        p = m.producer(x, Lane)
        if p is None or len(set(p.inputs)) != 1 or not _of_one(m, p.inputs[0], n, x):
            continue
        if any(u is not n for u in m.users(x)) or m.is_output(x):
            return Reject(f"{x} is used elsewhere")
        return _joined(m, n, x, p, (p, n))
    return None


def _of_one(m: Match, value: str, n: Node, x: str) -> bool:
    """Whether all that ``n`` reads beside ``x`` is a value, or a function of that alone."""
    others = [m.producer(v, Lane) for v in n.inputs if v not in (x, value)]
    return all(q is not None and set(q.inputs) == {value} for q in others)


def _fuse(m: Match, n: Node, x: str, p: Node) -> Rewrite | Reject:
    assert isinstance(n.op, Lane) and isinstance(p.op, Lane)
    if _decides(m, n, x):
        return Reject(f"{x} says which branch runs")
    others = [u for u in m.users(x) if u is not n]
    inner, outer = m.type(x), m.type(n.outputs[0])
    if inner.size < outer.size and lane.cost(p.op.expr) > 2:
        return Reject(f"{x} is broadcast: fused, it would be computed for every element")
    if not others and not m.is_output(x):
        return _joined(m, n, x, p, (p, n))
    if lane.cost(p.op.expr) > CLONE_COST:
        return Reject(f"{x} is used elsewhere and dear to compute again")
    if _bytes_saved(m, n, x, p, others) <= 0:
        return Reject(f"{x} is used elsewhere, and reading it is less than reading its operands")
    return _joined(m, n, x, p, (n,))


def _decides(m: Match, n: Node, x: str) -> bool:
    """Whether a single bool selects what other nodes have computed."""
    assert isinstance(n.op, Lane)
    if m.type(x).dtype != BOOL or m.type(x).size != 1:
        return False
    return any(
        m.producer(n.inputs[k]) is not None and any(n.inputs[c] == x for c, _ in under)
        for k, under in sides(n.op.expr).items()
    )


def _bytes_saved(m: Match, n: Node, x: str, p: Node, others: list[Node]) -> int:
    """Bytes that no longer move when readers of ``x`` compute it themselves."""
    size = m.type(x).bytes
    operands = sum(m.type(v).bytes for v in set(p.inputs))
    users = {id(u): u for u in (n, *others)}.values()

    def added(u: Node) -> int:
        return sum(m.type(v).bytes for v in set(p.inputs) - set(u.inputs))

    def takes(u: Node) -> bool:
        return isinstance(u.op, Lane) and m.type(u.outputs[0]).size == m.type(x).size

    if not m.is_output(x) and all(takes(u) for u in users):
        return operands + size * (1 + len(users)) - sum(added(u) for u in users)
    return size - added(n)


def _joined(m: Match, n: Node, x: str, p: Node, remove: tuple[Node, ...]) -> Rewrite | Reject:
    """``n`` with ``p`` written into it."""
    assert isinstance(n.op, Lane) and isinstance(p.op, Lane)
    uses = sum(isinstance(a, lane.Arg) and n.inputs[a.index] == x for a in lane.walk(n.op.expr))
    if tree_size(n.op.expr) + uses * tree_size(p.op.expr) > MAX_TREE:
        return Reject("the fused expression would be too long")
    first = len(n.inputs)
    inner = [lane.Arg(first + k, m.type(v).dtype) for k, v in enumerate(p.inputs)]
    args = [
        lane.substitute(p.op.expr, inner) if v == x else lane.Arg(i, m.type(v).dtype)
        for i, v in enumerate(n.inputs)
    ]
    e, names = lane.compact(lane.substitute(n.op.expr, args), (*n.inputs, *p.inputs))
    if sum(isinstance(c, lane.Call) for c in set(lane.walk(e))) > MAX_CALLS:
        return Reject("the fused expression would be too long")
    if len(names) > MAX_OPERANDS:
        return Reject("the fused loop would read too many streams")
    if not names or not spans(m, names, m.type(n.outputs[0]).shape):
        return Reject("no operand of the fused loop gives it the shape of the result")
    return Rewrite((Node(Lane(e), names, n.outputs, n.origin),), remove)


def tree_size(e: lane.Expr) -> int:
    """Subexpressions, repeated ones counted again."""
    return sum(1 for _ in lane.walk(e))
