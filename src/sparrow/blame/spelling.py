"""One spelling for the float graph and the quantized one.

A function such as the hard sigmoid is one op in one file and its steps in another, and passes fold
the steps that multiply and add into the weights before them. So that layers of both graphs compute
the same from the same weights, the steps are parted from the function in both before they fold.
What folded into the weights behind is taken out again where the other graph has codes in between.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from sparrow import lane
from sparrow.graph import Graph, Node, retyped
from sparrow.ops.lane import Lane
from sparrow.ops.quantize import Dequantize, Quantize
from sparrow.passes import FRONT, optimize
from sparrow.passes.affine import SUMS
from sparrow.tensor import F32, Array

# What recognizes float ops and leaves Quantize and Dequantize where they are.
RECOGNIZE = tuple(p for p in FRONT if p.name not in ("integer", "lower_quant"))
_LINEAR = ("add", "sub", "mul", "div", "neg")
# Folding multiplies float weights once more and rounds the product.
_SAME = 1e-5


def spelled_alike(g: Graph, kept: Collection[str] = ()) -> Graph:
    """``g`` with what multiplies and adds behind a product in its weights.

    Args:
        g: Any.
        kept: Results of products that stay: the other graph has codes there.
    """
    parted = _parted(g, kept)
    return g if parted is g else optimize(parted, RECOGNIZE)


def unfolded(g: Graph, other: Graph) -> Graph:
    """``g`` with what passes took into the weights behind it, where the other graph has its codes.

    A value times a number, as a GELU written out ends with, is part of the weights of products that
    read it. Files of other quantizers have codes of it, and the model's weights behind them.
    """
    made, readers = other.producers(), other.users()
    for n in other.nodes:
        y, factor = n.outputs[0], _factor(n)
        coded = any(isinstance(u.op, Quantize) for u in readers.get(y, ()))
        if factor is None or not coded or y in g.types:
            continue
        x = n.inputs[0]
        while (back := made.get(x)) is not None and isinstance(back.op, Quantize | Dequantize):
            x = back.inputs[0]
        g = _multiplied(g, x, y, factor)
    return g


def _factor(n: Node) -> np.float32 | None:
    """The number that a value is multiplied with, or None."""
    e = n.op.expr if isinstance(n.op, Lane) and len(n.inputs) == 1 else None
    if not isinstance(e, lane.Call) or e.fn not in ("mul", "div") or len(e.args) != 2:
        return None
    numbers = [a.value for a in e.args if isinstance(a, lane.Imm)]
    if len(numbers) != 1 or not any(isinstance(a, lane.Arg) for a in e.args):
        return None
    if e.fn == "div" and isinstance(e.args[0], lane.Imm):
        return None
    found = np.float32(1 / numbers[0] if e.fn == "div" and numbers[0] else numbers[0])
    return found if np.isfinite(found) and found else None


def _multiplied(g: Graph, x: str, y: str, factor: np.float32) -> Graph:
    """``g`` with y = factor x, whose inverse is part of the weights of what reads x."""
    users = g.users().get(x, [])
    if x in g.outputs or not all(
        isinstance(u.op, SUMS)
        and u.op.epilogue is None
        and u.inputs.count(x) == 1
        and u.inputs[0] == x
        and u.inputs[1] in g.consts
        for u in users
    ):
        return g
    product = lane.call("mul", lane.Arg(0, F32), lane.Imm(float(factor), F32))
    nodes: list[Node] = []
    consts = dict(g.consts)
    for n in g.nodes:
        if n not in users:
            nodes.append(n)
            continue
        if not any(y in m.outputs for m in nodes):
            nodes.append(Node(Lane(product), (x,), (y,), n.origin))
        w = f"{n.inputs[1]}%{y}"
        consts[w] = (g.consts[n.inputs[1]] / factor).astype(np.float32)
        nodes.append(replace(n, inputs=(y, w, *n.inputs[2:])))
    return retyped(g, nodes, consts=consts)


def _parted(g: Graph, kept: Collection[str]) -> Graph:
    """Functions of a product's result as what is linear of them, and the rest."""
    made, users = g.producers(), g.users()
    nodes: list[Node] = []
    for n in g.nodes:
        inner = _linear(n.op.expr) if isinstance(n.op, Lane) and len(n.inputs) == 1 else None
        before = made.get(n.inputs[0]) if inner is not None else None
        foldable = (
            before is not None
            and isinstance(before.op, SUMS)
            and before.op.epilogue is None
            and before.inputs[1] in g.consts
            and len(users[n.inputs[0]]) == 1
            and n.inputs[0] not in g.outputs
            and n.inputs[0] not in kept
        )
        if not foldable or inner is None:
            nodes.append(n)
            continue
        value = f"{n.outputs[0]}%linear"
        assert isinstance(n.op, Lane)
        rest = Lane(lane.replaced(n.op.expr, inner, lane.Arg(0, inner.dtype)))
        nodes += [
            Node(Lane(inner), n.inputs, (value,), n.origin),
            replace(n, op=rest, inputs=(value,)),
        ]
    return g if len(nodes) == len(g.nodes) else retyped(g, nodes)


def _linear(e: lane.Expr) -> lane.Call | None:
    """The largest part, not all, of a function that reads its operand once and is linear in it."""
    if sum(isinstance(x, lane.Arg) for x in lane.walk(e)) != 1:
        return None
    found: lane.Call | None = None
    at = e
    while isinstance(at, lane.Call):
        fits = at.fn in _LINEAR and (at.fn != "div" or isinstance(at.args[-1], lane.Imm))
        found = (found or at) if fits else None
        at = next(x for x in at.args if any(isinstance(y, lane.Arg) for y in lane.walk(x)))
    return None if found is e else found


def steps_of_folded(
    before: Mapping[str, Array], steps: Mapping[str, Array], after: Mapping[str, Array]
) -> dict[str, Array]:
    """Scales of the codes of weights that folding made anew.

    Args:
        before: Constants before it.
        steps: Of some of those, the scales of their codes, flat.
        after: Constants after it.
    """
    found = {}
    for x, w in after.items():
        if x in steps or w.ndim < 2:
            continue
        for y, step in steps.items():
            ratio = _ratio(before[y], w, step.size) if before[y].shape == w.shape else None
            if ratio is not None:
                found[x] = step * ratio
                break
    return found


def _ratio(v: Array, w: Array, channels: int) -> Array | None:
    """What each channel of ``v`` is multiplied with to give ``w``, or None; [channels] or [1]."""
    axes = [i for i, n in enumerate(v.shape) if n == channels] if channels > 1 else [None]
    for axis in axes:
        rows, others = (
            (x.reshape(1, -1) if axis is None else np.moveaxis(x, axis, 0).reshape(channels, -1))
            for x in (v, w)
        )
        power = np.square(rows[:1], dtype=np.float64).sum()
        first = (rows[:1] * others[:1]).sum(dtype=np.float64) / max(power, 1e-300)
        if not np.allclose(rows[:1] * first, others[:1], rtol=_SAME, atol=0):
            continue
        power = np.square(rows, dtype=np.float64).sum(1, keepdims=True)
        each = (rows * others).sum(1, dtype=np.float64, keepdims=True) / np.maximum(power, 1e-300)
        if np.allclose(rows * each, others, rtol=_SAME, atol=0):
            ratio: Array = np.abs(each).reshape(-1).astype(np.float32)
            return ratio
    return None
