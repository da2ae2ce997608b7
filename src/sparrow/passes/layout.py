"""Assign channels-last layout to windowed ops; move the transposes it needs to where they vanish.

    before   y = Conv(x)                                   channels first
    after    y = back(Conv(to(x)))                         channels last between two transposes

The rules of `sinking` carry those transposes. Sinking is optimistic: it meets inverses that lie far
below, but may end with more to move (past an enlarging op, in a branch). Hoisting then takes every
transpose up as long as fewer elements move.
The graph that moves the fewest elements wins, the one without any sinking among them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from sparrow.graph import Graph, Node, Op
from sparrow.ops.conv import LETTERS
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.ops.reshape import Reshape
from sparrow.ops.transpose import Transpose
from sparrow.passes.cse import cse
from sparrow.passes.sinking import HOIST, SINK, moved_elements
from sparrow.passes.tidy import TIDY
from sparrow.rewrite import Match, Remark, Rewrite, Rule, apply_rules, prune
from sparrow.tensor import Affine

MAX_ROUNDS = 4
_Coding = TypeVar("_Coding", Quantize, Dequantize)


def channels_last(m: Match, n: Node) -> Rewrite | None:
    """Match an op that has a ``channels_last`` flag and does not use it."""
    return _laid_out(m, n, last=True)


def channels_first(m: Match, n: Node) -> Rewrite | None:
    """Match an op that uses its ``channels_last`` flag."""
    return _laid_out(m, n, last=False)


def _laid_out(m: Match, n: Node, last: bool) -> Rewrite | None:
    if getattr(n.op, "channels_last", last) == last:
        return None
    op = replace(n.op, channels_last=last)  # type: ignore[type-var]
    assert isinstance(op, Op)
    rank = m.type(n.inputs[0]).rank
    to_last, to_first = (0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))
    forward, back = (to_last, to_first) if last else (to_first, to_last)
    letters = LETTERS.get(rank - 2, "") if last else ""
    new: list[Node] = []
    moved: dict[str, str] = {}
    picked = _data_inputs(m, n)
    for i in picked:
        v = n.inputs[i]
        if v not in moved:
            moved[v] = m.fresh()
            new.append(Node(Transpose(forward, letters), (v,), (moved[v],), n.origin))
    inputs = tuple(moved[v] if i in picked else v for i, v in enumerate(n.inputs))
    outs = tuple(m.fresh() for _ in n.outputs)
    new.append(Node(op, inputs, outs, n.origin))
    for y, z in zip(n.outputs, outs, strict=True):
        new.append(Node(Transpose(back), (z,), (y,), n.origin))
    return Rewrite(tuple(new), (n,))


def _data_inputs(m: Match, n: Node) -> tuple[int, ...]:
    """Inputs laid out like the image: the first, and what an epilogue adds to the result."""
    extra = range(3, len(n.inputs)) if getattr(n.op, "epilogue", None) is not None else ()
    return (0, *(i for i in extra if m.type(n.inputs[i]).rank == m.type(n.inputs[0]).rank))


TO_LAST: tuple[tuple[str, Rule], ...] = (("channels_last", channels_last),)
TO_FIRST: tuple[tuple[str, Rule], ...] = (("channels_first", channels_first),)


def assign_layout(g: Graph, remarks: list[Remark] | None = None) -> Graph:
    """Channels-last windowed ops with the fewest elements transposed around them."""
    notes: list[Remark] = []
    start = apply_rules(apply_rules(g, TO_LAST, notes), TIDY, notes)
    best, why = _settled(start, notes), notes
    for _ in range(MAX_ROUNDS):
        tried: list[Remark] = []
        sunk = apply_rules(best, SINK, tried)
        other = _settled(sunk, tried) if sunk is not best else best
        if moved_elements(other) >= moved_elements(best):
            break
        best, why = other, why + tried
    if remarks is not None:
        remarks += why
        text = f"{moved_elements(start)} elements transposed, then {moved_elements(best)}"
        remarks.append(Remark("layout", g.name, text, moved_elements(best) < moved_elements(start)))
    return best


def read_codes(m: Match, n: Node) -> Rewrite | None:
    """Match a movement of dequantized codes; move the codes."""
    p = m.producer(n.inputs[0], Dequantize) if isinstance(n.op, (Transpose, Reshape)) else None
    if p is None:
        return None
    assert isinstance(p.op, Dequantize)
    op = _of_rank(p.op, m.type(n.outputs[0]).rank)
    if op is None:
        return None
    codes = m.fresh()
    move = Node(n.op, p.inputs, (codes,), n.origin)
    return Rewrite((move, Node(op, (codes,), n.outputs, p.origin)), (n,))


def write_codes(m: Match, n: Node) -> Rewrite | None:
    """Match the quantization of a moved value; move the codes."""
    p = m.producer(n.inputs[0]) if isinstance(n.op, Quantize) else None
    if p is None or not isinstance(p.op, (Transpose, Reshape)) or m.only_user(n.inputs[0]) is None:
        return None
    assert isinstance(n.op, Quantize)
    op = _of_rank(n.op, m.type(p.inputs[0]).rank)
    if op is None:
        return None
    codes = m.fresh()
    made = Node(op, p.inputs, (codes,), n.origin)
    return Rewrite((made, Node(p.op, (codes,), n.outputs, p.origin)), (n, p))


def _of_rank(op: _Coding, rank: int) -> _Coding | None:
    """The op over values of another rank; None where a scale is that of a channel."""
    q, ones = op.quant, (1,) * rank
    if q.scale.size > 1:
        return None
    return replace(
        op, quant=Affine(q.scale.reshape(ones), q.zero_point.reshape(ones), (-1,) * rank)
    )


MOVE_CODES: tuple[tuple[str, Rule], ...] = (
    *TIDY,
    ("read_codes", read_codes),
    ("write_codes", write_codes),
)


def standard_layout(g: Graph) -> Graph:
    """Channels-first windowed ops, the only ones that ONNX has; the same graph where all are.

    What is between codes then reads and writes them: transposes are of codes.
    """
    start = apply_rules(g, TO_FIRST)
    return g if start is g else apply_rules(prune(cse(apply_rules(start, SINK))), MOVE_CODES)


def _settled(g: Graph, notes: list[Remark]) -> Graph:
    """Equal transposes joined, and each as high as fewer elements move."""
    while True:
        done = apply_rules(prune(cse(g)), HOIST, notes)
        if moved_elements(done) >= moved_elements(g):
            return done if moved_elements(done) == moved_elements(g) else g
        g = done
