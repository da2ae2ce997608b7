"""Compute the input projection of a recurrent layer for all time steps at once.

    before   y = LSTM(x, w, r, b, ..)               x [T, B, I], w [4H, I]
    after    y = LSTM(x @ w' + b, -, r, -, ..)      one product of T * B rows; same for GRU, RNN

What is left in the loop over time is the recurrent product, which no other order can avoid. An
exported model wants the form before, so this comes late.
"""

from __future__ import annotations

from sparrow.graph import Node
from sparrow.ops.gru import GRU
from sparrow.ops.lstm import LSTM
from sparrow.ops.matmul import MatMul
from sparrow.ops.reshape import Reshape
from sparrow.ops.rnn import RNN
from sparrow.rewrite import Match, Rewrite


def hoist_projection(m: Match, n: Node) -> Rewrite | None:
    """Match a recurrent op that still has its input weights."""
    if not isinstance(n.op, (LSTM, GRU, RNN)) or not n.inputs[1]:
        return None
    x, w, r, *rest = n.inputs
    time, batch, width = m.type(x).shape
    rows, product, gates = m.fresh(), m.fresh(), m.fresh()
    bias = rest[0] if rest else ""
    operands = (rows, w, bias) if bias else (rows, w)
    nodes = (
        Node(Reshape((time * batch, width)), (x,), (rows,), n.origin),
        Node(MatMul(trans_b=True), operands, (product,), n.origin),
        Node(Reshape((time, batch, m.type(w).shape[0])), (product,), (gates,), n.origin),
        Node(n.op, trimmed(gates, "", r, "", *rest[1:]), n.outputs, n.origin),
    )
    return Rewrite(nodes, (n,))


def trimmed(*names: str) -> tuple[str, ...]:
    """Operands without the absent ones at the end."""
    used = len(names)
    while used and not names[used - 1]:
        used -= 1
    return names[:used]
