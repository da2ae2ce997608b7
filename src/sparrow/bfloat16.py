"""Let products be taken over bfloat16 where that is predicted to be faster.

    before   y = Conv(x, w, b)                                                float32
    after    x' = bfloat16(x)
             y = Conv(x', w', b) with sums in float32                         w' rounded now

A value whose other readers are elementwise is stored as bfloat16 only, by the node that computes
it; those readers see the rounded value. Sums, and everything in between, stay float32. Attention
whose operands are bfloat16 rounds the weights that it multiplies by the values, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from sparrow import lane
from sparrow.graph import Graph, Node, Op, retyped, verify
from sparrow.kernels.case import Case, Kernel, Tensor
from sparrow.ops.attention import Attention
from sparrow.ops.conv import Conv
from sparrow.ops.lane import Lane
from sparrow.ops.matmul import MatMul
from sparrow.ops.pad import Pad
from sparrow.ops.reshape import Reshape
from sparrow.rewrite import Remark, in_order, namer
from sparrow.selection import Choice, choose, tensors
from sparrow.targets import Target
from sparrow.tensor import BF16, F32, Array, TensorType, round_bfloat16, row_major

# A product must be predicted to gain this much: it gives up 16 bits, and Winograd's competes.
GAIN = 1.1
# Cycles per element of a loop that reads float32 and stores bfloat16: seven instructions a vector.
ROUNDING = 0.3
# Cycles per element of a copy that inserts a channel: element by element.
PADDING = 3.0

ROUNDED = Lane(lane.cast(lane.Arg(0, F32), BF16))


def halved(graphs: Sequence[Graph]) -> frozenset[str]:
    """Source names of the products that are taken over bfloat16."""
    return frozenset(
        n.origin or n.outputs[0]
        for g in graphs
        for n in g.nodes
        if getattr(n.op, "accumulate", None) is not None
    )


def to_bfloat16(
    g: Graph,
    target: Target,
    threads: int,
    kernels: Sequence[Kernel],
    remarks: list[Remark] | None = None,
    only: frozenset[str] | None = None,
) -> Graph:
    """``g`` after all passes with the products that gain over bfloat16; ``g`` if none does.

    Args:
        g: Entry point as the planner would take it.
        target: Device; decides by its kernels' predicted cycles.
        threads: Threads that tasks are cut for.
        kernels: Kernel table.
        remarks: Gets a line for every product.
        only: Source names of the products that may be; None: of all.
    """

    def may(n: Node) -> bool:
        return only is None or (n.origin or n.outputs[0]) in only

    source, g = g, _with_even_channels(g, may, target, threads, kernels)
    chosen: set[str] = set()
    for n in g.nodes:
        if not isinstance(n.op, Conv | MatMul) or g.types[n.inputs[0]].dtype != F32 or not may(n):
            continue
        why = _refusal(g, n, target, threads, kernels)
        if not why:
            chosen.add(n.outputs[0])
        if remarks is not None:
            text = why or "over bfloat16, sums in float32"
            remarks.append(Remark("bfloat16", n.origin or n.outputs[0], text, not why))

    def rounds(n: Node) -> bool:
        return _stores_halves(g, n, n.outputs[0] in chosen, target, threads, kernels)

    g = _rewritten(g, chosen, rounds) if chosen else source
    return _with_attention(g, may, target, threads, kernels, remarks)


def _with_even_channels(
    g: Graph, may: Callable[[Node], bool], target: Target, threads: int, kernels: Sequence[Kernel]
) -> Graph:
    """``g`` with a channel of zeros where an odd number of them keeps a convolution from a gain."""
    fresh = namer(g)
    consts: dict[str, Array] = dict(g.consts)
    padded: dict[str, str] = {}
    nodes: list[Node] = []
    for n in g.nodes:
        gains = isinstance(n.op, Conv) and may(n)
        if gains and _gains_by_a_channel(g, n, target, threads, kernels):
            x, w, *rest = n.inputs
            if x not in padded:
                padded[x] = fresh()
                pads = (*((0, 0) for _ in g.types[x].shape[:-1]), (0, 1))
                nodes.append(Node(Pad(pads), (x,), (padded[x],), n.origin))
            wide = fresh()
            consts[wide] = _one_more(g.consts[w], 1)
            n = replace(n, inputs=(padded[x], wide, *rest))
        nodes.append(n)
    return retyped(g, nodes, consts=consts) if padded else g


def _one_more(a: Array, axis: int) -> Array:
    return np.pad(a, [(0, int(i == axis)) for i in range(a.ndim)])


def _gains_by_a_channel(
    g: Graph, n: Node, target: Target, threads: int, kernels: Sequence[Kernel]
) -> bool:
    x, y = tensors(g, n)
    image, w = x[:2]
    assert isinstance(n.op, Conv) and image is not None and w is not None
    if not n.op.channels_last or n.op.group > 1 or image.type.dtype != F32 or w.const is None:
        return False
    *outer, c = image.shape
    if c % 2 == 0:
        return False
    t = replace(image.type, shape=(*outer, c + 1))
    wide = _one_more(w.const, 1)
    u = replace(w.type, shape=wide.shape)
    more = (Tensor(t, row_major(t.shape)), Tensor(u, row_major(u.shape), wide), *x[2:])
    now = choose(Case(n.op, x, y, target, threads), kernels)
    then = choose(Case(_over_halves(n.op), _halved(more), y, target, threads), kernels)
    if not isinstance(now, Choice) or not isinstance(then, Choice):
        return False
    return GAIN * (then.lowered.cycles + (ROUNDING + PADDING) * t.size) < now.lowered.cycles


def _refusal(g: Graph, n: Node, target: Target, threads: int, kernels: Sequence[Kernel]) -> str:
    """Why a product stays float32; empty when it does not."""
    x, y = tensors(g, n)
    if x[1] is None or x[1].const is None:
        return "its weights are not constant"
    return _costs_more(
        Case(n.op, x, y, target, threads),
        Case(_over_halves(n.op), _halved(x), y, target, threads),
        0 if _stored_as_read(g, n.inputs[0]) else g.types[n.inputs[0]].size,
        kernels,
    )


def _costs_more(now: Case, then: Case, rounded: int, kernels: Sequence[Kernel]) -> str:
    """Why a node that rounds so many elements first is not worth it; empty where it is."""
    float32, half = choose(now, kernels), choose(then, kernels)
    if not isinstance(half, Choice):
        return half
    assert isinstance(float32, Choice)
    before, after = float32.lowered.cycles, half.lowered.cycles + ROUNDING * rounded
    if GAIN * after >= before:
        return f"float32 costs no more ({before:.0f} cycles against {after:.0f})"
    return ""


def _stored_as_read(g: Graph, x: str) -> bool:
    """Whether the node that computes a value may be the one that rounds it."""
    made = g.producers().get(x)
    readers = g.users().get(x, ())
    return (
        made is not None
        and isinstance(made.op, Conv | MatMul | Lane)
        and x not in g.live_out()
        and all(isinstance(u.op, Conv | MatMul | Lane) for u in readers)
    )


def _halved(x: tuple[Tensor | None, ...], count: int = 2) -> tuple[Tensor | None, ...]:
    """Operands, what is multiplied, the first ``count``, in bfloat16."""
    first = (replace(t, type=replace(t.type, dtype=BF16)) for t in x[:count] if t is not None)
    return (*first, *x[count:])


def _stores_halves(
    g: Graph, n: Node, chosen: bool, target: Target, threads: int, kernels: Sequence[Kernel]
) -> bool:
    """Whether a node can round its result itself."""
    if not isinstance(n.op, Conv | MatMul | Lane):
        return False
    x, (y,) = tensors(g, n)
    half = replace(y, type=replace(y.type, dtype=BF16))
    op = _over_halves(n.op) if chosen else n.op
    case = Case(_rounds(op), _halved(x) if chosen else x, (half,), target, threads)
    return isinstance(choose(case, kernels), Choice)


def _over_halves(op: Op) -> Op:
    assert isinstance(op, Conv | MatMul)
    return replace(op, accumulate=F32)


def _rewritten(g: Graph, chosen: set[str], rounds: Callable[[Node], bool]) -> Graph:
    fresh = namer(g)
    producers, users, kept = g.producers(), g.users(), g.live_out()
    rounded: dict[str, str] = {}  # value -> its name in bfloat16
    for n in g.nodes:
        if n.outputs[0] in chosen:
            rounded.setdefault(n.inputs[0], fresh())
    stored = {
        x
        for x in rounded
        if x in producers
        and x not in kept
        and all(_reads_halves(u, x, u.outputs[0] in chosen) for u in users[x])
        and rounds(producers[x])
    }
    consts: dict[str, Array] = dict(g.consts)
    types: dict[str, TensorType] = dict(g.types)
    weights: dict[str, str] = {}
    nodes: list[Node] = []
    for n in g.nodes:
        inputs, op = list(n.inputs), n.op
        if n.outputs[0] in chosen:
            w = inputs[1]
            if w not in weights:
                weights[w] = fresh()
                consts[weights[w]] = round_bfloat16(g.consts[w])
                types[weights[w]] = replace(g.types[w], dtype=BF16)
            inputs[:2] = [rounded[inputs[0]], weights[w]]
            op = _over_halves(op)
        for i, x in enumerate(inputs):
            if x in stored:
                op, inputs[i] = _widens(op, i), rounded[x]
        y = n.outputs[0]
        if y in stored:
            nodes.append(Node(_rounds(op), tuple(inputs), (rounded[y],), n.origin))
        else:
            nodes.append(Node(op, tuple(inputs), n.outputs, n.origin))
    for x, half in rounded.items():
        if x not in stored:
            origin = producers[x].origin if x in producers else x
            nodes.append(Node(ROUNDED, (x,), (half,), origin))
    done = retyped(g, in_order(nodes), consts=consts, types=types)
    verify(done)
    return done


def _with_attention(
    g: Graph,
    may: Callable[[Node], bool],
    target: Target,
    threads: int,
    kernels: Sequence[Kernel],
    remarks: list[Remark] | None,
) -> Graph:
    """``g``, products over bfloat16, with attention that gains over bfloat16 as well.

    Operands are stored as bfloat16 by the product that computes them, results by the attention.
    """
    fresh = namer(g)
    ops: dict[str, Op] = {}  # of nodes that change, by their result
    halves: dict[str, str] = {}  # value -> its name in bfloat16
    again: dict[str, str] = {}  # rounded value -> the same, stored as bfloat16
    taken: set[str] = set()
    for n in g.nodes:
        if not isinstance(n.op, Attention) or g.types[n.inputs[0]].dtype != F32 or not may(n):
            continue
        makers = {v: _maker(g, v, target, threads, kernels) for v in n.inputs[:3]}
        unasked = sum(g.types[v].size for v, made in makers.items() if made is None)
        x, y = tensors(g, n)
        op = replace(n.op, accumulate=F32)
        why = _costs_more(
            Case(n.op, x, y, target, threads),
            Case(op, _halved(x, 3), y, target, threads),
            unasked,
            kernels,
        )
        if remarks is not None:
            text = why or "over bfloat16, sums in float32"
            remarks.append(Remark("bfloat16", n.origin or n.outputs[0], text, not why))
        if why:
            continue
        taken.add(n.outputs[0])
        for v, made in makers.items():
            if made is None:
                halves.setdefault(v, fresh())
            else:
                ops[made.outputs[0]] = _rounds(made.op)
        stored, rounding = _rounding_reader(g, n.outputs[0])
        if rounding is not None:
            again[rounding.outputs[0]] = stored
            op = replace(op, dtype=BF16)
        ops[n.outputs[0]] = op
    if not taken:
        return g
    nodes: list[Node] = []
    for n in g.nodes:
        if n.outputs[0] in again:
            continue
        inputs = [again.get(x, x) for x in n.inputs]
        if n.outputs[0] in taken:
            inputs[:3] = (halves.get(x, x) for x in inputs[:3])
        nodes.append(replace(n, op=ops.get(n.outputs[0], n.op), inputs=tuple(inputs)))
    producers = g.producers()
    for v, half in halves.items():
        origin = producers[v].origin if v in producers else v
        nodes.append(Node(ROUNDED, (v,), (half,), origin))
    done = retyped(g, in_order(nodes))
    verify(done)
    return done


def _rounding_reader(g: Graph, y: str) -> tuple[str, Node | None]:
    """What a value is reshaped to for its only reader, and that reader where it only rounds."""
    users, kept = g.users(), g.live_out()
    while y not in kept and len(users.get(y, ())) == 1:
        (reader,) = users[y]
        if not isinstance(reader.op, Reshape):
            return y, reader if reader.op == ROUNDED else None
        y = reader.outputs[0]
    return y, None


def _maker(
    g: Graph, x: str, target: Target, threads: int, kernels: Sequence[Kernel]
) -> Node | None:
    """The node that may store a value as bfloat16, from which it is reshaped; None if none may."""
    made, users, kept = g.producers(), g.users(), g.live_out()
    while x in made and x not in kept and len({id(u) for u in users[x]}) == 1:
        n = made[x]
        if not isinstance(n.op, Reshape):
            return n if _stores_halves(g, n, False, target, threads, kernels) else None
        x = n.inputs[0]
    return None


def _reads_halves(n: Node, x: str, chosen: bool) -> bool:
    """Whether a node can take a value as bfloat16, in every place where it reads it."""
    at = {i for i, v in enumerate(n.inputs) if v == x}
    if isinstance(n.op, Lane):
        return True
    if not isinstance(n.op, Conv | MatMul):
        return False
    return all(i >= 3 or (chosen and i == 0) for i in at)


def _widens(op: Op, i: int) -> Op:
    """``op`` with operand ``i`` of its expression, now bfloat16, brought back to float32."""
    if isinstance(op, Lane):
        return replace(op, expr=_replaced(op.expr, i))
    assert isinstance(op, Conv | MatMul) and op.epilogue is not None and i >= 3
    return replace(op, epilogue=_replaced(op.epilogue, i - 2))


def _replaced(e: lane.Expr, index: int) -> lane.Expr:
    arguments = {a.index: a for a in lane.walk(e) if isinstance(a, lane.Arg)}
    operands: list[lane.Expr] = [
        arguments.get(k, lane.Arg(k, F32)) for k in range(max(arguments) + 1)
    ]
    operands[index] = lane.cast(lane.Arg(index, BF16), F32)
    return lane.substitute(e, operands)


def _rounds(op: Op) -> Op:
    """``op`` with its float32 result rounded to bfloat16."""
    if isinstance(op, Lane):
        return replace(op, expr=_rounded(op.expr))
    assert isinstance(op, Conv | MatMul)
    total = op.epilogue if op.epilogue is not None else lane.Arg(0, F32)
    return replace(op, epilogue=_rounded(total))


def _rounded(e: lane.Expr) -> lane.Expr:
    """``e`` as bfloat16; what is one brought to float32, as it was."""
    if isinstance(e, lane.Call) and e.fn == "cast" and e.args[0].dtype == BF16:
        return e.args[0]
    return lane.cast(e, BF16)


__all__ = ["halved", "to_bfloat16"]
